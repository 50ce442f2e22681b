"""Reads which spans tell of the same call: one that passed through us, others that saw it as well.

Invariant: every statement names the project and reads by an index. What marks them is not here.
"""

from typing import Final, NamedTuple

from storage.database import Readable, Value
from storage.records import Span

# Spans that tell of one call: an SDK's, an instrumentation's, and more than that is a mistake.
MAX_TOLD: Final = 10


class Named(NamedTuple):
    """A span as it is named elsewhere."""

    trace_id: bytes
    span_id: bytes
    name: str


_NAMED: Final = "SELECT trace_id, span_id, name FROM spans WHERE project_id = :project_id"
COUNTED: Final = f"""
{_NAMED} AND span_id = :span_id AND owner IS NOT NULL ORDER BY started_at_us, seq LIMIT 1
"""


async def counted(db: Readable, span: Span) -> Named | None:
    """Give the call that is counted for a span which saw it as well; None where there is none."""
    if span.same_call is None:
        return None
    key: dict[str, Value] = {"project_id": span.project_id, "span_id": span.same_call}
    rows = await db.read(COUNTED, key)
    return Named(*rows[0]) if rows else None


TOLD: Final = f"""
{_NAMED} AND same_call = :span_id ORDER BY started_at_us, seq LIMIT {MAX_TOLD}
"""


async def told(db: Readable, span: Span) -> list[Named]:
    """Give the spans of applications that tell of a call which passed through us."""
    if span.handed_in:
        return []
    key: dict[str, Value] = {"project_id": span.project_id, "span_id": span.span_id}
    return [Named(*row) for row in await db.read(TOLD, key)]
