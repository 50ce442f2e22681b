"""How a connection comes about: directly or through a proxy, over TLS or not, or not at all."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from proxy.answer import HIGH_BYTES, UpstreamFault
from proxy.sections import UpstreamConfig
from proxy.upstream import Request, Upstream
from tests import tls
from tests.forward_proxy import ForwardProxy, forward_proxy
from tests.line import turns
from tests.wire import Peer, ScriptedUpstream

pytestmark = [pytest.mark.both_loops, pytest.mark.usefixtures("trusted")]

GET = Request(method=b"GET", target=b"/x?y", headers=[(b"Host", b"up.example")])
POST = Request(method=b"POST", target=b"/x?y", headers=[(b"Content-Length", b"2")], body=b"{}")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Ways:
    """Makes pools that reach one scripted upstream by the name up.example, through a proxy."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.upstream = ScriptedUpstream()

    async def through(
        self, *, upstream_tls: bool, proxy_tls: bool, authorization: bytes | None = None
    ) -> tuple[Upstream, ForwardProxy]:
        await self.upstream.start(tls.server("up.example") if upstream_tls else None)
        self._stack.push_async_callback(self.upstream.stop)
        proxy = await self._stack.enter_async_context(
            forward_proxy(self.upstream, tls.server("localhost") if proxy_tls else None)
        )
        scheme = "https" if upstream_tls else "http"
        pool = Upstream(
            "up", UpstreamConfig(url=f"{scheme}://up.example:81/v"), proxy.hop(authorization)
        )
        self._stack.callback(pool.close)
        return pool, proxy


@pytest.fixture
async def ways() -> AsyncIterator[Ways]:
    async with AsyncExitStack() as stack:
        yield Ways(stack)


async def call(pool: Upstream, request: Request = GET) -> bytes:
    async with asyncio.timeout(10):
        exchange = await pool.open(request)
        try:
            body = b""
            while piece := await exchange.answer.read():
                body += piece
            return body
        finally:
            exchange.close()


@pytest.mark.parametrize("proxy_tls", [False, True])
async def test_an_upstream_over_tls_is_reached_by_a_tunnel_in_which_the_proxy_reads_nothing(
    ways: Ways, proxy_tls: bool
) -> None:
    pool, proxy = await ways.through(
        upstream_tls=True, proxy_tls=proxy_tls, authorization=b"Basic am9lOnBhc3M="
    )
    ways.upstream.answers(b"{}")
    for request in (GET, POST, GET):
        assert await call(pool, request) == b"{}"
    (asked,) = proxy.asked  # the tunnel is kept, too
    assert asked.start == b"CONNECT up.example:81 HTTP/1.1"
    assert asked.headers == [
        (b"Host", b"up.example:81"),
        (b"Proxy-Authorization", b"Basic am9lOnBhc3M="),
    ]
    assert b"HTTP/1.1" not in proxy.passed
    assert [r.start for r in ways.upstream.requests] == [
        b"GET /x?y HTTP/1.1",
        b"POST /x?y HTTP/1.1",
        b"GET /x?y HTTP/1.1",
    ]
    assert not any(r.get(b"Proxy-Authorization") for r in ways.upstream.requests)


@pytest.mark.parametrize("proxy_tls", [False, True])
async def test_an_upstream_without_tls_is_asked_for_in_full_and_the_connection_is_kept(
    ways: Ways, proxy_tls: bool
) -> None:
    pool, proxy = await ways.through(
        upstream_tls=False, proxy_tls=proxy_tls, authorization=b"Basic am9lOnBhc3M="
    )
    proxy.scripted.answers(b"{}")
    for _ in range(2):
        assert await call(pool) == b"{}"
    for request in proxy.scripted.requests:
        assert request.start == b"GET http://up.example:81/x?y HTTP/1.1"
        assert request.headers == [
            (b"Host", b"up.example"),
            (b"Proxy-Authorization", b"Basic am9lOnBhc3M="),
        ]
    assert (proxy.scripted.connections, ways.upstream.connections) == (1, 0)


async def test_a_proxy_whose_url_has_no_user_is_sent_no_credentials(ways: Ways) -> None:
    pool, proxy = await ways.through(upstream_tls=False, proxy_tls=False)
    proxy.scripted.answers(b"{}")
    assert await call(pool) == b"{}"
    assert proxy.scripted.requests[0].headers == GET.headers


