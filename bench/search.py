"""How fast lists are at a size: pages, filters, orders, sums and full text, each by its median.

`python -m bench.search` makes a database of 100,000 sessions and 2,000,000 traces, which takes some
minutes and 3 GB; `--keep FILE` keeps it for the next run. Each read is what its request runs, on a
reader's connection; the target stands beside it.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import large
from storage import listing, suggest
from storage.clauses import Rows
from storage.database import Database
from storage.listing import INDEXED, ORDERS, Order
from storage.search import parse
from storage.sqlite import open_database

ROUNDS: Final = 7
PAGE_MS: Final = 100
TOTALS_MS: Final = 500

NOW_US: Final = large.FIRST_US + large.DAYS * 86_400_000_000
FILTERS: Final = (
    *("session:{session}", "cost:>0.50", "tokens:>10000"),
    *(
        "session:user_1:*",
        "session:nobody*",
        "cost:>1000",
        "tokens:>1M",
        "errors:>20",
        "traces:>500",
    ),
    *("duration:>2h", "model:gpt-5", "model:llama-4-70b", "model:nothing", "status:failed"),
    *("user:user_7", "user:nobody", "provider:openai", "provider:nobody", "since:24h", "until:24h"),
    *("-status:completed -model:gpt-5-mini cost:0.01..1", "source:header starred:true"),
)
WORDS: Final = (
    *(large.RARE, large.FREQUENT, large.COMMON, f'"{large.FREQUENT} w1"', "nothingatall"),
    *(f"output:{large.RARE}", f"{large.FREQUENT} cost:>0.1 -status:failed", f"-{large.RARE}"),
)
CALLS: Final = (
    *("", "session:{session}", "status:failed", "user:user_7", "user:nobody", "cost:>0.01"),
    *("model:llama-4-70b", "model:nothing", "since:24h", "until:24h", large.RARE, large.FREQUENT),
    *(large.COMMON, f"input:{large.FREQUENT}"),
)
LISTS: Final[dict[Rows, Callable[..., Awaitable[Any]]]] = {
    "sessions": listing.list_sessions,
    "traces": listing.list_traces,
    "spans": listing.list_spans,
}


def main() -> None:
    """Make the database, unless it is there, and print what each read takes."""
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000, help="(100,000)")
    parser.add_argument("--traces", type=int, default=2_000_000, help="(2,000,000)")
    parser.add_argument("--keep", type=Path, help="the database: made where it is not there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.keep or Path(folder) / "search.db"
        if not path.exists():
            began = time.monotonic()
            large.make(path, given.sessions, given.traces)
            print(f"{given.sessions:,} sessions, {given.traces:,} traces", end=": ")
            print(f"{path.stat().st_size / 1e6:,.0f} MB, made in {time.monotonic() - began:.0f} s")
        asyncio.run(_measure(path))


async def _measure(path: Path) -> None:
    database = open_database(path)
    try:
        print(f"{'':58}{'ms':>9}{'target':>9}")
        for question in await questions(database):
            times_ms, found = await timed(question)
            print(_line(question, statistics.median(times_ms), found), flush=True)
    finally:
        await database.close()


@dataclass(frozen=True)
class Question:
    """Something that is read. ``target_ms`` is None where nothing is promised.

    ``is_list``: it is a page of a list, in an order and with conditions for which there are indexes
    or a bound on the rows that are looked at.
    """

    name: str
    read: Callable[[], Awaitable[Any]]
    target_ms: int | None = PAGE_MS
    is_list: bool = False


async def timed(
    question: Question, rounds: int = ROUNDS, most_s: float = 60.0
) -> tuple[list[float], Any]:
    """Ask so many times, or three where it takes longer; give the times in ms and the answer."""
    times_ms: list[float] = []
    until_s = time.perf_counter() + most_s
    found = None
    while len(times_ms) < rounds and (len(times_ms) < 3 or time.perf_counter() < until_s):
        began = time.perf_counter()
        found = await question.read()
        times_ms.append((time.perf_counter() - began) * 1000)
    return times_ms, found


async def questions(db: Database) -> list[Question]:
    """Make all that is asked of a database, each of a list, of sums, or of what is suggested."""
    return await _Asked(db).all()


class _Asked:
    def __init__(self, database: Database) -> None:
        self._db = database
        self._session = ""

    async def all(self) -> list[Question]:
        deep = await deep_place(self._db)
        self._session = (await listing.list_sessions(self._db, 1, 1, deep)).rows[0].session_id
        asked = [
            self._list("sessions", "", after=after, name=name)
            for after, name in ((None, "first page"), (deep, "deep page"))
        ]
        for by in ORDERS["sessions"]:
            target = PAGE_MS if by in INDEXED["sessions"] else None
            for descending in (True, False):
                order = Order(by, descending)
                asked.append(self._list("sessions", "", order=order, target=target))
        asked += [self._list("sessions", query) for query in (*FILTERS, *WORDS)]
        for query in ("", *FILTERS[1:3], "model:gpt-5", "since:24h", large.FREQUENT):
            asked.append(self._totals("sessions", query))
        for rows in ("traces", "spans"):
            asked += [self._list(rows, query) for query in CALLS]
            for query in ("session:{session}", "since:24h"):
                asked.append(self._list(rows, query, order=Order("cost")))
        asked.append(self._totals("traces", "since:24h"))
        for query in ("", "model:", "user:user_1", "session:user_1"):
            read = partial(suggest.suggest, self._db, 1, query, len(query), "sessions")
            asked.append(Question(f"suggest {query}", read))
        return asked

    def _list(
        self,
        rows: Rows,
        query: str,
        *,
        order: Order | None = None,
        after: tuple[int, int] | None = None,
        name: str = "",
        target: int | None = PAGE_MS,
    ) -> Question:
        parsed = parse(query.format(session=self._session), rows)
        by = order or Order(next(iter(ORDERS[rows])))
        name = name or query or f"by {by.by} {'down' if by.descending else 'up'}"
        read = partial(LISTS[rows], self._db, 1, 50, after, query=parsed, order=by, now_us=NOW_US)
        is_list = by.by in INDEXED[rows]
        return Question(f"{rows}: {name}", read, target, is_list)

    def _totals(self, rows: Rows, query: str) -> Question:
        read = partial(listing.totals, self._db, 1, parse(query, rows), NOW_US)
        return Question(f"totals of {rows}: {query}", read, TOTALS_MS)


async def deep_place(db: Database) -> tuple[int, int]:
    """Give the place in the middle of all sessions by activity."""
    sql = "SELECT COUNT(*) FROM sessions WHERE project_id = 1"
    ((count,),) = await db.read(sql, {})
    sql = """SELECT last_active_at_us, seq FROM sessions WHERE project_id = 1
    ORDER BY last_active_at_us DESC, seq DESC LIMIT 1 OFFSET :offset"""
    ((value, seq),) = await db.read(sql, {"offset": count // 2})
    return value, seq


def _line(question: Question, median_ms: float, found: Any) -> str:
    target = question.target_ms
    goal = f"{target:9}" if target else f"{'':9}"
    note = "  over" if target and median_ms > target else ""
    if getattr(found, "truncated", False):
        note += "  truncated"
    if hasattr(found, "rows"):
        note += f"  {len(found.rows)} rows{', more' if found.next_after else ''}"
    return f"{question.name[:58]:58}{median_ms:9.1f}{goal}{note}"


if __name__ == "__main__":
    main()
