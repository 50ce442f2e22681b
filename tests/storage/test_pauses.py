"""The writer's pauses are used to copy the WAL into the file, before a commit has to."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from storage import sqlite
from storage.sqlite import SqliteDatabase
from tests.storage.calls import body, end, start, write

pytestmark = pytest.mark.sqlite_only("the WAL is SQLite's own")


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a few calls be enough to copy."""
    monkeypatch.setattr(sqlite, "COPIED_CHANGES", 30)
    monkeypatch.setattr(sqlite, "COPY_PAUSES", 0)


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
    monkeypatch.setattr(sqlite, "COPY_PAUSES", 10**9)
    save(db, 1)
    db.tend(idle=True)
    save(db, 21)
    db.tend(idle=True)
    assert calls_in_file(db) == 20
