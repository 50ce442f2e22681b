"""Calls per minute of a key, on a clock that the test turns."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Refused
from proxy.limits import RateLimits
from storage.grants import ApiKey


def taken(limits: RateLimits, times_s: list[float], limit: int | None = None) -> list[float]:
    """Give the times at which a call was let through."""
    return [at_s for at_s in times_s if limits.take(1, limit, at_s) == 0]


def test_without_a_limit_every_call_is_let_through() -> None:
    limits = RateLimits(0)
    assert len(taken(limits, [5.0] * 10_000)) == 10_000
    assert limits.refused_calls == 0


def test_a_minutes_calls_may_come_at_once_and_the_next_one_waits_for_its_share() -> None:
    limits = RateLimits(60)
    assert len(taken(limits, [100.0] * 61)) == 60
    assert limits.take(1, None, 100.0) == 1
    assert limits.take(1, None, 101.0) == 0
    assert limits.take(1, None, 101.0) == 1
    assert limits.refused_calls == 3


def test_the_wait_is_in_whole_seconds_that_are_enough() -> None:
    limits = RateLimits(7)
    assert len(taken(limits, [0.0] * 7)) == 7
    wait_s = limits.take(1, None, 0.5)
    assert wait_s == 9  # a seventh of a minute, less what has passed: 8.07 s
    assert limits.take(1, None, 0.5 + wait_s) == 0


def test_a_key_of_its_own_limit_has_that_one_and_0_is_none() -> None:
    limits = RateLimits(1)
    assert len(taken(limits, [0.0] * 5, limit=3)) == 3
    assert len(taken(RateLimits(1), [0.0] * 5, limit=0)) == 5
    assert RateLimits(1).limit(None) == 1


def test_each_key_has_its_own_allowance() -> None:
    limits = RateLimits(1)
    assert [limits.take(key, None, 0.0) for key in (1, 2, 3, 1)] == [0, 0, 0, 60]


def test_what_was_refused_takes_nothing_of_the_allowance() -> None:
    limits = RateLimits(2)
    assert len(taken(limits, [0.0] * 100)) == 2
    assert limits.take(1, None, 30.0) == 0


@pytest.mark.parametrize("limit", [1, 3, 7, 60, 61, 997, 100_000])
def test_who_keeps_to_the_limit_is_never_refused(limit: int) -> None:
    limits = RateLimits(limit)
    assert taken(limits, [0.0] * limit, None) == [0.0] * limit
    later = [60.0 + n * 60 / limit for n in range(min(limit, 1000))]
    assert taken(limits, later) == later
    assert limits.refused_calls == 0


@given(
    limit=st.integers(1, 50),
    pauses_s=st.lists(st.floats(0, 20, allow_subnormal=False), min_size=1, max_size=200),
    window_s=st.floats(0.1, 300),
)
def test_in_any_time_there_are_no_more_calls_than_a_minutes_and_that_times_share(
    limit: int, pauses_s: list[float], window_s: float
) -> None:
    times_s = [0.0]
    for pause_s in pauses_s:
        times_s.append(times_s[-1] + pause_s)
    passed = taken(RateLimits(limit), times_s)
    assert all(a <= b for a, b in pairwise(passed))
    for start_s in passed:
        within = sum(start_s <= at_s <= start_s + window_s for at_s in passed)
        assert within <= limit + limit * window_s / 60 + 1e-6


def test_a_refusal_says_the_limit_and_when_to_call_again() -> None:
    key = ApiKey(
        id=1,
        project_id=1,
        name="n",
        scope="write",
        sha256=b"",
        last_four="abcd",
        created_at_us=0,
        calls_per_minute=1,
    )
    limits = RateLimits(0)
    limits.admit(key, 0.0)
    with pytest.raises(Refused, match="1 calls a minute") as raised:
        limits.admit(key, 18.5)
    answer = raised.value.answer()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "42")
    assert "x-should-retry" not in answer.headers
    limits.admit(key, 60.5)
