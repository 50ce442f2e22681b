"""What is there already: the same is passed over, all else is named before a row is written."""

import threading
from pathlib import Path
from typing import Any

import pytest

from storage import restore, restore_conflicts
from storage.archive_lines import is_the_same
from storage.doctor import check
from storage.forget import delete_session
from storage.queries import stats
from storage.records import Tokens
from storage.sqlite import SqliteDatabase
from tests.databases import opened as database
from tests.storage.archives import exported, restored
from tests.storage.calls import end, rows, span_id, spoken, start, text_of, trace_id, write
from tests.storage.handing import closed, hand_in, opened
from tests.storage.lines import TRACE, archive, block_of, span
from tests.storage.seen_twice import Handed, marks, traces_of_calls
from tests.storage.seen_twice import hand_in as hand_in_span
from tests.storage.test_archive import talk
from tests.storage.test_placing import T, tracing


async def test_a_span_that_is_not_the_same_is_named(db: SqliteDatabase, tmp_path: Path) -> None:
    talk(db, 3)
    data = await exported(db)
    other = database(tmp_path / "other.db")
    write(other, [end(start(2, session_id="s"), tokens=Tokens(input=77))])
    before = rows(other, "SELECT * FROM spans")
    done = await restored(other, data)
    assert done.conflict is not None
    assert (done.conflict.trace_id, done.conflict.span_id) == (trace_id(2), span_id(2))
    assert "a span with this id is there already" in done.conflict.what
    assert rows(other, "SELECT * FROM spans") == before
    await other.close()


@pytest.mark.parametrize("session", ["another", None])
async def test_a_trace_of_another_session_is_named(
    db: SqliteDatabase, tmp_path: Path, session: str | None
) -> None:
    talk(db, 1)
    data = await exported(db)
    other = database(tmp_path / "other.db")
    write(other, [end(start(1, session_id=session))])
    done = await restored(other, data)
    assert done.conflict is not None
    assert done.conflict.span_id is None
    assert ("another" if session else "has no session") in done.conflict.what
    await other.close()


