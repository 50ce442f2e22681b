"""The log is copied into the file in pauses, and emptied where a reader made it grow."""

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from storage import wal
from storage.database import QueryTimeout
from storage.sqlite import SqliteDatabase
from tests.databases import opened
from tests.storage.calls import body, end, rows, start, write

pytestmark = pytest.mark.sqlite_only("the WAL is SQLite's own")


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a few calls be enough to copy."""
    monkeypatch.setattr(wal, "COPIED_CHANGES", 30)
    monkeypatch.setattr(wal, "COPY_PAUSES", 0)


def calls_in_file(db: SqliteDatabase) -> int:
    """Count the calls that are in the file itself, without its WAL."""
    alone = shutil.copy(db.path, db.path.with_name("alone.db"))
    connection = sqlite3.connect(alone)
    try:
        ((count,),) = connection.execute("SELECT COUNT(*) FROM spans").fetchall()
        return int(count)
    except sqlite3.DatabaseError:  # its first pages are in the WAL
        return 0
    finally:
        connection.close()
        for file in Path(db.path.parent).glob("alone.db*"):
            file.unlink()


def save(db: SqliteDatabase, first: int, n: int = 20) -> None:
    for number in range(first, first + n):
        write(db, [start(number)])


@pytest.mark.usefixtures("few_rows")
async def test_a_pause_is_used_to_copy_what_many_calls_wrote(db: SqliteDatabase) -> None:
    save(db, 1)
    assert not db.tend(idle=True)
    assert calls_in_file(db) == 20


async def test_large_bodies_count_by_their_pages(db: SqliteDatabase) -> None:
    write(db, [end(start(1), response=body(os.urandom(2 << 20)))])
    db.tend(idle=True)
    assert calls_in_file(db) == 1


@pytest.mark.usefixtures("few_rows")
async def test_while_anything_waits_to_be_saved_nothing_is_copied(db: SqliteDatabase) -> None:
    save(db, 1)
    assert not db.tend(idle=False)
    assert calls_in_file(db) == 0


@pytest.mark.usefixtures("few_rows")
async def test_a_pause_behind_few_calls_is_left_alone(db: SqliteDatabase) -> None:
    save(db, 1)
    db.tend(idle=True)
    save(db, 21, 1)
    db.tend(idle=True)
    assert calls_in_file(db) == 20


@pytest.mark.usefixtures("few_rows")
async def test_what_is_read_meanwhile_waits_for_the_next_pause(db: SqliteDatabase) -> None:
    save(db, 1)
    db.tend(idle=True)
    reader = sqlite3.connect(db.path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT COUNT(*) FROM spans").fetchall() == [(20,)]
    save(db, 21)
    assert not db.tend(idle=True)
    reader.execute("COMMIT")
    assert calls_in_file(db) == 20
    save(db, 41)
    assert not db.tend(idle=True)
    assert calls_in_file(db) == 60
    reader.close()


@pytest.mark.usefixtures("few_rows")
async def test_where_the_disk_is_slow_a_fifth_of_the_time_goes_into_it(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "COPY_PAUSES", 10**9)
    save(db, 1)
    db.tend(idle=True)
    save(db, 21)
    db.tend(idle=True)
    assert calls_in_file(db) == 20


@pytest.fixture
def small_wal(monkeypatch: pytest.MonkeyPatch) -> int:
    """Take a WAL of 256 KiB for a large one, and try without pauses to cut it back."""
    monkeypatch.setattr(wal, "WAL_BYTES", 1 << 18)
    monkeypatch.setattr(wal, "TEND_S", 0.0)
    return 1 << 18


def wal_bytes(db: SqliteDatabase) -> int:
    return Path(f"{db.path}-wal").stat().st_size


def fill(db: SqliteDatabase, first: int, n: int = 20) -> None:
    for number in range(first, first + n):
        write(db, [end(start(number), response=body(os.urandom(50_000)))])


def foreign_reader(db: SqliteDatabase) -> sqlite3.Connection:
    """Open what a person's SQLite shell is, in the middle of a transaction."""
    reader = sqlite3.connect(db.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM spans").fetchall()
    return reader


async def test_the_wal_that_a_foreign_reader_made_grow_is_cut_back_when_it_ends(
    db: SqliteDatabase, small_wal: int
) -> None:
    fill(db, 1)
    reader = foreign_reader(db)
    fill(db, 21)
    assert db.tend()
    assert wal_bytes(db) > small_wal  # it may still read what is in it
    fill(db, 41)
    assert reader.execute("SELECT COUNT(*) FROM spans").fetchall() == [(20,)]
    reader.execute("COMMIT")
    assert db.tend()
    assert wal_bytes(db) == 0
    assert not db.tend()
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(60,)]
    reader.close()


async def test_a_wal_that_cannot_be_cut_back_is_left_alone_for_a_while(
    db: SqliteDatabase, small_wal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = foreign_reader(db)
    fill(db, 1)
    monkeypatch.setattr(wal, "TEND_S", 3600.0)
    assert db.tend()
    reader.close()
    assert db.tend()
    assert wal_bytes(db) > small_wal


async def test_a_lock_of_a_foreign_program_waits_for_as_long_as_ever_after_tending(
    db: SqliteDatabase, small_wal: int
) -> None:
    fill(db, 1)
    db.tend()
    assert db._writer.execute("PRAGMA busy_timeout").fetchall() == [(250,)]


async def test_our_own_reads_do_not_keep_the_wal_for_ever(tmp_path: Path, small_wal: int) -> None:
    db = opened(tmp_path / "a.db", query_timeout_s=0.2)
    endless = (
        "WITH RECURSIVE n (i) AS (SELECT seq FROM spans UNION ALL SELECT i + 1 FROM n)"
        " SELECT COUNT(*) FROM n"
    )
    fill(db, 1, n=2)
    reading = asyncio.ensure_future(db.read(endless, {}))
    async with asyncio.timeout(10):
        while not db._readers:
            await asyncio.to_thread(lambda: None)
        fill(db, 3)
        with pytest.raises(QueryTimeout):
            await reading
        db.tend()
    assert wal_bytes(db) == 0
    await db.close()
