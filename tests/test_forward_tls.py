"""Calls to an upstream over TLS: streams as they come, usage injection, and ends that are none."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests import tls
from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Peer, Received, ScriptedUpstream, connect

pytestmark = [pytest.mark.both_loops, pytest.mark.usefixtures("trusted")]

BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}],"stream":true}'
JSON = b"Content-Type: application/json\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
HELLO = b'data: {"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
USAGE = (
    b'data: {"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A scripted upstream over TLS, by the name of localhost."""
    scripted = ScriptedUpstream()
    await scripted.start(tls.server("localhost"))
    yield scripted
    await scripted.stop()


async def test_a_stream_arrives_as_it_comes_and_its_usage_is_injected(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    has_first = asyncio.Event()
    asked: list[Received] = []

    async def script(peer: Peer) -> None:
        asked.append(await peer.request())
        await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(HELLO))
        await has_first.wait()
        await peer.send(chunk(USAGE) + chunk(DONE) + b"0\r\n\r\n")
        await peer.gone()

    upstream.script = script
    async with connect(tw.port) as client, asyncio.timeout(10):
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), JSON, len(BODY), BODY)
        )
        await client.head()
        pieces = client.chunks()
        assert await anext(pieces) == HELLO
        has_first.set()
        assert b"".join([piece async for piece in pieces]) == DONE
    assert b"include_usage" in asked[0].body
    kind = (await tw.ended())["kind"]
    assert (kind["input_tokens"], kind["output_tokens"]) == (7, 2)
    assert kind["usage_source"] == "injected"


@pytest.mark.parametrize("durability", ["safe", "strict"])
@pytest.mark.parametrize("proper", [True, False])
async def test_a_stream_that_ends_with_its_connection_is_complete_only_if_tls_was_ended(
    serve: Serve, upstream: ScriptedUpstream, durability: str, proper: bool
) -> None:
    tw = await serve({"recording.durability": durability})

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"\r\n" + HELLO)
        if proper:
            await peer.send(DONE)
            await peer.close()
        else:
            peer.end()
            await peer.gone()

    upstream.script = script
    if proper:
        assert (await tw.raw(headers=JSON, body=BODY)).body == HELLO + DONE
        assert (await tw.ended())["status"] == "completed"
    else:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await tw.raw(headers=JSON, body=BODY)
        ((state, ending),) = (await tw.ended())["status"].items()
        assert (state, ending["ended_by"], ending["phase"]) == ("truncated", "upstream", "body")


async def test_calls_at_once_and_one_after_another_get_their_own_answers(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.respond(request.get(b"X-Number") or b"")

    upstream.script = script

    async def caller(number: int) -> None:
        for turn in range(3):
            mark = b"%d-%d" % (number, turn)
            got = await tw.raw(headers=b"X-Number: %b\r\n" % mark, body=b"{}")
            assert got.body == mark

    await asyncio.gather(*(caller(number) for number in range(20)))
    assert upstream.connections <= 20
