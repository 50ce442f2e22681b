"""Statements of PostgreSQL: from a text with ``:name`` parameters to rows.

Owns the translation of our texts and the prepared statements of the writer. A list of keys is one
parameter, and so is each column of many rows: a text is one prepared statement however many there
are. Rows that are inserted wait, and go to the server together before whatever could see them.
Invariant: what goes wrong is a ``StorageError``. Connections are postgres.py's.
"""

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

import re
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol

import asyncpg

from storage.database import Numbers, Params, Row, Value
from storage.statements import NAME, ROW
from storage.tsvector import TSVECTOR

# Prepared statements of one connection: the writer has some 200, all constants.
PREPARED: Final = 500
# Texts of readers have no bound, as each query makes its own.
TRANSLATED: Final = 1_000

# Ids that are taken at once.
IDS: Final = 500

_KEYS: Final = re.compile(r"IN \(:keys\)")
_INTO: Final = re.compile(r"INSERT INTO (\w+)")
_NUMBER: Final = re.compile(r"\$(\d+)")
_WORD: Final = re.compile(r"\w+")
_SEQUENCES: Final = {"seq": "seqs", "id": "ids", "erasure": "erasure_ids"}
TAKE_NUMBERS: Final = "SELECT nextval('{}') FROM generate_series(1, CAST(:n AS BIGINT))"


class Text(NamedTuple):
    """A statement for PostgreSQL: ``$1`` and so on, and what picks their values."""

    sql: str
    names: tuple[str, ...]
    values: Callable[[Params], tuple[Value, ...]]


def translate(sql: str) -> Text:
    """Turn ``:name`` into ``$n``, the same one wherever the name is the same."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}"

    text = NAME.sub(number, _KEYS.sub("= ANY(:keys)", sql))
    return Text(text, tuple(names), _picking(tuple(names)))


def _picking(names: tuple[str, ...]) -> Callable[[Params], tuple[Value, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    # itemgetter gives no tuple for fewer than two.
    return lambda params: tuple(params[name] for name in names)


# The writer's texts are constants, but for few.
written: Final = lru_cache(TRANSLATED)(translate)
read: Final = lru_cache(TRANSLATED)(translate)


@cache
def _around(sql: str) -> tuple[str, str, str]:
    """Take an INSERT apart: what is before ``VALUES (...)``, a row of values, what is behind."""
    one = written(sql).sql
    found = ROW.search(one)
    if found is None:
        raise ValueError("no row of values")
    return one[: found.start()], re.sub(r"\$(\d+)", r"c\1", found[1][1:-1]), one[found.end() :]


def for_many(sql: str, types: Sequence[str]) -> str:
    """Make of an INSERT for one row that for many, each column of which is one list."""
    before, values, after = _around(sql)
    columns = range(1, len(types) + 1)
    lists = ", ".join(f"${n}::{kind}[]" for n, kind in zip(columns, types, strict=True))
    named = ", ".join(f"c{n}" for n in columns)
    return f"{before}SELECT {values} FROM unnest({lists}) AS given ({named}){after}"


@cache
def _table(sql: str) -> str:
    found = _INTO.search(sql)
    if found is None:
        raise ValueError("no table to insert into")
    return found[1]


@lru_cache(TRANSLATED)
def together(first: tuple[str, ...], last: str) -> str:
    """Make one statement of those before, which return nothing, and one with its rows.

    They all see the same state: none is about a table of another. Parameters follow each other.
    """
    parts = []
    n = 0
    for sql in (*first, last):
        parts.append(_NUMBER.sub(lambda found, n=n: f"${int(found[1]) + n}", sql))  # type: ignore[misc]
        n += max((int(number) for number in _NUMBER.findall(sql)), default=0)
    named = ", ".join(f"w{i} AS ({part})" for i, part in enumerate(parts[:-1]))
    return f"WITH {named} {parts[-1]}"


@lru_cache(TRANSLATED)
def is_apart(sql: str, tables: frozenset[str]) -> bool:
    """Tell whether a statement can go with rows of these tables: it is about none of them."""
    words = sql.split(None, 1)[0].upper() in ("SELECT", "UPDATE", "DELETE")
    return words and tables.isdisjoint(_WORD.findall(sql))


class Runs(Protocol):
    """What runs a coroutine on the loop of the writer's connection and waits for it."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it; what asyncpg raises comes out as a StorageError."""
        ...


