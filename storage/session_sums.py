"""The sums of a session: the difference that its traces make to its row, or its whole row.

Invariant: after every transaction a session's row equals what a fold over the rows of its traces
gives. It moves by the difference that its traces made, because it may have thousands, and is folded
anew where a difference cannot tell (a trace began at another time than we knew, a sum became
unknown). Pure; rollup.py reads and writes the rows.
"""

from collections import Counter
from dataclasses import dataclass, field

from storage.aggregates import (
    AMOUNTS,
    MAX_DURATION_US,
    NOTHING_KNOWN,
    Amounts,
    TraceFacts,
    later,
    minus,
    plus,
)
from storage.database import Value
from storage.keys import SessionKey, session_key
from storage.records import FAILED_STATES, RUNNING


@dataclass(slots=True)
class SessionChange:
    """The difference that some traces make to their session; of all its traces, its whole row.

    ``first``, ``newest``, ``user``, ``output`` and ``error`` are the traces from which the
    session takes its first input and source, its status, its user and its last texts. ``stale``
    says that the difference is not enough and the session is to be folded anew.
    """

    seq: int
    first: TraceFacts
    newest: TraceFacts
    user: TraceFacts | None = None
    output: TraceFacts | None = None
    error: TraceFacts | None = None
    stale: bool = False
    trace_count: int = 0
    span_count: int = 0
    failed_trace_count: int = 0
    ended_trace_count: int = 0
    ended_duration_us: int = 0
    unpriced_count: int = 0
    estimated_count: int = 0
    received_bytes: int = 0
    stored_bytes: int = 0
    last_ended_at_us: int | None = None
    amounts: Amounts = NOTHING_KNOWN
    models: Counter[str] = field(default_factory=Counter)

    @classmethod
    def beginning_with(cls, trace: TraceFacts) -> "SessionChange":
        """Make a change that counts nothing yet; ``trace`` is the first to ``replace``."""
        return cls(seq=trace.seq, first=trace, newest=trace)

    def replace(self, old: TraceFacts | None, new: TraceFacts) -> None:
        """Take out a trace's old row, where the session had one, and put in the new."""
        self._count(new, 1)
        self.amounts = plus(self.amounts, new.amounts)
        if old is not None:
            self._count(old, -1)
            self.amounts = tuple(map(minus, self.amounts, old.amounts))
            self.stale |= old.started_at_us != new.started_at_us or any(
                was is not None and now is None
                for was, now in zip(old.amounts, new.amounts, strict=True)
            )
        self.seq = min(self.seq, new.seq)
        self.last_ended_at_us = later(self.last_ended_at_us, new.last_ended_at_us)
        order = new.order  # of no other trace
        if order < self.first.order:
            self.first = new
        if order > self.newest.order:
            self.newest = new
        if new.user_id is not None and (self.user is None or order < self.user.order):
            self.user = new
        if new.output_preview is not None and (self.output is None or order > self.output.order):
            self.output = new
        if new.error is not None and (self.error is None or order > self.error.order):
            self.error = new

    def _count(self, trace: TraceFacts, sign: int) -> None:
        self.trace_count += sign
        self.span_count += sign * trace.span_count
        self.unpriced_count += sign * trace.unpriced_count
        self.estimated_count += sign * trace.estimated_count
        self.received_bytes += sign * trace.received_bytes
        self.stored_bytes += sign * trace.stored_bytes
        if trace.status in FAILED_STATES:
            self.failed_trace_count += sign
        if trace.status != RUNNING and trace.last_ended_at_us is not None:
            self.ended_trace_count += sign
            duration_us = trace.last_ended_at_us - trace.started_at_us
            self.ended_duration_us += sign * min(duration_us, MAX_DURATION_US)

    def values(self, key: SessionKey) -> dict[str, Value]:
        """Return the row of a session of these traces alone, but for its name and star."""
        first, newest = self.first, self.newest
        user, output, error = self.user, self.output, self.error
        return {
            "project_id": key[0],
            "session_id": key[1],
            "session_key": session_key(*key),
            "seq": self.seq,
            "source": first.session_source,
            "status": newest.status,
            "trace_count": self.trace_count,
            "span_count": self.span_count,
            "failed_trace_count": self.failed_trace_count,
            "ended_trace_count": self.ended_trace_count,
            "ended_duration_us": self.ended_duration_us,
            "unpriced_count": self.unpriced_count,
            "estimated_count": self.estimated_count,
            "received_bytes": self.received_bytes,
            "stored_bytes": self.stored_bytes,
            "first_started_at_us": first.started_at_us,
            "first_seq": first.seq,
            "last_active_at_us": newest.started_at_us,
            "last_seq": newest.seq,
            "last_ended_at_us": self.last_ended_at_us,
            "user_at_us": None if user is None else user.started_at_us,
            "user_seq": None if user is None else user.seq,
            "output_at_us": None if output is None else output.started_at_us,
            "output_seq": None if output is None else output.seq,
            "error_at_us": None if error is None else error.started_at_us,
            "error_seq": None if error is None else error.seq,
            "user_id": None if user is None else user.user_id,
            "first_input": first.input_preview,
            "last_output": None if output is None else output.output_preview,
            "last_error": None if error is None else error.error,
            **dict(zip(AMOUNTS, self.amounts, strict=True)),
        }
