"""Reads: sessions, traces and spans as records, sums of a project. Bodies are rebuild.py's.

Invariant: every statement names the project, and its work is bounded by its limit, not by the size
of the database. Lists go on after a (time, seq) that the page before gave. Search is search.py's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from storage.aggregates import AMOUNTS
from storage.database import Database, Params, Readable, Row, Value
from storage.parameters import clean_text
from storage.records import RUNNING, Body, Page, Session, Span, Stats, Tokens, Trace
from storage.squeeze import expand

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

After = tuple[int, int]

# A trace's spans in one answer: as many traces as an answer gives of a session.
MAX_SPANS: Final = 10_000

_SESSION: Final = (
    *("project_id", "session_id", "seq", "source", "name", "starred", "user_id", "status"),
    *("trace_count", "span_count", "failed_trace_count", "ended_trace_count"),
    *("ended_duration_us", "unpriced_count", "estimated_count", "received_bytes", "stored_bytes"),
    "first_started_at_us",
    *("last_ended_at_us", "last_active_at_us", "first_input", "last_output", "last_error"),
    *AMOUNTS,
)
# A session comes once for each of its models, so that one statement sees one moment.
SELECT_SESSIONS: Final = f"""
SELECT m.model, {", ".join(f"s.{c}" for c in _SESSION)} FROM (
  SELECT * FROM sessions WHERE project_id = :project_id"""
WITH_MODELS: Final = """
) s LEFT JOIN session_models m ON m.project_id = s.project_id AND m.session_id = s.session_id
ORDER BY s.last_active_at_us DESC, s.seq DESC, m.model"""
SESSIONS_AFTER: Final = "AND (last_active_at_us, seq) < (:after_us, :after_seq)"
NEWEST_SESSIONS: Final = "ORDER BY last_active_at_us DESC, seq DESC LIMIT :limit"


@dataclass(frozen=True, slots=True)
class Condition:
    """What else the rows of a list fulfil: SQL that begins with AND, and its parameters."""

    sql: str
    params: Params


async def list_sessions(
    db: Database,
    project_id: int,
    limit: int,
    after: After | None = None,
    having: Condition | None = None,
) -> Page[Session]:
    """List sessions, the most recently active first."""
    after_us, after_seq = after or (0, 0)
    condition = "" if after is None else SESSIONS_AFTER
    if having is not None:
        condition = f"{condition} {having.sql}"
    rows = await db.read(
        f"{SELECT_SESSIONS} {condition} {NEWEST_SESSIONS} {WITH_MODELS}",
        # One row more than asked tells whether there is another page.
        {
            "project_id": project_id,
            "limit": limit + 1,
            "after_us": after_us,
            "after_seq": after_seq,
            **({} if having is None else having.params),
        },
    )
    sessions = _sessions(rows)
    if len(sessions) <= limit:
        return Page(tuple(sessions), None)
    last = sessions[limit - 1]
    return Page(tuple(sessions[:limit]), (last.last_active_at_us, last.seq))


GET_SESSION: Final = f"{SELECT_SESSIONS} AND session_id = :session_id {WITH_MODELS}"


async def get_session(db: Database, project_id: int, session_id: str) -> Session | None:
    """Read one session; None where there is none."""
    key: dict[str, Value] = {"project_id": project_id, "session_id": clean_text(session_id)}
    sessions = _sessions(await db.read(GET_SESSION, key))
    return sessions[0] if sessions else None


async def get_sessions(
    db: Readable, project_id: int, session_ids: Iterable[str]
) -> dict[str, Session]:
    """Read those of these sessions that are there, some hundreds at most."""
    names, params = _named(project_id, session_ids)
    if not names:
        return {}
    sql = f"{SELECT_SESSIONS} AND session_id IN ({names}) {WITH_MODELS}"
    return {session.session_id: session for session in _sessions(await db.read(sql, params))}


def _named(project_id: int, values: Iterable[Value]) -> tuple[str, Params]:
    """Give each value a name: their list for SQL, and the parameters."""
    params: dict[str, Value] = {f"v{n}": value for n, value in enumerate(values)}
    return ", ".join(f":{name}" for name in params), {**params, "project_id": project_id}


def _sessions(rows: list[Row]) -> list[Session]:
    """Join the rows of a session, one for each of its models, which follow each other."""
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
    *AMOUNTS,
)
SELECT_TRACES: Final = f"SELECT {', '.join(_TRACE)} FROM traces WHERE project_id = :project_id"
OF_SESSION: Final = "AND session_id = :session_id"
STARTED_BEFORE: Final = "AND (started_at_us, seq) < (:after_us, :after_seq)"
STARTED_AFTER: Final = "AND (started_at_us, seq) > (:after_us, :after_seq)"
NEWEST_FIRST: Final = "ORDER BY started_at_us DESC, seq DESC LIMIT :limit"
OLDEST_FIRST: Final = "ORDER BY started_at_us, seq LIMIT :limit"


async def list_traces(
    db: Database,
    project_id: int,
    limit: int,
    after: After | None = None,
    *,
    session_id: str | None = None,
    newest_first: bool = True,
) -> Page[Trace]:
    """List the traces of a project or of one of its sessions by their start."""
    after_us, after_seq = after or (0, 0)
    sql = [SELECT_TRACES]
    if session_id is not None:
        sql.append(OF_SESSION)
    if after is not None:
        sql.append(STARTED_BEFORE if newest_first else STARTED_AFTER)
    sql.append(NEWEST_FIRST if newest_first else OLDEST_FIRST)
    rows = await db.read(
        " ".join(sql),
        {
            "project_id": project_id,
            "session_id": None if session_id is None else clean_text(session_id),
            "limit": limit + 1,
            "after_us": after_us,
            "after_seq": after_seq,
        },
    )
    traces = [trace_of(row) for row in rows]
    if len(traces) <= limit:
        return Page(tuple(traces), None)
    last = traces[limit - 1]
    return Page(tuple(traces[:limit]), (last.started_at_us, last.seq))


async def session_traces(
    db: Database, project_id: int, session_id: str, limit: int, after: After | None = None
) -> Page[Trace]:
    """List the traces of a session, oldest first."""
    return await list_traces(
        db, project_id, limit, after, session_id=session_id, newest_first=False
    )


GET_TRACE: Final = f"{SELECT_TRACES} AND trace_id = :trace_id"


async def get_trace(db: Database, project_id: int, trace_id: bytes) -> Trace | None:
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
    rows = await db.read(f"{SELECT_TRACES} AND trace_id IN ({names})", params)
    return {trace.trace_id: trace for trace in map(trace_of, rows)}


def trace_of(row: Row) -> Trace:
    """Read a row of ``SELECT_TRACES``."""
    values = dict(zip(_TRACE, row, strict=True))
    cost_nusd = values.pop("cost_nusd")
    tokens = Tokens(**{c.removesuffix("_tokens"): values.pop(c) for c in AMOUNTS[:-1]})
    last_ended_at_us = values.pop("last_ended_at_us")
    ended_at_us = None if values["status"] == RUNNING else last_ended_at_us
    return Trace(**values, ended_at_us=ended_at_us, tokens=tokens, cost_nusd=cost_nusd)


_SPAN: Final = (
    *("project_id", "trace_id", "span_id", "parent_id", "seq", "kind", "name", "state", "error"),
    *("ended_by", "phase", "started_at_us", "duration_us", "first_byte_us", "first_token_us"),
    *("upstream", "provider", "operation", "method", "path", "query", "http_status"),
    *("model_requested", "model", "service_tier", "response_id", "settled_by", "usage_source"),
    *("cost_status", "price_version", "input_preview", "output_preview"),
    *("request_head", "response_head", "notes"),
    *AMOUNTS,
)
_BODY: Final = ("size", "sha256", "truncated", "redacted", "type", "encoding")
SELECT_SPANS: Final = f"""
SELECT {", ".join(_SPAN)},
{", ".join(f"request_{c}" for c in _BODY)},
request_content_id IS NOT NULL OR request_envelope IS NOT NULL, 0,
{", ".join(f"response_{c}" for c in _BODY)},
response_content_id IS NOT NULL OR response_envelope IS NOT NULL, response_assembled
FROM spans s WHERE s.project_id = :project_id"""
TRACE_SPANS: Final = f"""
{SELECT_SPANS} AND trace_id = :trace_id ORDER BY started_at_us, seq LIMIT :limit
"""
# A span's id is unique in its trace only; of two that came with the same, the older one is it.
GET_SPAN: Final = f"""
{SELECT_SPANS} AND span_id = :span_id ORDER BY started_at_us, seq LIMIT 1
"""


async def trace_spans(
    db: Database, project_id: int, trace_id: bytes, limit: int = MAX_SPANS
) -> tuple[Span, ...]:
    """Read the spans of a trace, oldest first, up to ``limit``."""
    key: dict[str, Value] = {"project_id": project_id, "trace_id": trace_id, "limit": limit}
    return tuple(span_of(row) for row in await db.read(TRACE_SPANS, key))


async def get_span(db: Database, project_id: int, span_id: bytes) -> Span | None:
    """Read one span; None where there is none."""
    rows = await db.read(GET_SPAN, {"project_id": project_id, "span_id": span_id})
    return span_of(rows[0]) if rows else None


def span_of(row: Row) -> Span:
    """Read a row of ``SELECT_SPANS``."""
    values = dict(zip(_SPAN, row, strict=False))
    cost_nusd = values.pop("cost_nusd")
    tokens = Tokens(**{c.removesuffix("_tokens"): values.pop(c) for c in AMOUNTS[:-1]})
    notes = values.pop("notes")
    ended = values["duration_us"]
    request_head, response_head = values.pop("request_head"), values.pop("response_head")
    return Span(
        **values,
        request_headers=None if request_head is None else expand(request_head).decode(),
        response_headers=None if response_head is None else expand(response_head).decode(),
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


# Running spans have an index of their own, so that counting them reads no others.
GET_STATS: Final = """
SELECT (SELECT COUNT(*) FROM sessions WHERE project_id = :project_id),
(SELECT COUNT(*) FROM spans WHERE state = 'running' AND project_id = :project_id),
trace_count, span_count, unpriced_count, estimated_count, received_bytes, stored_bytes,
CASE WHEN counted_input_traces > 0 THEN input_tokens END,
CASE WHEN counted_output_traces > 0 THEN output_tokens END,
CASE WHEN priced_traces > 0 THEN cost_nusd END
FROM project_totals WHERE project_id = :project_id
"""


async def stats(db: Database, project_id: int) -> Stats:
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


async def project_id(db: Database, name: str) -> int | None:
    """Look up a project; None where there is none."""
    rows = await db.read(GET_PROJECT, {"name": clean_text(name)})
    return rows[0][0] if rows else None
