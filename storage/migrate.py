"""The schema's versions: numbered SQL files, each applied once.

Invariant: a migration and its record are one transaction, so a schema is never between two
versions; a database newer than the code is not touched. A published file is never edited: a change
is a new file.
"""

import re
import sqlite3
import time
from functools import cache
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from storage import migrations
from storage.database import DatabaseNewer

FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
# executescript() commits what is open before it begins: the script opens its own transaction.
BEGIN = "BEGIN IMMEDIATE;\n"
RECORD = """
INSERT INTO migrations (version, name, applied_at_us) VALUES (:version, :name, :applied_at_us)
"""


class Migration(NamedTuple):
    """One numbered file. ``version`` begins at 1 and has no gaps."""

    version: int
    name: str
    sql: str


@cache
def available() -> tuple[Migration, ...]:
    """Read the migrations that come with this program, oldest first."""
    return read_migrations(migrations)


def read_migrations(package: ModuleType) -> tuple[Migration, ...]:
    """Read the numbered files of a package, oldest first."""
    found = (
        Migration(int(match[1]), file.name, file.read_text("utf-8"))
        for file in resources.files(package).iterdir()
        if (match := FILE_NAME.fullmatch(file.name))
    )
    return tuple(sorted(found))


def latest() -> int:
    """Return the version of the schema that this program works with."""
    return available()[-1].version


def migrate(connection: sqlite3.Connection, place: Path, up_to: int | None = None) -> None:
    """Bring the database up to date, or to an older version.

    ``connection`` is in autocommit mode; ``place`` is only named in errors.
    Raises DatabaseNewer before anything is changed, and sqlite3.Error for a migration that failed,
    of which nothing remains then.
    """
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > latest():
        raise DatabaseNewer(place, found, latest())
    for migration in available():
        if found < migration.version <= (up_to or latest()):
            _run(connection, migration)


def _run(connection: sqlite3.Connection, migration: Migration) -> None:
    record = {
        "version": migration.version,
        "name": migration.name,
        "applied_at_us": time.time_ns() // 1_000,
    }
    try:
        connection.executescript(BEGIN + migration.sql)
        connection.execute(RECORD, record)
        # Part of the transaction, like any page of the file. A pragma takes no parameters.
        connection.execute(f"PRAGMA user_version = {migration.version:d}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