async def test_a_proxy_that_asks_for_other_credentials_is_no_answer_of_the_upstream(
    ways: Ways,
) -> None:
    pool, proxy = await ways.through(upstream_tls=False, proxy_tls=False)
    proxy.scripted.answers(
        b"no", status=b"407 Proxy Authentication Required", headers=b"Proxy-Authenticate: Basic\r\n"
    )
    with pytest.raises(UpstreamFault, match=r"proxy http://127\.0\.0\.1:\d+: .*\(407\)") as raised:
        await call(pool)
    assert (raised.value.status, raised.value.phase) == (502, "connect")
    assert len(proxy.scripted.requests) == 1


async def test_an_upstreams_own_407_passes_where_there_is_no_proxy(ways: Ways) -> None:
    await ways.upstream.start()
    ways.upstream.answers(b"odd", status=b"407 Odd")
    pool = Upstream("up", UpstreamConfig(url=ways.upstream.url))
    assert await call(pool) == b"odd"
    pool.close()
    await ways.upstream.stop()


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (lambda: tls.server("up.example", trusted=False), "self-signed certificate"),
        (lambda: tls.server("other.example"), "not valid for 'up.example'"),
    ],
)
async def test_a_tunnel_makes_nobody_trusted(
    ways: Ways, server: Callable[[], ssl.SSLContext], why: str
) -> None:
    pool, proxy = await ways.through(upstream_tls=True, proxy_tls=False)
    async with served(server()) as other:
        proxy._port = other.port
        with pytest.raises(UpstreamFault, match=why):
            await call(pool)
        assert other.requests == []


async def test_a_proxy_over_tls_has_to_be_whom_we_named(ways: Ways) -> None:
    pool, proxy = await ways.through(upstream_tls=True, proxy_tls=True)
    async with served(tls.server("other.example")) as other:
        pool._dialer._lookup._port = other.port
        with pytest.raises(UpstreamFault, match="not valid for 'localhost'"):
            await call(pool)
    assert proxy.asked == []


@asynccontextmanager
async def served(context: ssl.SSLContext) -> AsyncIterator[ScriptedUpstream]:
    scripted = ScriptedUpstream()
    await scripted.start(context)
    try:
        yield scripted
    finally:
        await scripted.stop()


@pytest.mark.parametrize("proxy_tls", [False, True])
async def test_an_answer_cut_in_a_tunnel_is_not_whole(ways: Ways, proxy_tls: bool) -> None:
    pool, _ = await ways.through(upstream_tls=True, proxy_tls=proxy_tls)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        peer.end()
        await peer.gone()

    ways.upstream.script = script
    with pytest.raises(UpstreamFault, match="in mid-answer"):
        await call(pool)


@pytest.mark.parametrize("proxy_tls", [False, True])
async def test_an_answer_held_back_in_a_tunnel_is_whole_though_the_upstream_has_gone(
    ways: Ways, proxy_tls: bool
) -> None:
    pool, _ = await ways.through(upstream_tls=True, proxy_tls=proxy_tls)
    size = 4 * HIGH_BYTES + 77

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size)
        peer.writer.close()
        await turns(lambda: not peer.writer.transport.get_write_buffer_size())
        peer.end()

    ways.upstream.script = script
    read, held = 0, 0
    async with asyncio.timeout(10):
        exchange = await pool.open(GET)
        while piece := await exchange.answer.read():
            read += len(piece)
            for _ in range(2000):  # the client is slower than the upstream
                await asyncio.sleep(0)
            held += exchange.answer._held
        exchange.close()
    assert (read, held > 0) == (size, True)


@pytest.mark.parametrize("proxy_tls", [False, True])
async def test_a_call_that_is_cancelled_while_it_connects_leaves_no_connection_behind(
    ways: Ways, proxy_tls: bool
) -> None:
    pool, proxy = await ways.through(upstream_tls=True, proxy_tls=proxy_tls)
    ways.upstream.answers(b"{}")
    for _ in range(3):
        assert await call(pool) == b"{}"
    rounds, finished = 0, False
    while not finished:
        pool.close()
        task = asyncio.create_task(call(pool))
        for _ in range(rounds):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.result() == b"{}"
        rounds += 1
    pool.close()
    await turns(lambda: not ways.upstream._peers and not proxy.scripted._peers)


async def test_a_host_without_a_dot_or_an_address_of_six_is_asked_for_as_it_is_written(
    ways: Ways,
) -> None:
    _, proxy = await ways.through(upstream_tls=True, proxy_tls=False)
    pool = Upstream("up", UpstreamConfig(url="https://[2001:db8::7]"), proxy.hop())
    with pytest.raises(UpstreamFault):
        await call(pool)  # its certificate is another's
    assert proxy.asked[0].start == b"CONNECT [2001:db8::7]:443 HTTP/1.1"
