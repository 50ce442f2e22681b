"""Answers that are made to cost much: no piece of them takes long on the event loop."""

import asyncio
import gc
import gzip
import time
from collections.abc import Iterator

import pytest

from tests.running import Running
from tests.wire import Peer, ScriptedUpstream

pytestmark = pytest.mark.torture

BODY = b'{"model":"gpt-4o","stream":%b,"messages":[{"role":"user","content":"hi"}]}'
# Of one turn of the event loop, in CPU time, so that a busy machine counts for nothing: a fifth of
# it, and seconds where a piece was read in one go.
MAX_TURN_S = 0.1
MB = 1024 * 1024


def stream(head: bytes, size: int, event: bytes) -> bytes:
    return head + event * ((size - len(head)) // len(event))


ARRAY = b'data: {"id":"x","%b":[' + b"[]," * (5 * MB - 100) + b"[]]}\n\ndata: [DONE]\n\n"
TINY = {
    "lines": stream(b"", 4 * MB, b"a\n\n"),
    "objects": stream(b"", 4 * MB, b"data: {}\n\n"),
    "usages": stream(b"", 4 * MB, b'data: {"usage":{}}\n\n'),
}
BOMBS = {
    **{f"gzip of {name}": ("gzip", gzip.compress(events, 6)) for name, events in TINY.items()},
    "gzip of empty members": ("gzip", gzip.compress(b"", mtime=0) * 200_000),
    "one event of empty lines": ("identity", stream(b"data: a\n", 8 * MB, b":\n") + b"\n"),
    "plain lines": ("identity", TINY["lines"][: 1 * MB]),
    "choices": ("identity", ARRAY % b"choices"),
    "unknown field": ("identity", ARRAY % b"other"),
    "usage": ("identity", ARRAY % b"usage"),
}


def chunks(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 256 * 1024):
        piece = data[at : at + 256 * 1024]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("injected", [False, True])
@pytest.mark.parametrize("bomb", BOMBS)
async def test_no_piece_of_a_bomb_holds_the_event_loop(
    tw: Running, upstream: ScriptedUpstream, bomb: str, injected: bool
) -> None:
    coding, body = BOMBS[bomb]
    asked = BODY % (b"true" if injected else b"1")

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Encoding: %b\r\n\r\n" % coding.encode()
        )
        for chunk in chunks(body):
            await peer.send(chunk)

    upstream.script = script
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    longest_s = 0.0
    size = 0

    async def call() -> None:
        nonlocal size
        url = f"{tw.openai_base}/chat/completions"
        async with tw.client.post(
            url, data=asked, headers=headers, auto_decompress=False
        ) as answer:
            async for piece in answer.content.iter_any():
                size += len(piece)

    gc.collect()
    gc.freeze()  # as the server does; a test's heap is larger still
    calling = asyncio.ensure_future(call())
    while not calling.done():
        began_s = time.thread_time()
        await asyncio.sleep(0)
        longest_s = max(longest_s, time.thread_time() - began_s)
    await calling
    gc.unfreeze()
    print(f"{bomb}, injected {injected}: longest turn {longest_s * 1000:.0f} ms of CPU")
    if bomb != "gzip of empty members" or not injected:  # which are nothing, unpacked
        assert size > len(body) / 2
    assert longest_s < MAX_TURN_S
