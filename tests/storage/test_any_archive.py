"""After any history, what was exported comes back, and its next export is the same bytes."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.doctor import check
from storage.forget import interrupt_running
from storage.overdue import end_overdue
from storage.sqlite import SqliteDatabase
from tests.databases import columns_of, opened
from tests.storage import test_any_history, test_any_intake
from tests.storage.archives import exported, restored
from tests.storage.calls import rows, write
from tests.storage.handing import NOW_US, hand_in, text_of
from tests.storage.mixed import mixed

# What is of one database alone.
OWN = {
    *("seq", "opened_seq", "first_seq", "last_seq", "user_seq", "output_seq", "error_seq"),
    *("owner", "caller", "checkpoint_us", "stored_bytes", "session_key", "tally"),
}


def told(db: SqliteDatabase) -> dict[str, Any]:
    """Give all rows in their order of arrival, with ids replaced by what they are of."""
    contents = dict(rows(db, "SELECT id, sha256 FROM contents"))
    nodes = dict(rows(db, "SELECT id, hash FROM nodes"))
    found: dict[str, Any] = {"contents": sorted(contents.values()), "nodes": sorted(nodes.values())}
    for table, order in (
        ("spans", "seq"),
        ("traces", "trace_id"),
        ("sessions", "session_id"),
        ("session_models", "session_id, model"),
    ):
        names = [name for (name,) in rows(db, columns_of(table))]
        found[table] = []
        for row in rows(db, f"SELECT * FROM {table} ORDER BY {order}"):  # noqa: S608
            values = {n: v for n, v in zip(names, row, strict=True) if n not in OWN}
            for name in values:
                if name.endswith("_content_id"):
                    values[name] = contents.get(values[name])
                elif name.endswith("_node_id"):
                    values[name] = nodes.get(values[name])
                elif name.endswith("_envelope"):
                    values[name] = values[name] is None
            found[table].append(values)
    found["spans"].sort(key=lambda row: (row["trace_id"], row["span_id"]))
    ended = rows(db, "SELECT span_id FROM spans WHERE owner IS NULL")
    early = rows(db, "SELECT ended_id, at_us, told FROM early_ends ORDER BY ended_id")
    found["early_ends"] = [row for row in early if (row[0],) in ended]
    mentions = rows(db, "SELECT content_id, session_key FROM mentions")
    found["mentions"] = sorted((contents[one], number) for one, number in mentions)
    return found


async def comes_back(db: SqliteDatabase, folder: str) -> None:
    """End what runs, which no archive has, and see that all else comes back."""
    with db.transaction() as tx:
        interrupt_running(tx, None)
        # Else traces stay open, and ends go on waiting for their starts.
        if tx.execute("SELECT 1 FROM spans WHERE state = 'running'", {}):
            end_overdue(tx, 10 * NOW_US, 1, 10_000)
    first = await exported(db)
    other = opened(Path(folder) / "other.db")
    try:
        done = await restored(other, first)
        assert done.conflict is None
        assert done.marks == []
        assert await check(other, text_of) == []
        assert await exported(other) == first
        assert told(other) == told(db)
        again = await restored(other, first)
        assert (again.traces, again.spans, again.conflict) == (0, 0, None)
        assert again.known_spans == done.spans
        assert await exported(other) == first
        assert await check(other, text_of) == []
    finally:
        await other.close()


def play(work: Callable[[SqliteDatabase], None]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            db = opened(Path(folder) / "a.db")
            try:
                work(db)
                await comes_back(db, folder)
            finally:
                await db.close()

    asyncio.run(run())


@settings(deadline=None, max_examples=50)
@given(test_any_history.steps)
def test_conversations_come_back_after_any_history(history: list[Any]) -> None:
    def work(db: SqliteDatabase) -> None:
        talks = test_any_history.History(db)
        for step in history:
            talks.do(*step)

    play(work)


@settings(deadline=None, max_examples=50)
@given(test_any_intake.steps)
def test_what_was_handed_in_comes_back_after_any_history(history: list[Any]) -> None:
    def work(db: SqliteDatabase) -> None:
        for step in history:
            if isinstance(step, list):
                hand_in(db, [test_any_intake.item(*one) for one in step])
            else:
                test_any_intake.other(db, *step)

    play(work)


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 1000))
def test_calls_of_every_kind_come_back(seed: int) -> None:
    play(lambda db: write(db, mixed(seed)) and None)
