"""Calls move into the trace that their `traceparent` names once it is known, whole."""

from typing import Any

import pytest

from storage import budgets, moving
from storage.database import Database
from storage.doctor import check
from storage.events import read_after
from storage.forget import delete_trace
from storage.moving import where_is
from storage.queries import get_session, get_trace, stats
from storage.records import RUNNING
from tests.storage.calls import (
    checkpoint,
    end,
    rows,
    span_id,
    spoken,
    start,
    text_of,
    trace_id,
    write,
)
from tests.storage.seen_twice import Handed, hand_in, links, marks, traces_of_calls
from tests.storage.test_budgets import asked
from tests.storage.test_mentions import said_in, words
from tests.storage.test_placing import T, joining, session_of, tracing


async def test_calls_move_into_a_trace_that_becomes_known_with_its_session(
    db: Database,
) -> None:
    write(db, [end(tracing(1)), tracing(2, parent=1)])
    hand_in(db, Handed(n=60, trace=T, session="s", kind="custom"))
    assert traces_of_calls(db) == {1: (T, 61), 2: (T, 1)}
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.trace_count, session.span_count, session.tokens.input) == (1, 3, 1010)
    assert rows(db, "SELECT COUNT(*) FROM traces") == [(1,)]
    assert (await stats(db, 1)).trace_count == 1
    assert await check(db, text_of) == []


async def test_a_call_makes_a_trace_known_to_those_before_it_by_naming_it(
    db: Database,
) -> None:
    write(db, [end(tracing(1))])
    # Also where they come together, whichever is first.
    write(db, [tracing(2), joining(3, session_id="s"), tracing(4)])
    assert {n: trace for n, (trace, _) in traces_of_calls(db).items()} == dict.fromkeys(
        (1, 2, 3, 4), T
    )
    assert rows(db, "SELECT trace_id, session_id FROM traces") == [(trace_id(T), "s")]
    assert await check(db, text_of) == []


async def test_a_call_that_runs_while_it_moves_goes_on_in_its_one_row(db: Database) -> None:
    write(db, [one := tracing(1)])
    hand_in(db, Handed(n=61, trace=T, session="s"))
    trace = await get_trace(db, 1, trace_id(T))
    assert trace is not None
    assert trace.status == RUNNING
    taken = write(db, [checkpoint(one, b"so far")]).taken
    assert [(place.trace_id, place.session_id) for place in taken.values()] == [(trace_id(T), "s")]
    write(db, [end(one)])
    assert traces_of_calls(db) == {1: (T, 61)}
    assert rows(db, "SELECT state FROM spans WHERE owner IS NOT NULL") == [("completed",)]
    assert await check(db, text_of) == []


async def test_a_trace_without_a_session_takes_that_of_the_calls_that_come(
    db: Database,
) -> None:
    write(db, [spoken(tracing(1, session_id="s"), ["u:a"], ["a:b"])])
    with db.transaction() as tx:
        tx.execute("UPDATE sessions SET name = 'mine', starred = 1", {})
    hand_in(db, Handed(n=61, trace=T))
    assert await session_of(db, T) == ("s", "header")
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.name, session.starred, session.trace_count) == ("mine", True, 1)
    assert await check(db, text_of) == []


@pytest.mark.parametrize("named", [1, 2])
async def test_calls_take_what_they_said_to_the_session_that_another_one_brings(
    db: Database, named: int
) -> None:
    for n, word in ((1, "u:a"), (2, "u:b")):
        session = {"session_id": "s"} if n == named else {}
        write(db, [spoken(tracing(n, **session), [word], [f"a:{n}"])])
    hand_in(db, Handed(n=61, trace=T))
    assert await session_of(db, T) == ("s", "header")
    assert sorted(map(sorted, said_in(db))) == [["a:1", "a:2", "u:a", "u:b"]]
    assert await check(db, text_of) == []


async def test_a_call_that_named_another_session_stays_with_a_link(db: Database) -> None:
    adopted = {"session_id": "u", "session_source": "metadata"}
    write(db, [end(tracing(1, session_id="t")), end(tracing(2, **adopted))])
    hand_in(db, Handed(n=61, trace=T, session="s"))
    assert traces_of_calls(db) == {1: (1, None), 2: (T, 61)}
    assert links(db) == {1: T}
    assert await get_session(db, 1, "u") is None
    assert await check(db, text_of) == []


async def test_a_trace_that_others_added_to_stays_with_a_link(db: Database) -> None:
    write(db, [end(tracing(1)), end(joining(2, 1)), end(tracing(3))])
    with db.transaction() as tx:
        tx.execute("UPDATE traces SET opened_at_us = 1 WHERE trace_id = :id", {"id": trace_id(3)})
    hand_in(db, Handed(n=61, trace=T))
    assert {n: trace for n, (trace, _) in traces_of_calls(db).items()} == {1: 1, 2: 1, 3: 3}
    assert links(db) == {1: T, 3: T}


