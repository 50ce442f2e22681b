"""Who ends a call before its time: clients that leave or fall silent, answers that come early."""

import asyncio
import contextlib
from typing import Any

import orjson
import pytest
from aiohttp import web

from proxy import downstream, send
from proxy import upstream as module
from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Peer, ScriptedUpstream, connect

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hello there"}}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
BODY = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"Hi"}]}'
CALL = (
    b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(BODY), BODY)
)
UPLOAD = b"POST /api/proxy/openai/v1/files HTTP/1.1\r\nHost: localhost\r\n"


class Watched:
    """An upstream that answers so far, and sees when the proxy closes the connection."""

    def __init__(self, upstream: ScriptedUpstream, answer: bytes = b"") -> None:
        self.asked = asyncio.Event()
        self.closed = asyncio.Event()
        self._answer = answer
        upstream.script = self._script

    async def _script(self, peer: Peer) -> None:
        await peer.head()
        self.asked.set()
        await peer.send(self._answer)
        await peer.gone()
        self.closed.set()


async def cancelled(tw: Running, watched: Watched) -> Any:
    """Wait until the upstream's connection is closed, and give the span, which is cancelled."""
    async with asyncio.timeout(2):
        await watched.closed.wait()
    span = await tw.ended()
    assert span["status"]["cancelled"]["ended_by"] == "client", span["status"]
    return span


