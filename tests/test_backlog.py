"""The recorder's bound in bytes: what is given up, in which order, and that it is never silent."""

import asyncio
import logging
import random
import weakref
from typing import Any

import pytest

from proxy import backlog as module
from proxy import losses
from proxy.backlog import RECORD_BYTES, Backlog, Item, weight
from proxy.call import COMPLETE, CallEnd
from proxy.capture import Budget
from proxy.joining import Joining
from tests.calling import ANSWER, EVENTS, LEFT, a_call, answered, delta, ended
from tests.recorders import Begin, Recording

BODY = 20_000


async def stuck(begin: Begin, limit_bytes: int) -> Recording:
    """Begin a recorder whose writer hangs in a transaction, with nothing else in its queue."""
    recording = await begin(budget=Budget(limit_bytes))
    recording.gate.shut()
    recording.recorder.put(a_call(request=b"").start)
    await recording.gate.waiting.wait()
    return recording


def large(recording: Recording, number: int) -> CallEnd:
    """Give a record of two bodies of 20,000 bytes in all, whose request names its number."""
    request = b'{"model":"m","messages":[{"role":"user","content":"call %d"}]}' % number
    filler = b'{"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11},"x":"%b"}'
    call = a_call(recording.budget, request=request, session=f"s{number}")
    size = BODY - len(request) - len(filler) + 2
    return answered(call, filler % (b"y" * size))


async def saved(recording: Recording) -> list[tuple[str, int, int]]:
    """Let the writer go on, and give each session with whether its bodies were kept."""
    recording.gate.open()
    await recording.flush()
    return await recording.rows(
        "SELECT t.session_id,"
        " s.request_content_id IS NOT NULL OR s.request_envelope IS NOT NULL,"
        " s.response_content_id IS NOT NULL OR s.response_envelope IS NOT NULL"
        " FROM spans s JOIN traces t ON t.trace_id = s.trace_id"
        " WHERE t.session_id IS NOT NULL ORDER BY s.seq"
    )


async def test_the_oldest_bodies_go_first_and_their_records_stay(begin: Begin) -> None:
    recording = await stuck(begin, 100_000)
    tickets = [recording.recorder.put(large(recording, n)) for n in range(6)]
    assert recording.recorder.queued_bytes <= 100_000
    assert recording.recorder.losses.counters.dropped_bodies == 2
    assert recording.recorder.losses.counters.dropped_records == 0
    assert await saved(recording) == [
        ("s0", 0, 0),
        ("s1", 0, 0),
        ("s2", 1, 1),
        ("s3", 1, 1),
        ("s4", 1, 1),
        ("s5", 1, 1),
    ]
    await asyncio.gather(*tickets)
    assert (recording.recorder.queued_bytes, recording.budget.used_bytes) == (0, 0)


async def test_of_a_body_that_was_dropped_its_length_stays_and_it_is_marked_as_cut(
    begin: Begin,
) -> None:
    recording = await stuck(begin, 3 * RECORD_BYTES)
    recording.recorder.put(large(recording, 1))
    await saved(recording)
    assert await recording.rows(
        "SELECT state, http_status, request_size + response_size, response_truncated, usage_source"
        " FROM spans WHERE state <> 'running'"
    ) == [("completed", 200, BODY, 1, "missing")]


async def test_a_stream_whose_body_was_dropped_keeps_its_usage(begin: Begin) -> None:
    recording = await stuck(begin, 3 * RECORD_BYTES)
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
    call = a_call(recording.budget)
    recording.recorder.put(
        answered(call, delta("x" * BODY), usage, b"data: [DONE]\n\n", headers=EVENTS)
    )
    assert recording.recorder.losses.counters.dropped_bodies == 1
    await saved(recording)
    assert await recording.rows(
        "SELECT input_tokens, output_tokens, usage_source FROM spans WHERE state <> 'running'"
    ) == [(9, 2, "provider")]


