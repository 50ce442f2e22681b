"""The log: every change once, in order, in its own transaction; and what is forgotten of it."""

import time
from pathlib import Path
from typing import Any

import pytest

from storage import events
from storage.database import Database, Transaction
from storage.events import MAX_AGE_US, Event, Told, bounds, prune, read_after
from storage.forget import delete_session, delete_trace, interrupt_running
from storage.parameters import prepare
from storage.records import SpanEnd
from storage.writes import apply
from tests.databases import opened
from tests.storage.calls import (
    checkpoint,
    end,
    rows,
    settlement,
    span_id,
    spoken,
    start,
    text_of,
    trace_id,
    unknown_usage,
    write,
)


async def log(db: Database, after: int = 0) -> list[Event]:
    """Read the log to its end."""
    told: list[Told] = []
    while piece := await read_after(db, 1, told[-1].sequence if told else after):
        told += piece
    assert [one.sequence for one in told] == list(range(after + 1, after + 1 + len(told)))
    return [one.event for one in told]


def shown(told: list[Event]) -> list[tuple[Any, ...]]:
    """Give type, number of the trace and of the span, and the session."""
    return [
        (
            event.type,
            int.from_bytes(event.trace_id) if event.trace_id else None,
            int.from_bytes(event.span_id) if event.span_id else None,
            event.session_id,
        )
        for event in told
    ]


async def test_a_call_tells_of_its_beginning_and_of_its_end(db: Database) -> None:
    before_us = time.time_ns() // 1000
    write(db, [start(1, session_id="s")])
    write(db, [end(start(1, session_id="s"))])
    told = await log(db)
    assert shown(told) == [
        ("trace_created", 1, None, "s"),
        ("span_created", 1, 1, "s"),
        ("session_updated", None, None, "s"),
        ("span_completed", 1, 1, "s"),
        ("trace_updated", 1, None, "s"),
        ("session_updated", None, None, "s"),
    ]
    assert [event.status for event in told] == [None, "running", None, "completed", None, None]
    assert [event.models for event in told] == [(), (), (), ("gpt-5",), ("gpt-5",), ()]
    at_us = [one.at_us for one in await read_after(db, 1, 0)]
    assert before_us <= min(at_us) <= max(at_us) <= time.time_ns() // 1000


async def test_a_batch_tells_of_each_trace_and_session_once(db: Database) -> None:
    calls = [end(start(n, trace=7, session_id="s")) for n in (1, 2)]
    write(db, [*calls, end(start(3, session_id="s")), start(4)])
    assert shown(await log(db)) == [
        ("trace_created", 7, None, "s"),
        ("span_created", 7, 1, "s"),
        ("span_completed", 7, 1, "s"),
        ("span_created", 7, 2, "s"),
        ("span_completed", 7, 2, "s"),
        ("trace_created", 3, None, "s"),
        ("span_created", 3, 3, "s"),
        ("span_completed", 3, 3, "s"),
        ("trace_created", 4, None, None),
        ("span_created", 4, 4, None),
        ("session_updated", None, None, "s"),
    ]


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("completed", "span_completed"),
        ("cancelled", "span_completed"),
        ("failed", "span_failed"),
        ("truncated", "span_failed"),
        ("interrupted", "span_failed"),
    ],
)
async def test_an_end_that_counts_as_failed_is_told_so(db: Database, state: str, kind: str) -> None:
    write(db, [start(1)])
    write(db, [end(start(1), state=state)])
    (ended, _) = (await log(db))[2:]
    assert (ended.type, ended.status) == (kind, state)


async def test_each_call_has_its_own_model_and_a_trace_those_of_all_that_changed(
    db: Database,
) -> None:
    calls = [end(start(1, trace=7)), end(start(2, trace=7), model="other"), start(3, trace=7)]
    write(db, calls)
    told = await log(db)
    assert {event.span_id: event.models for event in told if event.span_id} == {
        span_id(1): ("gpt-5",),
        span_id(2): ("other",),
        span_id(3): (),
    }
    assert told[0].models == ("gpt-5", "other")


async def test_what_changes_nothing_is_not_told(db: Database) -> None:
    write(db, [start(1)])
    write(db, [checkpoint(start(1), b"so far")])
    write(db, [end(start(1))])
    before = await log(db)
    write(db, [start(1), end(start(1)), checkpoint(start(1), b"late")])
    write(db, [])
    assert await log(db) == before
    assert [event.type for event in before].count("span_completed") == 1


async def test_a_change_that_is_undone_is_not_told(db: Database) -> None:
    def crash(tx: Transaction) -> None:
        apply(tx, prepare([end(start(1, session_id="s"))]))
        raise KeyError

    with pytest.raises(KeyError), db.transaction() as tx:
        crash(tx)
    write(db, [start(2)])
    assert shown(await log(db)) == [("trace_created", 2, None, None), ("span_created", 2, 2, None)]


async def test_usage_that_another_call_reports_updates_the_trace_and_ends_no_span(
    db: Database,
) -> None:
    write(db, [unknown_usage(end(start(1, session_id="s"), response_id="r"))])
    before = len(await log(db))
    write(db, [end(start(2), settles=settlement("r"))])
    assert shown(await log(db, before)) == [
        ("trace_created", 2, None, None),
        ("span_created", 2, 2, None),
        ("span_completed", 2, 2, None),
        ("trace_updated", 1, None, "s"),
        ("session_updated", None, None, "s"),
    ]


