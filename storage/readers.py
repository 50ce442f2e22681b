"""The connections that read: few, `mode=ro`, each with one statement at a time.

Invariants: a connection is free only when its statement has ended, also where nobody waits for the
rows any more; a statement ends when its time is over, since while it runs the WAL cannot begin
anew. Whoever looks at one state for long, as the doctor does, has no such limit. Writes nothing.
"""

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote

import aiosqlite

from storage.database import (
    DatabaseCorrupt,
    Params,
    QueryTimeout,
    Row,
    StatementRefused,
    StorageError,
)
from storage.fts5 import FTS5
from storage.statements import REFUSALS, refusal

# How long a statement waits for a lock of a foreign program, such as a backup: short, because the
# caller has a queue and tries again.
BUSY_TIMEOUT_MS: Final = 250
# More readers than cores only wait for each other.
READERS: Final = 4
# A statement that is to end is told so this often: it may not have begun when it was told first.
TELL_S: Final = 0.02


class SqliteReaders:
    """Connections that only read. Fulfils ``Readable``.

    With ``begin`` each stays at what it sees first. ``timeout_s`` bounds each read, and the wait
    for a connection with it; None: no limit.
    """

    def __init__(
        self,
        path: Path,
        readers: int = READERS,
        *,
        begin: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        self.path = path
        self._begin = begin
        self._timeout_s = timeout_s
        self._readers: list[aiosqlite.Connection] = []
        self._idle: list[aiosqlite.Connection] = []
        self._free = asyncio.Semaphore(readers)
        self._opening: set[asyncio.Future[None]] = set()
        self._stopping: set[asyncio.Future[object]] = set()
        self._closed = False

    full_text = FTS5

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    async def read(self, sql: str, params: Params) -> list[Row]:
        """Run one SELECT on a connection that cannot write, as soon as one is free.

        Raises QueryTimeout when that takes too long.
        """
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit, self._free:
                return await self._read(sql, params)
        except TimeoutError as error:
            raise QueryTimeout(self.path, self._timeout_s or 0.0) from error

    async def damage(self) -> str | None:
        """Look at every page of the file; None where all are whole."""
        try:
            ((found, *_), *_) = await self.read("PRAGMA integrity_check(1)", {})
        except DatabaseCorrupt as error:
            return str(error)
        return None if found == "ok" else str(found)

    async def _read(self, sql: str, params: Params) -> list[Row]:
        self._refuse_if_closed()
        while not self._idle:
            # To its end, whoever leaves: the thread of half a connection would outlive the loop.
            if error := await asyncio.shield(self._open_reader()):
                raise error
        reader = self._idle.pop()
        try:
            rows = await reader.execute_fetchall(sql, dict(params))
        except asyncio.CancelledError:
            # Whoever asked has left, or the time is over; the statement does not know it yet.
            await self._end(reader)
            raise
        except REFUSALS as error:
            self._idle.append(reader)
            self._refuse_if_closed()  # which ended the statement
            raise refusal(self.path, error) from error
        self._idle.append(reader)
        return cast("list[Row]", rows)

    async def _end(self, reader: aiosqlite.Connection) -> None:
        """End the statement that runs on a connection, and free it then."""
        try:
            while not await self._has_ended(reader):
                pass
        except asyncio.CancelledError:
            # Nobody stays to wait: the connection closes behind its statement.
            if reader in self._readers:
                self._readers.remove(reader)
                self._stop(reader)
            raise
        self._idle.append(reader)

    async def _has_ended(self, reader: aiosqlite.Connection) -> bool:
        try:
            await reader.interrupt()
            # One after the other: this is answered when the statement has ended. In a task that is
            # being cancelled, asyncio.timeout() of Python 3.11.2 cancels it once more.
            await asyncio.wait_for(reader.execute_fetchall("SELECT 1"), TELL_S)
        except TimeoutError:
            return False
        except (sqlite3.Error, ValueError):
            pass  # this was interrupted itself, or the connection is closed
        return True

    def _stop(self, reader: aiosqlite.Connection) -> None:
        if (stopping := reader.stop()) is not None:
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        if self._opening:
            await asyncio.wait([*self._opening])
        readers = [*self._readers]
        self._readers.clear()
        self._idle.clear()
        for reader in readers:
            while not await self._has_ended(reader):  # nobody is there to read what it reads
                pass
            await reader.close()
        if self._stopping:
            await asyncio.wait([*self._stopping])

    async def _open_reader(self) -> StorageError | None:
        """Open a connection, or give what it would raise: nobody may wait for that any more."""
        opened = asyncio.get_running_loop().create_future()
        self._opening.add(opened)
        try:
            reader = await self._connected()
        except StorageError as error:
            return error
        finally:
            self._opening.discard(opened)
            opened.set_result(None)
        self._readers.append(reader)
        self._idle.append(reader)
        return None

    async def _connected(self) -> aiosqlite.Connection:
        try:
            reader = await aiosqlite.connect(
                uri(self.path, "mode=ro"), uri=True, isolation_level=None
            )
        except sqlite3.Error as error:
            raise refusal(self.path, error) from error
        try:
            await reader.execute_fetchall(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS:d}")
            await reader.execute_fetchall("PRAGMA temp_store = MEMORY")
            if self._begin:
                await reader.execute_fetchall("BEGIN")
            self._refuse_if_closed()  # meanwhile
        except BaseException:
            self._stop(reader)
            raise
        return reader

    def _refuse_if_closed(self) -> None:
        if self._closed:
            # A reader opened now would never be closed, and its thread would outlive main().
            raise StatementRefused(self.path, "the database is closed")


def uri(path: Path, query: str) -> str:
    """Give the name under which SQLite opens a file in a certain way."""
    return f"file:{quote(os.fsencode(path))}?{query}"
