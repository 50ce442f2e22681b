"""A clean-up: of the parts that have deleted words, made up for where it broke off."""

from pathlib import Path

import pytest

from storage import fts5_merge, fts5_parts
from storage.database import DatabaseCorrupt, DatabaseUnwritable, Row
from storage.forget import delete_session
from storage.fts5_merge import READ_STRUCTURE, WholeMerge, read
from storage.fts5_parts import MERGE, table
from storage.sqlite import SqliteDatabase, open_database
from tests.databases import holding
from tests.storage.calls import rows, spoken, start, text_of, write
from tests.storage.cleaning import clean, forget, go_on

pytestmark = pytest.mark.sqlite_only("the index is SQLite's own")

REMOVED = "SELECT number, removed FROM text_parts ORDER BY number"
FIRST_IDS = "SELECT number, first_id FROM text_parts ORDER BY number"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have eight or nine texts fill a part, and merge a page at a time."""
    monkeypatch.setattr(fts5_parts, "MESSAGE_BYTES", 10)
    monkeypatch.setattr(fts5_parts, "FULL_BYTES", 100)
    monkeypatch.setattr(fts5_merge, "OPTIMIZE_PAGES", 0)
    monkeypatch.setattr(fts5_merge, "MERGED_PAGES", 1)


def three_parts(db: SqliteDatabase) -> list[int]:
    """Fill two parts and begin a third; give the contents."""
    for n in range(20):
        write(db, [spoken(start(n + 1, session_id="s"), [f"u:w{n}"], [])])
    assert [number for number, _ in rows(db, REMOVED)] == [1, 2, 3]
    return [row[0] for row in rows(db, "SELECT id FROM contents ORDER BY id")]


def segments(db: SqliteDatabase) -> list[int]:
    """Give of how many segments each part is."""
    found = []
    for number, _ in rows(db, REMOVED):
        ((record,),) = rows(db, READ_STRUCTURE.format(table(number)))
        found.append(sum(level.segments for level in read(record).levels))
    return found


def test_only_parts_that_have_deleted_words_are_merged(db: SqliteDatabase) -> None:
    ids = three_parts(db)
    before = segments(db)
    forget(db, ids[0], ids[-1])
    assert rows(db, REMOVED) == [(1, 1), (2, 0), (3, 1)]
    assert clean(db) >= 2
    assert segments(db) == [1, before[1], 1]
    assert rows(db, REMOVED) == [(1, 0), (2, 0), (3, 0)]


def test_one_that_is_asked_for_meanwhile_begins_behind_it(db: SqliteDatabase) -> None:
    ids = three_parts(db)
    forget(db, ids[0])
    db.reclaim(begin=True)
    forget(db, ids[1], ids[-1])
    clean(db)
    assert rows(db, REMOVED) == [(1, 0), (2, 0), (3, 0)]
    assert segments(db)[0] == segments(db)[2] == 1


def test_what_was_asked_for_first_comes_first(db: SqliteDatabase) -> None:
    ids = three_parts(db)
    forget(db, ids[-1])
    for one in ids[:5]:  # somebody deletes more of the oldest part as soon as it is clean
        forget(db, one)
        db.reclaim(begin=True)
        while rows(db, REMOVED)[0][1]:
            db.reclaim()
    assert rows(db, REMOVED)[2][1] == 0


def test_a_damaged_part_keeps_no_other_from_it_and_no_space(db: SqliteDatabase) -> None:
    ids = three_parts(db)
    forget(db, ids[0], ids[-1])
    rows(db, "CREATE TABLE waste AS SELECT zeroblob(1000000)")
    rows(db, "DROP TABLE waste")
    rows(db, "UPDATE messages_fts_1_data SET block = x'00000003020b' WHERE id = 10")
    with pytest.raises(DatabaseCorrupt):
        clean(db)
    assert rows(db, REMOVED) == [(1, 1), (2, 0), (3, 0)]
    assert rows(db, "PRAGMA freelist_count") == [(0,)]
    assert go_on(db) == 1


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "again.db"
    db = open_database(path)
    forget(db, *three_parts(db)[::3])
    db.reclaim(begin=True)
    assert any(removed for _, removed in rows(db, REMOVED))
    await db.close()
    again = open_database(path)
    clean(again)
    assert [removed for _, removed in rows(again, REMOVED)] == [0, 0, 0]
    assert segments(again)[0] == 1
    await again.close()


async def test_words_of_a_part_that_is_free_are_in_no_file(tmp_path: Path) -> None:
    path = tmp_path / "canary.db"
    db = open_database(path)
    three_parts(db)
    for n in range(20):
        write(db, [spoken(start(100 + n, session_id="t"), [f"u:canary5c1f {n}"], [])])
    with db.transaction() as tx:
        delete_session(tx, 1, "t", text_of)
    clean(db)
    free = [number for number, first_id in rows(db, FIRST_IDS) if first_id is None]
    assert free
    assert holding(path, b"canary5c1f") == []
    await db.close()


def test_a_part_without_texts_is_not_merged(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = three_parts(db)
    forget(db, *ids[:9])
    monkeypatch.setattr("storage.fts5_cleanup.WholeMerge", None)
    clean(db)
    assert segments(db)[0] == 0
    assert rows(db, FIRST_IDS)[0] == (1, None)
    # The newest stays, and has no words either.
    forget(db, *ids[17:])
    clean(db)
    assert segments(db)[2] == 0
    assert rows(db, FIRST_IDS)[2][1] is not None


@pytest.mark.parametrize(("gone", "pages"), [(1, 17), (4, 11), (7, 4)])
def test_the_more_goes_the_fewer_pages_are_written_at_a_time(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, gone: int, pages: int
) -> None:
    ids = three_parts(db)
    forget(db, *ids[:gone])
    monkeypatch.setattr(fts5_merge, "MERGED_PAGES", 20)
    asked: list[int] = []
    merge = WholeMerge._run

    def run(self: WholeMerge, sql: str, **params: int | bytes) -> list[Row]:
        if sql == MERGE:
            asked.append(abs(int(params["pages"])))
        return merge(self, sql, **params)

    monkeypatch.setattr(WholeMerge, "_run", run)
    clean(db)
    assert set(asked) - {0} == {pages}


def test_what_was_not_asked_for_is_not_cleaned(db: SqliteDatabase) -> None:
    ids = three_parts(db)
    forget(db, ids[0])
    go_on(db)
    assert rows(db, REMOVED)[0] == (1, 1)


def test_one_that_breaks_off_goes_on_or_is_made_up_for(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = three_parts(db)
    forget(db, ids[0], ids[-1])

    def refuse(*_: object) -> None:
        raise DatabaseUnwritable("here", "full")

    with monkeypatch.context() as broken:
        broken.setattr("storage.fts5_cleanup.clear", refuse)
        with pytest.raises(DatabaseUnwritable):
            clean(db)
        with pytest.raises(DatabaseUnwritable):
            db.reclaim()
        assert rows(db, REMOVED) == [(1, 1), (2, 0), (3, 1)]
    go_on(db)
    assert rows(db, REMOVED) == [(1, 0), (2, 0), (3, 0)]
