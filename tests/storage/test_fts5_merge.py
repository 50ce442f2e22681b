"""The merge of all: in small parts, over when no deleted word is left, any number of times."""

import random
from collections.abc import Callable

import pytest

from storage import fts5_merge as module
from storage import fulltext
from storage.database import DatabaseCorrupt, Transaction
from storage.fts5_merge import LOWER_LEVELS, READ_STRUCTURE, Structure, read
from storage.sqlite import SqliteDatabase
from tests.storage.calls import rows, spoken, start, text_of, write
from tests.storage.cleaning import forget, go_on

pytestmark = pytest.mark.sqlite_only("the index is SQLite's own")

CANARY = "5c1fcanary"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all indexes taken for large ones."""
    monkeypatch.setattr(module, "OPTIMIZE_PAGES", 0)
    monkeypatch.setattr(module, "MERGED_PAGES", 1)


def said(seed: int) -> str:
    """Make a text of a hundred words, few of which stand in another one."""
    pick = random.Random(seed)  # noqa: S311
    return " ".join(f"w{pick.randrange(100_000)}" for _ in range(100))


def wait_for_index(db: SqliteDatabase, texts: int) -> None:
    call = spoken(start(2, session_id="s"), [f"u:{said(n)}" for n in range(texts)], [])
    write(db, [call], indexed=False)


def index(db: SqliteDatabase, texts: int = 1) -> int:
    """Index some texts as a call brings them, and tell how many rows that changed."""
    return changes(db, lambda tx: fulltext.index(tx, texts, text_of))


def changes(db: SqliteDatabase, work: Callable[[Transaction], object]) -> int:
    before = db._writer.total_changes
    with db.transaction() as tx:
        work(tx)
    return db._writer.total_changes - before


def structure(db: SqliteDatabase) -> Structure:
    ((record,),) = rows(db, READ_STRUCTURE.format("messages_fts_1"))
    return read(record)


def begin(db: SqliteDatabase) -> bool:
    """Begin a merge, also where no word has been deleted."""
    rows(db, "UPDATE text_parts SET removed = removed + 1")
    return db.reclaim(begin=True)


def merge(db: SqliteDatabase) -> None:
    begin(db)
    go_on(db)


def holds_canary(db: SqliteDatabase) -> bool:
    """Whether a part of the index has the end of a word that begins as no other does."""
    blocks = rows(db, "SELECT block FROM messages_fts_1_data")
    return any(CANARY[-6:].encode() in block for (block,) in blocks)


def is_whole(db: SqliteDatabase) -> bool:
    db._writer.execute("INSERT INTO messages_fts_1 (messages_fts_1) VALUES ('integrity-check')")
    return True


def indexed(db: SqliteDatabase) -> int:
    ((count,),) = rows(db, "SELECT COUNT(*) FROM messages_fts_1 WHERE messages_fts_1 MATCH 'p1'")
    return int(count)


async def test_a_record_says_what_the_index_consists_of(db: SqliteDatabase) -> None:
    wait_for_index(db, 40)
    for _ in range(18):
        index(db)
    # Sixteen were merged to one.
    assert [(level.merging, level.segments) for level in structure(db).levels] == [(0, 2), (0, 1)]
    assert not structure(db).merging
    merge(db)
    assert sum(level.segments for level in structure(db).levels) == 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE messages_fts_1_data SET block = x'00000003020b' WHERE id = 10",
        "UPDATE messages_fts_1_data SET block = 'text' WHERE id = 10",
        "DELETE FROM messages_fts_1_data WHERE id = 10",
    ],
)
async def test_a_record_that_is_damaged_is_an_error_of_ours(
    db: SqliteDatabase, damage: str
) -> None:
    wait_for_index(db, 1)
    index(db)
    db._writer.execute(damage)
    with pytest.raises(DatabaseCorrupt):
        merge(db)


async def test_it_is_not_over_where_calls_bring_more_segments_than_it_merges(
    db: SqliteDatabase,
) -> None:
    write(db, [spoken(start(1, session_id="s"), [f"u:{CANARY}"], [])])
    ((secret,),) = rows(db, "SELECT id FROM contents")
    wait_for_index(db, 430)
    for _ in range(4):
        index(db, 100)
    merge(db)
    index(db)
    with db.transaction() as tx:
        fulltext.leave_index(tx, [secret], text_of)
    db.reclaim(begin=True)
    for _ in range(10):  # fewer than are ever merged, and more than are being merged
        index(db)
    assert structure(db).merging
    go_on(db)
    assert not holds_canary(db)
    assert is_whole(db)


@pytest.mark.slow
async def test_texts_that_come_meanwhile_are_merged_in_small_parts_too(db: SqliteDatabase) -> None:
    wait_for_index(db, 2800)
    for _ in range(700):
        index(db, 2)
    more = begin(db)
    changed = []
    for _ in range(700):
        more = more and db.reclaim()
        changed.append(index(db, 2))
    # Once it drops what all was merged from. Sixteen segments of sixteen, merged at once, are 580.
    assert sorted(changed)[-2] < 300


async def test_an_index_is_merged_any_number_of_times(db: SqliteDatabase) -> None:
    wait_for_index(db, 200)
    for _ in range(100):
        index(db, 2)
        db._writer.execute("SELECT COUNT(*) FROM messages_fts_1 WHERE messages_fts_1 MATCH 'p1'")
        merge(db)  # whatever FTS5 remembers of the levels
        assert len(structure(db).levels) <= LOWER_LEVELS + 3
    assert is_whole(db)
    assert indexed(db) == 200


async def test_one_that_is_asked_for_meanwhile_begins_behind_it(db: SqliteDatabase) -> None:
    wait_for_index(db, 400)
    while index(db, 20):
        merge(db)
        if not rows(db, "SELECT 1 FROM unindexed"):
            break
    write(db, [spoken(start(3, session_id="t"), [f"u:{CANARY}"], [])])
    ids = [row[0] for row in rows(db, "SELECT id FROM contents ORDER BY id")]
    for content_id in ids[:40]:
        forget(db, content_id)
        db.reclaim(begin=True)
    levels = len(structure(db).levels)
    assert levels <= 2 * LOWER_LEVELS
    forget(db, ids[-1])
    merge(db)
    assert not holds_canary(db)
    assert indexed(db) == len(ids) - 41
    assert is_whole(db)


@pytest.mark.parametrize("seed", range(4))
async def test_a_deleted_word_goes_whatever_came_and_went_before(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    pick = random.Random(seed)  # noqa: S311
    monkeypatch.setattr(module, "OPTIMIZE_PAGES", pick.choice((0, 500)))
    wait_for_index(db, 400)
    for n in range(8):
        write(db, [spoken(start(10 + n, session_id="t"), [f"u:{CANARY} {n}"], [])], indexed=False)
        index(db, pick.choice((1, 3, 40)))
        with db.transaction() as tx:
            while fulltext.index(tx, pick.choice((5, 100)), text_of):
                pass
        ((secret,),) = rows(db, "SELECT MAX(id) FROM contents")
        forget(db, secret)
        merge(db)
        assert not holds_canary(db)
        assert is_whole(db)
