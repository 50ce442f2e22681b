"""Usage asked for in the client's stead: its answer is the same, and its record has the tokens."""

import gzip
import zlib
from collections.abc import Callable

import orjson
import pytest
import zstandard

from proxy.decode import MAX_MEMBERS
from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Peer, Received, ScriptedUpstream, connect

HELLO = b'{"id":"c1","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hello"}}]%b}'
STOP = b'{"id":"c1","model":"gpt-4o","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]%b}'
USAGE = (
    b'{"id":"c1","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}'
)
BODY = b'{"model":"gpt-4o",  "messages":[{"role":"user","content":"Hi"}],"stream":true}'
JSON = b"Content-Type: application/json\r\n"
REFUSAL = b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}'


def stream(*, with_usage: bool) -> bytes:
    """Give the events that an upstream sends, with usage where it was asked for."""
    null = b',"usage":null' if with_usage else b""
    events = [HELLO % null, STOP % null, *([USAGE] if with_usage else []), b"[DONE]"]
    return b"".join(b"data: %b\n\n" % event for event in events)


def asks(request: Received) -> bool:
    return b'"include_usage":true' in request.body


class Provider:
    """An upstream of OpenAI's dialect; `refuses` knows no stream options."""

    def __init__(
        self,
        upstream: ScriptedUpstream,
        *,
        refuses: bool = False,
        compress: Callable[[bytes], bytes] | None = None,
        coding: bytes = b"gzip",
    ) -> None:
        self.requests: list[Received] = []
        self._refuses = refuses
        self._compress = compress
        self._coding = coding
        upstream.script = self._script

    async def _script(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.requests.append(request)
            if self._refuses and b"stream_options" in request.body:
                await peer.respond(REFUSAL, status=b"400 Bad Request")
                continue
            body = stream(with_usage=asks(request))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-A: b\r\n"
            if self._compress is not None:
                body = self._compress(body)
                head += b"Content-Encoding: %b\r\n" % self._coding
            await peer.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(body), 50):
                piece = body[at : at + 50]
                await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await peer.send(b"0\r\n\r\n")


@pytest.mark.parametrize("accepts", [b"", b"Accept-Encoding: gzip, br\r\n"])
async def test_the_clients_bytes_are_the_same_with_and_without_injection(
    serve: Serve, upstream: ScriptedUpstream, accepts: bytes
) -> None:
    provider = Provider(upstream)
    tw = await serve({"upstreams.plain.url": upstream.url, "upstreams.plain.inject_usage": "never"})
    plain = await tw.raw(b"/api/proxy/plain/v1/chat/completions", headers=JSON + accepts, body=BODY)
    edited = await tw.raw(headers=JSON + accepts, body=BODY)

    assert [asks(request) for request in provider.requests] == [False, True]
    assert plain.body == stream(with_usage=False)
    assert edited.body == plain.body
    same = [pair for pair in plain.headers if not pair[0].startswith(b"X-Traceway")]
    assert [pair for pair in edited.headers if not pair[0].startswith(b"X-Traceway")] == same

    left_alone, asked = provider.requests
    assert left_alone.body == BODY
    assert left_alone.get(b"Accept-Encoding") == (b"gzip, br" if accepts else None)
    assert asked.all(b"Accept-Encoding") == [b"identity"]
    assert asked.get(b"Content-Length") == b"%d" % len(asked.body)
    first, second = await tw.spans()
    assert first["kind"]["usage_source"] == "estimated"
    assert second["kind"]["usage_source"] == "injected"
    assert (second["kind"]["input_tokens"], second["kind"]["output_tokens"]) == (7, 2)
    for part in ("size", "sha256"):
        assert second["metadata"]["request"][part] == first["metadata"]["request"][part]
    assert second["input"] == first["input"] == orjson.loads(BODY)


def deflated(body: bytes) -> bytes:
    return zlib.compress(body)


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        (b"gzip", gzip.compress),
        (b"deflate", deflated),
        (b"zstd", zstandard.ZstdCompressor().compress),
    ],
)
async def test_an_upstream_that_compresses_all_the_same_is_edited_and_comes_plain(
    tw: Running, upstream: ScriptedUpstream, coding: bytes, compress: Callable[[bytes], bytes]
) -> None:
    provider = Provider(upstream, compress=compress, coding=coding)
    got = await tw.raw(headers=JSON + b"Accept-Encoding: gzip\r\n", body=BODY)
    assert asks(provider.requests[0])
    assert got.body == stream(with_usage=False)
    assert got.get(b"Content-Encoding") is None
    span = await tw.span()
    assert span["kind"]["usage_source"] == "injected"
    assert span["kind"]["output_tokens"] == 2


