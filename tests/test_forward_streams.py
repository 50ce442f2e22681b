"""Bytes go on as they come, in both directions, however they are cut and however slow a side is."""

import asyncio
import contextlib
import random

import pytest

from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Peer, ScriptedUpstream, connect

CHUNKED_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
MIB = 1024 * 1024


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode()


async def test_each_event_is_with_the_client_before_the_next_one_is_sent(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    got_it = asyncio.Queue[None]()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD)
        for number in range(20):
            await peer.send(chunk(event(str(number))))
            await got_it.get()
        await peer.send(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 15\r\n\r\n" % CHAT.encode() + b'{"stream":true}'
        )
        assert (await client.head()).status == 200
        async with asyncio.timeout(10):
            chunks = client.chunks()
            for number in range(20):
                assert await anext(chunks) == event(str(number))
                got_it.put_nowait(None)
            assert [last async for last in chunks] == [b"data: [DONE]\n\n"]


async def test_the_head_of_an_answer_does_not_wait_for_its_body(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    head_seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await head_seen.wait()
        await peer.send(b"hi")

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(b"GET /api/proxy/openai/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await client.head()
        head_seen.set()
        assert await client.body(head) == b"hi"


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked", b"Content-Length: 100"])
async def test_each_piece_of_an_upload_is_with_the_upstream_before_the_next_one_is_sent(
    tw: Running, upstream: ScriptedUpstream, framing: bytes
) -> None:
    got_it = asyncio.Queue[bytes]()
    chunked = b"chunked" in framing

    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert framing in head.head
        if chunked:
            async for piece in peer.chunks():
                got_it.put_nowait(piece)
        else:
            for _ in range(10):
                got_it.put_nowait(await peer.reader.readexactly(10))
        await peer.respond(b"{}")

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(
            b"POST /api/proxy/openai/v1/files HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % framing
        )
        async with asyncio.timeout(10):
            for number in range(10):
                piece = b"piece %04d" % number
                await client.send(chunk(piece) if chunked else piece)
                assert await got_it.get() == piece
        if chunked:
            await client.send(b"0\r\n\r\n")
        assert (await client.response()).body == b"{}"
    request = (await tw.span())["metadata"]["request"]
    assert request["size"] == 100


async def test_upload_and_answer_go_on_at_the_same_time(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED_HEAD)
        async for piece in peer.chunks():
            await peer.send(chunk(piece.upper()))
        await peer.send(b"0\r\n\r\n")

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(
            b"POST /api/proxy/openai/v1/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        assert (await client.head()).status == 200
        async with asyncio.timeout(10):
            chunks = client.chunks()
            for word in (b"one", b"two", b"three"):
                await client.send(chunk(word))
                assert await anext(chunks) == word.upper()
            await client.send(b"0\r\n\r\n")
            assert [rest async for rest in chunks] == []


def cuts(rng: random.Random, body: bytes) -> list[bytes]:
    """Cut a body at random places, none to eight of them."""
    at = sorted(rng.choices(range(len(body) + 1), k=rng.randrange(9)))
    return [body[a:b] for a, b in zip([0, *at], [*at, len(body)], strict=True) if a < b]


def random_body(rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return rng.randbytes(rng.randrange(1, 200))
    ends = rng.choice([b"\n\n", b"\r\n\r\n", b"\r\r"])
    words = ("a", "\\n", "é", "data: ", "\U0001f600")
    return ends.join(event(rng.choice(words)).strip() for _ in range(rng.randrange(1, 4)))


@pytest.mark.parametrize("worker", range(4))
async def test_random_chunkings_arrive_identical_in_both_directions(
    tw: Running, upstream: ScriptedUpstream, worker: int
) -> None:
    """1,250 calls each: a body goes up in one chunking, and comes back in another."""

    async def script(peer: Peer) -> None:
        rng = random.Random(-1 - worker)  # noqa: S311
        while True:
            sent = await peer.request()
            pieces = cuts(rng, sent.body)
            kind = rng.choice((b"text/event-stream", b"application/octet-stream"))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n"
            if rng.random() < 0.5:
                head += b"Content-Length: %d\r\n\r\n" % len(sent.body)
            else:
                head += b"Transfer-Encoding: chunked\r\n\r\n"
                pieces = [*map(chunk, pieces), b"0\r\n\r\n"]
            for piece in cuts(rng, head) + pieces:
                peer.writer.write(piece)
                if rng.random() < 0.2:
                    await asyncio.sleep(0)

    upstream.script = script
    rng = random.Random(worker)  # noqa: S311
    async with connect(tw.port) as client:
        for number in range(1250):
            body = random_body(rng)
            pieces = cuts(rng, body)
            framing = b"Content-Length: %d" % len(body)
            if rng.random() < 0.5:
                framing = b"Transfer-Encoding: chunked"
                pieces = [*map(chunk, pieces), b"0\r\n\r\n"]
            client.writer.write(
                b"POST /api/proxy/openai/v1/echo HTTP/1.1\r\nHost: localhost\r\n"
                b"X-Traceway-Capture: off\r\n%b\r\n\r\n" % framing
            )
            for piece in pieces:
                client.writer.write(piece)
                if rng.random() < 0.2:
                    await asyncio.sleep(0)
            got = await client.response()
            assert got.body == body, (worker, number)
    assert upstream.connections == 1


async def test_two_hundred_concurrent_callers_each_get_their_own_answer(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    all_there = asyncio.Barrier(200)

    async def script(peer: Peer) -> None:
        while True:
            sent = await peer.request()
            await all_there.wait()
            await peer.respond(b'{"for":"%b"}' % sent.body)

    async def call(number: int) -> None:
        got = await tw.raw(b"/api/proxy/openai/v1/echo", body=b"caller %d" % number)
        assert got.body == b'{"for":"caller %d"}' % number

    upstream.script = script
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(call(number))
    assert len((await tw.api("/api/traces?limit=1000"))["traces"]) == 200


async def others_are_served(tw: Running, upstream: ScriptedUpstream, calls: int) -> None:
    """Make other calls one after the other: time enough to move all that is not held back."""
    held_script = upstream.script
    upstream.answers(b"{}")
    for _ in range(calls):
        got = await tw.raw(b"/api/proxy/openai/v1/other", method=b"GET")
        assert got.body == b"{}"
    upstream.script = held_script


async def test_a_client_that_does_not_read_holds_the_upstream_back(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    begun, written = asyncio.Event(), 0
    piece, total = b"x" * 65536, 96 * MIB

    async def script(peer: Peer) -> None:
        nonlocal written
        await peer.request()
        begun.set()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while written < total:
            await peer.send(piece)
            written += len(piece)

    upstream.script = script
    async with connect(tw.port) as client:
        client.writer.transport.pause_reading()
        await client.send(b"GET /api/proxy/openai/v1/file HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await begun.wait()
        await others_are_served(tw, upstream, 300)
        assert 0 < written < 24 * MIB
        client.writer.transport.resume_reading()
        head = await client.head()
        left = int(head.get(b"Content-Length") or 0)
        while left:
            left -= len(await client.reader.read(left))
    assert written == total


async def test_an_upstream_that_does_not_read_holds_the_client_back(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    sent, total = 0, 96 * MIB

    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        begun.set()
        await go_on.wait()
        peer.writer.transport.resume_reading()
        head = await peer.head()
        left = int(head.get(b"Content-Length") or 0)
        while left:
            left -= len(await peer.reader.read(left))
        await peer.respond(b"{}")

    async def upload(client: Peer) -> None:
        nonlocal sent
        while sent < total:
            await client.send(b"x" * 65536)
            sent += 65536

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(
            b"POST /api/proxy/openai/v1/files HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: %d\r\n\r\n" % total
        )
        uploading = asyncio.create_task(upload(client))
        await begun.wait()
        await others_are_served(tw, upstream, 300)
        assert 0 < sent < 24 * MIB
        go_on.set()
        await uploading
        assert (await client.response()).body == b"{}"


async def test_a_client_that_takes_nothing_for_too_long_counts_as_gone(
    serve: Serve,
    upstream: ScriptedUpstream,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tw = await serve({"server.write_timeout_s": "0.2"})
    begun, upstream_closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        begun.set()
        with contextlib.suppress(ConnectionError):
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (96 * MIB))
            while True:
                await peer.send(b"x" * 65536)
        upstream_closed.set()

    upstream.script = script
    async with connect(tw.port) as client:
        client.writer.transport.pause_reading()
        await client.send(b"GET /api/proxy/openai/v1/file HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await begun.wait()
        runner = tw.server._runner
        assert runner is not None
        assert runner.server is not None
        (stalled,) = runner.server.connections
        async with asyncio.timeout(10):
            await upstream_closed.wait()
        assert stalled not in runner.server.connections
        span = await tw.ended()
    assert span["status"]["cancelled"]["ended_by"] == "client"
    assert caplog.records == []
