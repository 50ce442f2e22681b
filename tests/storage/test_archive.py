"""Sessions as archives: what a block holds, and what is not in it."""

import hashlib
import json
import re
import threading
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch

import pytest

from storage import archive
from storage.archive import ArchiveChanged, lone_blocks, running_in, session_block
from storage.archive_incoming import Incoming
from storage.archive_spans import EARLY_ENDS, HASHES, NUMBERED_SPANS, SELECT_SPANS, lines_of
from storage.erase import EVERY_CALL
from storage.forget import delete_trace
from storage.forgetting import forget_contents
from storage.restore import UPROOTED_OF
from storage.restore_marks import FORGOTTEN, KNOWN_CALLS
from storage.sqlite import SqliteDatabase
from tests.storage.archives import exported
from tests.storage.calls import (
    T0,
    end,
    rows,
    span_id,
    spoken,
    start,
    text_of,
    trace_id,
    write,
)
from tests.storage.handing import begun, done, hand_in, opened


async def told(pieces: AsyncIterator[bytes]) -> list[Any]:
    data = b"".join([piece async for piece in pieces])
    return [json.loads(line) for line in data.splitlines()]


def talk(db: SqliteDatabase, turns: int, session_id: str = "s", first: int = 1) -> None:
    asked: list[str] = []
    for n in range(first, first + turns):
        asked = [*asked, f"u:{n}"]
        begun_at = start(n, session_id=session_id, started_at_us=T0 + n)
        write(db, [spoken(begun_at, asked, [f"a:{n}"])])
        asked = [*asked, f"a:{n}"]


async def test_each_message_stands_once_and_before_what_needs_it(db: SqliteDatabase) -> None:
    talk(db, 30)
    lines = await told(session_block(db, 1, "s"))
    assert [line["type"] for line in lines[:2]] == ["traceway", "session"]
    kinds = [line["type"] for line in lines]
    assert (kinds.count("node"), kinds.count("span"), kinds[-1]) == (60, 30, "end")
    assert lines[-1]["lines"] == len(lines) - 1
    given: set[str] = set()
    for line in lines:
        match line["type"]:
            case "content":
                given.add(line["sha256"])
            case "node":
                assert {line["content"], line.get("parent", line["content"])} <= given
                given.add(line["hash"])
            case "span":
                assert {line["chain"]["input"], line["chain"]["output"]} <= given


async def test_spans_that_run_are_counted_and_left_out(db: SqliteDatabase) -> None:
    write(db, [start(1, session_id="s"), end(start(2, session_id="s"))])
    lines = await told(session_block(db, 1, "s"))
    assert [line["id"] for line in lines if line["type"] == "span"] == [f"{2:016x}"]
    assert [line["id"] for line in lines if line["type"] == "trace"] == [f"{2:032x}"]
    assert await running_in(db, 1, "s") == 1


async def test_spans_that_run_without_a_session_are_counted_by_themselves(
    db: SqliteDatabase,
) -> None:
    write(db, [start(1), start(2, session_id="s"), end(start(3)), start(4, project_id=2)])
    assert [await running_in(db, project_id, None) for project_id in (1, 2, 3)] == [1, 1, 0]


async def test_nothing_is_told_of_who_called_nor_of_this_database(db: SqliteDatabase) -> None:
    write(db, [end(start(1, session_id="s", caller=b"a caller", owner=b"an owner"))])
    data = await exported(db)
    for word in (b"caller".hex(), b"a caller".hex(), "owner", b"an owner".hex(), '"seq"'):
        assert word.encode() not in data


async def test_a_trace_stands_before_its_calls_and_its_opening_where_it_came(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, trace=0, session_id="s"))])
    hand_in(db, [opened(0, name="agent", tags=("a", "b"), session_id="s")])
    hand_in(db, [begun(5, trace=0, end=done(5))])
    lines = await told(session_block(db, 1, "s"))
    assert [line["type"] for line in lines if line["type"] not in ("content", "node")] == [
        *("traceway", "session", "trace", "span", "opened", "span", "end"),
    ]
    (said,) = [line for line in lines if line["type"] == "opened"]
    assert (said["name"], said["tags"]) == ("agent", ["a", "b"])


async def test_traces_without_a_session_come_in_blocks_of_many(db: SqliteDatabase) -> None:
    for n in range(1, 8):
        write(db, [end(start(n))])
    write(db, [end(start(9, session_id="s"))])
    with patch("storage.archive.LONE_TRACES", 3):
        lines = await told(lone_blocks(db, 1))
    blocks = [line for line in lines if line["type"] == "traceway"]
    assert [line["format"] for line in blocks] == ["traces"] * 3
    traces = [line["id"] for line in lines if line["type"] == "trace"]
    assert traces == [f"{n:032x}" for n in range(1, 8)]


async def test_another_project_has_other_sessions(db: SqliteDatabase) -> None:
    talk(db, 1)
    assert await told(session_block(db, 2, "s")) == []
    assert await told(session_block(db, 1, "no such session")) == []
    assert await told(lone_blocks(db, 2)) == []


