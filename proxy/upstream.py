"""Upstreams: where a call goes, the pool of connections there, and the one way to send a request.

Invariants: scheme, host and port come from the configuration only; a request with a body that may
change something is sent at most once; a connection that was silent too long, or that said anything
unasked, carries nobody's call.
"""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final

from yarl import URL

from proxy.answer import Answer, ClientFault, UpstreamFault
from proxy.connection import Connection
from proxy.dial import Dialer
from proxy.egress import Hop
from proxy.headers import RawHeaders
from proxy.sections import UpstreamConfig
from proxy.tasks import spawn
from proxy.tunnel import refusal

# Servers close idle connections after 5 s (Node's default) and more; a younger one is safe to use.
MAX_IDLE_S: Final = 5.0
# Seconds. A client whose upload is held back is not read from, so its end is looked for.
LOOK_S: Final = 1.0
# Only a proxy asks for its own credentials (RFC 9110 section 15.5.8).
_NOT_BY_THE_UPSTREAM: Final = 407
# RFC 9110 section 9.2.2. Sent again, once, when a kept connection turns out to be dead.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it leaves: `target` is path and query as raw bytes, `body` whole or as it comes.

    `chunked` frames the body with chunks; otherwise `headers` declare its length. `look` is called
    each `LOOK_S` in which the upstream takes nothing of the body.
    """

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes | AsyncIterator[bytes] = b""
    chunked: bool = False
    look: Callable[[], None] = lambda: None


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
            self._upload = spawn(
                self._send_body(request.body, request.chunked, request.look), "upload"
            )

    def close(self) -> None:
        """Give the connection back, or close it where the exchange did not end properly."""
        uploading = self._upload is not None and not self._upload.done()
        if self._upload is not None and uploading:
            self._upload.cancel()
            self.answer.keep_alive = False
        if self.answer.close():
            self._upstream.take_back(self._connection)

    async def _send_body(
        self, body: AsyncIterator[bytes], chunked: bool, look: Callable[[], None]
    ) -> None:
        try:
            async for piece in body:
                self._connection.write(_chunk(piece) if chunked else piece)
                while not await self._connection.drain(LOOK_S):
                    look()
                if not self._connection.usable:
                    return
                self.answer.progress()
        except ClientFault as fault:
            self.answer.fail(fault)
        else:
            if chunked:
                self._connection.write(_LAST_CHUNK)


class Upstream:
    """A configured target and its idle connections, the youngest used first.

    `hop` is the proxy on the way to it.
    """

    def __init__(self, name: str, config: UpstreamConfig, hop: Hop | None = None) -> None:
        url = URL(config.url)
        host, port = url.raw_host, url.port
        if host is None or port is None:
            raise ValueError(f"upstream {name}: {config.url!r} names no host")
        self.name = name
        self.config = config
        self.authority = host_header(host, url.explicit_port)
        self._where = f"{host}:{port}"
        self._hop = hop
        # Over TLS a proxy gives a tunnel, and sees no request; else it reads the requests.
        tls = url.scheme == "https"
        self._asked = None if tls else hop
        self._dialer = Dialer(host, port, tls=tls, hop=hop)
        self._prefix = url.raw_path.rstrip("/").encode("ascii")
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
        if self._asked is not None:
            request = self._for_proxy(request, self._asked)
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + (self.config.total_timeout_s or math.inf)
        connection = self._youngest_idle()
        while True:
            reused = connection is not None
            if connection is None:
                left_s = max(ends_at - loop.time(), 0)
                connection = await self._connect(min(self.config.connect_timeout_s, left_s))
            answer = connection.begin(
                request.method,
                headers_timeout_s=self.config.headers_timeout_s,
                idle_timeout_s=self.config.idle_timeout_s,
                ends_at=ends_at,
            )
            exchange = Exchange(self, connection, answer)
            try:
                exchange.send(request)
                await answer.head()
                if self._asked is not None and answer.status == _NOT_BY_THE_UPSTREAM:
                    raise self._unreachable(refusal(answer.status))
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

    def _for_proxy(self, request: Request, hop: Hop) -> Request:
        """Write a request as a proxy reads it: its target names the host (RFC 9112 3.2.2)."""
        target = b"http://" + self.authority + request.target
        return replace(request, target=target, headers=[*request.headers, *hop.headers])

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

    async def _connect(self, limit_s: float) -> Connection:
        try:
            async with asyncio.timeout(limit_s):
                return await self._dialer.dial()
        except TimeoutError:
            why = f"no connection within {limit_s:.3g} s"
        except ssl.SSLCertVerificationError as error:
            why = f"its certificate is not trusted: {error.verify_message}"
        except ssl.SSLError as error:
            why = f"TLS failed: {error.reason or error}"
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
        raise self._unreachable(why)

    def _unreachable(self, why: str) -> UpstreamFault:
        through = f" through the proxy {self._hop}" if self._hop is not None else ""
        return UpstreamFault(
            "upstream_unreachable",
            f"upstream {self.name} ({self._where}) cannot be reached{through}: {why}",
            phase="connect",
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
