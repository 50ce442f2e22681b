"""The PostgreSQL database into which another is moved: what it holds of it, and how far.

Invariants: rows and the place that they reach are one transaction, so after any end at all the
next run goes on behind them; while a move is unfinished the table ``moves`` is there, and no server
may work on the database (transport_mark.py). Indexes are taken away for as long as rows come, and
made anew from what ``moves`` says of them. Knows nothing of where the rows come from.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import asyncpg
import msgspec

from storage.database import Row, StorageError
from storage.postgres import ALL
from storage.postgres_address import address_of, connect
from storage.postgres_errors import REFUSALS, refusal
from storage.postgres_migrate import check, latest, migrate
from storage.transport_mark import IS_UNFINISHED, refuse_unfinished
from storage.transport_source import NUMBERS, Table, encode

# ruff: noqa: S608 (the SQL below is put together from names of the schema, never from values)

SETTINGS: Final = {
    # What is lost with a crash of the server was not told as done: rows and place go together.
    "synchronous_commit": "off",
    # Indexes are made in so much memory, and take as long as they take.
    "maintenance_work_mem": "256MB",
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    # After `kill -9` the server is still at work for whoever is gone: it looks for them this often,
    # also while it makes an index, and then undoes what they had begun. So long is waited for it.
    "client_connection_check_interval": "2s",
    "lock_timeout": "60s",
}
# A server says so often enough that it is there.
HEARD_S: Final = 30

# Of all that is written: nobody else may meanwhile, neither a server nor another move.
LOCK: Final = f"SELECT pg_advisory_lock({ALL})"
UNLOCK: Final = f"SELECT pg_advisory_unlock({ALL})"

MAKE_MOVES: Final = """
CREATE TABLE moves (
  source BYTEA NOT NULL,
  state BYTEA NOT NULL,
  place TEXT NOT NULL,
  reached BYTEA,
  row_count BIGINT NOT NULL,
  indexes TEXT[] NOT NULL,
  began_at_us BIGINT NOT NULL
)"""
BEGIN_MOVE: Final = """
INSERT INTO moves (source, state, place, row_count, indexes, began_at_us)
VALUES ($1, $2, '', 0, $3, $4)"""
READ_MOVE: Final = "SELECT source, state, place, reached, row_count FROM moves"
REACH: Final = "UPDATE moves SET place = $1, reached = $2, row_count = row_count + $3"
# Without what a key needs, which stays: it costs little where rows come in its order.
INDEXES: Final = """
SELECT i.indexname, i.indexdef FROM pg_indexes i WHERE i.schemaname = current_schema()
AND i.tablename = ANY($1::text[]) AND NOT EXISTS (
  SELECT 1 FROM pg_constraint c WHERE c.conindid = (
    quote_ident(i.schemaname) || '.' || quote_ident(i.indexname))::regclass)
ORDER BY i.indexname"""
COLUMNS: Final = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND is_generated = 'NEVER'"""
# Where the largest number of each kind stands.
NUMBERED: Final = {
    "seqs": (("spans", "seq"), ("traces", "seq"), ("traces", "opened_seq"), ("sessions", "seq")),
    "ids": (("contents", "id"), ("nodes", "id")),
    "erasure_ids": (("erasures", "id"),),
}


class Reached(msgspec.Struct, frozen=True):
    """How far a move is: the table, the key of the last row of it, and rows of all tables."""

    place: str
    key: Row | None
    row_count: int


