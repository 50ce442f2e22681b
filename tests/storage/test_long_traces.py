"""A long trace moves by what its spans change, to what a fold over all of them gives."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.aggregates import AMOUNTS, NOTHING_KNOWN, SpanFacts, fold_trace
from storage.database import Database
from storage.ledger import TraceChange
from storage.long_traces import LONG_TRACE, moved, packed, tally_of
from storage.opened import NOT_OPENED, Opening
from storage.records import CANCELLED, COMPLETED, FAILED, INTERRUPTED, RUNNING
from tests.storage.calls import T0, end, rows, start, write
from tests.storage.handing import begun, done, hand_in

Spans = dict[bytes, SpanFacts]
KEY = (1, b"t")

texts = st.sampled_from([None, None, "a", "b"])
amounts = st.sampled_from([NOTHING_KNOWN, (0,) * len(AMOUNTS), (1,) + (None,) * (len(AMOUNTS) - 1)])


@st.composite
def facts(draw: st.DrawFn, seq: int) -> SpanFacts:
    state = draw(st.sampled_from([RUNNING, COMPLETED, FAILED, CANCELLED, INTERRUPTED]))
    started_at_us = draw(st.integers(0, 3))
    return SpanFacts(
        seq=seq,
        state=state,
        started_at_us=started_at_us,
        ended_at_us=None if state == RUNNING else started_at_us + draw(st.integers(0, 3)),
        unpriced=draw(st.integers(0, 1)),
        estimated=draw(st.integers(0, 1)),
        received_bytes=draw(st.integers(0, 2)),
        stored_bytes=draw(st.integers(0, 2)),
        is_root=draw(st.integers(0, 1)),
        model=None,
        name=draw(st.sampled_from(["n", "m"])),
        user_id=draw(texts),
        input_preview=draw(texts),
        output_preview=draw(texts),
        error=draw(texts),
        amounts=draw(amounts),
    )


openings = st.builds(
    Opening,
    seq=st.just(1),
    at_us=st.sampled_from([None, 1]),
    name=texts,
    user_id=texts,
    closed_at_us=st.sampled_from([None, 2, 5]),
    heard_at_us=st.sampled_from([None, 9]),
)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Spans, TraceChange]:
    """Draw the spans of a trace, and a change of some of them with new ones."""
    opening = draw(st.one_of(st.just(NOT_OPENED), openings))
    old = {bytes([n]): draw(facts(n)) for n in range(10, 10 + draw(st.integers(1, 4)))}
    change = TraceChange(
        KEY,
        fold_trace(old.values(), "s", "api", opening),
        "s",
        "api",
        opening=opening,
        was_opening=opening,
        tally=packed(tally_of(old.values())),
    )
    for span_id in draw(st.sets(st.sampled_from(sorted(old)), max_size=2)):
        change.before[span_id] = old[span_id]
        change.spans[span_id] = draw(facts(old[span_id].seq))
    for n in range(20, 20 + draw(st.integers(0, 2))):
        change.spans[bytes([n])] = draw(facts(n))
        change.inserted += 1
    return old, change


@settings(max_examples=500, deadline=None)
@given(changes())
def test_the_difference_gives_what_a_fold_over_all_spans_gives(
    drawn: tuple[Spans, TraceChange],
) -> None:
    old, change = drawn
    found = moved(change)
    if found is None:
        return
    spans = {**old, **change.spans}.values()
    assert found[0] == fold_trace(spans, "s", "api", change.opening)
    assert packed(found[1]) == packed(tally_of(spans))


def grown(**fields: Any) -> TraceChange:
    """Give a trace of one running span to which a second comes."""
    first = SpanFacts.of_start(
        {"seq": 1, "started_at_us": 5, "name": "n", "user_id": None, "parent_id": None}
    )
    change = TraceChange(
        KEY,
        fold_trace([first], None, None),
        None,
        None,
        tally=packed(tally_of([first])),
    )
    change.spans[b"2"] = first._replace(seq=2, started_at_us=6)
    change.inserted = 1
    return replace(change, **fields)


def test_a_span_that_comes_can_be_told() -> None:
    assert moved(grown()) is not None


@pytest.mark.parametrize(
    "fields",
    [
        {"tally": None},
        {"tally": b"not ours"},
        {"inserted": 0},  # and nobody knows what the span gave before
        {"opening": Opening(name="another")},
    ],
)
def test_what_cannot_be_told_is_read_anew(fields: dict[str, Any]) -> None:
    assert moved(grown(**fields)) is None


async def steps_of_one_more(db: Database, n: int, how: str) -> int:
    """Count the hundreds of steps of SQLite's machine that a change of a trace takes."""
    hand_in(db, [begun(k, trace=1, end=done(k)) for k in range(1, n)], indexed=False)
    write(db, [start(n, trace=1)])
    if how == "end a span":
        hand_in(db, [begun(n + 1, trace=1)], indexed=False)
    counted = 0

    def tick() -> None:
        nonlocal counted
        counted += 1

    db._writer.set_progress_handler(tick, 100)
    if how == "a new span":
        hand_in(db, [begun(n + 2, trace=1, end=done(n + 2))], indexed=False)
    elif how == "end a span":
        hand_in(db, [done(n + 1)], indexed=False)
    else:
        write(db, [end(start(n, trace=1))], indexed=False)
    db._writer.set_progress_handler(None, 0)
    return counted


@pytest.mark.parametrize("how", ["a new span", "end a span", "end a call"])
@pytest.mark.sqlite_only("counts what SQLite's own machine does")
async def test_a_change_of_a_trace_costs_the_same_however_long_it_is(
    db: Database, how: str
) -> None:
    few = await steps_of_one_more(db, LONG_TRACE + 10, how)
    rows(db, "DELETE FROM spans")
    rows(db, "DELETE FROM traces")
    many = await steps_of_one_more(db, 20 * LONG_TRACE, how)
    assert many <= few * 1.5 + 5


@pytest.mark.sqlite_only("counts what SQLite's own machine does")
async def test_a_trace_grows_by_the_same_work_whether_children_or_parents_come_first(
    db: Database,
) -> None:
    """A session of many traces is not read for one whose root comes last."""
    for n in range(1, 200):
        hand_in(db, [begun(n, session_id="s", end=done(n))], indexed=False)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    db._writer.set_progress_handler(tick, 100)
    hand_in(db, [begun(900, trace=900, session_id="s", end=done(900))], indexed=False)
    plain, ticks = ticks, 0
    root = begun(901, trace=900, started_at_us=T0 + 800_000_000, end=done(901))
    hand_in(db, [root], indexed=False)
    db._writer.set_progress_handler(None, 0)
    assert ticks <= 2 * plain + 5
    assert rows(db, "SELECT last_active_at_us FROM sessions") == [(T0 + 800_000_000,)]
