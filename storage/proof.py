"""Whether a database that was moved is what it was: figures of both, side by side.

Owns what is compared: the rows of each table and a digest over all their values in the order of
their keys, or in any where some had to be fitted; the sums of what is summed; the chain of
conversations and the bytes of contents, which are hashed anew; the numbers that will be given next.
Invariant: each figure of the one is computed by the same code as that of the other, out of the rows
as the database gives them. Writes nothing.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeAlias

from storage.chain import BEGINNING, node_hash
from storage.contents import unpack
from storage.database import DatabaseCorrupt, Row
from storage.transport_source import NUMBERS, Fit, Source, Table, encode
from storage.transport_target import Target, refusals

# ruff: noqa: S608 (the SQL below is put together from names of the schema, never from values)

# Tables whose rows are sums, or what they are sums of, and how the names of such columns end.
SUMMED: Final = ("project_totals", "sessions", "spans", "traces")
SUMS_END: Final = (
    *("_tokens", "_nusd", "_bytes", "_count", "_traces", "_duration_us", "_size", "duration_us"),
)
# Rows that are in memory at a time; contents are as long as a body may be.
ROWS_AT_ONCE: Final = 500
CONTENTS_AT_ONCE: Final = 16
# Both halves of a number by themselves: the sum of a column can have more than 64 bits.
SUM: Final = "SUM({0} >> 32), SUM({0} & 4294967295)"
CONTENTS: Final = "SELECT sha256, encoding, size, data FROM contents ORDER BY id"
CHAIN: Final = """
SELECT n.hash, p.hash, n.lead, c.sha256, n.parent_id
FROM nodes n LEFT JOIN nodes p ON p.id = n.parent_id LEFT JOIN contents c ON c.id = n.content_id
ORDER BY n.id"""
TARGET_READ_AS: Final = {
    "unindexed": """(
  SELECT content_id FROM unindexed UNION ALL SELECT content_id FROM messages_fts) AS waiting""",
}

Figure: TypeAlias = int | str | None


@dataclass(frozen=True, slots=True)
class Line:
    """A figure of both databases. ``note`` says what made them equal, where not they themselves."""

    what: str
    source: Figure
    target: Figure
    is_equal: bool
    note: str = ""


class Tell(Protocol):
    """Who is told what is being compared."""

    def __call__(self, what: str) -> None:
        """Hear what is compared next."""
        ...


async def prove(source: Source, target: Target, tell: Tell) -> AsyncIterator[Line]:
    """Compare all that was moved, figure by figure.

    Raises a StorageError where one is out of reach, or the move is not finished.
    """
    await target.refuse_other()
    for table in source.tables:
        tell(table.name)
        for line in await _compare(source, target, table):
            yield line
    for table in source.tables:
        if table.name in SUMMED:
            tell(f"sums of {table.name}")
            for line in await _sums(source, target, table):
                yield line
    for what, sql, kind in (
        ("chain hashes", "SELECT hash FROM nodes ORDER BY id", _Digest),
        ("SHA-256 of contents", "SELECT sha256 FROM contents ORDER BY id", _Digest),
        ("contents whose bytes have their SHA-256", CONTENTS, partial(_Judged, _has_its_bytes)),
        ("nodes whose hash follows from their parent's", CHAIN, partial(_Judged, _follows)),
    ):
        tell(what)
        here, there = kind(), kind()
        async with _beside(source, here.take, source.each(sql)):
            async for rows in rows_of(target, sql, _at_once(sql == CONTENTS)):
                there.take(rows)
        yield _line(what, here.text, there.text)
    for line in await _numbers(source, target):
        yield line


def _line(what: str, of_source: Figure, of_target: Figure, note: str = "") -> Line:
    return Line(what, of_source, of_target, of_source == of_target, note)


class _Digest:
    """A digest over rows, in the order in which they come."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.rows = 0

    def take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows += 1
            self._hash.update(encode(row))

    @property
    def text(self) -> str:
        return self._hash.hexdigest()[:32]


class _Unordered(_Digest):
    """A digest over rows, in whatever order they come: those of each by itself, added up."""

    def __init__(self) -> None:
        super().__init__()
        self._sum = 0

    def take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows += 1
            self._sum += int.from_bytes(hashlib.sha256(encode(row)).digest(), "big")

    @property
    def text(self) -> str:
        return f"{self._sum % 2**256:064x}"[:32]