class Target:
    """A database that is being filled. Made by ``open_target``."""

    def __init__(self, connection: Any, place: str) -> None:
        self.connection = connection
        self.place = place

    async def read(self, sql: str, *values: Any) -> list[Row]:
        """Run one statement with ``$n`` for values and give its rows."""
        with refusals(self.place):
            return [tuple(row.values()) for row in await self.connection.fetch(sql, *values)]

    async def run(self, sql: str) -> None:
        """Run statements that return nothing."""
        with refusals(self.place):
            await self.connection.execute(sql)

    async def begin(self, tables: Sequence[Table], identity: bytes, state: bytes) -> Reached:
        """Begin a move of these tables, or give how far the one is that was begun.

        Raises a StorageError where something else is there.
        """
        # Before others must wait: a server may be at work on one that was named by mistake.
        with refusals(self.place):
            await check(self.connection, self.place)
        there = await self._columns()
        if "moves" not in there and "owners" in there:
            await self._refuse_full([table for table in tables if table.name in there])
        await self.run(LOCK)
        if not (begun := await self.is_unfinished()):
            with refusals(self.place):
                await migrate(self.connection, self.place)
        columns = await self._columns()
        for table in tables:
            if missing := {*table.columns} - columns.get(table.name, set()):
                problem = f"its table {table.name} has no {', '.join(sorted(missing))}"
                raise StorageError(self.place, problem, "use one version of the program for both")
        if begun:
            return await self._resume(identity, state)
        await self._refuse_full(tables)
        names = [table.name for table in tables]
        indexes = await self.read(INDEXES, names)
        definitions = [definition for _, definition in indexes]
        now_us = time.time_ns() // 1_000
        with refusals(self.place):
            async with self.connection.transaction():
                await self.connection.execute(MAKE_MOVES)
                await self.connection.execute(BEGIN_MOVE, identity, state, definitions, now_us)
                for name, _ in indexes:
                    await self.connection.execute(f'DROP INDEX "{name}"')
                await self.connection.execute("DELETE FROM projects; DELETE FROM counters")
        return Reached("", None, 0)

    async def put(self, table: Table, rows: Sequence[Row], last: Row) -> None:
        """Take rows of a table, and the place that they reach with them.

        ``last`` is the last of them as the source has it: a key that was fitted is in another place
        of the order. Raises HasNul where a text has a NUL; nothing is taken then.
        """
        reached = encode(table.key_of(last))
        with refusals(self.place):
            async with self.connection.transaction():
                await self.connection.copy_records_to_table(
                    table.name, records=rows, columns=table.columns
                )
                await self.connection.execute(REACH, table.name, reached, len(rows))

    async def is_unfinished(self) -> bool:
        """Tell whether a move into it was begun and not ended."""
        return bool((await self.read(IS_UNFINISHED))[0][0])

    async def missing_indexes(self) -> list[str]:
        """Give the definitions of the indexes that were taken away and are not made yet."""
        ((definitions,),) = await self.read("SELECT indexes FROM moves")
        there = {
            definition
            for (definition,) in await self.read(
                "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()"
            )
        }
        return [definition for definition in definitions if definition not in there]

    async def set_numbers(self, counters: Mapping[str, int]) -> None:
        """Set everything that gives numbers behind the largest that is there, or was given."""
        for counter, sequence in NUMBERS.items():
            most = [f"SELECT MAX({column}) FROM {table}" for table, column in NUMBERED[sequence]]
            parts = ", ".join(f"({text})" for text in most)
            await self.read(
                f"SELECT setval('{sequence}', GREATEST($1::bigint, {parts}, 1),"
                f" GREATEST($1::bigint, {parts}) > 0)",
                counters.get(counter, 0),
            )
        for table, column in await self._identities():
            await self.read(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), MAX({column}))"
                f" FROM {table} HAVING MAX({column}) IS NOT NULL"
            )

    async def number_of(self, sequence: str) -> int:
        """Give the last number that was given, or set."""
        ((last, is_called),) = await self.read(f"SELECT last_value, is_called FROM {sequence}")
        return int(last) if is_called else 0

    async def end(self) -> None:
        """Say that all is there."""
        with refusals(self.place):
            async with self.connection.transaction():
                await self.connection.execute("SET LOCAL synchronous_commit = on")
                await self.connection.execute("DROP TABLE moves")
        await self.run(UNLOCK)

    async def tidy(self, table: str) -> None:
        """Have the planner know what is in a table after a bulk of rows came or went.

        Each first read of a page would mark its rows as visible, too.
        """
        await self.run(f"VACUUM (ANALYZE) {table}")

    async def refuse_other(self) -> None:
        """Refuse what nothing was moved into, or not everything.

        Raises a StorageError.
        """
        with refusals(self.place):
            await refuse_unfinished(self.connection, self.place)
            if await check(self.connection, self.place) != latest():
                problem = "it is empty, or of an older version"
                raise StorageError(self.place, problem, "move the other into it")

    async def close(self) -> None:
        """Close the connection, whether or not the server still answers."""
        if not self.connection.is_closed():
            self.connection.terminate()

    async def _identities(self) -> list[tuple[str, str]]:
        found = await self.read(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND is_identity = 'YES' ORDER BY 1"
        )
        return [(str(table), str(column)) for table, column in found]

    async def _columns(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for table, column in await self.read(COLUMNS):
            found.setdefault(table, set()).add(column)
        return found

    async def _resume(self, identity: bytes, state: bytes) -> Reached:
        ((begun, was, place, reached, row_count),) = await self.read(READ_MOVE)
        with refusals(self.place):
            version = await check(self.connection, self.place)
        if version != latest():
            problem = "an older version of this program began the move into it"
            raise StorageError(self.place, problem, "drop this database and make it anew")
        remedy = "go on with that one, or drop this database and make it anew"
        if begun != identity:
            raise StorageError(self.place, "it holds a part of another database", remedy)
        if was != state:
            problem = "a server has worked on the source since this move of it began"
            raise StorageError(self.place, problem, "drop this database and make it anew")
        key = None if reached is None else tuple(msgspec.msgpack.decode(reached))
        return Reached(place, key, row_count)

    async def _refuse_full(self, tables: Sequence[Table]) -> None:
        problem = "it is not empty"
        remedy = "name an empty one; --proof-only compares what was moved before"
        for table in tables:
            rows = await self.read(f"SELECT 1 FROM {table.name} LIMIT 2")
            if table.name == "projects":
                rows = rows[1:]
            if table.name == "counters":
                rows = await self.read(
                    "SELECT 1 FROM counters WHERE value > 0 AND name <> 'grants'"
                )
            if rows:
                raise StorageError(self.place, f"{problem} ({table.name} has rows)", remedy)
        # A server that was started on it says that it is there before it writes anything.
        heard = await self.read(
            "SELECT 1 FROM owners"
            f" WHERE heard_at > clock_timestamp() - INTERVAL '{HEARD_S} seconds'"
        )
        if heard:
            raise StorageError(self.place, "a server has it open", "stop it, and wait for 30 s")


async def open_target(url: str) -> Target:
    """Connect to a database.

    Raises a StorageError, which never has the password in it.
    """
    address = address_of(url)
    return Target(await connect(address, SETTINGS), address.place)


class HasNul(StorageError):
    """A text has a NUL, which PostgreSQL cannot hold."""


@contextmanager
def refusals(place: str) -> Iterator[None]:
    """Raise what asyncpg raises as ours."""
    try:
        yield
    except asyncpg.CharacterNotInRepertoireError as error:
        raise HasNul(place, f"it refused a text ({error})", "report this as a bug") from error
    except REFUSALS as error:
        raise refusal(place, error) from error