async def test_a_call_takes_along_what_it_brought_and_leaves_the_others_theirs(
    db: Database,
) -> None:
    adopted = {"session_id": "u", "session_source": "metadata"}
    write(db, [spoken(tracing(1, **adopted), ["u:a"], ["a:b"])])
    write(db, [spoken(start(2, session_id="u"), ["u:a", "a:b;1", "u:c"], ["a:d"])])
    assert said_in(db) == [["u:a", "a:b", "u:c", "a:d"]]
    hand_in(db, Handed(n=61, trace=T, session="s"))
    # The second went on from the first, and begins anew without it, in its own words.
    assert sorted(map(sorted, said_in(db))) == [["a:b", "u:a"], ["a:b;1", "a:d", "u:a", "u:c"]]
    assert words(db) == 5
    assert await check(db, text_of) == []


async def test_calls_that_go_on_from_each_other_move_with_their_places(db: Database) -> None:
    write(db, [spoken(tracing(1), ["u:a"], ["a:b"])])
    write(db, [spoken(tracing(2), ["u:a", "a:b", "u:c"], ["a:d"])])
    assert (await session_of(db, 2))[0] == f"auto_{trace_id(1).hex()}"
    hand_in(db, Handed(n=61, trace=T, session="s"))
    assert rows(db, "SELECT COUNT(*) FROM spans WHERE base_meaning IS NOT NULL") == [(1,)]
    assert said_in(db) == [["u:a", "a:b", "u:c", "a:d"]]
    assert rows(db, "SELECT session_id FROM sessions") == [("s",)]
    assert await check(db, text_of) == []


async def test_what_a_call_reserved_goes_with_it_to_its_new_session(db: Database) -> None:
    adopted = {"session_id": "u", "session_source": "metadata"}
    write(db, [one := tracing(1, **adopted)])
    with db.transaction() as tx:
        budgets.reserve(tx, asked(1, 300, session_id="u", joins=True))
    hand_in(db, Handed(n=61, trace=T, session="s", kind="custom"))
    assert rows(db, "SELECT trace_id, session_id FROM reservations") == [(trace_id(T), "s")]
    assert rows(db, "SELECT COUNT(*) FROM session_budgets") == [(0,)]
    assert await check(db, text_of) == []
    write(db, [end(one, reserved=True)])
    assert rows(db, "SELECT COUNT(*) FROM reservations") == [(0,)]


async def test_who_watches_is_told_that_the_trace_is_gone_and_where_its_call_is(
    db: Database,
) -> None:
    write(db, [end(tracing(1, session_id="s"))])
    before = max(told.sequence for told in await read_after(db, 1, 0))
    hand_in(db, Handed(n=61, trace=T, session="s"))
    told = [told.event for told in await read_after(db, 1, before)]
    assert ("trace_deleted", trace_id(1), "s") in [(e.type, e.trace_id, e.session_id) for e in told]
    assert ("trace_created", trace_id(T), "s") in [(e.type, e.trace_id, e.session_id) for e in told]
    assert "session_updated" in {event.type for event in told}
    # The call began before, which was told, and not again.
    assert span_id(1) not in {event.span_id for event in told}


async def test_the_id_that_an_answer_named_leads_to_the_call(db: Database) -> None:
    write(db, [end(tracing(1)), end(start(2))])
    hand_in(db, Handed(n=61, trace=T))
    assert await where_is(db, 1, trace_id(1)) == trace_id(T)
    assert await where_is(db, 1, trace_id(2)) is None
    assert await where_is(db, 2, trace_id(1)) is None
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(T), text_of)
    assert await where_is(db, 1, trace_id(1)) is None


async def test_no_more_calls_move_at_once_than_a_task_makes(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = moving.FIND_WAITING.replace(str(moving.MAX_WAITING), "2")
    monkeypatch.setattr(moving, "FIND_WAITING", few)
    write(db, [end(tracing(n)) for n in (1, 2, 3)])
    hand_in(db, Handed(n=61, trace=T))
    assert sorted(trace for trace, _ in traces_of_calls(db).values()) == [3, T, T]
    assert await check(db, text_of) == []


async def test_calls_of_another_project_do_not_move(db: Database) -> None:
    write(db, [end(tracing(1, project_id=2))])
    hand_in(db, Handed(n=61, trace=T))
    assert traces_of_calls(db, 2) == {1: (1, None)}


async def test_a_call_that_moves_marks_the_span_that_it_comes_below(db: Database) -> None:
    write(db, [end(tracing(1))])
    hand_in(db, Handed(n=61, trace=T))
    assert marks(db) == {61: 1}
    trace: Any = await get_trace(db, 1, trace_id(T))
    assert (trace.tokens.input, trace.cost_nusd) == (10, 100)
