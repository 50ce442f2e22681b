"""OTLP's traces in JSON: hexadecimal ids, numbers as strings, whatever else is in them."""

import json

import orjson
import pytest

from proxy.otlp import plain, protobuf
from proxy.otlp.received import MAX_OBJECTS, Received, Unreadable
from tests.otlp.spans import END_NS, SPAN, START_NS, TRACE, as_json, as_protobuf


def one(body: bytes) -> Received:
    (found,) = plain.read_json(body)
    assert isinstance(found, Received)
    return found


def test_json_and_protobuf_say_the_same() -> None:
    span = {
        "parentSpanId": "0b0c0d0e0f101112",
        "attributes": {
            "text": "words",
            "count": 2**53 + 1,
            "share": 0.5,
            "yes": True,
            "list": ["a", 1],
            "map": {"a": {"b": [1]}},
        },
        "events": [{"name": "exception", "attributes": {"exception.message": "no"}}],
    }
    found = one(as_json(span, resource={"service.name": "shop"}))
    assert [found] == protobuf.read_protobuf(as_protobuf(span, resource={"service.name": "shop"}))
    assert found.attributes == span["attributes"]
    assert (found.trace_id, found.span_id, found.parent_id) == (TRACE, SPAN, bytes(range(11, 19)))
    assert (found.start_ns, found.end_ns, found.scope) == (START_NS, END_NS, "a library")
    assert found.resource == {"service.name": "shop"}


def test_numbers_may_be_strings_or_numbers_and_enums_names() -> None:
    found = one(
        orjson.dumps(
            {
                "resourceSpans": [
                    {
                        "scopeSpans": [
                            {
                                "spans": [
                                    {
                                        "traceId": TRACE.hex().upper(),
                                        "spanId": SPAN.hex(),
                                        "startTimeUnixNano": START_NS,
                                        "kind": "SPAN_KIND_CLIENT",
                                        "status": {"code": "STATUS_CODE_ERROR", "message": "m"},
                                        "attributes": [
                                            {"key": "n", "value": {"intValue": 7}},
                                            {"key": "d", "value": {"doubleValue": "NaN"}},
                                            {"key": "b", "value": {"bytesValue": "AAE="}},
                                            {"key": "e", "value": {}},
                                            {"key": "z"},
                                        ],
                                    }
                                ]
                            }
                        ]
                    }
                ]
            }
        )
    )
    assert (found.kind, found.failed, found.status_message) == (3, True, "m")
    assert found.attributes == {"n": 7, "d": "nan", "b": "AAE=", "e": None, "z": None}
    assert (found.parent_id, found.end_ns) == (None, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"resourceSpans":null}',
        b'{"resourceSpans":[]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":null}]},{"resource":null}]}',
        b'{"resourceLogs":[1],"resourceSpans":[{"schemaUrl":"x","scopeSpans":[{"x":{"y":[]}}]}]}',
    ],
)
def test_nothing_and_unknown_fields_are_no_mistake(body: bytes) -> None:
    assert plain.read_json(body) == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"resourceSpans":{}}', b'{"resourceSpans":[7]}', b"\xff" * 9]
)
def test_what_is_no_request_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable, match="no ExportTraceServiceRequest"):
        plain.read_json(body)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("traceId", "0" * 32, "a trace id must have 16 bytes"),
        ("traceId", "ab", "a trace id must have 16 bytes"),
        ("traceId", None, "a trace id must have 16 bytes"),
        ("spanId", "zz", "not hexadecimal"),
        ("spanId", "0" * 16, "a span id must have 8 bytes"),
        ("parentSpanId", "abcd", "a parent's span id must have 8 bytes"),
        ("startTimeUnixNano", "-1", "a time must be nanoseconds"),
        ("endTimeUnixNano", str(2**64), "a time must be nanoseconds"),
    ],
)
def test_a_span_that_cannot_be_right_fails_alone(field: str, value: object, said: str) -> None:
    fault, other = plain.read_json(as_json({field: value}, {}))
    assert isinstance(fault, str)
    assert said in fault
    assert isinstance(other, Received)


def test_a_parent_of_zeros_is_none() -> None:
    assert one(as_json({"parentSpanId": "0" * 16})).parent_id is None


def test_a_request_of_too_many_parts_is_not_read() -> None:
    with pytest.raises(Unreadable, match="smaller batches"):
        plain.read_json(b'{"resourceSpans":[' + b"{}," * MAX_OBJECTS + b"{}]}")


def test_a_value_that_is_deep_ends_somewhere() -> None:
    value: dict[str, object] = {"stringValue": "deep"}
    for _ in range(200):
        value = {"arrayValue": {"values": [value]}}
    empty = b'"attributes":[]'
    deep = b'"attributes":[{"key":"a","value":%b}]' % json.dumps(value).encode()
    body = deep.join(as_json({}).rsplit(empty, 1))
    assert "deep" not in str(one(body).attributes)
    assert one(body).attributes.keys() == {"a"}
