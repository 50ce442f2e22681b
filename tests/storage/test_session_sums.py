"""What a difference cannot tell of a session is found anew, and nothing else."""

from typing import Any

from storage.aggregates import AMOUNTS, SpanFacts, TraceFacts, fold_trace
from storage.session_sums import ALL, DOUBTED, SessionChange

COST = AMOUNTS.index("cost_nusd")


def trace(started_at_us: int = 5, cost: int | None = None, **fields: Any) -> TraceFacts:
    span = SpanFacts.of_start(
        {"seq": 1, "started_at_us": started_at_us, "name": "n", "user_id": None, "parent_id": None}
    )
    amounts = [None] * len(AMOUNTS)
    row = fold_trace([span], "s", "api")
    return row._replace(amounts=(*amounts[:COST], cost), **fields)


def doubts(old: TraceFacts, new: TraceFacts, **row: int) -> frozenset[str]:
    change = SessionChange.beginning_with(new)
    change.replace(old, new)
    return change.doubts({**dict.fromkeys(DOUBTED), **row})


def test_a_trace_that_stays_where_it_is_leaves_no_doubt() -> None:
    assert doubts(trace(), trace(cost=5), first_started_at_us=5, first_seq=1) == frozenset()


def test_a_trace_that_moves_leaves_in_doubt_what_the_session_has_from_it() -> None:
    held = {"first_started_at_us": 5, "first_seq": 1, "error_at_us": 5, "error_seq": 1}
    assert doubts(trace(5), trace(3), **held) == {"first", "error"}
    assert doubts(trace(5), trace(3), first_started_at_us=2, first_seq=9) == frozenset()


def test_a_text_that_is_gone_is_found_anew() -> None:
    old = trace(error="e")
    assert doubts(old, trace(), error_at_us=5, error_seq=1) == {"error"}


def test_a_sum_that_may_be_of_nothing_known_is_summed_up_anew() -> None:
    assert doubts(trace(cost=5), trace(), cost_nusd=5) == ALL
    assert doubts(trace(cost=5), trace(), cost_nusd=8) == frozenset()


def test_an_end_that_moves_back_is_looked_for_among_all() -> None:
    old, new = trace(last_ended_at_us=9), trace(last_ended_at_us=7)
    assert doubts(old, new, last_ended_at_us=9) == ALL
    assert doubts(old, new, last_ended_at_us=12) == frozenset()