async def test_a_coding_that_we_cannot_read_goes_through_unedited(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    def backwards(body: bytes) -> bytes:
        return body[::-1]

    Provider(upstream, compress=backwards, coding=b"x-backwards")
    got = await tw.raw(headers=JSON, body=BODY)
    assert got.body == backwards(stream(with_usage=True))
    assert got.get(b"Content-Encoding") == b"x-backwards"


async def test_a_gzip_of_more_members_than_are_recorded_reaches_its_client_whole(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    def many(body: bytes) -> bytes:
        return gzip.compress(b"") * MAX_MEMBERS + gzip.compress(body)

    Provider(upstream, compress=many)
    assert (await tw.raw(headers=JSON, body=BODY)).body == stream(with_usage=False)


async def test_an_answer_that_is_not_in_the_coding_that_it_names_never_looks_complete(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    def damaged(body: bytes) -> bytes:
        packed = gzip.compress(body)
        return packed[:60] + b"\xff" * 60 + packed[120:]

    Provider(upstream, compress=damaged)
    with pytest.raises((EOFError, ConnectionError)):
        await tw.raw(headers=JSON, body=BODY)
    assert (await tw.ended())["status"]["truncated"]["ended_by"] == "upstream"


async def test_a_refusal_is_tried_once_with_the_clients_own_bytes_and_remembered(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    provider = Provider(upstream, refuses=True)
    for _ in range(2):
        got = await tw.raw(headers=JSON + b"Accept-Encoding: gzip\r\n", body=BODY)
        assert (got.status, got.body) == (200, stream(with_usage=False))
    assert [asks(request) for request in provider.requests] == [True, False, False]
    for request in provider.requests[1:]:
        assert request.body == BODY
        assert request.get(b"Accept-Encoding") == b"gzip"
    assert [span["kind"]["usage_source"] for span in await tw.spans()] == ["estimated"] * 2


async def test_an_error_that_quotes_the_request_is_no_refusal_where_its_own_bytes_fare_no_better(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    requests: list[Received] = []

    async def script(peer: Peer) -> None:
        while True:
            requests.append(await peer.request())
            await peer.respond(b"bad: " + requests[-1].body, status=b"400 Bad Request")

    upstream.script = script
    got = await tw.raw(headers=JSON, body=BODY)
    assert (got.status, got.body) == (400, b"bad: " + BODY)
    assert [asks(request) for request in requests] == [True, False]
    await tw.raw(headers=JSON, body=BODY)
    assert [asks(request) for request in requests[2:]] == [True, False]


@pytest.mark.parametrize("size", [0, 10, 65_536, 200_000])
async def test_any_other_error_of_an_injected_call_comes_back_whole_and_is_not_sent_again(
    tw: Running, upstream: ScriptedUpstream, size: int
) -> None:
    upstream.answers(b"x" * size, status=b"429 Too Many Requests")
    got = await tw.raw(headers=JSON, body=BODY)
    assert (got.status, got.body) == (429, b"x" * size)
    assert len(upstream.requests) == 1


async def test_an_injected_call_that_is_answered_with_json_comes_back_as_it_is(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}'
    upstream.answers(body)
    got = await tw.raw(headers=JSON, body=BODY)
    assert got.body == body
    assert (await tw.span())["kind"]["usage_source"] == "provider"


async def test_auto_asks_for_a_model_only_after_a_stream_of_it_came_without_usage(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    provider = Provider(upstream)
    tw = await serve({"upstreams.openai.inject_usage": "auto"})
    other = BODY.replace(b"gpt-4o", b"gpt-4.1")
    for body in (BODY, BODY, other, other):
        got = await tw.raw(headers=JSON, body=body)
        assert got.body == stream(with_usage=False)
    assert [asks(request) for request in provider.requests] == [False, True, False, True]


async def test_never_means_that_the_bytes_are_left_alone(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    provider = Provider(upstream)
    tw = await serve({"upstreams.openai.inject_usage": "never"})
    for _ in range(2):
        await tw.raw(headers=JSON, body=BODY)
    assert [request.body for request in provider.requests] == [BODY, BODY]


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        (CHAT, JSON, BODY.replace(b"true", b"false")),
        (CHAT, JSON, BODY[:-1] + b',"stream_options":{"include_usage":false}}'),
        (CHAT, JSON, BODY[:-1]),
        (CHAT, JSON, BODY + b" " * (4 * 1024 * 1024)),
        (CHAT, b"Content-Type: text/plain\r\n", BODY),
        (CHAT, JSON + b"Content-Encoding: identity\r\n", BODY),
        ("/api/proxy/openai/v1/responses", JSON, BODY),
    ],
    ids=["no stream", "own choice", "no JSON", "large", "no type", "encoded", "other path"],
)
async def test_a_request_that_does_not_need_it_or_is_not_certain_is_left_alone(
    tw: Running, upstream: ScriptedUpstream, target: str, headers: bytes, body: bytes
) -> None:
    provider = Provider(upstream)
    await tw.raw(target.encode(), headers=headers, body=body)
    (sent,) = provider.requests
    assert sent.body == body
    assert sent.get(b"Accept-Encoding") is None


@pytest.mark.parametrize("size", [0, 300_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_that_comes_in_pieces_is_edited_as_a_whole(
    tw: Running, upstream: ScriptedUpstream, size: int, chunked: bool
) -> None:
    provider = Provider(upstream)
    body = BODY.replace(b"Hi", b"Hi" * (size // 2 + 1))
    pieces = [body[:10], body[10:70_000], body[70_000:]]
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    async with connect(tw.port) as client:
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b%b\r\n\r\n" % (CHAT.encode(), JSON, framing)
        )
        for piece in filter(None, pieces):
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await client.send(b"0\r\n\r\n" if chunked else b"")
        assert (await client.response()).body == stream(with_usage=False)
    (sent,) = provider.requests
    assert asks(sent)
    assert sent.all(b"Transfer-Encoding") == ([b"chunked"] if chunked else [])
    assert (await tw.span())["metadata"]["request"]["size"] == len(body)


async def test_a_stream_that_cannot_be_edited_with_certainty_goes_through_and_ends_the_injection(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    odd = b'data: {"usage":1,"usage":2,"choices":[]}\n\ndata: [DONE]\n\n'
    upstream.answers(odd, content_type=b"text/event-stream")
    for _ in range(2):
        assert (await tw.raw(headers=JSON, body=BODY)).body == odd
    assert [asks(request) for request in upstream.requests] == [True, False]


LARGE = orjson.dumps({**orjson.loads(BODY), "user": "x" * 200_000})


async def test_a_large_request_is_asked_for_its_usage_too(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    provider = Provider(upstream)
    answer = await tw.raw(headers=JSON, body=LARGE)
    assert answer.body == stream(with_usage=False)
    (asked,) = provider.requests
    assert {**orjson.loads(asked.body), "stream_options": None} == {
        **orjson.loads(LARGE),
        "stream_options": None,
    }
    assert asks(asked)
    span = await tw.span()
    assert span["kind"]["usage_source"] == "injected"
    assert span["metadata"]["request"]["size"] == len(LARGE)


async def test_while_too_many_requests_are_held_the_next_ones_go_as_they_came(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    tw = await serve({"recording.body_bytes": "100000"})  # which are too few to keep it whole
    held = tw.server.held
    held.limit_bytes = len(LARGE) - 1
    provider = Provider(upstream)
    answer = await tw.raw(headers=JSON, body=LARGE)
    assert answer.body == stream(with_usage=False)
    assert provider.requests[0].body == LARGE
    held.limit_bytes = len(LARGE)
    await tw.raw(headers=JSON, body=LARGE)
    assert asks(provider.requests[1])
    assert held.used_bytes == 0


async def test_what_recording_keeps_whole_is_held_once_and_takes_nobodys_room(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    tw.server.held.limit_bytes = 0
    provider = Provider(upstream)
    await tw.raw(headers=JSON, body=LARGE)
    assert asks(provider.requests[0])
    assert tw.server.held.used_bytes == 0
    span = await tw.span()
    assert span["metadata"]["request"]["truncated"] is False
