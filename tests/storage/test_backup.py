"""A copy of a database is whole, its owner's alone, and never in the way of who writes."""

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storage import backup
from storage.backup import copy
from storage.database import (
    DatabaseCorrupt,
    DatabaseForeign,
    DatabaseNewer,
    DatabaseUnwritable,
    StorageError,
)
from storage.doctor import check
from storage.migrate import latest, migrate
from storage.readers import uri
from storage.sqlite import APPLICATION_ID, SqliteDatabase, open_database, open_snapshot
from tests.databases import opened as database
from tests.storage.calls import end, start, text_of, write

pytestmark = pytest.mark.sqlite_only("a backup of PostgreSQL is made with its own tools")


async def checked(path: Path) -> int:
    """See that a copy opens and fits together; give how many calls it has."""
    readers = open_snapshot(path)
    assert await check(readers, text_of) == []
    ((count,),) = await readers.read("SELECT COUNT(*) FROM spans", {})
    await readers.close()
    return int(count)


def names(folder: Path) -> list[str]:
    """Give what a copy may have left."""
    return sorted(one.name for one in folder.glob("copy*"))


async def test_a_copy_is_one_file_that_only_its_owner_reads(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    write(db, [end(start(1, session_id="s"))])
    target = tmp_path / "copy.db"
    assert copy(db.path, target) == target.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["copy.db"]
    assert await checked(target) == 1
    opened = open_database(target)  # and a server takes it
    write(opened, [end(start(2, session_id="s"))])
    await opened.close()


async def test_a_database_of_an_older_version_is_copied_as_it_is(tmp_path: Path) -> None:
    path, target = tmp_path / "old.db", tmp_path / "copy.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(old, path, 12)
        old.execute("INSERT INTO projects (id, name) VALUES (7, 'old')")
    before = path.read_bytes()
    with pytest.raises(StorageError, match="copy it with traceway backup, then start the server"):
        open_snapshot(path)
    copy(path, target)
    assert path.read_bytes() == before
    with closing(sqlite3.connect(target)) as copied:
        assert copied.execute("PRAGMA user_version").fetchone() == (12,)
        assert copied.execute("SELECT name FROM projects WHERE id = 7").fetchone() == ("old",)
    opened = open_database(target)  # and a server takes it, and brings it up to date
    await opened.close()
    assert await checked(target) == 0


@pytest.mark.parametrize(("id_", "version"), [(1, 12), (APPLICATION_ID, latest() + 1)])
def test_a_database_of_another_program_or_a_newer_one_is_not_copied(
    tmp_path: Path, id_: int, version: int
) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.execute(f"PRAGMA application_id = {id_}")
        other.execute(f"PRAGMA user_version = {version}")
    with pytest.raises((DatabaseForeign, DatabaseNewer)):
        copy(tmp_path / "other.db", tmp_path / "copy.db")
    assert names(tmp_path) == []


@pytest.mark.slow
def test_while_calls_are_written_a_copy_has_all_that_were_there(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    stop, written, told = threading.Event(), [0], threading.Condition()

    def load() -> None:
        while not stop.is_set():
            n = written[0] + 1
            write(db, [end(start(n, session_id=f"s{n % 5}"))])
            with told:
                written[0] = n
                told.notify()

    writer = threading.Thread(target=load)
    writer.start()
    try:
        for number in range(8):
            wanted = 40 * (number + 1)
            with told:
                assert told.wait_for(lambda: written[0] >= wanted, timeout=60)  # noqa: B023
            before = written[0]
            target = tmp_path / f"copy{number}.db"
            copy(db.path, target)
            assert before <= asyncio.run(checked(target)) <= written[0] + 1
    finally:
        stop.set()
        writer.join()


def test_the_database_and_its_log_stay_as_they_are(db: SqliteDatabase, tmp_path: Path) -> None:
    write(db, [end(start(n)) for n in range(1, 50)])
    wal = Path(f"{db.path}-wal")
    before = db.path.read_bytes(), wal.read_bytes()
    assert before[1]
    copy(db.path, tmp_path / "copy.db")
    assert (db.path.read_bytes(), wal.read_bytes()) == before


@pytest.mark.parametrize("name", ["copy.db", "copy.db.part"])
def test_nothing_that_is_there_is_overwritten(
    db: SqliteDatabase, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(StorageError):
        copy(db.path, tmp_path / "copy.db")
    assert (tmp_path / name).read_bytes() == b"mine"
    assert names(tmp_path) == [name]


def test_what_cannot_be_copied_leaves_nothing(
    db: SqliteDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match="there is no database"):
        copy(tmp_path / "none.db", tmp_path / "copy.db")
    with pytest.raises(StorageError, match="No such file"):
        copy(db.path, tmp_path / "no folder" / "copy.db")

    def failing(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(backup.os, "fsync", failing)
    with pytest.raises(StorageError, match="No space left"):
        copy(db.path, tmp_path / "copy.db")
    assert names(tmp_path) == []


def test_where_the_disk_is_full_the_copy_is_named_and_not_the_database(
    db: SqliteDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, connect = tmp_path / "copy.db.part", sqlite3.connect

    def connected(place: Any, **how: Any) -> sqlite3.Connection:
        connection = connect(place, **how)
        if place == part:
            connection.execute("PRAGMA max_page_count = 10").fetchall()
        return connection

    monkeypatch.setattr(backup.sqlite3, "connect", connected)
    full = r"/copy\.db\.part: it cannot be written \(database or disk is full\)"
    with pytest.raises(DatabaseUnwritable, match=full):
        copy(db.path, tmp_path / "copy.db")
    assert names(tmp_path) == []


def test_a_database_that_cannot_be_opened_is_named_and_not_the_copy(
    db: SqliteDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "uri", lambda _, query: uri(tmp_path / "gone.db", query))
    with pytest.raises(DatabaseUnwritable) as refused:
        copy(db.path, tmp_path / "copy.db")
    assert str(refused.value).startswith(f"{db.path}: ")
    assert names(tmp_path) == []


async def test_a_damaged_database_gives_no_copy(tmp_path: Path) -> None:
    db = database(tmp_path / "damaged.db")
    write(db, [end(start(n, session_id="s" * 500)) for n in range(1, 200)])
    await db.close()
    with sqlite3.connect(db.path) as file:
        page_size = file.execute("PRAGMA page_size").fetchone()[0]
        root = file.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'traces_by_start'"
        ).fetchone()[0]
    file.close()
    data = bytearray(db.path.read_bytes())
    data[(root - 1) * page_size : root * page_size] = b"\x00" * page_size
    db.path.write_bytes(data)
    with pytest.raises(DatabaseCorrupt, match=r"/damaged\.db: "):
        copy(db.path, tmp_path / "copy.db")
    assert names(tmp_path) == []


def test_what_a_killed_copy_left_is_named_with_what_to_do(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    part = tmp_path / "copy.db.part"
    part.write_bytes(b"half")
    with pytest.raises(StorageError, match="one was killed; wait for that, or delete it"):
        copy(db.path, tmp_path / "copy.db")
    assert part.read_bytes() == b"half"


def test_a_file_that_appeared_meanwhile_is_not_overwritten(
    db: SqliteDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, copied = tmp_path / "copy.db", backup._copy

    def slowly(path: Path, part: Path) -> None:
        copied(path, part)
        target.write_bytes(b"another")

    monkeypatch.setattr(backup, "_copy", slowly)
    with pytest.raises(StorageError, match="there is such a file already"):
        copy(db.path, target)
    assert target.read_bytes() == b"another"
    assert names(tmp_path) == ["copy.db"]
