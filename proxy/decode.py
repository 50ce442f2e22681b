"""Reads a copy of a compressed body, within a bound. Pure; never raises.

The relay hands compressed bytes on as they are; only what is recorded of them is decoded.
Invariant: a decoder holds one bounded piece of output at a time and stops for good at its limit,
so that a bomb costs time in proportion to the limit and no memory.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import brotli
import zstandard

PIECE_BYTES: Final = 256 * 1024
# A zstd block is at most 128 KiB and can be 4 bytes long on the wire (RFC 8878 section 3.1.1.2), so
# that this much input gives at most 2 MiB at a time.
_ZSTD_STEP_BYTES: Final = 64
_ZSTD_WINDOW_BYTES: Final = 8 * 1024 * 1024  # what RFC 9659 allows the content coding
# What zlib has not read it copies, at the end of each member and of each piece: so much at most.
_ZLIB_STEP_BYTES: Final = 4 * 1024
# An empty member has 20 bytes, takes 2 us and gives no output that a limit could count. Servers
# send one member; bgzip, which writes the most, begins one for each 64 KiB.
MAX_MEMBERS: Final = 1_000


class _Codec(Protocol):
    def pieces(self, data: bytes) -> Iterator[bytes]: ...


class Decoder:
    """Decodes one body as it comes. `failed` says that its output ends before the body does.

    `overflowed`: because of the limit.
    """

    def __init__(self, codec: _Codec | None, limit_bytes: int) -> None:
        self._codec = codec
        self._left = limit_bytes
        self.failed = codec is None
        self.overflowed = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give what the next bytes decode to, in pieces; nothing after a failure."""
        if self.failed or self._codec is None:
            return
        try:
            for piece in self._codec.pieces(data):
                self._left -= len(piece)
                if self._left < 0:
                    self.failed = self.overflowed = True
                    return
                if piece:
                    yield piece
        except (zlib.error, brotli.error, zstandard.ZstdError):
            self.failed = True


def decoder(
    content_encoding: str, limit_bytes: int, max_members: int = MAX_MEMBERS
) -> Decoder | None:
    """Choose a decoder by a Content-Encoding value; None where the body is not encoded.

    An unknown or repeated coding gives a decoder that has failed already. A gzip of more than
    ``max_members`` members fails.
    """
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return None
    make = _CODECS.get(coding)
    return Decoder(make(max_members) if make is not None else None, limit_bytes)


def decode(data: bytes, content_encoding: str, limit_bytes: int) -> tuple[bytes, bool]:
    """Decode a whole body. Gives its bytes, and whether they are all of it."""
    chosen = decoder(content_encoding, limit_bytes)
    if chosen is None:
        return data, True
    decoded = b"".join(chosen.feed(data))
    return decoded, not chosen.failed


class _Zlib:
    """gzip (RFC 1952, several members allowed) and deflate (zlib, or raw as some servers send)."""

    def __init__(self, wbits: int, max_members: int) -> None:
        self._wbits = wbits
        self._inflate = zlib.decompressobj(wbits)
        self._held = b""
        self._begun = False
        self._members_left = max_members - 1

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if not self._begun:
            data = self._held + data
            if len(data) < _ZLIB_HEADER_BYTES:  # which of the two it is shows in the second byte
                self._held = data
                return
        for at in range(0, len(data), _ZLIB_STEP_BYTES):
            yield from self._step(data[at : at + _ZLIB_STEP_BYTES])

    def _step(self, data: bytes) -> Iterator[bytes]:
        piece = b""
        # A full piece may have left output behind although all input is taken.
        while data or len(piece) == PIECE_BYTES:
            if self._inflate.eof:
                if self._wbits != _GZIP_WBITS:
                    return
                self._members_left -= 1
                if self._members_left < 0:
                    raise zlib.error("too many members")
                self._inflate = zlib.decompressobj(self._wbits)
            try:
                piece = self._inflate.decompress(data, PIECE_BYTES)
            except zlib.error:
                if self._begun or self._wbits != zlib.MAX_WBITS:
                    raise
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
                piece = self._inflate.decompress(data, PIECE_BYTES)
            self._begun = True
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            yield piece


class _Brotli:
    def __init__(self) -> None:
        self._brotli = brotli.Decompressor()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        # After a limited output it may say that it takes more input and still hold output back:
        # only an empty answer means that all is out.
        piece = self._brotli.process(data, output_buffer_limit=PIECE_BYTES)
        while piece:
            yield piece
            piece = self._brotli.process(b"", output_buffer_limit=PIECE_BYTES)


class _Zstd:
    def __init__(self) -> None:
        options = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._zstd = options.decompressobj(read_across_frames=True)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _ZSTD_STEP_BYTES):
            yield self._zstd.decompress(data[at : at + _ZSTD_STEP_BYTES])


_ZLIB_HEADER_BYTES: Final = 2  # RFC 1950 section 2.2
_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS
_CODECS: Final[dict[str, Callable[[int], _Codec]]] = {
    "gzip": lambda most: _Zlib(_GZIP_WBITS, most),
    "x-gzip": lambda most: _Zlib(_GZIP_WBITS, most),
    "deflate": lambda most: _Zlib(zlib.MAX_WBITS, most),
    "br": lambda _: _Brotli(),
    "zstd": lambda _: _Zstd(),
}
