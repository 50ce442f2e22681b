"""Upstreams over TLS: whom we trust, what is kept, and an end that somebody else made."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.answer import HIGH_BYTES, UpstreamFault
from proxy.sections import UpstreamConfig
from proxy.upstream import Request, Upstream
from tests import tls
from tests.line import turns
from tests.pooled import GET, OK, POST, call
from tests.wire import Peer, ScriptedUpstream

pytestmark = [pytest.mark.both_loops, pytest.mark.usefixtures("trusted")]

FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


@asynccontextmanager
async def served(context: ssl.SSLContext) -> AsyncIterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    await scripted.start(context)
    try:
        yield scripted
    finally:
        await scripted.stop()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A scripted upstream by the name of localhost that we trust."""
    async with served(tls.server("localhost")) as scripted:
        yield scripted


@pytest.fixture
async def pool(upstream: ScriptedUpstream) -> AsyncIterator[Upstream]:
    opened = Upstream("up", UpstreamConfig(url=upstream.url))
    yield opened
    opened.close()


async def test_calls_share_a_connection_to_a_server_that_is_whom_we_named(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    named: list[str | None] = []
    assert upstream.tls is not None
    upstream.tls.sni_callback = lambda _socket, name, _context: named.append(name)
    upstream.answers(b"{}")
    try:
        for request in (GET, POST, GET):
            assert await call(pool, request) == b"{}"
    finally:
        upstream.tls.sni_callback = None
    assert (upstream.connections, named) == (1, ["localhost"])


async def test_a_server_may_be_vouched_for_by_its_address() -> None:
    async with served(tls.server("127.0.0.1")) as upstream:
        upstream.answers(b"{}")
        pool = Upstream("up", UpstreamConfig(url=f"https://127.0.0.1:{upstream.port}"))
        assert await call(pool) == b"{}"
        pool.close()


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (lambda: tls.server("localhost", trusted=False), "self-signed certificate"),
        (lambda: tls.server("other.example"), "not valid for 'localhost'"),
        (lambda: tls.server("127.0.0.1"), "not valid for 'localhost'"),
    ],
    ids=["self-signed", "another name", "an address"],
)
async def test_a_server_that_nobody_vouches_for_is_told_nothing(
    context: Callable[[], ssl.SSLContext], why: str
) -> None:
    async with served(context()) as upstream:
        pool = Upstream("up", UpstreamConfig(url=upstream.url))
        with pytest.raises(UpstreamFault, match=why) as raised:
            await call(pool)
        assert (raised.value.code, raised.value.phase) == ("upstream_unreachable", "connect")
        assert upstream.requests == []


@pytest.mark.parametrize("size", [0, 4, 4 * HIGH_BYTES])
@pytest.mark.parametrize("proper", [True, False])
async def test_an_answer_that_ends_with_its_connection_is_whole_only_if_tls_was_ended(
    pool: Upstream, upstream: ScriptedUpstream, size: int, proper: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(UNTIL_CLOSE + b"x" * size)
        if proper:
            await peer.close()
        else:
            peer.end()
            await peer.gone()

    upstream.script = script
    if proper:
        assert await call(pool) == b"x" * size
    else:
        with pytest.raises(UpstreamFault, match="in mid-answer") as raised:
            await call(pool)
        assert (raised.value.code, raised.value.phase) == ("upstream_closed", "body")


@pytest.mark.parametrize("proper", [True, False])
async def test_an_answer_with_a_length_is_whole_however_its_connection_ends(
    pool: Upstream, upstream: ScriptedUpstream, proper: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        if proper:
            await peer.close()
        else:
            peer.end()
            await peer.gone()

    upstream.script = script
    for _ in range(2):
        assert await call(pool, POST) == b"hi"
    assert upstream.connections == 2


@pytest.mark.parametrize("size", [2 * HIGH_BYTES, 4 * HIGH_BYTES + 77])
@pytest.mark.parametrize("length", [True, False])
async def test_an_answer_that_is_held_back_is_whole_though_the_upstream_has_gone(
    pool: Upstream, upstream: ScriptedUpstream, size: int, length: bool
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size if length else UNTIL_CLOSE
    read, held = 0, 0

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        await peer.send(b"x" * size)
        peer.writer.close()
        await turns(lambda: not peer.writer.transport.get_write_buffer_size())
        peer.end()  # as most servers do: they wait for no answer to their end of TLS

    upstream.script = script
    async with asyncio.timeout(10):
        exchange = await pool.open(GET)
        while piece := await exchange.answer.read():
            read += len(piece)
            for _ in range(2000):  # the client is slower than the upstream
                await asyncio.sleep(0)
            held += exchange.answer._held
        assert (read, held > 0) == (size, True)
        exchange.close()


async def test_bytes_that_nobody_asked_for_are_no_answer_to_the_next_call_not_even_in_a_race(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        while True:
            await peer.request()
            await peer.send(OK)

    upstream.script = script
    assert await call(pool) == b"hi"
    peers[0].writer.write(FORGED)  # the event loop has no chance to see it before the next call
    assert await call(pool, POST) == b"hi"
    assert upstream.connections == 2


async def test_a_large_upload_and_a_large_answer_pass_at_the_pace_of_the_slower_side(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    piece = os.urandom(100_000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield piece

    async def script(peer: Peer) -> None:
        message = await peer.request()
        await peer.respond(message.body)

    upstream.script = script
    request = Request(method=b"POST", target=b"/", headers=[], body=pieces(), chunked=True)
    assert await call(pool, request) == piece * 40
