"""Where the calls of a session stand on a waterfall, and how high its turns' bars are. Pure.

Invariants: time runs from left to right and no call stands over another; a pause without any call
is never wider than its share, and says so where it is not to scale. Lengths are in units of the
drawing, which is ``WIDTH`` wide; what is unknown has no bar. Words and colours are the template's.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from proxy.api.units import usd
from storage.breakdown import TurnSum
from storage.records import FAILED_STATES

WIDTH: Final = 1000.0
# The narrowest bar that a person still sees and hits, on a screen of 1,000 points.
MIN_WIDTH: Final = 3.0
# All pauses together take at most a quarter of the width: a third of what the calls take.
_PAUSES: Final = 3
LONG_PAUSE_US: Final = 60_000_000
# Columns of the strip of turns: as many as still can be told apart on a telephone.
MAX_COLUMNS: Final = 100


@dataclass(frozen=True, slots=True)
class Stretch:
    """When a call ran; ``end_us`` is None while it does. ``first_us``: its first token came."""

    start_us: int
    end_us: int | None
    first_us: int | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A call's place; ``waiting`` is the part of ``width`` before its first token, if one came."""

    row: int
    x: float
    width: float
    waiting: float | None


@dataclass(frozen=True, slots=True)
class Gap:
    """A pause that is drawn shorter than it was, before the calls of ``row``."""

    row: int
    x: float
    width: float
    duration_us: int

    @property
    def is_long(self) -> bool:
        """Whether it is worth a line of its own."""
        return self.duration_us >= LONG_PAUSE_US


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Bars in the order of their calls. Calls that ran at the same time are rows of one step."""

    rows: int
    bars: tuple[Bar, ...]
    gaps: tuple[Gap, ...]

    @property
    def lanes(self) -> list[list[int]]:
        """The numbers of the calls in each row, from left to right."""
        lanes: list[list[int]] = [[] for _ in range(self.rows)]
        for number in sorted(range(len(self.bars)), key=lambda n: (self.bars[n].x, n)):
            lanes[self.bars[number].row].append(number)
        return lanes

    def gap_before(self, row: int) -> Gap | None:
        """Give the pause before a row."""
        return next((gap for gap in self.gaps if gap.row == row), None)


@dataclass(slots=True)
class _Step:
    """Calls that overlap, one after the other: from a start to an end without a pause."""

    start_us: int
    end_us: int
    calls: list[int]


def waterfall(calls: Sequence[Stretch], now_us: int) -> Waterfall:
    """Place calls; one that still runs goes on to ``now_us``."""
    ends = [_end_us(call, now_us) for call in calls]
    steps: list[_Step] = []
    for number in sorted(range(len(calls)), key=lambda n: (calls[n].start_us, n)):
        start_us, end_us = calls[number].start_us, ends[number]
        if not steps or start_us >= steps[-1].end_us:
            steps.append(_Step(start_us, end_us, []))
        steps[-1].calls.append(number)
        steps[-1].end_us = max(steps[-1].end_us, end_us)
    pauses = [after.start_us - before.end_us for before, after in pairwise(steps)]
    busy_us = sum(step.end_us - step.start_us for step in steps)
    widest_us = max(1, busy_us // (_PAUSES * max(1, sum(map(bool, pauses)))))
    drawn = [0, *(min(pause, widest_us) for pause in pauses)]
    scale = WIDTH / max(1, busy_us + sum(drawn))
    bars: dict[int, Bar] = {}
    gaps: list[Gap] = []
    row, left_us = 0, 0
    for step, pause, shown in zip(steps, [0, *pauses], drawn, strict=False):
        if shown < pause:
            gaps.append(Gap(row, round(left_us * scale, 2), round(shown * scale, 2), pause))
        left_us += shown
        lanes = _lanes(step, calls, ends)
        for number, lane in lanes.items():
            call = calls[number]
            x = (left_us + call.start_us - step.start_us) * scale
            bars[number] = _bar(row + lane, x, scale, call, ends[number])
        left_us += step.end_us - step.start_us
        row += max(lanes.values()) + 1
    return Waterfall(row, tuple(bars[number] for number in range(len(calls))), tuple(gaps))


def _end_us(call: Stretch, now_us: int) -> int:
    return max(call.start_us, now_us if call.end_us is None else call.end_us)


def _lanes(step: _Step, calls: Sequence[Stretch], ends: Sequence[int]) -> dict[int, int]:
    """Give each call of a step the first lane that is free when it begins."""
    free: list[int] = []
    taken: list[tuple[int, int]] = []
    lanes: dict[int, int] = {}
    for number in step.calls:
        while taken and taken[0][0] <= calls[number].start_us:
            heapq.heappush(free, heapq.heappop(taken)[1])
        lane = heapq.heappop(free) if free else len(taken)
        lanes[number] = lane
        heapq.heappush(taken, (ends[number], lane))
    return lanes


def _bar(row: int, x: float, scale: float, call: Stretch, end_us: int) -> Bar:
    width = max((end_us - call.start_us) * scale, MIN_WIDTH)
    waiting = None
    if call.first_us is not None:
        waiting = min(max(call.first_us - call.start_us, 0) * scale, width)
        waiting = round(waiting, 2)
    return Bar(row, round(min(x, WIDTH - MIN_WIDTH), 2), round(width, 2), waiting)


@dataclass(frozen=True, slots=True)
class Column:
    """Turns that follow each other, from ``first`` (counted from 1) to ``last``, and their sums.

    ``cost`` is in USD. The shares are those of the highest column, from 0 to 1.
    """

    first: int
    last: int
    trace_id: str
    cost: float | None
    tokens: int | None
    failed: int
    cost_share: float
    tokens_share: float


def columns(turns: Sequence[TurnSum]) -> tuple[Column, ...]:
    """Sum turns up to ``MAX_COLUMNS`` columns of as many turns each."""
    size = -(-len(turns) // MAX_COLUMNS) or 1
    groups = [turns[start : start + size] for start in range(0, len(turns), size)]
    costs = [_sum([turn.cost_nusd for turn in group]) for group in groups]
    tokens = [_sum([turn.total_tokens for turn in group]) for group in groups]
    most_cost = max((cost or 0 for cost in costs), default=0) or 1
    most_tokens = max((count or 0 for count in tokens), default=0) or 1
    return tuple(
        Column(
            first=number * size + 1,
            last=number * size + len(group),
            trace_id=group[0].trace_id.hex(),
            cost=usd(cost),
            tokens=count,
            failed=sum(turn.status in FAILED_STATES for turn in group),
            cost_share=(cost or 0) / most_cost,
            tokens_share=(count or 0) / most_tokens,
        )
        for number, (group, cost, count) in enumerate(zip(groups, costs, tokens, strict=True))
    )


def _sum(values: Sequence[int | None]) -> int | None:
    """Add what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
