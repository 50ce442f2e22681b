"""One connection to an upstream, which carries one exchange after another.

Owns the transport: back-pressure both ways, and how the connection ended. Invariant: bytes that no
exchange asked for close the connection and reach nobody. Does not parse answers (answer.py), nor
choose connections or targets (upstream.py).
"""

import asyncio
import math
import select
import ssl
from typing import cast

from proxy.answer import Answer


class Connection(asyncio.Protocol):
    """A connection that carries one exchange after another.

    `idle_since` is the loop's time at which the last exchange ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._below: asyncio.Transport | None = None  # what reads from the wire
        self._answer: Answer | None = None
        self._writable: asyncio.Future[None] | None = None
        self._over = False
        self._ended = False  # the upstream has said that nothing follows
        self.idle_since = loop.time()

    @property
    def usable(self) -> bool:
        """Whether it is open, and nothing came unasked."""
        return self._transport is not None and not self._over

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._below = self._below or self._transport
        if self._over:  # bytes came at once
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.abort()  # nobody asked: never the next caller's answer
        else:
            self._answer.feed(data)

    def eof_received(self) -> None:
        self._over = True  # TLS may take a while until it tells us that it is lost
        if self._transport is not None:
            tls = self._transport.get_extra_info("ssl_object")
            self._ended = tls is None or _said_close(tls)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self.resume_writing()
        if self._answer is not None:
            self._answer.lost(exc, proper=self._ended and exc is None)

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    # What who opened it calls.

    def secured(self, transport: asyncio.Transport, below: asyncio.Transport) -> None:
        """Begin over TLS, which `below` carries."""
        self._below = below
        self.connection_made(transport)

    # What an exchange calls.

    def begin(
        self,
        method: bytes,
        *,
        headers_timeout_s: float,
        idle_timeout_s: float,
        ends_at: float = math.inf,
    ) -> Answer:
        """Start an exchange; the caller then writes the request and reads the answer."""
        answer = self._answer = Answer(
            self,
            self._loop,
            method,
            headers_timeout_s=headers_timeout_s,
            idle_timeout_s=idle_timeout_s,
            ends_at=ends_at,
        )
        if not self.usable:
            answer.lost(None, proper=False)
        return answer

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport; a connection that is gone swallows them, `Answer` knows."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self, limit_s: float) -> bool:
        """Wait while the upstream takes nothing more; False where that is still so at the limit."""
        if self._writable is not None:
            await asyncio.wait((self._writable,), timeout=limit_s)
        return self._writable is None

    def is_silent(self) -> bool:
        """Whether nothing is on the wire that the loop has yet to see, not even the end."""
        if not self.usable or self._transport is None:
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def end(self) -> None:
        """Finish the exchange; the connection then waits for the next one."""
        self._answer = None
        self.idle_since = self._loop.time()

    def abort(self) -> None:
        """Close at once, without flushing."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    def hold(self) -> None:
        """Read no more from the upstream.

        What carries TLS is held, not TLS: uvloop's forgets what it has read and not handed over
        where the connection ends meanwhile.
        """
        if self._below is not None and not self._below.is_closing():
            self._below.pause_reading()

    def go_on(self) -> None:
        """Read from the upstream again."""
        if self._below is not None and not self._below.is_closing():
            self._below.resume_reading()


def _said_close(tls: ssl.SSLObject) -> bool:
    """Tell whether TLS was ended properly (close_notify, RFC 8446 section 6.1).

    Without it, whoever can cut the connection could make half an answer look whole (RFC 9112
    section 9.8). asyncio calls `eof_received` at a bare end of the connection as well, so the TLS
    object is asked: all that came before the end was read, and only a proper one reads as nothing.
    """
    try:
        return tls.read(1) == b""
    except ssl.SSLError:
        return False
