"""The connections of clients: how many there may be, and how long each may keep its own waiting.

Adds to aiohttp's protocol what that lacks: a limit on the time of a head and on a client that takes
nothing, a bound on connections, the news that a body is malformed, and answers in our own shape for
what its parser refuses. Invariants: whoever sends or takes nothing is closed in bounded time, also
between two bytes; no answer quotes what was malformed; a connection more than there may be costs
the others nothing. Knows neither routes nor upstreams.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

from proxy.errors import error_response
from proxy.read_ahead import Ear, ReadAhead

# Header limits of both sides of the relay (answer.py has the upstream's).
MAX_LINE_BYTES: Final = 64 * 1024
MAX_FIELDS: Final = 1000
# Of a request's body aiohttp reads twice as much before its handler takes it, and one read more
# (read_ahead.py).
READ_BYTES: Final = 8 * 1024
# nginx closes idle client connections after 75 s.
KEEPALIVE_S: Final = 75.0
# Connections that are turned away, but told so first, at a time, and how long they may take to ask.
MAX_TURNED_AWAY: Final = 32
TURNED_AWAY_S: Final = 1.0
LOG_EVERY_S: Final = 60.0
# In place of aiohttp's own, which names the versions that run here.
SERVER: Final = "Traceway"

_log = logging.getLogger("traceway")
_http_log = logging.getLogger("traceway.http")


class _ClientsFaults(logging.Filter):
    """Keeps malformed requests out of the log: aiohttp quotes them, and with them their keys."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


_http_log.addFilter(_ClientsFaults())


