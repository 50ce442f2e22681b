"""Deletions leave nothing behind and take nothing of others; dead calls end."""

import os
from pathlib import Path
from typing import Any

import pytest

from storage.database import Database
from storage.doctor import check
from storage.events import APPEND, TAKE_NUMBERS
from storage.forget import delete_session, delete_trace, interrupt_running
from storage.handed import Said
from storage.ledger import Ledger
from storage.listing import list_sessions
from storage.queries import get_session, get_span
from storage.rebuild import request_body
from storage.records import (
    COMPLETED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    Tokens,
)
from storage.rollup import read_spans, roll_up
from storage.search import parse
from storage.totals import Deleted
from tests.databases import holding
from tests.storage.calls import (
    OWNER,
    Noting,
    asked_body,
    body,
    checkpoint,
    end,
    give_back,
    rows,
    span_id,
    spoken,
    start,
    state_of,
    stored,
    text_of,
    trace_id,
    write,
)
from tests.storage.handing import begun, done, hand_in, opened


async def test_calls_of_a_dead_process_end_when_they_were_last_seen(db: Database) -> None:
    ours, theirs, silent = (
        start(1),
        start(2, owner=b"dead", session_id="s"),
        start(3, owner=b"dead"),
    )
    unowned = start(4, owner=None)
    write(db, [ours, theirs, silent, unowned])
    write(db, [checkpoint(theirs, b"half an answer", elapsed_us=2_000_000, first_byte_us=5)])
    with db.transaction() as tx:
        assert interrupt_running(tx, OWNER) == 2
    assert [await state_of(db, n) for n in (1, 2, 3, 4)] == [
        RUNNING,
        INTERRUPTED,
        INTERRUPTED,
        RUNNING,
    ]
    span = await get_span(db, 1, span_id(2))
    assert span is not None
    assert (span.duration_us, span.ended_by) == (2_000_000, "proxy")
    assert span.error is not None
    assert span.response is not None
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.status, session.failed_trace_count) == (FAILED, 1)
    assert session.last_ended_at_us == theirs.started_at_us + 2_000_000
    with db.transaction() as tx:
        assert interrupt_running(tx, None) == 1
    assert await state_of(db, 1) == INTERRUPTED


async def test_deleting_a_session_leaves_nothing_of_it_and_all_of_the_others(
    db: Database,
) -> None:
    shared, own = body(b"shared"), body(b"own words")
    write(
        db,
        [
            end(start(1, session_id="s"), request=shared, response=own),
            end(start(2, session_id="s"), request=body(b"more")),
            end(start(3, session_id="t"), request=shared),
            end(start(4, session_id="s", project_id=2), request=own),
        ],
    )
    with db.transaction() as tx:
        deleted = delete_session(tx, 1, "s", text_of)
        assert delete_session(tx, 1, "s", text_of) is None
    assert deleted == Deleted(traces=2, spans=2, contents=2, content_bytes=13)
    assert await get_session(db, 1, "s") is None
    assert await get_session(db, 2, "s") is not None
    assert [await state_of(db, n) for n in (1, 2, 3)] == [None, None, COMPLETED]
    assert rows(db, "SELECT project_id, data FROM contents ORDER BY 1") == [
        (1, b"shared"),
        (2, b"own words"),
    ]


async def test_a_deletion_has_other_writers_of_events_wait_only_for_its_end(db: Database) -> None:
    write(db, [spoken(start(1, session_id="s"), ["u:hi"], ["a:hello"])])
    with db.transaction() as tx:
        noting: Any = Noting(tx)
        assert delete_session(noting, 1, "s", text_of) is not None
    assert noting.said[-2:] == [TAKE_NUMBERS, APPEND]


async def test_deleting_the_last_trace_of_a_session_deletes_the_session(
    db: Database,
) -> None:
    write(db, [end(start(1, session_id="s")), end(start(2, session_id="s"), cost_nusd=None)])
    rows(db, "UPDATE sessions SET name = 'kept', starred = 1")
    with db.transaction() as tx:
        assert delete_trace(tx, 1, trace_id(1), text_of) is not None
        assert delete_trace(tx, 2, trace_id(2), text_of) is None
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.trace_count, session.cost_nusd) == (1, None)
    assert (session.name, session.starred) == ("kept", True)
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(2), text_of)
    assert await get_session(db, 1, "s") is None


async def test_a_call_in_flight_when_its_session_is_deleted_comes_back_whole_when_it_ends(
    db: Database,
) -> None:
    begun = start(2, trace=9, session_id="s")
    write(db, [end(start(1, trace=9, session_id="s")), begun])
    with db.transaction() as tx:
        delete_session(tx, 1, "s", text_of)
    assert write(db, [checkpoint(begun, b"part")]).late == 1
    assert stored(db) == 0
    assert await get_session(db, 1, "s") is None
    write(db, [end(begun, response=body(b"whole"))])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.trace_count, session.span_count, session.status) == (1, 1, COMPLETED)
    assert stored(db) == 1


async def test_deleted_words_are_in_no_file_after_the_space_is_given_back(
    db: Database, tmp_path: Path
) -> None:
    canary = b"canary-5c1f"
    written = end(
        start(1, session_id="s"),
        request=body(canary * 300),
        input_preview=canary.decode(),
        request_headers=canary.decode() * 1000,
    )
    write(db, [written])
    with db.transaction() as tx:
        delete_session(tx, 1, "s", text_of)
    give_back(db)
    assert holding(tmp_path / "traceway.db", canary) == []


