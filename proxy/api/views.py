"""The JSON shapes of sessions, traces and totals: one dataclass each, built from records. Pure.

Invariant: every figure is the record's, only in the API's unit (units.py); what is unknown is null.
A span's shape is in span_views.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from proxy.api.units import exact_usd, iso, iso_or_none, ms, usd
from proxy.session import CONFIDENCE, Confidence
from storage.records import Session, Trace, add
from storage.spending import SessionBudget
from storage.totals import Stats, Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session with its sums. `status` is that of its newest trace.

    `sent_bytes` is what the bodies of its calls measured as they passed, `stored_bytes` what they
    added to the database.
    """

    id: str
    name: str | None
    starred: bool
    user_id: str | None
    source: str
    trace_count: int
    span_count: int
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cached_input_tokens: int | None
    reasoning_tokens: int | None
    cost: float | None
    unpriced_count: int
    estimated_count: int
    sent_bytes: int
    stored_bytes: int
    failed_trace_count: int
    error_rate: float
    started_at: str
    ended_at: str | None
    last_active_at: str
    duration_ms: float | None
    avg_latency_ms: float | None
    models: Sequence[str]
    first_input: str | None
    last_output: str | None
    last_error: str | None
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceView:
    """A trace with the sums over its spans.

    `session_source` is the row of session.py by which its session is known, `session_confidence`
    what that is worth; of an "ambiguous" trace, which has no session, it is null. `linked_trace_id`
    is the trace that its call named, which is of another session.
    """

    id: str
    session_id: str | None
    session_source: str | None
    session_confidence: Confidence | None
    name: str
    user_id: str | None
    status: str
    started_at: str
    ended_at: str | None
    duration_ms: float | None
    span_count: int
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cost: float | None
    unpriced_count: int
    estimated_count: int
    sent_bytes: int
    stored_bytes: int
    input: str | None
    output: str | None
    error: str | None
    tags: Sequence[str]
    linked_trace_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetView:
    """What a session may cost, has cost, and may still cost by calls whose cost is not known."""

    limit_usd: float
    spent_usd: float
    reserved_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsView:
    """Totals of a project. `stored_bytes` is what is in the database now."""

    session_count: int
    trace_count: int
    span_count: int
    running_span_count: int
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cost: float | None
    unpriced_count: int
    estimated_count: int
    sent_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalsView:
    """Sums over the rows of a list; `session_count` is null where they are traces.

    `truncated`: there are so many that the sums are over the newest.
    """

    session_count: int | None
    trace_count: int
    span_count: int
    failed_trace_count: int
    error_rate: float | None
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cost: float | None
    unpriced_count: int
    estimated_count: int
    truncated: bool


def session_view(session: Session) -> SessionView:
    """Show a session."""
    tokens = session.tokens
    ended = session.last_ended_at_us
    duration_us = None if ended is None else ended - session.first_started_at_us
    latency_us = (
        session.ended_duration_us / session.ended_trace_count if session.ended_trace_count else None
    )
    return SessionView(
        id=session.session_id,
        name=session.name,
        starred=session.starred,
        user_id=session.user_id,
        source=session.source,
        trace_count=session.trace_count,
        span_count=session.span_count,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        total_tokens=tokens.total,
        cached_input_tokens=tokens.cached_input,
        reasoning_tokens=tokens.reasoning,
        cost=usd(session.cost_nusd),
        unpriced_count=session.unpriced_count,
        estimated_count=session.estimated_count,
        sent_bytes=session.received_bytes,
        stored_bytes=session.stored_bytes,
        failed_trace_count=session.failed_trace_count,
        error_rate=session.failed_trace_count / session.trace_count,
        started_at=iso(session.first_started_at_us),
        ended_at=iso_or_none(ended),
        last_active_at=iso(session.last_active_at_us),
        duration_ms=ms(duration_us),
        avg_latency_ms=ms(latency_us),
        models=session.models,
        first_input=session.first_input,
        last_output=session.last_output,
        last_error=session.last_error,
        status=session.status,
    )


def budget_view(budget: SessionBudget | None) -> BudgetView | None:
    """Show a session's budget."""
    if budget is None:
        return None
    return BudgetView(
        limit_usd=exact_usd(budget.limit_nusd),
        spent_usd=exact_usd(budget.spent_nusd),
        reserved_usd=exact_usd(budget.reserved_nusd),
    )


def trace_view(trace: Trace) -> TraceView:
    """Show a trace."""
    return TraceView(
        id=trace.trace_id.hex(),
        session_id=trace.session_id,
        session_source=trace.session_source,
        session_confidence=CONFIDENCE.get(trace.session_source or ""),
        name=trace.name,
        user_id=trace.user_id,
        status=trace.status,
        started_at=iso(trace.started_at_us),
        ended_at=iso_or_none(trace.ended_at_us),
        duration_ms=ms(trace.duration_us),
        span_count=trace.span_count,
        input_tokens=trace.tokens.input,
        output_tokens=trace.tokens.output,
        total_tokens=trace.tokens.total,
        cost=usd(trace.cost_nusd),
        unpriced_count=trace.unpriced_count,
        estimated_count=trace.estimated_count,
        sent_bytes=trace.received_bytes,
        stored_bytes=trace.stored_bytes,
        input=trace.input_preview,
        output=trace.output_preview,
        error=trace.error,
        tags=trace.tags,
        linked_trace_id=None if trace.linked_trace_id is None else trace.linked_trace_id.hex(),
    )


def stats_view(stats: Stats) -> StatsView:
    """Show a project's totals."""
    return StatsView(
        session_count=stats.session_count,
        trace_count=stats.trace_count,
        span_count=stats.span_count,
        running_span_count=stats.running_span_count,
        input_tokens=stats.input_tokens,
        output_tokens=stats.output_tokens,
        total_tokens=add(stats.input_tokens, stats.output_tokens),
        cost=usd(stats.cost_nusd),
        unpriced_count=stats.unpriced_count,
        estimated_count=stats.estimated_count,
        sent_bytes=stats.received_bytes,
        stored_bytes=stats.stored_bytes,
    )


def totals_view(sums: Totals) -> TotalsView:
    """Show the sums over a list."""
    traces = sums.trace_count
    return TotalsView(
        session_count=sums.session_count,
        trace_count=traces,
        span_count=sums.span_count,
        failed_trace_count=sums.failed_trace_count,
        error_rate=sums.failed_trace_count / traces if traces else None,
        input_tokens=sums.input_tokens,
        output_tokens=sums.output_tokens,
        total_tokens=add(sums.input_tokens, sums.output_tokens),
        cost=usd(sums.cost_nusd),
        unpriced_count=sums.unpriced_count,
        estimated_count=sums.estimated_count,
        truncated=sums.truncated,
    )


def flat(view: SessionView | TraceView) -> dict[str, object]:
    """Give a view's fields as a mapping, to which an answer adds what belongs beside them."""
    return {field.name: getattr(view, field.name) for field in fields(view)}
