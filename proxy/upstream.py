"""Upstreams: where a call goes, the pool of connections there, and the one way to send a request.

Invariants: scheme, host and port come from the configuration only; a request with a body that may
change something is sent at most once; a connection that was silent too long, or that said anything
unasked, carries nobody's call.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import aiohappyeyeballs
from yarl import URL

from proxy.connection import Answer, ClientFault, Connection, UpstreamFault
from proxy.headers import RawHeaders
from proxy.sections import UpstreamConfig
from proxy.tasks import spawn

# Servers close idle connections after 5 s (Node's default) and more; a younger one is safe to use.
MAX_IDLE_S: Final = 5.0
# RFC 8305 section 5: the pause before the next address is tried beside the first.
_NEXT_ADDRESS_S: Final = 0.25
# RFC 9110 section 9.2.2. Sent again, once, when a kept connection turns out to be dead.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it leaves: `target` is path and query as raw bytes, `body` whole or as it comes.

    `chunked` frames the body with chunks; otherwise `headers` declare its length.
    """

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes | AsyncIterator[bytes] = b""
    chunked: bool = False


class Exchange:
    """One request and its answer; `answer` is ready to read. Close it in every case."""

    def __init__(self, upstream: "Upstream", connection: Connection, answer: Answer) -> None:
        self.answer = answer
        self._upstream = upstream
        self._connection = connection
        self._upload: asyncio.Task[None] | None = None

    def send(self, request: Request) -> None:
        """Write the request; a body that comes in pieces goes on beside the answer."""
        framing = [(b"Transfer-Encoding", b"chunked")] if request.chunked else []
        head = serialize(request.method, request.target, request.headers + framing)
        if isinstance(request.body, bytes):
            body = _chunk(request.body) + _LAST_CHUNK if request.chunked else request.body
            self._connection.write(head + body)
        else:
            self._connection.write(head)
            self._upload = spawn(self._send_body(request.body, request.chunked), "upload")

    def close(self) -> None:
        """Give the connection back, or close it where the exchange did not end properly."""
        uploading = self._upload is not None and not self._upload.done()
        if self._upload is not None and uploading:
            self._upload.cancel()
            self.answer.keep_alive = False
        if self.answer.close():
            self._upstream.take_back(self._connection)

    async def _send_body(self, body: AsyncIterator[bytes], chunked: bool) -> None:
        try:
            async for piece in body:
                self._connection.write(_chunk(piece) if chunked else piece)
                await self._connection.drain()
                if not self._connection.usable:
                    return
                self.answer.progress()
        except ClientFault as fault:
            self.answer.fail(fault)
        else:
            if chunked:
                self._connection.write(_LAST_CHUNK)


@cache
def _tls() -> ssl.SSLContext:
    """Trust whom the system trusts: for all upstreams once, since its certificates take 20 ms."""
    return ssl.create_default_context()


class Upstream:
    """A configured target and its idle connections, the youngest used first."""

    def __init__(self, name: str, config: UpstreamConfig) -> None:
        url = URL(config.url)
        host, port = url.raw_host, url.port
        if host is None or port is None:
            raise ValueError(f"upstream {name}: {config.url!r} names no host")
        self.name = name
        self.config = config
        self.authority = host_header(host, url.explicit_port)
        self._host = host
        self._port = port
        self._prefix = url.raw_path.rstrip("/").encode("ascii")
        self._tls = _tls() if url.scheme == "https" else None
        self._idle: list[Connection] = []
        self._sweep: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Upstream {self.name} {self.authority.decode()} idle={len(self._idle)}>"

    def target(self, rest: bytes) -> bytes:
        """Give the request target for what stood behind the upstream's name in ours."""
        target = self._prefix + rest
        return target if target.startswith(b"/") else b"/" + target

    async def open(self, request: Request) -> Exchange:
        """Send a request and wait for the answer's head.

        Raises:
            UpstreamFault: unreachable, closed, malformed or late.
            ClientFault: the request body broke off.
        """
        connection = self._youngest_idle()
        while True:
            reused = connection is not None
            if connection is None:
                connection = await self._connect()
            answer = connection.begin(
                request.method,
                headers_timeout_s=self.config.headers_timeout_s,
                idle_timeout_s=self.config.idle_timeout_s,
            )
            exchange = Exchange(self, connection, answer)
            try:
                exchange.send(request)
                await answer.head()
            except UpstreamFault as fault:
                exchange.close()
                again = request.method in _IDEMPOTENT and isinstance(request.body, bytes)
                if not (reused and fault.silent and again):
                    raise
                connection = None
            except BaseException:
                exchange.close()
                raise
            else:
                return exchange

    def take_back(self, connection: Connection) -> None:
        """Keep a connection whose exchange ended properly."""
        if len(self._idle) >= self.config.max_idle_connections:
            connection.abort()
            return
        self._idle.append(connection)
        if self._sweep is None:
            loop = asyncio.get_running_loop()
            self._sweep = loop.call_later(MAX_IDLE_S, self._close_stale)

    def close(self) -> None:
        """Close every idle connection."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            self._idle.pop().abort()

    def _youngest_idle(self) -> Connection | None:
        oldest_s = asyncio.get_running_loop().time() - MAX_IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest_s and connection.is_silent():
                return connection
            connection.abort()
        return None

    def _close_stale(self) -> None:
        loop = asyncio.get_running_loop()
        oldest_s = loop.time() - MAX_IDLE_S
        kept = []
        for connection in self._idle:
            if connection.usable and connection.idle_since > oldest_s:
                kept.append(connection)
            else:
                connection.abort()
        self._idle = kept
        self._sweep = loop.call_later(MAX_IDLE_S, self._close_stale) if kept else None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        where = f"{self.name} ({self._host}:{self._port})"
        sock: socket.socket | None = None
        try:
            async with asyncio.timeout(self.config.connect_timeout_s):
                addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                sock = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, loop=loop
                )
                _, connection = await loop.create_connection(
                    lambda: Connection(loop),
                    sock=sock,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError:
            why = f"no connection within {self.config.connect_timeout_s:g} s"
        except ssl.SSLError as error:
            why = f"TLS failed: {error.reason or error}"
        except OSError as error:
            why = error.strerror or str(error)
        else:
            return connection
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()
        raise UpstreamFault(
            "upstream_unreachable",
            f"upstream {where} cannot be reached: {why}",
            phase="connect",
            silent=True,
        )


_LAST_CHUNK: Final = b"0\r\n\r\n"


def serialize(method: bytes, target: bytes, headers: RawHeaders) -> bytes:
    """Give a request's head as bytes, each header as it was."""
    lines = [method + b" " + target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


def host_header(host: str, port: int | None) -> bytes:
    """Write a host as it stands in `Host`; `port` is None where it is the scheme's own."""
    name = f"[{host}]" if ":" in host else host
    return (name if port is None else f"{name}:{port}").encode("ascii")
