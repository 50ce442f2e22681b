"""SQLite's write-ahead log: when it is copied into the file, and when it is emptied.

Owns both. Invariant: only the writer does either, between its transactions, and hardly ever waits.

The log cannot be cut back while somebody reads a state that is older than its end: SQLite keeps
what they may still want. Our own reads end within their time limit; a foreign program's
transaction, or the doctor's, does not, and the log grows until it ends. Within a second after that,
`tend` empties it.
"""

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from storage.readers import BUSY_TIMEOUT_MS

# The log is cut back to this size after a checkpoint; it grows beyond while a reader is at work.
JOURNAL_SIZE_LIMIT_BYTES: Final = 16 * 1024 * 1024
# One that is twice as large has been kept by a reader. It is emptied, which is tried so often, and
# waits so long for readers: a hundredth of the writer's time.
WAL_BYTES: Final = 2 * JOURNAL_SIZE_LIMIT_BYTES
TEND_S: Final = 1.0
TEND_WAIT_MS: Final = 10
# Pages of 4 KiB after which a commit checkpoints: as much as the limit above. SQLite's own 1,000
# copy the pages that every batch touches four times as often, a tenth of the writer's time.
CHECKPOINT_PAGES: Final = 4_000
# Rows and pages that are written before the writer checkpoints in a moment in which nothing waits,
# 5 to 10 ms on an SSD. Where the disk is slow, it takes a fifth of the writer's time at most.
COPIED_CHANGES: Final = 300
COPY_PAUSES: Final = 4


class Wal:
    """The log of a database; the connection is the writer's. Raises what sqlite3 does.

    ``is_left``: it was not empty when the database was opened, and has not been since.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self._writer = writer
        self._file = f"{path}-wal"
        self._to_empty = False
        # A process before this one was killed: what it deleted may be in there still.
        self.is_left = bool(self._bytes())
        self._tend_at_s = 0.0
        # At the last checkpoint in a pause, and when the next one may be made.
        self._copied_changes = 0
        self._copy_at_s = 0.0

    def empty(self) -> bool:
        """Empty it, unless somebody reads what is in it for longer than a moment.

        Tell whether it is empty; where it is not, `tend` goes on trying.
        """
        self._writer.execute(f"PRAGMA busy_timeout = {TEND_WAIT_MS:d}")
        try:
            ((busy, *_),) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._writer.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS:d}")
        self._to_empty = bool(busy)
        self.is_left &= self._to_empty
        return not busy

    def tend(self, *, idle: bool = False) -> bool:
        """Copy it into the file where the writer is ``idle``, before a commit has to.

        Empty one that a reader made grow; tell whether to try again in a second. While the reader
        is there this takes ``TEND_WAIT_MS`` at most. After it, as long as it takes to write what it
        kept: calls are forwarded meanwhile.
        """
        if idle and time.monotonic() >= self._copy_at_s:
            self._copy()
        if (size := self._bytes()) is None:
            return False
        if size <= WAL_BYTES and not self._to_empty:
            return False
        now_s = time.monotonic()
        if now_s >= self._tend_at_s:
            self._tend_at_s = now_s + TEND_S
            self.empty()
        return True

    def _copy(self) -> None:
        """Checkpoint, if enough was written since the last time: rows, or pages of large ones."""
        ((pages,),) = self._writer.execute("PRAGMA page_count").fetchall()
        changes = self._writer.total_changes + pages
        # SQLite's count is of 32 bits and begins anew, and pages are given back.
        if abs(changes - self._copied_changes) <= COPIED_CHANGES:
            return
        self._copied_changes = changes
        began_s = time.monotonic()
        self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        now_s = time.monotonic()
        self._copy_at_s = now_s + COPY_PAUSES * (now_s - began_s)

    def _bytes(self) -> int | None:
        try:
            return os.stat(self._file).st_size  # noqa: PTH116 (a Path takes thrice as long)
        except OSError:  # it was deleted with the database
            return None