async def test_calls_that_share_messages_stay_exact_when_others_of_them_are_deleted(
    db: Database,
) -> None:
    shared = ["s:be brief", "u:hello", "a:hi"]
    for n, session in enumerate(["s", "t"], 1):
        asked = [*shared, f"u:{session}"]
        write(db, [spoken(start(n, session_id=session), asked, ["a:yes"], tools=b'["t"]')])
    with db.transaction() as tx:
        deleted = delete_session(tx, 1, "s", text_of)
    assert deleted is not None
    # The words of s alone; the answer says the same in t, where it stands in another place.
    assert deleted.contents == 1
    kept = await request_body(db, 1, span_id(2))
    assert kept is not None
    assert kept.data == asked_body([*shared, "u:t"], tools=b'["t"]')
    assert await check(db, text_of) == []
    with db.transaction() as tx:
        delete_session(tx, 1, "t", text_of)
    tables = ("contents", "nodes", "messages", "mentions", "holes", "spans", "traces", "sessions")
    for table in tables:
        assert rows(db, f"SELECT * FROM {table}") == [], table  # noqa: S608 (names of this file)
    assert await check(db, text_of) == []


@pytest.mark.parametrize("deep", [False, True])
async def test_deleted_messages_are_in_no_file_full_text_included(
    db: Database, tmp_path: Path, deep: bool
) -> None:
    others = [
        spoken(start(n, session_id="t"), [f"u:{'word ' * 50} w{n}"], [f"a:{n}"])
        for n in range(10, 200)
    ]
    for n in range(0, len(others), 10):
        write(db, others[n : n + 10])
    canary = "canary5c1f"
    write(db, [spoken(start(1, session_id="s"), [f"u:say {canary}"], [f"a:{canary} said"])])
    (hit,) = (await list_sessions(db, 1, 10, query=parse(canary))).rows
    assert hit.session_id == "s"
    with db.transaction() as tx:
        delete_session(tx, 1, "s", text_of)
    if deep:
        db.vacuum()
    else:
        give_back(db)
    assert holding(tmp_path / "traceway.db", canary.encode()) == []
    assert (await list_sessions(db, 1, 10, query=parse(canary))).rows == ()
    assert len((await list_sessions(db, 1, 10, query=parse("w150"))).rows) == 1


@pytest.mark.sqlite_only("PostgreSQL frees what was deleted by itself, when it will")
async def test_giving_space_back_makes_the_file_smaller(db: Database) -> None:
    write(db, [end(start(1), request=body(os.urandom(1_000_000)))])
    give_back(db)
    before = db.path.stat().st_size
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    give_back(db)
    assert db.path.stat().st_size < before - 900_000


async def test_a_span_counts_itself_again_when_the_call_that_it_saw_is_deleted(
    db: Database,
) -> None:
    write(db, [end(start(1, session_id="s"))])
    said = Said(kind="llm_call", model="m", tokens=Tokens(input=3), cost_nusd=7)
    hand_in(db, [begun(2, said=said, session_id="t"), done(2)])
    rows(db, "UPDATE spans SET same_call = :call WHERE owner IS NULL", call=span_id(1))
    with db.transaction() as tx:
        ledger = Ledger(tx)
        change = ledger.trace((1, trace_id(2)))
        change.spans = read_spans(tx, change.key)
        roll_up(ledger)
    costs = "SELECT session_id, cost_nusd, input_tokens FROM sessions ORDER BY session_id"
    assert rows(db, costs) == [("s", 100, 10), ("t", None, None)]
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    assert rows(db, costs) == [("t", 7, 3)]
    assert rows(db, "SELECT cost_nusd FROM project_totals") == [(7,)]
    assert await check(db, text_of) == []


async def test_a_trace_without_spans_is_deleted_with_its_session(db: Database) -> None:
    hand_in(db, [opened(1, session_id="s")])
    with db.transaction() as tx:
        assert delete_trace(tx, 1, trace_id(1), text_of) is not None
    assert rows(db, "SELECT COUNT(*) FROM sessions") == [(0,)]
    assert await check(db, text_of) == []


async def test_an_end_that_waits_for_its_start_goes_with_the_span_that_was_made_of_it(
    db: Database,
) -> None:
    hand_in(db, [done(1, trace=1, said=Said(output=b'"secret"'))])
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1), text_of)
    assert rows(db, "SELECT COUNT(*) FROM early_ends") == [(0,)]


@pytest.mark.sqlite_only("PostgreSQL frees what was deleted by itself, when it will")
async def test_deleted_words_leave_a_large_index_by_merging_a_bounded_part_at_a_time(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.fts5_merge.OPTIMIZE_PAGES", 0)  # all are large
    canary = "canary5c1f"
    write(db, [spoken(start(1, session_id="s"), [f"u:say {canary}"], [f"a:{canary} said"])])
    for n in range(10, 200, 10):
        write(
            db,
            [
                spoken(start(m, session_id="t"), [f"u:{'word ' * 50} w{m}"], [f"a:{m}"])
                for m in range(n, n + 10)
            ],
        )
    with db.transaction() as tx:
        delete_session(tx, 1, "s", text_of)
    steps = 1
    more = db.reclaim(begin=True)
    while more:
        more = db.reclaim()
        steps += 1
    assert steps > 2
    assert holding(tmp_path / "traceway.db", canary.encode()) == []
    assert len((await list_sessions(db, 1, 10, query=parse("w150"))).rows) == 1
    assert await check(db, text_of) == []
