"""The sums: what a trace's row says of its spans, and a session's and a project's of its traces.

Invariant: after every transaction each of these rows equals what a fold over the rows below it
gives, whatever the order in which changes came. A trace is folded anew from its spans; a session
moves by the difference that its traces made, because it may have thousands, and is folded anew
where a difference cannot tell (a trace began earlier than we knew, a sum became unknown). Pure;
rollup.py reads and writes the rows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple

from storage.columns import TOKEN_COLUMNS
from storage.database import Row, Value
from storage.keys import SessionKey, session_key
from storage.records import CANCELLED, COMPLETED, FAILED, FAILED_STATES, RUNNING, add

# Sums of which each part may be unknown.
AMOUNTS: Final = (*TOKEN_COLUMNS, "cost_nusd")
_amounts: Final = itemgetter(*AMOUNTS)
Amounts = tuple[int | None, ...]
NOTHING_KNOWN: Final[Amounts] = (None,) * len(AMOUNTS)
# 115 days; a longer trace is a mistake, and a sum over a million such still fits 64 bits.
MAX_DURATION_US: Final = 10**13


class SpanFacts(NamedTuple):
    """What a span gives to the sums. The amounts, in the order of ``AMOUNTS``, come last."""

    seq: int
    state: str
    started_at_us: int
    ended_at_us: int | None
    unpriced: int
    estimated: int
    received_bytes: int
    stored_bytes: int
    model: str | None
    name: str
    user_id: str | None
    input_preview: str | None
    output_preview: str | None
    error: str | None
    amounts: Amounts

    @classmethod
    def of(cls, row: Row) -> "SpanFacts":
        """Read a row of ``SPAN_FACTS``."""
        return cls._make((*row[:14], row[14:]))

    @classmethod
    def of_start(cls, values: Mapping[str, Any]) -> "SpanFacts":
        """Give what a row made of these values gives: that of a call that begins."""
        return cls(
            seq=values["seq"],
            state=RUNNING,
            started_at_us=values["started_at_us"],
            ended_at_us=None,
            unpriced=0,
            estimated=0,
            received_bytes=0,
            stored_bytes=0,
            model=None,
            name=values["name"],
            user_id=values["user_id"],
            input_preview=None,
            output_preview=None,
            error=None,
            amounts=NOTHING_KNOWN,
        )

    @classmethod
    def of_end(cls, values: Mapping[str, Any]) -> "SpanFacts":
        """Give what a row made of these values gives: that of a call that ended.

        To read it back by RETURNING takes as long as to write it.
        """
        started_at_us = values["started_at_us"]
        counts = values.get("same_call") is None
        return cls(
            seq=values["seq"],
            state=values["state"],
            started_at_us=started_at_us,
            ended_at_us=started_at_us + values["duration_us"],
            unpriced=int(counts and values["cost_status"] == "unpriced"),
            estimated=int(counts and values["usage_source"] == "estimated"),
            received_bytes=(values["request_size"] or 0) + (values["response_size"] or 0),
            stored_bytes=values["stored_bytes"],
            model=values["model"] if values["model"] is not None else values["model_requested"],
            name=values["name"],
            user_id=values["user_id"],
            input_preview=values["input_preview"],
            output_preview=values["output_preview"],
            error=values["error"],
            amounts=_amounts(values) if counts else NOTHING_KNOWN,
        )


# Not `IS NULL`, which SQLite 3.40 has for false of all columns of this table in RETURNING.
COUNTED: Final = "COALESCE(length(same_call), 0) = 0"
# The bodies of a call that still runs are not counted: a checkpoint does not touch the sums. Of a
# span that saw the same call as another, tokens and cost are counted there.
SPAN_FACTS: Final = f"""
seq, state, started_at_us, started_at_us + duration_us,
CASE WHEN cost_status = 'unpriced' AND {COUNTED} THEN 1 ELSE 0 END,
CASE WHEN usage_source = 'estimated' AND {COUNTED} THEN 1 ELSE 0 END,
CASE WHEN state = 'running' THEN 0
  ELSE COALESCE(request_size, 0) + COALESCE(response_size, 0) END,
