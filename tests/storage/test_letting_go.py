"""What calls held goes with them, and their session mentions what its other calls bring."""

import pytest

from storage.continuation import FIND_UPROOTED_AT
from storage.doctor import check
from storage.forget import delete_trace
from storage.sqlite import SqliteDatabase
from tests.storage.calls import rows, spoken, start, text_of, trace_id, write
from tests.storage.test_forgetting import forget

ASKED = ["s:be brief", "u:hello"]


def delete(db: SqliteDatabase, n: int) -> None:
    """Delete the trace of a call."""
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(n), text_of)


def said_by(db: SqliteDatabase) -> dict[str, int]:
    """Give which call each message is said to come with."""
    found = rows(
        db, "SELECT c.data, m.span_seq FROM mentions m JOIN contents c ON c.id = m.content_id"
    )
    return {data.decode().split('"')[3]: seq for data, seq in found}


async def test_a_mention_names_the_oldest_call_that_is_left(db: SqliteDatabase) -> None:
    for n in (1, 2, 3):
        write(db, [spoken(start(n, session_id="s"), [*ASKED, f"u:{n}"], ["a:hi"])])
    assert said_by(db) == {"s:be brief": 1, "u:hello": 1, "u:1": 1, "a:hi": 1, "u:2": 2, "u:3": 3}
    delete(db, 1)
    assert said_by(db) == {"s:be brief": 2, "u:hello": 2, "a:hi": 2, "u:2": 2, "u:3": 3}
    delete(db, 3)
    assert said_by(db) == {"s:be brief": 2, "u:hello": 2, "a:hi": 2, "u:2": 2}
    assert await check(db, text_of) == []


async def test_a_call_that_began_earlier_and_ends_later_is_the_one_that_is_named(
    db: SqliteDatabase,
) -> None:
    late, early = start(1, session_id="s"), start(2, session_id="s")
    write(db, [late, early])
    write(db, [spoken(early, ASKED, ["a:hi"])])
    assert {*said_by(db).values()} == {2}
    write(db, [spoken(late, ASKED, ["a:hi"])])
    # It goes on from what the other sent.
    assert said_by(db) == {"s:be brief": 1, "u:hello": 2, "a:hi": 1}
    delete(db, 1)
    assert {*said_by(db).values()} == {2}
    assert await check(db, text_of) == []


async def test_who_went_on_from_a_deleted_call_goes_on_from_the_one_before(
    db: SqliteDatabase,
) -> None:
    asked = ["u:one"]
    for n in (1, 2, 3):
        write(db, [spoken(start(n, session_id="s"), asked, [f"a:{n}"])])
        asked = [*asked, f"a:{n}", f"u:{n}"]
    delete(db, 2)
    assert rows(db, "SELECT seq, fresh_count FROM spans ORDER BY seq") == [(1, 1), (3, 3)]
    assert said_by(db)["u:1"] == 3
    assert await check(db, text_of) == []


@pytest.mark.sqlite_only("counts what SQLite's own machine does")
async def test_a_deletion_asks_of_other_calls_only_those_that_may_bring_the_same(
    db: SqliteDatabase,
) -> None:
    """Its work must not grow with the session: rows that it reads are counted."""
    counts = []
    for session, turns in (("short", 5), ("long", 60)):
        first = 100 * (1 + len(counts))
        asked = ["u:one"]
        for n in range(first, first + turns):
            write(db, [spoken(start(n, session_id=session), asked, [f"a:{n}"])])
            asked = [*asked, f"a:{n}", f"u:{n}"][-3:]
        statements: list[str] = []
        db._writer.set_trace_callback(statements.append)
        delete(db, first + turns - 1)
        db._writer.set_trace_callback(None)
        counts.append(len(statements))
    assert counts[1] <= counts[0] + 5


@pytest.mark.sqlite_only("counts what SQLite's own machine does")
async def test_a_deletion_costs_the_same_however_many_sessions_were_told_the_same(
    db: SqliteDatabase,
) -> None:
    def steps(n: int) -> int:
        counted: list[None] = []
        db._writer.set_progress_handler(lambda: counted.append(None), 10)
        delete(db, n)
        db._writer.set_progress_handler(None, 0)
        return len(counted)

    def tell(*calls: int) -> None:
        write(db, [spoken(start(n, session_id=f"s{n}"), ASKED, ["a:hi"]) for n in calls])

    tell(*range(1, 10))
    few = steps(1)
    tell(*range(10, 400))
    assert steps(2) <= few * 1.5


@pytest.mark.sqlite_only("counts what SQLite's own machine does")
async def test_calls_whose_content_is_forgotten_are_not_asked(db: SqliteDatabase) -> None:
    counts = []
    for session, calls in (("short", range(1, 5)), ("long", range(101, 160))):
        for n in calls:
            write(db, [spoken(start(n, session_id=session), [f"u:{n}"], [f"a:{n}"])])
        for n in calls:  # somebody else said all of it as well
            write(db, [spoken(start(1_000 + n, session_id="else"), [f"u:{n}"], [f"a:{n}"])])
        forget(db, *calls[1:], most=100)
        statements: list[str] = []
        db._writer.set_trace_callback(statements.append)
        forget(db, calls[0])
        db._writer.set_trace_callback(None)
        counts.append(len(statements))
    assert counts[1] <= counts[0] + 2
    assert await check(db, text_of) == []


@pytest.mark.sqlite_only("asks SQLite for its plan")
async def test_who_went_on_from_a_place_is_found_by_it_and_not_in_the_whole_session(
    db: SqliteDatabase,
) -> None:
    plan = rows(db, f"EXPLAIN QUERY PLAN {FIND_UPROOTED_AT}", session_key=1, place=b"")
    assert "USING INDEX spans_by_base (session_key=? AND base_meaning=?)" in plan[0][3]


async def test_a_call_with_a_damaged_envelope_is_deleted_as_one_without_holes(
    db: SqliteDatabase,
) -> None:
    write(db, [spoken(start(1, session_id="s"), ASKED, ["a:hi"], tools=b'["t"]')])
    rows(db, "UPDATE spans SET request_envelope = :cut", cut=b"\x92\x91")
    delete(db, 1)
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(0,)]
