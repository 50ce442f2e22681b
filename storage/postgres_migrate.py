"""The versions of PostgreSQL's schema: numbered SQL files of their own, each applied once.

Invariants: a migration and its record are one transaction; servers that start at once do it one
after the other; a database that is newer, foreign or cannot hold our texts is not touched. Numbers
are not those of SQLite's files. A published file is never edited: a change is a new file.
"""

import time
from functools import cache
from typing import Any, Final

from storage.database import DatabaseForeign, DatabaseLocked, DatabaseNewer, StorageError
from storage.migrate import Migration, read_migrations
from storage.migrations import postgres
from storage.owners import DEAD_S

# The oldest server that all our statements run on, and that is still looked after.
OLDEST: Final = 14
# The advisory lock of migrating: "TWAY", and 1.
LOCK: Final = (0x54574159, 1)
# Nobody migrates for longer; a server that hangs in it loses its connection before.
WAIT_S: Final = 60

LOCK_SCHEMA: Final = f"""
SET lock_timeout = '{WAIT_S}s'; SET statement_timeout = 0;
SELECT pg_advisory_lock({LOCK[0]}, {LOCK[1]})
"""
UNLOCK_SCHEMA: Final = f"""
SELECT pg_advisory_unlock({LOCK[0]}, {LOCK[1]}); RESET lock_timeout; RESET statement_timeout
"""
# What belongs to no extension.
TABLES: Final = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = CAST(quote_ident(current_schema()) AS regnamespace)
  AND c.relkind IN ('r', 'p', 'v', 'm')
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
"""
COLUMNS: Final = """
SELECT attname FROM pg_attribute
WHERE attrelid = CAST('migrations' AS regclass) AND attnum > 0 AND NOT attisdropped
"""
APPLIED: Final = "SELECT version, name FROM migrations ORDER BY version"
RUNNING: Final = f"""
SELECT COUNT(*) FROM owners WHERE heard_at > clock_timestamp() - interval '{DEAD_S} seconds'
"""  # noqa: S608 (a constant)
RECORD: Final = "INSERT INTO migrations (version, name, applied_at_us) VALUES ({}, '{}', {})"


class OlderRun(DatabaseLocked):
    """Servers of an older version run on the database; a moment ago, where they were killed."""

    def __init__(self, place: object, count: int) -> None:
        problem = f"{count} servers of an older version run on it"
        StorageError.__init__(self, place, problem, "stop them, so that this one may change it")
        self.pid = None


@cache
def available() -> tuple[Migration, ...]:
    """Read the migrations that come with this program, oldest first."""
    return read_migrations(postgres)


def latest() -> int:
    """Return the version of the schema that this program works with."""
    return available()[-1].version


async def check(connection: Any, place: str) -> int:
    """Return the version of a database's schema, 0 where it is empty.

    Raises a StorageError where it cannot be ours.
    """
    server = connection.get_server_version()
    if server.major < OLDEST:
        problem = f"the server is PostgreSQL {server.major}"
        raise StorageError(place, problem, f"use {OLDEST} or newer")
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        problem = f"its encoding is {encoding}, which does not have every character"
        raise StorageError(place, problem, "create it with ENCODING 'UTF8'")
    tables = {row[0] for row in await connection.fetch(TABLES)}
    if "migrations" not in tables:
        if tables:
            raise DatabaseForeign(place)
        return 0
    if {"version", "name", "applied_at_us"} - {r[0] for r in await connection.fetch(COLUMNS)}:
        raise DatabaseForeign(place)
    applied = await connection.fetch(APPLIED)
    if not applied or applied[0][1] != available()[0].name:
        raise DatabaseForeign(place)
    version = int(applied[-1][0])
    if version > latest():
        raise DatabaseNewer(place, version, latest())
    return version


async def migrate(connection: Any, place: str) -> None:
    """Bring the database up to date.

    Raises a StorageError before anything is changed, and what asyncpg raises for a migration that
    failed, of which nothing remains then.
    """
    if await check(connection, place) == latest():
        return
    await connection.execute(LOCK_SCHEMA)
    try:
        found = await check(connection, place)
        if 0 < found < latest():
            await _refuse_beside(connection, place)
        for migration in available():
            if migration.version > found:
                await _run(connection, migration)
    finally:
        await connection.execute(UNLOCK_SCHEMA)


async def _refuse_beside(connection: Any, place: str) -> None:
    """Refuse to change the tables under servers that do not know them changed."""
    if count := await connection.fetchval(RUNNING):
        raise OlderRun(place, count)


async def _run(connection: Any, migration: Migration) -> None:
    record = RECORD.format(migration.version, migration.name, time.time_ns() // 1_000)
    try:
        await connection.execute(f"BEGIN;\n{migration.sql};\n{record};\nCOMMIT")
    except BaseException:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
