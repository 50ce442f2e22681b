"""Spans of archives that saw a call of another block: marked when it is there, and as they were."""

from pathlib import Path

import pytest

from storage.doctor import check
from storage.queries import stats
from storage.sqlite import SqliteDatabase
from tests.databases import opened as database
from tests.storage.archives import exported, restored
from tests.storage.calls import end, rows, start, text_of, write
from tests.storage.seen_twice import Handed, hand_in, marks
from tests.storage.test_any_intake import mark


async def seen_twice(db: SqliteDatabase, *, forgotten_at_us: int | None = None) -> bytes:
    """Give the archive of a span in session "s" and the call in "t" that it saw as well."""
    write(db, [end(start(2, session_id="t"))])
    hand_in(db, Handed(n=1, trace=1, session="s"))
    mark(db, 0, 0)
    with db.transaction() as tx:
        sql = "UPDATE traces SET forgotten_at_us = :at_us WHERE session_id = 's'"
        tx.execute(sql, {"at_us": forgotten_at_us})
    assert await check(db, text_of) == []
    return await exported(db)


async def test_a_mark_waits_for_a_call_of_a_later_block(db: SqliteDatabase, tmp_path: Path) -> None:
    data = await seen_twice(db)
    other = database(tmp_path / "other.db")
    done = await restored(other, data)
    assert done.marks == []
    assert await exported(other) == data
    alone = database(tmp_path / "alone.db")
    first = data[: data.index(b'{"format"', 1)]
    done = await restored(alone, first)
    assert len(done.marks) == 1
    assert await check(alone, text_of) == []
    for one in (other, alone):
        await one.close()


async def test_a_trace_whose_content_was_forgotten_stays_so_when_a_span_of_it_is_marked(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    data = await seen_twice(db, forgotten_at_us=99)
    other = database(tmp_path / "other.db")
    assert (await restored(other, data)).marks == []
    sql = "SELECT session_id, forgotten_at_us FROM traces ORDER BY session_id"
    assert rows(other, sql) == [("s", 99), ("t", None)]
    assert await exported(other) == data
    assert await check(other, text_of) == []
    await other.close()


@pytest.mark.parametrize("came", ["call", "span"])
async def test_what_was_seen_twice_counts_once_where_one_of_them_is_imported(
    db: SqliteDatabase, tmp_path: Path, came: str
) -> None:
    here = database(tmp_path / "here.db")
    of_call, of_span = (db, here) if came == "call" else (here, db)
    write(of_call, [end(start(2, session_id="t"), response_id="resp_1")])
    hand_in(of_span, Handed(n=1, trace=1, session="s", response_id="resp_1"))
    data = await exported(db)
    for _ in range(2):
        assert (await restored(here, data)).marks == []
        assert marks(here) == {1: 2}
        assert (await stats(here, 1)).cost_nusd == 100
        assert await check(here, text_of) == []
    # Each stays in the trace that the archive, or the application, said.
    assert rows(here, "SELECT COUNT(*) FROM traces") == [(2,)]
    await here.close()
