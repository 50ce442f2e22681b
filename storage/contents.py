"""Bytes, each once per project: how they are packed, read back and dropped.

Invariant: a content's bytes are those of its SHA-256, and it is dropped only when nothing holds
it: no span, no node, no hole of an envelope. Knows nothing of what they mean.
"""

import threading
from collections.abc import Iterable
from typing import Final

import zstandard

from storage.database import DatabaseCorrupt, Transaction

# Below this, compression saves little. Above, it costs a page of text 5 us, as much as writing the
# half of it that it saves.
COMPRESS_ABOVE_BYTES: Final = 512

# Compressing takes a fifth of the time with a context that is kept. Only the writer's thread may
# use it.
_compressor = zstandard.ZstdCompressor(level=1)


class _Thread(threading.local):
    """What each thread needs for itself: to make one anew costs more than a message to unpack."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_thread = _Thread()


def pack(data: bytes) -> tuple[str, bytes]:
    """Compress bytes where that makes them fewer; return "" or "zstd", and them.

    Only for the writer's thread.
    """
    if len(data) > COMPRESS_ABOVE_BYTES:
        packed = _compressor.compress(data)
        if len(packed) < len(data):
            return "zstd", packed
    return "", data


def unpack(encoding: str, size: int, data: bytes) -> bytes:
    """Give the plain bytes of a row of contents.

    Raises DatabaseCorrupt where they do not unpack to the size that was stored with them, and
    never takes more memory than that.
    """
    if encoding == "":
        return data
    try:
        # The frame's own word on its size decides what is allocated, so it is not taken on trust.
        if zstandard.frame_content_size(data) != size:
            raise DatabaseCorrupt("contents", "a stored body is not of its size")
        return _thread.decompressor.decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise DatabaseCorrupt("contents", f"a stored body does not unpack ({error})") from error


DROP_CONTENT: Final = """
DELETE FROM contents WHERE id = :id
AND NOT EXISTS (SELECT 1 FROM nodes WHERE content_id = :id)
AND NOT EXISTS (SELECT 1 FROM holes WHERE content_id = :id)
AND NOT EXISTS (SELECT 1 FROM spans WHERE request_content_id = :id)
AND NOT EXISTS (SELECT 1 FROM spans WHERE response_content_id = :id)
RETURNING length(data)
"""


def drop_contents(tx: Transaction, ids: Iterable[int]) -> tuple[int, int]:
    """Delete those contents that nothing holds; return their number and the bytes they took."""
    contents = freed_bytes = 0
    for content_id in ids:
        for (length,) in tx.execute(DROP_CONTENT, {"id": content_id}):
            contents += 1
            freed_bytes += length
    return contents, freed_bytes
