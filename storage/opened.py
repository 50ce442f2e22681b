"""What an application said of a trace: facts of its own, which are no sums of its spans.

Owns these columns of ``traces``. Invariant: they are read with the trace's row and written after
it, and only where they changed, so that a call that nobody opened a trace for pays nothing. Knows
nothing of spans; what the facts make of a trace's row is aggregates.py's.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from storage.database import Params, Transaction, Value
from storage.keys import TraceKey

# ruff: noqa: S608 (the SQL below is put together from constants of this file, never from values)


class Opening(NamedTuple):
    """What was said of a trace.

    ``seq`` is the number of the first word. ``heard_at_us`` is when the last word came, by our
    clock; None for a trace that was not opened, has ended, or fell silent too long ago. ``tags`` is
    a JSON array.
    """

    seq: int | None = None
    at_us: int | None = None
    name: str | None = None
    user_id: str | None = None
    closed_at_us: int | None = None
    heard_at_us: int | None = None
    tags: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the application still has it open."""
        return self.heard_at_us is not None

    @property
    def began_at_us(self) -> int | None:
        """When it began by what was said of it alone."""
        return self.closed_at_us if self.at_us is None else self.at_us


NOT_OPENED: Final = Opening()
OPENING_COLUMNS: Final = (
    *("opened_seq", "opened_at_us", "opened_name", "opened_user_id"),
    *("closed_at_us", "heard_at_us", "tags"),
)
WRITE_OPENING: Final = f"""
UPDATE traces SET {", ".join(f"{c} = :{c}" for c in OPENING_COLUMNS)}
WHERE project_id = :project_id AND trace_id = :trace_id
"""


def write_openings(tx: Transaction, openings: Sequence[tuple[TraceKey, Opening]]) -> None:
    """Write what was said of traces whose rows are there."""
    rows: list[Params] = []
    for (project_id, trace_id), opening in openings:
        row: dict[str, Value] = dict(zip(OPENING_COLUMNS, opening, strict=True))
        row["project_id"], row["trace_id"] = project_id, trace_id
        rows.append(row)
    tx.execute_many(WRITE_OPENING, rows)
