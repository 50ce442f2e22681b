"""Copies of bodies: what is kept, what is known of the rest, and what the budget holds."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.capture import PREVIEW_BYTES, TAIL_BYTES, Budget, Capture

PLENTY = 64 << 20


def capture(data: bytes, limit_bytes: int, budget: Budget, piece: int = 1 << 20) -> Capture:
    copy = Capture(limit_bytes, budget)
    for at in range(0, len(data), piece):
        copy.add(data[at : at + piece])
    return copy


def test_a_body_within_its_limit_is_kept_whole_and_not_hashed_twice() -> None:
    found = capture(b"abc" * 10, 30, Budget(PLENTY), piece=7).captured()
    assert found.head == b"abc" * 10
    assert found.whole
    assert (found.tail, found.sha256) == (b"", None)


def test_no_body_is_whole() -> None:
    found = Capture(10, Budget(PLENTY)).captured()
    assert (found.head, found.size, found.whole) == (b"", 0, True)


@given(st.binary(max_size=400), st.integers(0, 300), st.integers(1, 100))
def test_of_a_longer_body_its_first_part_its_length_and_its_hash_are_known(
    data: bytes, limit_bytes: int, piece: int
) -> None:
    found = capture(data, limit_bytes, Budget(PLENTY), piece).captured()
    assert found.head == data[:limit_bytes]
    assert found.size == len(data)
    assert found.whole is (len(data) <= limit_bytes)
    if not found.whole:
        assert found.sha256 == hashlib.sha256(data).digest()
        assert data.endswith(found.tail)
        assert found.head + found.tail != b""


@pytest.mark.parametrize("piece", [1000, TAIL_BYTES, 10 * TAIL_BYTES])
def test_the_end_of_a_long_body_is_kept_however_it_came(piece: int) -> None:
    data = bytes(range(256)) * 2000
    found = capture(data, 100, Budget(PLENTY), piece).captured()
    assert found.tail == data[-TAIL_BYTES:]


def test_all_that_a_copy_holds_is_on_the_budget() -> None:
    budget = Budget(PLENTY)
    short, long = capture(b"x" * 50, 100, budget), capture(b"x" * 500_000, 100, budget)
    assert short.captured().held_bytes == 50
    assert long.captured().held_bytes == 100 + TAIL_BYTES
    assert budget.used_bytes == 150 + TAIL_BYTES


def test_when_the_budget_is_spent_a_preview_of_each_body_and_as_much_of_its_end_are_kept() -> None:
    budget = Budget(10_000)
    budget.take(10_000)
    data = bytes(range(256)) * 100
    found = capture(data, PLENTY, budget, piece=3000).captured()
    assert found.head == data[:PREVIEW_BYTES]
    assert found.tail == data[-PREVIEW_BYTES:]
    assert found.size == len(data)
    assert found.sha256 == hashlib.sha256(data).digest()
    assert budget.used_bytes == 10_000 + 2 * PREVIEW_BYTES == 10_000 + found.held_bytes


def test_a_copy_that_stopped_growing_has_no_gap_when_there_is_room_again() -> None:
    budget = Budget(100_000)
    copy = Capture(PLENTY, budget)
    copy.add(b"a" * 60_000)
    copy.add(b"b" * 60_000)
    budget.limit_bytes = PLENTY
    copy.add(b"c" * 60_000)
    found = copy.captured()
    assert found.head == b"a" * 60_000
    assert found.tail == b"c" * PREVIEW_BYTES


def test_a_copy_of_the_copy_is_on_the_budget_too_and_is_not_made_where_it_has_no_room() -> None:
    budget = Budget(10_000)
    copy = capture(b"x" * 4000, PLENTY, budget)
    first = copy.so_far()
    assert first is not None
    assert (first.head, first.held_bytes) == (b"x" * 4000, 4000)
    assert budget.used_bytes == 8000
    assert copy.so_far() is None
    assert budget.used_bytes == 8000


def test_the_budget_takes_what_fits_and_gives_it_back() -> None:
    budget = Budget(100)
    assert budget.take(100)
    assert not budget.take(1)
    assert budget.take(5, anyway=True)
    budget.give(105)
    assert budget.used_bytes == 0


def test_room_that_was_reserved_is_taken_by_nobody_else_and_what_did_not_come_goes_back() -> None:
    budget = Budget(20_000)
    first, second = Capture(PLENTY, budget), Capture(PLENTY, budget)
    assert first.reserve(9000)
    second.add(b"y" * 15_000)
    first.add(b"x" * 4000)
    first.add(b"x" * 3000)
    assert (first.is_whole, second.is_whole) == (True, False)
    found = first.captured()
    assert (found.head, found.held_bytes) == (b"x" * 7000, 7000)
    assert budget.used_bytes == 7000 + second.captured().held_bytes


def test_what_is_only_announced_gets_half_of_the_room() -> None:
    budget = Budget(10_000)
    assert not Capture(PLENTY, budget).reserve(5001)
    assert Capture(PLENTY, budget).reserve(5000)
    assert not Capture(PLENTY, budget).reserve(1)
    come = Capture(PLENTY, budget)
    come.add(b"x" * 5000)
    assert come.is_whole


def test_more_than_what_was_reserved_has_to_find_room_as_ever() -> None:
    budget = Budget(10_000)
    copy = Capture(PLENTY, budget)
    assert copy.reserve(3000)
    copy.add(b"x" * 5000)
    assert copy.is_whole
    assert budget.used_bytes == copy.captured().held_bytes == 5000


def test_no_room_is_reserved_for_what_would_not_be_kept_whole() -> None:
    budget = Budget(PLENTY)
    assert not Capture(1000, budget).reserve(1001)
    begun = capture(b"x", 1000, budget)
    assert not begun.reserve(10)
    assert budget.used_bytes == 1


def test_a_whole_body_is_held_once_and_one_that_was_cut_stays_as_it_is() -> None:
    whole = b"x" * 1000
    copy = capture(whole, PLENTY, Budget(PLENTY))
    copy.share(whole)
    assert copy.piece(0) is whole
    assert copy.captured().head == whole
    cut = capture(whole, 100, Budget(PLENTY))
    cut.share(whole)
    assert cut.captured().head == whole[:100]


@pytest.mark.parametrize("limit_bytes", [PLENTY, 1000])
def test_what_comes_once_the_copy_was_given_is_counted_and_takes_nothing(limit_bytes: int) -> None:
    budget = Budget(PLENTY)
    copy = capture(b"x" * 900, limit_bytes, budget)
    budget.give(copy.captured().held_bytes)
    copy.add(b"x" * 900)
    assert copy.size == 1800
    assert budget.used_bytes == 0
