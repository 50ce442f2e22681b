"""Reads of PostgreSQL: they cannot write, and end when their time is over."""

import asyncio
from pathlib import Path

import pytest

from storage.database import DatabaseUnwritable, QueryTimeout
from storage.postgres import PostgresDatabase, open_postgres, open_postgres_snapshot
from tests.databases import url_of
from tests.storage.calls import end, rows, start, write

pytestmark = pytest.mark.postgres_only("it is of PostgreSQL")

SLEEPING = """
SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'SELECT CAST(pg_sleep%'
AND state = 'active' AND datname = current_database()
"""


async def test_a_reader_cannot_write_and_sees_what_was_committed(db: PostgresDatabase) -> None:
    with pytest.raises(DatabaseUnwritable, match="read-only"):
        await db.read("DELETE FROM projects", {})
    write(db, [end(start(1, session_id="s"))])
    assert await db.read("SELECT session_id FROM sessions", {}) == [("s",)]


async def test_a_read_that_takes_too_long_is_ended_and_the_next_one_works(tmp_path: Path) -> None:
    db = open_postgres(url_of(tmp_path / "a.db"), query_timeout_s=0.05)
    async with asyncio.timeout(20):
        for _ in range(8):  # more than there are connections
            with pytest.raises(QueryTimeout, match="query_timeout_s"):
                await db.read("SELECT CAST(pg_sleep(60) AS TEXT)", {})
    assert await db.read("SELECT CAST(1 AS BIGINT)", {}) == [(1,)]
    while rows(db, SLEEPING) != [(0,)]:
        pass
    await db.close()


async def test_a_read_that_nobody_waits_for_is_ended(db: PostgresDatabase) -> None:
    long = "SELECT CAST(pg_sleep(60) AS TEXT)"
    reading = [asyncio.ensure_future(db.read(long, {})) for _ in range(5)]
    while rows(db, SLEEPING) != [(4,)]:  # noqa: ASYNC110 (nobody tells that the server is at it)
        await asyncio.sleep(0)
    for one in reading:
        one.cancel()
    async with asyncio.timeout(10):
        assert await db.read("SELECT CAST(1 AS BIGINT)", {}) == [(1,)]
    assert await asyncio.gather(*reading, return_exceptions=True)


async def test_who_looks_at_one_state_sees_nothing_newer(
    db: PostgresDatabase, tmp_path: Path
) -> None:
    snapshot = open_postgres_snapshot(url_of(tmp_path / "traceway.db"))
    assert await snapshot.read("SELECT COUNT(*) FROM spans", {}) == [(0,)]
    write(db, [start(1)])
    assert await snapshot.read("SELECT COUNT(*) FROM spans", {}) == [(0,)]
    await snapshot.close()
