"""The waterfall and the strip of turns: where calls stand, what pauses take, what is summed."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.ui.timeline import (
    MAX_COLUMNS,
    MIN_WIDTH,
    WIDTH,
    Bar,
    Gap,
    Stretch,
    columns,
    waterfall,
)
from storage.breakdown import TurnSum
from storage.records import COMPLETED, TRUNCATED

S = 1_000_000


def rows(*calls: tuple[int, int | None], now: int = 0) -> list[int]:
    found = waterfall([Stretch(start * S, end and end * S) for start, end in calls], now * S)
    return [bar.row for bar in found.bars]


def test_a_session_without_calls_is_empty() -> None:
    found = waterfall([], 0)
    assert (found.rows, found.bars, found.gaps) == (0, (), ())


def test_a_call_alone_takes_the_whole_width() -> None:
    found = waterfall([Stretch(5 * S, 9 * S, first_us=6 * S)], 0)
    assert (found.rows, found.bars) == (1, (Bar(0, 0, WIDTH, WIDTH / 4),))


def test_calls_that_follow_each_other_stand_below_each_other() -> None:
    found = waterfall([Stretch(0, S), Stretch(S, 4 * S)], 0)
    assert [(bar.row, bar.x, bar.width) for bar in found.bars] == [
        (0, 0, WIDTH / 4),
        (1, WIDTH / 4, 3 * WIDTH / 4),
    ]
    assert found.gaps == ()


def test_calls_at_the_same_time_have_lanes_that_are_used_again() -> None:
    # A long call, and beside it two that follow each other.
    assert rows((0, 10), (1, 3), (3, 5), (10, 11)) == [0, 1, 1, 2]
    assert rows((0, 9), (1, 8), (2, 3), (4, 9)) == [0, 1, 2, 2]


def test_a_call_that_runs_goes_on_to_now() -> None:
    assert rows((0, None), (5, 6), now=6) == [0, 1]
    assert rows((0, None), (5, 6), now=5) == [0, 1]
    found = waterfall([Stretch(5 * S, None)], 0)
    assert found.bars[0].width == MIN_WIDTH


def test_a_short_pause_is_to_scale_and_a_long_one_is_marked() -> None:
    short = waterfall([Stretch(0, 3 * S), Stretch(4 * S, 7 * S)], 0)
    assert [(bar.x, bar.width) for bar in short.bars] == [
        (0, 428.57),
        (571.43, 428.57),
    ]
    assert short.gaps == ()
    long = waterfall([Stretch(0, 3 * S), Stretch(3600 * S, 3603 * S)], 0)
    assert long.bars[1].x == 5 * WIDTH / 8
    assert long.gaps == (Gap(1, 3 * WIDTH / 8, 2 * WIDTH / 8, 3597 * S),)
    assert long.gap_before(1) == long.gaps[0]
    assert (long.gaps[0].is_long, long.gap_before(0)) == (True, None)


def test_a_pause_of_seconds_is_no_long_one() -> None:
    (gap,) = waterfall([Stretch(0, S), Stretch(20 * S, 21 * S)], 0).gaps
    assert not gap.is_long


def test_the_calls_of_a_row_go_from_left_to_right() -> None:
    found = waterfall([Stretch(4 * S, 5 * S), Stretch(0, 9 * S), Stretch(1 * S, 3 * S)], 0)
    assert found.lanes == [[1], [2, 0]]


def test_calls_are_placed_by_their_start_and_given_in_their_own_order() -> None:
    assert rows((5, 6), (0, 1), (3, 4)) == [2, 0, 1]


def test_calls_without_any_length_are_seen() -> None:
    found = waterfall([Stretch(7, 7), Stretch(7, 7)], 0)
    assert [(bar.row, bar.width) for bar in found.bars] == [(0, MIN_WIDTH), (1, MIN_WIDTH)]


CALLS = st.lists(
    st.builds(
        lambda start, length, first: Stretch(
            start * S,
            None if length is None else (start + length) * S,
            None if first is None else first * S,
        ),
        st.integers(0, 50),
        st.none() | st.integers(0, 20),
        st.none() | st.integers(0, 80),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(CALLS, st.integers(0, 60))
def test_no_call_stands_over_another_or_outside(calls: list[Stretch], now: int) -> None:
    now *= S
    found = waterfall(calls, now)
    ends = [max(call.start_us, now if call.end_us is None else call.end_us) for call in calls]
    for (a, one), (b, other) in combinations(enumerate(found.bars), 2):
        if one.row == other.row:
            assert ends[a] <= calls[b].start_us or ends[b] <= calls[a].start_us
    assert sorted({bar.row for bar in found.bars}) == list(range(found.rows))
    for bar in found.bars:
        assert 0 <= bar.x < WIDTH
        assert MIN_WIDTH <= bar.width <= WIDTH
        assert bar.waiting is None or 0 <= bar.waiting <= bar.width
    if any(end > call.start_us for end, call in zip(ends, calls, strict=True)):
        assert sum(gap.width for gap in found.gaps) <= WIDTH / 4 + 0.1
    by_start = sorted(range(len(calls)), key=lambda n: calls[n].start_us)
    places = [found.bars[n].x for n in by_start]
    assert places == sorted(places)


def turn(cost_nusd: int | None = 1, tokens: int | None = 10, status: str = COMPLETED) -> TurnSum:
    return TurnSum(b"\x01\xff", status, cost_nusd, tokens)


def test_each_turn_has_a_column_as_high_as_its_share() -> None:
    first, second = columns([turn(2_000_000_000, 10), turn(1_000_000_000, 40, TRUNCATED)])
    assert (first.cost, first.cost_share, first.tokens_share, first.failed) == (2.0, 1, 0.25, 0)
    assert (second.first, second.last, second.cost_share, second.failed) == (2, 2, 0.5, 1)
    assert first.trace_id == "01ff"


def test_what_is_unknown_is_no_zero() -> None:
    (column,) = columns([turn(None, None)])
    assert (column.cost, column.tokens, column.cost_share) == (None, None, 0)
    (column,) = columns([turn(0, 0)])
    assert (column.cost, column.tokens) == (0, 0)
    assert columns([]) == ()


def test_many_turns_share_columns() -> None:
    found = columns([turn(1_000_000_000 if n % 2 else None) for n in range(2005)])
    assert len(found) <= MAX_COLUMNS
    assert [(c.first, c.last) for c in (found[0], found[1], found[-1])] == [
        *((1, 21), (22, 42), (1996, 2005)),
    ]
    assert sum(column.cost or 0 for column in found) == 1002
    assert sum(column.tokens or 0 for column in found) == 20_050