async def test_what_is_deleted_meanwhile_leaves_a_block_without_its_end(
    db: SqliteDatabase,
) -> None:
    talk(db, 20)
    pieces: list[bytes] = []

    async def read() -> None:
        async for piece in session_block(db, 1, "s"):
            if len(pieces) == 1:
                with db.transaction() as tx:
                    delete_trace(tx, 1, trace_id(15), text_of)
            pieces.append(piece)

    with patch("storage.archive.PAGE", 5), pytest.raises(ArchiveChanged):
        await read()
    assert b'"type":"end"' not in b"".join(pieces)


async def test_a_block_whose_body_lacks_a_part_has_no_end(db: SqliteDatabase) -> None:
    tools = b'["t"]'
    write(db, [spoken(start(1, session_id="s"), ["u:1"], ["a:1"], tools=tools)])
    rows(db, "DELETE FROM contents WHERE sha256 = :one", one=hashlib.sha256(tools).digest())
    with pytest.raises(ArchiveChanged, match="a part of a body was changed, or is not there"):
        await told(session_block(db, 1, "s"))


async def test_what_is_forgotten_while_it_is_read_has_the_mark_of_the_moment_it_was_read(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, [end(start(1, session_id="s"), input_preview="said")])
    read_in = archive._Block._read_in
    traces = 0

    async def forgotten_first(block: Any, sql: str, column: str, values: Any) -> Any:
        nonlocal traces
        if sql == archive.READ_TRACES:
            traces += 1
            with db.transaction() as tx:
                key = (1, trace_id(1))
                forget_contents(tx, [key], text_of, now_us=7, most_spans=9, before_seq=EVERY_CALL)
        return await read_in(block, sql, column, values)

    monkeypatch.setattr(archive._Block, "_read_in", forgotten_first)
    data = b"".join([piece async for piece in session_block(db, 1, "s")])
    assert traces == 1
    assert rows(db, "SELECT forgotten_at_us FROM traces") == [(7,)]
    assert b'"input_preview":"said"' in data
    incoming = Incoming()
    incoming.feed(data)
    block = incoming.next_block()
    assert block is not None
    block.close()


async def test_a_forgotten_trace_that_has_content_again_ends_a_block_before_its_end(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, session_id="s")), end(start(2, session_id="s", trace=1))])
    rows(db, "UPDATE traces SET forgotten_at_us = 7")
    pieces: list[bytes] = []

    async def read() -> None:
        async for piece in session_block(db, 1, "s"):
            if len(pieces) == 1:
                rows(db, "UPDATE traces SET forgotten_at_us = NULL")
                rows(db, "UPDATE spans SET input_preview = 'said' WHERE span_id = :s", s=span_id(2))
            pieces.append(piece)

    with patch("storage.archive.PAGE", 1), pytest.raises(ArchiveChanged, match="were forgotten"):
        await read()
    assert b'"forgotten_at_us":7' in b"".join(pieces)


async def test_lines_are_made_beside_the_event_loop(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(db, 3)
    threads: list[threading.Thread] = []

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return lines_of(*given)

    monkeypatch.setattr(archive, "lines_of", noted)
    lines = await told(session_block(db, 1, "s"))
    assert [line["type"] for line in lines].count("span") == 3
    assert len(threads) == 1
    assert threading.main_thread() not in threads


async def test_contents_are_read_a_bounded_part_at_a_time(db: SqliteDatabase) -> None:
    for n in range(1, 9):
        write(db, [spoken(start(n, session_id="s"), [f"u:{n}" + "x" * 10_000], [f"a:{n}"])])
    with patch.object(archive, "CONTENT_BYTES", 20_000):
        pieces = [piece async for piece in session_block(db, 1, "s")]
    assert max(map(len, pieces)) < 32_000
    assert b"".join(pieces) == await exported(db)


_NAMES = ", ".join(f":v{n}" for n in range(archive.AT_ONCE))


@pytest.mark.sqlite_only("asks SQLite for its plan")
@pytest.mark.parametrize(
    "sql",
    [
        archive.ITEMS_OF.format(which=archive._SESSION),
        archive.ITEMS_OF.format(which=archive._TRACES.format(_NAMES)),
        archive.COUNT_RUNNING,
        archive.NEXT_TRACES,
        archive.WALK_UP.format(_NAMES),
        f"{archive.READ_TRACES} AND trace_id IN ({_NAMES})",
        f"{archive.SIZES} AND id IN ({_NAMES})",
        f"{archive.CONTENTS} AND id IN ({_NAMES})",
        f"{NUMBERED_SPANS} AND s.seq IN ({_NAMES})",
        f"{SELECT_SPANS} AND s.span_id IN ({_NAMES})",
        f"{HASHES} AND id IN ({_NAMES})",
        f"{EARLY_ENDS} AND ended_id IN ({_NAMES})",
        UPROOTED_OF.replace(":keys", _NAMES),
        KNOWN_CALLS.replace(":keys", _NAMES),
        FORGOTTEN.replace(":keys", _NAMES),
    ],
)
async def test_no_statement_reads_all_of_a_project(db: SqliteDatabase, sql: str) -> None:
    names = {name: 0 for name in re.findall(r":([a-z]\w*)", sql)}
    plan = [row[3] for row in await db.read(f"EXPLAIN QUERY PLAN {sql}", names)]
    assert plan
    for step in plan:
        assert "(project_id=?)" not in step, plan
        assert not step.startswith("SCAN") or step in ("SCAN u", "SCAN up"), plan
