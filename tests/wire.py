"""Both ends of the wire for tests: a scripted upstream and a raw client, on real sockets.

A script reads as a sequence diagram: `await peer.request()`, `await peer.send(b"...")`, and so on.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

TIMEOUT_S = 10.0  # a test that waits longer has failed


@dataclass
class Received:
    """One message as it was on the wire."""

    start: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    head: bytes = field(default=b"", repr=False)

    def get(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]


class Peer:
    """One connection, with the few moves that a script needs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> Received:
        """Read a message's head."""
        async with asyncio.timeout(TIMEOUT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
        start, *lines = head[:-4].split(b"\r\n")
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        return Received(start, headers, head=head)

    async def request(self) -> Received:
        """Read a whole request."""
        message = await self.head()
        message.body = await self.body(message)
        return message

    async def response(self, *, head_only: bool = False) -> Received:
        """Read a whole response; a body without a length goes on to the end of the connection."""
        message = await self.head()
        if not head_only and message.status not in (204, 304):
            message.body = await self.body(message, until_close=True)
        return message

    async def body(self, message: Received, *, until_close: bool = False) -> bytes:
        """Read the body that a head announces.

        Raises:
            asyncio.IncompleteReadError: it was cut.
        """
        async with asyncio.timeout(TIMEOUT_S):
            if (message.get(b"Transfer-Encoding") or b"").lower() == b"chunked":
                return b"".join([piece async for piece in self.chunks()])
            if (length := message.get(b"Content-Length")) is not None:
                return await self.reader.readexactly(int(length))
            return await self.reader.read() if until_close else b""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give each chunk of a chunked body."""
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readuntil(b"\r\n")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def respond(
        self,
        body: bytes = b"",
        *,
        status: bytes = b"200 OK",
        content_type: bytes = b"application/json",
        headers: bytes = b"",
    ) -> None:
        """Send a whole response with a length."""
        await self.send(
            b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, content_type, len(body), headers, body)
        )

    async def gone(self) -> None:
        """Wait until the other side closed."""
        async with asyncio.timeout(TIMEOUT_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass

    def cut(self) -> None:
        """Reset the connection."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def end(self) -> None:
        """End the connection beneath everything: over TLS, without saying so (close_notify)."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """Close it properly."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


Script = Callable[[Peer], Awaitable[None]]


class ScriptedUpstream:
    """An upstream that plays a script on every connection; `error` is what a script raised."""

    def __init__(self) -> None:
        self.script: Script = self._default
        self.connections = 0
        self.requests: list[Received] = []
        self.error: BaseException | None = None
        self.tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._peers: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._peers):
            task.cancel()
        await asyncio.gather(*self._peers, return_exceptions=True)
        if self.error is not None:
            raise self.error

    def answers(self, body: bytes, **how: bytes) -> None:
        """Answer every request with the same response."""

        async def script(peer: Peer) -> None:
            while True:
                try:
                    self.requests.append(await peer.request())
                except TimeoutError:  # a connection that nobody needs any more
                    return
                await peer.respond(body, **how)

        self.script = script

    async def _default(self, peer: Peer) -> None:
        raise AssertionError("nobody was to call this upstream")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._peers.add(task)
        self.connections += 1
        try:
            await self.script(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the proxy closed it: a script that minds reads on with `gone`
        except Exception as error:
            self.error = error
        finally:
            self._peers.discard(task)
            writer.close()


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Peer]:
    """Open a raw client connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
