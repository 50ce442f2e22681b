"""The recorder when the database fails: what passes is waited for, poison costs itself only."""

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy import commits
from proxy import recorder as module
from proxy.call import CallEnd
from proxy.capture import Budget
from storage import parameters
from storage.database import (
    DatabaseLocked,
    DatabaseUnwritable,
    StatementRefused,
    StorageError,
    Transaction,
)
from tests.calling import EVENTS, a_call, delta, ended
from tests.recorders import Begin, Recording
from tests.storage.calls import found

LOCKED = DatabaseLocked("traceway.db", None)
FULL = DatabaseUnwritable("traceway.db", "database or disk is full")
STATES = "SELECT t.session_id, s.state FROM spans s JOIN traces t ON t.trace_id = s.trace_id"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RETRY_S", 0.001)
    monkeypatch.setattr(commits, "RETRY_MAX_S", 0.001)


async def told(recording: Recording) -> str:
    """Wait until health has something to tell, and give it."""
    async with asyncio.timeout(10):
        while not (reasons := recording.recorder.reasons()):
            await asyncio.to_thread(lambda: None)
    return reasons[0]


def move(here: Path, there: Path) -> None:
    here.rename(there)


@pytest.mark.parametrize("error", [LOCKED, FULL])
async def test_what_passes_is_tried_again_and_the_rows_appear_later(
    begin: Begin, error: StorageError
) -> None:
    recording = await begin(budget=Budget(1 << 20))
    recording.gate.fails_forever = error
    ticket = recording.recorder.put(ended(recording.budget, session="s"))
    assert await told(recording) == f"the last commit failed: {error}"
    assert not ticket.done()
    recording.gate.fails_forever = None
    await ticket
    assert await recording.rows(STATES) == [("s", "completed")]
    assert recording.recorder.reasons() == []
    assert recording.recorder.losses.counters.failed_commits >= 1
    assert recording.recorder.losses.counters.dropped_records == 0
    assert (recording.recorder.queued_bytes, recording.budget.used_bytes) == (0, 0)


