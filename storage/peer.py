"""How a server hears of the others that share its PostgreSQL database, and they of it.

Owns one connection, which listens, gives the signs of life (``owners``), and holds the lock of the
one that leads: whoever loses it loses all three at once. Invariants: nothing here waits longer than
``ANSWER_S``, so a peer that is gone is known for gone; an error ends the connection. What to do
with what is heard is the server's business.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg

from storage import api_keys, provider_keys
from storage.database import Row, StorageError
from storage.grants import Grants, SealedKey
from storage.owners import DEAD_S
from storage.postgres_address import Address, connect
from storage.postgres_errors import REFUSALS, Unreachable, refusal

# Channels of NOTIFY: something was committed; who may come in was changed.
EVENTS: Final = "traceway_events"
GRANTS: Final = "traceway_grants"
ANSWER_S: Final = 5.0

BEAT: Final = """
INSERT INTO owners (owner, heard_at) VALUES ($1, clock_timestamp())
ON CONFLICT (owner) DO UPDATE SET heard_at = clock_timestamp() RETURNING heard_at
"""
LEAVE: Final = "DELETE FROM owners WHERE owner = $1"
LOOK: Final = """
SELECT (SELECT value FROM counters WHERE name = 'event'),
  (SELECT value FROM counters WHERE name = 'grants')
"""
# A database may have several schemas with recordings, and each a leader of its own.
_LEADS: Final = "hashtextextended('traceway leads ' || current_schema(), 0)"
LEAD: Final = f"SELECT pg_try_advisory_lock({_LEADS})"
RESIGN: Final = f"SELECT pg_advisory_unlock({_LEADS})"
# When it was started, and since when its figures count: these begin anew after a crash, too, which
# the main process of the server outlives.
STARTED: Final = "SELECT pg_postmaster_start_time(), stats_reset FROM pg_stat_archiver"
OTHERS: Final = f"""
SELECT 1 FROM owners
WHERE owner <> $1 AND heard_at > clock_timestamp() - interval '{DEAD_S} seconds' LIMIT 1
"""  # noqa: S608 (a constant)
SIZE: Final = "SELECT pg_database_size(current_database())"


class Seen(NamedTuple):
    """The numbers of the newest event and of the newest change of who may come in."""

    event: int
    grants: int


class Peer:
    """A server among those that share a database. Lives on the event loop."""

    def __init__(self, address: Address, owner: bytes) -> None:
        self._address = address
        self._owner = owner
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def join(self, told: Callable[[str], None]) -> str:
        """Connect, and give a sign of life; return what differs after each start or crash of it.

        ``told`` is called with a channel when another server tells something.

        Raises:
            StorageError: it cannot be reached.
        """
        await self._drop()
        # A sign of life that is lost with a crash of the database is followed by others.
        self._connection = await connect(self._address, {"synchronous_commit": "off"})
        own_pid = self._connection.get_server_pid()

        def heard(_: object, pid: int, channel: str, _payload: object) -> None:
            if pid != own_pid:
                told(channel)

        async def listen(connection: asyncpg.Connection) -> None:
            for channel in (EVENTS, GRANTS):
                await connection.add_listener(channel, heard)

        await self._within(listen)
        await self.beat()
        return str((await self._ask(STARTED))[0])

    async def beat(self) -> float:
        """Give a sign of life; return when that was by the database's clock, in seconds."""
        heard_at: datetime = (await self._ask(BEAT, self._owner))[0][0]
        return heard_at.timestamp()

    async def look(self) -> Seen:
        """See how far the others are."""
        return Seen(*(await self._ask(LOOK))[0])

    async def lead(self) -> bool:
        """Become the one that leads, unless another does. Once is enough, as long as it lasts."""
        return bool((await self._ask(LEAD))[0][0])

    async def resign(self) -> None:
        """Lead no more, so that another may."""
        await self._ask(RESIGN)

    async def has_others(self) -> bool:
        """Tell whether another server gave a sign of life lately."""
        return bool(await self._ask(OTHERS, self._owner))

    async def tell(self, channel: str) -> None:
        """Tell the others something."""
        await self._ask(f"NOTIFY {channel}")

    async def database_bytes(self) -> int:
        """Give the size of the database."""
        return int((await self._ask(SIZE))[0][0])

    async def grants(self) -> tuple[Grants, list[SealedKey]]:
        """Read who may come in, and with which providers' keys, as of one moment."""
        *given, sealed = await self._ask_all((*api_keys.GRANTS, provider_keys.ALL))
        return api_keys.grants_of(*given), provider_keys.sealed_of(sealed)

    async def leave(self) -> None:
        """Say that this server is gone, as far as it can be said, and close the connection."""
        try:
            if self._connection is not None:
                await self._ask(LEAVE, self._owner)
        except StorageError:
            pass  # the others will see
        finally:
            await self._drop()

    async def _ask(self, sql: str, *values: Any) -> Sequence[Row]:
        rows: Sequence[Row] = await self._in_turn(self._fetch, sql, *values)
        return rows

    async def _ask_all(self, sqls: Sequence[str]) -> list[Sequence[Row]]:
        async def all_of(connection: asyncpg.Connection) -> list[Sequence[Row]]:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return [await self._fetch(connection, sql) for sql in sqls]

        found: list[Sequence[Row]] = await self._in_turn(all_of)
        return found

    async def _in_turn(self, work: Callable[..., Any], *arguments: Any) -> Any:
        # To its end, whoever leaves: the server would be told to cancel it, and might cancel what
        # is asked next, which is that we leave.
        answer = await asyncio.shield(self._answer(work, *arguments))
        if isinstance(answer, StorageError):
            raise answer
        return answer

    async def _answer(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Give what comes of it, or what it would raise: nobody may wait for that any more."""
        async with self._turn:
            try:
                return await self._within(work, *arguments)
            except StorageError as error:
                return error

    async def _fetch(self, connection: asyncpg.Connection, sql: str, *values: Any) -> list[Row]:
        return [tuple(row) for row in await connection.fetch(sql, *values)]

    async def _within(self, work: Callable[..., Any], *arguments: Any) -> Any:
        connection = self._connection
        if connection is None or connection.is_closed():
            raise Unreachable(self._address.place, "the connection was lost")
        # To cancel what waits is not enough: it would go on to wait for its ROLLBACK.
        limit = asyncio.get_running_loop().call_later(ANSWER_S, connection.terminate)
        try:
            return await work(connection, *arguments)
        except REFUSALS as error:
            connection.terminate()
            raise refusal(self._address.place, error) from None
        finally:
            limit.cancel()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
