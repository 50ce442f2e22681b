"""The rules by which traces and sessions follow from their spans, one at a time.

That they hold after any history is the business of test_aggregates.py.
"""

import pytest

from storage.database import Database
from storage.queries import get_session, get_trace
from storage.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    TRUNCATED,
    SpanEnd,
    Tokens,
)
from tests.storage.calls import (
    T0,
    end,
    start,
    trace_id,
    unknown_usage,
    write,
)


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([COMPLETED, RUNNING, FAILED], RUNNING),
        ([COMPLETED, TRUNCATED, CANCELLED], FAILED),
        ([INTERRUPTED, COMPLETED], FAILED),
        ([COMPLETED, CANCELLED], CANCELLED),
        ([COMPLETED, COMPLETED], COMPLETED),
    ],
)
async def test_a_traces_status_follows_from_its_spans(
    db: Database, states: list[str], status: str
) -> None:
    for n, state in enumerate(states):
        begun = start(n, trace=9)
        write(db, [begun if state == RUNNING else end(begun, state=state)])
    trace = await get_trace(db, 1, trace_id(9))
    assert trace is not None
    assert (trace.status, trace.span_count) == (status, len(states))


async def test_sums_of_what_is_unknown_are_null_and_of_zero_are_zero(db: Database) -> None:
    write(db, [unknown_usage(end(start(1, session_id="s")))])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.tokens, session.cost_nusd, session.unpriced_count) == (Tokens(), None, 1)
    write(db, [end(start(2, session_id="s"), tokens=Tokens(input=0), cost_nusd=0)])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.tokens, session.cost_nusd) == (Tokens(input=0), 0)


async def test_a_trace_keeps_the_first_session_that_was_named(db: Database) -> None:
    write(db, [end(start(1, trace=9))])
    write(db, [end(start(2, trace=9, session_id="first"))])
    write(db, [end(start(3, trace=9, session_id="second"))])
    trace = await get_trace(db, 1, trace_id(9))
    assert trace is not None
    assert trace.session_id == "first"
    first = await get_session(db, 1, "first")
    assert first is not None
    assert (first.trace_count, first.span_count) == (1, 3)
    assert await get_session(db, 1, "second") is None


async def test_a_sessions_texts_come_from_its_oldest_and_newest_traces(db: Database) -> None:
    def call(n: int, **given: object) -> SpanEnd:
        return end(start(n, session_id="s", session_source=f"source {n}"), **given)

    write(db, [call(2, input_preview="second", output_preview="two", user_id="b")])
    write(db, [call(3, input_preview="third", state=FAILED, error="broke")])
    write(db, [call(1, input_preview="first", output_preview="one", user_id="a")])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.first_input, session.source) == ("first", "source 1")
    assert (session.last_output, session.last_error) == ("two", "broke")
    assert (session.user_id, session.status) == ("a", FAILED)
    assert session.last_active_at_us == T0 + 3_000_000
