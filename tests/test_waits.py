"""How long calls wait for the recorder: `safe`, `strict`, `fast`."""

import asyncio

import pytest

from proxy import recorder, waits
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
    assert waits.CALL_WAIT_S <= 0.040
    recording = await begin()
    recording.gate.shut()
    await vainly(recording)
    assert recording.recorder.losses.counters.late_starts == 1
    assert recording.recorder.reasons() == []
    recording.gate.open()


async def test_safe_stops_waiting_after_three_in_a_row_until_a_commit_succeeds(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "CALL_WAIT_S", 0.001)
    recording = await begin()
    recording.gate.shut()
    for _ in range(waits.MAX_VAIN_WAITS):
        await vainly(recording)
    assert recording.recorder.reasons() == ["commits take longer than answers may wait for them"]
    monkeypatch.setattr(waits, "CALL_WAIT_S", 3600.0)
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


@pytest.mark.parametrize("durability", ["safe", "strict", "fast"])
async def test_only_fast_does_not_hold_an_answer_at_all(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    monkeypatch.setattr(waits, "CALL_WAIT_S", 0.001)
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


# The end of a call, where the writer is behind.


async def behind(begin: Begin, monkeypatch: pytest.MonkeyPatch, durability: str) -> Recording:
    """Begin a recorder whose writer hangs with a record that has waited for long enough."""
    monkeypatch.setattr(waits, "BEHIND_S", -1.0)
    recording = await begin(durability=durability)
    recording.gate.shut()
    recording.recorder.put(ended())
    await recording.gate.waiting.wait()
    return recording


async def test_a_writer_with_nothing_to_do_is_not_behind(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await behind(begin, monkeypatch, "safe")
    assert recording.recorder.waits.is_behind
    recording.gate.open()
    await recording.flush()
    assert not recording.recorder.waits.is_behind


async def test_a_record_that_came_a_moment_ago_leaves_nobody_behind(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()
    recording.recorder.put(ended())
    assert not recording.recorder.waits.is_behind
    recording.gate.open()


@pytest.mark.parametrize("durability", ["strict", "fast"])
async def test_only_safe_waits_for_a_writer_that_is_behind(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    recording = await behind(begin, monkeypatch, durability)
    assert not recording.recorder.waits.is_behind
    recording.gate.open()


async def test_the_end_of_a_call_waits_until_the_writer_has_caught_up(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await behind(begin, monkeypatch, "safe")
    waiting = [asyncio.create_task(recording.recorder.waits.caught_up(3600.0)) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0.001)
    assert not any(one.done() for one in waiting)
    recording.gate.open()
    await asyncio.gather(*waiting)


async def test_the_end_of_a_call_waits_for_what_its_start_left_of_40_ms(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await behind(begin, monkeypatch, "safe")
    left_s = await recording.recorder.waits.started(recording.recorder.put(a_call().start))
    assert left_s == 0.0
    await recording.recorder.waits.caught_up(left_s)
    saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    saved.set_result(None)
    assert await recording.recorder.waits.started(saved) == waits.CALL_WAIT_S
    recording.gate.open()


async def test_nobody_waits_for_a_writer_for_which_three_have_waited_in_vain(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "CALL_WAIT_S", 0.001)
    recording = await behind(begin, monkeypatch, "safe")
    for _ in range(waits.MAX_VAIN_WAITS):
        await vainly(recording)
    assert not recording.recorder.waits.is_behind
    recording.gate.open()
