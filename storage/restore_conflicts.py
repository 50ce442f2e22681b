"""What of an archive is there already, and is not the same.

Invariant: a span is the same if its line would be, but for what depends on the calls beside it, and
a trace if it is of the same session and the same was said of it. It only reads.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from storage.archive_block import Block
from storage.archive_lines import OpenedLine, SpanLine, is_the_same
from storage.archive_spans import HASHES, SELECT_SPANS, StoredSpan, held_by, lines_of
from storage.database import Readable, Row, Value
from storage.opened import OPENING_COLUMNS, Opening

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# Spans that are compared with what is there at once.
COMPARED: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A span or a trace of an archive is there already, and is not the same."""

    trace_id: bytes
    span_id: bytes | None = None
    what: str


FOUND_SPANS: Final = f"{SELECT_SPANS} AND s.span_id IN"
_TRACES: Final = f"""
SELECT trace_id, session_id, {", ".join(OPENING_COLUMNS)} FROM traces
WHERE project_id = :project_id AND trace_id IN
"""


async def find_conflict(db: Readable, project_id: int, block: Block) -> Conflict | None:
    """Look for what is there already of a block and is not the same."""
    trace_ids = [*block.traces]
    for start in range(0, len(trace_ids), COMPARED):
        names, params = _named(project_id, trace_ids[start : start + COMPARED])
        for trace_id, session_id, *opening in await db.read(f"{_TRACES} ({names})", params):
            found = trace_conflict(block, trace_id, session_id, Opening._make(opening))
            if found is not None:
                return found
    keys = [*block.spans]
    for start in range(0, len(keys), COMPARED):
        some = set(keys[start : start + COMPARED])
        names, params = _named(project_id, [key[1] for key in some])
        rows = await db.read(f"{FOUND_SPANS} ({names})", params)
        spans = spans_among(rows, some)
        if not spans:
            continue
        hashes: dict[int, bytes] = {}
        for held in _parts(held_by(spans)):
            names, params = _named(project_id, held)
            hashes.update(await db.read(f"{HASHES} AND id IN ({names})", params))
        # To read lines again is work for a thread: calls wait for the event loop.
        conflict = await asyncio.to_thread(_span_conflict, block, spans, hashes)
        if conflict is not None:
            return conflict
    return None


OTHER_SPAN: Final = "a span with this id is there already and is not the same"


def _span_conflict(
    block: Block, spans: Sequence[StoredSpan], hashes: Mapping[int, bytes]
) -> Conflict | None:
    """Compare spans that are there with those of a block."""
    for line in lines_of(spans, hashes, ()):
        key = key_of(line)
        own = block.line(block.spans[key])
        if not (isinstance(own, SpanLine) and is_the_same(line, own)):
            return Conflict(trace_id=key[0], span_id=key[1], what=OTHER_SPAN)
    return None


def _named(project_id: int, ids: Sequence[Value]) -> tuple[str, dict[str, Value]]:
    params: dict[str, Value] = {f"v{n}": value for n, value in enumerate(ids)}
    names = ", ".join(f":{name}" for name in params)
    return names, {**params, "project_id": project_id}


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), COMPARED):
        yield ids[start : start + COMPARED]


def spans_among(rows: Iterable[Row], keys: set[tuple[bytes, bytes]]) -> list[StoredSpan]:
    """Give those of these rows that are of these spans: an id alone is no span's own."""
    spans = map(StoredSpan, rows)
    return [s for s in spans if (s.values["trace_id"], s.values["span_id"]) in keys]


def trace_conflict(
    block: Block, trace_id: bytes, session_id: str | None, opening: Opening
) -> Conflict | None:
    """Compare a trace that is there with that of a block."""
    own = None if block.session is None else block.session.id
    if session_id != own:
        where = "has no session" if session_id is None else f"is of the session {session_id!r}"
        return Conflict(trace_id=trace_id, what=f"the trace is there already and {where}")
    said = block.opened.get(trace_id)
    if opening.seq is not None and said is not None:
        same = opening_of(said)._replace(heard_at_us=None) == opening._replace(
            heard_at_us=None, seq=None
        )
        if not same:
            what = "the trace is there already, and other things were said of it"
            return Conflict(trace_id=trace_id, what=what)
    return None


def opening_of(line: OpenedLine) -> Opening:
    """Give what was said of a trace, but for the number of the first word."""
    return Opening(
        at_us=line.at_us,
        name=line.name,
        user_id=line.user_id,
        closed_at_us=line.closed_at_us,
        heard_at_us=line.heard_at_us,
        tags=None if line.tags is None else msgspec.json.encode(line.tags).decode(),
    )


def key_of(line: SpanLine) -> tuple[bytes, bytes]:
    """Give the ids of a span and of its trace."""
    return bytes.fromhex(line.trace), bytes.fromhex(line.id)
