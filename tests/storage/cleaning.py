"""Taking messages out of SQLite's index, and the clean-up behind that, for its tests."""

from storage.fulltext import leave_index
from storage.sqlite import SqliteDatabase
from tests.storage.calls import text_of

MOST_STEPS = 5_000


def forget(db: SqliteDatabase, *content_ids: int) -> None:
    """Take contents out of the index."""
    with db.transaction() as tx:
        leave_index(tx, content_ids, text_of)


def go_on(db: SqliteDatabase) -> int:
    """Give back what there is; return in how many steps."""
    for steps in range(1, MOST_STEPS):
        if not db.reclaim():
            return steps
    raise AssertionError("it never ends")


def clean(db: SqliteDatabase) -> int:
    """Have all deleted words leave; return in how many steps."""
    return 1 + go_on(db) if db.reclaim(begin=True) else 1
