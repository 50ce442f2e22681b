"""The answer of one exchange with an upstream, and the faults that it can end with.

Owns the parsing of an answer (llhttp by httptools), its limits in bytes and in time, and the truth
about how it ended. Invariants: an answer is complete only when its framing says so; every wait ends
within a limit; only what carries an answer on renews a limit. Holds no socket (connection.py), and
does not read a body's meaning (tap.py).
"""

import asyncio
import math
from collections import deque
from typing import Final, Literal, Protocol

import httptools

# An answer's head: nginx holds 32 KiB by default, Node 16 KiB, Envoy 60 KiB; cookies of gateways
# grow. Ours is the larger bound that both sides of the relay share.
MAX_HEAD_BYTES: Final = 256 * 1024
MAX_FIELD_BYTES: Final = 64 * 1024
MAX_FIELDS: Final = 1000
# Unread body bytes at which the upstream is held back.
HIGH_BYTES: Final = 256 * 1024
# What frames a body (chunk sizes, their extensions, trailers) may take this much for each chunk and
# each byte of it, as in Go's net/http, and beyond that as much as a head. Go and Node give 16 KiB.
_FRAMING_OF_A_CHUNK_BYTES: Final = 16
_FRAMING_OF_A_BYTE_BYTES: Final = 2

Phase = Literal["connect", "headers", "body"]

_HEAD_TOO_LARGE: Final = f"its head is larger than {MAX_HEAD_BYTES} bytes"
_FRAMING_TOO_LARGE: Final = (
    f"the trailers or the chunk extensions of its body are larger than {MAX_HEAD_BYTES} bytes"
)
_NO_BODY_STATUS: Final = frozenset({204, 304})


