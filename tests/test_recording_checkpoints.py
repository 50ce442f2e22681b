"""Checkpoints: what a running stream delivered so far can be read, and survives our death."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.call import Call, CallProgress
from proxy.forward import CHECKPOINT_LOOKS
from tests.calling import DONE, delta
from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.served import Served, served
from tests.wire import Peer, Received, ScriptedUpstream, connect

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ASKED = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}],"stream":true}'
REQUEST = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b" % (
    CHAT.encode(),
    len(ASKED),
    ASKED,
)
OFTEN = {"recording.checkpoint_s": "0.1", "upstreams.openai.inject_usage": "never"}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Dictation:
    """An upstream that sends a stream event by event, as it is told."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()
        upstream.script = self._script

    def say(self, *words: str) -> None:
        for word in words:
            self.events.put_nowait(delta(word))

    def end(self) -> None:
        self.events.put_nowait(DONE)
        self.events.put_nowait(None)

    async def _script(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(SSE)
        while (event := await self.events.get()) is not None:
            await peer.send(chunk(event))
        await peer.send(b"0\r\n\r\n")


async def asked(client: Peer) -> Received:
    """Ask, and give the head of the answer: by then the row is there."""
    await client.send(REQUEST)
    return await client.head()


async def shown(tw: Running, text: str) -> Any:
    """Wait until the span shows a text in its output, and give the span."""
    async with asyncio.timeout(10):
        while text not in str((span := await tw.span())["output"]):
            pass
    return span


async def test_the_text_of_a_running_stream_can_be_read(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    tw = await serve(OFTEN)
    dictation = Dictation(upstream)
    async with connect(tw.port) as client:
        head = await asked(client)
        dictation.say("Once ", "upon ")
        span = await shown(tw, "upon ")
        assert span["status"] == "running"
        assert 0 <= span["metadata"]["first_byte_ms"] <= span["metadata"]["ttft_ms"]
        dictation.say("a time")
        assert (await shown(tw, "a time"))["status"] == "running"
        dictation.end()
        await client.body(head)
    span = await tw.ended()
    assert span["status"] == "completed"
    assert span["metadata"]["response"]["truncated"] is False


async def test_a_stream_is_saved_when_its_time_is_over_not_when_it_is_over_for_all(
    serve: Serve, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_s: set[float] = set()
    progress = Call.progress

    def asking(call: Call, after_s: float) -> CallProgress | None:
        asked_s.add(after_s)
        return progress(call, after_s)

    monkeypatch.setattr(Call, "progress", asking)
    tw = await serve(OFTEN)
    dictation = Dictation(upstream)
    async with connect(tw.port) as client:
        head = await asked(client)
        dictation.say("Once")
        await shown(tw, "Once")
        dictation.end()
        await client.body(head)
    # It is looked at often, so that it is saved every 0.1 s, and not each time that it is.
    (after_s,) = asked_s
    assert after_s == pytest.approx(0.1 - 0.1 / CHECKPOINT_LOOKS)


async def test_only_the_last_checkpoint_is_stored_and_the_end_replaces_it(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    tw = await serve(OFTEN)
    dictation = Dictation(upstream)
    async with connect(tw.port) as client:
        head = await asked(client)
        for word in ("first", "second", "third"):
            dictation.say(word)
            await shown(tw, word)
            assert await tw.database.read("SELECT count(*) FROM contents", {}) == [(1,)]
        dictation.end()
        await client.body(head)
    span = await tw.ended()
    assert span["output"] == {"role": "assistant", "content": "firstsecondthird"}
    # The message that was sent, and the one that came.
    assert await tw.database.read("SELECT count(*) FROM contents", {}) == [(2,)]
    health = await tw.api("/api/health")
    assert (health["held_bytes"], health["queued_bytes"]) == (0, 0)


async def test_a_running_stream_whose_capture_is_off_shows_no_text(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    tw = await serve({**OFTEN, "recording.capture": "off"})
    dictation = Dictation(upstream)
    async with connect(tw.port) as client:
        head = await asked(client)
        dictation.say("secret")
        async with asyncio.timeout(10):
            while (await tw.span())["metadata"]["response"] is None:
                pass
        span = await tw.span()
        assert span["output"] is None
        assert span["metadata"]["response"]["size"] == len(delta("secret"))
        dictation.end()
        await client.body(head)


async def only_span(server: Served) -> Any:
    url = f"http://127.0.0.1:{server.port}/api"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/traces") as answer:
            (trace,) = (await answer.json())["traces"]
        async with session.get(f"{url}/traces/{trace['id']}") as answer:
            (span,) = (await answer.json())["spans"]
        async with session.get(f"{url}/spans/{span['id']}") as answer:
            return await answer.json()


@pytest.mark.slow
async def test_a_stream_that_ran_when_we_were_killed_is_interrupted_with_its_text(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    dictation = Dictation(upstream)
    options = ("--upstream", f"openai={upstream.url}")
    often = {"TRACEWAY_RECORDING_CHECKPOINT_S": "0.1"}
    async with (
        served(tmp_path, *options, environ=often) as server,
        connect(server.port) as client,
        asyncio.timeout(10),
    ):
        await asked(client)
        dictation.say("half a ", "sentence")
        while "sentence" not in str((await only_span(server))["output"]):
            pass
        server.process.kill()
        await server.ended()
    async with served(tmp_path, *options) as server:
        span = await only_span(server)
    assert span["status"]["interrupted"]["ended_by"] == "proxy"
    assert span["output"] == {"role": "assistant", "content": "half a sentence"}
    assert span["metadata"]["duration_ms"] >= span["metadata"]["ttft_ms"] > 0
    assert span["ended_at"] is not None
