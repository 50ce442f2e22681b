"""A tunnel through a forward proxy: what is said before TLS begins (CONNECT, RFC 9110 9.3.6).

Owns the wire from its first byte until TLS takes it over. Invariants: nothing but the proxy's
consent lets TLS begin; what a proxy says is bounded, and of it only the status reaches a message.
Sets no time limit: the limit to connect (upstream.py) covers it.
"""

import asyncio
import re
from typing import Final, cast

from proxy.egress import Hop

# What Go's and Node's clients read of a proxy's answer is bounded by their limits of a head; a
# proxy has less to say.
MAX_HEAD_BYTES: Final = 64 * 1024
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


class Carrier(asyncio.Protocol):
    """A connection that is to carry TLS: it reads nothing but the answer to `open_tunnel`."""

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._said = bytearray()
        self._heard: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()  # TLS resumes it

    def data_received(self, data: bytes) -> None:
        self._said += data
        if b"\r\n\r\n" in self._said or len(self._said) > MAX_HEAD_BYTES:
            self._hear()

    def eof_received(self) -> None:
        self._hear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hear()

    async def open_tunnel(self, authority: bytes, hop: Hop) -> None:
        """Ask the proxy for a tunnel to `authority`, as b"api.openai.com:443".

        Raises:
            ConnectionError: it gives none.
        """
        lines = [b"CONNECT %b HTTP/1.1" % authority, b"Host: %b" % authority]
        lines += [b"%b: %b" % header for header in hop.headers]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        self.transport.resume_reading()
        await self._heard
        head, end, rest = bytes(self._said).partition(b"\r\n\r\n")
        status = _STATUS.match(head + b"\r")
        if end and status is not None and not status[1].startswith(b"2"):
            raise ConnectionError(refusal(int(status[1])))
        if not end or status is None or rest:  # no TLS server speaks first
            raise ConnectionError("it closed the connection, or does not speak HTTP as a proxy")
        self.transport.pause_reading()

    def _hear(self) -> None:
        if not self._heard.done():
            self._heard.set_result(None)


def refusal(status: int) -> str:
    """Say what a proxy means by the status with which it refuses."""
    if status == 407:
        return "it wants other credentials than its URL in the environment has (407)"
    return f"it refused with status {status}"
