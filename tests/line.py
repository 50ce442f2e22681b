"""A connection to an upstream for tests, with its other end and its clock in the test's hand."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.answer import Answer
from proxy.connection import Connection
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


class Counting(Connection):
    """A connection that says how many bytes have come."""

    received = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.received += len(data)


class Line:
    """A connection under test, with the other end of it in the test's hand."""

    def __init__(self, connection: Counting, peer: Peer, clock: Clock) -> None:
        self.connection = connection
        self.peer = peer
        self.clock = clock

    def begin(self, method: bytes = b"GET", *, ends_at: float = math.inf) -> Answer:
        return self.connection.begin(
            method, headers_timeout_s=10, idle_timeout_s=20, ends_at=ends_at
        )

    async def deliver(self, data: bytes) -> None:
        """Send some bytes, and wait until the connection has them."""
        due = self.connection.received + len(data)
        await self.peer.send(data)
        await turns(lambda: self.connection.received >= due or not self.connection.usable)


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
        lambda: Counting(clock),  # type: ignore[arg-type]
        "127.0.0.1",
        upstream.port,
    )
    try:
        yield Line(connection, await arrived, clock)
    finally:
        connection.abort()
        over.set()


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
