"""The whole: what a start ends and begins, what a stop refuses, lets end, cuts and saves."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from tests.databases import opened
from tests.running import CHAT, Running, running
from tests.storage.calls import end, start, write
from tests.wire import Peer, Received, ScriptedUpstream, connect

CALL = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}".encode()
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
EVENT = b'f\r\ndata: {"a": 1}\n\r\n'


async def call(peer: Peer) -> Received:
    """Make a call and read the head of its answer."""
    await peer.send(CALL)
    return await peer.head()


@pytest.mark.sqlite_only("nobody else can have the calls that run")
async def test_calls_of_an_owner_that_is_gone_are_interrupted_at_the_start(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    database = opened(tmp_path / "traceway.db")
    write(database, [start(1, session_id="s"), end(start(2, session_id="s")), start(3, owner=None)])
    await database.close()

    async with running(tmp_path, upstream.url) as tw:
        states = {span["name"]: span["status"] for span in await tw.spans()}

    error = "the recording process ended before the call did"
    assert states == {
        "call 1": {"interrupted": {"error": error, "ended_by": "proxy", "phase": None}},
        "call 2": "completed",
        "call 3": "running",  # it came by itself, and no process serves it
    }


async def test_a_stop_lets_calls_end_and_refuses_others(
    tw: Running, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + EVENT)
        await end_of_stream.wait()
        order.append("the call ended")
        await peer.send(b"0\r\n\r\n")

    async def clean_up(runner: web.AppRunner) -> None:
        order.append("the rest was cut")
        await cut(runner)

    order: list[str] = []
    cut = web.AppRunner.cleanup
    monkeypatch.setattr(web.AppRunner, "cleanup", clean_up)
    end_of_stream = asyncio.Event()
    upstream.script = script
    async with connect(tw.port) as client, connect(tw.port) as other, asyncio.TaskGroup() as tasks:
        answer = await call(client)
        tasks.create_task(tw.server.stop(60, asyncio.Event()))

        await other.send(CALL)
        refusal = await other.response()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", tw.port)
        end_of_stream.set()

        assert await client.body(answer) == b'data: {"a": 1}\n'
    assert (refusal.status, refusal.get(b"Connection")) == (503, b"close")
    assert refusal.get(b"X-Traceway-Error") == b"stopping"
    assert upstream.connections == 1
    assert order == ["the call ended", "the rest was cut"]


async def test_a_stop_ends_idle_connections(tw: Running, upstream: ScriptedUpstream) -> None:
    upstream.answers(b"{}")
    async with connect(tw.port) as client:
        await client.send(CALL)
        await client.response()

        await tw.server.stop(60, asyncio.Event())

        await client.gone()


async def test_what_may_not_end_is_cut_and_saved_with_what_the_client_had(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + EVENT)
        await peer.gone()
        cut.set()

    cut = asyncio.Event()
    upstream.script = script
    now = asyncio.Event()
    async with running(tmp_path, upstream.url) as tw, connect(tw.port) as client:
        answer = await call(client)
        now.set()
        await tw.server.stop(60, now)
        with pytest.raises(asyncio.IncompleteReadError):
            await client.body(answer)
        await cut.wait()

    async with running(tmp_path, upstream.url) as tw:
        span = await tw.span()
    stopped = {"error": "the server was stopped", "ended_by": "proxy", "phase": "body"}
    assert span["status"] == {"interrupted": stopped}
    assert span["output"] == 'data: {"a": 1}\n'


async def test_a_call_that_has_no_answer_yet_is_cut_in_its_phase(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()

    asked = asyncio.Event()
    upstream.script = script
    async with running(tmp_path, upstream.url) as tw, connect(tw.port) as client:
        await client.send(CALL)
        await asked.wait()
        await tw.server.stop(0, asyncio.Event())
        await client.gone()

    async with running(tmp_path, upstream.url) as tw:
        (state,) = (await tw.span())["status"].values()
    assert (state["ended_by"], state["phase"]) == ("proxy", "headers")


async def test_a_stop_that_is_asked_for_twice_is_one(tw: Running) -> None:
    await tw.server.stop(0, asyncio.Event())
    await tw.server.stop(0, asyncio.Event())


@pytest.mark.parametrize(
    "header", [b"Authorization: Bearer sk-canary\x00", b"Authorization : sk-canary", b"sk-canary"]
)
async def test_a_malformed_request_is_refused_and_the_log_does_not_quote_it(
    tw: Running, caplog: pytest.LogCaptureFixture, header: bytes
) -> None:
    assert (await tw.raw(headers=header + b"\r\n", body=b"{}")).status == 400
    assert "canary" not in caplog.text
    assert await tw.spans() == []


async def test_a_bug_in_a_handler_is_in_the_log(
    tw: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(tw.server.recorder, "reasons", fail)
    assert (await tw.raw(b"/api/health", method=b"GET")).status == 500
    assert "a bug of ours" in caplog.text
