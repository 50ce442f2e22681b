"""Traces of OpenTelemetry over HTTP: taken, answered and refused as OTLP says, and read again."""

import gzip
from typing import Any, NamedTuple

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from proxy.api.ingest import Ingest
from proxy.errors import Refused
from storage.database import StorageError
from tests.api.described import operation_at, validator
from tests.keyed import Keyed
from tests.otlp.spans import ROOT, SPAN, START_NS, TRACE, as_json, as_protobuf
from tests.running import CHAT, Running
from tests.wire import ScriptedUpstream

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json; charset=utf-8"}
TURN = {
    "spanId": ROOT.hex(),
    "name": "turn",
    "attributes": {"session.id": "s/1", "user.id": "u"},
}
CALL = {
    "parentSpanId": ROOT.hex(),
    "name": "chat gpt-4o-mini",
    "attributes": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"Hi"}]}]',
        "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"text",'
        '"content":"Hello"}]}]',
        "gen_ai.request.temperature": 0.5,
    },
}


class Reply(NamedTuple):
    """An answer: `body` is JSON where it is said to be."""

    status: int
    headers: dict[str, str]
    body: Any


async def export(tw: Running, body: bytes, headers: dict[str, str]) -> Reply:
    async with tw.client.post(tw.url + "/v1/traces", data=body, headers=headers) as answer:
        data = await answer.read()
        is_json = answer.content_type == "application/json"
        reply = Reply(answer.status, dict(answer.headers), orjson.loads(data) if is_json else data)
    # Whatever it is, it is described, and in the encoding of the request.
    asked = "x-protobuf" if "protobuf" in headers.get("Content-Type", "") else "json"
    assert answer.content_type == f"application/{asked}"
    described = operation_at("POST", "/v1/traces")["responses"][str(reply.status)]
    schema = described["content"][answer.content_type].get("schema", {})
    if is_json:
        assert [error.message for error in validator(schema).iter_errors(reply.body)] == []
    return reply


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("encoding", ["protobuf", "json"])
async def test_spans_are_in_their_session_with_tokens_and_messages(
    tw: Running, encoding: str, *, packed: bool
) -> None:
    write, headers = (as_protobuf, PROTOBUF) if encoding == "protobuf" else (as_json, JSON)
    # The child comes before the root, as it ended first.
    body = write(CALL, TURN, resource={"service.name": "shop"})
    if packed:
        body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
    reply = await export(tw, body, headers)
    assert (reply.status, reply.body) == (200, b"" if encoding == "protobuf" else {})
    session = await tw.api("/api/sessions/s%2F1")
    assert (session["input_tokens"], session["output_tokens"]) == (20, 7)
    assert (session["cached_input_tokens"], session["user_id"]) == (8, "u")
    assert session["cost"] > 0
    assert session["source"] == "session.id"
    (trace,) = session["traces"]
    assert (trace["id"], trace["name"], trace["span_count"]) == (TRACE.hex(), "turn", 2)
    assert trace["status"] == "completed"
    spans = {span["id"]: span for span in (await tw.api(f"/api/traces/{trace['id']}"))["spans"]}
    assert spans[ROOT.hex()]["kind"]["type"] == "custom"
    call = await tw.api(f"/api/spans/{SPAN.hex()}")
    assert (call["parent_id"], call["kind"]["model"]) == (ROOT.hex(), "gpt-4o-mini")
    assert call["metadata"]["duration_ms"] == 2_000
    assert call["input"] == {"messages": [{"role": "user", "content": "Hi"}]}
    assert call["output"] == {"role": "assistant", "content": "Hello"}
    messages = (await tw.api("/api/sessions/s%2F1/conversation"))["messages"]
    assert [(one["role"], one["text"]) for one in messages] == [
        ("user", "Hi"),
        ("assistant", "Hello"),
    ]


async def test_what_is_sent_again_is_stored_once(tw: Running) -> None:
    for _ in range(2):
        reply = await export(tw, as_json(TURN, CALL), JSON)
        assert (reply.status, reply.body) == (200, {})
    session = await tw.api("/api/sessions/s%2F1")
    assert (session["span_count"], session["input_tokens"]) == (2, 20)


async def test_a_root_that_comes_later_names_the_trace_and_its_session(tw: Running) -> None:
    await export(tw, as_json(CALL), JSON)
    assert (await tw.api("/api/sessions"))["sessions"] == []
    await export(tw, as_json(TURN), JSON)
    (session,) = (await tw.api("/api/sessions"))["sessions"]
    assert (session["id"], session["input_tokens"], session["span_count"]) == ("s/1", 20, 2)
    (trace,) = (await tw.api("/api/traces"))["traces"]
    assert (trace["name"], trace["status"]) == ("turn", "completed")


@pytest.mark.parametrize(
    ("body", "headers"),
    [(b"", PROTOBUF), (b"{}", JSON), (b'{"resourceSpans":[]}', JSON)],
)
async def test_an_empty_request_is_taken(tw: Running, body: bytes, headers: dict[str, str]) -> None:
    reply = await export(tw, body, headers)
    assert (reply.status, reply.body) == (200, b"" if headers is PROTOBUF else {})


