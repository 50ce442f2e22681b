"""Spans for the tests of OpenTelemetry: as received, and as a request in both encodings."""

from collections.abc import Mapping

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from proxy.otlp.mapping import mapped
from proxy.otlp.received import Event, Received
from storage.handed import Said, SpanOpened

TRACE = bytes(range(1, 17))
SPAN = bytes(range(1, 9))
ROOT = bytes(range(11, 19))
START_NS = 1_795_718_493_822_000_000
END_NS = START_NS + 2_000_000_000


def received(
    attributes: Mapping[str, object] | None = None,
    *,
    span_id: bytes = SPAN,
    parent_id: bytes | None = ROOT,
    name: str = "a span",
    resource: Mapping[str, object] | None = None,
    events: tuple[Event, ...] = (),
    start_ns: int = START_NS,
    end_ns: int = END_NS,
    failed: bool = False,
    status_message: str = "",
    links: tuple[tuple[str, str], ...] = (),
) -> Received:
    """Give a span as an exporter sent it, a child by default."""
    return Received(
        trace_id=TRACE,
        span_id=span_id,
        parent_id=parent_id,
        name=name,
        kind=3,
        start_ns=start_ns,
        end_ns=end_ns,
        failed=failed,
        status_message=status_message,
        attributes=attributes or {},
        events=events,
        links=links,
        resource=resource or {},
        scope="a library",
    )


def opened(span: Received) -> SpanOpened:
    """Read one span as what is handed in."""
    (found,) = (item for item in mapped(1, [span]).items if isinstance(item, SpanOpened))
    return found


def said(attributes: Mapping[str, object], *, events: tuple[Event, ...] = ()) -> Said:
    """Read what a span with these attributes says of itself."""
    return opened(received(attributes, events=events)).said


def as_json(*spans: Mapping[str, object], resource: Mapping[str, object] | None = None) -> bytes:
    """Write a request in JSON; attributes are plain values."""
    return orjson.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _pairs(resource or {})},
                    "scopeSpans": [
                        {
                            "scope": {"name": "a library", "version": "1"},
                            "spans": [_span(span) for span in spans],
                        }
                    ],
                }
            ]
        }
    )


def as_protobuf(
    *spans: Mapping[str, object], resource: Mapping[str, object] | None = None
) -> bytes:
    """Write the same request in protobuf; an id is hexadecimal as in JSON."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.extend(_key_values(resource or {}))
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = "a library"
    for span in spans:
        whole = {**_DEFAULT, **span}
        made = of_scope.spans.add(
            trace_id=bytes.fromhex(str(whole["traceId"])),
            span_id=bytes.fromhex(str(whole["spanId"])),
            parent_span_id=bytes.fromhex(str(whole["parentSpanId"])),
            name=str(whole["name"]),
            kind=3,
            start_time_unix_nano=START_NS,
            end_time_unix_nano=END_NS,
        )
        attributes = span.get("attributes")
        made.attributes.extend(_key_values(attributes if isinstance(attributes, dict) else {}))
        for event in span.get("events", ()):  # type: ignore[attr-defined]
            made.events.add(name=event["name"], attributes=_key_values(event["attributes"]))
        if "status" in span:
            made.status.code = 2
    return request.SerializeToString()


_DEFAULT = {
    "traceId": TRACE.hex(),
    "spanId": SPAN.hex(),
    "parentSpanId": "",
    "name": "a span",
    "kind": 3,
    "startTimeUnixNano": str(START_NS),
    "endTimeUnixNano": str(END_NS),
}


def _span(span: Mapping[str, object]) -> dict[str, object]:
    written: dict[str, object] = {**_DEFAULT, **span}
    attributes = span.get("attributes")
    written["attributes"] = _pairs(attributes if isinstance(attributes, dict) else {})
    written["events"] = [
        {"name": event["name"], "attributes": _pairs(event["attributes"])}
        for event in span.get("events", ())  # type: ignore[attr-defined]
    ]
    return written


def _pairs(told: Mapping[str, object]) -> list[dict[str, object]]:
    return [{"key": key, "value": _value(value)} for key, value in told.items()]


def _value(value: object) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _pairs(value)}}
    return {"stringValue": value}


def _key_values(told: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any(value)) for key, value in told.items()]


def _any(value: object) -> AnyValue:
    found = AnyValue()
    if isinstance(value, bool):
        found.bool_value = value
    elif isinstance(value, int):
        found.int_value = value
    elif isinstance(value, float):
        found.double_value = value
    elif isinstance(value, list):
        found.array_value.values.extend(map(_any, value))
    elif isinstance(value, dict):
        found.kvlist_value.values.extend(_key_values(value))
    else:
        found.string_value = str(value)
    return found
