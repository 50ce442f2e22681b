"""A database of PostgreSQL: what is opened and what refused, its schema, and how it is read."""

import asyncio
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from storage import postgres_address, postgres_migrate
from storage.database import (
    DatabaseForeign,
    DatabaseNewer,
    DatabaseUnwritable,
    QueryTimeout,
    StatementRefused,
    StorageError,
)
from storage.postgres import PostgresDatabase, open_postgres, open_postgres_snapshot
from storage.postgres_statements import PREPARED
from tests import postgres
from tests.databases import opened_file, url_of
from tests.storage.calls import end, rows, start, write

pytestmark = pytest.mark.postgres_only("it is of PostgreSQL")

# What only one of both has, and why.
ONLY_SQLITE = {
    "messages_fts_config": "FTS5's own",
    "messages_fts_data": "FTS5's own",
    "messages_fts_docsize": "FTS5's own",
    "messages_fts_idx": "FTS5's own",
}
ONLY_POSTGRES = {"owners": "only there there is more than one server"}
OTHER_COLUMNS = {"messages_fts": "the index of words is each one's own"}
ONLY_POSTGRES_INDEXES = {
    "events_by_project": "the first of a project would be looked for in the whole log",
    "messages_fts_by_word": "FTS5 is an index itself",
}


SLEEPING = """
SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'SELECT CAST(pg_sleep%'
AND state = 'active' AND datname = current_database()
"""


@pytest.fixture
async def bare(tmp_path: Path) -> str:
    """Give the address of a database without any table."""
    url = url_of(tmp_path / "bare.db")
    anew = ("DROP SCHEMA public CASCADE", "DROP SCHEMA pristine CASCADE", "CREATE SCHEMA public")
    await postgres.execute(url, *anew, "SELECT 1")
    return url


async def test_both_schemas_have_the_same_tables_and_columns(
    db: PostgresDatabase, tmp_path: Path
) -> None:
    file = opened_file(tmp_path / "file.db")
    in_file: dict[str, set[str]] = {}
    for (table,) in await file.read("SELECT name FROM sqlite_schema WHERE type = 'table'", {}):
        columns = await file.read("SELECT name FROM pragma_table_xinfo(:t)", {"t": table})
        in_file[table] = {name for (name,) in columns}
    indexes = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    named = {name for (name,) in await file.read(indexes, {})}
    await file.close()
    here: dict[str, set[str]] = {}
    for table, column in await db.read(
        "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT)"
        " FROM information_schema.columns WHERE table_schema = 'public'",
        {},
    ):
        here.setdefault(table, set()).add(column)
    assert in_file.keys() - here.keys() == ONLY_SQLITE.keys()
    assert here.keys() - in_file.keys() == ONLY_POSTGRES.keys()
    both = in_file.keys() & here.keys()
    assert {table for table in both if in_file[table] != here[table]} == OTHER_COLUMNS.keys()
    ours = await db.read(
        "SELECT CAST(indexname AS TEXT) FROM pg_indexes WHERE schemaname = 'public'"
        " AND indexname NOT LIKE '%key' AND indexname NOT LIKE '%pkey'",
        {},
    )
    by_key = {"sessions_by_key"}
    assert {name for (name,) in ours} ^ (named - by_key) == ONLY_POSTGRES_INDEXES.keys()


async def test_every_text_is_compared_by_its_bytes(db: PostgresDatabase) -> None:
    other = await db.read(
        "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT)"
        " FROM information_schema.columns WHERE table_schema = 'public'"
        " AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'",
        {},
    )
    assert other == []


