"""Statements of SQLite: from a text with ``:name`` parameters to rows, and what SQLite refuses.

Owns how one text becomes few prepared statements, for one row or for many, and the translation of
sqlite3's errors. Invariant: nothing that sqlite3 raises leaves here but as a ``StorageError`` that
names the database. Connections and transactions are sqlite.py's.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Final, TypeVar

from storage.database import (
    DatabaseCorrupt,
    DatabaseLocked,
    DatabaseUnwritable,
    Numbers,
    Params,
    Row,
    StatementRefused,
    StorageError,
    Value,
)
from storage.fts5 import FTS5

# A parameter; not the cast `::type` of PostgreSQL.
NAME: Final = re.compile(r"(?<!:):([a-z]\w*)")

# A row of values without an expression in brackets.
ROW: Final = re.compile(r"VALUES (\([^()]*\))")
# A statement of so many rows or keys at once: each saves the others a way through Python, and for
# the time of a step the lock that the event loop waits for.
PART_LENGTHS: Final = (64, 32, 16, 8, 4, 2, 1)
# What sqlite3 raises for a statement and for values that SQLite cannot hold: integers over 64 bits
# and lone surrogates.
REFUSALS: Final = (sqlite3.Error, OverflowError, UnicodeError)

TAKE_NUMBERS: Final = """
UPDATE counters SET value = value + :n WHERE name = :name RETURNING value
"""

T = TypeVar("T")


class SqliteTransaction:
    """The open transaction of the writer's connection. Fulfils ``Transaction``."""

    __slots__ = ("_path", "_writer")

    full_text = FTS5

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self._path = path
        self._writer = writer

    def execute(self, sql: str, params: Params) -> list[Row]:
        """Run one statement and return its rows."""
        positional, values = _positional(sql)
        try:
            return self._writer.execute(positional, values(params)).fetchall()
        except REFUSALS as error:
            raise refusal(self._path, error) from error

    def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        """Run one statement that returns nothing for each of these."""
        positional, values = _positional(sql)
        try:
            self._writer.executemany(positional, map(values, rows))
        except REFUSALS as error:
            raise refusal(self._path, error) from error

    def insert_rows(self, sql: str, rows: Sequence[Params]) -> None:
        """Insert many rows by few statements."""
        for part in _parts(rows):
            positional, values = _repeated(sql, len(part))
            try:
                flat = tuple(chain.from_iterable(map(values, part)))
                self._writer.execute(positional, flat)
            except REFUSALS as error:
                raise refusal(self._path, error) from error

    def look_up(self, sql: str, params: Params, keys: Sequence[Value]) -> list[Row]:
        """Run a statement for all these keys by few statements."""
        found: list[Row] = []
        for part in _parts(keys):
            positional, values = _positional(sql.replace(":keys", ", ".join("?" * len(part))))
            try:
                found += self._writer.execute(positional, (*values(params), *part)).fetchall()
            except REFUSALS as error:
                raise refusal(self._path, error) from error
        return found

    def take_numbers(self, of: Numbers, n: int) -> Sequence[int]:
        """Take so many numbers that nobody has or will have."""
        ((last,),) = self.execute(TAKE_NUMBERS, {"name": of, "n": n})
        return range(last - n + 1, last + 1)


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut a sequence into parts of a few lengths only, as each makes a statement of its own."""
    start = 0
    for length in PART_LENGTHS:
        while len(items) - start >= length:
            yield items[start : start + length]
            start += length


@cache
def _repeated(sql: str, n: int) -> tuple[str, Callable[[Params], tuple[Value, ...]]]:
    """Repeat the VALUES of a statement; the function picks the values of one row."""
    text, values = _positional(sql)
    return ROW.sub(lambda found: f"VALUES {', '.join([found[1]] * n)}", text), values


@cache
def _positional(sql: str) -> tuple[str, Callable[[Params], tuple[Value, ...]]]:
    """Turn ``:name`` into ``?`` and make the function that picks the values.

    sqlite3 looks up each name anew for each execution: a fifth of the time that a wide row takes.
    Without a limit, since the writer's statements are constants, and a few for each part of the
    index of words.
    """
    names = NAME.findall(sql)
    text = NAME.sub("?", sql)
    if len(names) > 1:
        return text, itemgetter(*names)
    # itemgetter gives no tuple for fewer than two.
    return text, lambda params: tuple(params[name] for name in names)


def refusal(path: Path, error: Exception) -> StorageError:
    """Translate what sqlite3 raised."""
    # The lowest byte is the primary result code (sqlite.org/rescode.html).
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseLocked(path, None)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DatabaseCorrupt(path, f"it is no intact database ({error})")
    if code in (
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
    ):
        return DatabaseUnwritable(path, f"it cannot be written ({error})")
    return StatementRefused(path, str(error))
