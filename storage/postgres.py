"""PostgreSQL: one database for any number of servers, each with one connection that writes.

Invariants: a transaction has the locks of the projects that it writes to before it reads anything,
taken in one order by all; who names none has what stands beside anybody who names some. Nothing
waits for ever: not for an address, a lock, a peer or a statement, but for those that change or
rewrite all tables. A connection that is lost is
replaced by the next transaction. The writer's connection lives on an event loop of its own, which
runs while a statement does, in the thread that asked for it.
"""

import asyncio
import math
import threading
import time
from collections.abc import Collection, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final

import asyncpg

from storage.database import (
    CommitUnknown,
    DatabaseLocked,
    StatementRefused,
    StorageError,
    TookTooLong,
)
from storage.postgres_address import IDLE_MS, Address, address_of, connect
from storage.postgres_errors import REFUSALS, Unreachable, is_of_a_standby, is_stale, line, refusal
from storage.postgres_migrate import migrate
from storage.postgres_readers import PostgresReaders, PostgresSnapshot
from storage.postgres_statements import PostgresTransaction
from storage.transport_mark import refuse_unfinished

# Advisory locks of the writers. They are of the whole database, which may have several schemas with
# recordings: in one, 0 is all projects, and else it is a project's number, of nine digits at most.
SCHEMA: Final = "hashtext('traceway writes ' || current_schema())"
ALL: Final = f"{SCHEMA}, 0"
# Whoever has its locks later than this has waited for another server. By the clock of the database,
# so that the way to it counts for nothing; told by the number of rows.
WAIT_MS: Final = 10
WAITED: Final = "SELECT 1"
# The server ends a statement that takes longer, with its locks; what is written at a time is small.
STATEMENT_S: Final = 60.0
# Where it does not, the connection is given up.
GIVE_UP_S: Final = STATEMENT_S + 10.0
# The limit is set anew when so much of it has passed, as that costs more than to look at a clock.
REARM_S: Final = 5.0
CLOSE_S: Final = 2.0
# The server ends a transaction that did nothing for so long, and only closes its connection.
IDLE_S: Final = IDLE_MS / 1_000


def open_postgres(
    url: str, *, synchronous_commit: bool = True, query_timeout_s: float | None = None
) -> "PostgresDatabase":
    """Open the database at ``postgresql://user:password@host:port/name``, migrated where needed.

    ``synchronous_commit``: what was committed outlives a crash of the server. ``query_timeout_s``
    is what a read may take; None: no limit.
    Raises a StorageError, which never has the password in it.
    """
    database = PostgresDatabase(
        address_of(url), synchronous_commit=synchronous_commit, query_timeout_s=query_timeout_s
    )
    try:
        database.migrate()
    except BaseException:
        database.abandon()
        raise
    return database


def open_postgres_snapshot(url: str) -> PostgresSnapshot:
    """Open a database to look at it as it is at the first read, whoever writes to it meanwhile."""
    return PostgresSnapshot(address_of(url))


