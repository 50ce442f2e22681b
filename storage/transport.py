"""Moving a whole database from SQLite to PostgreSQL, in pieces, as often as it takes.

Invariants: the source stands still (transport_source.py), and what has crossed and how far is one
transaction of the target (transport_target.py), so a move that ends anywhere is gone on with by
running it again. No row is left out and no value changed in silence: what the other database cannot
hold is fitted to it and counted. That all is there is not claimed here but proved, by proof.py.

Order: rows of each table in the order of its key, then the indexes, then the numbers. Full text is
not moved; all messages wait for it, as those that were just recorded do (`index_all`).
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from storage.database import Database, Row
from storage.fulltext import TextOf, index
from storage.transport_source import Fit, Source, Table
from storage.transport_target import HasNul, Reached, Target

COUNTERS: Final = "SELECT name, value FROM counters"
# Messages that come into the full text in one transaction, and most of their bytes.
INDEX_MESSAGES: Final = 1_000
INDEX_BYTES: Final = 4 * 1024 * 1024
WAITING: Final = "SELECT COUNT(*) FROM unindexed"


class Tell(Protocol):
    """Who is told how far a move is."""

    def __call__(self, what: str, done: int, of: int) -> None:
        """Hear that of so many rows or steps of something so many are done."""
        ...


@dataclass(slots=True)
class Moved:
    """What a run has moved.

    ``before`` rows had crossed already. ``cut`` and ``without_nul``: by table, the values that were
    too long for an index, or had a NUL in place of which there is a U+FFFD now.
    """

    before: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    without_nul: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


async def move(source: Source, target: Target, tell: Tell) -> Moved:
    """Move everything, or what is left of it. The target has its schema already.

    Raises a StorageError: another database, or other rows, are there, or one is out of reach.
    """
    began = time.monotonic()
    reached = await target.begin(source.tables, source.identity(), source.state())
    moved = Moved(before=reached.row_count)
    total = sum(map(source.count, source.tables))
    for table in _left(source.tables, reached):
        tell(table.name, reached.row_count + moved.rows.total(), total)
        key = reached.key if table.name == reached.place else None
        fit = Fit(table)
        async for rows in _put(source, target, table, key, fit):
            moved.rows[table.name] += rows
            tell(table.name, reached.row_count + moved.rows.total(), total)
        if fit.cut:
            moved.cut[table.name] = fit.cut
        if fit.without_nul:
            moved.without_nul[table.name] = fit.without_nul
    await _finish(source, target, tell)
    moved.seconds = time.monotonic() - began
    return moved


def _left(tables: Sequence[Table], reached: Reached) -> Iterator[Table]:
    """Give the tables that are not there whole; they have the order of their names."""
    return (table for table in tables if table.name >= reached.place)


async def _put(
    source: Source, target: Target, table: Table, key: Row | None, fit: Fit
) -> AsyncIterator[int]:
    """Move the rows of a table behind a key; give how many there were of each piece."""
    loop = asyncio.get_running_loop()
    pieces = source.pieces(table, key)
    # While one piece is being written, the next is read.
    coming = loop.run_in_executor(None, next, pieces, None)
    try:
        while (piece := await asyncio.shield(coming)) is not None:
            coming = loop.run_in_executor(None, next, pieces, None)
            rows = [fit.cut_row(row) for row in piece]
            try:
                await target.put(table, rows, piece[-1])
            except HasNul:
                rows = [fit.without_nuls(row) for row in rows]
                await target.put(table, rows, piece[-1])
            yield len(rows)
    finally:
        # The connection is closed by whoever called, and a thread must not be reading from it.
        await asyncio.wait([coming])
        coming.exception()
        pieces.close()


async def _finish(source: Source, target: Target, tell: Tell) -> None:
    """Make the indexes that are missing, set the numbers, and say that all is there."""
    missing = await target.missing_indexes()
    for n, definition in enumerate(missing):
        tell("indexes", n, len(missing))
        await target.run(definition)
    await target.set_numbers(dict(source.read(COUNTERS)))
    for n, table in enumerate(source.tables):
        tell("statistics", n, len(source.tables))
        await target.tidy(table.name)
    await target.end()


def index_all(db: Database, text_of: TextOf, tell: Tell) -> int:
    """Bring all messages into the full text, as servers do that have nothing else to do.

    Return how many still wait then: those whose bytes are not there.
    Raises a StorageError; what was done until then stays.
    """
    with db.transaction(()) as tx:
        ((waiting,),) = tx.execute(WAITING, {})
    done, n = 0, 1
    while n:
        tell("search", done, max(waiting, done))
        with db.transaction(()) as tx:
            n = index(tx, INDEX_MESSAGES, text_of, INDEX_BYTES)
        done += n
    with db.transaction(()) as tx:
        return int(tx.execute(WAITING, {})[0][0])
