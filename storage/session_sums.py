"""The sums of a session: the difference that its traces make to its row, or its whole row.

Invariant: after every transaction a session's row equals what a fold over the rows of its traces
gives. It moves by the difference that its traces made, because it may have thousands. Where that
cannot tell (a trace moved in the order, a text or a sum is gone), ``doubts`` says what of the row
is to be found anew: one of its places nearly always, and the whole only where a sum may have become
unknown. Pure; rollup.py reads and writes the rows.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from storage.aggregates import (
    AMOUNTS,
    MAX_DURATION_US,
    NOTHING_KNOWN,
    Amounts,
    TraceFacts,
    bounded,
    bounded_amounts,
    later,
    minus,
    plus,
)
from storage.database import Value
from storage.keys import SessionKey, session_key
from storage.records import FAILED_STATES, RUNNING

# The (start, seq) of the trace from which a session has some of its columns.
PLACES: Final = {
    "first": ("first_started_at_us", "first_seq"),
    "newest": ("last_active_at_us", "last_seq"),
    "user": ("user_at_us", "user_seq"),
    "output": ("output_at_us", "output_seq"),
    "error": ("error_at_us", "error_seq"),
}
ALL: Final = frozenset({"all"})
DOUBTED: Final = (
    *(column for place in PLACES.values() for column in place),
    "seq",
    "last_ended_at_us",
    *AMOUNTS,
)


@dataclass(slots=True)
class SessionChange:
    """The difference that some traces make to their session; of all its traces, its whole row.

    ``first``, ``newest``, ``user``, ``output`` and ``error`` are the traces from which the
    session takes its first input and source, its status, its user and its last texts. ``unsure``
    has the old rows of traces for which the difference may not be enough, each with the new one.
    """

    seq: int
    first: TraceFacts
    newest: TraceFacts
    user: TraceFacts | None = None
    output: TraceFacts | None = None
    error: TraceFacts | None = None
    unsure: list[tuple[TraceFacts, TraceFacts]] = field(default_factory=list)
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
            if old.order != new.order or _has_lost(old, new):
                self.unsure.append((old, new))
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

    def remove(self, old: TraceFacts) -> None:
        """Take out the row of a trace that is gone: of the counts and sums alone."""
        self._count(old, -1)
        self.amounts = tuple(map(minus, self.amounts, old.amounts))

    def doubts(self, row: Mapping[str, Any]) -> frozenset[str]:
        """Say which places of the session's row are to be found anew; ``ALL``: the whole row.

        ``row`` is that row before the change, with the columns of ``DOUBTED``.
        """
        for i, amount in enumerate(AMOUNTS):
            # A sum of 0 may be that of nothing known.
            lost = any(a.amounts[i] is not None and b.amounts[i] is None for a, b in self.unsure)
            if lost and (row[amount] or 0) + (self.amounts[i] or 0) == 0:
                return ALL
        found = set()
        for old, new in self.unsure:
            if old.last_ended_at_us == row["last_ended_at_us"] and _ends_earlier(old, new):
                return ALL
            if old.seq == row["seq"] and new.seq > old.seq:
                found.add("seq")
            found |= {
                place for place, at in PLACES.items() if (row[at[0]], row[at[1]]) == old.order
            }
        return frozenset(found)

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
            "received_bytes": bounded(self.received_bytes),
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
            **dict(zip(AMOUNTS, bounded_amounts(self.amounts), strict=True)),
        }


def _has_lost(old: TraceFacts, new: TraceFacts) -> bool:
    """Tell whether a trace's row has no longer what it had, or an earlier end."""
    if any(a is not None and b is None for a, b in zip(old.amounts, new.amounts, strict=True)):
        return True
    return (
        _ends_earlier(old, new)
        or (old.user_id is not None and new.user_id is None)
        or (old.output_preview is not None and new.output_preview is None)
        or (old.error is not None and new.error is None)
    )


def _ends_earlier(old: TraceFacts, new: TraceFacts) -> bool:
    was, now = old.last_ended_at_us, new.last_ended_at_us
    return was is not None and (now is None or now < was)
