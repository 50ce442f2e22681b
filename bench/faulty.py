"""An upstream that answers, drips, falls silent, breaks off or refuses, as each call asks for.

`python -m bench.faulty` prints its port and serves until it is ended. A call's query says
`soak=KIND-NUMBER`; `GET /seen` lists what arrived, one a line: what came twice stands there twice.
"""

import asyncio
import contextlib
import gzip
import random
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import orjson

EVENTS: Final = 20
PACES_S: Final = (0.1, 0.4)  # between two events
PAUSE_S: Final = 4.0
BREAKS_AFTER: Final = 3  # events

_CALL: Final = re.compile(rb"[?&]soak=([a-z0-9]+)-(\d+)")
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_LAST: Final = b"0\r\n\r\n"
_MESSAGE: Final = {"role": "assistant", "content": "A word and another. " * 20}
_USAGE: Final = {"prompt_tokens": 12, "completion_tokens": 20, "total_tokens": 32}
_ANSWER: Final = orjson.dumps(
    {
        "id": "chatcmpl-soak",
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
)
_ERROR: Final = b'{"error":{"message":"The server had an error","type":"server_error"}}'

seen: list[bytes] = []


class Exchange:
    """One request and the way to answer it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
    ) -> None:
        self.reader, self.writer, self.body = reader, writer, body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: bytes, body: bytes, headers: bytes = b"") -> None:
        await self.send(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, len(body), headers, body)
        )

    async def events(self, count: int, pace_s: float) -> None:
        for number in range(count):
            await self.send(_chunk(_event({"content": f"word {number} "})))
            await asyncio.sleep(pace_s)

    async def end(self) -> None:
        """Send the end of a stream, with its usage where the request asks for it."""
        last = _chunk(_event({}, finish_reason="stop"))
        if b'"include_usage":true' in self.body:
            data = {"id": "s", "model": "gpt-4o-mini", "choices": [], "usage": _USAGE}
            last += _chunk(b"data: " + orjson.dumps(data) + b"\n\n")
        await self.send(last + _chunk(b"data: [DONE]\n\n") + _LAST)

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Ended(Exception):
    """The connection is over."""


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return (
        b"data: " + orjson.dumps({"id": "s", "model": "gpt-4o-mini", "choices": [choice]}) + b"\n\n"
    )


async def stream(x: Exchange) -> None:
    await x.send(_HEAD)
    await x.events(EVENTS, random.uniform(*PACES_S))  # noqa: S311
    await x.end()


async def whole(x: Exchange) -> None:
    await x.answer(b"200 OK", _ANSWER)


async def zipped(x: Exchange) -> None:
    await x.answer(b"200 OK", gzip.compress(_ANSWER), b"Content-Encoding: gzip\r\n")


async def drip(x: Exchange) -> None:
    await x.send(_HEAD)
    data = b"".join(_event({"content": f"drop {number} "}) for number in range(5))
    for at in range(0, len(data), 7):
        await x.send(_chunk(data[at : at + 7]))
        await asyncio.sleep(0.05)
    await x.end()


async def pause(x: Exchange) -> None:
    await x.send(_HEAD)
    await x.events(3, 0.1)
    await asyncio.sleep(PAUSE_S)
    await x.events(3, 0.1)
    await x.end()


async def reset(x: Exchange) -> None:
    await x.send(_HEAD)
    await x.events(BREAKS_AFTER, 0.1)
    x.reset()
    raise Ended


async def closed(x: Exchange) -> None:
    await x.send(_HEAD)
    await x.events(BREAKS_AFTER, 0.1)
    raise Ended


async def garbled(x: Exchange) -> None:
    await x.send(_HEAD)
    await x.events(BREAKS_AFTER, 0.1)
    await x.send(b"zz\r\n")
    raise Ended


async def refused(_: Exchange) -> None:
    raise Ended


async def failed(x: Exchange) -> None:
    await x.answer(b"500 Internal Server Error", _ERROR)


async def limited(x: Exchange) -> None:
    await x.answer(b"429 Too Many Requests", _ERROR, b"Retry-After: 3\r\n")


async def silent(x: Exchange) -> None:
    await x.reader.read()
    raise Ended


async def held(x: Exchange) -> None:
    """Begin a stream, and end it some seconds later: all of them are open at once."""
    await x.send(_HEAD)
    await x.events(40, 0.5)
    await x.end()


SCRIPTS: Final[dict[str, Callable[[Exchange], Awaitable[None]]]] = {
    "stream": stream,
    "whole": whole,
    "zipped": zipped,
    "drip": drip,
    "pause": pause,
    "reset": reset,
    "closed": closed,
    "garbled": garbled,
    "refused": refused,
    "failed": failed,
    "limited": limited,
    "silent": silent,
    "held": held,
    "upload": silent,
    "leaves": stream,
    "aborts": stream,
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection."""
    with contextlib.suppress(Ended, ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /seen"):
                await Exchange(reader, writer, b"").answer(b"200 OK", b"\n".join(seen))
                continue
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            call = _CALL.search(head.partition(b"\r\n")[0])
            assert call is not None, head  # noqa: S101
            seen.append(b"-".join(call.groups()))
            await SCRIPTS[call[1].decode()](Exchange(reader, writer, body))
    writer.close()


async def main() -> None:
    """Serve on a free port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
