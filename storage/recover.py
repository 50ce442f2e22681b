"""Saves what can be read of a damaged database into a new one.

Row by row: where a page cannot be read, the rows behind it are looked for. What is derived from
other rows is not copied but made anew (mend.py). Invariant: the damaged file and its WAL are only
read, once from end to end, into a copy that is worked on; the new file must not be there before,
and has its name when all of it fits together and is on disk. No file is deleted but those that were
made here.
"""

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from storage.database import DatabaseForeign, DatabaseNewer, Row, StorageError
from storage.mend import mend
from storage.migrate import latest, migrate
from storage.new_file import give_name, taken
from storage.sqlite import APPLICATION_ID, lock, open_database
from storage.statements import REFUSALS, refusal

# ruff: noqa: S608 (names of tables and columns are those of our own schema)

# Made anew from the others, or by the migrations.
DERIVED: Final = frozenset(
    (
        "migrations",
        "project_totals",
        "session_models",
        "mentions",
        "unindexed",
        "holes",
        "text_parts",
    )
)
UNREAD: Final = "bytes of the damaged file that cannot be read"
# Of the file at a time; and where not all of that can be read, which disks give in sectors.
PIECE_BYTES: Final = 1 << 20
SECTOR_BYTES: Final = 4_096
# What says something of a row; all else is of the new file: a full disk, say.
REFUSED_ROW: Final = (
    *(sqlite3.IntegrityError, sqlite3.DataError),
    *(OverflowError, UnicodeError),
)
# Looked at, and then let go.
NOT_KEPT: Final = frozenset(("sign_ins",))
# What SQLite puts beside a database; what is there with such a name is a part of it.
BESIDE: Final = ("-wal", "-shm", "-journal")
TABLES: Final = """
SELECT name FROM pragma_table_list
WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite%'
"""
COLUMNS: Final = "SELECT name FROM pragma_table_info(?)"
HAS_ROWID: Final = "SELECT NOT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?"
KEY_OF: Final = "SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk"
FULL_INDEXES: Final = "SELECT name FROM pragma_index_list(?) WHERE NOT partial"
MAX_ROWID: Final = 2**63 - 1
# So many rowids behind a row that cannot be read are tried one by one: more than a page holds, so
# that no row between two broken pages is passed over. Then the steps double.
ONE_BY_ONE: Final = 4_096


