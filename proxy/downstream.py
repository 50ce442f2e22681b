"""The client's side of a call: its body as it comes, and the answer with the upstream's own head.

Invariants: the status line and the headers that remain leave as the bytes that came; a body that
broke off never looks complete. Knows aiohttp's server, and nothing of upstreams or recording.
"""

import asyncio
import select
import socket
import struct
from collections.abc import AsyncIterator
from typing import Final, cast

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.answer import ClientFault
from proxy.capture import Capture
from proxy.headers import RawHeaders
from proxy.reaper import Client, MalformedBody

# SO_LINGER on, for 0 s: a connection that is closed is reset.
_RESET: Final = struct.pack("ii", 1, 0)

# Its end, which not every system tells apart from what is to be read; a reset; an error.
_GONE: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR

# A browser would run these on our origin, or guess at a body without a type.
_ACTIVE_TYPES: Final = (b"html", b"xml", b"svg")
_SANDBOX: Final = (
    (b"Content-Security-Policy", b"sandbox"),
    (b"X-Content-Type-Options", b"nosniff"),
)


async def take_body(
    request: web.Request, capture: Capture, limit_bytes: int, whole_bytes: int = 0
) -> bytes | AsyncIterator[bytes]:
    """Give the request's body, copied: whole where it is here or not above `whole_bytes`, else as
    it comes.

    `limit_bytes` 0 is no limit. Raises as `body_as_it_comes` does.
    """
    if limit_bytes and (request.content_length or 0) > limit_bytes:
        raise too_large(limit_bytes)
    body = body_at_hand(request)
    if body is None:
        await asyncio.sleep(0)  # most clients write head and body apart, at once
        body = body_at_hand(request)
    if body is not None:
        capture.add(body)
        if 0 < limit_bytes < len(body):
            raise too_large(limit_bytes)
        return body
    pieces = body_as_it_comes(request, capture, limit_bytes)
    if not whole_bytes:
        return pieces
    read = await whole_if_small(pieces, whole_bytes)
    if isinstance(read, bytes):
        capture.share(read)
    return read


async def body_as_it_comes(
    request: web.Request, capture: Capture, limit_bytes: int
) -> AsyncIterator[bytes]:
    """Give the request's body piece by piece, each copied first. `limit_bytes` 0 is no limit.

    Raises:
        ClientFault: the body is malformed, broke off, stands still, or is larger than the limit.
    """
    while piece := await _next_piece(request):
        capture.add(piece)
        if limit_bytes and capture.size > limit_bytes:
            raise too_large(limit_bytes)
        yield piece


async def _next_piece(request: web.Request) -> bytes:
    limit_s = cast(Client, request.protocol).patience.body_s
    try:
        async with asyncio.timeout(limit_s):
            return await request.content.readany()
    except TimeoutError:
        message = f"nothing came of the request body for {limit_s:g} s"
        raise ClientFault("request_body_broken", message, status=408) from None
    except MalformedBody as error:
        raise ClientFault("request_body_broken", error.message) from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        raise ClientFault("request_body_broken", f"the request body broke off: {error}") from error


async def whole_if_small(
    body: AsyncIterator[bytes], limit_bytes: int
) -> bytes | AsyncIterator[bytes]:
    """Read a body to its end where it is not larger than the limit, else give it as it comes."""
    pieces: list[bytes] = []
    size = 0
    async for piece in body:
        pieces.append(piece)
        size += len(piece)
        if size > limit_bytes:
            return _again(pieces, body)
    return b"".join(pieces)


async def _again(pieces: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while pieces:
        yield pieces.pop(0)
    async for piece in rest:
        yield piece


def body_at_hand(request: web.Request) -> bytes | None:
    """Give the whole body if it is here already (small ones arrive with the head), else None."""
    if not request.can_read_body:
        return b""
    if not request.content.is_eof():
        return None
    return request.content.read_nowait()


def too_large(limit_bytes: int) -> ClientFault:
    """Give the fault of a body over `server.max_request_bytes`."""
    return ClientFault(
        "request_too_large", f"the request body is larger than {limit_bytes} bytes", status=413
    )


class RelayedResponse(web.StreamResponse):
    """A response that writes a given head; aiohttp decides on framing and keep-alive only.

    `length` is the declared length of the body in bytes, None to frame it with chunks.
    """

    def __init__(self, status: int, reason: bytes, headers: RawHeaders, length: int | None) -> None:
        super().__init__(status=status, reason="")
        self._raw_reason = reason
        self._raw_headers = headers
        if length is not None:
            self.content_length = length

    async def _write_headers(self) -> None:
        # aiohttp's writer knows text only and would re-encode what is not UTF-8; and it adds Date,
        # Server and Content-Type, which are the upstream's to send.
        request = cast(web.BaseRequest, self._req)
        lines = [
            b"HTTP/%d.%d %d %b"
            % (request.version.major, request.version.minor, self.status, self._raw_reason)
        ]
        lines += [name + b": " + value for name, value in self._raw_headers]
        for name in (hdrs.TRANSFER_ENCODING, hdrs.CONNECTION):
            if name in self.headers:
                lines.append(f"{name}: {self.headers[name]}".encode("ascii"))
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(b"\r\n".join(lines) + b"\r\n\r\n")


def cut(request: web.BaseRequest) -> None:
    """Close the client's connection so that its answer is seen to be incomplete, or not begun."""
    if request.transport is None:
        return
    if request.version < HttpVersion11:  # it may take a proper close for the body's end
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    request.transport.abort()


def let_go_if_gone(request: web.BaseRequest) -> None:
    """Close a client's connection that is not read from where the client has closed it.

    What it sent stands before its end, so only the system knows of that, and not where full buffers
    hold the end back. A client that closes its half alone has left, as for aiohttp's server.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        return
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _GONE)
    if poll.poll(0):
        transport.abort()


def sandbox(content_type: str) -> RawHeaders:
    """Give the headers that keep an active or untyped answer from running on our origin."""
    kind = content_type.encode("latin-1", "replace").lower()
    active = not kind or any(word in kind.partition(b";")[0] for word in _ACTIVE_TYPES)
    return _SANDBOX if active else ()
