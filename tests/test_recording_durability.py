"""Durability end to end: what a client may see before its call is saved, in each mode."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from proxy import waits as module
from proxy.backlog import RECORD_BYTES
from storage.database import DatabaseLocked
from tests.calling import ANSWER, DONE, Gate, a_call, delta
from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Peer, ScriptedUpstream, connect

LOCKED = DatabaseLocked("traceway.db", None)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUEST = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}" % CHAT.encode()
Gated = Callable[[str], Awaitable[tuple[Running, Gate]]]


@pytest.fixture
def gated(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Gated:
    """Start a server of a durability, with a gate before its database."""

    async def start(durability: str) -> tuple[Running, Gate]:
        tw = await serve({"recording.durability": durability})
        gate = Gate(tw.database)
        monkeypatch.setattr(tw.database, "transaction", gate.transaction)
        return tw, gate

    return start


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def states(tw: Running) -> list[str]:
    return [state for (state,) in await tw.database.read("SELECT state FROM spans", {})]


# safe


async def test_safe_the_row_is_there_before_the_first_byte_of_the_answer(
    gated: Gated, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For how long at most is test_waits.py's: a busy machine commits later than that.
    monkeypatch.setattr(module, "START_WAIT_S", 3600.0)
    tw, gate = await gated("safe")
    gate.shut()
    answered = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.respond(ANSWER)
        answered.set()

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(REQUEST)
        head = asyncio.ensure_future(client.head())
        await gate.waiting.wait()
        await answered.wait()
        for _ in range(5):  # what nothing holds has come by then, too
            await (await tw.client.get(f"{tw.url}/api/health")).read()
        came_early = head.done()
        gate.open()
        await head
        assert not came_early
        assert await states(tw) != []  # no waiting: it is committed


async def test_safe_an_answer_does_not_wait_for_a_database_that_hangs(
    gated: Gated, upstream: ScriptedUpstream
) -> None:
    tw, gate = await gated("safe")
    gate.shut()
    upstream.answers(ANSWER)
    for late in (1, 2, 3, 4):
        assert (await tw.raw(body=b"{}")).body == ANSWER
        assert tw.server.recorder.losses.counters.late_starts == late
    async with tw.client.get(tw.url + "/api/health") as answer:
        health = await answer.json()
    assert health["status"] == "degraded"
    assert health["counters"]["late_starts"] == 4
    assert health["queued_bytes"] > 0
    gate.open()
    assert [span["status"] for span in await tw.spans()] == ["completed"] * 4
    async with tw.client.get(tw.url + "/api/health") as answer:
        assert (await answer.json())["status"] == "ok"


async def test_safe_calls_go_on_while_commits_fail_and_their_rows_appear_later(
    gated: Gated, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.commits.RETRY_S", 0.001)
    tw, gate = await gated("safe")
    gate.fails_forever = LOCKED
    upstream.answers(ANSWER)
    for _ in range(5):
        assert (await tw.raw(body=b"{}")).status == 200
    await gate.failed.wait()
    async with tw.client.get(tw.url + "/api/health") as answer:
        health = await answer.json()
    assert health["reasons"][0] == f"the last commit failed: {LOCKED}"
    gate.fails_forever = None
    assert [span["status"] for span in await tw.spans()] == ["completed"] * 5


@pytest.mark.parametrize("framed", ["length", "stream", "open stream"])
async def test_safe_where_the_recorder_is_behind_an_end_is_seen_when_it_is_saved(
    gated: Gated, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, framed: str
) -> None:
    monkeypatch.setattr("proxy.backlog.BEHIND_S", -1.0)
    monkeypatch.setattr(module, "START_WAIT_S", 0.001)
    monkeypatch.setattr(module, "HELD_S", 3600.0)
    tw, gate = await gated("safe")
    gate.shut()
    tw.server.recorder.put(a_call().start)  # the writer is at it
    await gate.waiting.wait()
    began, seen = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if framed == "length":
            await peer.respond(ANSWER)
            return
        await peer.send(HEAD + chunk(delta("Hi")))
        await began.wait()
        if framed == "stream":
            await peer.send(chunk(DONE) + b"0\r\n\r\n")
        else:
            await peer.send(chunk(DONE))
            await seen.wait()  # it says that it is done, and ends later
            await peer.send(b"0\r\n\r\n")

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(REQUEST)
        answer = await client.head()
        chunks = client.chunks()
        if framed != "length":
            assert await anext(chunks) == delta("Hi")  # only the end waits
            began.set()
        end = asyncio.ensure_future(client.body(answer) if framed == "length" else anext(chunks))
        while tw.server.recorder.queued_bytes < 3 * RECORD_BYTES:  # its end is put as well
            await (await tw.client.get(f"{tw.url}/api/health")).read()
        assert not end.done()
        gate.open()
        assert await end == (ANSWER if framed == "length" else DONE)
        assert "completed" in await states(tw)  # no waiting: it is committed
        seen.set()
        assert [piece async for piece in chunks] == [] if framed != "length" else True
    assert tw.server.recorder.losses.counters.late_ends == 0


async def test_safe_who_leaves_while_the_end_waits_has_left_a_call_that_was_complete(
    gated: Gated, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.backlog.BEHIND_S", -1.0)
    monkeypatch.setattr(module, "START_WAIT_S", 0.001)
    monkeypatch.setattr(module, "HELD_S", 3600.0)
    tw, gate = await gated("safe")
    gate.shut()
    upstream.answers(ANSWER)
    async with connect(tw.port) as client:
        await client.send(REQUEST)
        await client.head()
        while tw.server.recorder.queued_bytes < 2 * RECORD_BYTES:
            await (await tw.client.get(f"{tw.url}/api/health")).read()
    gate.open()
    assert [span["status"] for span in await tw.spans()] == ["completed"]


async def test_safe_an_end_is_not_held_for_longer_than_that_and_else_not_at_all(
    gated: Gated, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_WAIT_S", 0.001)
    tw, gate = await gated("safe")
    gate.shut()
    upstream.answers(ANSWER)
    monkeypatch.setattr("proxy.backlog.BEHIND_S", 3600.0)
    monkeypatch.setattr(module, "HELD_S", 3600.0)
    assert (await tw.raw(body=b"{}")).body == ANSWER
    monkeypatch.setattr("proxy.backlog.BEHIND_S", -1.0)
    monkeypatch.setattr(module, "HELD_S", 0.010)
    assert (await tw.raw(body=b"{}")).body == ANSWER
    gate.open()
    assert [span["status"] for span in await tw.spans()] == ["completed"] * 2


# strict


async def test_strict_the_request_leaves_only_when_its_start_is_saved(
    gated: Gated, upstream: ScriptedUpstream
) -> None:
    tw, gate = await gated("strict")
    gate.shut()
    upstream.answers(ANSWER)
    async with connect(tw.port) as client:
        await client.send(REQUEST)
        await gate.waiting.wait()
        assert upstream.connections == 0
        gate.open()
        await client.response()
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("framed", ["length", "chunks", "stream"])
async def test_strict_a_client_that_saw_the_end_finds_the_row_ended(
    gated: Gated, upstream: ScriptedUpstream, framed: str
) -> None:
    tw, _ = await gated("strict")
    streamed = HEAD + chunk(delta("Hi")) + chunk(DONE) + b"0\r\n\r\n"
    chunked = HEAD.replace(b"text/event-stream", b"application/json")
    chunked += chunk(ANSWER[:50]) + chunk(ANSWER[50:]) + b"0\r\n\r\n"

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            if framed == "length":
                await peer.respond(ANSWER)
            else:
                await peer.send(streamed if framed == "stream" else chunked)

    upstream.script = script
    for calls in range(1, 21):
        assert (await tw.raw(body=b"{}")).status == 200
        assert await states(tw) == ["completed"] * calls  # no waiting: it is committed


async def test_strict_the_streams_own_end_is_held_until_it_is_saved(
    gated: Gated, upstream: ScriptedUpstream
) -> None:
    tw, gate = await gated("strict")
    held = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(delta("Hi")))
        await held.wait()
        await peer.send(chunk(DONE) + b"0\r\n\r\n")

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(REQUEST)
        await client.head()
        chunks = client.chunks()
        assert await anext(chunks) == delta("Hi")
        gate.shut()
        held.set()
        await gate.waiting.wait()
        end = asyncio.ensure_future(anext(chunks))
        await asyncio.to_thread(lambda: None)
        assert not end.done()
        gate.open()
        assert await end == DONE
        assert await states(tw) == ["completed"]


async def test_strict_an_upstream_that_breaks_off_behind_the_streams_own_end_takes_it_from_nobody(
    gated: Gated, upstream: ScriptedUpstream
) -> None:
    tw, _ = await gated("strict")

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(delta("Hi")) + chunk(DONE))
        await peer.close()

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(REQUEST)
        await client.head()
        seen = b""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            async for piece in client.chunks():
                seen += piece
    assert seen == delta("Hi") + DONE
    assert await states(tw) == ["completed"]


async def test_strict_refuses_a_call_that_it_cannot_record(
    gated: Gated, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.STRICT_WAIT_S == 2.0
    monkeypatch.setattr(module, "STRICT_WAIT_S", 0.05)
    tw, gate = await gated("strict")
    gate.shut()
    got = await tw.raw(body=b"{}")
    assert (got.status, got.get(b"X-Traceway-Error")) == (503, b"recording_unavailable")
    assert upstream.connections == 0
    gate.open()
    (status,) = (await tw.span())["status"].items()
    assert (status[0], status[1]["phase"]) == ("failed", "request")


@pytest.mark.parametrize("framed", ["length", "stream"])
async def test_strict_an_end_that_cannot_be_saved_is_cut_visibly(
    gated: Gated, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, framed: str
) -> None:
    tw, gate = await gated("strict")

    async def script(peer: Peer) -> None:
        await peer.request()
        gate.shut()  # the start is saved, or the request would not have come
        monkeypatch.setattr(module, "STRICT_WAIT_S", 0.05)
        if framed == "length":
            await peer.respond(ANSWER)
        else:
            await peer.send(HEAD + chunk(delta("Hi")) + chunk(DONE) + b"0\r\n\r\n")

    upstream.script = script
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await tw.raw(body=b"{}")
    gate.open()
    assert (await tw.span())["status"] == "completed"  # it was, and now it is saved


# fast


async def test_fast_waits_for_nothing(
    gated: Gated, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_WAIT_S", 3600.0)
    tw, gate = await gated("fast")
    gate.shut()
    upstream.answers(ANSWER)
    for _ in range(5):
        assert (await tw.raw(body=b"{}")).body == ANSWER
    assert tw.server.recorder.losses.counters.late_starts == 0
    gate.open()
    assert [span["status"] for span in await tw.spans()] == ["completed"] * 5


# The end of the server.


@pytest.mark.parametrize("durability", ["safe", "strict", "fast"])
async def test_a_server_that_stops_saves_what_is_queued(
    gated: Gated, upstream: ScriptedUpstream, durability: str
) -> None:
    tw, gate = await gated(durability)
    upstream.answers(ANSWER)
    for _ in range(3):
        await tw.raw(body=b"{}")
    gate.shut()
    stopping = asyncio.ensure_future(tw.server.stop(0, asyncio.Event()))
    gate.open()
    await stopping
    assert await states(tw) == ["completed"] * 3