@pytest.mark.sqlite_only("test_postgres_writers.py has the same of PostgreSQL")
async def test_a_lock_of_another_program_is_waited_for(begin: Begin) -> None:
    recording = await begin()
    other = sqlite3.connect(recording.database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    recording.gate.failed.clear()
    ticket = recording.recorder.put(ended(session="s"))
    assert "locked" in await told(recording)
    other.execute("ROLLBACK")
    other.close()
    await ticket
    assert await recording.rows(STATES) == [("s", "completed")]


async def test_the_log_tells_of_failing_commits_once_a_minute(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    recording = await begin()
    recording.gate.failures.extend([LOCKED] * 30)
    with caplog.at_level(logging.ERROR, "traceway"):
        await recording.recorder.put(ended())
    assert [record.getMessage()[:34] for record in caplog.records] == [
        "recording waits for the database: "
    ]
    assert recording.recorder.losses.counters.failed_commits == 30


async def test_a_writer_that_has_nothing_to_do_notices_that_it_may_write_again(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(module, "TEND_S", 0.01)
    recording = await begin()
    loop, is_well = asyncio.get_running_loop(), asyncio.Event()
    recording.gate.failures += [RuntimeError("away"), RuntimeError("away")]
    with pytest.raises(RuntimeError):
        await recording.recorder.write(lambda _: None)
    assert "away" in recording.recorder.reasons()[0]
    recording.recorder.commits.after_commit = lambda: loop.call_soon_threadsafe(is_well.set)
    before = recording.gate.operations
    async with asyncio.timeout(5):
        await is_well.wait()
    assert recording.recorder.reasons() == []
    # It has written: without that, a disk that is full looks well.
    assert recording.gate.operations - before > 2


@pytest.mark.parametrize(
    "refusal", [RuntimeError("a bug of ours"), StatementRefused("traceway.db", "no such column")]
)
async def test_a_poison_record_costs_only_itself(begin: Begin, refusal: Exception) -> None:
    recording = await begin(budget=Budget(1 << 20))
    recording.gate.refuses, recording.gate.refusal = "poison", refusal
    recording.gate.shut()
    names = [f"s{n}" for n in range(9)]
    names[3] = "poison"
    ends = [ended(recording.budget, session=name) for name in names]
    tickets = [recording.recorder.put(end) for end in ends]
    recording.gate.open()
    await recording.flush()
    names.remove("poison")
    assert await recording.rows(STATES + " ORDER BY s.seq") == [(n, "completed") for n in names]
    assert [ticket.cancelled() for ticket in tickets] == [n == 3 for n in range(9)]
    assert recording.recorder.losses.counters.unreadable_records == 1
    assert recording.recorder.reasons() == ["records were lost, in part or whole: see the counters"]
    assert (recording.recorder.queued_bytes, recording.budget.used_bytes) == (0, 0)


async def test_strict_is_told_that_a_poison_record_was_not_saved(begin: Begin) -> None:
    recording = await begin(durability="strict")
    recording.gate.refuses = "poison"
    ticket = recording.recorder.put(ended(session="poison"))
    assert not await recording.recorder.waits.committed(ticket)


async def test_an_end_that_cannot_be_stored_leaves_the_bare_fact_of_its_call(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin(budget=Budget(1 << 20))
    prepare = parameters.prepare

    def refuse_bodies(changes: list[parameters.Change]) -> parameters.Batch:
        if any(getattr(change, "request", None) for change in changes):
            raise TypeError("not a body")
        return prepare(changes)

    monkeypatch.setattr(parameters, "prepare", refuse_bodies)
    end = ended(recording.budget, session="s")
    await recording.recorder.put(end.start)
    await recording.recorder.put(end)
    assert await recording.rows(
        "SELECT state, http_status, usage_source, cost_status, request_size, notes FROM spans"
    ) == [
        ("completed", 200, "missing", "unpriced", None, "the record of this call could not be read")
    ]
    assert recording.recorder.losses.counters.unreadable_records == 1
    assert (recording.recorder.queued_bytes, recording.budget.used_bytes) == (0, 0)


async def test_a_reader_that_fails_costs_the_meaning_of_one_call_and_no_row(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recording = await begin(budget=Budget(1 << 20))
    read = recording.settler.end

    def fail(end: CallEnd) -> object:
        if end.start.session_id == "odd":
            raise RecursionError("too deep")
        return read(end)

    monkeypatch.setattr(recording.settler, "end", fail)
    recording.gate.shut()
    with caplog.at_level(logging.ERROR, "traceway"):
        tickets = [recording.recorder.put(ended(recording.budget, session=s)) for s in ("odd", "s")]
        recording.gate.open()
        await asyncio.gather(*tickets)
    assert await recording.rows(STATES + " ORDER BY s.seq") == [
        ("odd", "completed"),
        ("s", "completed"),
    ]
    assert recording.recorder.losses.counters.unreadable_records == 1
    assert "RecursionError: too deep" in caplog.text
    assert recording.budget.used_bytes == 0


async def test_a_checkpoint_that_cannot_be_read_is_left_out(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await begin(budget=Budget(1 << 20))
    monkeypatch.setattr(recording.settler, "progress", None)
    call = a_call(recording.budget)
    call.answered(200, EVENTS, edited=False)
    call.relayed(delta("Hi"), delta("Hi"))
    checkpoint = call.progress()
    assert checkpoint is not None
    await recording.recorder.put(checkpoint)
    assert recording.recorder.losses.counters.unreadable_records == 1
    assert await recording.rows("SELECT count(*) FROM spans") == [(0,)]


@pytest.mark.sqlite_only("test_postgres_writers.py has the same of PostgreSQL")
async def test_a_file_that_was_deleted_is_told_and_calls_go_on(begin: Begin) -> None:
    recording = await begin()
    here = recording.database.path
    away = here.with_suffix(".moved")
    move(here, away)
    end = ended()
    ticket = recording.recorder.put(end.start)
    await recording.recorder.waits.started(ticket)
    assert not ticket.done()
    assert "deleted or replaced" in await told(recording)
    move(away, here)
    await recording.recorder.put(end)
    assert await recording.rows("SELECT state FROM spans") == [("completed",)]


# The end, with a database that does not come back.


async def test_close_ends_though_no_commit_succeeds_and_counts_what_is_lost(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "LAST_TRY_S", 0.01)
    recording = await begin(budget=Budget(64 << 20))
    recording.gate.fails_forever = FULL
    tickets = [recording.recorder.put(ended(recording.budget)) for _ in range(1500)]
    work = recording.recorder.write(lambda _: None)
    await recording.gate.failed.wait()
    async with asyncio.timeout(5):
        await recording.recorder.close()
    assert all(ticket.cancelled() for ticket in tickets)
    assert recording.recorder.losses.counters.dropped_records == 1500
    assert (recording.recorder.queued_bytes, recording.budget.used_bytes) == (0, 0)
    with pytest.raises(RuntimeError, match="disk is full"):
        await work


async def test_close_tries_again_however_long_commits_failed_before(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "LAST_TRY_S", 60.0)
    recording = await begin()
    recording.gate.fails_forever = LOCKED
    ticket = recording.recorder.put(ended())
    while recording.recorder.losses.counters.failed_commits < 20:
        await asyncio.to_thread(lambda: None)
    closing = asyncio.create_task(recording.recorder.close())
    recording.gate.failed.clear()
    await recording.gate.failed.wait()
    recording.gate.fails_forever = None
    await closing
    assert ticket.done()
    assert not ticket.cancelled()


async def test_close_does_not_hammer_a_database_that_fails(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "RETRY_S", 0.02)
    monkeypatch.setattr(commits, "LAST_TRY_S", 0.1)
    recording = await begin()
    recording.gate.fails_forever = LOCKED
    recording.recorder.put(ended())
    await recording.recorder.close()
    assert recording.recorder.losses.counters.failed_commits <= 10


# What the settler takes over from earlier calls.

CHAIN = "SELECT COUNT(*) FROM nodes"


def turn(number: int) -> CallEnd:
    """Give the end of one turn of a conversation that is sent whole with each."""
    messages = [{"role": "user", "content": f"message {n}"} for n in range(number + 1)]
    return ended(request=orjson.dumps({"messages": messages}), session="s")


async def test_a_call_that_rests_on_what_is_not_stored_is_read_again_and_saved(
    begin: Begin,
) -> None:
    recording = await begin()
    await recording.recorder.put(turn(0))
    with recording.database.transaction() as transaction:
        for table in ("nodes", "messages"):
            transaction.execute(f"DELETE FROM {table}", {})  # noqa: S608
    await recording.recorder.put(turn(1))
    await recording.recorder.put(turn(2))
    assert recording.recorder.losses.counters.unreadable_records == 0
    # Three inputs, and the answers under the last two.
    assert await recording.rows(CHAIN) == [(5,)]


async def test_calls_that_rest_on_one_another_are_saved_in_one_batch(begin: Begin) -> None:
    recording = await begin()
    recording.gate.shut()
    tickets = [recording.recorder.put(turn(n)) for n in range(4)]
    recording.gate.open()
    await asyncio.gather(*tickets)
    assert await recording.rows(CHAIN) == [(8,)]
    assert recording.recorder.losses.counters.failed_commits == 0


async def test_after_a_deletion_nothing_is_taken_over_from_earlier_calls(begin: Begin) -> None:
    recording = await begin()
    await recording.recorder.put(turn(0))

    def forget_all(transaction: Transaction) -> None:
        for table in ("nodes", "messages"):
            transaction.execute(f"DELETE FROM {table}", {})  # noqa: S608

    await recording.recorder.write(forget_all, erases=True)
    await recording.recorder.put(turn(1))
    assert recording.recorder.losses.counters.failed_commits == 0
    assert await recording.rows(CHAIN) == [(3,)]


async def test_each_try_of_a_batch_begins_with_what_came(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[parameters.Batch] = []
    apply = module.writes.apply

    def kept(tx: Any, batch: parameters.Batch) -> Any:
        seen.append(batch)
        return apply(tx, batch)

    monkeypatch.setattr(module.writes, "apply", kept)
    recording = await begin()
    recording.gate.fault = LOCKED
    recording.gate.fails_at = recording.gate.operations + 4
    await recording.recorder.put(ended())
    first, second = seen
    assert first is not second
    assert [one.spans[0].key for one in seen] == [second.spans[0].own] * 2


async def test_full_text_that_fails_once_waits_for_the_next_call_and_keeps_none_waiting(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", 3600.0)
    recording = await begin()
    await recording.recorder.put(ended())
    recording.gate.fails_forever = LOCKED
    await recording.recorder.indexed()  # as a search does
    recording.gate.fails_forever = None
    assert recording.recorder.losses.counters.failed_commits == 1
    assert found(recording.database) == 0
    await recording.recorder.indexed()
    assert found(recording.database) == 2


async def test_a_search_indexes_few_bytes_at_a_time_and_calls_come_in_between(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", 3600.0)
    monkeypatch.setattr(module, "INDEX_NOW_BYTES", 1)
    recording = await begin()
    await recording.recorder.put(ended())
    before = recording.gate.commits
    await recording.recorder.indexed()
    assert recording.gate.commits == before + 3  # the question, the answer, and none
    assert found(recording.database) == 2
