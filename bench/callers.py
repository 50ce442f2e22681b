"""The clients of `make soak`: each makes one call after another, and checks what it got.

A call is named `KIND-NUMBER` in its query, which is recorded, so that each can be looked for in the
database afterwards. Connections are kept for a few calls and then closed, as clients come and go.
"""

import asyncio
import contextlib
import random
import re
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import orjson

PATH: Final = "/api/proxy/openai/v1/chat/completions"
WAIT_S: Final = 60.0


@dataclass(frozen=True)
class Kind:
    """A kind of call: how many of a hundred, what its client gets, and the state it is stored with.

    `status` is 0 where nothing is waited for. `may_be_unknown`: the client left so early that the
    server need not have seen a request.
    """

    share: int
    status: int
    complete: bool
    state: str
    may_be_unknown: bool = False


KINDS: Final = {
    "stream": Kind(46, 200, True, "completed"),
    "whole": Kind(8, 200, True, "completed"),
    "zipped": Kind(4, 200, True, "completed"),
    "drip": Kind(5, 200, True, "completed"),
    "pause": Kind(5, 200, True, "completed"),
    "reset": Kind(4, 200, False, "truncated"),
    "closed": Kind(3, 200, False, "truncated"),
    "garbled": Kind(2, 200, False, "truncated"),
    "refused": Kind(3, 502, True, "failed"),
    "failed": Kind(4, 500, True, "failed"),
    "limited": Kind(3, 429, True, "failed"),
    "leaves": Kind(6, 200, False, "cancelled"),
    "aborts": Kind(4, 200, False, "cancelled"),
    "silent": Kind(2, 0, False, "cancelled", may_be_unknown=True),
    "upload": Kind(1, 0, False, "cancelled", may_be_unknown=True),
    "held": Kind(0, 200, True, "completed"),
}
_NAMES: Final = list(KINDS)
_SHARES: Final = [kind.share for kind in KINDS.values()]


class Cut(Exception):
    """The answer broke off."""


@dataclass
class Ledger:
    """What the clients did: every call by its name, and what was not as it should be."""

    calls: list[str] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    open: int = 0

    def name(self, kind: str) -> str:
        """Name the next call."""
        self.calls.append(f"{kind}-{len(self.calls)}")
        return self.calls[-1]


class Client:
    """One client; `stop` ends it after the call that it is in."""

    def __init__(self, port: int, number: int, ledger: Ledger, stop: asyncio.Event) -> None:
        self._port, self._number, self._ledger, self._stop = port, number, ledger, stop
        self._source = random.Random(number)  # noqa: S311
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = 0

    async def run(self) -> None:
        """Call until it is time to stop."""
        while not self._stop.is_set():
            kind = self._source.choices(_NAMES, _SHARES)[0]
            await self.call(kind, self._text())
            if self._source.random() < 0.3:
                self._leave()
        self._leave()

    async def call(self, kind: str, text: str) -> None:
        """Make one call of a kind, and see that its answer is what it should be."""
        name = self._ledger.name(kind)
        self._ledger.open += 1
        try:
            async with asyncio.timeout(WAIT_S):
                status = await self._exchange(kind, name, text)
            if status != KINDS[kind].status or not KINDS[kind].complete:
                self._ledger.wrong[f"{kind}: status {status}, complete"] += 1
        except (Cut, ConnectionError, asyncio.IncompleteReadError):
            self._leave()
            if KINDS[kind].complete:
                self._ledger.wrong[f"{kind}: cut"] += 1
        except TimeoutError:
            self._leave()
            self._ledger.wrong[f"{kind}: no end after {WAIT_S:.0f} s"] += 1
        finally:
            self._ledger.open -= 1

    def _text(self) -> str:
        """Give what is said: sessions of about ten turns, in words of their own."""
        self._turn += 1
        return f"client {self._number} says for the {self._turn}th time " + "some words " * 20

    async def _exchange(self, kind: str, name: str, text: str) -> int:
        streamed = kind not in ("whole", "zipped")
        body = orjson.dumps(
            {
                "model": "gpt-4o-mini",
                "stream": streamed,
                "messages": [{"role": "user", "content": text}],
            }
        )
        head = (
            f"POST {PATH}?soak={name} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer sk-soak-{self._number}\r\n"
            f"X-Traceway-Session-Id: {self._number}-{self._turn // 10}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        reader, writer = self._streams
        writer.write(head.encode() + (body[: len(body) // 2] if kind == "upload" else body))
        await writer.drain()
        if KINDS[kind].status == 0:  # an answer is not waited for
            await asyncio.sleep(0.5)
            raise Cut
        return await self._answer(kind, reader, writer)

    async def _answer(
        self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> int:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length is not None:
            await reader.readexactly(int(length[1]))
            return status
        last = b""
        for number in range(1_000_000):
            size = int(await reader.readuntil(b"\r\n"), 16)
            data = await reader.readexactly(size + 2)
            if not size:
                break
            last = (last + data[:-2])[-100:]
            if number == 3 and kind == "aborts":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                raise Cut
            if number == 3 and kind == "leaves":
                raise Cut
        if not last.endswith(b"data: [DONE]\n\n"):
            raise Cut
        return status

    def _leave(self) -> None:
        if self._streams is not None:
            with contextlib.suppress(ConnectionError):
                self._streams[1].close()
            self._streams = None
