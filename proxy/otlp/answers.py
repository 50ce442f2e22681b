"""What an exporter is answered: taken, taken in part, or why not; in the encoding that it speaks.

Pure. Source: OTLP 1.9, "OTLP/HTTP Response": ExportTraceServiceResponse with partial success, and
google.rpc.Status for failures.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import orjson

# google.rpc.Code by HTTP status.
_CODES: Final[Mapping[int, int]] = MappingProxyType(
    {400: 3, 401: 16, 403: 7, 404: 5, 413: 3, 415: 3, 429: 8, 503: 14}
)
_INVALID_ARGUMENT: Final = 3
_INTERNAL: Final = 13


def success(as_json: bool, refused: int, message: str) -> bytes:
    """Write an ExportTraceServiceResponse; without a partial success where all was taken."""
    if not refused and not message:
        return b"{}" if as_json else b""
    if as_json:
        partial = {"rejectedSpans": str(refused), "errorMessage": message}
        return orjson.dumps({"partialSuccess": partial})
    partial_success = b"\x08" + _number(refused) if refused else b""
    return _field(1, partial_success + _field(2, message.encode()))


def failure(
    as_json: bool, status: int, message: str, beside: Mapping[str, object] = MappingProxyType({})
) -> bytes:
    """Write a google.rpc.Status for an HTTP status; in JSON, with fields that it does not know."""
    code = _CODES.get(status, _INTERNAL if status >= 500 else _INVALID_ARGUMENT)
    if as_json:
        return orjson.dumps({"code": code, "message": message, **beside})
    return b"\x08" + _number(code) + _field(2, message.encode())


def _field(number: int, value: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(value)) + value


def _number(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)
