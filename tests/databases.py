"""Databases for tests, of the kind that `--database` says: SQLite unless it says postgresql.

A file of SQLite is made by one run of the migrations for all of them. Of PostgreSQL each test gets
databases that others had before it and that were emptied since, by the paths that it names.
"""

import asyncio
import os
import tempfile
from functools import cache
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from storage.postgres import open_postgres
from storage.sqlite import SqliteDatabase, open_database
from tests import postgres

Kind = Literal["sqlite", "postgresql"]


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
        _Given.taken[path] = _Given.free.pop() if _Given.free else _made()
    return postgres.named(_Given.url, _Given.taken[path])


def give_back() -> None:
    """Empty the databases of a test that has ended."""
    for name in _Given.taken.values():
        url = postgres.named(_Given.url, name)
        try:
            postgres.run(postgres.execute(url, *_EMPTY))
        except Exception:  # it changed more than rows
            continue
        _Given.free.append(name)
    _Given.taken.clear()


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
