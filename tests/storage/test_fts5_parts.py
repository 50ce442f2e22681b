"""The parts of SQLite's index: bounded, found in from the newest on, used again and joined."""

# ruff: noqa: S608 (names of tables)

import random
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from storage import fts5_parts as module
from storage import fulltext
from storage.database import Params
from storage.doctor import check
from storage.fts5_merge import READ_STRUCTURE, read
from storage.fts5_parts import add, part_of, remove, table
from storage.fulltext import index, look_up
from storage.listing import list_sessions
from storage.migrate import migrate
from storage.search import parse
from storage.sqlite import APPLICATION_ID, SqliteDatabase, open_database
from storage.statements import SqliteTransaction
from tests.databases import holding
from tests.storage.calls import found, rows, spoken, start, text_of, write
from tests.storage.cleaning import clean, forget
from tests.storage.seeds import seeds

pytestmark = pytest.mark.sqlite_only("the index is SQLite's own")

PARTS = "SELECT number, first_id FROM text_parts ORDER BY number"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a part be full with three texts of one word."""
    monkeypatch.setattr(module, "MESSAGE_BYTES", 34)
    monkeypatch.setattr(module, "FULL_BYTES", 100)


def say(db: SqliteDatabase, *texts: str, session: str = "s") -> None:
    """Say texts one by one, as calls do."""
    for text in texts:
        ((calls,),) = rows(db, "SELECT COUNT(*) FROM spans")
        write(db, [spoken(start(calls + 1, session_id=session), [f"u:{text}"], [])])


def ids(db: SqliteDatabase) -> list[int]:
    return [row[0] for row in rows(db, "SELECT DISTINCT content_id FROM mentions")]


def in_parts(db: SqliteDatabase) -> list[int | None]:
    """Give how many texts each part has; None: it is free."""
    return [
        None if first_id is None else len(rows(db, f"SELECT id FROM {table(number)}_docsize"))
        for number, first_id in rows(db, PARTS)
    ]


def are_whole(db: SqliteDatabase) -> bool:
    """Whether ranges are those of what the parts have, and FTS5 finds no fault."""
    ranges = sorted(one for _, one in rows(db, PARTS) if one is not None)
    assert ranges[0] == 0
    for number, first_id in rows(db, PARTS):
        held = [one for (one,) in rows(db, f"SELECT id FROM {table(number)}_docsize")]
        with db.transaction() as tx:
            assert all(part_of(tx, one).number == number for one in held)
        assert not held or first_id is not None
        db._writer.execute(
            f"INSERT INTO {table(number)} ({table(number)}) VALUES ('integrity-check')"
        )
    return True


async def test_a_full_part_is_closed_and_words_are_found_in_all(db: SqliteDatabase) -> None:
    say(db, *(f"word w{n}" for n in range(8)))
    assert in_parts(db) == [3, 3, 2]
    assert are_whole(db)
    assert found(db, "word") == (await look_up(db, 1, "word")).hits == 8
    assert found(db, "w4") == (await look_up(db, 1, "w4")).hits == 1


async def test_the_newest_hits_are_in_the_newest_parts(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulltext, "MAX_HITS", 4)
    for n in range(8):
        say(db, f"word w{n}", session=f"s{n}")
    page = await list_sessions(db, 1, 10, query=parse("word"))
    assert [one.session_id for one in page.rows] == ["s7", "s6", "s5", "s4"]
    assert page.truncated


@pytest.mark.parametrize("parts", [2, 3])
async def test_more_parts_are_searched_than_one_statement_unites(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    monkeypatch.setattr(fulltext, "UNITED", parts)
    say(db, *(f"word w{n}" for n in range(32)))
    assert len(in_parts(db)) == 11
    assert (await look_up(db, 1, "word")).hits == 32
    assert len((await list_sessions(db, 1, 10, query=parse("w0"))).rows) == 1


def test_a_part_is_made_like_the_first(db: SqliteDatabase) -> None:
    say(db, *(f"w{n}" for n in range(4)))
    first, second = (
        rows(db, f"SELECT * FROM {table(number)}_config ORDER BY k") for number in (1, 2)
    )
    assert first == second
    made = "SELECT sql FROM sqlite_schema WHERE name = :name"
    ((one,),), ((other,),) = (rows(db, made, name=table(number)) for number in (1, 2))
    assert one.split("fts5", 1)[1].split() == other.split("fts5", 1)[1].split()


def test_a_batch_is_of_one_part_however_large_it_is(db: SqliteDatabase) -> None:
    call = spoken(start(1, session_id="s"), [f"u:w{n}" for n in range(10)], [])
    write(db, [call])
    say(db, "x")
    assert in_parts(db) == [10, 1]


def test_what_comes_late_comes_into_the_part_of_its_range(db: SqliteDatabase) -> None:
    say(db, *(f"w{n}" for n in range(7)))
    late = ids(db)[1]
    forget(db, late)
    assert in_parts(db) == [2, 3, 1]
    with db.transaction() as tx:
        fulltext.await_index(tx, [late])
        assert index(tx, 10, text_of) == 1
    assert in_parts(db) == [3, 3, 1]
    assert are_whole(db)


def test_one_that_is_full_takes_what_is_older_than_its_newest(db: SqliteDatabase) -> None:
    say(db, *(f"w{n}" for n in range(3)))
    late = ids(db)[1]
    write(db, [spoken(start(9, session_id="s"), ["u:y"], [])], indexed=False)
    with db.transaction() as tx:
        # It comes behind those that are younger, and would be in two ranges.
        row: Params = {"id": late, **tx.full_text.words(1, "w1")}
        remove(tx, [row])
        tx.execute("UPDATE text_parts SET bytes = 1000", {})
        add(tx, [row])
    assert in_parts(db) == [3]


def test_a_part_without_messages_is_used_again(db: SqliteDatabase) -> None:
    say(db, *(f"w{n}" for n in range(7)))
    forget(db, *ids(db)[3:6])
    clean(db)
    assert in_parts(db) == [3, None, 1]
    assert rows(db, "SELECT bytes, removed FROM text_parts WHERE number = 2") == [(0, 0)]
    assert are_whole(db)
    say(db, "x", "y", "z")
    assert in_parts(db) == [3, 1, 3]
    assert found(db) == 7
    assert are_whole(db)


def test_where_the_first_is_free_the_next_one_has_its_range(db: SqliteDatabase) -> None:
    say(db, *(f"w{n}" for n in range(7)))
    forget(db, *ids(db)[:3])
    clean(db)
    assert in_parts(db) == [None, 3, 1]
    assert are_whole(db)
    forget(db, *ids(db)[3:6])
    clean(db)
    assert in_parts(db) == [None, None, 1]
    assert are_whole(db)


def test_the_newest_is_never_free(db: SqliteDatabase) -> None:
    say(db, *(f"w{n}" for n in range(6)))
    forget(db, *ids(db))
    clean(db)
    assert in_parts(db) == [None, 0]
    assert are_whole(db)
    say(db, "x")
    assert found(db, "x") == 1


def test_what_fails_half_way_leaves_no_part_behind(db: SqliteDatabase) -> None:
    say(db, *(f"w{n}" for n in range(3)))
    with suppress(ZeroDivisionError), db.transaction() as tx:
        add(tx, [{"id": 999, **tx.full_text.words(1, "x")}])
        assert len(tx.execute(PARTS, {})) == 2
        raise ZeroDivisionError
    assert in_parts(db) == [3]
    say(db, "x")
    assert in_parts(db) == [3, 1]
    assert are_whole(db)


def test_a_merge_is_of_as_many_pages_as_texts_came_within_bounds() -> None:
    asked: list[object] = []

    class Asked:
        def execute(self, sql: str, params: Params) -> list[tuple[int | None, ...]]:
            if "'merge'" in sql:
                asked.append(params["pages"])
            return [(1, 0, 0, None)]

        def execute_many(self, _sql: str, _rows: object) -> None:
            pass

    for size in (0, 128 * 1024, 8 << 20):
        remove(Asked(), [{"id": 1, "scope": "p1", "text": "x" * size}])  # type: ignore[arg-type]
    assert asked == [module.LEAST_MERGED, 128, module.MOST_MERGED]


async def test_sqlite_takes_a_search_in_any_number_of_parts(db: SqliteDatabase) -> None:
    one = "SELECT rowid AS content_id FROM messages_fts_1 LIMIT 3"
    assert await db.read(fulltext.united([one] * 1_001, "LIMIT 3"), {}) == []


async def test_the_doctor_finds_no_fault_in_many_parts(db: SqliteDatabase) -> None:
    say(db, *(f"word w{n}" for n in range(10)))
    assert len(in_parts(db)) == 4
    assert await check(db, text_of) == []


@pytest.mark.parametrize("seed", seeds(3, 12))
async def test_whatever_comes_and_goes_all_that_is_there_is_found(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    pick = random.Random(seed)  # noqa: S311
    monkeypatch.setattr(module, "FULL_BYTES", pick.choice((100, 300)))
    monkeypatch.setattr(fulltext, "UNITED", pick.choice((5, 400)))
    there: dict[int, str] = {}
    for n in range(150):
        match pick.randrange(4):
            case 0 | 1:
                texts = [f"t{n} u{pick.randrange(5)} {k}" for k in range(pick.randrange(1, 5))]
                before = set(ids(db))
                say(db, *texts)
                there |= dict(zip(sorted({*ids(db)} - before), texts, strict=True))
            case 2:
                gone = pick.sample(sorted(there), min(len(there), pick.randrange(1, 6)))
                forget(db, *gone)
                rows(db, f"DELETE FROM mentions WHERE content_id IN ({', '.join(map(str, gone))})")
                for one in gone:
                    del there[one]
            case _:
                clean(db)
        with db.transaction() as tx:
            index(tx, 100, text_of)
    clean(db)
    with db.transaction() as tx:
        index(tx, 100, text_of)
    assert are_whole(db)
    assert found(db) == len(there)
    for k in range(5):
        said = sum(f"u{k}" in text.split() for text in there.values())
        assert (await look_up(db, 1, f"u{k}")).hits == found(db, f"u{k}") == said


def test_what_was_there_before_there_were_parts_is_one(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, path, 12)
    old = "INSERT INTO messages_fts (rowid, scope, text) VALUES (?, 'p1', ?)"
    connection.executemany(old, [(n, f"word w{n}") for n in (3, 7, 8)])
    migrate(connection, path)
    assert connection.execute("SELECT * FROM text_parts").fetchall() == [(1, 0, 3 * 512, 1)]
    tx = SqliteTransaction(path, connection)
    remove(tx, [{"id": 7, "scope": "p1", "text": "word w7"}])
    add(tx, [{"id": 9, "scope": "p1", "text": "word w9"}])  # it was full
    assert connection.execute(PARTS).fetchall() == [(1, 0), (2, 9)]
    hits = "SELECT rowid FROM {0} WHERE {0} MATCH 'word'"
    first, second = (connection.execute(hits.format(table(n))).fetchall() for n in (1, 2))
    assert (first, second) == ([(3,), (8,)], [(9,)])
    connection.close()


async def test_a_merge_that_was_begun_before_there_were_parts_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.fts5_merge.OPTIMIZE_PAGES", 0)
    path, canary = tmp_path / "old.db", "canary5c1f"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA secure_delete = ON")
    migrate(connection, path, 12)
    pick = random.Random(1)  # noqa: S311
    old = "INSERT INTO messages_fts (rowid, scope, text) VALUES (?, 'p1', ?)"
    for n in range(60):  # each is a segment
        text = " ".join(f"w{pick.randrange(100_000)}" for _ in range(200))
        connection.execute(old, (n, f"{text} {canary}" if n == 5 else text))
        if n == 5:
            connection.execute("INSERT INTO messages_fts (messages_fts, rank) VALUES ('merge', -1)")
            gone = text
    delete = (
        "INSERT INTO messages_fts (messages_fts, rowid, scope, text) VALUES ('delete', 5, 'p1', ?)"
    )
    connection.execute(delete, (f"{gone} {canary}",))
    connection.execute("INSERT INTO messages_fts (messages_fts, rank) VALUES ('merge', -1)")
    connection.close()
    db = open_database(path)
    record = READ_STRUCTURE.format(table(1))
    assert read(rows(db, record)[0][0]).merging
    clean(db)
    structure = read(rows(db, record)[0][0])
    assert (structure.merging, sum(level.segments for level in structure.levels)) == (0, 1)
    assert len(rows(db, f"SELECT id FROM {table(1)}_docsize")) == 59
    assert are_whole(db)
    assert holding(path, canary.encode()) == []
    await db.close()
