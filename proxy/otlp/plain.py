"""OTLP's traces in JSON: ids are hexadecimal, numbers of 64 bits may be strings. Pure; not on the
event loop where a request is large.

Invariant: unknown fields are ignored, and null is as good as nothing.

Source: OTLP 1.9, "JSON Protobuf Encoding"; ProtoJSON for all that it leaves open.
"""

import binascii
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from proxy.otlp.received import (
    FEW_BYTES,
    MAX_DEPTH,
    MAX_OBJECTS,
    SPAN_ID_BYTES,
    TOO_MANY,
    TRACE_ID_BYTES,
    Event,
    Received,
    Unreadable,
    finite,
    id_of,
    parent_of,
)

# The number is what is specified; ProtoJSON takes the name, too.
_STATUS_ERROR: Final = (2, "STATUS_CODE_ERROR")
# 64 bits of nanoseconds: up to the year 2554.
_MAX_NS: Final = 2**64 - 1


class _Key(msgspec.Struct, rename="camel"):
    key: str = ""
    value: "_Any | None" = None


class _List(msgspec.Struct, rename="camel"):
    values: "list[_Any | None] | None" = None


class _Pairs(msgspec.Struct, rename="camel"):
    values: list[_Key] | None = None


class _Any(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    array_value: _List | None = None
    kvlist_value: _Pairs | None = None
    bytes_value: str | None = None


class _Event(msgspec.Struct, rename="camel"):
    time_unix_nano: int | str | None = None
    name: str | None = None
    attributes: list[_Key] | None = None


class _Link(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    span_id: str | None = None


class _Status(msgspec.Struct, rename="camel"):
    message: str | None = None
    code: int | str | None = None


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    name: str | None = None
    kind: int | str | None = None
    start_time_unix_nano: int | str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: list[_Key] | None = None
    events: list[_Event] | None = None
    links: list[_Link] | None = None
    status: _Status | None = None


class _Resource(msgspec.Struct, rename="camel"):
    attributes: list[_Key] | None = None


class _Scope(msgspec.Struct, rename="camel"):
    name: str | None = None


class _ScopeSpans(msgspec.Struct, rename="camel"):
    scope: _Scope | None = None
    spans: list[_Span] | None = None


class _ResourceSpans(msgspec.Struct, rename="camel"):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] | None = None


class _Request(msgspec.Struct, rename="camel"):
    resource_spans: list[_ResourceSpans] | None = None


_REQUEST: Final = msgspec.json.Decoder(_Request)
_KINDS: Final = {
    f"SPAN_KIND_{name}": at
    for at, name in enumerate(
        ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
    )
}


def read_json(body: bytes) -> list[Received | str]:
    """Read a request in JSON: each span, or what is wrong with it.

    Raises:
        Unreadable: it is none.
    """
    if len(body) > FEW_BYTES and body.count(b"[") + body.count(b"{") > MAX_OBJECTS:
        raise Unreadable(TOO_MANY)
    try:
        request = _REQUEST.decode(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the body is no ExportTraceServiceRequest in JSON: {error}") from None
    found: list[Received | str] = []
    for of_resource in request.resource_spans or ():
        attributes = _pairs((of_resource.resource or _Resource()).attributes)
        for of_scope in of_resource.scope_spans or ():
            scope = (of_scope.scope or _Scope()).name or ""
            for span in of_scope.spans or ():
                try:
                    found.append(_span(span, attributes, scope))
                except ValueError as fault:
                    found.append(str(fault))
    return found


def _span(span: _Span, resource: Mapping[str, object], scope: str) -> Received:
    status = span.status or _Status()
    kind = span.kind or 0
    return Received(
        trace_id=id_of(_hex(span.trace_id), TRACE_ID_BYTES, "trace id"),
        span_id=id_of(_hex(span.span_id), SPAN_ID_BYTES, "span id"),
        parent_id=parent_of(_hex(span.parent_span_id)),
        name=span.name or "",
        kind=_KINDS.get(kind, 0) if isinstance(kind, str) else kind,
        start_ns=_time(span.start_time_unix_nano),
        end_ns=_time(span.end_time_unix_nano),
        failed=status.code in _STATUS_ERROR,
        status_message=status.message or "",
        attributes=_pairs(span.attributes),
        events=tuple(
            Event(event.name or "", _time(event.time_unix_nano), _pairs(event.attributes))
            for event in span.events or ()
        ),
        links=tuple((link.trace_id or "", link.span_id or "") for link in span.links or ()),
        resource=resource,
        scope=scope,
    )


def _pairs(pairs: Iterable[_Key] | None, depth: int = 0) -> dict[str, object]:
    return {pair.key: _value(pair.value, depth) for pair in pairs or ()}


def _value(value: _Any | None, depth: int = 0) -> object:
    if value is None or depth > MAX_DEPTH:
        return None
    if value.string_value is not None:
        return value.string_value
    if value.bool_value is not None:
        return value.bool_value
    if value.int_value is not None:
        return _int(value.int_value)
    if value.double_value is not None:
        return _double(value.double_value)
    if value.array_value is not None:
        return [_value(item, depth + 1) for item in value.array_value.values or ()]
    if value.kvlist_value is not None:
        return _pairs(value.kvlist_value.values, depth + 1)
    return value.bytes_value  # base64, as it came


def _hex(text: str | None) -> bytes:
    try:
        return binascii.unhexlify(text or "")
    except ValueError:
        raise ValueError("an id is not hexadecimal") from None


def _int(value: int | str) -> int | None:
    try:
        number = int(value)
    except ValueError:
        return None
    return number if -(2**63) <= number < 2**64 else None


def _time(value: int | str | None) -> int:
    number = _int(value or 0)
    if number is None or not 0 <= number <= _MAX_NS:
        raise ValueError("a time must be nanoseconds since 1970")
    return number


def _double(value: float | str) -> float | str:
    try:
        return finite(float(value))
    except ValueError:
        return str(value)
