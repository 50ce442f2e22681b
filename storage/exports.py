"""Calls that ended, in the order of the event log, for whoever sends them on; and how far that is.

Owns the counter ``exported_event``. Invariant: nothing here is read of what applications handed in,
so that nothing goes back to where it came from.
"""

from collections import defaultdict
from typing import Final, NamedTuple

from storage.database import Readable, Transaction, Value
from storage.events import SPAN_COMPLETED, SPAN_FAILED, decoded
from storage.queries import OUTLINE_FIELDS, outline_of
from storage.records import RUNNING, Span

# Rows of the log that are read at a time, and the calls with which a batch is full; a row has 500
# events at most, so that a batch has fewer than a thousand calls.
READ_ROWS: Final = 50
FULL: Final = 500
_ENDS: Final = frozenset({SPAN_COMPLETED, SPAN_FAILED})


class Ended(NamedTuple):
    """A call that ended, with its session and the ids that came in a ``traceparent``."""

    span: Span
    session_id: str | None
    session_source: str | None
    external_trace_id: bytes | None
    external_parent_id: bytes | None


class Batch(NamedTuple):
    """What ended after some event; ``sequence`` is the last event that was looked at."""

    ended: tuple[Ended, ...]
    sequence: int


CURSOR: Final = "SELECT value FROM counters WHERE name = 'exported_event'"
NOTE: Final = """
INSERT INTO counters AS c (name, value) VALUES ('exported_event', :sequence)
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE c.value < excluded.value
"""


async def cursor(db: Readable) -> int | None:
    """Return how far the log was sent on; None where it never was."""
    rows = await db.read(CURSOR, {})
    return rows[0][0] if rows else None


def note(tx: Transaction, sequence: int) -> None:
    """Note how far the log was sent on."""
    tx.execute(NOTE, {"sequence": sequence})


READ: Final = """
SELECT sequence, project_id, told FROM events WHERE sequence > :after ORDER BY sequence LIMIT :rows
"""
_BESIDE: Final = 4
_COLUMNS: Final = f"""
SELECT t.session_id, t.session_source, s.external_trace_id, s.external_parent_id, {OUTLINE_FIELDS}
FROM spans s JOIN traces t ON t.project_id = s.project_id AND t.trace_id = s.trace_id
WHERE s.project_id = :project_id AND s.owner IS NOT NULL AND s.state <> '{RUNNING}'
"""  # noqa: S608 (constants)


async def read_after(db: Readable, after: int) -> Batch | None:
    """Read on in the log of all projects; None at its end."""
    rows = await db.read(READ, {"after": after, "rows": READ_ROWS})
    if not rows:
        return None
    spans: defaultdict[int, dict[bytes, None]] = defaultdict(dict)
    sequence, count = after, 0
    for number, project_id, told in rows:
        found = [e.span_id for e in decoded(told) if e.type in _ENDS and e.span_id is not None]
        if found:  # of no ids there is no list: PostgreSQL takes no `IN ()`
            spans[project_id].update(dict.fromkeys(found))
        sequence, count = number, count + len(found)
        if count >= FULL:
            break
    ended: list[Ended] = []
    for project_id, span_ids in spans.items():
        params: dict[str, Value] = {f"s{n}": span_id for n, span_id in enumerate(span_ids)}
        names = ", ".join(f":{name}" for name in params)
        read = await db.read(
            f"{_COLUMNS} AND s.span_id IN ({names}) ORDER BY s.started_at_us, s.seq",
            {**params, "project_id": project_id},
        )
        ended += (Ended(outline_of(row[_BESIDE:]), *row[:_BESIDE]) for row in read)
    return Batch(tuple(ended), sequence)