CASE WHEN state = 'running' THEN 0 ELSE COALESCE(stored_bytes, 0) END,
COALESCE(model, model_requested), name, user_id, input_preview, output_preview, error,
{", ".join(f"CASE WHEN {COUNTED} THEN {c} END" for c in AMOUNTS)}
"""


class TraceFacts(NamedTuple):
    """A trace's row but for its key. The amounts come last."""

    seq: int
    status: str
    started_at_us: int
    last_ended_at_us: int | None
    span_count: int
    unpriced_count: int
    estimated_count: int
    received_bytes: int
    stored_bytes: int
    session_id: str | None
    session_source: str | None
    user_id: str | None
    name: str
    input_preview: str | None
    output_preview: str | None
    error: str | None
    amounts: Amounts

    @classmethod
    def of(cls, row: Row) -> "TraceFacts":
        """Read a row of ``TRACE_COLUMNS``."""
        return cls._make((*row[:16], row[16:]))

    @property
    def order(self) -> tuple[int, int]:
        """Its place among the traces of its session."""
        return self.started_at_us, self.seq


TRACE_COLUMNS: Final = (*TraceFacts._fields[:-1], *AMOUNTS)


def fold_trace(
    spans: Iterable[SpanFacts], session_id: str | None, session_source: str | None
) -> TraceFacts:
    """Sum up the spans of a trace, at least one, in any order. The definition of a trace's row."""
    ordered = sorted(spans, key=_span_order)
    oldest = ordered[0]
    amounts = NOTHING_KNOWN
    last_ended_at_us = user_id = input_preview = output_preview = error = None
    unpriced = estimated = received = stored = 0
    for span in ordered:
        amounts = _plus(amounts, span.amounts)
        unpriced += span.unpriced
        estimated += span.estimated
        received += span.received_bytes
        stored += span.stored_bytes
        last_ended_at_us = _later(last_ended_at_us, span.ended_at_us)
        if user_id is None:
            user_id = span.user_id
        if input_preview is None:
            input_preview = span.input_preview
        if span.output_preview is not None:
            output_preview = span.output_preview
        if span.error is not None and span.state in FAILED_STATES:
            error = span.error
    return TraceFacts(
        seq=min(span.seq for span in ordered),
        status=_status({span.state for span in ordered}),
        started_at_us=oldest.started_at_us,
        last_ended_at_us=last_ended_at_us,
        span_count=len(ordered),
        unpriced_count=unpriced,
        estimated_count=estimated,
        received_bytes=received,
        stored_bytes=stored,
        session_id=session_id,
        session_source=session_source,
        user_id=user_id,
        name=oldest.name,
        input_preview=input_preview,
        output_preview=output_preview,
        error=error,
        amounts=amounts,
    )


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
        self.amounts = _plus(self.amounts, new.amounts)
        if old is not None:
            self._count(old, -1)
            self.amounts = tuple(map(_minus, self.amounts, old.amounts))
            self.stale |= old.started_at_us != new.started_at_us or any(
                was is not None and now is None
                for was, now in zip(old.amounts, new.amounts, strict=True)
            )
        self.seq = min(self.seq, new.seq)
        self.last_ended_at_us = _later(self.last_ended_at_us, new.last_ended_at_us)
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


# What a trace adds to the totals of its project, in the order of `totals`.
TOTALS: Final = (
    "trace_count",
    "span_count",
    "unpriced_count",
    "estimated_count",
    "received_bytes",
    "counted_input_traces",
    "counted_output_traces",
    "priced_traces",
    "input_tokens",
    "output_tokens",
    "cost_nusd",
)
_INPUT, _OUTPUT, _COST = (AMOUNTS.index(n) for n in ("input_tokens", "output_tokens", "cost_nusd"))


def totals(trace: TraceFacts) -> tuple[int, ...]:
    """Return what a trace adds to the totals of its project."""
    input_, output, cost = (trace.amounts[i] for i in (_INPUT, _OUTPUT, _COST))
    return (
        1,
        trace.span_count,
        trace.unpriced_count,
        trace.estimated_count,
        trace.received_bytes,
        int(input_ is not None),
        int(output is not None),
        int(cost is not None),
        input_ or 0,
        output or 0,
        cost or 0,
    )


def _span_order(span: SpanFacts) -> tuple[int, int]:
    return span.started_at_us, span.seq


def _status(states: set[str]) -> str:
    if RUNNING in states:
        return RUNNING
    if not states.isdisjoint(FAILED_STATES):
        return FAILED
    return CANCELLED if CANCELLED in states else COMPLETED


def _plus(a: Amounts, b: Amounts) -> Amounts:
    if a is NOTHING_KNOWN or b is NOTHING_KNOWN:
        return b if a is NOTHING_KNOWN else a
    return tuple(map(add, a, b))


def _minus(a: int | None, b: int | None) -> int | None:
    return a if b is None else (a or 0) - b


def _later(a: int | None, b: int | None) -> int | None:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)