async def test_a_checkpoint_is_given_up_like_a_body_and_is_no_loss(begin: Begin) -> None:
    recording = await stuck(begin, 50_000)
    call = a_call(recording.budget)
    call.answered(200, EVENTS, edited=False)
    call.relayed(delta("x" * BODY), delta("x" * BODY))
    checkpoint = call.progress()
    assert checkpoint is not None
    ticket = recording.recorder.put(checkpoint)
    recording.budget.limit_bytes = 3 * RECORD_BYTES
    start = recording.recorder.put(a_call(request=b"").start)
    assert (ticket.cancelled(), start.cancelled()) == (True, False)
    assert recording.recorder.losses.counters == losses.Counters()
    recording.recorder.put(call.finish(COMPLETE))
    await saved(recording)
    assert (recording.recorder.queued_bytes, recording.budget.used_bytes) == (0, 0)


async def test_where_no_bodies_are_left_starts_go_first_for_their_ends_carry_them(
    begin: Begin,
) -> None:
    recording = await stuck(begin, 5 * RECORD_BYTES)
    ends = [ended(recording.budget, request=b"", answer=b"", session=f"s{n}") for n in range(4)]
    starts = [recording.recorder.put(end.start) for end in ends]
    tickets = [recording.recorder.put(end) for end in ends]
    assert [ticket.cancelled() for ticket in starts] == [True] * 4
    assert recording.recorder.losses.counters.dropped_records == 0
    assert [row[0] for row in await saved(recording)] == ["s0", "s1", "s2", "s3"]
    await asyncio.gather(*tickets)


async def test_where_there_is_no_room_at_all_the_newest_record_is_not_taken(begin: Begin) -> None:
    recording = await stuck(begin, 3 * RECORD_BYTES)
    ends = [ended(recording.budget, session=f"s{n}") for n in range(4)]
    tickets = [recording.recorder.put(end) for end in ends]
    assert [ticket.cancelled() for ticket in tickets] == [False, False, True, True]
    assert recording.recorder.losses.counters.dropped_records == 2
    assert recording.recorder.queued_bytes <= 3 * RECORD_BYTES
    assert [row[0] for row in await saved(recording)] == ["s0", "s1"]
    assert (recording.recorder.queued_bytes, recording.budget.used_bytes) == (0, 0)


async def test_other_work_in_the_queue_is_never_given_up_nor_in_the_way(begin: Begin) -> None:
    recording = await stuck(begin, 3 * RECORD_BYTES)
    work = recording.recorder.write(lambda _: "done")
    for number in range(10):
        recording.recorder.put(ended(recording.budget, session=f"s{number}"))
    assert recording.recorder.queued_bytes <= 3 * RECORD_BYTES
    assert recording.recorder.losses.counters.dropped_records == 8
    recording.gate.open()
    assert await work == "done"


async def test_a_strict_call_whose_start_has_no_room_learns_it_at_once(begin: Begin) -> None:
    recording = await stuck(begin, RECORD_BYTES)
    ticket = recording.recorder.put(a_call(session="s").start)
    assert not await recording.recorder.waits.committed(ticket)
    await recording.recorder.waits.started(ticket)  # in `safe` it goes on, and it is counted
    assert recording.recorder.losses.counters.late_starts == 1


