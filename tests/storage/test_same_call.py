"""Which spans tell of the same call, found from either side."""

import pytest

from storage import same_call
from storage.database import Database
from storage.queries import get_span
from storage.records import Span
from storage.same_call import MAX_TOLD, Named
from tests.storage.calls import end, span_id, start, trace_id, write
from tests.storage.handing import begun, done, hand_in


async def span(db: Database, n: int, project_id: int = 1) -> Span:
    found = await get_span(db, project_id, span_id(n))
    assert found is not None
    return found


def mark(db: Database, told: int, call: int) -> None:
    with db.transaction() as tx:
        tx.execute(
            "UPDATE spans SET same_call = :call WHERE span_id = :told AND owner IS NULL",
            {"call": span_id(call), "told": span_id(told)},
        )


@pytest.fixture
def seen_twice(db: Database) -> Database:
    """Call 1, which spans 2 and 3 saw as well, and span 4, which saw nothing."""
    write(db, [end(start(1, name="gpt-5")), end(start(1, project_id=2))])
    hand_in(db, [item for n in (2, 3, 4) for item in (begun(n, trace=9), done(n))])
    mark(db, 2, 1)
    mark(db, 3, 1)
    return db


async def test_a_span_names_the_call_that_is_counted_for_it(seen_twice: Database) -> None:
    counted = Named(trace_id(1), span_id(1), "gpt-5")
    assert await same_call.counted(seen_twice, await span(seen_twice, 2)) == counted
    assert await same_call.counted(seen_twice, await span(seen_twice, 4)) is None
    assert await same_call.counted(seen_twice, await span(seen_twice, 1)) is None


async def test_a_call_names_the_spans_that_tell_of_it(seen_twice: Database) -> None:
    told = await same_call.told(seen_twice, await span(seen_twice, 1))
    assert told == [Named(trace_id(9), span_id(n), f"span {n}") for n in (2, 3)]
    assert await same_call.told(seen_twice, await span(seen_twice, 2)) == []
    assert await same_call.told(seen_twice, await span(seen_twice, 1, 2)) == []


async def test_a_call_that_was_deleted_is_not_named(seen_twice: Database) -> None:
    mark(seen_twice, 2, 77)
    assert await same_call.counted(seen_twice, await span(seen_twice, 2)) is None


async def test_no_more_are_named_than_anybody_reads(db: Database) -> None:
    write(db, [end(start(1))])
    for n in range(100, 100 + MAX_TOLD + 3):
        hand_in(db, [begun(n), done(n)])
        mark(db, n, 1)
    assert len(await same_call.told(db, await span(db, 1))) == MAX_TOLD
