"""How long calls wait for the recorder: `safe`, `strict`, `fast`."""

import asyncio

import pytest

from proxy import recorder, waits
from proxy.backlog import Ticket
from tests.calling import a_call, ended
from tests.recorders import Begin, Recording


async def vainly(recording: Recording) -> None:
    """Let a call's answer wait for a start that is not saved."""
    await recording.recorder.waits.started(recording.recorder.put(a_call().start))


async def test_safe_holds_an_answer_until_its_start_is_saved(begin: Begin) -> None:
    recording = await begin()
    ticket = recording.recorder.put(a_call().start)
    await recording.recorder.waits.started(ticket)
    assert ticket.done()
    assert recording.recorder.losses.counters.late_starts == 0


async def test_safe_goes_on_without_its_start_after_40_ms_and_counts_it(begin: Begin) -> None:
    assert waits.START_WAIT_S <= 0.040
    recording = await begin()
    recording.gate.shut()
    await vainly(recording)
    assert recording.recorder.losses.counters.late_starts == 1
    assert recording.recorder.reasons() == []
    recording.gate.open()


async def test_safe_stops_waiting_after_three_in_a_row_until_a_commit_succeeds(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "START_WAIT_S", 0.001)
    recording = await begin()
    recording.gate.shut()
    for _ in range(waits.MAX_VAIN_WAITS):
        await vainly(recording)
    assert recording.recorder.reasons() == ["commits take longer than answers may wait for them"]
    monkeypatch.setattr(waits, "START_WAIT_S", 3600.0)
    async with asyncio.timeout(5):
        await vainly(recording)
    assert recording.recorder.losses.counters.late_starts == waits.MAX_VAIN_WAITS + 1
    recording.gate.open()
    await recording.flush()
    assert recording.recorder.reasons() == []
    recording.gate.shut()
    waiting = asyncio.create_task(vainly(recording))
    await recording.gate.waiting.wait()
    assert not waiting.done()  # it waits again
    recording.gate.open()
    await waiting


async def test_a_wait_while_others_are_saved_is_not_in_vain(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "START_WAIT_S", 0.001)
    waiting = waits.Waits((await begin()).recorder.losses, "safe")
    never: Ticket = asyncio.get_running_loop().create_future()
    for _ in range(waits.MAX_VAIN_WAITS):
        asyncio.get_running_loop().call_soon(waiting.saved)
        await waiting.started(never)
    assert not waiting.are_vain
    for _ in range(waits.MAX_VAIN_WAITS):
        await waiting.started(never)
    assert waiting.are_vain


async def test_waits_at_the_same_time_are_in_vain_once(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "START_WAIT_S", 0.001)
    waiting = waits.Waits((await begin()).recorder.losses, "safe")
    never: Ticket = asyncio.get_running_loop().create_future()
    for _ in range(waits.MAX_VAIN_WAITS):
        assert not waiting.are_vain
        await asyncio.gather(*(waiting.started(never) for _ in range(10)))
    assert waiting.are_vain


async def test_an_end_waits_for_what_its_start_left_of_45_ms(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert waits.HELD_S <= 0.045
    recording = await begin()
    await recording.recorder.waits.ended(recording.recorder.put(ended(), urgent=True), 0.0)
    assert await recording.rows("SELECT state FROM spans") == [("completed",)]
    assert recording.recorder.losses.counters.late_ends == 0
    monkeypatch.setattr(waits, "HELD_S", 3600.0)
    recording.gate.shut()
    async with asyncio.timeout(5):
        await recording.recorder.waits.ended(recording.recorder.put(ended()), 3599.99)
        await recording.recorder.waits.ended(recording.recorder.put(ended()), 3600.0)
    assert recording.recorder.losses.counters.late_ends == 2
    recording.gate.open()


@pytest.mark.parametrize("durability", ["safe", "strict", "fast"])
async def test_only_fast_does_not_hold_an_answer_at_all(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    monkeypatch.setattr(waits, "START_WAIT_S", 0.001)
    recording = await begin(durability=durability)
    recording.gate.shut()
    await vainly(recording)
    recording.gate.open()
    assert recording.recorder.losses.counters.late_starts == (0 if durability == "fast" else 1)


async def test_strict_writes_ends_at_once_and_tells_whether_they_are_saved(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "LINGER_S", 3600.0)
    recording = await begin(durability="strict")
    assert await recording.recorder.waits.committed(recording.recorder.put(ended()))
    monkeypatch.setattr(waits, "STRICT_WAIT_S", 0.001)
    recording.gate.shut()
    assert not await recording.recorder.waits.committed(recording.recorder.put(ended()))
    recording.gate.open()
