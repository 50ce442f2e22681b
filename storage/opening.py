"""Opens the database that a configuration names: a file of SQLite, or one of a PostgreSQL server.

Owns which of the two it is: a ``url`` stands before a path. Invariant: what is said of either, also
of one that cannot be opened, has no password in it. PostgreSQL's client is an extra, and is loaded
when it is wanted.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from storage.database import Database, DatabaseLocked, DatabaseUnwritable, StorageError
from storage.sqlite import open_database

if TYPE_CHECKING:
    from storage.peer import Peer
    from storage.postgres_readers import PostgresSnapshot

# A server of containers often starts beside its database.
WAIT_S: Final = 30.0
AGAIN_S: Final = 0.5


def open_at(
    path: Path,
    url: str,
    *,
    durability: Literal["safe", "strict", "fast"] = "safe",
    query_timeout_s: float | None = None,
) -> Database:
    """Open the database at ``url``, or else at ``path``, made and migrated where needed.

    Raises a StorageError.
    """
    if not url:
        synchronous: Literal["FULL", "NORMAL"] = "FULL" if durability == "strict" else "NORMAL"
        return open_database(path, synchronous=synchronous, query_timeout_s=query_timeout_s)
    check_client()
    from storage.postgres import open_postgres

    return open_postgres(
        url, synchronous_commit=durability != "fast", query_timeout_s=query_timeout_s
    )


def snapshot_at(url: str) -> "PostgresSnapshot":
    """Open the database at ``url`` to look at it as it is at the first read."""
    check_client()
    from storage.postgres import open_postgres_snapshot

    return open_postgres_snapshot(url)


async def opened_within(
    wait_s: float, opening: Callable[[], Database], say: Callable[[str], None], stop: asyncio.Event
) -> Database | None:
    """Open a server's database as soon as it can be, within so long, saying once that it waits.

    None where ``stop`` was set meanwhile. Raises a StorageError: the last reason.
    """
    until_s = time.monotonic() + wait_s
    is_said = False
    while True:
        try:
            return await asyncio.to_thread(opening)
        except (DatabaseLocked, DatabaseUnwritable) as error:
            if time.monotonic() + AGAIN_S > until_s:
                raise
            if not is_said:
                say(f"waiting up to {wait_s:g} s for the database: {error}")
                is_said = True
        try:
            async with asyncio.timeout(AGAIN_S):
                await stop.wait()
            return None
        except TimeoutError:
            pass  # once more


def shown(path: Path, url: str) -> str:
    """Say where the database is, without a password."""
    if not url:
        return str(path.resolve())
    check_client()
    from storage.postgres_address import address_of

    return address_of(url).place


def peer_at(url: str, owner: bytes) -> "Peer":
    """Make the part of a server in what those do that share the database at ``url``."""
    check_client()
    from storage.peer import Peer
    from storage.postgres_address import address_of

    return Peer(address_of(url), owner)


def check_client() -> None:
    """See that PostgreSQL's client is installed.

    Raises a StorageError.
    """
    try:
        import asyncpg  # noqa: F401 (whether it is there)
    except ModuleNotFoundError:
        problem, remedy = "its client is not installed", "pip install 'asyncpg>=0.32,<0.33'"
        raise StorageError("PostgreSQL", problem, remedy) from None
