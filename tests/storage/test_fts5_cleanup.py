"""A clean-up: of the parts that have deleted words, made up for where it broke off."""

import pytest

from storage import fts5_merge, fts5_parts
from storage.database import DatabaseUnwritable
from storage.fts5_merge import READ_STRUCTURE, read
from storage.fts5_parts import table
from storage.fulltext import leave_index
from storage.sqlite import SqliteDatabase
from tests.storage.calls import rows, spoken, start, text_of, write

pytestmark = pytest.mark.sqlite_only("the index is SQLite's own")

REMOVED = "SELECT number, removed FROM text_parts ORDER BY number"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each text fill a part that takes ten segments, and merge a page at a time."""
    monkeypatch.setattr(fts5_parts, "MESSAGE_BYTES", 10)
    monkeypatch.setattr(fts5_parts, "FULL_BYTES", 100)
    monkeypatch.setattr(fts5_parts, "JOINED_BYTES", 0)
    monkeypatch.setattr(fts5_merge, "OPTIMIZE_PAGES", 0)
    monkeypatch.setattr(fts5_merge, "MERGED_PAGES", 1)


def three_parts(db: SqliteDatabase) -> list[int]:
    """Fill two parts and begin a third; give the contents."""
    for n in range(20):
        write(db, [spoken(start(n + 1, session_id="s"), [f"u:w{n}"], [])])
    assert [number for number, _ in rows(db, REMOVED)] == [1, 2, 3]
    return [row[0] for row in rows(db, "SELECT id FROM contents ORDER BY id")]


def forget(db: SqliteDatabase, *content_ids: int) -> None:
    with db.transaction() as tx:
        leave_index(tx, content_ids, text_of)


def segments(db: SqliteDatabase) -> list[int]:
    """Give of how many segments each part is."""
    found = []
    for number, _ in rows(db, REMOVED):
        ((record,),) = rows(db, READ_STRUCTURE.format(table(number)))
        found.append(sum(level.segments for level in read(record).levels))
    return found


def go_on(db: SqliteDatabase) -> int:
    steps = 1
    while db.reclaim():
        steps += 1
    return steps


def clean(db: SqliteDatabase) -> int:
    db.reclaim(begin=True)
    return go_on(db)


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
        broken.setattr("storage.fts5_cleanup.leave", refuse)
        with pytest.raises(DatabaseUnwritable):
            clean(db)
        with pytest.raises(DatabaseUnwritable):
            db.reclaim()
        assert rows(db, REMOVED) == [(1, 1), (2, 0), (3, 1)]
    go_on(db)
    assert rows(db, REMOVED) == [(1, 0), (2, 0), (3, 0)]
