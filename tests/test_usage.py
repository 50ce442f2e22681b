"""Usable counts, and how two usages of one call add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage import MAX_COUNT, count, fit, merge, take
from storage.records import TOKEN_BUCKETS, Tokens

buckets = st.none() | st.integers(0, MAX_COUNT)
some_tokens = st.fixed_dictionaries({name: buckets for name in TOKEN_BUCKETS}).map(
    lambda values: Tokens(**values)
)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (7, 7), (12.0, 12), (10**9, 10**9)])
def test_a_whole_number_up_to_the_bound_is_a_count(value: object, expected: int) -> None:
    assert count(value) == expected
    assert type(count(value)) is int


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        -1,
        10**9 + 1,
        2**70,
        1.5,
        -0.5,
        1e300,
        float("nan"),
        float("inf"),
        "7",
        [7],
        {"n": 7},
        b"7",
    ],
)
def test_anything_else_is_unknown(value: object) -> None:
    assert count(value) is None


def test_a_dropped_number_leaves_a_note_and_an_absent_one_does_not() -> None:
    notes: list[str] = []
    report = {"prompt_tokens": -1, "completion_tokens": None, "total_tokens": 3}
    assert [take(report, key, notes) for key in (*report, "other")] == [None, None, 3, None]
    assert notes == ["prompt_tokens out of range"]


def test_a_part_above_its_whole_is_dropped_with_a_note() -> None:
    notes: list[str] = []
    tokens = Tokens(input=10, cached_input=11, audio_input=10, output=5, reasoning=6)
    assert fit(tokens, notes) == Tokens(input=10, audio_input=10, output=5)
    assert notes == ["cached_input above input", "reasoning above output"]


def test_a_part_of_an_unknown_whole_stays() -> None:
    notes: list[str] = []
    assert fit(Tokens(cached_input=11), notes) == Tokens(cached_input=11)
    assert notes == []


def test_usages_that_are_billed_apart_add_up_by_bucket() -> None:
    main = Tokens(input=10, output=5, cached_input=4)
    assert merge(main, Tokens(input=1, output=2, image_output=2)) == Tokens(
        input=11, output=7, cached_input=4, image_output=2
    )


@given(some_tokens, some_tokens, some_tokens)
def test_merging_is_addition_with_unknown_as_its_zero(a: Tokens, b: Tokens, c: Tokens) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(a, merge(b, c)) == merge(merge(a, b), c)
    assert merge(a, Tokens()) == a
