"""An upstream that fails: its client sees at once that it did, and the record says how."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Peer, Received, Script, ScriptedUpstream, connect

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
FIRST = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]}'


def says(answer: bytes, *, then: str = "wait") -> Script:
    """Make a script that sends these bytes to the first request, then waits, ends or resets."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        if then == "end":
            await peer.close()
        elif then == "reset":
            peer.cut()
        await peer.gone()

    return script


def error_of(got: Received) -> str:
    """Check that an answer is an error of ours, and give its code."""
    error = orjson.loads(got.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("invalid_request_error" if got.status < 500 else "api_error")
    assert got.get(b"Content-Type") == b"application/json"
    assert got.get(b"X-Traceway-Error") == error["code"].encode()
    return str(error["code"])


async def end_of(tw: Running) -> tuple[str, dict[str, Any]]:
    """Give the state of the only call, and how it ended."""
    status = (await tw.ended())["status"]
    assert isinstance(status, dict), status
    ((state, ending),) = status.items()
    return state, ending


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="half a head"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="an interim answer"),
    ],
)
@pytest.mark.parametrize("then", ["end", "reset"])
async def test_an_upstream_that_closes_before_its_answer_is_a_502_and_the_post_went_out_once(
    tw: Running, upstream: ScriptedUpstream, answer: bytes, then: str
) -> None:
    upstream.script = says(answer, then=then)
    got = await tw.raw(body=BODY)
    assert (got.status, error_of(got)) == (502, "upstream_closed")
    state, ending = await end_of(tw)
    assert (state, ending["ended_by"], ending["phase"]) == ("failed", "upstream", "headers")
    assert upstream.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nX-A: a\rInjected: b\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nX-A: a\r\n folded\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nX-A : a\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\nContent-Length: 1\n\na",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_clean_http_is_a_502(
    tw: Running, upstream: ScriptedUpstream, answer: bytes
) -> None:
    upstream.script = says(answer)
    got = await tw.raw(body=BODY)
    assert (got.status, error_of(got)) == (502, "upstream_malformed")
    state, ending = await end_of(tw)
    assert (state, ending["ended_by"], ending["phase"]) == ("failed", "upstream", "headers")
    assert upstream.connections == 1


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"X-Large: " + b"x" * 65_536 + b"\r\n", id="a field over 64 KiB"),
        pytest.param(b"X-A: 1\r\n" * 1001, id="over 1,000 fields"),
        pytest.param((b"X-A: " + b"x" * 60_000 + b"\r\n") * 5, id="over 256 KiB in all"),
        pytest.param(b"X-Endless: " + b"x" * 1_000_000, id="a line without an end"),
    ],
)
async def test_an_answers_head_has_limits(
    tw: Running, upstream: ScriptedUpstream, head: bytes
) -> None:
    upstream.script = says(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: 2\r\n\r\nhi")
    got = await tw.raw(body=BODY)
    assert (got.status, error_of(got)) == (502, "upstream_malformed")


async def test_a_head_just_below_the_limits_passes(tw: Running, upstream: ScriptedUpstream) -> None:
    large = b"X-Large: " + b"x" * 65_000 + b"\r\n"
    upstream.script = says(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + large * 3 + b"X-A: 1\r\n" * 990 + b"\r\nhi"
    )
    got = await tw.raw(headers=large * 3 + b"X-A: 1\r\n" * 990, body=BODY)
    assert (got.status, got.body) == (200, b"hi")
    assert len(got.all(b"X-A")) == 990
    assert len(got.all(b"X-Large")[2]) == 65_000


async def test_a_flood_of_interim_answers_ends(tw: Running, upstream: ScriptedUpstream) -> None:
    upstream.script = says(b"HTTP/1.1 102 Processing\r\nX-A: 1\r\n\r\n" * 20_000)
    got = await tw.raw(body=BODY)
    assert (got.status, error_of(got)) == (502, "upstream_malformed")


CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n" + FIRST


@pytest.mark.parametrize(
    ("rest", "then"),
    [
        pytest.param(b"Content-Length: 100\r\n\r\n" + EVENT, "end", id="length, closed"),
        pytest.param(b"Content-Length: 100\r\n\r\n" + EVENT, "reset", id="length, reset"),
        pytest.param(CHUNKS, "end", id="chunks, closed"),
        pytest.param(CHUNKS, "reset", id="chunks, reset"),
        pytest.param(CHUNKS + b"0\r\n", "end", id="almost the end"),
        pytest.param(CHUNKS + b"zz\r\n", "wait", id="a bad chunk size"),
        pytest.param(CHUNKS + b"0\r\nX: y\r\n : \r\n", "wait", id="a bad trailer"),
        pytest.param(b"\r\n" + EVENT, "reset", id="until close, reset"),
    ],
)
@pytest.mark.parametrize("durability", ["safe", "strict"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_that_breaks_off_never_looks_complete(
    serve: Serve,
    upstream: ScriptedUpstream,
    rest: bytes,
    then: str,
    durability: str,
    version: bytes,
) -> None:
    tw = await serve({"recording.durability": durability})
    got_event = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + rest)
        if then == "reset":
            await got_event.wait()  # a reset may overtake what was sent before it
            peer.cut()
        elif then == "end":
            await peer.close()
        await peer.gone()

    upstream.script = script
    async with connect(tw.port) as client, asyncio.timeout(10):
        await client.send(
            b"POST %b HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), version, len(BODY), BODY)
        )
        head = await client.head()
        if head.get(b"Transfer-Encoding") == b"chunked":
            chunks = client.chunks()
            assert await anext(chunks) == EVENT
            end = anext(chunks)
        else:
            assert await client.reader.readexactly(len(EVENT)) == EVENT
            end = client.reader.readexactly(1) if b"Length" in rest else client.reader.read()
        got_event.set()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await end
    state, ending = await end_of(tw)
    assert (state, ending["ended_by"], ending["phase"]) == ("truncated", "upstream", "body")


async def test_an_answer_that_breaks_off_keeps_its_text_and_its_tokens_are_estimated(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.script = says(CHUNKED + FIRST, then="end")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await tw.raw(body=BODY)
    span = await tw.ended()
    assert span["kind"]["usage_source"] == "estimated"
    assert span["kind"]["input_tokens"] > 0
    assert span["kind"]["output_tokens"] > 0
    assert "Hello" in orjson.dumps(span["output"]).decode()


async def test_an_upstream_that_refuses_connections_is_a_502_with_nothing_to_pay(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    spare = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = spare.sockets[0].getsockname()[1]
    spare.close()
    await spare.wait_closed()
    tw = await serve({"upstreams.openai.url": f"http://127.0.0.1:{port}"})
    got = await tw.raw(body=BODY)
    assert (got.status, error_of(got)) == (502, "upstream_unreachable")
    span = await tw.span()
    assert span["status"]["failed"]["phase"] == "connect"
    assert (span["kind"]["input_tokens"], span["kind"]["cost"]) == (0, 0)


async def test_a_name_that_does_not_resolve_is_a_502(serve: Serve) -> None:
    tw = await serve({"upstreams.openai.url": "http://nosuchhost.invalid:1234"})
    got = await tw.raw(body=BODY)
    assert (got.status, error_of(got)) == (502, "upstream_unreachable")
    _, ending = await end_of(tw)
    assert ending["phase"] == "connect"
    assert "nosuchhost.invalid" in ending["error"]


async def test_a_server_without_tls_behind_an_https_upstream_is_a_502(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 This is not TLS\r\n\r\n")

    upstream.script = script
    tw = await serve({"upstreams.openai.url": upstream.url.replace("http:", "https:")})
    got = await tw.raw(body=BODY)
    assert (got.status, error_of(got)) == (502, "upstream_unreachable")
    assert b"TLS" in got.body


async def test_an_upstream_that_never_answers_is_a_504_at_the_limit(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.script = says(b"HTTP/1.1 100 Continue\r\n\r\n")
    tw = await serve({"upstreams.openai.headers_timeout_s": "0.1"})
    got = await tw.raw(body=BODY)
    assert (got.status, error_of(got)) == (504, "upstream_timeout")
    state, ending = await end_of(tw)
    assert (state, ending["phase"]) == ("failed", "headers")


async def test_a_handshake_that_never_ends_is_a_502_at_the_limit(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.gone()

    upstream.script = script
    tw = await serve(
        {
            "upstreams.openai.url": upstream.url.replace("http:", "https:"),
            "upstreams.openai.connect_timeout_s": "0.1",
        }
    )
    got = await tw.raw(body=BODY)
    assert (got.status, error_of(got)) == (502, "upstream_unreachable")


async def test_a_stream_that_falls_silent_is_cut_at_the_idle_limit(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.script = says(CHUNKED + FIRST)
    tw = await serve({"upstreams.openai.idle_timeout_s": "0.1"})
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await tw.raw(body=BODY)
    state, ending = await end_of(tw)
    assert (state, ending["phase"]) == ("truncated", "body")
    assert "0.1 s" in ending["error"]