async def test_a_new_database_is_made_by_whoever_comes_first(bare: str) -> None:
    made: list[PostgresDatabase] = []
    threads = [Thread(target=lambda: made.append(open_postgres(bare))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert rows(made[0], "SELECT version FROM migrations") == [(1,)]
    for database in made:
        await database.close()


async def test_of_a_migration_that_fails_nothing_remains(
    bare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, *_) = postgres_migrate.available()
    broken = first._replace(sql=f"{first.sql}; CREATE TABLE more (); SELECT 1 / 0")
    monkeypatch.setattr(postgres_migrate, "available", lambda: (broken,))
    with pytest.raises(StorageError, match="division by zero"):
        open_postgres(bare)
    monkeypatch.undo()
    await open_postgres(bare).close()


async def test_a_database_of_another_program_is_refused_as_it_is(bare: str) -> None:
    await postgres.execute(bare, "CREATE TABLE theirs (id BIGINT)", "SELECT 1")
    with pytest.raises(DatabaseForeign):
        open_postgres(bare)
    await postgres.execute(bare, "CREATE TABLE migrations (app TEXT, name TEXT)", "SELECT 1")
    with pytest.raises(DatabaseForeign):
        open_postgres(bare)
    tables = "SELECT CAST(relname AS TEXT) FROM pg_class WHERE relkind = 'r' AND relname = 'spans'"
    assert await postgres.execute(bare, tables) == []


async def test_a_database_of_a_newer_version_is_refused(bare: str) -> None:
    await open_postgres(bare).close()
    newer = "INSERT INTO migrations VALUES (999, '0999_more.sql', 0)"
    await postgres.execute(bare, newer, "SELECT 1")
    with pytest.raises(DatabaseNewer, match="version 999"):
        open_postgres(bare)


async def test_a_server_that_is_too_old_is_refused(
    db: PostgresDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_migrate, "OLDEST", 99)
    with pytest.raises(StorageError, match="use 99 or newer"):
        open_postgres(url_of(tmp_path / "traceway.db"))


async def test_no_password_is_told(db: PostgresDatabase, tmp_path: Path) -> None:
    url = url_of(tmp_path / "traceway.db").replace("postgres:@", "nobody:canary-7@")
    assert "canary-7" in url
    with pytest.raises(DatabaseUnwritable) as told:
        open_postgres(url)
    wrong = open_postgres_snapshot(url)
    with pytest.raises(DatabaseUnwritable) as also:
        await wrong.read("SELECT 1", {})
    asked = open_postgres(url.replace("nobody", "postgres"))
    with pytest.raises(StatementRefused) as refused:
        rows(asked, "SELECT nothing")
    said = [repr(asked), repr(asked._address), asked.place, *map(str, (told, also, refused))]
    said += [str(told.value), str(also.value), str(refused.value)]
    await asked.close()
    assert not [one for one in said if "canary" in one]


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


@pytest.mark.parametrize("value", [2**63, "\ud800", "nul \0"])
async def test_what_no_column_can_hold_is_refused_and_the_next_write_works(
    db: PostgresDatabase, value: Any
) -> None:
    name = "id" if isinstance(value, int) else "name"
    with pytest.raises(StatementRefused):
        rows(db, f"SELECT 1 FROM projects WHERE {name} = :value", value=value)  # noqa: S608
    write(db, [start(1)])


async def test_an_error_that_is_caught_inside_undoes_the_whole_transaction(
    db: PostgresDatabase,
) -> None:
    def fails() -> None:
        with db.transaction() as tx:
            tx.execute("UPDATE projects SET name = 'other'", {})
            with suppress(StatementRefused):
                tx.execute("SELECT nothing", {})

    with pytest.raises(StatementRefused, match="undone"):
        fails()
    assert rows(db, "SELECT name FROM projects") == [("default",)]
    with pytest.raises(StatementRefused, match="open already"), db.transaction(), db.transaction():
        pass


async def test_the_writer_prepares_a_bounded_number_of_statements(db: PostgresDatabase) -> None:
    with db.transaction() as tx:
        for n in range(PREPARED + 10):
            tx.execute(f"SELECT CAST({n} AS BIGINT)", {})
        assert len(tx._prepared) == PREPARED


async def test_a_table_that_is_changed_meanwhile_is_read_as_it_is(
    db: PostgresDatabase, tmp_path: Path
) -> None:
    everything = "SELECT * FROM counters"
    rows(db, everything)
    url = url_of(tmp_path / "traceway.db")
    await postgres.execute(url, "ALTER TABLE counters ADD COLUMN more BIGINT", "SELECT 1")
    with pytest.raises(StorageError) as told:
        rows(db, everything)
    assert not isinstance(told.value, StatementRefused)  # it is tried again
    assert len(rows(db, everything)[0]) == 3
    await postgres.execute(url, "ALTER TABLE counters DROP COLUMN more", "SELECT 1")


async def test_an_address_that_does_not_answer_is_told_within_the_time_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_address, "CONNECT_S", 0.1)
    asked: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, peer: asked.append(peer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    with pytest.raises(DatabaseUnwritable, match=r"127\.0\.0\.1"):
        await asyncio.to_thread(open_postgres, f"postgresql://u:secret@127.0.0.1:{port}/a")
    silent.close()
    for peer in asked:
        peer.close()
        with suppress(ConnectionError):
            await peer.wait_closed()
    with pytest.raises(DatabaseUnwritable, match=r"127\.0\.0\.1"):
        await asyncio.to_thread(open_postgres, f"postgresql://u:secret@127.0.0.1:{port}/a")
