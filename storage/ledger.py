"""What one transaction has changed so far, for rollup.py to bring the sums up to date.

Invariant: a trace's row is read once, before anything changes it, and each byte that is stored is
counted.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from storage.aggregates import TRACE_COLUMNS, SpanFacts, TraceFacts
from storage.contents import store_content
from storage.database import Transaction
from storage.keys import SpanKey, TraceKey, lone_key, session_key
from storage.records import Content

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)


@dataclass(slots=True)
class TraceChange:
    """What happened to the spans of one trace, and to its session.

    ``old`` is the trace's row, None for a new one. ``spans`` has those that changed, as they are
    now; ``inserted`` of them are new. ``models`` counts spans that gained a model less those that
    lost it. The session is the trace's own, or one that it takes now.
    """

    key: TraceKey
    old: TraceFacts | None
    session_id: str | None
    session_source: str | None
    spans: dict[bytes, SpanFacts] = field(default_factory=dict)
    inserted: int = 0
    models: Counter[str] = field(default_factory=Counter)

    @property
    def touched(self) -> bool:
        """Whether the trace's row changes at all."""
        was = None if self.old is None else self.old.session_id
        return bool(self.spans) or self.session_id != was

    @property
    def has_ended_spans(self) -> bool:
        """Whether a call of the trace has ended: one that says what belongs to its session."""
        if self.old is not None and self.old.last_ended_at_us is not None:
            return True
        return any(span.ended_at_us is not None for span in self.spans.values())

    @property
    def session_key(self) -> int:
        """The number of its session, or the one that stands for a session where it has none."""
        project_id, trace_id = self.key
        if self.session_id is None:
            return lone_key(project_id, trace_id)
        return session_key(project_id, self.session_id)


READ_TRACE: Final = f"""
SELECT {", ".join(TRACE_COLUMNS)} FROM traces
WHERE project_id = :project_id AND trace_id = :trace_id
"""


class Ledger:
    """The changes of one transaction."""

    def __init__(self, tx: Transaction, *, late: int = 0, next_seq: int = 0) -> None:
        self.tx = tx
        self.traces: dict[TraceKey, TraceChange] = {}
        # By how much the contents and envelopes of each project grew.
        self.stored_bytes: Counter[int] = Counter()
        # Contents that nobody mentioned before: full text is to have them.
        self.unheard: list[int] = []
        self.spans: list[SpanKey] = []
        # Spans that began here (1), and those that only ended (0).
        self.moved: list[tuple[SpanKey, int]] = []
        self.late = late
        self._next_seq = next_seq

    def trace(self, key: TraceKey) -> TraceChange:
        """Give what happened to a trace; nothing yet where it is the first word of it."""
        change = self.traces.get(key)
        if change is None:
            rows = self.tx.execute(READ_TRACE, {"project_id": key[0], "trace_id": key[1]})
            old = TraceFacts.of(rows[0]) if rows else None
            session_id = None if old is None else old.session_id
            source = None if old is None else old.session_source
            change = self.traces[key] = TraceChange(key, old, session_id, source)
        return change

    def content(self, project_id: int, content: Content) -> tuple[int, bool]:
        """Store a content unless it is there; return its id and whether it is new."""
        content_id, added_bytes = store_content(self.tx, project_id, content)
        if added_bytes is not None:
            self.stored_bytes[project_id] += added_bytes
        return content_id, added_bytes is not None

    def take_seq(self) -> int:
        """Take the next of the numbers that the batch has for its spans."""
        self._next_seq += 1
        return self._next_seq - 1
