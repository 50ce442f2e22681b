"""The merge of all segments of a part of SQLite's index into one: then it holds no deleted word.

Owns how it is cut into steps, and which levels the part has. Invariants: it is over only when no
segment waits to be merged, whatever calls bring meanwhile; before it begins no level is above the
oldest segments, since FTS5 drops what says that a word is deleted only where nothing older can be.
The format of the structure record is that of ext/fts5/fts5_index.c, "the structure record", the
legacy one of tables without `contentless_delete`.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from storage.database import DatabaseCorrupt, Row
from storage.fts5_parts import MERGE, OPTIMIZE, USERMERGE

# Pages that are merged at a time, if nothing of them goes: some milliseconds. Up to so many it is
# merged at once, in 10 ms.
MERGED_PAGES: Final = 50
OPTIMIZE_PAGES: Final = 500
INDEX_PAGES: Final = "SELECT COUNT(*) FROM (SELECT 1 FROM {0}_data LIMIT :most)"
# SQLite 3.40 puts what it made of all two levels higher each time and keeps those below, and takes
# an index of 2,000 levels for a damaged one. So empty ones go, but so many below the oldest
# segments, where the small ones of calls are merged before they are merged with these.
LOWER_LEVELS: Final = 4

USUAL: Final = "SELECT v FROM {0}_config WHERE k = 'usermerge'"
READ_STRUCTURE: Final = "SELECT block FROM {0}_data WHERE id = 10"
WRITE_STRUCTURE: Final = "UPDATE {0}_data SET block = :block WHERE id = 10"
# A record begins with the number of a configuration.
COOKIE_BYTES: Final = 4
EMPTY_LEVEL: Final = b"\x00\x00"  # nothing is merged, no segments


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
    def merging(self) -> int:
        """How many segments a merge is of that was begun and is not over; 0: there is none."""
        return min((level.merging for level in self.levels if level.merging), default=0)

    @property
    def is_compact(self) -> bool:
        """Whether the oldest segments are on the last level, and no level is empty without need."""
        return len(self.levels) == LOWER_LEVELS + 1 and self.levels[-1].segments > 0

    def compact(self) -> bytes:
        """Give the record of the same segments in the same order, without levels that are empty."""
        *younger, oldest = [level.packed for level in self.levels if level.segments]
        lower = [*younger, *[EMPTY_LEVEL] * (LOWER_LEVELS - len(younger))]
        counts = _packed(len(lower) + 1) + self.counts
        return self.head + counts + b"".join((*lower, oldest))


class WholeMerge:
    """A merge of all that a part of the index has when it begins; ``is_due`` until it is over.

    ``share`` of its texts stay: FTS5 counts the pages that it writes, and reads more of them.
    """

    def __init__(self, writer: sqlite3.Connection, table: str, share: float = 1.0) -> None:
        self.is_due = True
        self._pages = max(int(MERGED_PAGES * share), 1)
        # One that is half done, since a process ended, comes first.
        self._begins = True
        self._writer = writer
        self._table = table

    def step(self) -> None:
        """Merge some pages, in one transaction. Raises what sqlite3 does, or DatabaseCorrupt."""
        if segments := self._structure().merging:
            self._go_on(segments)
        elif self._begins:
            self._begin()
            self._begins = False
        self.is_due = self._begins or self._structure().merging > 0

    def _begin(self) -> None:
        structure = self._structure()
        if sum(level.segments for level in structure.levels) < 2:
            return
        if not structure.is_compact:
            self._write(structure.compact())
        ((pages,),) = self._run(INDEX_PAGES, most=OPTIMIZE_PAGES + 1)
        if pages <= OPTIMIZE_PAGES:
            self._run(OPTIMIZE)
        else:
            self._run(MERGE, pages=-self._pages)

    def _go_on(self, segments: int) -> None:
        # FTS5 looks at the level with the most segments only. Where these are more than are being
        # merged, but fewer than it begins with, it does nothing: so it begins with as many.
        with self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            ((usual,),) = self._run(USUAL)
            self._run(USERMERGE, segments=min(max(segments, 2), usual))
            self._run(MERGE, pages=self._pages)
            self._run(USERMERGE, segments=usual)

    def _structure(self) -> Structure:
        rows = self._run(READ_STRUCTURE)
        try:
            ((record,),) = rows
            return read(record)
        except (IndexError, TypeError, ValueError) as error:
            problem = f"what the full-text index consists of cannot be read ({error})"
            raise DatabaseCorrupt(self._table, problem) from error

    def _write(self, record: bytes) -> None:
        self._run(WRITE_STRUCTURE, block=record)
        # FTS5 remembers the one before, unless a transaction that it took part in is undone.
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._run(MERGE, pages=0)
        finally:
            if self._writer.in_transaction:  # SQLite has undone it already after some errors
                self._writer.execute("ROLLBACK")

    def _run(self, sql: str, **params: int | bytes) -> list[Row]:
        return self._writer.execute(sql.format(self._table), params).fetchall()


def read(record: bytes) -> Structure:
    """Take a structure record apart."""
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
