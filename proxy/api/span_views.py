"""The JSON shape of a span, built from its record. Pure.

Invariant: every figure is the record's, only in the API's unit (units.py); what is unknown is null.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import orjson

from proxy.api.units import iso, iso_or_none, ms, usd
from storage.records import COMPLETED, RUNNING, Body, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class KindView:
    """What a span is; for a model call its model, provider, tokens and cost.

    `kind` is what an application calls a span of type `custom`; `attributes` are what else it said
    of a span's kind.
    """

    type: str
    kind: str | None
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
    attributes: orjson.Fragment | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyView:
    """What is known of one body. `size` is in bytes, of the whole; `sha256` is hex.

    `assembled`: what is stored was put together from the events of a stream.
    """

    size: int
    sha256: str | None
    content_type: str | None
    content_encoding: str | None
    stored: bool
    assembled: bool
    truncated: bool
    redacted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanMetadata:
    """The rest of what is known of a span.

    `handed_in`: an application told of it, and it is no call of ours; `custom` is what it said of
    it in its own words. `same_call` is the span of the call that this one saw as well, which alone
    is in sums. `moved_from` is the trace that a call which joined this one is by itself: its id
    leads here, and is what the call's answer named unless the call itself named this trace.
    """

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
    handed_in: bool
    same_call: str | None
    moved_from: str | None
    custom: orjson.Fragment | None


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


class _Attributes(msgspec.Struct):
    """What is stored of a span beside its columns, each a JSON object."""

    kind: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()


_ATTRIBUTES: Final = msgspec.json.Decoder(_Attributes)


def brief_view(span: Span) -> SpanView:
    """Show a span with the beginnings of its input and output, as lists do."""
    return span_view(span, span.input_preview, span.output_preview)


def span_view(span: Span, input_value: object, output_value: object) -> SpanView:
    """Show a span with its input and output, which are JSON values or fragments."""
    attributes = _attributes(span.attributes)
    return SpanView(
        id=span.span_id.hex(),
        trace_id=span.trace_id.hex(),
        parent_id=_hex(span.parent_id),
        name=span.name,
        kind=_kind(span, attributes.kind),
        status=_status(span),
        started_at=iso(span.started_at_us),
        ended_at=iso_or_none(span.ended_at_us),
        input=input_value,
        output=output_value,
        metadata=SpanMetadata(
            duration_ms=ms(span.duration_us),
            first_byte_ms=ms(span.first_byte_us),
            ttft_ms=ms(span.first_token_us),
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
            handed_in=span.handed_in,
            same_call=_hex(span.same_call),
            moved_from=_hex(span.moved_from),
            custom=_raw(attributes.metadata),
        ),
    )


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _fragment(json_text: str | None) -> orjson.Fragment | None:
    return None if json_text is None else orjson.Fragment(json_text)


def _attributes(stored: bytes | None) -> _Attributes:
    """Cut what is stored in two as it was written; nothing where it is no such object."""
    if stored is None:
        return _Attributes()
    try:
        return _ATTRIBUTES.decode(stored)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Attributes()


def _raw(value: msgspec.Raw) -> orjson.Fragment | None:
    """Give a value as it was written; as text where a reader's parser would refuse it (1e999)."""
    data = bytes(value)
    if data in (b"", b"null"):
        return None
    try:
        orjson.loads(data)
    except ValueError:
        return orjson.Fragment(orjson.dumps(data.decode(errors="replace")))
    return orjson.Fragment(data)


def _kind(span: Span, attributes: msgspec.Raw) -> KindView:
    tokens = span.tokens
    return KindView(
        type=span.kind,
        kind=span.label,
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
        attributes=_raw(attributes),
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
        stored=body.stored,
        assembled=body.assembled,
        truncated=body.truncated,
        redacted=body.redacted,
    )
