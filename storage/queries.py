"""Reads: a session, a trace or a span as a record, sums of a project. Bodies are rebuild.py's.

Invariants: every statement names the project, and its work is bounded by its limit, not by the size
of the database. Many spans are read in outline: attributes and headers may be a megabyte each, and
only who shows those has them unpacked. Owns which fields a record is read from. Lists are
listing.py's.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from storage.aggregates import AMOUNTS
from storage.database import Params, Readable, Row, Value
from storage.parameters import clean_text
from storage.records import RUNNING, Body, Session, Span, Tokens, Trace
from storage.squeeze import expand, expanded_size
from storage.totals import Stats

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# A trace's spans in one answer: as many traces as an answer gives of a session.
MAX_SPANS: Final = 10_000
# More take longer than half a millisecond, and are work for a thread.
INLINE_SPANS: Final = 50
# Unpacking this much takes a tenth of a millisecond; more is work for a thread as well.
INLINE_BYTES: Final = 64 * 1024

_SESSION: Final = (
    *("project_id", "session_id", "seq", "source", "name", "starred", "user_id", "status"),
    *("trace_count", "span_count", "failed_trace_count", "ended_trace_count"),
    *("ended_duration_us", "unpriced_count", "estimated_count", "received_bytes", "stored_bytes"),
    "first_started_at_us",
    *("last_ended_at_us", "last_active_at_us", "first_input", "last_output", "last_error"),
    *AMOUNTS,
)
# A session comes once for each of its models, so that one statement sees one moment.
SESSION_FIELDS: Final = f"m.model, {', '.join(f's.{c}' for c in _SESSION)}"
WITH_MODELS: Final = """
LEFT JOIN session_models m ON m.project_id = s.project_id AND m.session_id = s.session_id
"""
SELECT_SESSIONS: Final = f"""
SELECT {SESSION_FIELDS} FROM sessions s {WITH_MODELS} WHERE s.project_id = :project_id
"""
GET_SESSION: Final = f"{SELECT_SESSIONS} AND s.session_id = :session_id ORDER BY m.model"


async def get_session(db: Readable, project_id: int, session_id: str) -> Session | None:
    """Read one session; None where there is none."""
    key: dict[str, Value] = {"project_id": project_id, "session_id": clean_text(session_id)}
    sessions = sessions_of(await db.read(GET_SESSION, key))
    return sessions[0] if sessions else None


async def get_sessions(
    db: Readable, project_id: int, session_ids: Iterable[str]
) -> dict[str, Session]:
    """Read those of these sessions that are there, some hundreds at most."""
    names, params = _named(project_id, session_ids)
    if not names:
        return {}
    sql = f"{SELECT_SESSIONS} AND s.session_id IN ({names}) ORDER BY s.session_id, m.model"
    return {session.session_id: session for session in sessions_of(await db.read(sql, params))}


def _named(project_id: int, values: Iterable[Value]) -> tuple[str, Params]:
    """Give each value a name: their list for SQL, and the parameters."""
    params: dict[str, Value] = {f"v{n}": value for n, value in enumerate(values)}
    return ", ".join(f":{name}" for name in params), {**params, "project_id": project_id}


def sessions_of(rows: Iterable[Row]) -> list[Session]:
    """Read rows of ``SESSION_FIELDS``: one for each model of a session, which follow each other."""
    found: dict[Row, list[str]] = {}
    for model, *row in rows:
        models = found.setdefault(tuple(row), [])
        if model is not None:
            models.append(model)
    return [_session(row, models) for row, models in found.items()]


def _session(row: Row, models: list[str]) -> Session:
    values = dict(zip(_SESSION, row, strict=True))
    cost_nusd = values.pop("cost_nusd")
    tokens = Tokens(**{c.removesuffix("_tokens"): values.pop(c) for c in AMOUNTS[:-1]})
    values["starred"] = bool(values["starred"])
    return Session(**values, tokens=tokens, cost_nusd=cost_nusd, models=tuple(models))


_TRACE: Final = (
    *("project_id", "trace_id", "seq", "session_id", "session_source", "user_id", "name"),
    *("status", "started_at_us", "span_count", "unpriced_count", "estimated_count"),
    *("received_bytes", "stored_bytes"),
    *("input_preview", "output_preview", "error", "last_ended_at_us"),
    *("tags", "linked_trace_id"),
    *AMOUNTS,
)
TRACE_FIELDS: Final = ", ".join(f"s.{c}" for c in _TRACE)
SELECT_TRACES: Final = f"SELECT {TRACE_FIELDS} FROM traces s WHERE s.project_id = :project_id"
GET_TRACE: Final = f"{SELECT_TRACES} AND s.trace_id = :trace_id"


async def get_trace(db: Readable, project_id: int, trace_id: bytes) -> Trace | None:
    """Read one trace; None where there is none."""
    rows = await db.read(GET_TRACE, {"project_id": project_id, "trace_id": trace_id})
    return trace_of(rows[0]) if rows else None


async def get_traces(
    db: Readable, project_id: int, trace_ids: Iterable[bytes]
) -> dict[bytes, Trace]:
    """Read those of these traces that are there, some hundreds at most."""
    names, params = _named(project_id, trace_ids)
    if not names:
        return {}
    rows = await db.read(f"{SELECT_TRACES} AND s.trace_id IN ({names})", params)
    return {trace.trace_id: trace for trace in map(trace_of, rows)}


def trace_of(row: Row) -> Trace:
    """Read a row of ``TRACE_FIELDS``."""
    values = dict(zip(_TRACE, row, strict=True))
    cost_nusd = values.pop("cost_nusd")
    tokens = Tokens(**{c.removesuffix("_tokens"): values.pop(c) for c in AMOUNTS[:-1]})
    last_ended_at_us = values.pop("last_ended_at_us")
    ended_at_us = None if values["status"] == RUNNING else last_ended_at_us
    tags = values.pop("tags")
    values["tags"] = () if tags is None else tuple(json.loads(tags))
    return Trace(**values, ended_at_us=ended_at_us, tokens=tokens, cost_nusd=cost_nusd)


_SPAN: Final = (
    *("project_id", "trace_id", "span_id", "parent_id", "seq", "kind", "name", "state", "error"),
    *("ended_by", "phase", "started_at_us", "duration_us", "first_byte_us", "first_token_us"),
    *("upstream", "provider", "operation", "method", "path", "query", "http_status"),
    *("model_requested", "model", "service_tier", "response_id", "settled_by", "usage_source"),
    *("cost_status", "price_version", "input_preview", "output_preview"),
    *("notes", "label", "same_call", "moved_from", "owner"),
    *AMOUNTS,
)
_BODY: Final = ("size", "sha256", "truncated", "redacted", "type", "encoding")
OUTLINE_FIELDS: Final = f"""
{", ".join(f"s.{c}" for c in _SPAN)},
{", ".join(f"s.request_{c}" for c in _BODY)},
s.request_content_id IS NOT NULL OR s.request_envelope IS NOT NULL, 0,
{", ".join(f"s.response_{c}" for c in _BODY)},
s.response_content_id IS NOT NULL OR s.response_envelope IS NOT NULL, s.response_assembled
"""
# What was said of a span beside its columns, squeezed.
SAID: Final = ("attributes", "request_head", "response_head")
SPAN_FIELDS: Final = f"{OUTLINE_FIELDS}, {', '.join(f's.{c}' for c in SAID)}"
SELECT_OUTLINES: Final = f"SELECT {OUTLINE_FIELDS} FROM spans s WHERE s.project_id = :project_id"
TRACE_OUTLINES: Final = f"""
{SELECT_OUTLINES} AND s.trace_id = :trace_id ORDER BY s.started_at_us, s.seq LIMIT :limit
"""


async def trace_outlines(
    db: Readable, project_id: int, trace_id: bytes, limit: int = MAX_SPANS
) -> tuple[Span, ...]:
    """Read the spans of a trace in outline, oldest first, up to ``limit``."""
    key: dict[str, Value] = {"project_id": project_id, "trace_id": trace_id, "limit": limit}
    return await read_outlines(await db.read(TRACE_OUTLINES, key))


async def read_outlines(rows: Sequence[Row]) -> tuple[Span, ...]:
    """Read rows of ``OUTLINE_FIELDS``, many of them beside the event loop."""
    if len(rows) <= INLINE_SPANS:
        return _outlines_of(rows)
    return await asyncio.to_thread(_outlines_of, rows)


def _outlines_of(rows: Iterable[Row]) -> tuple[Span, ...]:
    return tuple(map(outline_of, rows))


# A span's id is unique in its trace only; of two that came with the same, the older one is it.
GET_SPAN: Final = f"""
SELECT {SPAN_FIELDS} FROM spans s WHERE s.project_id = :project_id AND s.span_id = :span_id
ORDER BY s.started_at_us, s.seq LIMIT 1
"""


async def get_span(db: Readable, project_id: int, span_id: bytes) -> Span | None:
    """Read one span with all that was said of it; None where there is none.

    Raises DatabaseCorrupt where that does not expand.
    """
    rows = await db.read(GET_SPAN, {"project_id": project_id, "span_id": span_id})
    return await _whole(rows[0]) if rows else None


# By its number, which no index has behind the project.
NUMBERED_SPAN: Final = f"""
SELECT {SPAN_FIELDS} FROM spans s WHERE s.project_id + 0 = :project_id AND s.seq = :seq
"""


async def numbered_span(db: Readable, project_id: int, seq: int) -> Span | None:
    """Read the span of this number with all that was said of it; None where there is none.

    Raises DatabaseCorrupt where that does not expand.
    """
    rows = await db.read(NUMBERED_SPAN, {"project_id": project_id, "seq": seq})
    return await _whole(rows[0]) if rows else None


async def _whole(row: Row) -> Span:
    said = (value for value in row[-len(SAID) :] if value is not None)
    if sum(map(expanded_size, said)) <= INLINE_BYTES:
        return span_of(row)
    return await asyncio.to_thread(span_of, row)


# What is named by numbers is looked up by them: SQLite, which knows no sizes, would take a list of
# hundreds for more than all that the project has. So the project is no way in (`+ 0`).
# So many in one statement, which is then the same one each time.
_AT_ONCE: Final = 100
IDS: Final = ", ".join(f":id{n}" for n in range(_AT_ONCE))


def batches(ids: Sequence[int]) -> Iterator[dict[str, Value]]:
    """Give the parameters for so many ids at once; the last ones are filled up with 0, no id."""
    for start in range(0, len(ids), _AT_ONCE):
        some = [*ids[start : start + _AT_ONCE], *[0] * _AT_ONCE]
        yield {f"id{n}": some[n] for n in range(_AT_ONCE)}


def span_of(row: Row) -> Span:
    """Read a row of ``SPAN_FIELDS``.

    Raises DatabaseCorrupt where what was said of the span does not expand.
    """
    said = (None if value is None else expand(value) for value in row[-len(SAID) :])
    attributes, request_head, response_head = said
    return replace(
        outline_of(row[: -len(SAID)]),
        attributes=attributes,
        request_headers=None if request_head is None else request_head.decode(),
        response_headers=None if response_head is None else response_head.decode(),
    )


def outline_of(row: Row) -> Span:
    """Read a row of ``OUTLINE_FIELDS``: a span of whose attributes and headers nothing is read."""
    values = dict(zip(_SPAN, row, strict=False))
    cost_nusd = values.pop("cost_nusd")
    tokens = Tokens(**{c.removesuffix("_tokens"): values.pop(c) for c in AMOUNTS[:-1]})
    notes = values.pop("notes")
    ended, handed_in = values["duration_us"], values.pop("owner") is None
    return Span(
        **values,
        handed_in=handed_in,
        request_headers=None,
        response_headers=None,
        ended_at_us=None if ended is None else values["started_at_us"] + ended,
        tokens=tokens,
        cost_nusd=cost_nusd,
        request=_body(*row[len(_SPAN) : len(_SPAN) + len(_BODY) + 2]),
        response=_body(*row[len(_SPAN) + len(_BODY) + 2 :]),
        notes=() if notes is None else tuple(notes.split("\n")),
    )


def _body(
    size: int,
    sha256: bytes | None,
    truncated: int | None,
    redacted: int,
    content_type: str | None,
    encoding: str | None,
    stored: int,
    assembled: int | None,
) -> Body | None:
    # Where there was no body all of its columns are NULL.
    if truncated is None:
        return None
    return Body(
        size=size,
        sha256=sha256,
        content_type=content_type,
        content_encoding=encoding,
        truncated=bool(truncated),
        redacted=bool(redacted),
        assembled=bool(assembled),
        stored=bool(stored),
    )


# Running spans have an index of their own, so that counting them reads no others (`+ 0`: SQLite
# would take that of all spans of the project).
GET_STATS: Final = """
SELECT (SELECT COUNT(*) FROM sessions WHERE project_id = :project_id),
(SELECT COUNT(*) FROM spans WHERE state = 'running' AND project_id + 0 = :project_id),
trace_count, span_count, unpriced_count, estimated_count, received_bytes, stored_bytes,
CASE WHEN counted_input_traces > 0 THEN input_tokens END,
CASE WHEN counted_output_traces > 0 THEN output_tokens END,
CASE WHEN priced_traces > 0 THEN cost_nusd END
FROM project_totals WHERE project_id = :project_id
"""


async def stats(db: Readable, project_id: int) -> Stats:
    """Read the sums over a project."""
    rows = await db.read(GET_STATS, {"project_id": project_id})
    row = rows[0] if rows else (0, 0, 0, 0, 0, 0, 0, 0, None, None, None)
    return Stats(
        session_count=row[0],
        running_span_count=row[1],
        trace_count=row[2],
        span_count=row[3],
        unpriced_count=row[4],
        estimated_count=row[5],
        received_bytes=row[6],
        stored_bytes=row[7],
        input_tokens=row[8],
        output_tokens=row[9],
        cost_nusd=row[10],
    )


GET_PROJECT: Final = "SELECT id FROM projects WHERE name = :name"


async def project_id(db: Readable, name: str) -> int | None:
    """Look up a project; None where there is none."""
    rows = await db.read(GET_PROJECT, {"name": clean_text(name)})
    return rows[0][0] if rows else None
