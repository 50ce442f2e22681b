"""The sums: what a trace's row says of its spans, and a project's of its traces.

Invariant: after every transaction each of these rows equals what a fold over the rows below it
gives, whatever the order in which changes came. What an application said of a trace (opened.py) and
its session are no sums. A span that only saw the call of another one (``same_call``) gives no
amounts. Pure; rollup.py reads and writes the rows, session_sums.py folds them into sessions.
"""

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

from storage.columns import TOKEN_COLUMNS
from storage.database import Row
from storage.opened import NOT_OPENED, Opening
from storage.records import CANCELLED, COMPLETED, FAILED, FAILED_STATES, RUNNING, add

# Sums of which each part may be unknown.
AMOUNTS: Final = (*TOKEN_COLUMNS, "cost_nusd")
_amounts: Final = itemgetter(*AMOUNTS)
Amounts = tuple[int | None, ...]
NOTHING_KNOWN: Final[Amounts] = (None,) * len(AMOUNTS)
# 115 days; a longer trace is a mistake, and a sum over a million such still fits 64 bits.
MAX_DURATION_US: Final = 10**13


# Where sums end, so that nothing that anybody says of calls makes a write fail: the sum of two such
# still fits 64 bits. A sum that ends here is no longer exact.
MAX_SUM: Final = 4 * 10**18


def bounded(n: int) -> int:
    """Give a sum, or a difference of sums, as far as sums go."""
    return max(-MAX_SUM, min(n, MAX_SUM))


def bounded_amounts(amounts: "Amounts") -> "Amounts":
    """Give amounts as far as sums go."""
    return tuple(None if n is None else bounded(n) for n in amounts)


def added(old: str, difference: str) -> str:
    """Write the SQL that adds a difference to a sum: it stays between 0 and where sums end."""
    return (
        f"CASE WHEN {old} > {MAX_SUM} - {difference} THEN {MAX_SUM}"
        f" WHEN {old} < -({difference}) THEN 0 ELSE {old} + {difference} END"
    )


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
    is_root: int
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
        return cls._make((*row[:15], row[15:]))

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
            is_root=int(values["parent_id"] is None),
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
            is_root=int(values["parent_id"] is None),
            model=values["model"] if values["model"] is not None else values["model_requested"],
            name=values["name"],
            user_id=values["user_id"],
            input_preview=values["input_preview"],
            output_preview=values["output_preview"],
            error=values["error"],
            amounts=_amounts(values) if counts else NOTHING_KNOWN,
        )


# What the span of a call says as well counts there alone. Not by IS NULL: in a RETURNING, SQLite
# 3.40 takes it for false where the first column of the table is NOT NULL.
_TWIN: Final = "LENGTH(same_call) > 0"
# The bodies of a call that still runs are not counted: a checkpoint does not touch the sums.
SPAN_FACTS: Final = f"""
seq, state, started_at_us, started_at_us + duration_us,
CASE WHEN {_TWIN} THEN 0 WHEN cost_status = 'unpriced' THEN 1 ELSE 0 END,
CASE WHEN {_TWIN} THEN 0 WHEN usage_source = 'estimated' THEN 1 ELSE 0 END,
CASE WHEN state = 'running' THEN 0
  ELSE COALESCE(request_size, 0) + COALESCE(response_size, 0) END,
CASE WHEN state = 'running' THEN 0 ELSE COALESCE(stored_bytes, 0) END,
CASE WHEN LENGTH(parent_id) > 0 THEN 0 ELSE 1 END,
COALESCE(model, model_requested), name, user_id, input_preview, output_preview, error,
{", ".join(f"CASE WHEN {_TWIN} THEN NULL ELSE {amount} END" for amount in AMOUNTS)}
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


# The name of a trace of which nothing has said one yet.
UNNAMED: Final = "trace"


def fold_trace(
    spans: Iterable[SpanFacts],
    session_id: str | None,
    session_source: str | None,
    opening: Opening = NOT_OPENED,
) -> TraceFacts:
    """Sum up the spans of a trace, in any order. The definition of a trace's row.

    Without any span, something was said of it. Its output is that of the newest span without a
    parent that has one: of an agent's run the run's own. Without such, the newest there is.
    """
    ordered = sorted(spans, key=_span_order)
    amounts = NOTHING_KNOWN
    last_ended_at_us = opening.closed_at_us
    user_id = opening.user_id
    input_preview = output_preview = root_output = error = None
    unpriced = estimated = received = stored = 0
    for span in ordered:
        amounts = plus(amounts, span.amounts)
        unpriced += span.unpriced
        estimated += span.estimated
        received += span.received_bytes
        stored += span.stored_bytes
        last_ended_at_us = later(last_ended_at_us, span.ended_at_us)
        if user_id is None:
            user_id = span.user_id
        if input_preview is None:
            input_preview = span.input_preview
        if span.output_preview is not None:
            output_preview = span.output_preview
            root_output = output_preview if span.is_root else root_output
        if span.error is not None and span.state in FAILED_STATES:
            error = span.error
    name = opening.name
    if name is None:
        name = ordered[0].name if ordered else UNNAMED
    seqs = [span.seq for span in ordered]
    if opening.seq is not None:
        seqs.append(opening.seq)
    started_at_us = ordered[0].started_at_us if ordered else opening.began_at_us or 0
    if opening.at_us is not None:
        started_at_us = min(started_at_us, opening.at_us)
    if last_ended_at_us is not None:  # an end that was said may be before the start
        last_ended_at_us = max(last_ended_at_us, started_at_us)
    return TraceFacts(
        seq=min(seqs),
        status=status_of({span.state for span in ordered}, is_open=opening.is_open),
        started_at_us=started_at_us,
        last_ended_at_us=last_ended_at_us,
        span_count=len(ordered),
        unpriced_count=unpriced,
        estimated_count=estimated,
        received_bytes=bounded(received),
        stored_bytes=stored,
        session_id=session_id,
        session_source=session_source,
        user_id=user_id,
        name=name,
        input_preview=input_preview,
        output_preview=output_preview if root_output is None else root_output,
        error=error,
        amounts=bounded_amounts(amounts),
    )


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


def status_of(states: set[str], *, is_open: bool) -> str:
    """Give the state of a trace by the states of its spans; one that is open runs."""
    if is_open or RUNNING in states:
        return RUNNING
    if not states.isdisjoint(FAILED_STATES):
        return FAILED
    return CANCELLED if CANCELLED in states else COMPLETED


def plus(a: Amounts, b: Amounts) -> Amounts:
    if a is NOTHING_KNOWN or b is NOTHING_KNOWN:
        return b if a is NOTHING_KNOWN else a
    return tuple(map(add, a, b))


def minus(a: int | None, b: int | None) -> int | None:
    """Take a part out of a sum."""
    return a if b is None else (a or 0) - b


def later(a: int | None, b: int | None) -> int | None:
    """Give the later of two times, each of which may be none."""
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)