class PostgresDatabase(PostgresReaders):
    """An open database of PostgreSQL. Fulfils ``Database``; ``open_postgres`` makes it."""

    has_left = False  # the server sees to that

    def __init__(
        self,
        address: Address,
        *,
        synchronous_commit: bool = True,
        query_timeout_s: float | None = None,
    ) -> None:
        super().__init__(address, timeout_s=query_timeout_s)
        self._writer_settings = {
            "synchronous_commit": "on" if synchronous_commit else "off",
            "statement_timeout": str(int(STATEMENT_S * 1000)),
        }
        self._loop = _new_loop()
        # For callers whose own thread runs a loop.
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="postgres")
        self._turn = threading.Lock()
        self._holder: int | None = None
        self._connection: Any = None
        self._transaction: PostgresTransaction | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._armed_at_s = -math.inf
        self._ended_at_s = self._idle_s = 0.0
        self.has_waited = False

    def migrate(self) -> None:
        """Bring the schema up to date.

        Raises a StorageError.
        """
        with self._taken():
            self._connect()
            self.run(refuse_unfinished(self._connection, self.place))
            with self._unhurried():
                self.run(migrate(self._connection, self.place))

    @contextmanager
    def transaction(self, projects: Collection[int] | None = None) -> Iterator[PostgresTransaction]:
        """Open a write transaction: committed at the end of the block, undone by any exception.

        Any thread may, one at a time. Raises DatabaseUnwritable where the server cannot be reached
        and DatabaseLocked where another server holds a project for too long: both may pass with
        time.
        """
        with self._taken():
            transaction = self._begin(_begin_text(projects))
            try:
                yield transaction
                self._commit()
            except BaseException:
                self._undo()
                raise

    def _begin(self, text: str) -> PostgresTransaction:
        try:
            self.has_waited = self._run_first(text) == WAITED
        except BaseException as error:
            self.has_waited = isinstance(error, DatabaseLocked)
            self._undo()
            raise
        if self._transaction is None:
            raise Unreachable(self.place, "the connection was lost")
        self._transaction.begin()
        return self._transaction

    def _run_first(self, text: str) -> str:
        """Run what begins a transaction, and give what is said of its last statement.

        Once more where the connection was lost while nobody used it.
        """
        while True:
            is_new = self._connect()
            self._ended_at_s = time.monotonic()
            try:
                return str(self.run(self._connection.execute(text)))
            except Unreachable:
                self._drop()
                if is_new:
                    raise

    def _commit(self) -> None:
        if self._transaction is not None:
            self._transaction.flush()
        try:
            said = self.run(self._connection.execute("COMMIT"))
        except Unreachable as error:
            raise CommitUnknown(self.place, line(error.__cause__ or error)) from error
        if said != "COMMIT":
            raise StatementRefused(self.place, "the transaction had failed, and was undone")

    def _undo(self) -> None:
        if self._connection is None:
            return
        try:
            self.run(self._connection.execute("ROLLBACK"))
        except StorageError:
            self._drop()

    @contextmanager
    def _taken(self) -> Iterator[None]:
        """Have the writer's connection, one thread at a time."""
        own = threading.get_ident()
        if self._holder == own:
            raise StatementRefused(self.place, "a transaction is open already")
        with self._turn:
            self._holder = own
            try:
                yield
            finally:
                self._holder = None

    def _connect(self) -> bool:
        """Have a connection; tell whether it was opened just now."""
        if self._connection is not None and not self._connection.is_closed():
            return False
        if self._loop.is_closed():
            raise StatementRefused(self.place, "the database is closed")
        self._drop()
        self._connection = self.run(
            connect(self._address, self._writer_settings, statement_cache_size=0)
        )
        self._transaction = PostgresTransaction(self, self._connection)
        return True

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._transaction = None
        if connection is not None:
            with suppress(*REFUSALS, RuntimeError):
                connection.terminate()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something of the writer's connection and wait for it.

        Raises a StorageError for what asyncpg raises.
        """
        try:
            # A thread can run but one loop.
            if asyncio._get_running_loop() is None:
                return self._drive(work)
            return self._beside.submit(self._drive, work).result()
        except REFUSALS as error:
            if self._transaction is not None and is_stale(error):
                self._transaction.forget()
            found = refusal(self.place, error)
            is_closed = self._connection is not None and self._connection.is_closed()
            if is_closed and self._idle_s >= IDLE_S:
                self._drop()
                found = TookTooLong(self.place, f"{self._idle_s:.0f} s between two statements")
            elif is_of_a_standby(error):
                self._drop()
                self.open_anew()
            elif is_closed or isinstance(error, asyncpg.InternalClientError):
                self._drop()
                found = Unreachable(self.place, line(error))
            raise found from error

    def _drive(self, work: Coroutine[Any, Any, Any]) -> Any:
        now_s = time.monotonic()
        self._idle_s = now_s - self._ended_at_s
        if now_s - self._armed_at_s > REARM_S:
            self._armed_at_s = now_s
            if self._limit is not None:
                self._limit.cancel()
            self._limit = self._loop.call_later(GIVE_UP_S, self._give_up)
        try:
            return self._loop.run_until_complete(work)
        finally:
            self._ended_at_s = time.monotonic()

    def _give_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()

    def reclaim(self, *, begin: bool = False) -> bool:
        """Give back nothing, whatever was deleted: the server does that by itself (autovacuum)."""
        return False

    async def size_bytes(self) -> int:
        """Give an estimate of what the rows that are kept take, with their indexes.

        The files of the server do not tell: they hardly ever get smaller when rows are deleted.
        """
        ((size,),) = await self.read(SIZE, {})
        return int(size)

    def tend(self, *, idle: bool = False) -> bool:
        """Tend nothing: the server does."""
        return False

    def vacuum(self) -> None:
        """Write every table anew without anything that was deleted, however long it takes."""
        with self._taken():
            self._connect()
            self.run(self._connection.execute("SET statement_timeout = 0"))
            try:
                with self._unhurried():
                    for table in self.run(self._connection.fetch(OUR_TABLES)):
                        self.run(self._connection.execute(f'VACUUM (FULL, ANALYZE) "{table[0]}"'))
            finally:
                if self._connection is not None:
                    self.run(self._connection.execute("RESET statement_timeout"))

    @contextmanager
    def _unhurried(self) -> Iterator[None]:
        """Have what is done meanwhile take as long as it takes."""
        if self._limit is not None:
            self._limit.cancel()
        self._armed_at_s = math.inf
        try:
            yield
        finally:
            self._armed_at_s = -math.inf

    async def close(self) -> None:
        """Close every connection, after the writer's thread has ended."""
        await super().close()
        await asyncio.to_thread(self.abandon)

    def abandon(self) -> None:
        """Close the writer's connection."""
        with self._taken():
            if self._loop.is_closed():
                return
            if self._connection is not None:
                with suppress(StorageError):
                    self.run(self._connection.close(timeout=CLOSE_S))
            self._drop()
            if self._limit is not None:
                self._limit.cancel()
            self._beside.submit(self._end_loop).result()
            self._beside.shutdown()

    def _end_loop(self) -> None:
        self._loop.run_until_complete(asyncio.sleep(0))  # what was closed is told so
        self._loop.close()


# What a call takes beside its texts: its row, those of its messages and words, and their indexes.
SPAN_BYTES: Final = 2048
TRACE_BYTES: Final = SPAN_BYTES // 2
SIZE: Final = f"""
SELECT CAST(COALESCE(SUM(
  stored_bytes + {SPAN_BYTES} * span_count + {TRACE_BYTES} * trace_count), 0) AS BIGINT)
FROM project_totals
"""  # noqa: S608 (of constants)
OUR_TABLES: Final = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = CAST(quote_ident(current_schema()) AS regnamespace) AND c.relkind = 'r'
"""


def _begin_text(projects: Collection[int] | None) -> str:
    """Begin, take the locks in the order that all keep, and tell of a wait, in one round trip."""
    took = "clock_timestamp() - statement_timestamp()"
    wait = f"SELECT 1 WHERE {took} > INTERVAL '{WAIT_MS:d} milliseconds'"
    if projects is None:
        return f"BEGIN; SELECT pg_advisory_xact_lock({ALL}); {wait}"
    locks = "".join(
        f", pg_advisory_xact_lock({SCHEMA}, {project_id:d})" for project_id in sorted(set(projects))
    )
    return f"BEGIN; SELECT pg_advisory_xact_lock_shared({ALL}){locks}; {wait}"


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not on every system
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
