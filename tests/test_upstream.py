"""Upstreams: what is sent, over which connection, how often, and what a cancelled call leaves."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy import upstream as module
from proxy.answer import Answer, ClientFault, UpstreamFault
from proxy.sections import UpstreamConfig
from proxy.upstream import Request, Upstream, host_header, serialize
from tests.pooled import GET, OK, POST, body_of, call
from tests.wire import Peer, ScriptedUpstream

pytestmark = pytest.mark.both_loops


@pytest.fixture
async def pool(upstream: ScriptedUpstream) -> AsyncIterator[Upstream]:
    opened = Upstream("up", UpstreamConfig(url=upstream.url, max_idle_connections=2))
    yield opened
    opened.close()


async def test_calls_one_after_another_share_a_connection(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    for request in (GET, POST, GET):
        assert await call(pool, request) == b"{}"
    assert upstream.connections == 1


async def test_a_body_that_comes_in_pieces_is_framed_with_chunks(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"", b"two"):
            yield piece

    upstream.answers(b"{}")
    for body in (pieces(), b"onetwo", b""):
        await call(pool, Request(method=b"POST", target=b"/x", headers=[], body=body, chunked=True))
    assert [sent.body for sent in upstream.requests] == [b"onetwo", b"onetwo", b""]
    for sent in upstream.requests:
        assert sent.headers == [(b"Transfer-Encoding", b"chunked")]


async def dies_when_used_again(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK)
    await peer.head()
    peer.cut()


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
async def test_an_idempotent_call_is_sent_again_when_the_kept_connection_turns_out_to_be_dead(
    pool: Upstream, upstream: ScriptedUpstream, method: bytes
) -> None:
    upstream.script = dies_when_used_again
    await call(pool)
    upstream.answers(b"{}")
    request = Request(method=method, target=b"/y", headers=[(b"Content-Length", b"1")], body=b"x")
    await call(pool, request)
    assert [sent.start for sent in upstream.requests] == [method + b" /y HTTP/1.1"]
    assert upstream.connections == 2


async def test_it_is_sent_again_only_once_and_on_a_new_connection(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    both = asyncio.Barrier(2)
    seen = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await both.wait()
        await peer.send(OK)
        seen.append(await peer.head())
        peer.cut()

    async def dead(peer: Peer) -> None:
        seen.append(await peer.head())
        peer.cut()

    upstream.script = script
    await asyncio.gather(call(pool), call(pool))  # two connections are kept
    upstream.script = dead
    with pytest.raises(UpstreamFault):
        await call(pool)
    assert len(seen) == 2
    assert upstream.connections == 3


async def test_a_post_is_sent_once_even_where_the_kept_connection_turns_out_to_be_dead(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    upstream.script = dies_when_used_again
    await call(pool)
    with pytest.raises(UpstreamFault) as raised:
        await call(pool, POST)
    assert (raised.value.code, raised.value.status) == ("upstream_closed", 502)
    assert upstream.connections == 1


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 ", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_call_that_was_answered_in_part_is_never_sent_again(
    pool: Upstream, upstream: ScriptedUpstream, said: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.head()
        await peer.send(said)
        await peer.close()

    upstream.script = script
    await call(pool)
    with pytest.raises(UpstreamFault):
        await call(pool)
    assert upstream.connections == 1


async def test_a_new_connection_that_dies_is_not_tried_again(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.cut()

    upstream.script = script
    with pytest.raises(UpstreamFault):
        await call(pool)
    assert upstream.connections == 1


class Kept:
    """A pool with one idle connection, and the file descriptor of its other end."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.peers: list[Peer] = []
        upstream.script = self._script

    async def _script(self, peer: Peer) -> None:
        self.peers.append(peer)
        while True:
            await peer.request()
            await peer.send(OK)

    @property
    def descriptor(self) -> int:
        return int(self.peers[0].writer.get_extra_info("socket").fileno())


