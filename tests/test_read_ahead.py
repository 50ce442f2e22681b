"""What is read of clients ahead of need: much of a few, little of many, never more than that."""

import asyncio

import pytest
from aiohttp import web

from proxy.read_ahead import AHEAD_BYTES, LEAST_READ_BYTES, MOST_READ_BYTES, ReadAhead
from proxy.reaper import READ_BYTES, Patience
from tests.test_reaper import opened
from tests.wire import connect

PATIENT = Patience()
CLIENTS = 100
BODY = bytes(range(256)) * 1200
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.mark.parametrize(
    ("ahead_bytes", "room_bytes"),
    [
        (0, MOST_READ_BYTES),
        (AHEAD_BYTES // 2, MOST_READ_BYTES),
        (AHEAD_BYTES - 8 * 100_000, 100_000),
        (AHEAD_BYTES - 8 * LEAST_READ_BYTES, LEAST_READ_BYTES),
        (AHEAD_BYTES, LEAST_READ_BYTES),
        (2 * AHEAD_BYTES, LEAST_READ_BYTES),
    ],
)
def test_the_more_waits_the_less_is_read_at_once(ahead_bytes: int, room_bytes: int) -> None:
    read_ahead = ReadAhead()
    read_ahead.ahead_bytes = ahead_bytes
    assert len(read_ahead.room()) == room_bytes


async def test_of_many_bodies_at_once_little_is_here_until_it_is_taken_and_then_all_of_each() -> (
    None
):
    reading: list[web.BaseRequest] = []
    all_read, may_take = asyncio.Event(), asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        reading.append(request)
        if len(reading) == CLIENTS:
            all_read.set()
        await may_take.wait()
        return web.Response(body=await request.read())

    async def call(port: int) -> None:
        async with connect(port) as client:
            await client.send(POST)
            assert (await client.response()).body == BODY

    async with opened(slow, PATIENT) as server, asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(call(server.port))
        await all_read.wait()
        read_bytes = sum(request.content.total_bytes for request in reading)
        most_bytes = AHEAD_BYTES + CLIENTS * (LEAST_READ_BYTES + 2 * READ_BYTES)
        assert read_bytes <= most_bytes < CLIENTS * len(BODY) // 2
        assert server.clients.read_ahead.ahead_bytes > CLIENTS * READ_BYTES
        may_take.set()
    assert server.clients.read_ahead.ahead_bytes == 0


async def test_what_a_connection_held_that_is_cut_waits_no_more() -> None:
    waited_bytes = 0

    async def cut(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal waited_bytes
        waited_bytes = server.clients.read_ahead.ahead_bytes
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with opened(cut, PATIENT) as server, connect(server.port) as client:
        await client.send(POST)
        await client.gone()
        assert waited_bytes > 0
        assert server.clients.read_ahead.ahead_bytes == 0
