"""Connections of clients: heads that do not come, answers that nobody takes, too many at once, and
what is said to requests that are none."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import orjson
import pytest
from aiohttp import web

from proxy.errors import error_response
from proxy.reaper import MAX_LINE_BYTES, Clients, MalformedBody, Patience, wire
from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Peer, Received, ScriptedUpstream, connect

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LIVE = b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
SOON = Patience(header_s=0.2, body_s=0.2, write_s=0.2)
SECRET = b"sk-proj-abcdefghijklmnopqrstuv"
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Open:
    """A server of one handler, with its clients."""

    def __init__(self, clients: Clients, port: int) -> None:
        self.clients = clients
        self.port = port


@asynccontextmanager
async def opened(
    handler: Handler, patience: Patience = SOON, limit: int | None = None
) -> AsyncIterator[Open]:
    server = web.Server(handler, handler_cancellation=True)
    clients = Clients(server, patience, limit)
    listening = await asyncio.get_running_loop().create_server(clients, "127.0.0.1", 0)
    try:
        yield Open(clients, listening.sockets[0].getsockname()[1])
    finally:
        listening.close()
        await server.shutdown(0)


async def passed(seconds: float) -> None:
    """Let time pass, which is what these limits are about."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await over.wait()


async def hello(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="hello")