async def test_a_trace_of_which_other_things_were_said_is_named(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    hand_in(db, [opened(1, name="agent", session_id="s")])
    data = await exported(db)
    assert (await restored(db, data)).conflict is None
    hand_in(db, [closed(1)])
    done = await restored(db, data)
    assert done.conflict is not None
    assert "other things were said" in done.conflict.what


async def test_what_was_deleted_comes_back_and_what_is_there_stays(db: SqliteDatabase) -> None:
    talk(db, 4)
    talk(db, 2, "t", first=10)
    data = await exported(db)
    with db.transaction() as tx:
        delete_session(tx, 1, "t", text_of)
    done = await restored(db, data)
    assert (done.traces, done.spans, done.known_spans, done.conflict) == (2, 2, 4, None)
    assert await exported(db) == data


async def test_spans_are_compared_beside_the_event_loop(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(db, 3)
    block = block_of((await exported(db)).splitlines(keepends=True))
    threads: list[threading.Thread] = []

    def noted(*lines: Any) -> bool:
        threads.append(threading.current_thread())
        return is_the_same(*lines)

    monkeypatch.setattr(restore_conflicts, "is_the_same", noted)
    assert await restore_conflicts.find_conflict(db, 1, block) is None
    block.close()
    assert len(threads) == 3
    assert threading.main_thread() not in threads


async def moved(db: SqliteDatabase, how: str) -> tuple[bytes, bytes]:
    """Have a call move into a trace that is handed in; give the archives of before and after."""
    begun_at = tracing(1) if how == "traceparent" else start(1)
    named = {"response_id": "r"} if how == "response id" else {}
    write(db, [spoken(begun_at, ["u:a"], ["a:b"], **named)])
    before = await exported(db)
    hand_in_span(db, Handed(n=61, trace=T, session="s", **named))
    assert traces_of_calls(db) == {1: (T, 61)}
    return before, await exported(db)


WAYS = ("traceparent", "response id")


@pytest.mark.parametrize("how", WAYS)
async def test_a_call_that_moved_since_it_was_exported_is_known_where_it_is(
    db: SqliteDatabase, how: str
) -> None:
    before, after = await moved(db, how)
    done = await restored(db, before)
    assert (done.traces, done.spans, done.known_spans, done.conflict) == (0, 0, 1, None)
    assert traces_of_calls(db) == {1: (T, 61)}
    assert (await stats(db, 1)).cost_nusd == 100
    assert await exported(db) == after
    assert await check(db, text_of) == []


@pytest.mark.parametrize("how", WAYS)
async def test_a_call_that_has_not_moved_here_is_known_and_stays_and_counts_once(
    db: SqliteDatabase, tmp_path: Path, how: str
) -> None:
    before, after = await moved(db, how)
    other = database(tmp_path / "other.db")
    await restored(other, before)
    done = await restored(other, after)
    assert (done.traces, done.spans, done.known_spans, done.conflict) == (1, 1, 1, None)
    assert traces_of_calls(other) == {1: (1, None)}
    assert marks(other) == {61: 1}
    assert (await stats(other, 1)).cost_nusd == 100
    again = await restored(other, after + before)
    assert (again.traces, again.spans, again.known_spans, again.conflict) == (0, 0, 3, None)
    assert await check(other, text_of) == []
    await other.close()


async def test_a_call_that_moved_and_is_not_the_same_is_named_with_where_it_is(
    db: SqliteDatabase,
) -> None:
    before, _ = await moved(db, "traceparent")
    rows(db, "UPDATE spans SET http_status = 418 WHERE owner IS NOT NULL")
    block = block_of(before.splitlines(keepends=True))
    found = await restore_conflicts.find_conflict(db, 1, block)
    assert found is not None
    assert (found.trace_id, found.span_id) == (trace_id(1), span_id(1))
    assert f"the call is there already, in the trace {trace_id(T).hex()}, and is not" in found.what
    with db.transaction() as tx:
        part = restore.write(tx, 1, block, 0)
    block.close()
    assert (part.conflict, part.spans) == (found, 0)


async def test_of_a_call_that_was_stored_twice_the_one_in_the_trace_of_the_archive_counts(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    write(db, [end(start(1, session_id="s"))])
    data = await exported(db)
    # As older versions stored it anew, and another call settled one of the two.
    write(db, [end(start(1, trace=2, session_id="s"), http_status=418)])
    where = {"one": trace_id(1), "two": trace_id(2)}
    rows(db, "UPDATE spans SET moved_from = :one WHERE trace_id = :two", **where)
    done = await restored(db, data)
    assert (done.spans, done.known_spans, done.conflict) == (0, 1, None)
    other = database(tmp_path / "other.db")
    done = await restored(other, await exported(db))
    assert (done.spans, done.known_spans, done.conflict) == (1, 1, None)
    assert await exported(other) == data
    await other.close()


@pytest.mark.parametrize("spans", [1, 25])
async def test_a_call_that_an_archive_has_in_two_traces_comes_once(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, spans: int
) -> None:
    monkeypatch.setattr(restore, "BATCH_SPANS", spans)
    other = {"type": "trace", "id": "e" * 32, "source": "header"}
    later = span(1, trace="e" * 32, moved_from=TRACE, label="later")
    data = b"".join(archive(span(1), other, later))
    for known in (1, 2):
        done = await restored(db, data)
        assert (done.traces, done.spans) == (2 - known, 2 - known)
        assert (done.known_spans, done.conflict) == (known, None)
    assert rows(db, "SELECT trace_id, label FROM spans") == [(bytes.fromhex(TRACE), None)]
    assert rows(db, "SELECT COUNT(*) FROM traces") == [(1,)]
    assert await check(db, text_of) == []
