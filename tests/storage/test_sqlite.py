"""The database file: who may open it, what is refused, and what a refusal leaves behind."""

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from storage import sqlite
from storage.database import (
    DatabaseCorrupt,
    DatabaseForeign,
    DatabaseLocked,
    DatabaseNewer,
    DatabaseUnwritable,
    StatementRefused,
    StorageError,
)
from storage.forget import delete_trace
from storage.sqlite import APPLICATION_ID, SqliteDatabase, open_database
from tests.databases import opened
from tests.storage.calls import body, end, give_back, rows, start, text_of, trace_id, write

pytestmark = pytest.mark.sqlite_only("the file is SQLite's own")

HOLDER = """
import sys
from pathlib import Path
from storage.sqlite import open_database
db = open_database(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def refused(path: Path, error: type[StorageError]) -> str:
    """Open a file that is refused, and return the message, of which the bytes know nothing."""
    before = path.read_bytes()
    with pytest.raises(error) as caught:
        open_database(path)
    assert path.read_bytes() == before
    assert names(path.parent) == [path.name, f"{path.name}.lock"]
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def foreign(path: Path, *pragmas: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.executemany("INSERT INTO theirs VALUES (?)", [("x" * 3000,)] * 50)
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    connection.commit()
    connection.close()


async def test_files_can_be_read_by_their_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        db = open_database(tmp_path / "a.db")
        write(db, [start(1)])
        modes = {name: mode(tmp_path / name) for name in names(tmp_path)}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["a.db", "a.db-wal", "a.db-shm", "a.db.lock"], 0o600)
    await db.close()


async def test_a_file_with_wide_permissions_is_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await open_database(path).close()
    path.chmod(0o644)
    db = open_database(path)
    assert mode(path) == 0o600
    await db.close()


def test_a_second_process_is_refused_and_told_the_pid_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        link = tmp_path / "link.db"
        link.symlink_to(path)
        for name in (path, link):
            with pytest.raises(DatabaseLocked, match=f"pid {holder.pid} ") as caught:
                open_database(name)
            assert caught.value.pid == holder.pid
        holder.kill()
    # The lock died with its process, and what it left is opened.
    asyncio.run(open_database(path).close())


def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"dear diary " * 1000)
    assert "restore a backup" in refused(path, DatabaseCorrupt)


async def test_a_damaged_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    db = open_database(path)
    write(db, [start(n) for n in range(100)])
    await db.close()
    (tmp_path / "a.db.lock").unlink()
    os.truncate(path, path.stat().st_size // 2)
    refused(path, DatabaseCorrupt)


def test_a_database_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    foreign(path)
    refused(path, DatabaseForeign)


def test_a_wal_database_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    foreign(path, "journal_mode = WAL")
    refused(path, DatabaseForeign)


def test_a_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    foreign(path, f"application_id = {APPLICATION_ID}", "user_version = 99")
    assert "version 99" in refused(path, DatabaseNewer)


def test_a_newer_database_whose_version_is_still_in_its_wal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE theirs (x)")
    connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(DatabaseNewer, match="version 99"):
        open_database(path)
    assert path.read_bytes() == before
    connection.close()


def test_a_missing_directory_is_named_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.db"
    with pytest.raises(DatabaseUnwritable, match=f"{path}.*directory"):
        open_database(path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_takes_no_files_is_named() -> None:
    # Refuses root as well.
    with pytest.raises(DatabaseUnwritable, match=r"/proc/a\.db"):
        open_database(Path("/proc/a.db"))


def test_a_directory_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.mkdir()
    with pytest.raises(DatabaseUnwritable, match=str(path)):
        open_database(path)


async def test_a_crash_before_the_first_migration_leaves_a_file_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.close()
    db = open_database(path)
    write(db, [start(1)])
    await db.close()


async def test_the_writer_has_the_settings_that_deletion_and_safety_need(
    db: SqliteDatabase,
) -> None:
    def setting(name: str) -> object:
        (row,) = db._writer.execute(f"PRAGMA {name}").fetchall()
        return row[0]

    assert setting("auto_vacuum") == 2  # incremental
    assert setting("secure_delete") == 1
    assert setting("journal_mode") == "wal"
    assert setting("synchronous") == 1  # NORMAL
    assert setting("foreign_keys") == 1
    assert setting("temp_store") == 2  # memory


async def test_strict_durability_syncs_each_commit(tmp_path: Path) -> None:
    db = open_database(tmp_path / "a.db", synchronous="FULL")
    assert db._writer.execute("PRAGMA synchronous").fetchall() == [(2,)]
    await db.close()


async def test_a_reader_cannot_write(db: SqliteDatabase) -> None:
    with pytest.raises(DatabaseUnwritable, match="readonly"):
        await db.read("DELETE FROM projects", {})


async def test_an_exception_undoes_the_whole_transaction(db: SqliteDatabase) -> None:
    class Stop(Exception):
        pass

    with pytest.raises(Stop), db.transaction() as tx:  # noqa: PT012 (the block is what is tested)
        tx.execute("INSERT INTO projects (id, name) VALUES (:id, :name)", {"id": 2, "name": "b"})
        raise Stop
    assert await db.read("SELECT id FROM projects", {}) == [(1,)]


@pytest.mark.parametrize("value", [2**63, "\ud800", "text in a column of integers"])
async def test_a_value_that_sqlite_cannot_hold_is_an_error_of_ours(
    db: SqliteDatabase, value: int | str
) -> None:
    sql = "INSERT INTO projects (id, name) VALUES (:id, 'b')"
    with pytest.raises(StatementRefused, match="bug"), db.transaction() as tx:
        tx.execute(sql, {"id": value})
    assert await db.read("SELECT COUNT(*) FROM projects", {}) == [(1,)]


async def test_a_lock_of_a_foreign_program_passes(db: SqliteDatabase) -> None:
    shell = sqlite3.connect(db.path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseLocked) as caught, db.transaction():
        pass
    assert caught.value.pid is None
    shell.execute("ROLLBACK")
    shell.close()
    write(db, [start(1)])
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(1,)]


async def test_a_file_that_is_deleted_while_open_takes_no_more_rows(db: SqliteDatabase) -> None:
    away = db.path.with_suffix(".away")
    db.path.rename(away)
    with pytest.raises(DatabaseUnwritable, match="deleted or replaced"):
        write(db, [start(1)])
    away.rename(db.path)
    write(db, [start(1)])
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(1,)]


async def test_a_full_disk_fails_the_batch_and_the_next_one_works(db: SqliteDatabase) -> None:
    write(db, [start(1)])
    (pages,) = db._writer.execute("PRAGMA page_count").fetchone()
    db._writer.execute(f"PRAGMA max_page_count = {pages}")
    big = end(start(2), response=body(os.urandom(100_000)))
    with pytest.raises(DatabaseUnwritable, match="full"):
        write(db, [big])
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(1,)]
    db._writer.execute(f"PRAGMA max_page_count = {pages + 1000}")
    write(db, [big])
    assert rows(db, "SELECT COUNT(*) FROM contents") == [(1,)]


async def test_reads_run_side_by_side_on_a_bounded_number_of_connections(
    db: SqliteDatabase,
) -> None:
    answers = await asyncio.gather(*(db.read("SELECT :n", {"n": n}) for n in range(50)))
    assert answers == [[(n,)] for n in range(50)]
    assert 1 < len(db._readers) <= 4


async def test_a_closed_database_opens_no_reader(tmp_path: Path) -> None:
    db = open_database(tmp_path / "a.db")
    await db.close()
    with pytest.raises(StatementRefused, match="closed"):
        await db.read("SELECT 1", {})


async def test_space_is_given_back_a_bounded_part_at_a_time(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free() -> int:
        return int(rows(db, "PRAGMA freelist_count")[0][0])

    write(db, [end(start(1), response=body(os.urandom(400_000)))])
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    monkeypatch.setattr(sqlite, "RECLAIM_PAGES", 10)
    db.reclaim(begin=True)  # the words come first
    before = free()
    assert db.reclaim()
    assert free() == before - 10
    db.vacuum()
    assert free() == 0


async def test_pages_that_become_free_meanwhile_are_given_back_the_next_time(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(n: int) -> None:
        """Have a call come and go that takes a hundred pages."""
        write(db, [end(start(n), response=body(os.urandom(400_000)))])
        with db.transaction() as tx:
            delete_trace(tx, 1, trace_id(n), text_of)

    monkeypatch.setattr(sqlite, "RECLAIM_PAGES", 10)
    leave(1)
    db.reclaim(begin=True)
    n = 1
    while db.reclaim():
        n += 1
        assert n < 50
        leave(n)
    assert rows(db, "PRAGMA freelist_count")[0][0] > 50
    give_back(db)
    assert rows(db, "PRAGMA freelist_count") == [(0,)]


async def test_what_may_be_left_is_known_behind_a_kill_and_where_pages_are_free(
    tmp_path: Path,
) -> None:
    (killed := tmp_path / "killed").mkdir()
    db = opened(tmp_path / "a.db")
    write(db, [start(1)])
    give_back(db)
    assert not db.has_left
    await db.close()
    db = opened(tmp_path / "a.db")
    assert not db.has_left
    write(db, [start(2)])
    for name in ("a.db", "a.db-wal"):
        shutil.copy(tmp_path / name, killed / name)
    await db.close()
    db = opened(killed / "a.db")
    assert db.has_left
    give_back(db)
    assert not db.has_left
    write(db, [end(start(3), response=body(os.urandom(400_000)))])
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(3), text_of)
    await db.close()
    db = opened(killed / "a.db")
    assert db.has_left
    await db.close()


async def test_a_vacuum_has_its_copy_beside_the_database_and_not_in_memory(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    db = opened(folder / "a.db")
    write(db, [end(start(n), request=body(os.urandom(50_000))) for n in range(100)])
    seen: set[str] = set()

    def look() -> None:
        for one in Path("/proc/self/fd").iterdir():
            try:
                seen.add(str(one.readlink()))
            except OSError:  # that of the look
                continue

    db._writer.set_progress_handler(look, 100)
    db.vacuum()
    db._writer.set_progress_handler(None, 0)
    assert [one for one in seen if one.startswith(f"{folder}/etilqs_")]
    assert db._writer.execute("PRAGMA temp_store").fetchall() == [(2,)]
    assert db._writer.execute("PRAGMA temp_store_directory").fetchall() == []
    await db.close()
    assert sorted(one.name for one in folder.iterdir()) == ["a.db", "a.db.lock"]


async def test_where_no_space_can_be_given_back_it_ends_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "copy.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {sqlite.APPLICATION_ID}")
    connection.execute("CREATE TABLE other (a)")  # so the file has been made without the setting
    connection.close()
    db = open_database(path)
    write(db, [end(start(1), response=body(os.urandom(400_000)))])
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    more = [db.reclaim(begin=True)]
    while more[-1] and len(more) < 100:
        more.append(db.reclaim())
    assert not more[-1]
    assert rows(db, "PRAGMA freelist_count")[0][0] > 50
    await db.close()


async def test_closing_leaves_one_file_and_its_lock(tmp_path: Path) -> None:
    db = open_database(tmp_path / "a.db")
    write(db, [start(1)])
    await db.read("SELECT 1", {})
    await db.close()
    assert names(tmp_path) == ["a.db", "a.db.lock"]