def code_of(got: Received) -> str:
    error = orjson.loads(got.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (got.get(b"X-Traceway-Error") or b"").decode() == error["code"]
    assert got.get(
        b"Content-Type",
    ) in (b"application/json", b"application/json; charset=utf-8")
    assert got.all(b"Server") == [b"Traceway"]
    assert got.start.startswith(b"HTTP/1.1 ")
    return str(error["code"])


# Heads.


@pytest.mark.parametrize("before", [b"", GET, GET * 3])
@pytest.mark.parametrize(
    "begun", [b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nA: "]
)
async def test_half_a_head_is_answered_and_closed_in_time_on_a_kept_connection_too(
    before: bytes, begun: bytes
) -> None:
    async with opened(hello) as server, connect(server.port) as client:
        await client.send(before)
        for _ in range(before.count(b"GET")):
            assert (await client.response()).body == b"hello"
        await client.send(begun)
        got = await client.response()
        assert (got.status, code_of(got)) == (408, "head_timeout")
        await client.gone()
    assert server.clients.count == 0


async def test_a_byte_now_and_then_does_not_keep_a_head_open() -> None:
    async with opened(hello) as server, connect(server.port) as client:
        await client.send(GET[:-2] + b"X: ")
        began_s = asyncio.get_running_loop().time()
        closed = asyncio.create_task(client.gone())
        while not closed.done():
            client.writer.write(b"x")
            await asyncio.wait([closed], timeout=0.01)
        assert asyncio.get_running_loop().time() - began_s < 5


async def test_a_new_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async with opened(hello) as server, connect(server.port) as client, asyncio.timeout(10):
        assert await client.reader.read() == b""


async def test_a_kept_connection_may_be_silent_for_longer_than_a_head_may_take() -> None:
    async with opened(hello) as server, connect(server.port) as kept:
        await kept.send(GET)
        await kept.response()
        async with connect(server.port) as other:  # is closed when a head's time is over
            await other.gone()
        await kept.send(GET)
        assert (await kept.response()).body == b"hello"


async def test_a_request_may_take_longer_than_its_head() -> None:
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        body = await request.read()
        await go_on.wait()
        return web.Response(body=body)

    async with opened(slow) as server, connect(server.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel")
        await asked.wait()
        async with connect(server.port) as other:
            await other.gone()
        await client.send(b"lo")
        go_on.set()
        assert (await client.response()).body == b"hello"


async def test_a_body_that_is_here_before_its_handler_runs_is_no_half_head() -> None:
    connections: list[asyncio.Protocol] = []
    go_on = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            assert request.protocol is not None
            connections.append(request.protocol)
            return web.Response()
        await go_on.wait()
        return web.Response(body=await request.read())

    async with opened(slow) as server, connect(server.port) as client:
        await client.send(GET)
        await client.response()
        # As an event loop does that reads on in one go while there is something to read.
        connections[0].data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        connections[0].data_received(b"hello")
        async with connect(server.port) as other:  # is closed when a head's time is over
            await other.gone()
        go_on.set()
        assert (await client.response()).body == b"hello"


async def test_each_half_head_has_its_own_time() -> None:
    async with (
        opened(hello, Patience(header_s=0.5)) as server,
        connect(server.port) as first,
        connect(server.port) as second,
    ):
        await first.send(b"G")
        await second.send(GET)
        assert (await second.response()).body == b"hello"
        await passed(0.25)
        await second.send(b"G")
        await first.gone()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second.reader.read(1), 0.1)
        assert (await second.response()).status == 408


# Answers that nobody takes.


async def test_a_client_that_takes_nothing_is_cut_whatever_writes() -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def large(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(body=b"x" * (64 << 20))
        try:
            await response.prepare(request)
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError) as error:
            ended.set_result(type(error).__name__)
            raise
        return response

    async with opened(large) as server, connect(server.port) as client:
        client.writer.transport.pause_reading()
        await client.send(GET)
        async with asyncio.timeout(10):
            await ended


async def test_a_client_that_takes_slowly_is_not_cut() -> None:
    size = 8 << 20

    async def large(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"x" * size)

    async with opened(large) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**16)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        taken = 0
        while taken < size:
            taken += len(await reader.readexactly(min(size - taken, size // 16)))
            await passed(0.05)
        writer.close()


# Too many.


async def test_a_connection_more_than_there_may_be_is_told_so_and_room_is_made_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened(hello, Patience(), limit=2) as server:
        async with connect(server.port) as first, connect(server.port) as second:
            for client in (first, second):
                await client.send(GET)
                await client.response()
            for _ in range(3):
                async with connect(server.port) as third:
                    await third.send(GET)
                    got = await third.response()
                    assert (got.status, code_of(got)) == (503, "too_many_connections")
                    assert got.get(b"Retry-After") == b"1"
                    assert got.get(b"Connection") == b"close"
            await first.send(GET)
            assert (await first.response()).body == b"hello"
        for left in range(50):  # until the server has seen them leave
            async with connect(server.port) as client:
                await client.send(GET)
                if (await client.response()).status == 200:
                    break
            assert left < 49
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # one a minute


async def test_those_that_are_turned_away_are_closed_whether_they_ask_or_not() -> None:
    async with opened(hello, Patience(), limit=1) as server, connect(server.port) as first:
        await first.send(GET)
        await first.response()
        others = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(50)]
        async with asyncio.timeout(10):
            for reader, writer in others:
                with suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
        await first.send(GET)
        assert (await first.response()).body == b"hello"


# What cannot be read.


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"nonsense " + SECRET + b"\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/3.7\r\nHost: x\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA " + SECRET + b": x\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nAuthorization: " + SECRET + b"\r\n\r\n", 400, "malformed_request"),
        (b"GET /" + SECRET * 4000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "head_too_large"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * (MAX_LINE_BYTES + 1) + b"\r\n\r\n",
            431,
            "head_too_large",
        ),
        (GET + b"nonsense\r\n\r\n", 400, "malformed_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400, "malformed_request"),
    ],
)
async def test_what_is_no_request_has_our_answer_which_quotes_nothing(
    data: bytes, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(hello, Patience()) as server, connect(server.port) as client:
        await client.send(data)
        got = await client.response()
        if got.status == 200:
            got = await client.response()
        assert (got.status, code_of(got)) == (status, code)
        assert got.get(b"Connection") == b"close"
        assert SECRET not in got.head + got.body
        await client.gone()
    assert caplog.records == []


async def test_a_handler_that_fails_is_a_500_of_ours_and_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails(_: web.BaseRequest) -> web.StreamResponse:
        raise ValueError("a bug")

    async with opened(fails, Patience()) as server, connect(server.port) as client:
        await client.send(GET.replace(b"Host", b"Accept: text/html\r\nHost"))
        got = await client.response()
        assert (got.status, code_of(got)) == (500, "internal")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (web.HTTPRequestEntityTooLarge(1, 2), 413, "request_too_large"),
        (web.HTTPForbidden(), 400, "malformed_request"),
        (web.HTTPBadGateway(), 500, "internal"),
    ],
)
async def test_refusals_of_the_libraries_own_get_our_shape(
    error: web.HTTPException, status: int, code: str
) -> None:
    async def refuses(_: web.BaseRequest) -> web.StreamResponse:
        raise error

    async with opened(refuses, Patience()) as server, connect(server.port) as client:
        await client.send(GET)
        got = await client.response()
        assert (got.status, code_of(got)) == (status, code)


