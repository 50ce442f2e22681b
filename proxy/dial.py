"""How a connection to an upstream comes about: name, address, perhaps a proxy, TLS.

Invariant: who asks gets a connection that is ready for its first exchange, or nothing stays open.
Sets no time limit (upstream.py does), and knows no requests.
"""

import asyncio
import contextlib
import ssl
from functools import cache
from typing import Final

import aiohappyeyeballs

from proxy.connection import Connection
from proxy.egress import Hop
from proxy.lookup import Lookup
from proxy.tunnel import Carrier

# RFC 8305 section 5: the pause before the next address is tried beside the first.
_NEXT_ADDRESS_S: Final = 0.25


@cache
def trust() -> ssl.SSLContext:
    """Trust whom the system trusts, or whom SSL_CERT_FILE and SSL_CERT_DIR name.

    For all upstreams once, since the certificates take 20 ms to load.
    """
    return ssl.create_default_context()


class Dialer:
    """Opens connections to one host, over TLS where `tls`, and through `hop` where there is one."""

    def __init__(self, host: str, port: int, *, tls: bool, hop: Hop | None) -> None:
        self._host = host
        self._hop = hop
        self._tls = trust() if tls else None
        self._hop_tls = trust() if hop is not None and hop.tls else None
        name = f"[{host}]" if ":" in host else host
        self._authority = f"{name}:{port}".encode("ascii")
        self._lookup = Lookup(hop.host, hop.port) if hop is not None else Lookup(host, port)

    async def dial(self) -> Connection:
        """Open a connection.

        Raises:
            OSError: it cannot be had (ssl.SSLError is one).
        """
        loop = asyncio.get_running_loop()
        sock = await aiohappyeyeballs.start_connection(
            await self._lookup.addresses(), happy_eyeballs_delay=_NEXT_ADDRESS_S, loop=loop
        )
        try:
            if self._tls is None and self._hop_tls is None:
                _, connection = await loop.create_connection(lambda: Connection(loop), sock=sock)
                return connection
            below, carrier = await loop.create_connection(lambda: Carrier(loop), sock=sock)
        except BaseException:
            with contextlib.suppress(OSError):
                sock.close()
            raise
        try:
            return await self._secured(loop, below, carrier)
        except BaseException:
            below.abort()
            raise

    async def _secured(
        self, loop: asyncio.AbstractEventLoop, below: asyncio.Transport, carrier: Carrier
    ) -> Connection:
        """Put TLS on top of a connection, and between it and the upstream's the proxy's own."""
        connection = Connection(loop)
        transport, context, name = below, self._tls, self._host
        if self._hop is not None:
            if self._hop_tls is not None:
                over: asyncio.Protocol = Carrier(loop) if self._tls is not None else connection
                transport = await _start_tls(loop, below, over, self._hop_tls, self._hop.host)
                if isinstance(over, Carrier):
                    carrier = over
                    carrier.connection_made(transport)
            if context is not None:
                await carrier.open_tunnel(self._authority, self._hop)
        if context is not None:
            transport = await _start_tls(loop, transport, connection, context, name)
        connection.secured(transport, below)
        return connection


async def _start_tls(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.Transport,
    protocol: asyncio.Protocol,
    context: ssl.SSLContext,
    name: str,
) -> asyncio.Transport:
    secured = await loop.start_tls(transport, protocol, context, server_hostname=name)
    if secured is None:
        raise ConnectionError("the connection was lost in the TLS handshake")
    return secured
