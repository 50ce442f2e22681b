"""Steps are bounded by what they take, and make way for the calls."""

import asyncio
import time
from typing import Any

import pytest

from proxy.api import pace
from proxy.api.pace import FIRST_SPANS, MOST_SPANS, Pace, Stopped
from proxy.reclaim import LONG_S, RESTS
from storage.database import StatementRefused, Transaction
from tests.recorders import Begin


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Have pauses noted, and not made."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


def busy(seconds: float) -> Any:
    def work(_: Transaction) -> str:
        until_s = time.thread_time() + seconds
        while time.thread_time() < until_s:
            pass
        return "done"

    return work


async def test_steps_that_take_long_have_fewer_calls_and_short_ones_more(
    begin: Begin, slept: list[float]
) -> None:
    paced = Pace((await begin()).recorder)
    assert await paced.step(busy(pace.STEP_S * 1.1), (1,)) == "done"
    assert paced.spans == FIRST_SPANS // 2
    assert slept[0] >= pace.STEP_S * pace.PAUSE_STEPS
    for _ in range(MOST_SPANS):
        await paced.step(busy(0), (1,))
    assert paced.spans == MOST_SPANS
    for _ in range(MOST_SPANS):
        await paced.step(busy(pace.STEP_S * 1.1), (1,), adapt=False)
    assert paced.spans == MOST_SPANS
    assert slept[-2] >= pace.STEP_S * pace.PAUSE_STEPS


async def test_a_pause_goes_on_while_records_wait_but_not_for_ever(
    begin: Begin, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = (await begin()).recorder
    monkeypatch.setattr(type(recorder), "queued_bytes", pace.QUEUED_BYTES + 1)
    await Pace(recorder)._pause(0.0)
    assert slept == [pace.PAUSE_S, *[pace.BUSY_PAUSE_S] * pace.MOST_BUSY_PAUSES]


async def test_behind_a_step_for_which_calls_waited_there_is_a_long_rest(
    begin: Begin, slept: list[float]
) -> None:
    paced = Pace((await begin()).recorder)
    await paced.step(busy(LONG_S + 0.002), (1,))
    assert slept[0] >= 0.002 * RESTS
    await paced.step(busy(LONG_S / 2), (1,))
    assert slept[1] < 0.002 * RESTS


async def test_behind_a_look_there_is_a_pause_of_its_time_but_not_for_ever(
    begin: Begin, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    paced = Pace((await begin()).recorder)

    async def read() -> str:
        until_s = time.perf_counter() + pace.STEP_S * 2
        while time.perf_counter() < until_s:
            pass
        return "found"

    assert await paced.look(read) == "found"
    monkeypatch.setattr(pace, "MOST_PAUSE_S", pace.STEP_S)
    assert await paced.look(read) == "found"
    assert slept[0] >= pace.STEP_S * 2 * pace.PAUSE_STEPS
    assert slept[1:] == [pace.STEP_S]


async def test_only_who_leads_takes_a_step(begin: Begin) -> None:
    paced = Pace((await begin()).recorder, leads=lambda: False)
    with pytest.raises(Stopped):
        await paced.step(lambda _: None, ())
    with pytest.raises(Stopped):
        await paced.give_back()


async def test_space_is_given_back_until_there_is_no_more(
    begin: Begin, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    asked: list[bool] = []

    def reclaim(*, begin: bool = False) -> bool:
        asked.append(begin)
        return len(asked) % 3 != 0

    monkeypatch.setattr(recording.database, "reclaim", reclaim)
    paced = Pace(recording.recorder)
    await paced.give_back()
    await paced.give_back(words=False)
    assert asked == [True, False, False, False, False, False]
    assert len(slept) == 6


async def test_who_keeps_deleting_keeps_it_not_from_its_end(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.reclaim.AT_ONCE_S", -1.0)
    monkeypatch.setattr("proxy.reclaim.OVERDUE_S", 0.0)
    recording = await begin()
    left = deletions = 0

    def reclaim(*, begin: bool = False) -> bool:
        nonlocal left
        left = (3 if begin else left) - 1
        return left > 0

    async def sleep(_: float) -> None:
        nonlocal deletions
        deletions += 1
        assert deletions < 20
        await recording.recorder.write(lambda _: None, erases=True)

    monkeypatch.setattr(recording.database, "reclaim", reclaim)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await Pace(recording.recorder).give_back()
    assert deletions
    # What was deleted meanwhile is given back all the same, when nobody deletes any more.
    async with asyncio.timeout(10):
        while recording.recorder._reclaim.is_due:
            await asyncio.to_thread(lambda: None)
    assert left == 0


async def test_behind_a_part_for_which_calls_waited_there_is_a_long_rest(
    begin: Begin, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    parts = iter((True, True, False))
    monkeypatch.setattr(recording.database, "reclaim", lambda *, begin: next(parts))
    monkeypatch.setattr("proxy.reclaim.LONG_S", -1.0)
    monkeypatch.setattr("proxy.reclaim.RESTS", 1_000_000_000)
    await Pace(recording.recorder).give_back()
    # Behind the last one nothing is waited for.
    assert [pause_s > 1 for pause_s in slept] == [True, True, False]


async def test_behind_each_part_that_is_given_back_there_is_a_longer_pause_than_behind_a_step(
    begin: Begin, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()

    def reclaim(*, begin: bool) -> bool:
        busy(pace.STEP_S)(None)
        return False

    monkeypatch.setattr(recording.database, "reclaim", reclaim)
    await Pace(recording.recorder).give_back()
    assert slept[0] >= pace.STEP_S * pace.PAUSE_PARTS
    assert pace.PAUSE_PARTS > pace.PAUSE_STEPS


async def test_what_the_database_cannot_do_is_said(begin: Begin) -> None:
    paced = Pace((await begin()).recorder)

    def work(tx: Transaction) -> None:
        tx.execute("SELECT * FROM nothing", {})

    with pytest.raises(StatementRefused):
        await paced.step(work, ())