async def test_bytes_that_nobody_asked_for_are_no_answer_to_the_next_call_not_even_in_a_race(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    kept = Kept(upstream)
    await call(pool)
    # The event loop has no chance to see them before the next call looks for a connection.
    os.write(kept.descriptor, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    assert await call(pool, POST) == b"hi"
    assert upstream.connections == 2


async def test_a_connection_that_the_upstream_has_just_closed_carries_no_post(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    kept = Kept(upstream)
    await call(pool)
    kept.peers[0].cut()
    await asyncio.sleep(0)  # it is closed on the other side; ours has not been told
    assert await call(pool, POST) == b"hi"
    assert upstream.connections == 2


async def test_a_connection_that_was_idle_for_too_long_is_not_used(
    pool: Upstream, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(upstream)
    await call(pool)
    monkeypatch.setattr(module, "MAX_IDLE_S", 0.0)
    await call(pool)
    await kept.peers[0].gone()
    assert upstream.connections == 2


async def test_idle_connections_are_closed_by_and_by(
    pool: Upstream, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_IDLE_S", 0.05)
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.gone()
        closed.set()

    upstream.script = script
    await call(pool)
    async with asyncio.timeout(10):
        await closed.wait()
    assert "idle=0" in repr(pool)


async def test_no_more_idle_connections_are_kept_than_the_configuration_says(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    all_there = asyncio.Barrier(5)

    async def script(peer: Peer) -> None:
        await peer.request()
        await all_there.wait()
        await peer.send(OK)
        await peer.gone()

    upstream.script = script
    await asyncio.gather(*(call(pool) for _ in range(5)))
    assert "idle=2" in repr(pool)
    pool.close()
    assert "idle=0" in repr(pool)


async def test_each_piece_of_an_upload_shows_that_the_call_is_alive(
    pool: Upstream, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[Answer] = []

    def progress(answer: Answer) -> None:
        moves.append(answer)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"piece"

    upstream.answers(b"{}")
    monkeypatch.setattr(Answer, "progress", progress)
    await call(pool, Request(method=b"PUT", target=b"/", headers=[], body=body(), chunked=True))
    assert len(moves) == 3


async def test_an_upload_that_breaks_off_breaks_the_call_off(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    cut_off = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()
        cut_off.set()

    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        raise ClientFault("request_body_broken", "it broke off")

    upstream.script = script
    request = Request(method=b"POST", target=b"/", headers=[], body=body(), chunked=True)
    with pytest.raises(ClientFault):
        await call(pool, request)
    await asyncio.wait_for(cut_off.wait(), 10)


async def test_an_exchange_that_is_left_early_closes_its_connection_and_ends_its_upload(
    pool: Upstream, upstream: ScriptedUpstream
) -> None:
    ended, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK)
        await peer.gone()
        closed.set()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"some"
            await asyncio.Event().wait()
        finally:
            ended.set()

    upstream.script = script
    request = Request(method=b"POST", target=b"/", headers=[], body=body(), chunked=True)
    assert await call(pool, request) == b"hi"  # whole, though the upload is not
    async with asyncio.timeout(10):
        await ended.wait()
        await closed.wait()
    assert "idle=0" in repr(pool)


@pytest.mark.parametrize("upload", [False, True])
async def test_a_call_that_is_cancelled_at_any_moment_leaves_no_connection_behind(
    pool: Upstream, upstream: ScriptedUpstream, upload: bool
) -> None:
    open_now = 0
    ended = asyncio.Condition()

    async def script(peer: Peer) -> None:
        nonlocal open_now
        open_now += 1
        try:
            while True:
                await peer.request()
                await peer.send(OK[:10])
                await peer.send(OK[10:])
        finally:
            open_now -= 1
            async with ended:
                ended.notify_all()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"piece"
            await asyncio.sleep(0)

    upstream.script = script
    turns, finished = 0, False
    while not finished:
        request = GET
        if upload:
            request = Request(method=b"PUT", target=b"/", headers=[], body=body(), chunked=True)
        task = asyncio.create_task(call(pool, request))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.result() == b"hi"
        turns += 1
    assert turns > 5
    pool.close()
    async with asyncio.timeout(10), ended:
        await ended.wait_for(lambda: open_now == 0)


async def test_an_address_that_does_not_answer_within_the_limit_is_unreachable(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("aiohappyeyeballs.start_connection", never)
    pool = Upstream("up", UpstreamConfig(url=upstream.url, connect_timeout_s=0.1))
    with pytest.raises(UpstreamFault, match=r"no connection within 0\.1 s") as raised:
        await pool.open(GET)
    assert (raised.value.phase, raised.value.status) == ("connect", 502)


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("https://api.openai.com", b"api.openai.com", b"/v1"),
        ("http://localhost:11434", b"localhost:11434", b"/v1"),
        ("http://[::1]:8080/base", b"[::1]:8080", b"/base/v1"),
        ("http://[::1]", b"[::1]", b"/v1"),
        ("http://bücher.example:81/a/", b"xn--bcher-kva.example:81", b"/a/v1"),
    ],
)
def test_host_and_target_come_from_the_configuration(
    url: str, authority: bytes, target: bytes
) -> None:
    pool = Upstream("up", UpstreamConfig(url=url))
    assert pool.authority == authority
    assert pool.target(b"/v1") == target
    assert host_header("::1", None) == b"[::1]"


def test_a_target_is_never_empty() -> None:
    pool = Upstream("up", UpstreamConfig(url="http://h"))
    assert [pool.target(rest) for rest in (b"", b"?a", b"/")] == [b"/", b"/?a", b"/"]


def test_a_head_is_written_as_it_was() -> None:
    assert serialize(b"GET", b"/x", [(b"a", b"\xff"), (b"A", b"")]) == (
        b"GET /x HTTP/1.1\r\na: \xff\r\nA: \r\n\r\n"
    )


async def test_a_call_may_have_a_time_limit_in_all_that_a_moving_answer_does_not_renew(
    upstream: ScriptedUpstream,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not peer.writer.is_closing():
            await peer.send(b"1\r\nx\r\n")
            await asyncio.sleep(0)

    upstream.script = script
    pool = Upstream("up", UpstreamConfig(url=upstream.url, total_timeout_s=0.1))
    with pytest.raises(UpstreamFault, match="total_timeout_s") as raised:
        await call(pool)
    assert (raised.value.code, raised.value.phase) == ("upstream_timeout", "body")


async def test_the_time_limit_of_the_whole_call_holds_while_it_connects(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("aiohappyeyeballs.start_connection", never)
    pool = Upstream("up", UpstreamConfig(url=upstream.url, total_timeout_s=0.1))
    with pytest.raises(UpstreamFault, match=r"no connection within 0\.1 s"):
        await call(pool)


@pytest.mark.parametrize("config", [{}, {"total_timeout_s": 5.0}])
async def test_a_call_within_its_limits_leaves_no_timer_behind(
    upstream: ScriptedUpstream, config: dict[str, float]
) -> None:
    upstream.answers(b"{}")
    pool = Upstream("up", UpstreamConfig(url=upstream.url, **config))  # type: ignore[arg-type]
    exchange = await pool.open(GET)
    assert await body_of(exchange) == b"{}"
    assert exchange.answer._timer.cancelled()
    exchange.close()
    pool.close()


async def test_an_upstream_whose_name_hangs_delays_no_other(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    real = socket.getaddrinfo

    def look_up(host: str, *args: Any, **how: Any) -> Any:
        if host.startswith("hung") and not how.get("flags"):
            release.wait(10)
        return real("127.0.0.1" if host == "up.test" else host, *args, **how)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    upstream.answers(b"{}")
    hung = [
        Upstream(f"hung{number}", UpstreamConfig(url=f"http://hung{number}.test"))
        for number in range(20)
    ]
    waiting = [asyncio.create_task(pool.open(GET)) for pool in hung]
    pool = Upstream("up", UpstreamConfig(url=f"http://up.test:{upstream.port}"))
    assert await call(pool) == b"{}"
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)
    release.set()
    pool.close()
