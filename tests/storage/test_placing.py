"""Which trace a call is in: that which it names, with its session, or its own with a link."""

from typing import Any

import pytest

from storage import placing
from storage.database import Database
from storage.forget import delete_trace
from storage.placing import moved_to
from storage.queries import get_session, get_span, get_trace
from storage.records import Taken
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
from tests.storage.seen_twice import Handed, hand_in, links, traces_of_calls

T = 50


def joining(n: int, trace: int = T, **fields: Any) -> Any:
    return start(n, joins=trace_id(trace), **fields)


def tracing(n: int, trace: int = T, parent: int = 61, **fields: Any) -> Any:
    """Begin a call with a `traceparent`."""
    external = {
        "external_trace_id": trace_id(trace),
        "external_parent_id": parent.to_bytes(8, "big"),
    }
    return start(n, **external, **fields)


async def session_of(db: Database, trace: int) -> tuple[str | None, str | None]:
    found = await get_trace(db, 1, trace_id(trace))
    assert found is not None
    return found.session_id, found.session_source


async def test_a_call_joins_the_trace_that_our_header_names_known_or_not(
    db: Database,
) -> None:
    written = write(db, [joining(1, parent_id=span_id(61))])
    assert traces_of_calls(db) == {1: (T, 61)}
    own = (1, trace_id(1), span_id(1))
    assert written.taken == {own: Taken(trace_id(T), None, None)}
    assert written.traces == ((1, trace_id(T)),)
    write(db, [joining(2)])
    assert traces_of_calls(db) == {1: (T, 61), 2: (T, None)}
    assert rows(db, "SELECT span_count FROM traces") == [(2,)]


async def test_what_a_call_says_later_goes_to_its_row_and_makes_no_other(
    db: Database,
) -> None:
    one = joining(1, parent_id=span_id(61), session_id="s")
    write(db, [one])
    taken = write(db, [checkpoint(one, b"so far")]).taken
    assert taken == {(1, trace_id(1), span_id(1)): Taken(trace_id(T), "s", "header")}
    assert write(db, [one]).late == 1
    write(db, [end(one)])
    assert traces_of_calls(db) == {1: (T, 61)}
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.state, span.trace_id, span.moved_from) == ("completed", trace_id(T), trace_id(1))
    assert write(db, [end(one), checkpoint(one, b"late")]).late == 2


async def test_a_call_has_the_session_of_its_trace_and_infers_none(db: Database) -> None:
    hand_in(db, Handed(n=61, trace=T, session="s"))
    adopted = {"session_id": "other", "session_source": "metadata"}
    write(db, [end(joining(1)), end(joining(2, **adopted))])
    assert traces_of_calls(db) == {1: (T, None), 2: (T, None)}
    assert await session_of(db, T) == ("s", "api")
    assert await get_session(db, 1, "other") is None
    # It goes on from a conversation of another session, and from no trace's.
    write(db, [spoken(start(3, session_id="x"), ["u:a"], ["a:b"])])
    write(db, [spoken(joining(4, 51), ["u:a", "a:b", "u:c"], ["a:d"])])
    assert await session_of(db, 51) == (None, None)


async def test_a_trace_without_a_session_takes_that_of_its_call(db: Database) -> None:
    write(db, [joining(1)])
    write(db, [joining(2, session_id="s")])
    assert await session_of(db, T) == ("s", "header")
    write(db, [joining(3, 51, session_id="t")])
    assert await session_of(db, 51) == ("t", "header")


async def test_a_call_that_names_another_session_keeps_its_own_trace_and_a_link(
    db: Database,
) -> None:
    hand_in(db, Handed(n=61, trace=T, session="s"))
    written = write(db, [end(joining(1, parent_id=span_id(61), session_id="t"))])
    assert traces_of_calls(db) == {1: (1, None)}
    assert links(db) == {1: T}
    assert written.taken == {}
    assert await session_of(db, 1) == ("t", "header")
    write(db, [end(joining(2, session_id="s"))])
    assert traces_of_calls(db)[2] == (T, None)


async def test_a_traceparent_joins_a_trace_that_is_known_and_no_other(db: Database) -> None:
    write(db, [tracing(1)])
    assert traces_of_calls(db) == {1: (1, None)}
    hand_in(db, Handed(n=61, trace=51, session="s"))
    write(db, [end(tracing(2, 51))])
    assert traces_of_calls(db)[2] == (51, 61)
    # Our header says more, and the parent of the same trace is taken where it names none.
    write(db, [start(3, joins=trace_id(51), external_trace_id=trace_id(T))])
    write(db, [tracing(4, 51, joins=trace_id(51))])
    assert traces_of_calls(db)[3] == (51, None)
    assert traces_of_calls(db)[4] == (51, 61)


async def test_a_trace_takes_no_more_spans_than_are_ever_read_of_one(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "MAX_SPANS", 2)
    write(db, [joining(n, session_id="s") for n in (1, 2)])
    write(db, [joining(3)])
    assert traces_of_calls(db)[3] == (3, None)
    assert links(db) == {3: T}
    assert await session_of(db, 3) == ("s", "header")


async def test_the_id_of_a_trace_that_a_call_has_left_leads_to_where_it_is(
    db: Database,
) -> None:
    write(db, [joining(1)])
    write(db, [joining(2, 1)])
    assert traces_of_calls(db) == {1: (T, None), 2: (T, None)}
    with db.transaction() as tx:
        assert moved_to(tx, [(1, trace_id(1)), (2, trace_id(1))]) == {
            (1, trace_id(1)): (1, trace_id(T))
        }


async def test_a_span_that_was_handed_in_with_a_calls_id_does_not_take_its_row(
    db: Database,
) -> None:
    hand_in(db, Handed(n=1, trace=T))
    write(db, [end(joining(1))])
    assert traces_of_calls(db) == {1: (1, None)}
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(2,)]


async def test_the_same_trace_in_another_project_is_another(db: Database) -> None:
    hand_in(db, Handed(n=61, trace=T, session="s"))
    write(db, [end(tracing(1, project_id=2)), end(joining(2, project_id=2))])
    assert traces_of_calls(db) == {}
    assert traces_of_calls(db, 2) == {1: (T, 61), 2: (T, None)}
    assert await session_of(db, T) == ("s", "api")
    assert rows(db, "SELECT session_id FROM traces WHERE project_id = 2") == [(None,)]


async def test_a_call_that_ends_after_its_trace_was_deleted_brings_it_back(
    db: Database,
) -> None:
    write(db, [one := joining(1, session_id="s")])
    with db.transaction() as tx:
        assert delete_trace(tx, 1, trace_id(T), text_of) is not None
    write(db, [checkpoint(one, b"so far")])
    assert rows(db, "SELECT COUNT(*) FROM traces") == [(0,)]
    write(db, [end(one)])
    assert traces_of_calls(db) == {1: (T, None)}
    assert await session_of(db, T) == ("s", "header")


@pytest.mark.sqlite_only("counts what SQLite's own machine does")
async def test_who_names_no_trace_pays_one_look_up_at_the_most(db: Database) -> None:
    def statements(n: int, **fields: Any) -> list[str]:
        seen: list[str] = []
        db._writer.set_trace_callback(seen.append)
        write(db, [end(start(n), **fields)], indexed=False)
        db._writer.set_trace_callback(None)
        return seen

    plain, answered = statements(1), statements(2, response_id="r")
    assert len(answered) == len(plain) + 1
    named = [one for one in plain if "moved_from IN" in one or "same_call" in one]
    assert named == []
