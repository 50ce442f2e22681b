"""What is there already: the same is passed over, all else is named before a row is written."""

import threading
from pathlib import Path
from typing import Any

import pytest

from storage import restore_conflicts
from storage.archive_lines import is_the_same
from storage.forget import delete_session
from storage.records import Tokens
from storage.sqlite import SqliteDatabase
from tests.databases import opened as database
from tests.storage.archives import exported, restored
from tests.storage.calls import end, rows, span_id, start, text_of, trace_id, write
from tests.storage.handing import closed, hand_in, opened
from tests.storage.lines import block_of
from tests.storage.test_archive import talk


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
