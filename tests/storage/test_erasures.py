"""Orders are carried out step by step, go on after a crash, and forget what they were asked for."""

import pytest

from storage import erasures
from storage.database import Transaction
from storage.doctor import check
from storage.erasures import Erasure, Order
from storage.events import decoded
from storage.sqlite import SqliteDatabase
from tests.storage.calls import end, rows, start, text_of, trace_id, write


def ask(db: SqliteDatabase, order: Order) -> Erasure:
    """Give an order."""
    with db.transaction() as tx:
        return erasures.ask(tx, 1, order, 5)


def step(tx: Transaction, number: int, spans: int = 2) -> bool:
    return erasures.step(tx, 1, number, text_of, most_spans=spans, now_us=9)


class Crash(Exception):
    """What a kill is to a transaction."""


def crash(db: SqliteDatabase, number: int) -> None:
    """Die in the middle of a step."""
    with db.transaction() as tx:
        step(tx, number)
        raise Crash


async def test_an_order_goes_on_where_it_was_and_counts_each_call_once(db: SqliteDatabase) -> None:
    write(db, [end(start(n, session_id="s")) for n in range(1, 8)])
    asked = ask(db, Order(kind="session", given="s"))
    assert (asked.state, asked.target_count, asked.given) == ("erasing", 1, "s")
    write(db, [end(start(8, session_id="s"))])
    more = True
    while more:
        with pytest.raises(Crash):
            crash(db, asked.id)
        with db.transaction() as tx:
            more = step(tx, asked.id)
        assert await check(db, text_of) == []
    found = await erasures.order_of(db, 1, asked.id)
    assert found is not None
    # The session has a later call, and stays.
    assert (found.state, found.done_count, found.session_count) == ("cleaning", 1, 0)
    assert (found.trace_count, found.span_count, found.began_at_us) == (7, 7, 9)
    assert rows(db, "SELECT trace_count FROM sessions") == [(1,)]


async def test_the_end_takes_ids_out_of_the_log_and_the_question_out_of_the_order(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, session_id="gone")), end(start(2, session_id="stays"))])
    asked = ask(db, Order(kind="session", given="gone"))
    for _ in range(3):
        with db.transaction() as tx:
            step(tx, asked.id)
    more = True
    while more:
        with db.transaction() as tx:
            more = erasures.clean(tx, 1, asked.id)
    told = [
        event.session_id
        for (packed,) in rows(db, "SELECT told FROM events ORDER BY sequence")
        for event in decoded(packed)
    ]
    assert {*told} == {None, "stays"}
    with db.transaction() as tx:
        erasures.forget_given(tx, 1, asked.id)
        erasures.end(tx, 1, asked.id, 11)
    (found,) = await erasures.orders(db, 1, 10)
    assert (found.state, found.given, found.ended_at_us) == ("done", None, 11)
    assert await erasures.open_orders(db) == []
    assert await check(db, text_of) == []


async def test_an_order_that_is_cancelled_erases_no_more(db: SqliteDatabase) -> None:
    write(db, [end(start(n, session_id="s")) for n in range(1, 5)])
    asked = ask(db, Order(kind="session", given="s"))
    with db.transaction() as tx:
        assert step(tx, asked.id)
        cancelled = erasures.cancel(tx, 1, asked.id)
        assert cancelled is not None
        assert cancelled.state == "cancelled"
        assert not step(tx, asked.id)
        assert erasures.cancel(tx, 2, asked.id) is None
    assert rows(db, "SELECT trace_count FROM sessions") == [(2,)]
    with db.transaction() as tx:
        while erasures.clean(tx, 1, asked.id):
            pass
        erasures.end(tx, 1, asked.id, 11)
    found = await erasures.order_of(db, 1, asked.id)
    assert found is not None
    assert (found.state, found.given) == ("cancelled", None)
    assert await check(db, text_of) == []


async def test_a_session_that_got_a_star_since_it_was_found_is_kept_and_counted_once(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(n, session_id=f"s{n % 3}")) for n in range(1, 7)])
    asked = ask(db, Order(kind="user", given="u"))
    targets = [("s0", None), (None, trace_id(1)), (None, trace_id(4)), ("s2", None)]
    with db.transaction() as tx:
        erasures.add_targets(tx, 1, asked.id, targets, state="erasing")
    rows(db, "UPDATE sessions SET starred = 1 WHERE session_id <> 's2'")
    for _ in range(9):
        with db.transaction() as tx:
            step(tx, asked.id)
    found = await erasures.order_of(db, 1, asked.id)
    assert found is not None
    assert (found.state, found.kept_starred_count, found.session_count) == ("cleaning", 2, 1)
    assert found.done_count == found.target_count
    assert rows(db, "SELECT session_id FROM sessions ORDER BY 1") == [("s0",), ("s1",)]
    assert rows(db, "SELECT COUNT(*) FROM traces") == [(4,)]


async def test_a_trace_that_is_named_goes_but_for_calls_that_came_later(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(n, trace=1 + n % 2, session_id="s")) for n in range(1, 9)])
    rows(db, "UPDATE sessions SET starred = 1")
    asked = ask(db, Order(kind="trace", given=trace_id(1).hex()))
    write(db, [end(start(10, trace=1, session_id="s"))])
    for _ in range(9):
        with db.transaction() as tx:
            step(tx, asked.id)
    found = await erasures.order_of(db, 1, asked.id)
    assert found is not None
    assert (found.state, found.done_count, found.kept_starred_count) == ("cleaning", 1, 0)
    assert (found.session_count, found.trace_count, found.span_count) == (0, 0, 4)
    left = rows(db, "SELECT seq, trace_id FROM spans ORDER BY seq")
    assert [trace for _, trace in left] == [trace_id(2)] * 4 + [trace_id(1)]
    assert await check(db, text_of) == []


async def test_a_session_that_is_not_there_is_not_counted(db: SqliteDatabase) -> None:
    write(db, [end(start(1, session_id="s"))])
    for given, extent, count in (("typo", "all", 0), ("s", "content", 1), ("s", "all", 1)):
        asked = ask(db, Order(kind="session", given=given, extent=extent))
        for _ in range(4):
            with db.transaction() as tx:
                step(tx, asked.id)
        found = await erasures.order_of(db, 1, asked.id)
        assert found is not None
        assert (found.session_count, found.done_count) == (count, 1)


async def test_targets_come_to_an_order_only_while_it_looks_for_them(db: SqliteDatabase) -> None:
    asked = ask(db, Order(kind="user", given="u"))
    assert asked.state == "collecting"
    with db.transaction() as tx:
        erasures.add_targets(tx, 1, asked.id, [("a", None)], state="collecting", place="x")
        twice = [("b", None), ("a", None), (None, b"t"), ("b", None)]
        for state in ("collecting", "erasing"):
            erasures.add_targets(tx, 1, asked.id, twice, state=state, kept=["x", "y", "x"])
        erasures.add_targets(tx, 1, asked.id, [("c", None)], state="erasing")
    assert rows(db, "SELECT n, session_id, trace_id FROM erasure_targets ORDER BY n") == [
        (-2, "y", None),
        (-1, "x", None),
        (1, "a", None),
        (2, "b", None),
        (3, None, b"t"),
    ]
    found = await erasures.order_of(db, 1, asked.id)
    assert found is not None
    assert (found.target_count, found.kept_starred_count, found.place) == (3, 2, None)
