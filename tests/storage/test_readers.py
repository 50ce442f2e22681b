"""Reads: side by side, ended when their time is over or nobody waits, and never left running."""

import asyncio
import gc
import sqlite3
import threading
from pathlib import Path

import pytest

from storage import readers as module
from storage.database import QueryTimeout, StatementRefused
from storage.readers import SqliteReaders
from storage.sqlite import SqliteDatabase, open_snapshot
from tests.databases import opened
from tests.storage.calls import rows, start, write

pytestmark = pytest.mark.sqlite_only("a read of SQLite is a thread that is interrupted")

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
LONG = ENDLESS.replace("FROM n)", "FROM n WHERE i < 3000000)")
MOMENT_S = 0.05


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a database that is closed."""
    made = opened(tmp_path / "a.db")
    asyncio.run(made.close())
    return tmp_path / "a.db"


async def test_a_read_that_takes_too_long_is_ended_and_says_what_to_do(path: Path) -> None:
    db = SqliteReaders(path, timeout_s=MOMENT_S)
    async with asyncio.timeout(10):
        with pytest.raises(QueryTimeout, match=r"0\.05 s.*query_timeout_s in \[database\]"):
            await db.read(ENDLESS, {})
    assert await db.read("SELECT 1", {}) == [(1,)]
    assert len(db._readers) == 1
    await db.close()


async def test_a_connection_is_free_only_when_its_statement_has_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = SqliteReaders(path, readers=1, timeout_s=None)
    await db.read("SELECT 1", {})
    (reader,) = db._readers
    interrupt, told = reader.interrupt, 0

    async def deaf() -> None:  # as one that has not begun when it is told
        nonlocal told
        told += 1
        if told > 3:
            await interrupt()

    monkeypatch.setattr(reader, "interrupt", deaf)
    reading = asyncio.ensure_future(db.read(ENDLESS, {}))
    await asyncio.sleep(0)
    reading.cancel()
    following = asyncio.ensure_future(db.read("SELECT 2", {}))
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert told > 3
        assert await following == [(2,)]
    assert db._readers == [reader]
    await db.close()


async def test_a_read_that_nobody_waits_for_is_ended(path: Path) -> None:
    db = SqliteReaders(path, readers=1)
    reading = asyncio.ensure_future(db.read(ENDLESS, {}))
    await db_is_busy(db)
    reading.cancel()
    async with asyncio.timeout(10):
        assert await db.read("SELECT 1", {}) == [(1,)]
    await db.close()


async def db_is_busy(db: SqliteReaders) -> None:
    async with asyncio.timeout(10):
        while not db._readers or db._idle:
            await asyncio.to_thread(lambda: None)


async def test_a_connection_whose_end_nobody_waits_for_closes_behind_its_statement(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = SqliteReaders(path, readers=1)
    reading = asyncio.ensure_future(db.read(LONG, {}))
    await db_is_busy(db)
    (reader,) = db._readers

    async def deaf() -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(reader, "interrupt", deaf)
    reading.cancel()
    await asyncio.sleep(0)
    reading.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert db._readers == []
        assert await db.read("SELECT 1", {}) == [(1,)]
        await asyncio.to_thread(reader._thread.join)
    await db.close()


async def test_the_wait_for_a_connection_counts_too(path: Path) -> None:
    db = SqliteReaders(path, readers=1, timeout_s=None)
    reading = asyncio.ensure_future(db.read(ENDLESS, {}))
    await db_is_busy(db)
    db._timeout_s = MOMENT_S
    async with asyncio.timeout(10):
        with pytest.raises(QueryTimeout):
            await db.read("SELECT 1", {})
    reading.cancel()
    await asyncio.wait([reading])
    await db.close()


async def test_a_snapshot_may_take_as_long_as_it_takes(path: Path) -> None:
    snapshot = open_snapshot(path)
    assert snapshot._timeout_s is None
    ((count,),) = await snapshot.read(LONG, {})
    assert count == 3_000_000
    await snapshot.close()


async def test_closing_ends_what_still_runs(path: Path) -> None:
    db = SqliteReaders(path)
    reading = asyncio.ensure_future(db.read(ENDLESS, {}))
    await db_is_busy(db)
    async with asyncio.timeout(10):
        await db.close()
        with pytest.raises(StatementRefused, match="closed"):
            await reading


async def test_a_connection_that_cannot_be_prepared_is_not_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", -1.5)
    db = SqliteReaders(path)
    with pytest.raises(ValueError, match="format code"):
        await db.read("SELECT 1", {})
    assert db._readers == []
    await db.close()


async def test_a_connection_is_opened_to_its_end_where_its_asker_leaves(path: Path) -> None:
    db = SqliteReaders(path)
    before = {*threading.enumerate()}
    reading = asyncio.ensure_future(db.read("SELECT 1", {}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert len(db._opening) == 1
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    await db.close()
    del reading
    gc.collect()
    assert (db._opening, db._readers, complaints) == (set(), [], [])
    for thread in {*threading.enumerate()} - before:
        thread.join(10)  # the moment between its last answer and its end
        assert not thread.is_alive()


async def test_a_connection_whose_asker_left_serves_others(path: Path) -> None:
    db = SqliteReaders(path)
    reading = asyncio.ensure_future(db.read("SELECT 1", {}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([*db._opening])
    assert await db.read("SELECT 2", {}) == [(2,)]
    assert len(db._readers) == 1
    await db.close()


async def test_a_reader_sees_what_was_committed_before_it_asked(db: SqliteDatabase) -> None:
    write(db, [start(1)])
    assert await db.read("SELECT COUNT(*) FROM spans", {}) == [(1,)]
    write(db, [start(2)])
    assert await db.read("SELECT COUNT(*) FROM spans", {}) == [(2,)]
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(2,)]


def test_a_name_of_any_characters_is_the_file_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%20 d.db"
    connection = sqlite3.connect(module.uri(path, "mode=rwc"), uri=True)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert path.exists()
