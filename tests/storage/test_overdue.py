"""What an application never ends ends by time, and yields to its own word."""

from storage.database import Database
from storage.doctor import check
from storage.events import read_after
from storage.handed import Said
from storage.overdue import end_overdue
from storage.queries import get_span, get_trace
from storage.records import COMPLETED, INTERRUPTED, RUNNING, Tokens
from tests.storage.calls import T0, rows, span_id, start, state_of, trace_id, write
from tests.storage.handing import NOW_US, begun, closed, done, hand_in, opened, text_of

TIMEOUT_US = 1_000_000


def end_at(db: Database, now_us: int, limit: int = 100) -> bool:
    with db.transaction() as tx:
        return end_overdue(tx, now_us, TIMEOUT_US, limit)


async def test_a_span_is_interrupted_when_nothing_was_heard_of_it_for_so_long(
    db: Database,
) -> None:
    hand_in(db, [begun(1)])
    end_at(db, NOW_US + TIMEOUT_US)
    assert await state_of(db, 1) == RUNNING
    end_at(db, NOW_US + TIMEOUT_US + 1)
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.state, span.ended_by, span.ended_at_us) == (INTERRUPTED, "proxy", NOW_US)
    assert span.error is not None
    told = [one.event.type for one in await read_after(db, 1, 0)]
    assert told == ["trace_created", "span_created", "span_failed", "trace_updated"]
    assert await check(db, text_of) == []


async def test_tokens_that_count_without_a_cost_are_unpriced(db: Database) -> None:
    counted = Said(kind="llm_call", model="m", tokens=Tokens(input=10, output=1))
    hand_in(db, [begun(1, said=counted), begun(2, trace=1, said=Said(kind="tool_call"))])
    end_at(db, NOW_US + 2 * TIMEOUT_US)
    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert (trace.tokens.input, trace.cost_nusd, trace.unpriced_count) == (10, None, 1)
    hand_in(db, [done(1)])
    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert (trace.cost_nusd, trace.unpriced_count) == (110, 0)
    assert await check(db, text_of) == []


async def test_a_call_is_never_overdue(db: Database) -> None:
    write(db, [start(1)])
    end_at(db, NOW_US + 10 * TIMEOUT_US)
    assert await state_of(db, 1) == RUNNING


async def test_a_real_end_replaces_one_by_time(db: Database) -> None:
    hand_in(db, [opened(1, session_id="s"), begun(1)])
    end_at(db, NOW_US + 2 * TIMEOUT_US)
    (outcome,) = hand_in(db, [done(1)])
    assert (outcome.result, outcome.status) == ("ended", COMPLETED)
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.state, span.error, span.ended_by, span.duration_us) == (
        *(COMPLETED, None, None),
        500_000,
    )
    assert rows(db, "SELECT last_error FROM sessions") == [(None,)]
    assert await check(db, text_of) == []


async def test_a_silent_trace_has_the_state_of_its_spans(db: Database) -> None:
    hand_in(db, [opened(1), begun(1), done(1)])
    end_at(db, NOW_US + 2 * TIMEOUT_US)
    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert (trace.status, trace.ended_at_us) == (COMPLETED, T0 + 1_500_000)
    (outcome,) = hand_in(db, [closed(1)])
    assert outcome.result == "ended"


async def test_a_word_opens_a_silent_trace_again(db: Database) -> None:
    hand_in(db, [opened(1)])
    end_at(db, NOW_US + 2 * TIMEOUT_US)
    hand_in(db, [begun(2, trace=1), done(2)])
    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert trace.status == RUNNING
    assert await check(db, text_of) == []


async def test_a_trace_that_has_ended_is_not_overdue(db: Database) -> None:
    hand_in(db, [opened(1), closed(1)])
    before = await read_after(db, 1, 0)
    end_at(db, NOW_US + 2 * TIMEOUT_US)
    assert await read_after(db, 1, 0) == before


async def test_ends_that_wait_too_long_are_dropped(db: Database) -> None:
    hand_in(db, [done(1)])
    end_at(db, NOW_US + 1)
    assert rows(db, "SELECT COUNT(*) FROM early_ends") == [(1,)]
    end_at(db, NOW_US + 2 * TIMEOUT_US)
    assert rows(db, "SELECT COUNT(*) FROM early_ends") == [(0,)]


async def test_so_many_are_ended_at_a_time(db: Database) -> None:
    hand_in(db, [begun(n) for n in range(1, 6)])
    later = NOW_US + 2 * TIMEOUT_US
    assert end_at(db, later, 2)
    assert end_at(db, later, 2)
    assert not end_at(db, later, 2)
    assert rows(db, "SELECT COUNT(*) FROM spans WHERE state = 'running'") == [(0,)]
