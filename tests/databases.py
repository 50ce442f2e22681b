"""Databases for tests, of the kind that `--database` says: SQLite unless it says postgresql.

A file of SQLite is made by one run of the migrations for all of them. Of PostgreSQL each test gets
databases that others had before it and that were emptied since, by the paths that it names.
"""

# ruff: noqa: S608 (the SQL below is put together from constants, and from names that tests give)

import asyncio
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import asyncpg

from storage.postgres import open_postgres
from storage.sqlite import SqliteDatabase, open_database
from tests import postgres

Kind = Literal["sqlite", "postgresql"]


_BLOB = re.compile(r"\bx'([0-9a-f]*)'")


class _Given:
    """What the tests of this process run on."""

    kind: Kind = "sqlite"
    url = ""
    numbers = count()
    free: list[str] = []  # noqa: RUF012 (of the one that there is)
    taken: dict[Path, str] = {}  # noqa: RUF012


def use(kind: Kind, url: str = "") -> None:
    """Have all tests of this process run on databases of a kind; `url` is that of a server."""
    _Given.kind, _Given.url = kind, url


def kind() -> Kind:
    return _Given.kind


def opened(path: Path, **how: Any) -> Any:
    """Open a database; where there is none, a new one in a tenth of the time."""
    if _Given.kind == "postgresql":
        how.pop("synchronous", None)
        return open_postgres(url_of(path), **how)
    return opened_file(path, **how)


def opened_file(path: Path, **how: Any) -> SqliteDatabase:
    """Open a file of SQLite, whatever the tests run on."""
    if not path.exists():
        path.write_bytes(_new())
    return open_database(path, **how)


def url_of(path: Path) -> str:
    """Give the address of the database of PostgreSQL that stands for a path."""
    if path not in _Given.taken:
        # A test that plays many histories takes a folder for each.
        for name in [one for one in _Given.taken if not one.parent.exists()]:
            _give_back(_Given.taken.pop(name))
        _Given.taken[path] = _Given.free.pop() if _Given.free else _made()
    return postgres.named(_Given.url, _Given.taken[path])


def kept(path: Path) -> bytes:
    """Give all that is in a database and in the files beside it, as whoever has them sees it."""
    files = {one.name: one.read_bytes() for one in path.parent.iterdir() if one.is_file()}
    if kind() == "sqlite":
        assert {path.name, f"{path.name}-wal"} <= files.keys()
    else:
        files |= postgres.run(_dumped(url_of(path)))
    return b"".join(files.values())


def holding(path: Path, words: bytes) -> list[str]:
    """Give the files of a database that have these bytes, after the space of rows was given back.

    Of PostgreSQL the tables whose rows have them come first. Its tables and indexes are written
    anew, and looked at is all that its server keeps, but its log of changes (`pg_wal`) and the
    databases of other tests.
    """
    files = [one for one in path.parent.iterdir() if one.is_file()]
    found = []
    if kind() == "postgresql":
        dumped = postgres.run(_dumped(url_of(path)))
        found = [table for table, data in sorted(dumped.items()) if words in data]
        files += _files(*postgres.run(postgres.execute(url_of(path), *_WRITE_ANEW))[0])
    return found + [one.name for one in sorted(files) if words in _bytes(one)]


def _files(folder: str, number: str) -> Iterator[Path]:
    data = Path(folder)
    assert data.is_dir(), "the server is on another machine"
    own = data / "base" / number
    for one in data.rglob("*"):
        is_of_others = one.is_relative_to(data / "base") and not one.is_relative_to(own)
        if not (is_of_others or one.is_relative_to(data / "pg_wal")) and one.is_file():
            yield one


def _bytes(file: Path) -> bytes:
    # Other tests make and drop what is their own.
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


async def _dumped(url: str) -> dict[str, bytes]:
    found = {}
    for (table,) in await postgres.execute(url, _TABLES):
        for row in await postgres.execute(url, f"SELECT * FROM {table}"):
            values = [one if isinstance(one, bytes) else str(one).encode() for one in row]
            found[table] = found.get(table, b"") + b" ".join(values)
    return found


def written(sql: str) -> str:
    """Write the blobs of a statement, `x'00'`, as the database does."""
    return _BLOB.sub(r"CAST('\\\\x\1' AS BYTEA)", sql) if kind() == "postgresql" else sql


def columns_of(table: str) -> str:
    """Give what asks for the names of a table's columns, in their order."""
    if kind() == "sqlite":
        return f"SELECT name FROM pragma_table_xinfo('{table}') WHERE hidden <> 1 ORDER BY cid"
    return f"""
SELECT CAST(column_name AS TEXT) FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = '{table}' ORDER BY ordinal_position
"""


def tables() -> str:
    """Give what asks for the names of all tables."""
    if kind() == "sqlite":
        return "SELECT name FROM sqlite_schema WHERE type = 'table'"
    return _TABLES


def taken() -> frozenset[Path]:
    """Give the paths that tests have databases for."""
    return frozenset(_Given.taken)


def give_back(but: frozenset[Path]) -> None:
    """Empty the databases of a test that has ended, but for these, which others have too."""
    for path in _Given.taken.keys() - but:
        _give_back(_Given.taken.pop(path))


def _give_back(name: str) -> None:
    with suppress(asyncpg.PostgresError):  # where a test changed more than rows
        postgres.run(postgres.execute(postgres.named(_Given.url, name), *_EMPTY))
        _Given.free.append(name)


def _made() -> str:
    name = f"traceway_{os.getpid()}_{next(_Given.numbers)}"
    postgres.run(postgres.execute(_Given.url, f"CREATE DATABASE {name}", "SELECT 1"))
    url = postgres.named(_Given.url, name)
    database = open_postgres(url)
    postgres.run(database.close())
    postgres.run(postgres.execute(url, *_KEEP))
    return name


_TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = CAST('public' AS regnamespace) AND relkind = 'r'
AND relname <> 'migrations'
"""
# The planner's figures have values of rows. A checkpoint brings all to the disk.
_WRITE_ANEW = (
    "VACUUM (FULL, ANALYZE)",
    "VACUUM (FULL) pg_statistic",
    "CHECKPOINT",
    """
SELECT current_setting('data_directory'), CAST(oid AS TEXT) FROM pg_database
WHERE datname = current_database()
""",
)
# What a new database has in its tables is kept beside them.
_KEEP = (
    f"""
DO $$ DECLARE name TEXT; BEGIN
  CREATE SCHEMA pristine;
  FOR name IN {_TABLES} LOOP
    EXECUTE format('CREATE TABLE pristine.%I AS SELECT * FROM public.%I', name, name);
  END LOOP;
END $$
""",
    "SELECT 1",
)
_EMPTY = (
    """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
""",
    f"""
DO $$ DECLARE name TEXT; BEGIN
  FOR name IN {_TABLES} LOOP
    EXECUTE format('DELETE FROM public.%I', name);
  END LOOP;
  INSERT INTO projects SELECT * FROM pristine.projects;
  INSERT INTO counters SELECT * FROM pristine.counters;
  FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
    EXECUTE format('ALTER SEQUENCE public.%I RESTART', name);
  END LOOP;
END $$
""",
    "SELECT COUNT(*) FROM projects",
)


@cache
def _new() -> bytes:
    """Give the bytes of a database that was just made."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        database = open_database(path)
        # In a thread, since the test that asks first has a loop that runs.
        closing = Thread(target=lambda: asyncio.run(database.close()))
        closing.start()
        closing.join()
        return path.read_bytes()
