"""One connection to an upstream: one exchange after another, limits, back-pressure, its end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.connection import HIGH_BYTES, Answer, ClientFault, Connection, UpstreamFault
from tests.wire import Peer, ScriptedUpstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Clock:
    """The event loop with a time of its own, that moves when a test says so."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now_s = 0.0
        self._timers: list[tuple[float, Callable[..., None]]] = []

    def time(self) -> float:
        return self._now_s

    def call_later(self, delay_s: float, callback: Callable[..., None]) -> "Clock.Timer":
        timer = (self._now_s + delay_s, callback)
        self._timers.append(timer)
        return Clock.Timer(self._timers, timer)

    def create_future(self) -> asyncio.Future[Any]:
        return self._loop.create_future()

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
        due = [timer for timer in self._timers if timer[0] <= self._now_s]
        for timer in due:
            if timer in self._timers:
                self._timers.remove(timer)
                timer[1]()

    class Timer:
        def __init__(self, timers: list[Any], timer: object) -> None:
            self._timers, self._timer = timers, timer

        def cancel(self) -> None:
            if self._timer in self._timers:
                self._timers.remove(self._timer)


class Line:
    """A connection under test, with the other end of it in the test's hand."""

    def __init__(self, connection: Connection, peer: Peer, clock: Clock) -> None:
        self.connection = connection
        self.peer = peer
        self.clock = clock

    def begin(self, method: bytes = b"GET") -> Answer:
        return self.connection.begin(method, headers_timeout_s=10, idle_timeout_s=20)


@asynccontextmanager
async def line(upstream: ScriptedUpstream) -> AsyncIterator[Line]:
    arrived: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def script(peer: Peer) -> None:
        arrived.set_result(peer)
        await over.wait()

    upstream.script = script
    clock = Clock()
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(clock),  # type: ignore[arg-type]
        "127.0.0.1",
        upstream.port,
    )
    try:
        yield Line(connection, await arrived, clock)
    finally:
        connection.abort()
        over.set()


@pytest.fixture
async def wire(upstream: ScriptedUpstream) -> AsyncIterator[Line]:
    async with line(upstream) as opened, asyncio.timeout(10):
        yield opened


async def turns(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until something is so."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it never came about")


async def whole(answer: Answer) -> bytes:
    await answer.head()
    body = b""
    while piece := await answer.read():
        body += piece
    return body


async def test_exchanges_follow_one_another_on_a_connection(wire: Line) -> None:
    for _ in range(3):
        answer = wire.begin()
        await wire.peer.send(OK)
        assert await whole(answer) == b"hi"
        assert (answer.status, answer.reason, answer.length) == (200, b"OK", 2)
        assert answer.close()
        assert wire.connection.is_silent()


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n", b""],
)
async def test_an_answer_to_head_ends_at_its_head_and_the_next_one_is_not_taken_for_its_body(
    wire: Line, head: bytes
) -> None:
    answer = wire.begin(b"HEAD")
    await wire.peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
    assert await whole(answer) == b""
    assert (answer.complete, answer.length) == (True, 0)
    assert answer.close()
    answer = wire.begin()
    await wire.peer.send(OK)
    assert await whole(answer) == b"hi"


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


async def test_bytes_that_come_after_a_complete_answer_reach_nobody(wire: Line) -> None:
    answer = wire.begin()
    await wire.peer.send(OK)
    await answer.head()
    await wire.peer.send(OK)
    await wire.peer.gone()
    assert await answer.read() == b"hi"
    assert await answer.read() == b""
    assert not answer.close()


async def test_an_answer_that_nobody_reads_is_held_back_and_then_goes_on(wire: Line) -> None:
    size = 16 * 1024 * 1024
    answer = wire.begin()
    await wire.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    wire.peer.writer.write(b"x" * size)
    await answer.head()
    await turns(lambda: answer._held)
    wire.clock.advance(1000)  # the client is slow, which is not the upstream's fault
    assert answer._unread_bytes < 4 * HIGH_BYTES
    assert await whole(answer) == b"x" * size
    assert answer.close()


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
    waiting = asyncio.create_task(wire.connection.drain())
    await asyncio.sleep(0)
    assert not waiting.done()
    wire.peer.cut()
    await waiting
    with pytest.raises(UpstreamFault) as raised:
        await answer.head()
    assert (raised.value.code, raised.value.silent) == ("upstream_closed", True)
    wire.connection.write(b"swallowed")
    assert not answer.close()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_wait_that_is_cancelled_leaves_an_exchange_that_can_be_closed(
    wire: Line, begun: bool
) -> None:
    answer = wire.begin()
    if begun:
        await wire.peer.send(STREAM)
        await answer.head()
    waiting = asyncio.create_task(answer.read() if begun else answer.head())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert not answer.close()
    await wire.peer.gone()


async def test_a_head_must_come_within_its_limit_and_interim_answers_do_not_count(
    wire: Line,
) -> None:
    answer = wire.begin()
    wire.clock.advance(9)
    wire.clock.advance(1)
    with pytest.raises(UpstreamFault, match="10 s") as raised:
        await answer.head()
    fault = raised.value
    assert (fault.code, fault.status, fault.phase) == ("upstream_timeout", 504, "headers")
    assert not fault.silent  # it may be at work: the request must not be sent again
    answer.close()


async def test_an_upload_that_moves_on_keeps_the_limit_of_the_head_away(wire: Line) -> None:
    answer = wire.begin(b"POST")
    for _ in range(100):
        wire.clock.advance(9)
        answer.progress()
    await wire.peer.send(OK)
    assert await whole(answer) == b"hi"
    answer.close()


async def test_a_stream_may_take_hours_if_it_is_never_silent_for_too_long(wire: Line) -> None:
    answer = wire.begin()
    await wire.peer.send(STREAM)
    await answer.head()
    for _ in range(500):
        wire.clock.advance(19)
        await wire.peer.send(b"1\r\nx\r\n")
        assert await answer.read() == b"x"
    wire.clock.advance(20)
    with pytest.raises(UpstreamFault, match="20 s") as raised:
        await answer.read()
    assert (raised.value.phase, raised.value.status) == ("body", 504)
    answer.close()


async def test_what_came_before_a_fault_is_given_first(wire: Line) -> None:
    answer = wire.begin()
    await wire.peer.send(STREAM + b"5\r\nhello\r\nzz\r\n")
    await answer.head()
    assert await answer.read() == b"hello"
    for _ in range(2):
        with pytest.raises(UpstreamFault) as raised:
            await answer.read()
        assert raised.value.code == "upstream_malformed"
    answer.close()


async def test_the_first_fault_of_an_exchange_stands(wire: Line) -> None:
    answer = wire.begin(b"POST")
    answer.fail(ClientFault("request_body_broken", "the client's"))
    answer.fail(UpstreamFault("upstream_closed", "the upstream's", phase="headers"))
    with pytest.raises(ClientFault, match="client's"):
        await answer.head()
    assert not answer.close()


async def test_a_fault_after_the_end_of_an_answer_takes_nothing_from_it(wire: Line) -> None:
    answer = wire.begin(b"POST")
    await wire.peer.send(OK)
    await answer.head()
    answer.fail(ClientFault("request_body_broken", "the upload went on, and broke off"))
    assert await whole(answer) == b"hi"
    assert not answer.close()