@dataclass(frozen=True, slots=True)
class Saved:
    """How many rows of a table were saved; ``lost`` is None where nobody knows how many."""

    table: str
    rows: int
    lost: int | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was saved, table by table, and what was lost with rows that could not be."""

    tables: list[Saved]
    lost: dict[str, int]


def recover(source: Path, target: Path) -> Recovery:
    """Copy what can be read of a database into a new one, and have it fit together.

    Not on an event loop. Takes twice the space of the database, for the copy that is worked on and
    for the new one, and as long as reading all of it takes.
    Raises a StorageError where a server has the database, where it is of another program or newer,
    where not even the names of its tables can be read, and where the target is there already, or
    a file that would belong to it.
    """
    source, target = source.resolve(), target.resolve()
    try:
        with _locked(source):
            return _recover(source, target)
    except OSError as error:
        place, reason = error.filename or target, error.strerror or error
        raise StorageError(place, f"it cannot be used ({reason})", "check its directory") from error


@contextmanager
def _locked(source: Path) -> Iterator[None]:
    """Keep servers from the database; where nothing can be written, there is none."""
    try:
        held = lock(source)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        yield
        return
    try:
        yield
    finally:
        os.close(held)


def _recover(source: Path, target: Path) -> Recovery:
    for end in BESIDE:
        if (beside := Path(f"{target}{end}")).exists():
            problem = "it is there already, and would be taken for a part of the new database"
            raise StorageError(beside, problem, "name another file to recover to")
    if source == Path(f"{target}.lock") or target in {Path(f"{source}{end}") for end in BESIDE}:
        problem = f"it, or {source}, would be taken for a part of the other"
        raise StorageError(target, problem, "name another file to recover to")
    if target.exists():
        raise taken(target)
    # A new folder of a name that nobody can know: whatever goes with it was made here. One that is
    # left by a recovery that was killed has no database of the name that was asked for.
    with TemporaryDirectory(prefix=f"{target.name}.copy-", dir=target.parent) as folder:
        made, copy = Path(folder, target.name), Path(folder, f"{target.name}.damaged")
        unread = _copy(source, copy)
        tables = _save(source, copy, made, target)
        for end in ("", *BESIDE):  # all that goes on has the space
            Path(f"{copy}{end}").unlink(missing_ok=True)
        lost_keys = any(one.table == "api_keys" and one.lost != 0 for one in tables)
        lost = {UNREAD: unread} if unread else {}
        lost |= asyncio.run(_mended(made, lost_keys))
        _join_log(made, target)
        give_name(made, target)
    return Recovery([one for one in tables if one.table not in NOT_KEPT], lost)


def _copy(source: Path, copy: Path) -> int:
    """Copy the file and its WAL; return how many bytes of them cannot be read, and are zeros."""
    unread = 0
    for part in ("", "-wal"):
        place = Path(f"{source}{part}")
        if part and not place.exists():
            continue
        made = os.open(f"{copy}{part}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with place.open("rb", buffering=0) as old, os.fdopen(made, "wb") as new:
            size = os.fstat(old.fileno()).st_size
            at = 0
            while at < size:
                data, zeros = _piece(old.fileno(), place, at, min(PIECE_BYTES, size - at))
                if not data:
                    break
                new.write(data)
                at += len(data)
                unread += zeros
    return unread


def _piece(file: int, place: Path, at: int, length: int) -> tuple[bytes, int]:
    """Read a piece, and what can be read of it where not all can; zeros for the rest, counted."""
    try:
        return os.pread(file, length, at), 0
    except OSError as error:
        if error.errno != errno.EIO:
            raise OSError(error.errno, error.strerror, str(place)) from error
    if length <= SECTOR_BYTES:
        return bytes(length), length
    data, unread = bytearray(), 0
    while len(data) < length:
        wanted = min(SECTOR_BYTES, length - len(data))
        part, zeros = _piece(file, place, at + len(data), wanted)
        if not part:  # it was cut meanwhile
            break
        data += part
        unread += zeros
    return bytes(data), unread


def _save(source: Path, copy: Path, made: Path, target: Path) -> list[Saved]:
    """Copy the rows of all tables that are no sums of others into a file that is the target's."""
    os.close(os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with _errors_of(source), closing(sqlite3.connect(copy, isolation_level=None)) as old:
        version, known = _look(old, source)
        with _errors_of(target), closing(sqlite3.connect(made, isolation_level=None)) as new:
            new.execute("PRAGMA auto_vacuum = INCREMENTAL")
            new.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
            migrate(new, target, version)
            new.execute("BEGIN")
            tables = [
                _save_table(old, new, name) if name in known else Saved(name, 0, None)
                for (name,) in new.execute(TABLES).fetchall()
                if name not in DERIVED and not name.startswith("messages_fts")
            ]
            new.execute("COMMIT")
            return tables


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Name a database in what sqlite3 raises."""
    try:
        yield
    except REFUSALS as error:
        raise refusal(path, error) from error


def _look(old: sqlite3.Connection, source: Path) -> tuple[int, set[str]]:
    """Give the version of a damaged database, and the names of its tables."""
    # What is wrong with an index, or with the size of the file, is then no reason to stop.
    old.execute("PRAGMA writable_schema = ON")
    old.execute("PRAGMA cell_size_check = ON")
    old.text_factory = lambda data: data.decode(errors="replace")
    (owner,) = old.execute("PRAGMA application_id").fetchone()
    (version,) = old.execute("PRAGMA user_version").fetchone()
    if owner != APPLICATION_ID:
        raise DatabaseForeign(source)
    if version > latest():
        raise DatabaseNewer(source, version, latest())
    return version, {name for (name,) in old.execute(TABLES)}


async def _mended(made: Path, lost_keys: bool) -> dict[str, int]:
    database = open_database(made)  # which brings it up to date
    try:
        with database.transaction() as tx:
            return await mend(tx, time.time_ns() // 1_000, lost_keys=lost_keys)
    finally:
        await database.close()


def _join_log(made: Path, target: Path) -> None:
    """Have all of a database in its one file, which alone gets the name.

    To close it leaves its log beside it, and says nothing, where there is no space to copy that.
    """
    with _errors_of(target), closing(sqlite3.connect(made, isolation_level=None)) as new:
        new.execute("PRAGMA journal_mode = DELETE").fetchall()


def _save_table(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> Saved:
    columns = [name for (name,) in new.execute(COLUMNS, (table,))]
    there = {name for (name,) in old.execute(COLUMNS, (table,))}
    named = ", ".join(name for name in columns if name in there)
    if not named:
        return Saved(table, 0, None)
    places = ", ".join("?" * len(named.split(", ")))
    # The migrations may have made a row of the same key.
    insert = f"INSERT OR REPLACE INTO {table} ({named}) VALUES ({places})"
    ((has_rowid,),) = new.execute(HAS_ROWID, (table,)).fetchall()
    key = ", ".join(name for (name,) in new.execute(KEY_OF, (table,)))
    reading = _Reading(old, table, named)
    rows = reading.by_rowid() if has_rowid else reading.from_both_ends(key)
    refused = 0
    for row in rows:
        try:
            new.execute(insert, row)
        except REFUSED_ROW:  # a damaged value that is not of the column's type, say
            refused += 1
    ((saved,),) = new.execute(f"SELECT COUNT(*) FROM {table}").fetchall()
    if reading.is_whole:
        return Saved(table, saved, refused)
    there_were = _count(old, table)
    return Saved(table, saved, None if there_were is None else max(there_were - saved, refused))


def _count(old: sqlite3.Connection, table: str) -> int | None:
    """Count a damaged table's rows by one of its indexes that can be read."""
    for (index,) in old.execute(FULL_INDEXES, (table,)).fetchall():
        try:
            ((count,),) = old.execute(f'SELECT COUNT(*) FROM {table} INDEXED BY "{index}"')
        except sqlite3.Error:
            continue
        return int(count)
    return None


class _Reading:
    """The rows of one table that can be read; ``is_whole`` tells at the end whether all could."""

    def __init__(self, old: sqlite3.Connection, table: str, columns: str) -> None:
        self._old = old
        self._table = table
        self._columns = columns
        self.is_whole = True

    def by_rowid(self) -> Iterator[Row]:
        after: int | None = -1  # ours begin at 0
        while after is not None:
            sql = f"""
SELECT rowid, {self._columns} FROM {self._table} NOT INDEXED WHERE rowid > ? ORDER BY rowid
"""
            before = after
            try:
                for rowid, *row in self._old.execute(sql, (after,)):
                    if rowid > after:
                        before, after = after, rowid
                    elif rowid > before:  # the one before it was too high: damage as well
                        after = rowid
                    yield tuple(row)
                return
            except sqlite3.Error:
                self.is_whole = False
            # sqlite3 loses the row before an error: this reads it, or what is behind the damage.
            found = self._next(after)
            if found is None:
                return
            after, *row = found
            yield tuple(row)

    def _next(self, after: int) -> Row | None:
        """Find the first row behind one that can be read; None where there is none."""
        unread, step = after, 1
        while True:
            try:
                return self._closest(unread, after + step)
            except sqlite3.Error:
                unread = after + step
            step = step + 1 if step < ONE_BY_ONE else step * 2
            if after + step > MAX_ROWID:
                return None

    def _closest(self, unread: int, start: int) -> Row | None:
        """Read the first row from ``start`` on, or one between it and what cannot be read."""
        row = self._from(start)
        while start - unread > 1:
            middle = (unread + start) // 2
            try:
                row = self._from(middle)
                start = middle
            except sqlite3.Error:
                unread = middle
        return row

    def _from(self, start: int) -> Row | None:
        # Not "rowid > start - 1", which would begin on the page before, where that one may stand.
        sql = f"""
SELECT rowid, {self._columns} FROM {self._table} NOT INDEXED
WHERE rowid >= ? ORDER BY rowid LIMIT 1
"""
        found = self._old.execute(sql, (start,)).fetchall()
        if found and found[0][0] < start:  # zeros are read as a row of number 0
            raise sqlite3.DatabaseError("a row that is not in order")
        return found[0] if found else None

    def from_both_ends(self, key: str) -> Iterator[Row]:
        """Read up to the first damage, and back to the last."""
        yield from self._up_to_damage(key)
        if not self.is_whole:
            yield from self._up_to_damage(", ".join(f"{one} DESC" for one in key.split(", ")))

    def _up_to_damage(self, order: str) -> Iterator[Row]:
        sql = f"SELECT {self._columns} FROM {self._table} NOT INDEXED ORDER BY {order} LIMIT ?"
        count = 0
        try:
            for row in self._old.execute(sql, (-1,)):
                count += 1
                yield row
            return
        except sqlite3.Error:
            self.is_whole = False
        try:
            yield from self._old.execute(sql, (count + 1,)).fetchall()[count:]
        except sqlite3.Error:
            return
