"""Archives written into a database: all that is made of rows is there, and the doctor agrees."""

import json
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from storage import restore
from storage.additions import Additions
from storage.archive_incoming import Incoming
from storage.doctor import check
from storage.events import (
    APPEND,
    SESSION_UPDATED,
    SPAN_COMPLETED,
    TAKE_NUMBERS,
    TRACE_CREATED,
    read_after,
)
from storage.forget import delete_trace
from storage.fulltext import index
from storage.handed import Said
from storage.listing import list_sessions
from storage.rebuild import request_body
from storage.search import parse
from storage.sqlite import SqliteDatabase
from tests.databases import opened as database
from tests.storage.archives import exported, restored
from tests.storage.calls import (
    Noting,
    body,
    end,
    rows,
    span_id,
    spoken,
    start,
    text_of,
    trace_id,
    write,
)
from tests.storage.handing import begun, done, hand_in
from tests.storage.lines import archive, block_of, content, node, sha256_of, span
from tests.storage.test_archive import talk
from tests.storage.test_archive_block import written


async def test_name_star_and_budget_come_with_a_session_and_those_that_are_there_stay(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    talk(db, 2)
    with db.transaction() as tx:
        tx.execute("UPDATE sessions SET name = 'mine', starred = 1", {})
        tx.execute("INSERT INTO session_budgets VALUES (1, 's', 700)", {})
    data = await exported(db)
    other = database(tmp_path / "other.db")
    for name in ("mine", "yours"):
        await restored(other, data)
        found = rows(other, "SELECT name, starred FROM sessions")
        assert found == [(name, 1)]
        assert rows(other, "SELECT session_id, limit_nusd FROM session_budgets") == [("s", 700)]
        with other.transaction() as tx:
            tx.execute("UPDATE sessions SET name = 'yours'", {})
    await other.close()


async def test_when_content_was_forgotten_comes_with_a_trace(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    write(db, [end(start(1, session_id="s"), request=None, response=None)])
    with db.transaction() as tx:
        tx.execute("UPDATE traces SET forgotten_at_us = 99", {})
        tx.execute("UPDATE spans SET input_preview = NULL, output_preview = NULL", {})
        tx.execute("UPDATE spans SET request_head = NULL, response_head = NULL, query = NULL", {})
    data = await exported(db)
    other = database(tmp_path / "other.db")
    assert (await restored(other, data)).conflict is None
    assert rows(other, "SELECT forgotten_at_us FROM traces") == [(99,)]
    assert await exported(other) == data
    await other.close()


@pytest.mark.parametrize(("before", "forgotten_at_us"), [(0, None), (1, None), (9, 99)])
async def test_a_trace_of_which_another_span_holds_content_is_not_taken_for_forgotten(
    db: SqliteDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: int,
    forgotten_at_us: int | None,
) -> None:
    monkeypatch.setattr(restore, "BATCH_SPANS", 1)
    write(db, [end(start(n, trace=1, session_id="s")) for n in (1, 2)])
    rows(db, "UPDATE traces SET forgotten_at_us = 99")
    block = block_of((await exported(db)).splitlines(keepends=True))
    other = database(tmp_path / "other.db")
    at: int | None = 0
    part = 0
    while at is not None:
        if part == before:
            write(other, [end(start(3, trace=1, session_id="s"), input_preview="said")])
        with other.transaction() as tx:
            at = restore.write(tx, 1, block, at).at
        part += 1
    block.close()
    assert part == 3
    assert rows(other, "SELECT forgotten_at_us FROM traces") == [(forgotten_at_us,)]
    assert await check(other, text_of) == []
    await other.close()


async def comes_back(db: SqliteDatabase, tmp_path: Path) -> None:
    """Bring all into a new database, and see that its export is the same."""
    data = await exported(db)
    other = database(tmp_path / "other.db")
    assert (await restored(other, data)).conflict is None
    assert await check(other, text_of) == []
    assert await exported(other) == data
    await other.close()


async def test_a_header_with_a_tab_in_it_comes_back(db: SqliteDatabase, tmp_path: Path) -> None:
    asked = body(b"x", content_type="text/plain;\tcharset=utf-8")
    write(db, [end(start(1, session_id="s"), request=asked)])
    await comes_back(db, tmp_path)


async def test_numbers_that_no_double_holds_come_back_as_they_were_handed_in(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    said = Said(kind="tool_call", attributes=b'{"kind":{"n":1.500,"m":[1e999]}}')
    hand_in(db, [begun(1, session_id="s", said=said, end=done(1))])
    await comes_back(db, tmp_path)


async def test_words_are_found_and_those_who_watch_hear_of_it_but_not_as_of_new_calls(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    write(db, [spoken(start(1, session_id="s"), ["u:needle"], ["a:x"])])
    data = await exported(db)
    other = database(tmp_path / "other.db")
    await restored(other, data)
    with other.transaction() as tx:
        index(tx, 1_000, text_of)
    page = await list_sessions(other, 1, 10, query=parse("needle", "sessions"))
    assert [session.session_id for session in page.rows] == ["s"]
    told = [one.event.type for one in await read_after(other, 1, 0)]
    assert told == [TRACE_CREATED, SESSION_UPDATED]
    assert SPAN_COMPLETED not in told
    await other.close()


async def test_an_archive_comes_into_the_project_that_is_named_and_into_no_other(
    db: SqliteDatabase,
) -> None:
    talk(db, 3)
    data = await exported(db)
    before = rows(db, "SELECT * FROM spans WHERE project_id = 1")
    await restored(db, data, project_id=2)
    assert await exported(db, 2) == data
    assert rows(db, "SELECT * FROM spans WHERE project_id = 1") == before
    assert await check(db, text_of) == []


async def test_a_block_is_written_in_parts_and_goes_on_where_it_broke_off(
    db: SqliteDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(db, 20)
    data = await exported(db)
    monkeypatch.setattr(restore, "BATCH_SPANS", 4)
    incoming = Incoming()
    incoming.feed(data)
    block = incoming.next_block()
    assert block is not None
    for parts in range(5):
        other = database(tmp_path / f"other{parts}.db")
        at: int | None = 0
        for _ in range(parts):
            assert at is not None
            with other.transaction() as tx:
                at = restore.write(tx, 1, block, at).at
            assert await check(other, text_of) == []
        assert rows(other, "SELECT COUNT(*) FROM spans") == [(4 * parts,)]
        done = await restored(other, data)
        assert (done.spans, done.known_spans) == (20 - 4 * parts, 4 * parts)
        assert await exported(other) == data
        assert await check(other, text_of) == []
        await other.close()
    block.close()


async def test_a_call_is_not_written_before_the_one_that_it_goes_on_from(
    db: SqliteDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "BATCH_SPANS", 1)
    # The second goes on from the answer of the first, and when that is gone from the third's.
    for n, asked in enumerate((["u:1"], ["u:1", "a:1", "u:2"], ["u:1"]), 1):
        write(db, [spoken(start(n, session_id="s"), asked, ["a:1" if n != 2 else "a:2"])])
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    data = await exported(db)
    incoming = Incoming()
    incoming.feed(data)
    block = incoming.next_block()
    assert block is not None
    other = database(tmp_path / "other.db")
    with other.transaction() as tx:
        part = restore.write(tx, 1, block, 0)
    block.close()
    assert part.spans == 2
    assert await check(other, text_of) == []
    assert await exported(other) == data
    await other.close()


async def changed(db: SqliteDatabase, **fields: Any) -> bytes:
    """Export, and say something else of where the last call goes on."""
    lines = [json.loads(line) for line in (await exported(db)).splitlines()]
    [one for one in lines if one["type"] == "span"][-1]["chain"].update(fields)
    return b"".join(written(lines))


@pytest.mark.parametrize(
    "fields",
    [
        {"base_meaning": "ab" * 16},
        {"base_meaning": "ab" * 16, "fresh_count": 5},
        {"fresh_count": 5},
        {"prelude": None, "input": None, "output": None, "base_meaning": "ab" * 16},
    ],
)
async def test_a_place_that_nobody_holds_leaves_nothing_that_does_not_fit(
    db: SqliteDatabase, tmp_path: Path, fields: dict[str, Any]
) -> None:
    asked: list[str] = ["s:be"]
    for n in range(1, 4):
        asked = [*asked, f"u:{n}"]
        ended = spoken(start(n, session_id="s"), asked, [f"a:{n}"])
        write(db, [ended])
        asked = [*asked, f"a:{n}"]
    data = await changed(db, **fields)
    if "input" in fields:  # its bodies would not rebuild
        lines = [json.loads(line) for line in data.splitlines()]
        last = [one for one in lines if one["type"] == "span"][-1]
        del last["request"], last["response"]
        data = b"".join(written(lines))
    other = database(tmp_path / "other.db")
    assert (await restored(other, data)).conflict is None
    assert await check(other, text_of) == []
    await other.close()


async def test_calls_whose_place_nobody_holds_do_not_make_one_long_transaction(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "MOST_SPANS", 50)
    first = node("x", meaning="ab" * 16)
    chain = {"input": first["hash"], "input_meaning": "ef" * 16}
    lost = span(1, chain={**chain, "base_meaning": "cd" * 16, "fresh_count": 0})
    others = [span(n, chain={**chain, "fresh_count": 1}) for n in range(2, 200)]
    block = block_of(archive(content("x"), first, lost, *others))
    written_spans: list[int] = []
    at: int | None = 0
    while at is not None:
        with db.transaction() as tx:
            noting: Any = Noting(tx)
            part = restore.write(noting, 1, block, at)
        # Other writers of events wait for the end of it alone.
        logged = noting.said.index(TAKE_NUMBERS)
        assert {*noting.said[logged:]} == {TAKE_NUMBERS, APPEND}
        assert await check(db, lambda data: data.decode()) == []
        written_spans.append(part.spans)
        at = part.at
    block.close()
    assert written_spans == [50, *[25] * 5, 24]


async def test_what_no_span_names_is_neither_held_in_memory_nor_looked_for(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = [f"{n} " + "x" * 100_000 for n in range(100)]
    unnamed = [line for data in large for line in (content(data), node(data))]
    request = {"size": 5, "redacted": True, "content": sha256_of(large[7])}
    said = node("said")
    call = span(request=request, chain={"input": said["hash"], "fresh_count": 1})
    block = block_of(archive(*unnamed, content("said"), said, call))
    looked_for: list[int] = []

    def counting(look_up: Callable[..., None]) -> Callable[..., None]:
        def counted(additions: Additions, project_id: int, hashes: Iterable[bytes]) -> None:
            looked_for.append(len(named := [*hashes]))
            look_up(additions, project_id, named)

        return counted

    for name in ("look_up_contents", "look_up_nodes"):
        monkeypatch.setattr(Additions, name, counting(getattr(Additions, name)))
    with db.transaction() as tx:
        tracemalloc.start()
        part = restore.write(tx, 1, block, 0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    block.close()
    assert part.spans == 1
    assert sum(looked_for) == 3
    assert peak < 4 * restore.BATCH_BYTES
    body = await request_body(db, 1, span_id(1))
    assert body is not None
    assert body.data == large[7].encode()
    assert rows(db, "SELECT COUNT(*) FROM contents") == [(2,)]
    assert await check(db, lambda data: data.decode()) == []