async def test_a_client_that_is_gone_when_its_answer_is_written_leaves_nothing_in_the_log(
    tw: Running,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def gone(*_: object) -> None:
        raise ConnectionResetError("cannot write to a closing transport")

    monkeypatch.setattr(downstream.RelayedResponse, "write_eof", gone)
    upstream.answers(b"{}")
    async with connect(tw.port) as client:
        await client.send(CALL)
        await client.gone()

    span = await tw.ended()
    assert span["status"]["cancelled"]["ended_by"] == "client"
    assert caplog.records == []


async def test_a_client_that_leaves_before_the_answer_cancels_its_call(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    watched = Watched(upstream)
    async with connect(tw.port) as client:
        await client.send(CALL)
        await watched.asked.wait()
    span = await cancelled(tw, watched)
    assert span["status"]["cancelled"]["phase"] == "headers"
    assert span["kind"]["usage_source"] == "estimated"
    assert span["kind"]["input_tokens"] > 0
    assert span["kind"]["output_tokens"] == 0


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_in_mid_stream_cancels_its_call_and_the_text_so_far_is_kept(
    tw: Running, upstream: ScriptedUpstream, how: str
) -> None:
    watched = Watched(upstream, CHUNKED + CHUNK * 2)
    async with connect(tw.port) as client:
        await client.send(CALL)
        await client.head()
        chunks = client.chunks()
        assert (await anext(chunks)).startswith(EVENT)
        if how == "reset":
            client.cut()
    span = await cancelled(tw, watched)
    assert span["status"]["cancelled"]["phase"] == "body"
    assert span["kind"]["usage_source"] == "estimated"
    assert span["kind"]["output_tokens"] > 0
    assert "Hello there" in orjson.dumps(span["output"]).decode()


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
async def test_a_client_that_leaves_in_mid_upload_cancels_its_call_and_owes_nothing(
    tw: Running, upstream: ScriptedUpstream, framing: bytes
) -> None:
    watched = Watched(upstream)
    async with connect(tw.port) as client:
        await client.send(UPLOAD + framing + b"\r\n\r\n5\r\nhello\r\n")
        await watched.asked.wait()
    span = await cancelled(tw, watched)
    assert span["status"]["cancelled"]["phase"] == "request"
    assert span["kind"]["cost"] == 0


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_while_its_upload_is_held_back_cancels_its_call(
    tw: Running, upstream: ScriptedUpstream, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, over = asyncio.Event(), asyncio.Event()
    look = downstream.let_go_if_gone

    def looked(request: web.Request) -> None:
        if request.protocol._reading_paused:
            held.set()
        look(request)

    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await over.wait()

    upstream.script = script
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    monkeypatch.setattr(send, "let_go_if_gone", looked)
    async with connect(tw.port) as client:
        await client.send(UPLOAD + b"Content-Length: 100000000\r\n\r\n")
        while not held.is_set():  # slowly: an end that waits behind full buffers is not seen
            await client.send(bytes(256 * 1024))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(held.wait(), 0.02)
        if how == "reset":
            client.cut()
    async with asyncio.timeout(2):
        span = await tw.ended()
    over.set()
    assert span["status"]["cancelled"]["ended_by"] == "client"
    assert span["status"]["cancelled"]["phase"] == "request"


async def test_a_client_that_leaves_before_its_chat_request_is_whole_costs_no_call(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    async with connect(tw.port) as client:
        await client.send(CALL[:-1])
        while not (await tw.api("/api/traces"))["traces"]:
            pass
    span = await tw.ended()
    assert span["status"]["cancelled"]["phase"] == "request"
    assert upstream.connections == 0


async def test_a_client_that_leaves_while_we_connect_leaves_no_connection_behind(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    watched = Watched(upstream)
    knocked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.reader.readexactly(5)  # a TLS handshake begins, and nobody answers it
        knocked.set()
        await peer.gone()
        watched.closed.set()

    upstream.script = script
    tw = await serve({"upstreams.openai.url": upstream.url.replace("http:", "https:")})
    async with connect(tw.port) as client:
        await client.send(CALL)
        await knocked.wait()
    await cancelled(tw, watched)


async def test_a_client_that_closes_its_side_only_is_answered_or_cut_but_not_kept_waiting(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    watched = Watched(upstream)
    async with connect(tw.port) as client:
        await client.send(CALL)
        await watched.asked.wait()
        client.writer.write_eof()
        await client.gone()
    await cancelled(tw, watched)


async def test_a_client_that_leaves_after_the_streams_own_end_had_a_complete_answer(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    done = b"data: [DONE]\n\n"
    watched = Watched(upstream, CHUNKED + CHUNK + b"%x\r\n%b\r\n" % (len(done), done))
    async with connect(tw.port) as client:
        await client.send(CALL)
        await client.head()
        seen = b""
        chunks = client.chunks()
        while not seen.endswith(done):
            seen += await anext(chunks)
    await watched.closed.wait()
    assert (await tw.ended())["status"] == "completed"


async def test_a_client_that_leaves_while_a_refusal_is_read_cancels_its_call(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    watched = Watched(upstream, b"HTTP/1.1 400 No\r\nContent-Length: 100\r\n\r\nstream_opt")
    async with connect(tw.port) as client:
        await client.send(CALL)
        await watched.asked.wait()
        got = await tw.raw(b"/api/live", method=b"GET")  # by now that answer is being read
        assert got.status == 200
    async with asyncio.timeout(2):
        await watched.closed.wait()
    assert "cancelled" in (await tw.ended())["status"]


async def test_an_answer_that_comes_before_the_upload_ends_reaches_the_client_and_the_upload_stops(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    watched = Watched(upstream, b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
    async with connect(tw.port) as client:
        await client.send(UPLOAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000)
        got = await client.response()
        assert (got.start, got.body) == (b"HTTP/1.1 413 Too Large", b"big")
        async with asyncio.timeout(2):
            await watched.closed.wait()  # its connection is not used for another call
        await client.send(b"x" * 900_000)  # what is left is taken and thrown away
        await client.send(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.response()).status == 200
    span = await tw.ended()
    assert (span["status"]["failed"]["ended_by"], span["metadata"]["http_status"]) == (
        "upstream",
        413,
    )


async def test_an_upstream_that_answers_early_and_closes_has_answered(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\n\r\n")
        await peer.send(b"big")
        await peer.close()

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n")
        got = await client.head()
        assert got.status == 413
        assert [piece async for piece in client.chunks()] == [b"big"]


@pytest.mark.parametrize(
    ("rest", "status"), [(b"", 408), (b"zz\r\n", 400), (b"5\r\nhello world", 400)]
)
async def test_a_body_that_stands_still_or_is_malformed_never_looks_whole_upstream(
    serve: Serve, upstream: ScriptedUpstream, rest: bytes, status: int
) -> None:
    tw = await serve({"server.body_timeout_s": "0.1" if status == 408 else "300"})
    watched = Watched(upstream)
    async with connect(tw.port) as client:
        await client.send(UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await watched.asked.wait()
        await client.send(rest)
        got = await client.response()
        assert got.status == status
        assert got.get(b"X-Traceway-Error") == b"request_body_broken"
        assert rest == b"" or rest.strip() not in got.body
        if status == 400:
            await client.gone()
    await watched.closed.wait()
    failed = (await tw.ended())["status"]["failed"]
    assert (failed["ended_by"], failed["phase"]) == ("client", "request")


@pytest.mark.parametrize("framing", [b"Content-Length: %d", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("size", [20, 1_000_000])
async def test_a_body_over_the_limit_is_a_413(
    serve: Serve, upstream: ScriptedUpstream, framing: bytes, size: int
) -> None:
    Watched(upstream)
    tw = await serve({"server.max_request_bytes": "10"})
    chunked = b"chunked" in framing
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size) if chunked else b"x" * size
    async with connect(tw.port) as client:
        head = framing if chunked else framing % size
        await client.send(UPLOAD + head + b"\r\n\r\n" + body)
        got = await client.response()
    assert (got.status, got.get(b"X-Traceway-Error")) == (413, b"request_too_large")
