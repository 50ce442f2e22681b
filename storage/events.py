"""The log of what changed, from which those who watch read on where they were.

Owns the table ``events``. Invariant: an event is written in the transaction of the change that it
tells of, once; numbers grow in the order of commits and are never given twice, also after a prune
and a restart. It holds types, ids and states, never a text: who reads it reads the rows that it
names as they are then. A deletion takes nothing out of it; it forgets by itself.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Final, NamedTuple

import msgspec

from storage.database import Params, Readable, Transaction
from storage.keys import SessionKey
from storage.ledger import Ledger
from storage.records import FAILED_STATES, RUNNING

TRACE_CREATED: Final = "trace_created"
TRACE_UPDATED: Final = "trace_updated"
TRACE_DELETED: Final = "trace_deleted"
SPAN_CREATED: Final = "span_created"
SPAN_COMPLETED: Final = "span_completed"
SPAN_FAILED: Final = "span_failed"
SESSION_UPDATED: Final = "session_updated"
TYPES: Final = (
    *(TRACE_CREATED, TRACE_UPDATED, TRACE_DELETED),
    *(SPAN_CREATED, SPAN_COMPLETED, SPAN_FAILED, SESSION_UPDATED),
)

# A day, as long as a page that sleeps over night may want to go on; and about 100 MB.
MAX_AGE_US: Final = 24 * 3600 * 1_000_000
MAX_EVENTS: Final = 1_000_000
# Events of one row at most, so that a deletion of thousands is not read in one piece.
ROW_EVENTS: Final = 500
# Events that are read at a time, but for what the last row has more.
READ_EVENTS: Final = 500
# Rows that are pruned at a time: some milliseconds of the writer, no longer than a batch of calls.
PRUNED_ROWS: Final = 500
# Rows that are looked at for sessions that are gone: a few milliseconds.
LOOKED_AT: Final = 100


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One change. ``models`` are those of the calls that changed; of a session, none are named.

    ``status`` is the span's state in that moment.
    """

    type: str
    session_id: str | None
    trace_id: bytes | None = None
    span_id: bytes | None = None
    models: tuple[str, ...] = ()
    status: str | None = None


class Told(NamedTuple):
    """An event as it stands in the log."""

    sequence: int
    at_us: int
    event: Event


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[Event, ...])


def log_changes(ledger: Ledger, sessions: Iterable[SessionKey]) -> None:
    """Log what a batch changed, each trace and session once; ``sessions`` are those that did."""
    told: defaultdict[int, list[Event]] = defaultdict(list)
    for (project_id, trace_id), change in ledger.traces.items():
        if not (change.moved or change.touched):
            continue
        log, session_id, spans = told[project_id], change.session_id, change.spans
        if change.emptied:
            if change.old is not None:
                log.append(Event(TRACE_DELETED, session_id, trace_id))
            continue
        models = tuple({span.model: None for span in spans.values() if span.model})
        if change.old is None:
            log.append(Event(TRACE_CREATED, session_id, trace_id, None, models))
        for span_id, inserted in change.moved.items():
            state, model = spans[span_id].state, spans[span_id].model
            own = (model,) if model else ()
            if inserted:
                log.append(Event(SPAN_CREATED, session_id, trace_id, span_id, own, state))
            if state != RUNNING:
                kind = SPAN_FAILED if state in FAILED_STATES else SPAN_COMPLETED
                log.append(Event(kind, session_id, trace_id, span_id, own, state))
        if change.old is not None:
            log.append(Event(TRACE_UPDATED, session_id, trace_id, None, models))
    for project_id, session_id in sessions:
        told[project_id].append(Event(SESSION_UPDATED, session_id))
    _append(ledger.tx, told)


def log_deletion(
    tx: Transaction, project_id: int, session_id: str | None, trace_ids: Iterable[bytes]
) -> None:
    """Log that traces of one session, or of none, are gone."""
    told = [Event(TRACE_DELETED, session_id, trace_id) for trace_id in trace_ids]
    if session_id is not None:
        told.append(Event(SESSION_UPDATED, session_id))
    _append(tx, {project_id: told})


def log_session(tx: Transaction, project_id: int, session_id: str) -> None:
    """Log that a session changed by itself, none of its traces."""
    _append(tx, {project_id: [Event(SESSION_UPDATED, session_id)]})


# The row stays locked until the commit: who takes later numbers commits later.
TAKE_NUMBERS: Final = """
UPDATE counters SET value = value + :n WHERE name = 'event' RETURNING value
"""
APPEND: Final = """
INSERT INTO events (sequence, project_id, at_us, event_count, told)
VALUES (:sequence, :project_id, :at_us, :event_count, :told)
"""


