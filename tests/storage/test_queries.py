"""Reads: order, pages, projects, and work that does not grow with the database."""

from pathlib import Path

import pytest

from storage.parameters import prepare
from storage.queries import (
    get_session,
    get_span,
    get_trace,
    list_sessions,
    list_traces,
    project_id,
    session_traces,
    stats,
    trace_spans,
)
from storage.records import Page, Stats
from storage.sqlite import SqliteDatabase, open_database
from storage.writes import apply
from tests.storage.calls import (
    T0,
    body,
    end,
    span_id,
    start,
    trace_id,
    unknown_usage,
    write,
)


async def test_sessions_are_listed_by_their_newest_trace_each_once(db: SqliteDatabase) -> None:
    write(db, [end(start(n, session_id=f"s{n % 5}"), model=f"m{n % 2}") for n in range(20)])
    listed = []
    after = None
    while True:
        page = await list_sessions(db, 1, 2, after)
        listed += [session.session_id for session in page.rows]
        assert all(session.models == ("m0", "m1") for session in page.rows)
        if page.next_after is None:
            break
        after = page.next_after
    assert listed == ["s4", "s3", "s2", "s1", "s0"]


async def test_sessions_of_one_microsecond_are_listed_each_once(db: SqliteDatabase) -> None:
    write(db, [end(start(n, session_id=f"s{n}", started_at_us=T0)) for n in range(7)])
    first = await list_sessions(db, 1, 4)
    second = await list_sessions(db, 1, 4, first.next_after)
    assert [s.session_id for s in (*first.rows, *second.rows)] == [f"s{6 - n}" for n in range(7)]
    assert second.next_after is None


async def test_a_page_that_is_just_full_is_the_last(db: SqliteDatabase) -> None:
    write(db, [end(start(n, session_id=f"s{n}")) for n in range(3)])
    assert (await list_sessions(db, 1, 3)).next_after is None
    assert (await list_traces(db, 1, 3)).next_after is None


async def test_traces_are_listed_in_either_order_with_or_without_a_session(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(n, session_id=None if n % 2 else "s")) for n in range(10)])

    async def walk(session_id: str | None, newest_first: bool) -> list[int]:
        found: list[int] = []
        after = None
        while True:
            page = await list_traces(
                db, 1, 3, after, session_id=session_id, newest_first=newest_first
            )
            found += [int.from_bytes(trace.trace_id, "big") for trace in page.rows]
            if page.next_after is None:
                return found
            after = page.next_after

    assert await walk(None, True) == list(range(9, -1, -1))
    assert await walk(None, False) == list(range(10))
    assert await walk("s", True) == [8, 6, 4, 2, 0]
    assert await walk("s", False) == [0, 2, 4, 6, 8]
    page = await session_traces(db, 1, "s", 2)
    assert [trace.seq for trace in page.rows] == [1, 3]


async def test_the_spans_of_a_trace_are_read_oldest_first_up_to_a_limit(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(n, trace=9)) for n in (3, 1, 2)])
    spans = await trace_spans(db, 1, trace_id(9))
    assert [span.span_id for span in spans] == [span_id(n) for n in (1, 2, 3)]
    assert [span.span_id for span in await trace_spans(db, 1, trace_id(9), 2)] == [
        span_id(1),
        span_id(2),
    ]


async def test_a_project_sees_nothing_of_another(db: SqliteDatabase) -> None:
    write(db, [end(start(1, session_id="s", project_id=2), request=body(b"q"))])
    assert await list_sessions(db, 1, 10) == Page((), None)
    assert await list_traces(db, 1, 10) == Page((), None)
    assert await session_traces(db, 1, "s", 10) == Page((), None)
    assert await get_session(db, 1, "s") is None
    assert await get_trace(db, 1, trace_id(1)) is None
    assert await trace_spans(db, 1, trace_id(1)) == ()
    assert await get_span(db, 1, span_id(1)) is None
    assert await stats(db, 1) == await stats(db, 3)


@pytest.mark.parametrize("session_id", ["", "a/b", "%", "_", "'; --", "héllo", "{x}", "a" * 1024])
async def test_a_session_id_is_read_by_itself_only(db: SqliteDatabase, session_id: str) -> None:
    write(db, [end(start(1, session_id=session_id)), end(start(2, session_id="other"))])
    found = await get_session(db, 1, session_id)
    assert found is not None
    assert (found.session_id, found.trace_count) == (session_id, 1)


async def test_a_session_id_with_a_lone_surrogate_is_unknown_and_no_error(
    db: SqliteDatabase,
) -> None:
    assert await get_session(db, 1, "\ud800") is None


async def test_statistics_are_sums_over_the_project(db: SqliteDatabase) -> None:
    shared = body(b"x" * 100)
    write(
        db,
        [
            end(start(1, session_id="s"), request=shared, response=body(b"y" * 10)),
            unknown_usage(end(start(2), request=shared)),
            end(start(3), usage_source="estimated"),
            start(4),
        ],
    )
    assert await stats(db, 1) == Stats(
        session_count=1,
        trace_count=4,
        span_count=4,
        running_span_count=1,
        input_tokens=20,
        output_tokens=10,
        cost_nusd=200,
        unpriced_count=1,
        estimated_count=1,
        received_bytes=210,
        stored_bytes=110,
    )


async def test_statistics_of_calls_without_usage_know_no_tokens_and_no_cost(
    db: SqliteDatabase,
) -> None:
    write(db, [unknown_usage(end(start(1)))])
    sums = await stats(db, 1)
    assert (sums.input_tokens, sums.output_tokens, sums.cost_nusd) == (None, None, None)


async def test_a_project_is_found_by_its_name(db: SqliteDatabase) -> None:
    assert await project_id(db, "default") == 1
    assert await project_id(db, "nobody's") is None


async def steps(path: Path, sessions: int) -> dict[str, int]:
    """Count the hundreds of steps of SQLite's machine that each read takes at this size."""
    db = open_database(path)
    batch = prepare([end(start(n, session_id=f"s{n}")) for n in range(sessions)])
    with db.transaction() as tx:
        apply(tx, batch)
    await db.read("SELECT 1", {})
    (reader,) = db._readers
    counted = 0

    def tick() -> int:
        nonlocal counted
        counted += 1
        return 0

    await reader.set_progress_handler(tick, 10)
    middle = (T0 + sessions // 2 * 1_000_000, sessions)
    reads = {
        "sessions": list_sessions(db, 1, 20),
        "sessions after": list_sessions(db, 1, 20, middle),
        "session": get_session(db, 1, "s50"),
        "traces": list_traces(db, 1, 20),
        "traces after": list_traces(db, 1, 20, middle),
        "session's traces": session_traces(db, 1, "s50", 20),
        "trace": get_trace(db, 1, trace_id(50)),
        "spans": trace_spans(db, 1, trace_id(50)),
        "span": get_span(db, 1, span_id(50)),
    }
    taken = {}
    for name, read in reads.items():
        counted = 0
        assert await read
        taken[name] = counted
    await db.close()
    return taken


async def test_no_read_works_more_in_a_large_database(tmp_path: Path) -> None:
    small = await steps(tmp_path / "small.db", 100)
    large = await steps(tmp_path / "large.db", 10_000)
    assert small.keys() == large.keys()
    for name in small:
        assert large[name] <= small[name] + 1, (name, small[name], large[name])