async def test_an_expectation_that_nobody_knows_is_a_417_of_ours(tw: Running) -> None:
    got = await tw.raw(b"/api/live", method=b"GET", headers=b"Expect: the-unexpected\r\n")
    assert (got.status, code_of(got)) == (417, "expectation_failed")


async def test_a_redirect_stays_one() -> None:
    async def moves(_: web.BaseRequest) -> web.StreamResponse:
        raise web.HTTPSeeOther("/there")

    async with opened(moves, Patience()) as server, connect(server.port) as client:
        await client.send(GET)
        got = await client.response()
        assert (got.status, got.get(b"Location")) == (303, b"/there")


@pytest.mark.parametrize("path", [b"/api/live", b"/api/health", b"/nowhere", b"/sessions"])
async def test_no_answer_of_ours_names_the_versions_that_run_here(tw: Running, path: bytes) -> None:
    got = await tw.raw(path, method=b"GET")
    assert got.all(b"Server") == [b"Traceway"]


# Bodies that are none.


@pytest.mark.parametrize("before", [b"", GET])
@pytest.mark.parametrize("rest", [b"zz\r\nhello\r\n", b"5\r\nhello!\r\n", b"-1\r\n"])
async def test_the_reader_of_a_body_is_told_at_once_that_a_chunk_is_malformed(
    before: bytes, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asked = asyncio.Event()

    async def reads(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response()
        asked.set()
        try:
            while await request.content.readany():
                pass
        except MalformedBody as error:
            told.set_result(str(error.message))
        return web.Response(status=400, text="malformed")

    async with opened(reads, Patience()) as server, connect(server.port) as client:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(before + head + b"5\r\nhello\r\n")
        await asked.wait()
        await client.send(rest)
        await client.send(b"more of it\r\n")
        async with asyncio.timeout(10):
            assert await told == "a chunk of the request body is malformed"
        got = await client.response()
        if before:
            got = await client.response()
        assert (got.status, got.body) == (400, b"malformed")
        assert await client.reader.read() == b""  # and not a second answer
    assert caplog.records == []


async def test_what_follows_a_whole_body_is_the_next_requests_fault() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await go_on.wait()  # its body is whole, and not read yet
        return web.Response(body=await request.read())

    async with opened(slow, Patience()) as server, connect(server.port) as client:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        await client.send(head)
        await asked.wait()
        await client.send(b"nonsense\r\n\r\n")
        await passed(0.05)
        go_on.set()
        assert (await client.response()).body == b"hello"
        got = await client.response()
        assert (got.status, code_of(got)) == (400, "malformed_request")


async def test_a_malformed_upload_closes_its_upstream_connection_and_others_go_on(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        asked.set()
        await peer.gone()
        closed.set()

    upstream.script = script
    async with connect(tw.port) as client:
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(head % CHAT.replace("chat/completions", "files").encode())
        await client.send(b"5\r\nhello\r\n")
        await asked.wait()
        await client.send(b"zz\r\n")
        got = await client.response()
        assert (got.status, code_of(got)) == (400, "request_body_broken")
        await asyncio.wait_for(closed.wait(), 10)
    failed = (await tw.ended())["status"]["failed"]
    assert (failed["ended_by"], failed["phase"]) == ("client", "request")


# The pieces.


async def test_limits_are_those_of_the_configuration(serve: Serve) -> None:
    tw = await serve({"server.header_timeout_s": "0.2", "server.max_connections": "2"})
    async with connect(tw.port) as one, connect(tw.port) as two, connect(tw.port) as three:
        await one.send(b"GET")
        await three.send(LIVE)
        assert (await three.response()).status == 503
        assert (await one.response()).status == 408
        await two.gone()


def test_an_answer_without_a_request_is_whole() -> None:
    head, _, body = wire(error_response(408, "head_timeout", "late")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nContent-Length: %d\r\nConnection: close" % len(body) in head
    assert orjson.loads(body)["error"]["code"] == "head_timeout"
    with pytest.raises(TypeError):
        wire(web.Response())
