"""The schema of PostgreSQL: that of SQLite, made once, and only in a database that is ours."""

from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest

from storage import postgres as module
from storage import postgres_migrate
from storage.database import (
    DatabaseForeign,
    DatabaseLocked,
    DatabaseNewer,
    DatabaseUnwritable,
    StorageError,
)
from storage.postgres import PostgresDatabase, open_postgres
from storage.server_facts import look
from tests import postgres
from tests.databases import opened_file, url_of
from tests.storage.calls import rows

pytestmark = pytest.mark.postgres_only("it is of PostgreSQL")

# What only one of both has, and why.
ONLY_SQLITE = {
    "messages_fts_1": "a part of FTS5's index",
    "messages_fts_1_config": "FTS5's own",
    "messages_fts_1_data": "FTS5's own",
    "messages_fts_1_docsize": "FTS5's own",
    "messages_fts_1_idx": "FTS5's own",
    "text_parts": "of which parts SQLite's index consists",
}
ONLY_POSTGRES = {
    "messages_fts": "its index of words, in one part",
    "owners": "only there there is more than one server",
    "tickets": "one server takes what another gave; alone, it keeps them in memory",
}
ONLY_POSTGRES_INDEXES = {
    "events_by_project": "the first of a project would be looked for in the whole log",
    "messages_fts_by_word": "FTS5 is an index itself",
}


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
    assert not {table for table in both if in_file[table] != here[table]}
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


async def test_tables_are_not_changed_under_servers_of_an_older_version(bare: str) -> None:
    await open_postgres(bare).close()
    last = postgres_migrate.latest()
    await postgres.execute(
        bare,
        f"DELETE FROM migrations WHERE version = {last}",  # noqa: S608
        "DROP INDEX erasure_targets_found",
        "INSERT INTO owners (owner, heard_at) VALUES ('one', clock_timestamp()),"
        " ('dead', clock_timestamp() - interval '1 hour')",
        "SELECT 1",
    )
    with pytest.raises(DatabaseLocked, match="1 servers of an older version run on it"):
        open_postgres(bare)
    await postgres.execute(bare, "DELETE FROM owners WHERE owner = 'one'", "SELECT 1")
    database = open_postgres(bare)
    assert rows(database, "SELECT MAX(version) FROM migrations") == [(last,)]
    await database.close()


async def test_a_new_database_is_made_by_whoever_comes_first(bare: str) -> None:
    made: list[PostgresDatabase] = []
    threads = [Thread(target=lambda: made.append(open_postgres(bare))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    versions = [(n,) for n in range(1, postgres_migrate.latest() + 1)]
    assert rows(made[0], "SELECT version FROM migrations ORDER BY version") == versions
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


async def test_a_migration_takes_as_long_as_it_takes(
    bare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REARM_S", 0.0)
    monkeypatch.setattr(module, "GIVE_UP_S", 0.5)
    (first, *others) = postgres_migrate.available()
    slow = first._replace(sql=f"{first.sql}; SELECT pg_sleep(0.8)")
    monkeypatch.setattr(postgres_migrate, "available", lambda: (slow, *others))
    database = open_postgres(bare)
    with pytest.raises(DatabaseUnwritable):  # what comes then does not
        rows(database, "SELECT CAST(pg_sleep(1) AS TEXT)")
    await database.close()


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


async def test_a_schema_may_have_any_name_and_others_any_tables(bare: str) -> None:
    name = f"odd_{uuid4().hex}"
    await postgres.execute(bare, f"CREATE DATABASE {name}", "SELECT 1")
    url = postgres.named(bare, name)
    await postgres.execute(
        url,
        'CREATE SCHEMA "team-B"',
        f'ALTER DATABASE {name} SET search_path = "team-B", public',
        "CREATE TABLE public.moves (x INT)",
        "SELECT 1",
    )
    database = open_postgres(url)
    database.vacuum()
    assert rows(database, "SHOW statement_timeout") == [("1min",)]
    await database.close()
    assert (await look(url)).facts[0].value == f"version {postgres_migrate.latest()}"
    await postgres.execute(bare, f"DROP DATABASE {name} WITH (FORCE)", "SELECT 1")
