"""What is read of clients before anybody needs it: one buffer to read into, one bound over all.

An event loop reads up to 256,000 bytes at once from whoever sends, and aiohttp holds them until a
handler takes them: 55 MB where 500 requests of 500 KB come at once, the most of what it cost.
Invariant: the clients' bytes that nobody has taken are at most `AHEAD_BYTES`, and of each
connection `LEAST_READ_BYTES` and what aiohttp lets through before it stops reading
(`reaper.READ_BYTES`, twice). While little waits, reads are large. Knows nothing of HTTP.
"""

import asyncio
from typing import Final, Protocol

# Of all connections that wait for their handlers; the last reads of it come in small pieces.
AHEAD_BYTES: Final = 4 * 1024 * 1024
MOST_READ_BYTES: Final = 256 * 1024
LEAST_READ_BYTES: Final = 32 * 1024
# A read takes this part of what is left, so that the bound is neared and not passed.
_PART: Final = 8


class ReadAhead:
    """The buffer into which all connections of an event loop are read.

    `ahead_bytes` are those that connections hold which are not read on until somebody takes them.
    """

    def __init__(self) -> None:
        self.ahead_bytes = 0
        self._buffer = memoryview(bytearray(MOST_READ_BYTES))

    def room(self) -> memoryview:
        """Give where the next read goes: empty again as soon as that is handed on."""
        size = (AHEAD_BYTES - self.ahead_bytes) // _PART
        return self._buffer[: min(max(size, LEAST_READ_BYTES), MOST_READ_BYTES)]


class Listener(Protocol):
    """What a connection's bytes and news are for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Ear(asyncio.BufferedProtocol):
    """A connection's protocol for the event loop: reads as much as there is room for."""

    __slots__ = ("_listener", "_read_ahead", "_room")

    def __init__(self, read_ahead: ReadAhead, listener: Listener) -> None:
        self._read_ahead = read_ahead
        self._listener = listener
        self._room = memoryview(b"")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give where to read to; the event loop fills it at once, and says so."""
        self._room = self._read_ahead.room()
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read."""
        self._listener.data_received(bytes(self._room[:nbytes]))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._listener.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._listener.connection_lost(exc)

    def eof_received(self) -> None:
        """Say that nothing follows."""
        self._listener.eof_received()

    def pause_writing(self) -> None:
        """Say that the client takes less than there is for it."""
        self._listener.pause_writing()

    def resume_writing(self) -> None:
        """Say that it took what there was."""
        self._listener.resume_writing()
