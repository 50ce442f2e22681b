"""One connection to an upstream: one exchange after another, back-pressure, its end."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.answer import HIGH_BYTES, UpstreamFault
from proxy.connection import Connection
from tests.line import OK, Line, line, turns, whole
from tests.wire import ScriptedUpstream

pytestmark = pytest.mark.both_loops


@pytest.fixture
async def wire(upstream: ScriptedUpstream) -> AsyncIterator[Line]:
    async with line(upstream) as opened, asyncio.timeout(10):
        yield opened


async def test_exchanges_follow_one_another_on_a_connection(wire: Line) -> None:
    for _ in range(3):
        answer = wire.begin()
        await wire.peer.send(OK)
        assert await whole(answer) == b"hi"
        assert (answer.status, answer.reason, answer.length) == (200, b"OK", 2)
        assert answer.close()
        assert wire.connection.is_silent()


@pytest.mark.parametrize(
    ("method", "answer_bytes"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\nhi"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n"),
        (b"GET", OK + OK),
        (b"GET", OK + b"x"),
        (b"GET", OK + b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        (b"GET", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi"),
        (b"GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"),
        (b"GET", b"HTTP/1.1 200 OK\r\nconnection: x, Close\r\nContent-Length: 2\r\n\r\nhi"),
    ],
)
async def test_a_connection_that_says_more_or_that_it_will_close_is_used_once(
    wire: Line, method: bytes, answer_bytes: bytes
) -> None:
    answer = wire.begin(method)
    await wire.peer.send(answer_bytes)
    body = await whole(answer)
    assert body == (b"hi" if method == b"GET" and b"204" not in answer_bytes else b"")
    assert not answer.close()
    await wire.peer.gone()


async def test_bytes_that_nobody_asked_for_close_an_idle_connection_and_reach_nobody(
    wire: Line,
) -> None:
    await wire.peer.send(OK)
    await wire.peer.gone()
    assert not wire.connection.is_silent()


async def test_a_connection_that_is_left_while_it_is_held_back_is_not_used_again(
    wire: Line,
) -> None:
    size = HIGH_BYTES + 1
    answer = wire.begin()
    await wire.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    await turns(lambda: answer.complete)  # all has come while its client did not read
    assert not answer.close()
    await wire.peer.gone()


async def test_a_writer_that_waits_goes_on_when_the_connection_is_lost(wire: Line) -> None:
    answer = wire.begin(b"POST")
    wire.peer.writer.transport.pause_reading()
    wire.connection.write(b"x" * 64 * 1024 * 1024)
    waiting = asyncio.create_task(wire.connection.drain(10))
    await asyncio.sleep(0)
    assert not waiting.done()
    wire.peer.cut()
    await waiting
    with pytest.raises(UpstreamFault) as raised:
        await answer.head()
    assert (raised.value.code, raised.value.silent) == ("upstream_closed", True)
    wire.connection.write(b"swallowed")
    assert not answer.close()


async def test_an_exchange_on_a_connection_that_was_just_lost_fails_at_once(wire: Line) -> None:
    wire.peer.cut()
    await turns(lambda: not wire.connection.usable)
    answer = wire.begin(b"POST")
    wire.connection.write(b"POST / HTTP/1.1\r\n\r\n")
    with pytest.raises(UpstreamFault, match="without an answer") as raised:
        await answer.head()
    assert (raised.value.code, raised.value.silent) == ("upstream_closed", True)
    assert not answer.close()


async def test_what_comes_before_a_connection_is_ready_closes_it(wire: Line) -> None:
    transport = wire.connection._transport
    assert transport is not None
    early = Connection(asyncio.get_running_loop())
    early.data_received(OK)  # right behind the handshake, before TLS was handed to us
    early.secured(transport, transport)
    assert not early.usable
    await wire.peer.gone()
    answer = early.begin(b"GET", headers_timeout_s=10, idle_timeout_s=20)
    with pytest.raises(UpstreamFault):
        await answer.head()
    assert not answer.close()