async def test_spans_that_are_wrong_are_refused_alone_and_the_others_taken(tw: Running) -> None:
    wrong = {"spanId": "00" * 8}
    reply = await export(tw, as_json(wrong, TURN, wrong), JSON)
    message = "a span id must have 8 bytes, not all zero (spans: 2)"
    assert reply.status == 200
    assert reply.body == {"partialSuccess": {"rejectedSpans": "2", "errorMessage": message}}
    again = await export(tw, as_protobuf(wrong, TURN), PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(again.body).partial_success
    assert (partial.rejected_spans, partial.error_message) == (1, message.replace("2", "1"))
    assert (await tw.api("/api/sessions/s%2F1"))["span_count"] == 1
    async with tw.client.get(tw.url + "/metrics") as answer:
        metrics = await answer.text()
    assert 'traceway_ingested_spans_total{result="refused"} 3.0' in metrics
    assert 'traceway_ingested_spans_total{result="created"} 1.0' in metrics


async def test_a_span_with_the_id_of_a_proxied_call_is_refused(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    await tw.raw(CHAT.encode(), body=b"{}")
    proxied = await tw.span()
    taken = {**CALL, "spanId": proxied["id"], "traceId": proxied["trace_id"]}
    reply = await export(tw, as_json(taken, TURN), JSON)
    partial = reply.body["partialSuccess"]
    assert partial["rejectedSpans"] == "1"
    assert "proxied call" in partial["errorMessage"]
    assert (await tw.api(f"/api/spans/{proxied['id']}"))["kind"] == proxied["kind"]


@pytest.mark.parametrize("headers", [PROTOBUF, JSON], ids=["protobuf", "json"])
async def test_what_is_no_request_is_a_400_with_a_status_and_not_retried(
    tw: Running, headers: dict[str, str]
) -> None:
    reply = await export(tw, b"<html>", headers)
    assert reply.status == 400
    assert "Retry-After" not in reply.headers
    assert reply.headers["X-Traceway-Error"] == "bad_parameter"
    if headers is JSON:
        assert reply.body["code"] == 3
        assert "no ExportTraceServiceRequest" in reply.body["message"]
    else:
        assert reply.body[:2] == b"\x08\x03"
        assert b"no ExportTraceServiceRequest" in reply.body


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (bytes(5_000), PROTOBUF, 413),
        (gzip.compress(bytes(500_000)), {**PROTOBUF, "Content-Encoding": "gzip"}, 413),
        (b"no gzip", {**JSON, "Content-Encoding": "gzip"}, 400),
        (b"{}", {**JSON, "Content-Encoding": "lzw"}, 415),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {}, 415),
    ],
    ids=["large", "bomb", "no gzip", "unknown coding", "unknown type", "no type"],
)
async def test_a_body_that_cannot_be_taken_says_why(
    serve: Any, body: bytes, headers: dict[str, str], status: int
) -> None:
    tw = await serve({"ingest.max_body_bytes": "4096"})
    reply = await export(tw, body, headers)
    assert reply.status == status
    assert "Retry-After" not in reply.headers


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Refused(429, "too_much_at_once", "later", retry_after_s=7), 429),
        (Refused(503, "storage_unavailable", "later", retry_after_s=7), 503),
        (StorageError("db", "the disk is full", "make room"), 503),
    ],
    ids=["too much", "not now", "no disk"],
)
async def test_what_may_be_sent_again_says_when(
    tw: Running, monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int
) -> None:
    async def fails(*_: object) -> None:
        raise failure

    monkeypatch.setattr(Ingest, "take_items", fails)
    reply = await export(tw, as_json(TURN), JSON)
    assert reply.status == status
    assert reply.headers["Retry-After"] == ("7" if isinstance(failure, Refused) else "1")
    assert reply.body["code"] == {429: 8, 503: 14}[status]


async def test_a_key_that_writes_is_needed(team: Keyed) -> None:
    body = as_json(TURN)
    for scope, status, code in (("read", 403, 7), ("write", 200, None), ("admin", 200, None)):
        tw = await team.by("alpha", scope)  # type: ignore[arg-type]
        reply = await export(tw, body, JSON)
        assert (reply.status, reply.body.get("code")) == (status, code)
    reply = await export(team.tw, body, JSON)
    assert (reply.status, reply.body["code"]) == (401, 16)
    assert "WWW-Authenticate" in reply.headers


async def test_a_large_request_is_read_and_stored_in_pieces(tw: Running) -> None:
    spans = [
        {
            **CALL,
            "spanId": f"{number:016x}",
            "startTimeUnixNano": str(START_NS + number * 1_000),
        }
        for number in range(1, 401)
    ]
    body = as_json(TURN, *spans)
    assert len(body) > 64 * 1024
    reply = await export(tw, body, JSON)
    assert (reply.status, reply.body) == (200, {})
    session = await tw.api("/api/sessions/s%2F1")
    assert (session["span_count"], session["input_tokens"]) == (401, 8_000)
