"""The merge of all segments of SQLite's index into one, after which it holds no deleted word.

Owns how it is cut into parts, and how many levels the index has. Invariant: it is over only when
no segment waits to be merged, whatever calls bring meanwhile. The format of the structure record is
that of ext/fts5/fts5_index.c, "the structure record", the legacy one of tables without
`contentless_delete`.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from storage.fts5 import MERGE, OPTIMIZE, USERMERGE

# Pages that are merged at a time: some milliseconds. Up to so many it is merged at once, in 10 ms.
MERGED_PAGES: Final = 50
OPTIMIZE_PAGES: Final = 500
INDEX_PAGES: Final = "SELECT COUNT(*) FROM (SELECT 1 FROM messages_fts_data LIMIT :most)"
# SQLite 3.40 puts what it made of all two levels higher each time and keeps those below, and takes
# an index of 2,000 levels for a damaged one: empty ones go where there are so many.
MOST_LEVELS: Final = 32

USUAL: Final = "SELECT v FROM messages_fts_config WHERE k = 'usermerge'"
READ_STRUCTURE: Final = "SELECT block FROM messages_fts_data WHERE id = 10"
WRITE_STRUCTURE: Final = "UPDATE messages_fts_data SET block = :block WHERE id = 10"
# Behind the number of a configuration; in its place of the number of levels, another format has a
# mark.
COOKIE_BYTES: Final = 4
OTHER_FORMAT: Final = b"\xff\x00\x00\x01"


@dataclass(frozen=True, slots=True)
class Level:
    """One level: how many of its segments are being merged, and its bytes in the record."""

    merging: int
    segments: int
    packed: bytes


@dataclass(frozen=True, slots=True)
class Structure:
    """What the index consists of, the newest level first."""

    head: bytes
    counts: bytes
    levels: tuple[Level, ...]

    @property
    def is_merging(self) -> bool:
        """Whether a merge was begun and is not over."""
        return any(level.merging for level in self.levels)

    def without_empty_levels(self) -> bytes:
        """Give the record of the same segments in the same order, without levels of none."""
        kept = [level.packed for level in self.levels if level.segments]
        return self.head + _packed(len(kept)) + self.counts + b"".join(kept)


class WholeMerge:
    """A merge of all, a part at a time; ``is_due`` until it is over."""

    def __init__(self, writer: sqlite3.Connection) -> None:
        self.is_due = False
        self._begins = False
        self._writer = writer

    def begin(self) -> None:
        """Have everything merged that is there now."""
        self.is_due = self._begins = True

    def step(self) -> None:
        """Merge a part, in a transaction of its own. Raises what sqlite3 does."""
        begins, self._begins = self._begins, False
        if self._is_small():
            self._writer.execute(OPTIMIZE)
        elif begins:
            self._writer.execute(MERGE, {"pages": -MERGED_PAGES})
        else:
            self._go_on()
        structure = self._structure()
        self.is_due = structure is not None and structure.is_merging
        if structure is not None and not self.is_due and len(structure.levels) > MOST_LEVELS:
            self._write(structure.without_empty_levels())

    def _is_small(self) -> bool:
        most = {"most": OPTIMIZE_PAGES + 1}
        ((pages,),) = self._writer.execute(INDEX_PAGES, most).fetchall()
        return int(pages) <= OPTIMIZE_PAGES

    def _go_on(self) -> None:
        # FTS5 looks at the level with the most segments only: more than are being merged, but too
        # few to merge, and it does nothing. So none are too few, for this once.
        with self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            ((usual,),) = self._writer.execute(USUAL).fetchall()
            self._writer.execute(USERMERGE, {"segments": 2})
            self._writer.execute(MERGE, {"pages": MERGED_PAGES})
            self._writer.execute(USERMERGE, {"segments": usual})

    def _structure(self) -> Structure | None:
        ((record,),) = self._writer.execute(READ_STRUCTURE).fetchall()
        return read(record)

    def _write(self, record: bytes) -> None:
        self._writer.execute(WRITE_STRUCTURE, {"block": record})
        # FTS5 remembers the one before, unless a transaction that it took part in is undone.
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._writer.execute(MERGE, {"pages": 0})
        finally:
            self._writer.execute("ROLLBACK")


def read(record: bytes) -> Structure | None:
    """Take a structure record apart; None for one of another format."""
    if record[COOKIE_BYTES:].startswith(OTHER_FORMAT):
        return None
    count, at = _unpacked(record, COOKIE_BYTES)
    counts_at = at
    for _ in range(2):  # all segments, pages that were written
        _, at = _unpacked(record, at)
    counts, levels = record[counts_at:at], []
    for _ in range(count):
        level_at = at
        merging, at = _unpacked(record, at)
        segments, at = _unpacked(record, at)
        for _ in range(3 * segments):  # of each its id, its first page, its last
            _, at = _unpacked(record, at)
        levels.append(Level(merging, segments, record[level_at:at]))
    return Structure(record[:COOKIE_BYTES], counts, tuple(levels))


def _unpacked(record: bytes, at: int) -> tuple[int, int]:
    """Give the number at a place, and the place behind it: seven bits a byte, the highest first."""
    number = 0
    while (byte := record[at]) & 0x80:
        number = number << 7 | byte & 0x7F
        at += 1
    return number << 7 | byte, at + 1


def _packed(number: int) -> bytes:
    """Give a number of at most fourteen bits in the same way."""
    return bytes((number >> 7 | 0x80, number & 0x7F)) if number >> 7 else bytes((number,))
