"""The connections that read PostgreSQL: few, each with one statement at a time, none can write.

Invariants: a read ends when its time is over, also where the server does not hear of it; a
connection that is lost is replaced by the next read. Whoever looks at one state for long, as the
doctor does, has no such limit. Writes nothing.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

import asyncpg

from storage.database import Params, QueryTimeout, Row, StatementRefused
from storage.postgres_address import CONNECT_S, Address, bound_wait, connect, settings_with
from storage.postgres_errors import REFUSALS, Unreachable, line, refusal
from storage.postgres_statements import read as translated
from storage.tsvector import TSVECTOR

READERS: Final = 4
# The server ends a statement itself, this long after we asked it to.
GRACE_S: Final = 1.0
# How long a connection may take to say that its statement has ended, before it is given up.
RELEASE_S: Final = 2.0


class _Lost(Unreachable):
    """The connection was lost before it gave any rows, so that another can be asked."""


class PostgresReaders:
    """Connections that only read. Fulfils ``Readable``.

    ``timeout_s`` bounds each read, and the wait for a connection with it; None: no limit.
    """

    full_text = TSVECTOR

    def __init__(
        self, address: Address, readers: int = READERS, *, timeout_s: float | None = None
    ) -> None:
        self.place = address.place
        self._address = address
        self._size = readers
        self._timeout_s = timeout_s
        self._pool: Any = None
        self._pool_loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Lock | None = None
        self._closed = False
        self._is_to_open_anew = False

    def open_anew(self) -> None:
        """Have later reads open connections of their own. Any thread may call it."""
        self._is_to_open_anew = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.place}>"

    async def read(self, sql: str, params: Params) -> list[Row]:
        """Run one SELECT on a connection that cannot write, as soon as one is free.

        Raises QueryTimeout when that takes too long.
        """
        text = translated(sql)
        values = text.values(params)
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                for _ in range(self._size):
                    with suppress(_Lost):
                        return await self._fetch(text.sql, values)
                return await self._fetch(text.sql, values)
        except TimeoutError as error:
            if limit.expired():
                raise QueryTimeout(self.place, self._timeout_s or 0.0) from error
            raise refusal(self.place, error) from error

    async def damage(self) -> str | None:
        """Look for damage: none can be seen by us, as the server looks after its files itself."""
        return None

    async def _fetch(self, sql: str, values: tuple[Any, ...]) -> list[Row]:
        pool = await self._opened()
        try:
            connection = await pool.acquire()
            try:
                rows = await connection.fetch(sql, *values)
            except REFUSALS as error:
                found = refusal(self.place, error, self._timeout_s)
                if isinstance(found, Unreachable):
                    # Lost, perhaps while nobody used it; asyncpg itself may not know.
                    with suppress(asyncpg.InterfaceError):  # where it does
                        connection.terminate()
                    raise _Lost(self.place, line(error)) from error
                raise
            finally:
                await pool.release(connection, timeout=RELEASE_S)
        except REFUSALS as error:
            if isinstance(error, TimeoutError) and not self._closed:
                raise  # ours, or that of a connection that could not be opened
            self._refuse_if_closed()
            raise refusal(self.place, error, self._timeout_s) from error
        return [tuple(row) for row in rows]

    async def _opened(self) -> Any:
        """Give the pool, of this loop; it opens a connection when one is wanted."""
        self._refuse_if_closed()
        loop = asyncio.get_running_loop()
        if self._pool is None or self._pool_loop is not loop:
            if self._pool is not None:
                self._pool.terminate()
            self._pool_loop, self._opening = loop, asyncio.Lock()
            self._pool = asyncpg.create_pool(
                self._address.url,
                min_size=0,
                max_size=self._size,
                timeout=CONNECT_S,
                server_settings=settings_with(self._settings()),
                init=_begin,
                reset=_leave,
            )
        pool = self._pool
        if self._opening is not None:
            async with self._opening:
                await pool  # once; it does nothing where that was done
            self._opening = None
        if self._is_to_open_anew:
            self._is_to_open_anew = False
            await pool.expire_connections()
        return pool

    def _settings(self) -> dict[str, str]:
        limit_ms = 0 if self._timeout_s is None else int((self._timeout_s + GRACE_S) * 1000)
        return {
            "default_transaction_read_only": "on",
            "statement_timeout": str(limit_ms),
            # A plan for any words or any project is a bad one for most.
            "plan_cache_mode": "force_custom_plan",
            # Lists are to come by an index, page after page, and indexes are in memory.
            "enable_seqscan": "off",
            "random_page_cost": "1.1",
        }

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StatementRefused(self.place, "the database is closed")


async def _begin(connection: asyncpg.Connection) -> None:
    bound_wait(connection)


async def _leave(connection: asyncpg.Connection) -> None:
    """Leave a connection as it is: nothing here sets anything, and to reset costs a round trip."""


class PostgresSnapshot:
    """One connection that stays at what it sees first. Fulfils ``Readable``."""

    full_text = TSVECTOR

    def __init__(self, address: Address) -> None:
        self.place = address.place
        self._address = address
        self._connection: Any = None
        self._turn = asyncio.Lock()

    async def read(self, sql: str, params: Params) -> list[Row]:
        """Run one SELECT."""
        text = translated(sql)
        async with self._turn:
            try:
                if self._connection is None:
                    self._connection = await connect(
                        self._address, {"idle_in_transaction_session_timeout": "0"}
                    )
                    await self._connection.execute(
                        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
                    )
                rows = await self._connection.fetch(text.sql, *text.values(params))
            except REFUSALS as error:
                raise refusal(self.place, error) from error
        return [tuple(row) for row in rows]

    async def damage(self) -> str | None:
        """Look for damage: none can be seen by us, as the server looks after its files itself."""
        return None

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.terminate()
