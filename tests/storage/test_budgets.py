"""Spent and reserved never exceed the budget, and nothing that was let through is missed."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import budgets, forget
from storage.database import Database
from storage.doctor import check
from storage.records import CANCELLED, FAILED, SpanStart
from storage.spending import Reservation, SessionBudget
from tests.databases import opened
from tests.storage.calls import (
    OWNER,
    end,
    rows,
    settlement,
    span_id,
    start,
    text_of,
    trace_id,
    unknown_usage,
    write,
)

LIMIT = 1_000


def asked(n: int, amount_nusd: int, **fields: Any) -> Reservation:
    given: dict[str, Any] = {
        "project_id": 1,
        "trace_id": trace_id(n),
        "span_id": span_id(n),
        "session_id": "s",
        "limit_nusd": LIMIT,
        "amount_nusd": amount_nusd,
    }
    return Reservation(**{**given, **fields})


def reserve(db: Database, n: int, amount_nusd: int, **fields: Any) -> bool:
    """Tell whether a call may be made."""
    with db.transaction() as tx:
        return budgets.reserve(tx, asked(n, amount_nusd, **fields)).fits(amount_nusd)


async def stand(db: Database, session_id: str = "s") -> tuple[int, int] | None:
    """Give what is spent and what is reserved."""
    found = await budgets.session_budget(db, 1, session_id)
    return None if found is None else (found.spent_nusd, found.reserved_nusd)


def begun(n: int) -> SpanStart:
    return start(n, session_id="s")


def test_what_fits_to_the_last_nano_dollar_fits() -> None:
    budget = SessionBudget(limit_nusd=10, spent_nusd=3, reserved_nusd=4)
    assert budget.fits(3)
    assert not budget.fits(4)


async def test_a_session_without_a_budget_has_none(db: Database) -> None:
    write(db, [end(begun(1))])
    assert await stand(db) is None


async def test_calls_are_let_through_until_the_budget_is_reserved(db: Database) -> None:
    assert [reserve(db, n, 400) for n in (1, 2, 3)] == [True, True, False]
    assert await stand(db) == (0, 800)
    assert reserve(db, 4, 200)
    assert not reserve(db, 5, 1)


async def test_what_ended_calls_cost_is_spent_with_or_without_a_budget(db: Database) -> None:
    write(db, [end(begun(1), cost_nusd=700)])
    assert not reserve(db, 2, 301)
    assert reserve(db, 3, 300)
    assert await stand(db) == (700, 300)


async def test_each_session_of_each_project_has_its_own(db: Database) -> None:
    assert reserve(db, 1, LIMIT)
    assert reserve(db, 2, LIMIT, session_id="t")
    assert reserve(db, 3, LIMIT, project_id=2)
    assert not reserve(db, 4, 1)


async def test_the_newest_call_with_a_budget_sets_it_also_when_it_is_refused(
    db: Database,
) -> None:
    assert reserve(db, 1, 400)
    assert not reserve(db, 2, 400, limit_nusd=500)
    found = await budgets.session_budget(db, 1, "s")
    assert found == SessionBudget(limit_nusd=500, spent_nusd=0, reserved_nusd=400)


async def test_what_costs_nothing_reserves_nothing_but_needs_what_is_not_spent(
    db: Database,
) -> None:
    assert reserve(db, 1, 0)
    assert await stand(db) == (0, 0)
    write(db, [end(begun(2), cost_nusd=LIMIT + 1)])
    assert not reserve(db, 3, 0)


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"cost_nusd": 90}, (90, 0)),
        ({"cost_nusd": 0, "cost_status": "free", "state": FAILED, "http_status": 500}, (0, 0)),
        ({"cost_nusd": 25, "state": CANCELLED, "usage_source": "estimated"}, (25, 0)),
        ({"cost_nusd": None, "cost_status": "unpriced", "http_status": 200}, (0, 300)),
        ({"cost_nusd": None, "cost_status": "unpriced", "state": FAILED}, (0, 300)),
    ],
    ids=["complete", "an error answer", "cancelled", "of unknown cost", "cut before an answer"],
)
@pytest.mark.parametrize("together", [True, False])
async def test_the_end_of_a_call_gives_back_what_it_reserved_once_its_cost_is_known(
    db: Database, fields: dict[str, Any], left: tuple[int, int], together: bool
) -> None:
    one = begun(1)
    write(db, [one])
    assert reserve(db, 1, 300)
    ended = end(one, reserved=True, **fields)
    write(db, [one, ended] if together else [ended])
    assert await stand(db) == left
    assert await check(db, text_of) == []


async def test_a_call_without_a_reservation_costs_the_writer_no_statement(
    db: Database,
) -> None:
    write(db, [begun(1)])
    reserve(db, 1, 300)
    write(db, [end(begun(1))])
    # It has one after all, which is what tells that nobody looked.
    assert await stand(db) == (100, 300)


async def test_what_a_dead_process_left_stays_reserved(db: Database) -> None:
    write(db, [start(1, session_id="s", owner=b"dead")])
    assert reserve(db, 1, 600)
    with db.transaction() as tx:
        assert forget.interrupt_running(tx, OWNER) == 1
    assert await stand(db) == (0, 600)
    assert not reserve(db, 2, 600)
    assert await check(db, text_of) == []


async def test_a_cost_that_comes_later_gives_back_what_was_reserved(db: Database) -> None:
    one = begun(1)
    write(db, [one])
    assert reserve(db, 1, 950)
    write(db, [unknown_usage(end(one, reserved=True, response_id="r"))])
    assert await stand(db) == (0, 950)
    write(db, [replace(end(start(2)), cost_nusd=0, settles=settlement("r"))])
    assert await stand(db) == (900, 0)


async def test_a_deleted_session_leaves_no_budget_and_no_reservation(db: Database) -> None:
    for n in (1, 2):
        write(db, [begun(n)])
        assert reserve(db, n, 100)
    other = start(3, session_id="t")
    write(db, [other])
    assert reserve(db, 3, 100, session_id="t")
    with db.transaction() as tx:
        assert forget.delete_session(tx, 1, "s", text_of) is not None
    assert await stand(db) is None
    assert await stand(db, "t") == (0, 100)
    assert rows(db, "SELECT trace_id FROM reservations") == [(trace_id(3),)]


async def test_a_deleted_trace_leaves_what_the_others_of_its_session_reserved(
    db: Database,
) -> None:
    for n in (1, 2):
        write(db, [begun(n)])
        assert reserve(db, n, 100 * n)
    with db.transaction() as tx:
        assert forget.delete_trace(tx, 1, trace_id(1), text_of) is not None
    assert await stand(db) == (0, 200)
    with db.transaction() as tx:
        assert forget.delete_trace(tx, 1, trace_id(2), text_of) is not None
    assert await stand(db) is None
    assert await check(db, text_of) == []


async def test_a_reservation_whose_call_was_lost_goes_with_its_session(db: Database) -> None:
    assert reserve(db, 1, 100)
    found = {finding.what: finding.remedy for finding in await check(db, text_of)}
    assert set(found) == {
        "reservations of calls that are not there",
        "budgets of sessions that are not there",
    }
    assert "delete their sessions" in found["reservations of calls that are not there"]
    with db.transaction() as tx:
        assert forget.delete_session(tx, 1, "s", text_of) is None
    assert await check(db, text_of) == []


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "end", "end unknown", "end free", "die", "settle"]),
        st.integers(0, 400),
        st.integers(0, 11),
    ),
    max_size=40,
)


@given(steps=STEPS)
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_spent_and_reserved_never_exceed_the_budget_and_miss_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    asyncio.run(_play(tmp_path_factory.mktemp("budget"), steps))


async def _play(folder: Path, steps: list[Step]) -> None:
    db = opened(folder / "traceway.db")
    running: dict[int, int] = {}  # what each call in flight reserved
    unknown: dict[int, int] = {}  # and those whose cost nobody knows
    spent = number = 0
    try:
        for what, amount, which in steps:
            if what == "ask":
                number += 1
                write(db, [begun(number)])
                room = LIMIT - spent - sum(running.values()) - sum(unknown.values())
                assert reserve(db, number, amount) is (amount <= room)
                if amount <= room:
                    running[number] = amount
                else:
                    write(db, [end(begun(number), cost_nusd=0, state=FAILED)])
            elif what == "die":
                with db.transaction() as tx:
                    assert forget.interrupt_running(tx, b"another") == len(running)
                unknown |= running
                running.clear()
            elif what == "settle" and unknown:
                n = list(unknown)[which % len(unknown)]
                cost = unknown.pop(n) * which // 11
                rows(
                    db, "UPDATE spans SET response_id = :r WHERE span_id = :n", r="r", n=span_id(n)
                )
                late = replace(end(start(1_000 + n)), cost_nusd=0)
                write(db, [replace(late, settles=settlement("r", cost_nusd=cost))])
                rows(db, "UPDATE spans SET response_id = NULL")
                spent += cost
            elif what.startswith("end") and running:
                n = list(running)[which % len(running)]
                most = running.pop(n)
                ended = end(begun(n), reserved=most > 0)
                if what == "end unknown":
                    unknown[n] = most
                    write(db, [unknown_usage(ended)])
                else:
                    cost = most * which // 11 if what == "end" else 0
                    spent += cost
                    write(db, [replace(ended, cost_nusd=cost)])
            held = sum(running.values()) + sum(unknown.values())
            found = await stand(db)
            assert found in (None, (spent, held))
            assert spent + held <= LIMIT
        assert await check(db, text_of) == []
    finally:
        await db.close()


async def test_a_call_in_another_trace_reserves_there_in_the_session_of_that(
    db: Database,
) -> None:
    write(db, [start(9, session_id="s"), start(1, joins=trace_id(9))])
    key = (1, trace_id(1), span_id(1))
    with db.transaction() as tx:
        assert budgets.session_of(tx, key) == "s"
        assert budgets.session_of(tx, (2, *key[1:])) is None
        assert budgets.session_of(tx, (1, trace_id(7), span_id(7))) is None
    assert reserve(db, 1, 300, session_id="adopted", joins=True)
    assert rows(db, "SELECT trace_id, session_id FROM reservations") == [(trace_id(9), "s")]
    assert await stand(db) == (0, 300)
    # Without a row, as where its record was lost, it reserves as it asked.
    assert reserve(db, 2, 300, session_id="adopted", joins=True)
    assert await stand(db, "adopted") == (0, 300)


async def test_a_call_that_reserves_again_as_its_first_try_was_not_answered_counts_once(
    db: Database,
) -> None:
    assert reserve(db, 1, 600)
    assert reserve(db, 1, 600)
    assert await stand(db) == (0, 600)
    assert reserve(db, 2, 400)
    assert reserve(db, 1, 600)
    assert not reserve(db, 3, 1)
    assert await stand(db) == (0, 1_000)


async def test_a_call_that_fits_no_more_when_it_reserves_again_has_nothing_reserved(
    db: Database,
) -> None:
    assert reserve(db, 1, 600)
    write(db, [end(begun(2), cost_nusd=401)])
    assert not reserve(db, 1, 600)
    assert await stand(db) == (401, 0)
