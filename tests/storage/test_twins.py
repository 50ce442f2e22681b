"""A call that an application and the proxy both saw counts once, whichever comes first."""

from typing import Any

import pytest

from storage.database import Database
from storage.doctor import check
from storage.forget import delete_session, delete_trace
from storage.ledger import Ledger
from storage.queries import get_session, get_span, get_trace, stats
from storage.twins import match
from tests.storage.calls import (
    end,
    rows,
    settlement,
    span_id,
    spoken,
    start,
    text_of,
    trace_id,
    unknown_usage,
    write,
)
from tests.storage.seen_twice import Handed, hand_in, links, marks, traces_of_calls
from tests.storage.test_placing import T, joining, session_of


async def tokens_of(db: Database, trace: int) -> tuple[Any, ...]:
    found = await get_trace(db, 1, trace_id(trace))
    assert found is not None
    return found.tokens.input, found.cost_nusd, found.span_count


@pytest.mark.parametrize("first", ["call", "span"])
@pytest.mark.parametrize("kind", ["llm_call", "embedding"])
async def test_a_span_is_marked_with_the_call_below_it_in_either_order(
    db: Database, first: str, kind: str
) -> None:
    call = end(joining(1, parent_id=span_id(61)))
    handed = Handed(n=61, trace=T, session="s", kind=kind)
    if first == "call":
        write(db, [call])
        hand_in(db, handed)
    else:
        hand_in(db, handed)
        assert await tokens_of(db, T) == (1000, 5000, 1)
        write(db, [call])
    assert marks(db) == {61: 1}
    assert await tokens_of(db, T) == (10, 100, 2)
    assert (await stats(db, 1)).cost_nusd == 100
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.tokens.input, session.unpriced_count) == (10, 0)
    span = await get_span(db, 1, span_id(61))
    assert span is not None
    assert (span.same_call, span.tokens.input) == (span_id(1), 1000)
    assert await check(db, text_of) == []


@pytest.mark.parametrize("first", ["call", "span"])
async def test_a_call_with_the_response_id_of_a_span_moves_below_it_in_either_order(
    db: Database, first: str
) -> None:
    call = spoken(start(1), ["u:a"], ["a:b"], response_id="r")
    handed = Handed(n=61, trace=T, session="s", response_id="r")
    if first == "call":
        write(db, [call])
        hand_in(db, handed)
    else:
        hand_in(db, handed)
        write(db, [call])
    assert marks(db) == {61: 1}
    assert traces_of_calls(db) == {1: (T, 61)}
    assert await tokens_of(db, T) == (10, 100, 2)
    assert await session_of(db, T) == ("s", "api")
    assert rows(db, "SELECT COUNT(*) FROM traces") == [(1,)]
    assert await check(db, text_of) == []


@pytest.mark.parametrize("first", ["call", "span"])
async def test_a_call_that_names_another_session_stays_and_counts_there(
    db: Database, first: str
) -> None:
    call = end(start(1, session_id="t"), response_id="r")
    handed = Handed(n=61, trace=T, session="s", response_id="r")
    if first == "call":
        write(db, [call])
    hand_in(db, handed)
    write(db, [call])
    assert traces_of_calls(db) == {1: (1, None)}
    assert (marks(db), links(db)) == ({61: 1}, {1: T})
    assert await tokens_of(db, T) == (None, None, 1)
    assert await tokens_of(db, 1) == (10, 100, 1)
    assert await check(db, text_of) == []


async def test_a_call_that_named_its_trace_stays_in_it(db: Database) -> None:
    write(db, [end(joining(1, 51), response_id="r")])
    hand_in(db, Handed(n=61, trace=T, response_id="r"))
    assert (marks(db), traces_of_calls(db)) == ({61: 1}, {1: (51, None)})


async def test_of_several_calls_and_spans_each_span_is_marked_and_each_call_counts(
    db: Database,
) -> None:
    # A client tries twice below one span, and two libraries saw the second try.
    write(db, [end(joining(n, parent_id=span_id(61)), response_id=f"r{n}") for n in (1, 2)])
    hand_in(db, Handed(n=61, trace=T), Handed(n=62, trace=52, response_id="r2"))
    assert marks(db) == {61: 1, 62: 2}
    assert await tokens_of(db, T) == (20, 200, 3)


async def test_what_bills_nothing_or_is_of_another_project_or_kind_marks_nothing(
    db: Database,
) -> None:
    asked_only = {"usage_source": None, "cost_status": "free", "cost_nusd": 0}
    write(db, [end(joining(1, parent_id=span_id(61)), response_id="r", **asked_only)])
    write(db, [joining(2, parent_id=span_id(61))])  # it runs
    write(db, [end(joining(3, project_id=2, parent_id=span_id(61)), response_id="r")])
    write(db, [end(start(4, parent_id=span_id(61)))])  # of another trace
    write(db, [end(joining(5, parent_id=span_id(62)), response_id="tool")])
    hand_in(db, Handed(n=61, trace=T, response_id="r"))
    hand_in(db, Handed(n=62, trace=T, kind="tool_call", response_id="tool"))
    assert marks(db) == {61: None, 62: None}


async def test_an_ended_call_that_is_settled_later_marks_then(db: Database) -> None:
    write(db, [end(joining(1, parent_id=span_id(61)), response_id="r", usage_source=None)])
    hand_in(db, Handed(n=61, trace=T))
    assert marks(db) == {61: None}
    write(db, [end(start(2), settles=settlement("r"))])
    assert marks(db) == {61: 1}


async def test_a_span_counts_again_when_its_call_is_deleted(db: Database) -> None:
    write(db, [end(start(1, session_id="t"), response_id="r")])
    write(db, [end(start(2, session_id="u"), response_id="r")])
    hand_in(db, Handed(n=61, trace=T, session="s", response_id="r"))
    assert marks(db) == {61: 1}
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    # Another call with the response stands for it, as long as that is there.
    assert marks(db) == {61: 2}
    with db.transaction() as tx:
        delete_session(tx, 1, "u", text_of)
    assert marks(db) == {61: None}
    assert await tokens_of(db, T) == (1000, 5000, 1)
    session = await get_session(db, 1, "s")
    assert session is not None
    assert session.cost_nusd == 5000
    assert await check(db, text_of) == []


async def test_what_was_handed_in_is_not_taken_for_the_call_that_made_a_response(
    db: Database,
) -> None:
    # It began before the call that it saw.
    hand_in(db, Handed(n=61, trace=T, session="s", response_id="r"))
    write(db, [unknown_usage(spoken(start(1, session_id="t"), ["u:a"], ["a:b"], response_id="r"))])
    write(db, [end(start(2), settles=settlement("r"), cost_nusd=0)])
    assert await tokens_of(db, 1) == (70, 900, 1)
    write(db, [spoken(start(3), ["u:c"], ["a:d"], previous_response_id="r")])
    assert await session_of(db, 3) == ("t", "previous_response")


async def test_matching_again_changes_nothing(db: Database) -> None:
    write(db, [end(start(1), response_id="r")])
    hand_in(db, Handed(n=61, trace=T, response_id="r"))
    with db.transaction() as tx:
        ledger = Ledger(tx)
        match(ledger, [(1, trace_id(T), span_id(61)), (1, trace_id(T), span_id(1))])
        match(ledger, [(1, trace_id(T), span_id(99))])
        assert (ledger.spans, ledger.went, ledger.links) == ([], {}, {})
