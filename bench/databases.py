"""`make bench-databases`: SQLite and PostgreSQL side by side, at a size: reads, plans and writes.

`python -m bench.databases` makes a database of 100,000 sessions and 2,000,000 traces with their
messages, moves it to PostgreSQL with `traceway migrate`, and asks both what bench.search asks, and
for sessions and conversations. Then it looks at the plans of all lists: none may read a whole table
of sessions, traces or spans. At last it writes batches of 25 starts and ends to both. `--keep FILE`
keeps the SQLite database, `--to URL` uses another server; with `--moved` what is there already.
Ends with 1 where a plan reads a whole table.
"""

import argparse
import asyncio
import json
import math
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import large, postgres
from bench.conversations import Words, call_of, full
from bench.search import Question, deep_place, questions, timed
from proxy.api.conversation import Conversations
from proxy.pricing import Prices
from proxy.providers.messages import text_of
from proxy.settle import Settler
from storage import breakdown, fulltext, listing, queries, writes
from storage.database import Database, FullText, Params, Row
from storage.parameters import Change, prepare
from storage.postgres import open_postgres
from storage.search import parse
from storage.sqlite import open_database

ROUNDS: Final = 20
MOST_S: Final = 10.0
OPENED: Final = 20
BATCH: Final = 25
IN_FLIGHT: Final = 12
# Sessions of a run of the writer, and the turns of each: the fifth sends nine messages.
TALKS: Final = 200
TURNS: Final = 5
TABLES: Final = (
    *("sessions", "session_models", "traces", "spans", "contents", "nodes", "messages"),
    *("mentions", "holes", "unindexed", "events"),
)
LARGE: Final = ("sessions", "traces", "spans")
NAMED: Final = re.compile(rf"\b(?:FROM|JOIN)\s+({'|'.join(LARGE)})(?:\s+(?:AS\s+)?(\w+))?")


def main() -> int:
    """Make both databases, and measure them."""
    parser = argparse.ArgumentParser(prog="python -m bench.databases", description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000, help="(100,000)")
    parser.add_argument("--traces", type=int, default=2_000_000, help="(2,000,000)")
    parser.add_argument("--keep", type=Path, help="the SQLite one: made where it is not there")
    parser.add_argument("--to", metavar="URL", help="an empty database of another server")
    parser.add_argument("--moved", action="store_true", help="that one has it all already")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        postgres.may_be_read(folder)
        path = given.keep or folder / "large.db"
        if not path.exists():
            began = time.monotonic()
            large.make(path, given.sessions, given.traces, messages=True)
            print(f"{given.sessions:,} sessions, {given.traces:,} traces", end=": ")
            print(f"{path.stat().st_size / 1e6:,.0f} MB, made in {time.monotonic() - began:.0f} s")
        with postgres.database(folder, given.to) as url:
            if not given.moved:
                _move(path, url)
            return asyncio.run(_measure(path, url))


def _move(path: Path, url: str) -> None:
    command = [sys.executable, "-m", "proxy", "migrate", str(path), url, "--json"]
    began = time.monotonic()
    moved = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result = json.loads(moved.stdout)
    print(f"moved in {time.monotonic() - began:.0f} s, all equal: {result['equal']}", flush=True)


async def _measure(path: Path, url: str) -> int:
    async with _both(path, url) as (here, there):
        await _reads(here, there)
        scans = await _plans(here, there)
    await _writes(path, url)
    return 1 if scans else 0


@asynccontextmanager
async def _both(path: Path, url: str) -> AsyncIterator[tuple[Database, Database]]:
    here, there = open_database(path), open_postgres(url)
    try:
        yield here, there
    finally:
        await here.close()
        await there.close()


async def _reads(here: Database, there: Database) -> None:
    print(f"\n{'':50}{'SQLite, ms':>18}{'PostgreSQL, ms':>18}{'target':>9}")
    print(f"{'':50}{'median':>9}{'95%':>9}{'median':>9}{'95%':>9}")
    asked = zip(await _asked(here), await _asked(there), strict=True)
    for of_here, of_there in asked:
        figures = [await _figures(question) for question in (of_here, of_there)]
        line = "".join(f"{figure:9.1f}" for pair in figures for figure in pair)
        target = of_here.target_ms
        names = ("SQLite", "PostgreSQL")
        over = [
            name
            for name, (median, _) in zip(names, figures, strict=True)
            if median > (target or 1e9)
        ]
        goal = f"{target:9}" if target else f"{'':9}"
        note = f"  over: {', '.join(over)}" if over else ""
        print(f"{of_here.name[:49]:50}{line}{goal}{note}", flush=True)


async def _figures(question: Question) -> tuple[float, float]:
    """Give the median and what 95 of 100 stay below; the first time does not count."""
    await question.read()
    times_ms, _ = await timed(question, ROUNDS, MOST_S)
    return statistics.median(times_ms), sorted(times_ms)[math.ceil(0.95 * len(times_ms)) - 1]


async def _asked(db: Database) -> list[Question]:
    """Make the questions of bench.search, and those of one session; each time another one."""
    page = await listing.list_sessions(db, 1, OPENED, await deep_place(db))
    turn = deque(session.session_id for session in page.rows)

    async def opened() -> None:
        turn.rotate()
        await queries.get_session(db, 1, turn[0])
        await breakdown.model_shares(db, 1, turn[0])
        await listing.list_traces(db, 1, 50, query=_of_session(turn[0]))

    async def conversation() -> None:
        turn.rotate()
        await Conversations(db).page(1, turn[0], 0, 100, [])

    longest = await listing.list_sessions(db, 1, 1, order=listing.Order("traces"))
    return [
        *await questions(db),
        Question("the figures of the project", lambda: queries.stats(db, 1)),
        Question("a session with its models and traces", opened),
        Question("a page of its conversation", conversation),
        Question(
            "a page of the longest conversation",
            lambda: Conversations(db).page(1, longest.rows[0].session_id, 0, 100, []),
        ),
    ]