class MalformedBody(HttpProcessingError):
    """A chunk of a request's body is none: what its reader is told at once."""

    def __init__(self) -> None:
        super().__init__(code=400, message="a chunk of the request body is malformed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long we wait for a client, in seconds: for a head, for a piece of a body, and until it
    takes something of an answer."""

    header_s: float = 10.0
    body_s: float = 300.0
    write_s: float = 300.0


class _Deadlines:
    """Clients that owe us something, in the order in which they began to; one timer for all."""

    def __init__(self, limit_s: float, late: "Callable[[Client], None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_s = limit_s
        self._late = late
        self._since_s: dict[Client, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, client: "Client") -> None:
        """Count from now, where it does not owe already."""
        if client not in self._since_s:
            self._since_s[client] = self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_later(self._limit_s, self._look)

    def end(self, client: "Client") -> None:
        """It owes nothing any more."""
        self._since_s.pop(client, None)

    def _look(self) -> None:
        now_s = self._loop.time()
        while self._since_s:
            client, since_s = next(iter(self._since_s.items()))
            if since_s + self._limit_s > now_s:
                self._timer = self._loop.call_at(since_s + self._limit_s, self._look)
                return
            del self._since_s[client]
            self._late(client)
        self._timer = None


class Clients:
    """Makes the protocol of each connection, and knows how many there are (`count`).

    `limit` is how many there may be; None for no limit.
    """

    def __init__(self, server: web.Server, patience: Patience, limit: int | None = None) -> None:
        self.patience = patience
        self.count = 0
        self.read_ahead = ReadAhead()
        self.heads = _Deadlines(patience.header_s, Client.head_is_late)
        self.writes = _Deadlines(patience.write_s, Client.write_is_late)
        self._server = server
        self._limit = limit
        self._turned_away = 0
        self._last_log_s: float | None = None

    def __call__(self) -> Ear:
        """Make a protocol: what an event loop's server asks for."""
        return Ear(self.read_ahead, Client(self, self._server))

    def admits(self, transport: asyncio.Transport) -> bool:
        """Tell whether there is room for one more; where not, it is turned away."""
        if self._limit is None or self.count < self._limit:
            return True
        now_s = asyncio.get_running_loop().time()
        if self._last_log_s is None or now_s - self._last_log_s >= LOG_EVERY_S:
            self._last_log_s = now_s
            _log.warning("%d connections are open; more are turned away with 503", self.count)
        if self._turned_away >= min(MAX_TURNED_AWAY, self._limit):
            transport.abort()
            return False
        self._turned_away += 1
        turned_away = _TurnedAway(transport, self._limit, self._forget)
        transport.set_protocol(turned_away)
        return False

    def _forget(self) -> None:
        self._turned_away -= 1


class Client(web.RequestHandler):
    """aiohttp's protocol of one connection, with the bounds that it lacks."""

    __slots__ = ("_admitted", "_ahead_bytes", "_all", "_heard", "_last_bytes", "_unsent")

    def __init__(self, clients: Clients, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=cast(Any, _http_log),  # a Logger, for which aiohttp has a narrower type
            access_log=cast(Any, None),  # costs more than the rest of our own work on a call
            auto_decompress=False,  # bodies pass as they are
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_FIELDS,
            read_bufsize=READ_BYTES,
        )
        self._all = clients
        self._admitted = False
        self._heard = False  # something of a head that is not whole
        self._last_bytes = 0  # of the last read
        self._ahead_bytes = 0  # of them, those that hold up the next one
        self._unsent = 0  # bytes that the client had not taken when we last looked

    @property
    def patience(self) -> Patience:
        """How long we wait for this client."""
        return self._all.patience

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and count the time of the first head."""
        if not self._all.admits(cast(asyncio.Transport, transport)):
            return
        self._admitted = True
        self._all.count += 1
        self._all.heads.begin(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End whatever runs, and count no more."""
        if not self._admitted:
            return
        self._admitted = False
        self._all.count -= 1
        self._all.heads.end(self)
        self._all.writes.end(self)
        self._is_taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, and see whether that began a head, completed one, or cannot be read."""
        # Not between two requests where the next one is here, and its handler has yet to run.
        heads, is_between = self._request_count, not (self._waiter is None or self._waiter.done())
        self._last_bytes = len(data) or self._last_bytes
        super().data_received(data)
        if self._request_count != heads:
            self._heard = False
            self._all.heads.end(self)
            if not isinstance(self._messages[-1][0], RawRequestMessage):
                self._refuse_the_rest()
        elif is_between and data:
            self._heard = True
            self._all.heads.begin(self)

    def pause_writing(self) -> None:
        """Count the time from when the client takes less than we have for it."""
        super().pause_writing()
        self._unsent = self._buffered()
        self._all.writes.begin(self)

    def resume_writing(self) -> None:
        """It took what we had."""
        self._all.writes.end(self)
        super().resume_writing()

    # What a reader of a body calls.

    def pause_reading(self) -> None:
        """Read no more until somebody takes what is here."""
        super().pause_reading()
        if not self._ahead_bytes:
            self._ahead_bytes = self._last_bytes
            self._all.read_ahead.ahead_bytes += self._ahead_bytes

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on: somebody took it."""
        self._is_taken()
        super().resume_reading(resume_parser)

    def _is_taken(self) -> None:
        self._all.read_ahead.ahead_bytes -= self._ahead_bytes
        self._ahead_bytes = 0

    # What comes too late.

    def head_is_late(self) -> None:
        """Close; a client that began its head is told why."""
        if self.transport is not None and self._heard:
            message = f"the request's head was not whole after {self.patience.header_s:g} s"
            self.transport.write(wire(error_response(408, "head_timeout", message)))
        self.force_close()

    def write_is_late(self) -> None:
        """Cut, unless the client took something since we looked."""
        unsent = self._buffered()
        if unsent < self._unsent:
            self._unsent = unsent
            self._all.writes.begin(self)
        elif self.transport is not None:
            self.transport.abort()

    def _buffered(self) -> int:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    # What cannot be read.

    def _refuse_the_rest(self) -> None:
        """Tell the reader of a body that a chunk of it is malformed; aiohttp leaves it waiting."""
        error = self._messages.pop()
        if self._messages:
            message, body = self._messages[-1]
            if not isinstance(message, RawRequestMessage):
                return  # the same again: the parser says it for each piece that comes
        elif self._current_request is not None:
            body = self._current_request.content
        else:
            body = EMPTY_PAYLOAD
        if body is EMPTY_PAYLOAD or body._eof:
            self._messages.append(error)  # it stands in a head, and is answered in its turn
        else:
            body.set_exception(MalformedBody())
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Give our answer to what could not be read, or to a failure of ours, and close.

        Raises:
            ConnectionError: an answer has begun.
        """
        self.log_exception("a request could not be answered", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun: there is no other")
        if isinstance(exc, LineTooLong):
            message = f"a line or a field of the head is larger than {MAX_LINE_BYTES} bytes"
            response = error_response(431, "head_too_large", message)
        elif isinstance(exc, HttpProcessingError):
            message = "this is not HTTP as it should be: its first line, a header or its framing"
            response = error_response(400, "malformed_request", message)
        else:
            response = error_response(500, "internal", "the proxy failed; its log says why")
        response.force_close()
        speak_1_1(request)
        return response

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send what is left of an answer; those of ours say neither what runs here nor HTML."""
        if isinstance(resp, web.Response):  # a relayed one is none
            if isinstance(resp, web.HTTPException) and resp.status >= 400:
                resp = _in_our_shape(resp)
            resp.headers.setdefault(hdrs.SERVER, SERVER)
        return super().finish_response(request, resp, start_time)


class _TurnedAway(asyncio.Protocol):
    """A connection more than there may be: it is told so when it asks, and closed soon."""

    def __init__(self, transport: asyncio.Transport, limit: int, gone: Callable[[], None]) -> None:
        self._transport = transport
        self._limit = limit
        self._gone = gone
        self._has_answered = False
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TURNED_AWAY_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        # Not before it asks, since clients take an answer to nothing for a fault. What else comes
        # is thrown away: closed with bytes unread, the kernel would take the answer back.
        if not self._has_answered:
            self._has_answered = True
            message = f"the server has all the {self._limit} connections that it may have"
            self._transport.write(
                wire(error_response(503, "too_many_connections", message, retry_after_s=1))
            )

    def connection_lost(self, exc: BaseException | None) -> None:
        self._timer.cancel()
        self._gone()


def speak_1_1(request: web.BaseRequest) -> None:
    """Answer in HTTP/1.1, whatever version the request named: an answer has our own."""
    request._cache["version"] = HttpVersion11


def wire(response: web.Response) -> bytes:
    """Give a whole answer of ours as bytes, for where no request is; the connection ends with it.

    Raises:
        TypeError: its body is not bytes.
    """
    body = response.body
    if not isinstance(body, bytes):
        raise TypeError("an answer without a request has its body as bytes")
    ours: dict[str, str] = {
        hdrs.CONTENT_LENGTH: str(len(body)),
        hdrs.CONNECTION: "close",
        hdrs.SERVER: SERVER,
    }
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in (dict(response.headers) | ours).items()]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


def _in_our_shape(error: web.HTTPException) -> web.Response:
    """Give our answer in place of one of aiohttp's own, which it raises before any handler."""
    if error.status == 417:
        message = "of all that Expect may say, only 100-continue is understood"
        response = error_response(417, "expectation_failed", message)
    elif error.status == 413:
        response = error_response(413, "request_too_large", "the request body is too large")
    elif error.status < 500:
        response = error_response(400, "malformed_request", "this request cannot be understood")
    else:
        response = error_response(500, "internal", "the proxy failed; its log says why")
    response.force_close()
    return response


class Door(web.SockSite):
    """A listening socket whose connections have our bounds."""

    def __init__(
        self, runner: web.AppRunner, sock: socket.socket, clients: Clients, backlog: int
    ) -> None:
        super().__init__(runner, sock, backlog=backlog)
        self._clients = clients

    async def start(self) -> None:
        """Take connections."""
        await web.BaseSite.start(self)
        self._server = await asyncio.get_running_loop().create_server(
            self._clients, sock=self._sock, backlog=self._backlog
        )
