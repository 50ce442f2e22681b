"""A SQLite database that is to be moved: its tables, row by row in the order of their keys.

Owns how the file is held still: by the lock that a server takes, and by one state of one connection
that cannot write, so whatever is read here is of one moment. Invariant: nothing is written to it.
What a row must be for the other database is here too, since both the move and its proof ask.
"""

import hashlib
import os
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from storage.columns import KEY_TEXT
from storage.database import DatabaseUnwritable, Row, Value
from storage.fts5_parts import PARTS
from storage.fulltext import united
from storage.parameters import bounded, clean_text
from storage.readers import BUSY_TIMEOUT_MS, uri
from storage.sqlite import lock, open_snapshot
from storage.statements import REFUSALS, refusal

# ruff: noqa: S608 (the SQL below is put together from names of the schema, never from values)

# Rows that cross in one transaction: some ten thousand small ones, or few large ones.
PIECE_ROWS: Final = 10_000
PIECE_BYTES: Final = 8 * 1024 * 1024
# What is of one database only: its versions, and the words of messages, which are cut anew.
STAYING: Final = ("migrations", "messages_fts", "text_parts")
# Numbers that are rows of SQLite's `counters` and sequences of PostgreSQL.
NUMBERS: Final = {"seq": "seqs", "id": "ids", "erasure": "erasure_ids"}
# What is read in place of a table.
COUNTERS: Final = f"""(
  SELECT name, value FROM counters WHERE name NOT IN ({", ".join(map(repr, NUMBERS))}))"""
INDEXED: Final = "SELECT id AS content_id FROM {}_docsize"

encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is moved: its stored columns, and those of its key in order.

    ``read_as`` stands behind FROM where its rows are read from the source.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    read_as: str

    def rows_behind(self, after: Row | None) -> str:
        """Give the SELECT of all rows behind a key, with ``?`` for each of its parts."""
        key = ", ".join(self.key)
        where = "" if after is None else f" WHERE ({key}) > ({', '.join('?' * len(after))})"
        return f"SELECT {', '.join(self.columns)} FROM {self.read_as}{where} ORDER BY {key}"

    def key_of(self, row: Row) -> Row:
        """Give the key that a row has."""
        return tuple(row[self.columns.index(name)] for name in self.key)


class Source:
    """A database that stands still; ``open_source`` makes it. For one thread at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self.tables = self._tables()

    def read(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        """Run one SELECT with ``?`` for values."""
        return [*self.each(sql, values)]

    def each(self, sql: str, values: Sequence[Value] = ()) -> Iterator[Row]:
        """Run one SELECT and give its rows one by one."""
        try:
            # No `yield from`, which would close the cursor with this, also behind its connection.
            for row in self._connection.execute(sql, values):  # noqa: UP028
                yield row
        except REFUSALS as error:
            raise refusal(self.path, error) from error

    def rows(self, table: Table, after: Row | None = None) -> Iterator[Row]:
        """Give the rows of a table behind a key, one by one."""
        return self.each(table.rows_behind(after), after or ())

    def pieces(self, table: Table, after: Row | None = None) -> Generator[list[Row], None, None]:
        """Give the rows behind a key in pieces of bounded memory, each with one row at least."""
        piece: list[Row] = []
        size = 0
        for row in self.rows(table, after):
            piece.append(row)
            size += len(encode(row))
            if size >= PIECE_BYTES or len(piece) >= PIECE_ROWS:
                yield piece
                piece, size = [], 0
        if piece:
            yield piece

    def interrupt(self) -> None:
        """End what another thread reads, which then raises a StorageError."""
        self._connection.interrupt()

    def count(self, table: Table) -> int:
        """Give the number of its rows."""
        return int(self.read(f"SELECT COUNT(*) FROM {table.read_as}")[0][0])

    def identity(self) -> bytes:
        """Give what this database is known by, wherever its file lies: when it was made."""
        return self._digest("SELECT applied_at_us FROM migrations WHERE version = 1")

    def state(self) -> bytes:
        """Give what differs where a server has worked on it since: versions, counters, counts."""
        counts = [(table.name, self.count(table)) for table in self.tables]
        versions = "SELECT version, name, applied_at_us FROM migrations ORDER BY version"
        return self._digest(versions, "SELECT name, value FROM counters ORDER BY name", counts)

    def _digest(self, *found: object) -> bytes:
        read = [self.read(one) if isinstance(one, str) else one for one in found]
        return hashlib.sha256(encode(read)).digest()[:16]

    def _tables(self) -> tuple[Table, ...]:
        names = [
            name
            for (name,) in self.read(
                "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
            )
            if not name.startswith((*STAYING, "sqlite_"))
        ]
        # All messages wait for the full text of the other database.
        indexed = [INDEXED.format(part) for _, part in self.read(PARTS)]
        waiting = united([*indexed, "SELECT content_id FROM unindexed"])
        read_as = {"counters": COUNTERS, "unindexed": f"({waiting})"}
        return tuple(self._table(name, read_as.get(name, name)) for name in names)

    def _table(self, name: str, read_as: str) -> Table:
        columns = self.read("SELECT name, pk FROM pragma_table_xinfo(?) WHERE hidden = 0", (name,))
        key = sorted((place, column) for column, place in columns if place)
        return Table(
            name, tuple(column for column, _ in columns), tuple(c for _, c in key), read_as
        )


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Hold a database still, as it is now, and give it.

    Raises DatabaseLocked where a server has it, and a StorageError where there is none of this
    version.
    """
    path = path.resolve()
    open_snapshot(path)  # refuses what is no database of ours before a lock is made beside it
    try:
        held = lock(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatabaseUnwritable(path, f"it cannot be locked ({reason})") from error
    try:
        try:
            # Read by whichever thread is asked next, never by two.
            connection = sqlite3.connect(
                uri(path, "mode=ro"), uri=True, isolation_level=None, check_same_thread=False
            )
        except REFUSALS as error:
            raise refusal(path, error) from error
        try:
            yield _still(path, connection)
        finally:
            connection.close()
    finally:
        os.close(held)


def _still(path: Path, connection: sqlite3.Connection) -> Source:
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS:d}").fetchall()
        connection.execute("PRAGMA temp_store = MEMORY").fetchall()
        connection.execute("BEGIN")
        return Source(path, connection)
    except REFUSALS as error:
        raise refusal(path, error) from error


class Fit:
    """Rows of a table as PostgreSQL can hold them, and how many values are not as they were.

    By the rules by which texts are recorded now (parameters.py); older versions had others.
    """

    def __init__(self, table: Table) -> None:
        self._at = [n for n, name in enumerate(table.columns) if name in KEY_TEXT]
        self.cut = 0
        self.without_nul = 0

    def cut_row(self, row: Row) -> Row:
        """Cut texts that are too long for an index, whose entries have 2,704 bytes at most."""
        for at in self._at:
            text = row[at]
            if text is not None and (short := bounded(text)) != text:
                self.cut += 1
                row = (*row[:at], short, *row[at + 1 :])
        return row

    def without_nuls(self, row: Row) -> Row:
        """Write each NUL in a text as U+FFFD."""
        return tuple(map(self._clean, row))

    def _clean(self, value: Value) -> Value:
        if isinstance(value, str) and "\0" in value:
            self.without_nul += 1
            return clean_text(value)
        return value
