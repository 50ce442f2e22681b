"""The client's side: bodies as they come, answers with a head of their own, and the visible cut."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from proxy.answer import ClientFault
from proxy.capture import Budget, Capture
from proxy.downstream import (
    RelayedResponse,
    body_as_it_comes,
    body_at_hand,
    cut,
    sandbox,
    take_body,
    too_large,
    whole_if_small,
)
from proxy.reaper import Clients, Patience
from tests.wire import Peer, connect

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def client_of(handler: Handler) -> AsyncIterator[Peer]:
    """Serve one handler, and give a client of it."""
    server = web.Server(handler, handler_cancellation=True)
    clients = Clients(server, Patience())
    listening = await asyncio.get_running_loop().create_server(clients, "127.0.0.1", 0)
    try:
        async with connect(listening.sockets[0].getsockname()[1]) as client:
            yield client
    finally:
        listening.close()
        await server.shutdown(0)


async def test_an_answer_has_the_head_that_it_was_given_and_nothing_more() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        headers = [(b"x-A", b"\xff"), (b"X-a", b""), (b"Content-Length", b"2")]
        response = RelayedResponse(299, b"Odd \xff", headers, 2)
        await response.prepare(request)
        await response.write(b"hi")
        await response.write_eof()
        return response

    async with client_of(handler) as client:
        await client.send(GET)
        got = await client.response()
    assert got.head == b"HTTP/1.1 299 Odd \xff\r\nx-A: \xff\r\nX-a: \r\nContent-Length: 2\r\n\r\n"
    assert got.body == b"hi"


@pytest.mark.parametrize(
    ("request_bytes", "framing"),
    [
        (GET, b"Transfer-Encoding: chunked\r\n"),
        (GET.replace(b"1.1", b"1.0"), b""),
        (GET.replace(b"Host", b"Connection: close\r\nHost"), b"Transfer-Encoding: chunked\r\n"),
    ],
)
async def test_a_body_of_unknown_length_is_framed_for_the_client(
    request_bytes: bytes, framing: bytes
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = RelayedResponse(200, b"OK", [], None)
        await response.prepare(request)
        await response.write(b"he")
        await response.write(b"llo")
        await response.write_eof()
        return response

    async with client_of(handler) as client:
        await client.send(request_bytes)
        got = await client.response()
    assert got.body == b"hello"
    assert framing in got.head
    assert (got.get(b"Connection") == b"close") is (b"close" in request_bytes)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_that_is_cut_is_seen_to_be_incomplete(begun: bool, version: bytes) -> None:
    got_it = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = RelayedResponse(200, b"OK", [], None)
        if begun:
            await response.prepare(request)
            await response.write(b"hello")
            await got_it.wait()
        cut(request)
        return response

    async with client_of(handler) as client, asyncio.timeout(10):
        await client.send(GET.replace(b"1.1", version))
        if begun:
            await client.head()
            await client.reader.readuntil(b"hello")
            got_it.set()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await (client.reader.read() if version == b"1.0" else client.reader.readexactly(8))


async def test_nothing_is_written_for_a_client_that_is_gone() -> None:
    failed = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = RelayedResponse(200, b"OK", [], 2)
        cut(request)
        with pytest.raises(ConnectionError):
            await response.prepare(request)
        failed.set()
        return response

    async with client_of(handler) as client:
        await client.send(GET)
        async with asyncio.timeout(10):
            await failed.wait()


@pytest.mark.parametrize(
    ("framing", "body", "at_hand"),
    [
        (b"", b"", b""),
        (b"Content-Length: 0\r\n", b"", b""),
        (b"Content-Length: 5\r\n", b"hello", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", None),
        (b"Content-Length: 5\r\n", b"hell", None),
    ],
)
async def test_a_small_body_that_came_with_its_head_is_at_hand(
    framing: bytes, body: bytes, at_hand: bytes | None
) -> None:
    found: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        found.set_result(body_at_hand(request))  # type: ignore[arg-type]
        return web.Response()

    async with client_of(handler) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n" + body)
        assert await found == at_hand


async def test_a_body_is_copied_piece_by_piece_up_to_its_limit() -> None:
    capture = Capture(1000, Budget(1000))
    pieces: asyncio.Queue[bytes | ClientFault] = asyncio.Queue()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        try:
            async for piece in body_as_it_comes(request, capture, 8):  # type: ignore[arg-type]
                pieces.put_nowait(piece)
        except ClientFault as fault:
            pieces.put_nowait(fault)
        return web.Response()

    async with client_of(handler) as client, asyncio.timeout(10):
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        for piece in (b"one", b"two"):
            await client.send(piece)
            assert await pieces.get() == piece
        await client.send(b"three")
        fault = await pieces.get()
    assert isinstance(fault, ClientFault)
    assert (fault.code, fault.status) == ("request_too_large", 413)
    assert capture.captured().head == b"onetwothree"


async def parts(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("pieces", [(), (b"a",), (b"ab", b"cd"), (b"a", b"", b"bcd")])
async def test_a_body_up_to_the_limit_is_read_whole(pieces: tuple[bytes, ...]) -> None:
    assert await whole_if_small(parts(*pieces), 4) == b"".join(pieces)


@pytest.mark.parametrize("pieces", [(b"abcde",), (b"ab", b"cd", b"e", b"f")])
async def test_a_larger_body_is_given_as_it_came(pieces: tuple[bytes, ...]) -> None:
    body = await whole_if_small(parts(*pieces), 4)
    assert not isinstance(body, bytes)
    assert tuple([piece async for piece in body]) == pieces


@pytest.mark.parametrize(
    ("content_type", "active"),
    [
        ("", True),
        ("text/html", True),
        ("TEXT/HTML;charset=x", True),
        ("application/rss+xml", True),
        ("image/svg+xml", True),
        ("text/plain; x=html", False),
        ("application/json", False),
        ("é", False),
    ],
)
def test_types_that_a_browser_runs_or_guesses_are_sandboxed(
    content_type: str, active: bool
) -> None:
    names = [name for name, _ in sandbox(content_type)]
    assert names == ([b"Content-Security-Policy", b"X-Content-Type-Options"] if active else [])


def test_a_body_over_the_limit_has_a_fault_that_names_the_limit() -> None:
    fault = too_large(7)
    assert (fault.code, fault.status) == ("request_too_large", 413)
    assert "7 bytes" in str(fault)


@pytest.mark.parametrize(("whole_bytes", "kind"), [(0, "pieces"), (9, "pieces"), (10, "bytes")])
async def test_a_body_that_comes_later_is_whole_only_up_to_the_size_that_may_be_held(
    whole_bytes: int, kind: str
) -> None:
    seen: list[tuple[str, bytes, int]] = []
    begun = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        capture = Capture(100, Budget(1000))
        body = await take_body(request, capture, 0, whole_bytes)  # type: ignore[arg-type]
        if isinstance(body, bytes):
            seen.append(("bytes", body, capture.size))
        else:
            seen.append(("pieces", b"".join([piece async for piece in body]), capture.size))
        return web.Response()

    async with client_of(handler) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        await begun.wait()
        await client.send(b"01234")
        await client.send(b"56789")
        await client.response()
    assert seen == [(kind, b"0123456789", 10)]


async def test_a_body_that_is_declared_too_large_is_refused_before_it_comes() -> None:
    refused: list[int] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        try:
            await take_body(request, Capture(100, Budget(1000)), 9)  # type: ignore[arg-type]
        except ClientFault as fault:
            refused.append(fault.status)
        return web.Response()

    async with client_of(handler) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        await client.response()
    assert refused == [413]