class UpstreamFault(Exception):
    """The upstream did not give a whole answer.

    `code` names it for programs, `phase` is connect, headers or body, `status` what a client gets
    when nothing was sent to it yet. `silent` says that not one byte of an answer had come.
    """

    def __init__(
        self, code: str, message: str, *, phase: Phase, status: int = 502, silent: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.phase = phase
        self.status = status
        self.silent = silent

    def __repr__(self) -> str:
        return f"UpstreamFault({self.code!r}, {str(self)!r}, phase={self.phase!r})"


class ClientFault(Exception):
    """The client's request body could not be taken: malformed, broken off, or too large."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Wire(Protocol):
    """What an answer needs of the connection that carries it."""

    @property
    def usable(self) -> bool: ...
    def hold(self) -> None: ...
    def go_on(self) -> None: ...
    def end(self) -> None: ...
    def abort(self) -> None: ...


class Answer:
    """The answer of one exchange: `await head()` once, then `await read()` until b"".

    `status`, `reason` and `headers` hold once `head()` returned; `length` is the declared length of
    the body in bytes, 0 where the framing allows none, None where its end is not declared.

    The head must come `headers_timeout_s` after the request last moved on, whatever else comes
    before it; each part of the body `idle_timeout_s` after the one before; and all of it by the
    loop's time `ends_at`.
    """

    def __init__(
        self,
        wire: Wire,
        loop: asyncio.AbstractEventLoop,
        method: bytes,
        *,
        headers_timeout_s: float,
        idle_timeout_s: float,
        ends_at: float = math.inf,
    ) -> None:
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.length: int | None = None
        self.complete = False
        self.keep_alive = False
        self._wire = wire
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._is_head = method == b"HEAD"
        self._limit_s = headers_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._ends_at = ends_at
        self._progress_at = loop.time()
        self._timer = self._next_check()
        self._fault: UpstreamFault | ClientFault | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: deque[bytes] = deque()
        self._unread_bytes = 0
        self._held = False
        self._bare_bytes = 0  # of the head, and then of what frames the body
        self._in_body = False
        self._chunked = False

    @property
    def phase(self) -> Phase:
        """`headers` until the answer's head is there, then `body`."""
        return "body" if self._in_body else "headers"

    async def head(self) -> None:
        """Wait for the head.

        Raises:
            UpstreamFault: closed, malformed or late.
            ClientFault: the request body broke off meanwhile.
        """
        while not self._in_body:
            if self._fault is not None:
                raise self._fault
            await self._wait()

    async def read(self) -> bytes:
        """Give the bytes that have come since, at least one; b"" at the end of a complete answer.

        Raises:
            UpstreamFault: the body stopped before its end, after all that had come was given.
            ClientFault: the request body broke off meanwhile.
        """
        while not self._chunks:
            if self.complete:
                return b""
            if self._fault is not None:
                raise self._fault
            await self._wait()
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._unread_bytes = 0
        if self._held:
            self._held = False
            self._progress_at = self._loop.time()
            self._wire.go_on()
        return data

    def progress(self) -> None:
        """Note that the request moves on, so that a slow upload is not a silent upstream."""
        self._progress_at = self._loop.time()

    def fail(self, fault: UpstreamFault | ClientFault) -> None:
        """End the exchange with a fault; the first one stands."""
        if self._fault is None and not self.complete:
            self._fault = fault
        self._timer.cancel()
        self._wire.abort()
        self._wake()

    def close(self) -> bool:
        """Leave the exchange. True if the connection can carry another one."""
        self._timer.cancel()
        self._wire.end()
        del self._parser  # it holds our methods: a cycle that only the collector would end
        # Held back, it would stay so for its next caller.
        if self.complete and self.keep_alive and not self._held and self._wire.usable:
            return True
        self._wire.abort()
        return False

    # What the connection calls.

    def feed(self, data: bytes) -> None:
        """Parse what came from the wire."""
        if self.complete or self._fault is not None:
            self._wire.abort()  # an answer that nobody asked for
            return
        unread_bytes = self._unread_bytes
        self._bare_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail_malformed("it switched protocols unasked")
        except httptools.HttpParserError as error:
            self._fail_malformed(str(error.__context__ or error))
        else:
            if self._bare_bytes < 0:
                self._bare_bytes = 0
            elif self._bare_bytes > MAX_HEAD_BYTES and not self.complete:
                self._fail_malformed(_FRAMING_TOO_LARGE if self._in_body else _HEAD_TOO_LARGE)
        if self._unread_bytes > unread_bytes:
            self._progress_at = self._loop.time()
        if self._unread_bytes > HIGH_BYTES and not self._held:
            self._held = True
            self._wire.hold()
        self._wake()

    def lost(self, exc: Exception | None, *, proper: bool) -> None:
        """Take the end of the connection: it is a proper end only for a body that it delimits."""
        if self.complete or self._fault is not None:
            return
        if self._in_body and self.length is None and not self._chunked and proper:
            self._finish(keep_alive=False)
        else:
            where = "in mid-answer" if self._in_body else "without an answer"
            how = "closed" if exc is None else "reset"
            self.fail(
                UpstreamFault(
                    "upstream_closed",
                    f"the upstream {how} the connection {where}",
                    phase=self.phase,
                    silent=not self._in_body and self._bare_bytes == 0,
                )
            )
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("it sent a second answer")

    def on_status(self, status: bytes) -> None:
        self.reason += status  # in parts where it was cut

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return  # trailers
        if len(name) + len(value) > MAX_FIELD_BYTES:
            raise ValueError(f"a header is larger than {MAX_FIELD_BYTES} bytes")
        if len(self.headers) >= MAX_FIELDS:
            raise ValueError(f"it has more than {MAX_FIELDS} headers")
        if not self._in_body:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if sum(len(n) + len(v) for n, v in self.headers) > MAX_HEAD_BYTES:
            raise ValueError(_HEAD_TOO_LARGE)
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return  # 1xx: the real answer follows, but for 101, which the parser refuses
        lengths = {v.strip() for n, v in self.headers if n.lower() == b"content-length"}
        codings = [v.strip().lower() for n, v in self.headers if n.lower() == b"transfer-encoding"]
        if len(lengths) > 1 or codings not in ([], [b"chunked"]):
            raise ValueError("its framing is ambiguous")
        self._chunked = bool(codings)
        self._in_body = True
        self._bare_bytes = 0
        if self._is_head or self.status in _NO_BODY_STATUS:
            self.length = 0
            self._finish(keep_alive=self._may_keep_alive())
            return
        self.length = int(lengths.pop()) if lengths else None
        self._limit_s = self._idle_timeout_s
        self._progress_at = self._loop.time()
        self._timer.cancel()
        self._timer = self._next_check()

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self.keep_alive = False  # a body where none is allowed
            return
        self._chunks.append(data)
        size = len(data)
        self._unread_bytes += size
        self._bare_bytes -= size + _FRAMING_OF_A_CHUNK_BYTES + _FRAMING_OF_A_BYTE_BYTES * size

    def on_message_complete(self) -> None:
        if not self._in_body:
            self.reason = b""
            self.headers.clear()
        elif not self.complete:
            self._finish(keep_alive=self._may_keep_alive())

    # Inside.

    def _may_keep_alive(self) -> bool:
        options = [v.lower() for n, v in self.headers if n.lower() == b"connection"]
        return self._parser.get_http_version() == "1.1" and b"close" not in b",".join(options)

    def _finish(self, *, keep_alive: bool) -> None:
        self.complete = True
        self.keep_alive = keep_alive
        self._timer.cancel()

    def _fail_malformed(self, why: str) -> None:
        self.fail(
            UpstreamFault(
                "upstream_malformed",
                f"the upstream's answer is not HTTP as it should be: {why}",
                phase=self.phase,
            )
        )

    def _next_check(self) -> asyncio.TimerHandle:
        due_at = min(self._progress_at + self._limit_s, self._ends_at)
        return self._loop.call_later(max(due_at - self._loop.time(), 0), self._check_time)

    def _check_time(self) -> None:
        now = self._loop.time()
        if self._held:
            self._progress_at = now  # the client is the slow one
        if now >= self._ends_at:
            why = "the call took longer than the upstream's total_timeout_s allows"
        elif now < self._progress_at + self._limit_s:
            self._timer = self._next_check()
            return
        elif self._in_body:
            why = f"the upstream sent nothing of its answer's body for {self._limit_s:g} s"
        else:
            why = f"the upstream sent no head of an answer within {self._limit_s:g} s"
        self.fail(UpstreamFault("upstream_timeout", why, phase=self.phase, status=504))

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
