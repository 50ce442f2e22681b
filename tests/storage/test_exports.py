"""What is sent on: calls that ended, of all projects, in order, and nothing that was handed in."""

import pytest

from storage import exports
from storage.database import Database
from storage.marks import Mark, write_mark
from storage.squeeze import MARK
from tests.storage.calls import end, rows, span_id, start, write
from tests.storage.handing import begun, done, hand_in


async def ended(db: Database, after: int = 0) -> tuple[list[bytes], int]:
    found = []
    while batch := await exports.read_after(db, after):
        found += [one.span.span_id for one in batch.ended]
        after = batch.sequence
    return found, after


async def test_calls_that_ended_come_in_order_and_those_that_run_when_they_end(
    db: Database,
) -> None:
    running = start(1)
    write(db, [running, end(start(2)), end(start(3, project_id=2), state="failed")])
    found, after = await ended(db)
    assert found == [span_id(2), span_id(3)]
    write(db, [end(running)])
    assert (await ended(db, after))[0] == [span_id(1)]


async def test_a_project_in_which_nothing_ended_holds_nobody_up(db: Database) -> None:
    write(db, [start(1, project_id=2, session_id="s")])
    found, after = await ended(db)
    assert found == []
    assert after > 0
    with db.transaction((2,)) as tx:
        assert write_mark(tx, 2, "s", Mark(is_starred=True))
    write(db, [end(start(2)), start(3, project_id=3)])
    assert (await ended(db, after))[0] == [span_id(2)]


async def test_a_call_has_its_session_and_the_ids_of_its_traceparent(db: Database) -> None:
    write(
        db,
        [end(start(1, session_id="s", external_trace_id=b"E" * 16, external_parent_id=b"p" * 8))],
    )
    batch = await exports.read_after(db, 0)
    assert batch is not None
    (one,) = batch.ended
    assert (one.session_id, one.session_source) == ("s", "header")
    assert (one.external_trace_id, one.external_parent_id) == (b"E" * 16, b"p" * 8)
    assert one.span.tokens.input == 10


async def test_what_was_handed_in_is_passed_over(db: Database) -> None:
    hand_in(db, [begun(7), done(7)])
    found, after = await ended(db)
    assert found == []
    assert after > 0


async def test_what_was_deleted_meanwhile_is_passed_over(db: Database) -> None:
    write(db, [end(start(1))])
    with db.transaction() as tx:
        tx.execute("DELETE FROM spans", {})
    assert (await ended(db))[0] == []


async def test_a_batch_is_bounded_and_the_next_goes_on(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "FULL", 2)
    for number in range(1, 6):
        write(db, [end(start(number))])
    sizes, after = [], 0
    while batch := await exports.read_after(db, after):
        sizes.append(len(batch.ended))
        after = batch.sequence
    assert sizes == [2, 2, 1]


async def test_how_far_it_came_is_kept(db: Database) -> None:
    assert await exports.cursor(db) is None
    for sequence in (5, 9):
        with db.transaction() as tx:
            exports.note(tx, sequence)
        assert await exports.cursor(db) == sequence


async def test_how_far_the_log_was_sent_on_never_goes_back(db: Database) -> None:
    for sequence in (5, 9, 7):
        with db.transaction() as tx:
            exports.note(tx, sequence)
    assert await exports.cursor(db) == 9


async def test_headers_that_are_damaged_hold_nothing_up_since_none_are_read(db: Database) -> None:
    write(db, [end(start(1))])
    rows(db, "UPDATE spans SET request_head = :said", said=MARK + b"damaged")
    assert (await ended(db))[0] == [span_id(1)]