def _append(tx: Transaction, told: Mapping[int, list[Event]]) -> None:
    count = sum(map(len, told.values()))
    if not count:
        return
    ((sequence,),) = tx.execute(TAKE_NUMBERS, {"n": count})
    sequence -= count
    at_us = time.time_ns() // 1000
    rows: list[Params] = []
    for project_id in sorted(told):
        for start in range(0, len(told[project_id]), ROW_EVENTS):
            piece = told[project_id][start : start + ROW_EVENTS]
            sequence += len(piece)
            rows.append(
                {
                    "sequence": sequence,
                    "project_id": project_id,
                    "at_us": at_us,
                    "event_count": len(piece),
                    "told": _ENCODER.encode(piece),
                }
            )
    tx.insert_rows(APPEND, rows)


# The log is pruned as one, whatever project a row is of.
OLDEST: Final = "SELECT sequence, at_us FROM events ORDER BY sequence LIMIT :limit"
NEWEST: Final = "SELECT value FROM counters WHERE name = 'event'"
PRUNE: Final = "DELETE FROM events WHERE sequence <= :sequence"
NOTE_PRUNED: Final = """
UPDATE counters SET value = :sequence WHERE name = 'pruned_event' AND value < :sequence
"""


def prune(tx: Transaction) -> bool:
    """Drop the oldest events that need not be kept, a bounded part; tell whether there are more.

    A beginning of the log goes, whatever the clock said meanwhile, so that it never has a hole.
    """
    ((newest,),) = tx.execute(NEWEST, {})
    before_us = time.time_ns() // 1000 - MAX_AGE_US
    oldest = tx.execute(OLDEST, {"limit": PRUNED_ROWS})
    gone = list(takewhile(lambda row: row[0] <= newest - MAX_EVENTS or row[1] < before_us, oldest))
    if gone:
        tx.execute(PRUNE, {"sequence": gone[-1][0]})
        tx.execute(NOTE_PRUNED, {"sequence": gone[-1][0]})
    return len(gone) == PRUNED_ROWS


NEXT_ROWS: Final = f"""
SELECT sequence, project_id, told FROM events
WHERE sequence > :after AND project_id >= :least AND project_id <= :most
ORDER BY sequence LIMIT {LOOKED_AT}
"""  # noqa: S608 (a constant of this file)
THERE: Final = """
SELECT session_id FROM sessions WHERE project_id = :project_id AND session_id IN (:keys)
"""
RETELL: Final = "UPDATE events SET told = :told WHERE sequence = :sequence"


def forget_sessions(tx: Transaction, after: int, project_id: int | None = None) -> int | None:
    """Take the ids of sessions that are not there out of a part of the log; None: of all projects.

    Return the number up to which that was done; None where there was nothing more. The events
    keep their numbers and say of no session that something happened.
    """
    least, most = (0, 2**62) if project_id is None else (project_id, project_id)
    rows = tx.execute(NEXT_ROWS, {"after": after, "least": least, "most": most})
    if not rows:
        return None
    told = {sequence: (project, decoded(packed)) for sequence, project, packed in rows}
    named: defaultdict[int, set[str]] = defaultdict(set)
    for project, events in told.values():
        named[project].update(event.session_id for event in events if event.session_id)
    there = {
        (project, session_id)
        for project, ids in named.items()
        for (session_id,) in tx.look_up(THERE, {"project_id": project}, sorted(ids))
    }
    changed: list[Params] = []
    for sequence, (project, events) in told.items():
        kept = tuple(
            event
            if not event.session_id or (project, event.session_id) in there
            else msgspec.structs.replace(event, session_id=None)
            for event in events
        )
        if kept != events:
            changed.append({"sequence": sequence, "told": _ENCODER.encode(kept)})
    tx.execute_many(RETELL, changed)
    return int(rows[-1][0])


BOUNDS: Final = """
SELECT (SELECT value FROM counters WHERE name = 'pruned_event'),
  (SELECT value FROM counters WHERE name = 'event')
"""


async def bounds(db: Readable) -> tuple[int, int]:
    """Return the numbers of the newest event that was pruned and of the newest there is."""
    ((pruned, newest),) = await db.read(BOUNDS, {})
    return pruned, newest


READ: Final = f"""
SELECT sequence, at_us, event_count, told FROM events
WHERE project_id = :project_id AND sequence > :after AND sequence <= {READ_EVENTS} + (
  SELECT MIN(sequence) FROM events WHERE project_id = :project_id AND sequence > :after)
ORDER BY sequence
"""  # noqa: S608 (a constant of this file)


async def read_after(db: Readable, project_id: int, after: int) -> list[Told]:
    """Read on in a project's log; nothing at its end. Who is behind what was pruned misses it."""
    rows = await db.read(READ, {"project_id": project_id, "after": after})
    return [
        Told(number, at_us, event)
        for sequence, at_us, count, told in rows
        for number, event in enumerate(decoded(told), sequence - count + 1)
        if number > after
    ]


def decoded(told: bytes) -> tuple[Event, ...]:
    """Give the events of a row."""
    return _DECODER.decode(told)
