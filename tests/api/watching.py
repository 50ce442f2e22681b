"""A subscriber of /api/events on a real socket, as a browser reads it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from tests.running import Running
from tests.wire import TIMEOUT_S, Peer, Received, connect


class Ended(Exception):
    """The stream came to its proper end."""


@dataclass
class Watching:
    """A subscription; `position` is what a browser would send as Last-Event-ID."""

    peer: Peer
    head: Received
    position: str = ""
    buffer: bytes = b""

    async def frame(self) -> dict[str, str]:
        """Read the next block of lines: its fields, a comment as ""."""
        while b"\n\n" not in self.buffer:
            size = int(await self.peer.reader.readuntil(b"\r\n"), 16)
            piece = (await self.peer.reader.readexactly(size + 2))[:-2]
            if not size:
                raise Ended
            self.buffer += piece
        block, _, self.buffer = self.buffer.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        self.position = fields.get("id", self.position)
        return fields

    async def event(self) -> Any:
        """Read the next event that has data."""
        async with asyncio.timeout(TIMEOUT_S):
            while "data" not in (fields := await self.frame()):
                pass
        event = orjson.loads(fields["data"])
        assert event["type"] in ("resync", "span_progress") or int(fields["id"])
        return event

    async def events(self, count: int) -> list[Any]:
        """Read so many events."""
        return [await self.event() for _ in range(count)]

    async def until(self, kind: str, **fields: Any) -> list[Any]:
        """Read up to an event of a type, with these fields."""
        found = [await self.event()]
        while found[-1]["type"] != kind or any(found[-1][k] != v for k, v in fields.items()):
            found.append(await self.event())
        return found

    async def ended(self) -> list[Any]:
        """Read on to the proper end of the stream."""
        found = []
        try:
            while True:
                found.append(await self.event())
        except Ended:
            return found


@asynccontextmanager
async def watch(
    tw: Running, query: str = "", last_event_id: str | None = None
) -> AsyncIterator[Watching]:
    """Subscribe, and read the head and the first frame."""
    async with connect(tw.port) as peer:
        again = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id is not None else ""
        await peer.send(
            f"GET /api/events?{query} HTTP/1.1\r\nHost: localhost\r\n{again}\r\n".encode()
        )
        watching = Watching(peer, await peer.head())
        assert watching.head.status == 200, watching.head
        async with asyncio.timeout(TIMEOUT_S):
            await watching.frame()
        yield watching


def kinds(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]