async def _compare(source: Source, target: Target, table: Table) -> list[Line]:
    """Compare a table: its number of rows, and all columns of them."""
    fit = Fit(table)
    there, here = _Digest(), _Digest()
    async with _beside(source, _take_all, here, source, table, fit.cut_row):
        async for rows in rows_of(target, _text_of(table), _at_once(table.name == "contents")):
            there.take(rows)
    if here.text != there.text:
        # It may have been written without its NULs, which PostgreSQL cannot hold; and a key that
        # was fitted stands elsewhere in their order.
        fitted, again, fit = _Unordered(), _Unordered(), Fit(table)
        async with _beside(
            source, _take_all, fitted, source, table, lambda row: fit.without_nuls(fit.cut_row(row))
        ):
            async for rows in rows_of(target, _text_of(table), _at_once(table.name == "contents")):
                again.take(rows)
        if fit.cut or fit.without_nul:
            here, there = fitted, again
    notes = []
    if fit.cut:
        notes.append(f"{fit.cut:,} texts cut to what an index can hold")
    if fit.without_nul:
        notes.append(f"{fit.without_nul:,} texts with U+FFFD for NUL")
    name = "messages in or before the search" if table.name == "unindexed" else table.name
    return [
        _line(f"{name}: rows", here.rows, there.rows),
        _line(f"{name}: digest of all columns", here.text, there.text, "; ".join(notes)),
    ]


def _take_all(digest: _Digest, source: Source, table: Table, fit: Callable[[Row], Row]) -> None:
    digest.take(map(fit, source.rows(table)))


@asynccontextmanager
async def _beside(source: Source, work: Callable[..., None], *given: object) -> AsyncIterator[None]:
    """Read the source in another thread while the block runs; both have ended then."""
    reading = asyncio.get_running_loop().run_in_executor(None, work, *given)
    try:
        yield
        await asyncio.shield(reading)
    except BaseException:
        # Of Ctrl-C among others: the connection is closed then, and nobody may be reading.
        source.interrupt()
        await asyncio.wait([reading])
        reading.exception()
        raise


def _text_of(table: Table) -> str:
    return (
        f"SELECT {', '.join(table.columns)}"
        f" FROM {TARGET_READ_AS.get(table.name, table.name)} ORDER BY {', '.join(table.key)}"
    )


def _at_once(of_contents: bool) -> int:
    return CONTENTS_AT_ONCE if of_contents else ROWS_AT_ONCE


async def rows_of(target: Target, sql: str, at_once: int) -> AsyncIterator[list[Row]]:
    """Give the rows of a SELECT, so many at a time, of one state of the target."""
    with refusals(target.place):
        async with target.connection.transaction(isolation="repeatable_read", readonly=True):
            # From the first row on in the order of the key, in place of sorting all before.
            await target.connection.execute("SET LOCAL cursor_tuple_fraction = 0.001")
            cursor = await target.connection.cursor(sql)
            while rows := await cursor.fetch(at_once):
                yield [tuple(row) for row in rows]


async def _sums(source: Source, target: Target, table: Table) -> list[Line]:
    columns = [name for name in table.columns if name.endswith(SUMS_END)]
    sql = f"SELECT {', '.join(map(SUM.format, columns))} FROM {table.name}"
    found: list[Row] = []
    async with _beside(source, lambda: found.extend(source.read(sql))):
        (of_target,) = await target.read(sql)
    (of_source,) = found
    return [
        _line(
            f"{table.name}: sum of {name}",
            _whole(*of_source[2 * n : 2 * n + 2]),
            _whole(*of_target[2 * n : 2 * n + 2]),
        )
        for n, name in enumerate(columns)
    ]


def _whole(high: int | None, low: int | None) -> int | None:
    return None if high is None or low is None else (int(high) << 32) + int(low)


class _Judged:
    """How many rows are right, of how many."""

    def __init__(self, judge: Callable[[Row], bool]) -> None:
        self._judge = judge
        self._right = self._rows = 0

    def take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._rows += 1
            self._right += self._judge(row)

    @property
    def text(self) -> str:
        return f"{self._right:,} of {self._rows:,}"


def _has_its_bytes(row: Row) -> bool:
    sha256, encoding, size, data = row
    try:
        return bool(hashlib.sha256(unpack(encoding, size, data)).digest() == sha256)
    except DatabaseCorrupt:
        return False


def _follows(row: Row) -> bool:
    own, parent, lead, sha256, parent_id = row
    if sha256 is None or (parent is None) != (parent_id is None):
        return False
    return bool(node_hash(parent or BEGINNING, lead, sha256) == own)


async def _numbers(source: Source, target: Target) -> list[Line]:
    """Compare the last number that was given of each kind: the target may be further."""
    counters: dict[str, int] = dict(source.read("SELECT name, value FROM counters"))
    found = []
    for counter, sequence in NUMBERS.items():
        last = await target.number_of(sequence)
        was = counters[counter]
        note = "" if last == was else "the target may be further"
        found.append(Line(f"last number of {sequence}", was, last, last >= was, note))
    return found
