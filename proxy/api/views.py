"""The API's JSON shapes: one dataclass each, built from the records of storage. Pure.

Invariant: every figure is the record's, only in the API's unit: USD for money, milliseconds for
durations, ISO 8601 in UTC for times; what is unknown is null.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta

import orjson

from storage.records import COMPLETED, RUNNING, Body, Session, Span, Stats, Trace, add

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session with its sums. `status` is that of its newest trace."""

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
    """A trace with the sums over its spans."""

    id: str
    session_id: str | None
    session_source: str | None
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
    input: str | None
    output: str | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KindView:
    """What a span is; for a model call its model, provider, tokens and cost."""

    type: str
    model: str | None
    model_requested: str | None
    provider: str | None
    service_tier: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    audio_input_tokens: int | None
    audio_output_tokens: int | None
    image_input_tokens: int | None
    image_output_tokens: int | None
    usage_source: str | None
    cost: float | None
    cost_status: str | None
    price_version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyView:
    """What is known of one body. `size` is in bytes, of the whole; `sha256` is hex."""

    size: int
    sha256: str | None
    content_type: str | None
    content_encoding: str | None
    stored: bool
    truncated: bool
    redacted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanMetadata:
    """The rest of what is known of a span."""

    duration_ms: float | None
    first_byte_ms: float | None
    ttft_ms: float | None
    total_tokens: int | None
    upstream: str | None
    operation: str | None
    method: str | None
    path: str | None
    query: str | None
    http_status: int | None
    response_id: str | None
    settled_by: str | None
    request: BodyView | None
    response: BodyView | None
    request_headers: orjson.Fragment | None
    response_headers: orjson.Fragment | None
    notes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndView:
    """How a span ended that did not complete."""

    error: str | None
    ended_by: str | None
    phase: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanView:
    """A span. `status` is "running", "completed", or an object with the state as its key."""

    id: str
    trace_id: str
    parent_id: str | None
    name: str
    kind: KindView
    status: str | dict[str, EndView]
    started_at: str
    ended_at: str | None
    input: object
    output: object
    metadata: SpanMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsView:
    """Totals of a project."""

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
    received_bytes: int
    stored_bytes: int


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
        failed_trace_count=session.failed_trace_count,
        error_rate=session.failed_trace_count / session.trace_count,
        started_at=iso(session.first_started_at_us),
        ended_at=_iso(ended),
        last_active_at=iso(session.last_active_at_us),
        duration_ms=_ms(duration_us),
        avg_latency_ms=_ms(latency_us),
        models=session.models,
        first_input=session.first_input,
        last_output=session.last_output,
        last_error=session.last_error,
        status=session.status,
    )


def trace_view(trace: Trace) -> TraceView:
    """Show a trace."""
    return TraceView(
        id=trace.trace_id.hex(),
        session_id=trace.session_id,
        session_source=trace.session_source,
        name=trace.name,
        user_id=trace.user_id,
        status=trace.status,
        started_at=iso(trace.started_at_us),
        ended_at=_iso(trace.ended_at_us),
        duration_ms=_ms(trace.duration_us),
        span_count=trace.span_count,
        input_tokens=trace.tokens.input,
        output_tokens=trace.tokens.output,
        total_tokens=trace.tokens.total,
        cost=usd(trace.cost_nusd),
        unpriced_count=trace.unpriced_count,
        estimated_count=trace.estimated_count,
        input=trace.input_preview,
        output=trace.output_preview,
        error=trace.error,
    )


def span_view(span: Span, input_value: object, output_value: object) -> SpanView:
    """Show a span with its input and output, which are JSON values or fragments."""
    return SpanView(
        id=span.span_id.hex(),
        trace_id=span.trace_id.hex(),
        parent_id=_hex(span.parent_id),
        name=span.name,
        kind=_kind(span),
        status=_status(span),
        started_at=iso(span.started_at_us),
        ended_at=_iso(span.ended_at_us),
        input=input_value,
        output=output_value,
        metadata=SpanMetadata(
            duration_ms=_ms(span.duration_us),
            first_byte_ms=_ms(span.first_byte_us),
            ttft_ms=_ms(span.first_token_us),
            total_tokens=span.tokens.total,
            upstream=span.upstream,
            operation=span.operation,
            method=span.method,
            path=span.path,
            query=span.query,
            http_status=span.http_status,
            response_id=span.response_id,
            settled_by=_hex(span.settled_by),
            request=_body(span.request),
            response=_body(span.response),
            request_headers=_fragment(span.request_headers),
            response_headers=_fragment(span.response_headers),
            notes=span.notes,
        ),
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
        received_bytes=stats.received_bytes,
        stored_bytes=stats.stored_bytes,
    )


def flat(view: SessionView | TraceView) -> dict[str, object]:
    """Give a view's fields as a mapping, to which an answer adds what belongs beside them."""
    return {field.name: getattr(view, field.name) for field in fields(view)}


def usd(nusd: int | None) -> float | None:
    """Give nano-USD as USD."""
    return None if nusd is None else nusd / 1_000_000_000


def iso(time_us: int) -> str:
    """Write a time in microseconds as ISO 8601 with Z."""
    return (_EPOCH + timedelta(microseconds=time_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _iso(time_us: int | None) -> str | None:
    return None if time_us is None else iso(time_us)


def _ms(duration_us: float | None) -> float | None:
    return None if duration_us is None else duration_us / 1000


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _fragment(json_text: str | None) -> orjson.Fragment | None:
    return None if json_text is None else orjson.Fragment(json_text)


def _kind(span: Span) -> KindView:
    tokens = span.tokens
    return KindView(
        type=span.kind,
        model=span.model or span.model_requested,
        model_requested=span.model_requested,
        provider=span.provider,
        service_tier=span.service_tier,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cached_input_tokens=tokens.cached_input,
        cache_write_tokens=tokens.cache_write,
        reasoning_tokens=tokens.reasoning,
        audio_input_tokens=tokens.audio_input,
        audio_output_tokens=tokens.audio_output,
        image_input_tokens=tokens.image_input,
        image_output_tokens=tokens.image_output,
        usage_source=span.usage_source,
        cost=usd(span.cost_nusd),
        cost_status=span.cost_status,
        price_version=span.price_version,
    )


def _status(span: Span) -> str | dict[str, EndView]:
    if span.state in (RUNNING, COMPLETED):
        return span.state
    return {span.state: EndView(error=span.error, ended_by=span.ended_by, phase=span.phase)}


def _body(body: Body | None) -> BodyView | None:
    if body is None:
        return None
    return BodyView(
        size=body.size,
        sha256=_hex(body.sha256),
        content_type=body.content_type,
        content_encoding=body.content_encoding,
        stored=body.content_sha256 is not None,
        truncated=body.truncated,
        redacted=body.redacted,
    )
