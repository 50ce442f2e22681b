"""A forward proxy for tests: it tunnels to one port, whatever name it is asked for."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.egress import Hop
from tests.wire import Peer, Received, ScriptedUpstream


class ForwardProxy:
    """`asked` is what it was asked for, `passed` every byte that it saw go to the upstream."""

    def __init__(self, scripted: ScriptedUpstream, port: int) -> None:
        self.asked: list[Received] = []
        self.passed = b""
        self.scripted = scripted
        self._port = port
        scripted.script = self._tunnel

    @property
    def port(self) -> int:
        return self.scripted.port

    def hop(self, authorization: bytes | None = None) -> Hop:
        """Give the way through it."""
        tls = self.scripted.tls is not None
        host = "localhost" if tls else "127.0.0.1"
        return Hop(host=host, port=self.port, tls=tls, authorization=authorization)

    async def _tunnel(self, peer: Peer) -> None:
        self.asked.append(await peer.head())
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        await peer.send(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")
        try:
            await asyncio.gather(
                self._pipe(peer.reader, writer, seen=True), self._pipe(reader, peer.writer)
            )
        finally:
            writer.close()

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, seen: bool = False
    ) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65536):
                if seen:
                    self.passed += data
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def forward_proxy(
    upstream: ScriptedUpstream, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ForwardProxy]:
    """Run a proxy before an upstream."""
    scripted = ScriptedUpstream()
    await scripted.start(tls)
    try:
        yield ForwardProxy(scripted, upstream.port)
    finally:
        await scripted.stop()
