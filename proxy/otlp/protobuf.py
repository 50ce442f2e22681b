"""OTLP's traces in protobuf. Pure; not on the event loop where a request is large.

Invariant: unknown fields are ignored, as the specification asks for, and what takes more than a
bounded number of objects is not parsed.

Source: opentelemetry-proto 1.45 (collector/trace/v1, trace/v1, common/v1).
"""

import importlib
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

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

_NONE: Final = "the body is no ExportTraceServiceRequest in protobuf"
_STATUS_ERROR: Final = 2


def read_protobuf(body: bytes) -> list[Received | str]:
    """Read a request in protobuf: each span, or what is wrong with it.

    Raises:
        Unreadable: it is none.
    """
    if len(body) > FEW_BYTES:
        _check_size(body)
    messages = _messages()
    try:
        request = messages.ExportTraceServiceRequest.FromString(body)
    except messages.DecodeError:
        raise Unreadable(_NONE) from None
    found: list[Received | str] = []
    for of_resource in request.resource_spans:
        attributes = _pairs(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                try:
                    found.append(_span(span, attributes, of_scope.scope.name))
                except ValueError as fault:
                    found.append(str(fault))
    return found


class _Messages(NamedTuple):
    ExportTraceServiceRequest: Any
    DecodeError: type[Exception]


def _messages() -> _Messages:
    """Import protobuf with the first request that needs it: 25 ms and 6 MiB."""
    service = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    errors = importlib.import_module("google.protobuf.message")
    return _Messages(service.ExportTraceServiceRequest, errors.DecodeError)


def _span(span: Any, resource: Mapping[str, object], scope: str) -> Received:
    return Received(
        trace_id=id_of(span.trace_id, TRACE_ID_BYTES, "trace id"),
        span_id=id_of(span.span_id, SPAN_ID_BYTES, "span id"),
        parent_id=parent_of(span.parent_span_id),
        name=span.name,
        kind=span.kind,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        failed=span.status.code == _STATUS_ERROR,
        status_message=span.status.message,
        attributes=_pairs(span.attributes),
        events=tuple(
            Event(event.name, event.time_unix_nano, _pairs(event.attributes))
            for event in span.events
        ),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        resource=resource,
        scope=scope,
    )


def _pairs(pairs: Any, depth: int = 0) -> dict[str, object]:
    return {pair.key: _value(pair.value, depth) for pair in pairs}


def _value(value: Any, depth: int = 0) -> object:
    kind = value.WhichOneof("value")
    if kind is None or depth > MAX_DEPTH:
        return None
    if kind == "array_value":
        return [_value(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _pairs(value.kvlist_value.values, depth + 1)
    plain = getattr(value, kind)
    if kind == "double_value":
        return finite(plain)
    return b64encode(plain).decode() if kind == "bytes_value" else plain


# The fields that hold messages, by number: how a request is walked through before it is parsed.
_ANY: Final[dict[int, Any]] = {}
_PAIR: Final[dict[int, Any]] = {2: _ANY}
_ANY.update({5: {1: _ANY}, 6: {1: _PAIR}})
_SPAN_SHAPE: Final = {9: _PAIR, 11: {3: _PAIR}, 13: {4: _PAIR}, 15: {}}
_SCOPE_SHAPE: Final = {1: {3: _PAIR}, 2: _SPAN_SHAPE}
_SHAPE: Final = {1: {1: {1: _PAIR}, 2: _SCOPE_SHAPE}}


def _check_size(body: bytes) -> None:
    """See that a request has no more messages than may be built: 2 bytes are enough for one.

    Raises:
        Unreadable: it has more, or its lengths lead out of it.
    """
    left = MAX_OBJECTS
    open_messages: list[tuple[int, int, dict[int, Any]]] = [(0, len(body), _SHAPE)]
    while open_messages:
        at, end, shape = open_messages.pop()
        while at < end:
            tag, at = body[at], at + 1
            if tag > 127:
                tag, at = _varint(body, at - 1)
            size = 0
            if tag & 7 == 0:
                _, at = _varint(body, at)
            elif tag & 7 == 2:
                size, at = _varint(body, at)
            else:
                size = {1: 8, 5: 4}.get(tag & 7, len(body))  # groups are none of ours
            if size > end - at:
                raise Unreadable(_NONE)
            if tag & 7 == 2 and (inner := shape.get(tag >> 3)) is not None:
                left -= 1
                if left < 0:
                    raise Unreadable(TOO_MANY)
                open_messages.append((at, at + size, inner))
            at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte, the lowest first; give it, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise Unreadable(_NONE)
