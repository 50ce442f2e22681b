"""Conditions print themselves, and what they print is read as the same."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.amounts import MAX_AMOUNT
from storage.clauses import Alone, Amount, Holds, Ids, Name, Query, Starred, Time, Words
from storage.search import MAX_CHARS, parse

NAMES = st.sampled_from(["session", "model", "provider", "user", "source", "kind", "tag"])
COUNTS = st.sampled_from(["cost", "tokens", "duration", "traces", "spans", "errors"])
AMOUNTS = st.integers(0, MAX_AMOUNT)


@st.composite
def ranges(draw: st.DrawFn) -> Amount:
    low, high = sorted((draw(AMOUNTS), draw(AMOUNTS)))
    return Amount(draw(COUNTS), "..", low, high, draw(st.booleans()))


CONDITIONS = st.one_of(
    st.builds(
        Words,
        st.text(min_size=1).filter(str.strip),
        st.sampled_from(["", "input", "output"]),
        st.booleans(),
    ),
    st.builds(Name, NAMES, st.text(), st.booleans(), st.booleans()),
    st.builds(
        Amount, COUNTS, st.sampled_from([">", "<", ">=", "<=", "="]), AMOUNTS, negated=st.booleans()
    ),
    ranges(),
    st.builds(Starred, st.booleans(), st.booleans()),
    st.builds(
        Time,
        st.sampled_from(["since", "until"]),
        st.integers(-(10**15), 10**17),
        negated=st.booleans(),
    ),
    st.builds(
        Time, st.sampled_from(["since", "until"]), AMOUNTS, st.just(True), negated=st.booleans()
    ),
)


@settings(deadline=None)
@given(st.lists(CONDITIONS, max_size=5))
def test_any_conditions_are_read_as_they_are_printed(conditions: list[Any]) -> None:
    query = Query("sessions", tuple(conditions))
    if len(str(query)) <= MAX_CHARS:
        assert parse(str(query)) == query


def test_a_time_that_is_so_long_ago_is_counted_from_now() -> None:
    (ago,) = parse("since:5m").conditions
    (moment,) = parse("since:1970-01-01T00:00:01Z").conditions
    assert isinstance(ago, Time)
    assert isinstance(moment, Time)
    assert ago.at_us(1_000_000_000) == 700_000_000
    assert moment.at_us(1_000_000_000) == 1_000_000


@pytest.mark.parametrize(
    ("text", "narrow"),
    [
        ("session:a", True),
        ("cost:>1 since:1h", True),
        ("session:a*", False),
        ("-session:a", False),
        ("-since:1h", False),
        ("until:1h", False),
        ("", False),
    ],
)
def test_a_query_is_narrow_if_it_names_a_session_or_when_it_begins(text: str, narrow: bool) -> None:
    assert parse(text).is_narrow is narrow


def test_rows_of_some_ids_are_few() -> None:
    assert Query("spans", (Ids((bytes(16),), "trace"),)).is_narrow


def test_what_no_query_can_say_is_printed_so_that_it_differs() -> None:
    conditions = (Alone(), Holds("a"), Holds("b"), Ids((b"a",)), Ids((b"a",), "trace"), Words("a"))
    assert len({str(Query("spans", (one,))) for one in conditions}) == len(conditions)