class PostgresTransaction:
    """The open transaction of the writer's connection. Fulfils ``Transaction``."""

    __slots__ = ("_connection", "_ids", "_prepared", "_runner", "_waiting")

    full_text = TSVECTOR

    def __init__(self, runner: Runs, connection: asyncpg.Connection) -> None:
        self._runner = runner
        self._connection = connection
        self._prepared: OrderedDict[str, Any] = OrderedDict()
        self._ids: list[int] = []
        # By table: the INSERT, and its rows.
        self._waiting: dict[str, tuple[str, list[Any]]] = {}

    def execute(self, sql: str, params: Params) -> list[Row]:
        """Run one statement and return its rows."""
        text = written(sql)
        return self._fetch(text.sql, text.values(params))

    def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        """Run one statement that returns nothing for each of these."""
        text = written(sql)
        values = [text.values(row) for row in rows]
        if len(values) == 1:
            self._fetch(text.sql, values[0])
        elif values:
            self.flush()
            self._runner.run(self._run_many(text.sql, values))

    def insert_rows(self, sql: str, rows: Sequence[Params]) -> None:
        """Have many rows inserted before anything that could see them."""
        if not rows:
            return
        values = written(sql).values
        table = _table(sql)
        if table in self._waiting:
            self.flush()
        self._waiting[table] = sql, [values(row) for row in rows]

    def flush(self) -> None:
        """Insert what waits."""
        if self._waiting:
            self._runner.run(self._insert(None, ()))

    def look_up(self, sql: str, params: Params, keys: Sequence[Value]) -> list[Row]:
        """Run a statement for all these keys at once."""
        if not keys:
            return []
        text = written(sql)
        given: dict[str, Any] = {**params, "keys": keys}
        return self._fetch(text.sql, text.values(given))

    def take_numbers(self, of: Numbers, n: int) -> Sequence[int]:
        """Take so many numbers that nobody has or will have."""
        sql = TAKE_NUMBERS.format(_SEQUENCES[of])
        if of != "id":
            return [row[0] for row in self.execute(sql, {"n": n})]
        # Their order means nothing, so that many are taken at once, also for later transactions.
        if len(self._ids) < n:
            self._ids += (row[0] for row in self.execute(sql, {"n": max(n, IDS)}))
        taken, self._ids = self._ids[:n], self._ids[n:]
        return taken

    def forget(self) -> None:
        """Prepare all statements anew."""
        self._prepared.clear()

    def begin(self) -> None:
        """Have nothing that waits, at the beginning of a transaction."""
        self._waiting.clear()

    def _fetch(self, sql: str, values: tuple[Any, ...]) -> list[Row]:
        found: list[Row]
        if not self._waiting:
            found = self._runner.run(self._run_one(sql, values))
        elif is_apart(sql, frozenset(self._waiting)):
            found = self._runner.run(self._insert(sql, values))
        else:
            found = self._runner.run(self._insert_before(sql, values))
        return found

    async def _run_one(self, sql: str, values: Sequence[Any]) -> list[Row]:
        statement = self._prepared.get(sql) or await self._prepare(sql)
        return [tuple(row) for row in await statement.fetch(*values)]

    async def _run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> None:
        statement = self._prepared.get(sql) or await self._prepare(sql)
        await statement.executemany(values)

    async def _insert_before(self, sql: str, values: tuple[Any, ...]) -> list[Row]:
        await self._insert(None, ())
        return await self._run_one(sql, values)

    async def _insert(self, sql: str | None, values: tuple[Any, ...]) -> list[Row]:
        """Insert what waits, and run a statement with it."""
        inserts, columns = [], []
        for insert, rows in self._waiting.values():
            if len(rows) == 1:  # lists of wide rows cost the server a millisecond
                inserts.append(written(insert).sql)
                columns += rows[0]
            else:
                inserts.append(_MANY.get(insert) or await self._for_many(insert))
                columns += zip(*rows, strict=True)
        self._waiting.clear()
        last = inserts.pop() if sql is None else sql
        whole = together(tuple(inserts), last) if inserts else last
        return await self._run_one(whole, (*columns, *values))

    async def _for_many(self, sql: str) -> str:
        one = await self._connection.prepare(written(sql).sql)
        many = _MANY[sql] = for_many(sql, [kind.name for kind in one.get_parameters()])
        return many

    async def _prepare(self, sql: str) -> Any:
        statement = self._prepared[sql] = await self._connection.prepare(sql)
        if len(self._prepared) > PREPARED:
            self._prepared.popitem(last=False)
        return statement


# By the texts for one row: the types of their columns are the same for all connections.
_MANY: Final[dict[str, str]] = {}
