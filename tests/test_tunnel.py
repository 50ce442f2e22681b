"""What a proxy may say before TLS begins: yes, or what its client is told instead."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from proxy.answer import UpstreamFault
from proxy.egress import Hop
from proxy.sections import UpstreamConfig
from proxy.tunnel import MAX_HEAD_BYTES
from proxy.upstream import Request, Upstream
from tests.wire import Peer, ScriptedUpstream

pytestmark = pytest.mark.both_loops

GET = Request(method=b"GET", target=b"/", headers=[])
SECRET = b"Basic c2VjcmV0"


@pytest.fixture
async def pool(upstream: ScriptedUpstream) -> AsyncIterator[Upstream]:
    """A pool whose proxy is what the test scripts."""
    hop = Hop(host="127.0.0.1", port=upstream.port, authorization=SECRET)
    config = UpstreamConfig(url="https://up.example", connect_timeout_s=5)
    opened = Upstream("up", config, hop)
    yield opened
    opened.close()


async def refused(pool: Upstream) -> str:
    """Make a call that gets no connection; give what its client is told."""
    async with asyncio.timeout(10):
        with pytest.raises(UpstreamFault) as raised:
            await pool.open(GET)
    fault = raised.value
    assert (fault.code, fault.phase, fault.status) == ("upstream_unreachable", "connect", 502)
    assert SECRET.decode() not in str(fault)
    start = f"upstream up (up.example:443) cannot be reached through the proxy {pool._hop}: "
    assert str(fault).startswith(start)
    return str(fault).removeprefix(start)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "it wants other credentials"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "it refused with status 403"),
        (b"HTTP/1.0 502 x\r\n\r\n", "it refused with status 502"),
        (b"HTTP/1.1 301\r\nLocation: x\r\n\r\n", "it refused with status 301"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "does not speak HTTP as a proxy"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "does not speak HTTP as a proxy"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP as a proxy"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES, "does not speak HTTP as a proxy"),
    ],
)
async def test_a_proxy_that_does_not_consent_is_a_502_and_nothing_more_is_sent(
    pool: Upstream, upstream: ScriptedUpstream, answer: bytes, why: str
) -> None:
    rest = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)
        with contextlib.suppress(ConnectionError):
            rest.set_result(await peer.reader.read())
        if not rest.done():
            rest.set_result(b"")

    upstream.script = script
    assert why in await refused(pool)
    assert await asyncio.wait_for(rest, 10) == b""


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n"])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_proxy_that_leaves_is_a_502_at_once(
    pool: Upstream, upstream: ScriptedUpstream, said: bytes, reset: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(said)
        if reset:
            peer.cut()
        else:
            await peer.close()

    upstream.script = script
    assert "it closed the connection" in await refused(pool)


async def test_a_proxy_that_says_nothing_is_a_502_at_the_limit(upstream: ScriptedUpstream) -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        await peer.gone()
        gone.set()

    upstream.script = script
    hop = Hop(host="127.0.0.1", port=upstream.port, authorization=SECRET)
    config = UpstreamConfig(url="https://up.example", connect_timeout_s=0.1)
    assert await refused(Upstream("up", config, hop)) == "no connection within 0.1 s"
    async with asyncio.timeout(10):
        await gone.wait()