def _of_session(session_id: str) -> Any:
    return parse(f"session:{session_id}", "traces")


class _Watched:
    """A database that remembers what was read from it."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.seen: list[tuple[str, Params]] = []

    @property
    def full_text(self) -> FullText:
        return self._db.full_text

    async def read(self, sql: str, params: Params) -> list[Row]:
        self.seen.append((sql, params))
        return await self._db.read(sql, params)


async def _plans(here: Database, there: Database) -> int:
    """Say which lists read a whole table; give how many."""
    print("\nplans of lists that have an index or a bound:")
    scans = asked = 0
    for db, of_plan in ((here, _scanned_by_sqlite), (there, _scanned_by_postgres)):
        watched: Any = _Watched(db)
        for question in [one for one in await questions(watched) if one.is_list]:
            watched.seen.clear()
            await question.read()
            for sql, params in watched.seen:
                asked += 1
                for table in await of_plan(db, sql, params):
                    scans += 1
                    print(f"  {type(db).__name__}: {question.name}: reads all of {table}")
    print(f"  {asked:,} statements on both, {scans or 'no'} full scans")
    return scans


async def _scanned_by_sqlite(db: Database, sql: str, params: Params) -> list[str]:
    names = {alias or table: table for table, alias in NAMED.findall(sql)}
    names |= {table: table for table in LARGE}
    plan = await db.read(f"EXPLAIN QUERY PLAN {sql}", params)
    # What is read of another part of the same plan has that part's name beside it.
    parts = {
        (parent, detail.split()[1])
        for _, parent, _, detail in plan
        if detail.startswith(("CO-ROUTINE ", "MATERIALIZE "))
    }
    found = []
    for _, parent, _, detail in plan:
        what, name, *how = detail.split()
        if what == "SCAN" and name in names and "INDEX" not in how and (parent, name) not in parts:
            found.append(names[name])
    return found


async def _scanned_by_postgres(db: Database, sql: str, params: Params) -> list[str]:
    ((plan,),) = await db.read(f"EXPLAIN (FORMAT JSON) {sql}", params)
    found = []

    def walk(node: dict[str, Any]) -> None:
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE:
            found.append(node["Relation Name"])
        for inner in node.get("Plans", ()):
            walk(inner)

    walk(json.loads(plan)[0]["Plan"])
    return found


@dataclass
class _Written:
    """What a run of the writer did: seconds of batches and of full text, and rows that are new."""

    batches_s: list[float]
    index_s: float
    rows: int
    calls: int


async def _writes(path: Path, url: str) -> None:
    settler = Settler(Prices())
    print(f"\n{'batches of 25 starts and ends':36}", end="")
    print(f"{'calls/s':>10}{'rows/s':>10}{'ms':>9}{'95%':>9}{'of it full text':>18}")
    for name, opening in (
        ("SQLite, safe", partial(open_database, path)),
        ("SQLite, strict", partial(open_database, path, synchronous="FULL")),
        ("PostgreSQL, safe", partial(open_postgres, url)),
        ("PostgreSQL, fast", partial(open_postgres, url, synchronous_commit=False)),
    ):
        changes = [*_changes(settler, f"bench {name} {time.time_ns()}")]
        db: Any = opening()
        try:
            written = await asyncio.to_thread(_write, db, changes)
        finally:
            await db.close()
        seconds = sum(written.batches_s) + written.index_s
        slow = sorted(written.batches_s)[math.ceil(0.95 * len(written.batches_s)) - 1]
        median = statistics.median(written.batches_s)
        print(
            f"{name:36}{written.calls / seconds:10,.0f}{written.rows / seconds:10,.0f}"
            f"{median * 1e3:9.1f}{slow * 1e3:9.1f}{written.index_s / seconds:18.0%}",
            flush=True,
        )


def _changes(settler: Settler, name: str) -> Iterator[Change]:
    """Give starts and ends of talks that go on side by side, a dozen calls at a time in flight."""
    words = Words(random.Random(name))  # noqa: S311
    talks = [(f"{name} {n}", full(words, TURNS)) for n in range(TALKS)]
    flying: deque[Any] = deque()
    for _ in range(TURNS):
        for session, turns in talks:
            ended = call_of(next(turns), session)
            yield ended.start
            flying.append(ended)
            if len(flying) > IN_FLIGHT:
                yield settler.end(flying.popleft())
    while flying:
        yield settler.end(flying.popleft())


def _write(db: Database, changes: Sequence[Change]) -> _Written:
    before = _count(db)
    written = _Written([], 0.0, 0, len(changes) // 2)
    for at in range(0, len(changes), BATCH):
        began = time.perf_counter()
        batch = prepare(changes[at : at + BATCH])
        with db.transaction({1}) as tx:
            writes.apply(tx, batch)
        done = time.perf_counter()
        with db.transaction(()) as tx:
            fulltext.index(tx, 1_000, text_of)
        written.batches_s.append(done - began)
        written.index_s += time.perf_counter() - done
    written.rows = _count(db) - before
    return written


def _count(db: Database) -> int:
    with db.transaction(()) as tx:
        return sum(
            tx.execute(f"SELECT COUNT(*) FROM {table}", {})[0][0]  # noqa: S608
            for table in TABLES
        )


if __name__ == "__main__":
    sys.exit(main())
