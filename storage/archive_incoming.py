"""Archives as bytes that come in pieces: cut into lines, and these into blocks.

Invariant: whatever comes, no more of it is in memory than a line, whose length is bounded, and what
a block holds. A mistake names its line. What a block must be is archive_block.py's.
"""

from typing import Final

from storage.archive_block import Block, Says
from storage.archive_lines import BadArchive

# A content of 48 MiB in base64; recorded bodies have 8 MiB unless somebody wants more.
MAX_LINE_BYTES: Final = 64 * 1024 * 1024


class Incoming:
    """Blocks out of bytes as they come, one after the other.

    ``lines`` counts those of all of them. Without ``says``, what nodes say of messages is taken on
    trust.
    """

    def __init__(self, says: Says | None = None) -> None:
        self._says = says
        self.lines = 0
        self._buffer = bytearray()
        self._looked_at = 0
        self._block: Block | None = None

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._buffer += piece

    def next_block(self) -> Block | None:
        """Give the next block that is whole, for the caller to close; None: it needs more bytes.

        Raises BadArchive, which names the line, where there is none.
        """
        while (at := self._buffer.find(b"\n", self._looked_at)) >= 0:
            line = bytes(self._buffer[: at + 1])
            del self._buffer[: at + 1]
            self._looked_at = 0
            self.lines += 1
            self._check_length(len(line))
            block = self._block = self._block or Block(self._says)
            try:
                block.add(line)
            except BadArchive as error:
                raise BadArchive(f"line {self.lines}: {error}") from None
            if block.is_whole:
                self._block = None
                return block
        self._looked_at = len(self._buffer)
        self._check_length(self._looked_at)
        return None

    def _check_length(self, length: int) -> None:
        if length > MAX_LINE_BYTES:
            raise BadArchive(f"line {self.lines + 1} has more than {MAX_LINE_BYTES} bytes")

    def end(self) -> None:
        """Say that there are no more bytes.

        Raises BadArchive where those that came end within a block.
        """
        if self._block is not None or self._buffer:
            raise BadArchive(f"it ends within a block, behind line {self.lines}: it was cut")

    def close(self) -> None:
        """Give up a block that is not whole."""
        if self._block is not None:
            self._block.close()
