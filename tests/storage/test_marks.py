"""A session's name and star are what somebody said last, whatever becomes of its calls."""

import asyncio
from pathlib import Path

import pytest

from storage import listing
from storage.doctor import check
from storage.events import read_after
from storage.forget import delete_session, delete_trace
from storage.marks import NO_MARK, Mark, read_mark, write_mark
from storage.queries import get_session
from storage.recover import recover
from storage.rollup import recompute_session
from storage.search import parse
from storage.sqlite import SqliteDatabase, open_database
from tests.databases import opened
from tests.storage.calls import end, rows, start, text_of, trace_id, write
from tests.storage.seen_twice import Handed, hand_in
from tests.storage.test_placing import T, tracing
from tests.storage.test_reseat import AUTO, name, talk_of_three

LOST = Mark("Lost order", is_starred=True)


def mark(db: SqliteDatabase, session_id: str, given: Mark, project_id: int = 1) -> bool:
    with db.transaction((project_id,)) as tx:
        return write_mark(tx, project_id, session_id, given)


def marked(db: SqliteDatabase, session_id: str, project_id: int = 1) -> Mark | None:
    with db.transaction() as tx:
        return read_mark(tx, project_id, session_id)


async def told(db: SqliteDatabase, project_id: int = 1) -> list[tuple[str, str | None]]:
    found = await read_after(db, project_id, 0)
    return [(one.event.type, one.event.session_id) for one in found]


async def test_a_mark_is_read_back_with_the_session_and_found_by_a_search(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, session_id="s")), end(start(2, session_id="t"))])
    assert marked(db, "s") == NO_MARK
    assert mark(db, "s", LOST)
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.name, session.starred) == ("Lost order", True)
    found = await listing.list_sessions(db, 1, 10, query=parse("starred:true"))
    assert [one.session_id for one in found.rows] == ["s"]
    assert mark(db, "s", NO_MARK)
    assert marked(db, "s") == NO_MARK


async def test_one_event_tells_of_a_change_and_none_of_what_stays_as_it_was(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, session_id="s")), end(start(2, session_id="s", project_id=2))])
    before = await told(db)
    mark(db, "s", LOST)
    assert await told(db) == [*before, ("session_updated", "s")]
    mark(db, "s", LOST)
    assert await told(db) == [*before, ("session_updated", "s")]


async def test_what_is_not_there_is_not_marked_nor_what_another_project_has(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, session_id="s")), end(start(2, session_id="s", project_id=2))])
    assert not mark(db, "nobody", LOST)
    assert await told(db, 3) == []
    mark(db, "s", LOST)
    assert marked(db, "s", 2) == NO_MARK


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_has_nothing_that_a_database_refuses(db: SqliteDatabase, name: str) -> None:
    write(db, [end(start(1, session_id="s"))])
    mark(db, "s", Mark(name))
    assert marked(db, "s") == Mark("a\ufffdb")


async def test_a_mark_stays_when_calls_come_and_go_and_sums_are_made_anew(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, session_id="s")), end(start(2, session_id="s"))])
    mark(db, "s", LOST)
    write(db, [end(start(3, session_id="s"))])
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
        assert recompute_session(tx, 1, "s") is None
    assert marked(db, "s") == LOST
    assert await check(db, text_of) == []
    with db.transaction() as tx:
        delete_session(tx, 1, "s", text_of)
    write(db, [end(start(4, session_id="s"))])
    assert marked(db, "s") == NO_MARK  # it was forgotten with all else of the session


@pytest.mark.sqlite_only("a damaged PostgreSQL is restored from a backup")
async def test_a_mark_is_recovered_out_of_a_damaged_database(tmp_path: Path) -> None:
    db = opened(tmp_path / "traceway.db")
    write(db, [end(start(1, session_id="s")), end(start(2, session_id="t"))])
    mark(db, "s", LOST)
    await db.close()
    target = tmp_path / "new.db"
    await asyncio.to_thread(recover, db.path, target)
    new = open_database(target)
    assert (marked(new, "s"), marked(new, "t")) == (LOST, NO_MARK)
    await new.close()


@pytest.mark.parametrize(
    ("own", "then"), [(NO_MARK, LOST), (Mark("Mine"), Mark("Mine", is_starred=True))]
)
async def test_a_mark_goes_along_where_all_of_a_session_moves_into_another(
    db: SqliteDatabase, own: Mark, then: Mark
) -> None:
    auto = end(tracing(1, session_id="auto_1", session_source="auto:first"))
    write(db, [end(start(9, session_id="s")), auto])
    mark(db, "auto_1", LOST)
    mark(db, "s", own)
    hand_in(db, Handed(n=60, trace=T, session="s", kind="custom"))
    assert marked(db, "auto_1") is None
    assert marked(db, "s") == then
    assert rows(db, "SELECT COUNT(*) FROM sessions") == [(1,)]
    assert await check(db, text_of) == []


async def test_a_mark_stays_where_only_a_part_of_a_session_moves(db: SqliteDatabase) -> None:
    auto = [
        end(tracing(1, session_id="auto_1", session_source="auto:first")),
        end(start(2, session_id="auto_1", session_source="auto:first")),
    ]
    write(db, auto)
    mark(db, "auto_1", LOST)
    hand_in(db, Handed(n=60, trace=T, session="s", kind="custom"))
    assert (marked(db, "auto_1"), marked(db, "s")) == (LOST, NO_MARK)


async def test_a_mark_goes_along_with_the_last_trace_that_is_named_into_another_session(
    db: SqliteDatabase,
) -> None:
    talk_of_three(db)
    mark(db, AUTO, LOST)
    for n in (1, 2):
        name(db, n, "s")
        assert (marked(db, AUTO), marked(db, "s")) == (LOST, NO_MARK)
    name(db, 3, "s")
    assert (marked(db, AUTO), marked(db, "s")) == (None, LOST)
    assert await check(db, text_of) == []
