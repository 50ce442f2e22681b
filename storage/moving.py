"""Calls whose ``traceparent`` names a trace that became known after them, and where they went.

Invariant: once a trace is known, the calls that named it are in it, whichever came first, but for
those that name another session. The moves are transfer.py's.
"""

from collections.abc import Iterable
from typing import Final

from storage.database import Readable
from storage.keys import TraceKey
from storage.ledger import Ledger
from storage.transfer import Move, move
from storage.twins import match

# Calls that wait for one trace and move at once: 50 ms of the writer. What more calls name than
# these is no trace of one task.
MAX_WAITING: Final = 250

FIND_WAITING: Final = f"""
SELECT trace_id, external_parent_id FROM spans
WHERE project_id = :project_id AND external_trace_id = :trace_id
  AND trace_id <> external_trace_id AND moved_from IS NULL
LIMIT {MAX_WAITING}
"""  # noqa: S608 (a constant of this file)


def adopt(ledger: Ledger, traces: Iterable[TraceKey]) -> None:
    """Move the calls that named these traces, which just came to be known, into them.

    Their rows, and those of the traces' spans, are written.
    """
    before = set(ledger.went)
    moves = [
        Move((key[0], own_id), key, parent_id)
        for key in dict.fromkeys(traces)
        for own_id, parent_id in ledger.tx.execute(
            FIND_WAITING, {"project_id": key[0], "trace_id": key[1]}
        )
    ]
    if moves:
        move(ledger, moves)
        match(ledger, [ledger.went[key] for key in ledger.went.keys() - before])


WHERE_IS: Final = """
SELECT trace_id FROM spans WHERE project_id = :project_id AND moved_from = :trace_id LIMIT 1
"""


async def where_is(db: Readable, project_id: int, trace_id: bytes) -> bytes | None:
    """Give the trace into which the call went whose own this was; None where none went."""
    rows = await db.read(WHERE_IS, {"project_id": project_id, "trace_id": trace_id})
    return rows[0][0] if rows else None
