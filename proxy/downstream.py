"""The client's side of a call: its body as it comes, and the answer with the upstream's own head.

Invariants: the status line and the headers that remain leave as the bytes that came; a body that
broke off never looks complete. Knows aiohttp's server, and nothing of upstreams or recording.
"""

from collections.abc import AsyncIterator
from typing import Final, cast

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.capture import Capture
from proxy.connection import ClientFault
from proxy.headers import RawHeaders

# A browser would run these on our origin, or guess at a body without a type.
_ACTIVE_TYPES: Final = (b"html", b"xml", b"svg")
_SANDBOX: Final = (
    (b"Content-Security-Policy", b"sandbox"),
    (b"X-Content-Type-Options", b"nosniff"),
)


async def body_as_it_comes(
    request: web.Request, capture: Capture, limit_bytes: int
) -> AsyncIterator[bytes]:
    """Give the request's body piece by piece, each copied first. `limit_bytes` 0 is no limit.

    Raises:
        ClientFault: the body is malformed, broke off, or is larger than the limit.
    """
    try:
        async for piece in request.content.iter_any():
            capture.add(piece)
            if limit_bytes and capture.size > limit_bytes:
                raise too_large(limit_bytes)
            yield piece
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
    for piece in pieces:
        yield piece
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
        self._raw_headers = list(headers)
        if length is not None:
            self.content_length = length

    def add_headers(self, headers: RawHeaders) -> None:
        """Append headers of ours."""
        self._raw_headers += headers

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

    def cut(self) -> None:
        """Close the client's connection so that the answer is seen to be incomplete."""
        if self._req is not None and self._req.transport is not None:
            self._req.transport.abort()


def sandbox(content_type: str) -> RawHeaders:
    """Give the headers that keep an active or untyped answer from running on our origin."""
    kind = content_type.encode("latin-1", "replace").lower()
    active = not kind or any(word in kind.partition(b";")[0] for word in _ACTIVE_TYPES)
    return _SANDBOX if active else ()