async def test_a_trace_that_joins_an_inferred_session_is_told_with_it(db: Database) -> None:
    write(db, [spoken(start(1), ["u:hi"], ["a:hello"])])
    before = len(await log(db))
    write(db, [spoken(start(2), ["u:hi", "a:hello", "u:and?"], ["a:yes"])])
    session = f"auto_{trace_id(1).hex()}"
    assert shown(await log(db, before)) == [
        ("trace_created", 2, None, session),
        ("span_created", 2, 2, session),
        ("span_completed", 2, 2, session),
        ("trace_updated", 1, None, session),
        ("session_updated", None, None, session),
    ]


async def test_a_deletion_tells_of_each_trace_and_of_its_session(db: Database) -> None:
    write(db, [end(start(n, session_id="s")) for n in (1, 2, 3)] + [end(start(4))])
    before = len(await log(db))
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(2), text_of)
        delete_trace(tx, 1, trace_id(4), text_of)
        delete_session(tx, 1, "s", text_of)
        delete_session(tx, 1, "nobody", text_of)
        delete_trace(tx, 1, trace_id(99), text_of)
    assert shown(await log(db, before)) == [
        ("trace_deleted", 2, None, "s"),
        ("session_updated", None, None, "s"),
        ("trace_deleted", 4, None, None),
        ("trace_deleted", 1, None, "s"),
        ("trace_deleted", 3, None, "s"),
        ("session_updated", None, None, "s"),
    ]


async def test_calls_that_died_with_their_process_are_told(db: Database) -> None:
    write(db, [start(1, session_id="s"), start(2, owner=b"another.")])
    before = len(await log(db))
    with db.transaction() as tx:
        interrupt_running(tx, b"another.")
    told = await log(db, before)
    assert shown(told) == [
        ("span_failed", 1, 1, "s"),
        ("trace_updated", 1, None, "s"),
        ("session_updated", None, None, "s"),
    ]
    assert told[0].status == "interrupted"


async def test_numbers_never_go_back_after_a_prune_and_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = opened(tmp_path / "traceway.db")
    write(db, [start(1)])
    monkeypatch.setattr(events, "MAX_AGE_US", -1_000_000)
    with db.transaction() as tx:
        assert not prune(tx)
    assert rows(db, "SELECT * FROM events") == []
    assert await bounds(db) == (2, 2)
    await db.close()

    again = opened(tmp_path / "traceway.db")
    write(again, [start(2)])
    assert [one.sequence for one in await read_after(again, 1, 0)] == [3, 4]
    assert await bounds(again) == (2, 4)
    await again.close()


async def test_the_newest_events_are_kept_and_those_of_a_day(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(10):
        write(db, [start(n)])
    monkeypatch.setattr(events, "MAX_EVENTS", 6)
    with db.transaction() as tx:
        assert not prune(tx)
    assert [one.sequence for one in await read_after(db, 1, 0)] == list(range(15, 21))
    rows(db, f"UPDATE events SET at_us = at_us - {MAX_AGE_US + 1} WHERE sequence <= 16")  # noqa: S608
    with db.transaction() as tx:
        assert not prune(tx)
    assert await bounds(db) == (16, 20)
    assert [one.sequence for one in await read_after(db, 1, 16)] == [17, 18, 19, 20]


async def test_the_log_is_pruned_a_bounded_piece_at_a_time_and_never_gets_a_hole(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        write(db, [start(n)])
    monkeypatch.setattr(events, "PRUNED_ROWS", 2)
    # The clock stood wrong for the second of three: what is behind the first that stays, stays.
    rows(db, "UPDATE events SET at_us = 0 WHERE sequence <> 6")
    with db.transaction() as tx:
        assert prune(tx)
        assert not prune(tx)
    assert [one.sequence for one in await read_after(db, 1, 0)] == list(range(5, 11))
    assert await bounds(db) == (4, 10)


async def test_many_changes_at_once_are_read_piece_by_piece(db: Database) -> None:
    write(db, [end(start(n, session_id="s")) for n in range(1, 701)])
    assert len(await log(db)) == 2101
    assert len(await read_after(db, 1, 0)) < 1100
    ((longest,),) = rows(db, "SELECT MAX(event_count) FROM events")
    assert longest == events.ROW_EVENTS


async def test_a_reader_goes_on_in_the_middle_of_a_batch(db: Database) -> None:
    write(db, [end(start(1, session_id="s"))])
    told = await read_after(db, 1, 0)
    for after in range(5):
        assert await read_after(db, 1, after) == told[after:]


async def test_a_project_reads_its_own_changes_only(db: Database) -> None:
    ended: list[SpanEnd] = [end(start(n, project_id=1 + n % 2, session_id="s")) for n in (1, 2, 3)]
    write(db, ended)
    for project, spans in ((1, {span_id(2)}), (2, {span_id(1), span_id(3)})):
        told = await read_after(db, project, 0)
        assert {one.event.span_id for one in told if one.event.span_id} == spans
        assert told[-1].event.type == "session_updated"
    assert await bounds(db) == (0, 11)


async def test_what_was_pruned_never_moves_back(db: Database) -> None:
    for sequence in (5, 9, 7):
        rows(db, events.NOTE_PRUNED, sequence=sequence)
    assert (await events.bounds(db))[0] == 9
