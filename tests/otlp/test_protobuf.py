"""OTLP's traces in protobuf: what is in them, what is none, and what would take too much memory."""

import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.otlp import protobuf
from proxy.otlp.received import MAX_OBJECTS, Received, Unreadable
from tests.otlp.spans import TRACE, as_protobuf


def test_nothing_is_an_empty_request() -> None:
    assert protobuf.read_protobuf(b"") == []


def test_an_id_of_another_size_fails_its_span_alone() -> None:
    fault, other = protobuf.read_protobuf(as_protobuf({"spanId": "abcd"}, {}))
    assert fault == "a span id must have 8 bytes, not all zero"
    assert isinstance(other, Received)
    assert other.trace_id == TRACE


def test_a_failed_span_is_failed() -> None:
    (found,) = protobuf.read_protobuf(as_protobuf({"status": 2}))
    assert isinstance(found, Received)
    assert found.failed


@pytest.mark.parametrize("body", [b"\x0a\xff", b"<html>", b"\x0a\x05{", b"\xff" * 20])
def test_what_is_no_request_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable, match="no ExportTraceServiceRequest"):
        protobuf.read_protobuf(body)


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_or_unreadable(body: bytes) -> None:
    with suppress(Unreadable):
        protobuf.read_protobuf(body)


def test_unknown_fields_are_ignored() -> None:
    # Field 1000 as a number, field 1001 as bytes.
    unknown = b"\xc0\x3e\x07\xca\x3e\x02hi"
    (found,) = protobuf.read_protobuf(unknown + as_protobuf({}) + unknown)
    assert isinstance(found, Received)


def nested(*tags: int, inner: bytes) -> bytes:
    """Put a message into others, the first of the tags the outermost."""
    for tag in reversed(tags):
        size = len(inner)
        written = bytearray()
        while size > 127:
            written.append(size & 127 | 128)
            size >>= 7
        inner = bytes([tag]) + bytes([*written, size]) + inner
    return inner


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a\x00" * (MAX_OBJECTS + 1),
        nested(0x0A, 0x12, inner=b"\x12\x00" * (MAX_OBJECTS + 1)),
        nested(0x0A, 0x12, 0x12, inner=b"\x4a\x00" * (MAX_OBJECTS + 1)),
        nested(0x0A, 0x12, 0x12, 0x4A, 0x12, 0x2A, inner=b"\x0a\x00" * (MAX_OBJECTS + 1)),
    ],
    ids=["resources", "spans", "attributes", "values of one list"],
)
def test_two_bytes_for_each_of_many_objects_are_refused_before_they_are_made(body: bytes) -> None:
    with pytest.raises(Unreadable, match="smaller batches"):
        protobuf.read_protobuf(body)


def test_a_large_request_of_few_parts_is_read() -> None:
    (found,) = protobuf.read_protobuf(as_protobuf({"attributes": {"text": "x" * 2_000_000}}))
    assert isinstance(found, Received)
    assert found.attributes == {"text": "x" * 2_000_000}


def test_a_large_body_whose_lengths_lead_out_of_it_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="no ExportTraceServiceRequest"):
        protobuf.read_protobuf(b"\x0a\xff\xff\xff\x7f" + bytes(1_000_000))


def test_a_server_that_takes_no_traces_loads_no_protobuf() -> None:
    program = "import sys, proxy.app; sys.exit('google.protobuf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
