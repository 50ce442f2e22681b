"""SQLite's index: what is looked for means nothing but itself, and order is kept in small parts."""

import random
from collections.abc import Callable

import pytest

from storage import fulltext
from storage.database import Transaction
from storage.fts5 import FTS5, quoted, search
from storage.sqlite import SqliteDatabase
from tests.storage.calls import rows, spoken, start, text_of, write


def test_a_search_names_what_is_looked_for_and_where() -> None:
    assert search(None, "a b") == 'text : "a b"'
    assert search(7, "a") == 'scope : "p7" AND text : "a"'
    assert search(7, None) == 'scope : "p7"'


def test_what_the_index_takes_for_its_language_is_quoted() -> None:
    assert quoted('say "x" OR y*') == '"say ""x"" OR y*"'


def test_a_text_goes_by_the_words_that_it_came_with() -> None:
    assert FTS5.words(7, "hello") == {"scope": "p7", "text": "hello"}
    assert FTS5.removes_by_words


TEXTS = 700


def said(seed: int) -> str:
    """Make a text of a hundred words, few of which stand in another one."""
    pick = random.Random(seed)  # noqa: S311
    return " ".join(f"w{pick.randrange(100_000)}" for _ in range(100))


@pytest.mark.sqlite_only("the index is SQLite's own")
async def test_the_index_is_merged_in_small_parts_as_texts_come_and_go(db: SqliteDatabase) -> None:
    def changes(work: Callable[[Transaction], object]) -> int:
        before = db._writer.total_changes
        with db.transaction() as tx:
            work(tx)
        return db._writer.total_changes - before

    call = spoken(start(1, session_id="s"), [f"u:{said(n)}" for n in range(TEXTS)], [])
    write(db, [call], indexed=False)
    ids = [row[0] for row in rows(db, "SELECT content_id FROM unindexed ORDER BY content_id")]
    for part in (
        [lambda tx: fulltext.index(tx, 2, text_of)] * (TEXTS // 2),
        [
            lambda tx, at=at: fulltext.leave_index(tx, ids[at : at + 2], text_of)
            for at in range(0, TEXTS, 2)
        ],
    ):
        # A merge of 64 pages for each level, as SQLite makes it by itself, changes 600.
        assert max(map(changes, part)) < 300
        # Of 350 and 700 segments, those of the levels: sixteen of each wait for the next one.
        assert len(rows(db, "SELECT DISTINCT segid FROM messages_fts_1_idx")) < 3 * 16
