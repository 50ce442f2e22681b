"""Every parser of the wire takes any bytes, and works in proportion to how many they are.

Nothing of a stranger's makes a parser raise, and four times the bytes are four times the work, of
the worst that we could think of. Work is counted in calls of functions. What one call into C does
is not seen by that, so `make torture` compares the processor's time for 256 KB with that for 1 MB,
which is a ratio and no limit.
"""

import gc
import sys
import time
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parsers import ATOMS, INPUTS, PARSERS, Parser

KB = 1024
# Four is linear; bounds of pieces, and what is done once, are the rest. Quadratic is sixteen.
MOST = 6.5
MOST_TIME = 9.0
# Steps, or seconds, below which a ratio says nothing: a single step of 1 MB takes milliseconds.
FEW = 500
SHORT_S = 0.060
TRIES = 6

hostile = st.lists(
    st.one_of(
        st.sampled_from(ATOMS),
        st.binary(max_size=20),
        st.text(max_size=10).map(str.encode),
        st.tuples(st.sampled_from(ATOMS), st.integers(1, 2000)).map(lambda many: many[0] * many[1]),
    ),
    max_size=12,
).map(b"".join)


def steps(parser: Parser, data: bytes) -> int:
    """Count the calls and returns of functions, of Python and of C, that it takes."""
    count = 0

    def seen(_frame: FrameType, _what: str, _of: object) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        parser(data)
    finally:
        sys.setprofile(before)
    return count


def cpu_s(parser: Parser, data: bytes) -> float:
    """Measure the processor's time that it takes, in this thread.

    Without the collector of garbage, which looks at all that there is whenever it likes.
    """
    gc.disable()
    try:
        before_s = time.thread_time()
        parser(data)
        return time.thread_time() - before_s
    finally:
        gc.enable()


def growth(parser: Parser, make: Callable[[int], bytes], sizes: tuple[int, int]) -> float:
    """Give how many times the steps of the smaller size the larger one takes."""
    few, many = (steps(parser, make(size)) for size in sizes)
    return many / max(few, FEW)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60)
@given(hostile)
def test_no_bytes_make_a_parser_raise(name: str, data: bytes) -> None:
    PARSERS[name](data)


@pytest.mark.parametrize("name", PARSERS)
def test_four_times_the_bytes_are_four_times_the_steps(name: str) -> None:
    sizes = (16 * KB, 64 * KB)
    grown = {what: growth(PARSERS[name], make, sizes) for what, make in INPUTS.items()}
    assert {what: ratio for what, ratio in grown.items() if ratio > MOST} == {}


def test_steps_that_are_quadratic_are_seen() -> None:
    def pairs(data: bytes) -> object:
        return [len(data) for n in range(len(data) // 64) for _ in range(n)]

    assert growth(pairs, bytes, (16 * KB, 64 * KB)) > 10


@pytest.mark.torture
@pytest.mark.parametrize("name", PARSERS)
def test_a_megabyte_is_four_times_a_quarter_of_it(name: str) -> None:
    parser = PARSERS[name]
    for what, make in INPUTS.items():
        small, large = make(256 * KB), make(1024 * KB)
        few_s = many_s = float("inf")
        for _ in range(TRIES):  # others use the processor's caches
            few_s = min(few_s, cpu_s(parser, small))
            many_s = min(many_s, cpu_s(parser, large))
            if many_s < max(SHORT_S, MOST_TIME * few_s):
                break
        assert many_s < max(SHORT_S, MOST_TIME * few_s), what
