"""What of an archive is there already, and is not the same.

Invariant: a span is the same if its line would be, but for what depends on the calls beside it, and
a trace if it is of the same session and the same was said of it. A call that has moved into another
trace, here or in what the archive is of, is known wherever it is. It only reads.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from storage.archive_block import Block
from storage.archive_lines import OpenedLine, SpanLine, is_the_same
from storage.archive_places import Key
from storage.archive_spans import HASHES, SELECT_SPANS, StoredSpan, held_by, lines_of
from storage.database import Params, Readable, Row, Transaction, Value
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
        spans = _spans_among(rows, block, some)
        if not spans:
            continue
        hashes: dict[int, bytes] = {}
        for held in _parts(held_by([*spans.values()])):
            names, params = _named(project_id, held)
            hashes.update(await db.read(f"{HASHES} AND id IN ({names})", params))
        # To read lines again is work for a thread: calls wait for the event loop.
        conflict = await asyncio.to_thread(_span_conflict, block, spans, hashes)
        if conflict is not None:
            return conflict
    return None


def _span_conflict(
    block: Block, spans: Mapping[Key, StoredSpan], hashes: Mapping[int, bytes]
) -> Conflict | None:
    """Compare spans that are there with those of a block."""
    for key, line in zip(spans, lines_of(spans.values(), hashes, ()), strict=True):
        own = block.line(block.spans[key])
        if isinstance(own, SpanLine) and (found := _difference(line, own)) is not None:
            return found
    return None


KNOWN_SPANS: Final = f"{FOUND_SPANS} (:keys)"
KNOWN_HASHES: Final = f"{HASHES} AND id IN (:keys)"


def known_spans(
    tx: Transaction, project_id: int, block: Block, lines: Iterable[SpanLine]
) -> tuple[dict[Key, Key], Conflict | None]:
    """Give where those of these spans are that are there already, or what is not the same."""
    key: Params = {"project_id": project_id}
    own = {key_of(line): line for line in lines}
    rows = tx.look_up(KNOWN_SPANS, key, [span_id for _, span_id in own])
    spans = _spans_among(rows, block, own.keys())
    held = held_by([*spans.values()])
    hashes: dict[int, bytes] = dict(tx.look_up(KNOWN_HASHES, key, held))
    for one, line in zip(spans, lines_of(spans.values(), hashes, ()), strict=True):
        if (found := _difference(line, own[one])) is not None:
            return {}, found
    # A call that the block has in another trace as well is there, or comes, by that line.
    known = {one: one for one in own if one not in block.spans}
    return known | {one: span.key for one, span in spans.items()}, None


OTHER_SPAN: Final = "a span with this id is there already and is not the same"
OTHER_CALL: Final = "the call is there already, in the trace {}, and is not the same"


def _difference(stored: SpanLine, own: SpanLine) -> Conflict | None:
    """Compare a span that is there with that of a block."""
    if is_the_same(stored, own):
        return None
    what = OTHER_SPAN if stored.trace == own.trace else OTHER_CALL.format(stored.trace)
    trace_id, span_id = key_of(own)
    return Conflict(trace_id=trace_id, span_id=span_id, what=what)


def _named(project_id: int, ids: Sequence[Value]) -> tuple[str, dict[str, Value]]:
    params: dict[str, Value] = {f"v{n}": value for n, value in enumerate(ids)}
    names = ", ".join(f":{name}" for name in params)
    return names, {**params, "project_id": project_id}


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), COMPARED):
        yield ids[start : start + COMPARED]


def _spans_among(rows: Iterable[Row], block: Block, keys: Collection[Key]) -> dict[Key, StoredSpan]:
    """Give those of these rows that are of these spans of a block: an id alone is no span's own.

    Of a call that older versions stored twice, the one in the trace of the block counts.
    """
    found: dict[Key, StoredSpan] = {}
    for span in map(StoredSpan, rows):
        key = block.spans.find(span.key, span.values["moved_from"])
        if key is not None and key in keys and (key not in found or span.key == key):
            found[key] = span
    return found


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