async def test_a_loss_is_told_by_health_and_logged_once_a_minute(
    begin: Begin, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await stuck(begin, 3 * RECORD_BYTES)
    assert recording.recorder.reasons() == []
    with caplog.at_level(logging.ERROR, "traceway"):
        for number in range(20):
            recording.recorder.put(large(recording, number))
        assert len(caplog.records) == 1
        assert "dropped_bodies=1" in caplog.text
        monkeypatch.setattr(losses, "LOG_EVERY_S", 0.0)
        recording.recorder.put(large(recording, 20))
        assert len(caplog.records) == 2
    assert recording.recorder.reasons() == ["records were lost, in part or whole: see the counters"]
    await saved(recording)
    monkeypatch.setattr(losses, "DEGRADED_S", 0.0)
    assert recording.recorder.reasons() == []
    assert recording.recorder.losses.counters.dropped_bodies > 0  # these stay


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happened_everything_is_given_back_when_all_is_saved(
    begin: Begin, seed: int
) -> None:
    source = random.Random(seed)  # noqa: S311 (data, not secrets)
    recording = await begin(budget=Budget(60_000))
    for number in range(200):
        if source.random() < 0.1:
            recording.gate.shut()
        elif source.random() < 0.2:
            recording.gate.open()
        size = source.choice([0, 10, 3000, 30_000])
        call = a_call(recording.budget, request=b"x" * size, session=f"s{number % 7}")
        recording.recorder.put(call.start)
        if source.random() < 0.7:
            call.answered(200, EVENTS, edited=False)
            call.relayed(ANSWER, ANSWER * source.choice([0, 1, 100]))
            if (checkpoint := call.progress()) is not None:
                call.checkpoint = recording.recorder.put(checkpoint)
        recording.recorder.put(call.finish(source.choice([COMPLETE, LEFT])))
        assert recording.recorder.queued_bytes <= 60_000
        if source.random() < 0.3:
            await asyncio.to_thread(lambda: None)  # let the writer have a turn
    recording.gate.open()
    await recording.flush()
    assert (recording.recorder.queued_bytes, recording.budget.used_bytes) == (0, 0)
    lost = recording.recorder.losses.counters.dropped_records
    assert await recording.rows("SELECT count(*) FROM spans WHERE state <> 'running'") == [
        (200 - lost,)
    ]


def queued(*records: Any) -> Backlog:
    """Give a backlog of these; a function is other work."""
    backlog = Backlog(Budget(64 << 20), losses.Losses())
    for one in records:
        put(backlog, one)
    return backlog


def put(backlog: Backlog, one: Any) -> Item:
    """Add a record, or a function as other work."""
    ticket = asyncio.get_running_loop().create_future()
    if callable(one):
        item = Item(None, one, ticket, 0, urgent=True)
    else:
        item = Item(one, None, ticket, weight(one), urgent=False)
    backlog.add(item)
    return item


def taken(
    backlog: Backlog, most: int = 10, most_bytes: int = 20_000, *, apart: bool = False
) -> list[list[Any]]:
    """Take all of it, batch by batch."""
    found = []
    while backlog:
        batch = backlog.take(most, most_bytes, apart=apart)
        found.append([item.record or item.work for item in batch])
    return found


async def test_starts_go_before_ends_and_what_they_went_before_is_next() -> None:
    huge = answered(a_call(Budget(64 << 20), request=b"x" * 50_000), ANSWER)
    end, after = ended(), ended()
    starts = [a_call().start for _ in range(8)]
    assert taken(queued(end, *starts, after), most=4) == [
        [*starts[:2], end, starts[2]],
        [*starts[3:5], starts[5], starts[6]],
        [starts[7], after],
    ]
    assert taken(queued(huge, *starts), most=8) == [starts[:4], [huge], starts[4:]]


def work(_: object) -> None: ...


async def test_nothing_goes_before_other_work() -> None:
    end, first, late, later = ended(), a_call().start, a_call().start, a_call().start
    batches = [[first, end], [work], [late], [work], [later]]
    assert taken(queued(end, first, work, late, work, later)) == batches


async def test_what_was_dropped_is_held_by_nobody_while_nothing_is_taken() -> None:
    backlog = queued(ended())
    held = []
    for _ in range(3):
        item = put(backlog, a_call().start)
        held.append(weakref.ref(item.ticket))
        backlog.make_room(item, RECORD_BYTES)
    del item
    assert [ticket() for ticket in held] == [None] * 3
    assert len(backlog) == 1


async def test_what_is_withdrawn_is_gone_and_in_nobodys_way() -> None:
    end, other, late = ended(), ended(), a_call().start
    backlog = queued(end)
    item = put(backlog, work)
    put(backlog, other)
    backlog.withdraw(item)
    assert len(backlog) == 2
    put(backlog, late)
    assert taken(backlog) == [[late, end, other]]


async def test_what_was_taken_is_withdrawn_by_whoever_took_it() -> None:
    backlog = queued(work)
    (item,) = backlog.take(1, 1)
    end, first = ended(), a_call().start
    put(backlog, work)
    backlog.withdraw(item)
    put(backlog, end)
    put(backlog, first)
    assert taken(backlog) == [[work], [end, first]]


async def test_a_start_that_names_a_trace_goes_before_nothing() -> None:
    # The trace may have the session that an end before it says; then the call is of that.
    end, first = ended(), a_call().start
    joins = a_call(joining=Joining(trace_id=bytes(16))).start
    told = a_call(joining=Joining(external_trace_id=bytes(16))).start
    assert taken(queued(end, joins, told, first)) == [[first, end, joins, told]]


async def test_it_is_late_where_a_record_waited_long_or_much_is_not_saved_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not queued().is_late(0.0)
    backlog = queued(ended())
    assert not backlog.is_late(0.0)
    monkeypatch.setattr(module, "BEHIND_S", -1.0)
    assert backlog.is_late(0.0)
    assert not backlog.is_late(3600.0)
    (item,) = backlog.take(1, 1)
    assert not backlog.is_late(0.0)  # it is being saved
    monkeypatch.setattr(module, "BEHIND_BYTES", item.weight - 1)
    assert backlog.is_late(0.0)
    backlog.end(item, is_saved=True)
    assert not backlog.is_late(0.0)


async def test_what_stands_before_a_large_record_is_taken_without_it() -> None:
    small, also_small, after = (ended() for _ in range(3))
    huge = answered(a_call(Budget(64 << 20), request=b"x" * 50_000), ANSWER)
    backlog = queued(small, also_small, huge, after)
    assert taken(backlog) == [[small, also_small], [huge], [after]]


async def test_apart_a_batch_is_of_one_project_and_the_others_keep_their_order() -> None:
    one, other = ([ended(project_id=n) for _ in range(3)] for n in (1, 2))
    records = [record for both in zip(one, other, strict=True) for record in both]
    assert taken(queued(*records)) == [records]
    assert taken(queued(*records), apart=True) == [one, other]
    assert taken(queued(*records), most=2, apart=True) == [one[:2], other[:2], one[2:], other[2:]]


async def test_apart_starts_of_the_same_project_go_first_and_no_others() -> None:
    end, other = ended(project_id=1), ended(project_id=2)
    starts = [a_call(project_id=1 + n % 2).start for n in range(4)]
    assert taken(queued(end, other, *starts), apart=True) == [
        [starts[0], starts[2], end],
        [starts[1], starts[3], other],
    ]


async def test_apart_nothing_goes_before_other_work() -> None:
    one, other, late = (ended(project_id=n) for n in (1, 2, 1))
    batches = [[one], [other], [work], [late]]
    assert taken(queued(one, other, work, late), apart=True) == batches


async def test_apart_a_large_record_goes_by_itself_and_none_of_its_project_before_it() -> None:
    small, after, other = (ended(project_id=n) for n in (1, 1, 2))
    huge = answered(a_call(Budget(64 << 20), request=b"x" * 50_000, project_id=1), ANSWER)
    start = a_call(project_id=1).start
    batches = [[start, small], [huge], [other], [after]]
    assert taken(queued(small, huge, other, after, start), apart=True) == batches
    batches = [[start], [huge], [other]]
    assert taken(queued(huge, other, start), apart=True) == batches


async def test_apart_a_project_is_looked_for_among_so_many_records_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOOK_AHEAD", 2)
    one, other, late = (ended(project_id=n) for n in (1, 2, 1))
    assert taken(queued(one, other, late), apart=True) == [[one], [other], [late]]


async def test_what_was_saved_is_held_no_longer_while_others_wait() -> None:
    backlog = queued(ended(project_id=1), ended(project_id=2), ended(project_id=1))
    batch = backlog.take(10, 20_000, apart=True)
    for item in batch:
        backlog.end(item, is_saved=True)
    assert [item.record for item in batch] == [None, None]
    assert len(backlog) == 1
