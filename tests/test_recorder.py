"""The recorder: what `put` promises, in which order and how surely records are saved, its end.

What happens when there is no room is in test_recorder_bound.py, failures of the database and of
records in test_recorder_failures.py.
"""

import asyncio
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from proxy import recorder as module
from proxy.capture import Budget
from proxy.joining import Joining
from proxy.recorder import MAX_BATCH, Recorder
from storage.database import Transaction
from storage.postgres import open_postgres
from storage.records import Taken
from tests import postgres
from tests.calling import ANSWER, a_call, answered, ended
from tests.databases import url_of
from tests.recorders import Begin
from tests.storage.calls import found


async def test_a_ticket_is_done_when_its_record_is_in_the_database(begin: Begin) -> None:
    recording = await begin()
    end = ended()
    await recording.recorder.put(end.start)
    assert await recording.rows("SELECT state FROM spans") == [("running",)]
    await recording.recorder.put(end)
    assert await recording.rows("SELECT state, input_tokens FROM spans") == [("completed", 9)]


async def test_put_does_not_wait_for_a_database_that_hangs(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()
    end = ended()
    started = recording.recorder.put(end.start)
    await recording.gate.waiting.wait()
    finished = recording.recorder.put(end)  # the writer is inside its transaction
    assert not started.done()
    assert not finished.done()
    recording.gate.open()
    await asyncio.gather(started, finished)


@pytest.mark.postgres_only("only there there is more than one writer")
async def test_behind_a_wait_for_another_server_each_batch_is_of_one_project(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    batches: list[list[int]] = []
    transaction = recording.database.transaction

    def noted(projects: Collection[int] | None = None) -> Any:
        if projects:
            batches.append(sorted(projects))
        return transaction(projects)

    monkeypatch.setattr(recording.database, "transaction", noted)
    other = open_postgres(url_of(tmp_path / "traceway.db"))
    with other.transaction((1,)):
        tickets = [recording.recorder.put(ended(project_id=1))]
        async with asyncio.timeout(10):
            while not await recording.rows(postgres.WAITING):
                pass  # which asks the database
        tickets += [recording.recorder.put(ended(project_id=n)) for n in (2, 1, 2, 1)]
    await asyncio.gather(*tickets)
    assert batches == [[1], [2], [1]]
    await other.close()


async def test_it_is_behind_where_its_writer_is_long_at_something(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    monkeypatch.setattr(module, "BEHIND_S", 0.0)
    monkeypatch.setattr(module, "SLOW_BATCH_S", 3600.0)
    assert not recording.recorder.is_behind
    recording.gate.shut()
    saved = recording.recorder.put(ended())
    await recording.gate.waiting.wait()
    assert recording.recorder.is_behind
    recording.gate.open()
    await saved
    await recording.flush()
    async with asyncio.timeout(5):
        while recording.recorder.is_behind:  # the moment until it waits again
            await asyncio.to_thread(lambda: None)


async def test_it_is_behind_other_work_later_than_behind_records(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    monkeypatch.setattr(module, "BEHIND_S", -1.0)
    monkeypatch.setattr("proxy.backlog.BEHIND_S", -1.0)
    monkeypatch.setattr(module, "SPARE_S", 3600.0)
    monkeypatch.setattr(module, "IDLE_S", 3600.0)  # no full text
    monkeypatch.setattr(module, "SLOW_BATCH_S", 3600.0)
    for work, is_behind in (
        (lambda: recording.recorder.write(lambda _: None), False),
        (lambda: recording.recorder.put(ended()), True),
    ):
        recording.gate.shut()
        done = work()
        await recording.gate.waiting.wait()
        waits = recording.recorder.put(ended())
        assert recording.recorder.is_behind == is_behind
        recording.gate.open()
        await asyncio.gather(done, waits)


async def test_it_is_behind_where_a_batch_took_so_long_that_two_may_take_too_long(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    monkeypatch.setattr(module, "BEHIND_S", 3600.0)
    monkeypatch.setattr("proxy.backlog.BEHIND_S", 3600.0)
    monkeypatch.setattr(module, "SLOW_BATCH_S", -1.0)
    assert not recording.recorder.is_behind
    await recording.recorder.put(ended(), urgent=True)
    await recording.flush()
    assert recording.recorder.is_behind
    monkeypatch.setattr(module, "SLOW_BATCH_S", 3600.0)
    for _ in range(module.SLOW_BATCHES):
        assert recording.recorder.is_behind
        await recording.recorder.put(ended(), urgent=True)
        await recording.flush()
    assert not recording.recorder.is_behind


@pytest.mark.parametrize("durability", ["strict", "fast"])
async def test_only_with_safe_it_is_ever_behind(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    monkeypatch.setattr(module, "BEHIND_S", -1.0)
    recording = await begin(durability=durability)
    recording.gate.shut()
    recording.recorder.put(ended())
    await recording.gate.waiting.wait()
    assert not recording.recorder.is_behind
    recording.gate.open()


async def test_records_are_saved_in_the_order_in_which_they_came(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()
    tickets = [recording.recorder.put(a_call(session=f"s{n}").start) for n in range(1200)]
    recording.gate.open()
    await asyncio.gather(*tickets)
    rows = await recording.rows(
        "SELECT t.session_id FROM spans s JOIN traces t ON t.trace_id = s.trace_id ORDER BY s.seq"
    )
    assert rows == [(f"s{n}",) for n in range(1200)]


async def test_what_waits_is_saved_in_batches_of_a_bounded_size(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()
    first = recording.recorder.put(a_call().start)
    await recording.gate.waiting.wait()
    tickets = [recording.recorder.put(a_call().start) for _ in range(2 * MAX_BATCH + 1)]
    recording.gate.open()
    await asyncio.gather(first, *tickets)
    assert recording.gate.commits == 1 + 3


async def test_a_start_and_an_end_that_meet_in_a_batch_are_one_row(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()
    ends = [ended() for _ in range(3)]
    tickets = [recording.recorder.put(record) for end in ends for record in (end.start, end)]
    recording.gate.open()
    await asyncio.gather(*tickets)
    assert await recording.rows("SELECT count(*), max(seq) - min(seq) FROM spans") == [(3, 2)]


async def test_a_start_is_written_at_once_and_takes_ends_that_linger_with_it(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_S", 3600.0)
    recording = await begin()
    end = recording.recorder.put(ended())  # for itself it would wait an hour for company
    await recording.recorder.put(a_call().start)
    await end
    assert recording.gate.commits == 1


async def test_a_lone_end_is_saved_well_within_50_ms() -> None:
    assert module.LINGER_S <= 0.010


async def test_other_work_runs_in_order_with_the_records_and_gives_its_result(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()

    def count(tx: Transaction) -> Any:
        return tx.execute("SELECT count(*) FROM spans", {})[0][0]

    before = recording.recorder.put(ended())
    counted = recording.recorder.write(count)
    after = recording.recorder.put(ended())
    recording.gate.open()
    assert await counted == 1
    await asyncio.gather(before, after)


async def test_work_that_fails_tells_its_caller_why_and_no_one_else(begin: Begin) -> None:
    recording = await begin()

    def fail(_: Transaction) -> None:
        raise ValueError("no such thing")

    failing = recording.recorder.write(fail)
    saved = recording.recorder.put(ended())
    with pytest.raises(ValueError, match="no such thing"):
        await failing
    await saved


# The end.


async def test_close_saves_what_is_queued(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()
    tickets = [recording.recorder.put(ended()) for _ in range(600)]
    closing = asyncio.create_task(recording.recorder.close())
    await recording.gate.waiting.wait()
    recording.gate.open()
    await closing
    assert all(ticket.done() and not ticket.cancelled() for ticket in tickets)
    assert await recording.rows("SELECT count(*) FROM spans") == [(600,)]


async def test_what_comes_after_the_end_is_counted_as_lost_and_nobody_waits_for_it(
    begin: Begin,
) -> None:
    budget = Budget(1 << 20)
    recording = await begin(budget=budget)
    await recording.recorder.close()
    end = ended(budget)
    assert recording.recorder.put(end.start).cancelled()
    assert not await recording.recorder.waits.committed(recording.recorder.put(end))
    assert recording.recorder.write(lambda _: None).cancelled()
    assert recording.recorder.losses.counters.dropped_records == 1
    assert (budget.used_bytes, recording.recorder.queued_bytes) == (0, 0)


async def test_a_recorder_that_died_says_so(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = await begin()
    assert recording.recorder.reasons() == []
    monkeypatch.setattr(Recorder, "_take", lambda _: None)
    await recording.flush()  # the last thing that it takes
    await asyncio.to_thread(recording.recorder._thread.join)
    assert recording.recorder.reasons() == [
        "the recorder died of a bug: nothing is saved until a restart"
    ]


async def test_messages_come_into_full_text_when_nothing_else_is_to_be_done(begin: Begin) -> None:
    recording = await begin()
    await recording.recorder.put(ended())
    async with asyncio.timeout(10):
        while await recording.rows("SELECT content_id FROM unindexed"):
            pass
    assert found(recording.database) == 2  # the question and the answer


async def test_a_search_finds_what_was_saved_before_it(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", 60)  # nothing comes into the index by itself
    recording = await begin()
    await recording.recorder.put(ended())
    assert await recording.rows("SELECT COUNT(*) FROM unindexed") == [(2,)]
    await recording.recorder.indexed()
    assert await recording.rows("SELECT COUNT(*) FROM unindexed") == [(0,)]


async def test_a_search_does_not_wait_for_a_database_that_is_stuck(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INDEX_WAIT_S", 0.0)
    recording = await begin()
    recording.gate.shut()
    await recording.recorder.indexed()
    await recording.recorder.indexed()
    recording.gate.open()
    await recording.flush()
    assert recording.gate.commits == 2  # the two searches share one


async def test_only_what_erases_gives_space_back(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    reclaimed: list[bool] = []
    all_given = asyncio.Event()

    def reclaim(*, begin: bool = False) -> bool:
        reclaimed.append(begin)
        if len(reclaimed) == 3:
            loop.call_soon_threadsafe(all_given.set)
        return len(reclaimed) < 3

    loop = asyncio.get_running_loop()
    monkeypatch.setattr("proxy.reclaim.AT_ONCE_S", 0)
    monkeypatch.setattr(recording.database, "reclaim", reclaim)
    await recording.recorder.write(lambda _: None)
    assert reclaimed == []
    await recording.recorder.write(lambda _: None, erases=True)
    # The rest when there is nothing else to do.
    await all_given.wait()
    assert reclaimed == [True, False, False]
    until = await recording.recorder.to_reclaim(words=True)
    more, _ = await recording.recorder.reclaim(until)
    assert not more
    assert reclaimed == [True, False, False, True]


async def test_what_a_process_before_left_is_given_back_when_there_is_time(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def reclaim(*, begin: bool = False) -> bool:
        loop.call_soon_threadsafe(begun.set)
        return not begin

    monkeypatch.setattr(recording.database, "reclaim", reclaim)
    monkeypatch.setattr(type(recording.database), "has_left", True)
    monkeypatch.setattr("proxy.reclaim.AFTER_START_S", 0.0)
    recording.recorder.reclaim_left()
    await begun.wait()


async def test_space_is_given_back_also_where_calls_leave_no_pause(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.recorder.IDLE_S", 3600.0)
    monkeypatch.setattr("proxy.reclaim.AT_ONCE_S", -1.0)
    recording = await begin()
    reclaimed: list[bool] = []
    monkeypatch.setattr(
        recording.database, "reclaim", lambda *, begin: bool(reclaimed.append(begin))
    )
    await recording.recorder.write(lambda _: None, erases=True)
    await recording.recorder.write(lambda _: None)
    assert reclaimed == [True]


async def test_the_database_is_told_of_a_pause_where_nothing_waits_to_be_saved(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin()
    told: list[bool] = []
    monkeypatch.setattr(recording.database, "tend", lambda *, idle: told.append(idle))
    recording.gate.shut()
    first = recording.recorder.put(ended())
    await recording.gate.waiting.wait()
    second = recording.recorder.put(ended())
    recording.gate.open()
    await asyncio.gather(first, second)
    async with asyncio.timeout(10):
        while len(told) < 2:
            await asyncio.to_thread(lambda: None)
    assert told[:2] == [False, True]


@pytest.mark.sqlite_only("only SQLite has a log that readers make grow")
async def test_a_recorder_without_calls_cuts_back_what_a_foreign_reader_made_grow(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.wal.WAL_BYTES", 1 << 16)
    monkeypatch.setattr("storage.wal.TEND_S", 0.0)
    monkeypatch.setattr(module, "TEND_S", 0.001)
    recording = await begin()
    wal = recording.database.path.with_name("traceway.db-wal")
    reader = sqlite3.connect(recording.database.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM spans").fetchall()
    for _ in range(20):
        await recording.recorder.put(ended(recording.budget))
    assert wal.stat().st_size > 1 << 16
    tend, looked = recording.database.tend, 0

    def looking(*, idle: bool) -> bool:
        nonlocal looked
        looked += 1
        return tend(idle=idle)

    monkeypatch.setattr(recording.database, "tend", looking)
    async with asyncio.timeout(10):
        while recording.recorder._unindexed:  # the last thing that it has to do
            await asyncio.to_thread(lambda: None)
        before = looked
        while looked < before + 3:  # and it looks again, though nothing else is to be done
            await asyncio.to_thread(lambda: None)
    reader.close()
    async with asyncio.timeout(10):
        while wal.stat().st_size:
            await asyncio.to_thread(lambda: None)


async def test_the_ticket_of_a_record_names_the_trace_that_its_call_joined(begin: Begin) -> None:
    recording = await begin()
    trace = b"t" * 16
    call = a_call(joining=Joining(trace_id=trace), session="s", source="helicone")
    taken = Taken(trace, "s", "helicone")
    assert await recording.recorder.put(call.start) == taken
    assert await recording.recorder.put(a_call().start) is None
    assert await recording.recorder.put(answered(call, ANSWER)) == taken
