"""What an exporter is answered, read again by the real messages."""

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from proxy.otlp.answers import failure, success


def test_where_all_was_taken_there_is_no_partial_success() -> None:
    assert success(as_json=True, refused=0, message="") == b"{}"
    whole = ExportTraceServiceResponse.FromString(success(as_json=False, refused=0, message=""))
    assert not whole.HasField("partial_success")


def test_what_was_refused_is_counted_and_explained_in_both_encodings() -> None:
    message = "a span id must have 8 bytes … " * 20
    partial = orjson.loads(success(as_json=True, refused=300, message=message))["partialSuccess"]
    assert partial == {"rejectedSpans": "300", "errorMessage": message}
    read = ExportTraceServiceResponse.FromString(success(False, 300, message)).partial_success
    assert (read.rejected_spans, read.error_message) == (300, message)


def test_a_failure_is_a_status_of_google_rpc() -> None:
    assert orjson.loads(failure(as_json=True, status=429, message="later")) == {
        "code": 8,
        "message": "later",
    }
    with_more = failure(as_json=True, status=429, message="later", beside={"error": {"a": 1}})
    assert orjson.loads(with_more) == {"code": 8, "message": "later", "error": {"a": 1}}
    # Field 1, a number; field 2, a text.
    assert failure(as_json=False, status=400, message="no") == b"\x08\x03\x12\x02no"
    assert failure(as_json=False, status=503, message="") == b"\x08\x0e\x12\x00"
    assert failure(as_json=False, status=500, message="")[:2] == b"\x08\x0d"
