"""Lists: every order, page by page, while rows arrive; what a page works; and sums of all pages."""

import random
from pathlib import Path
from typing import Any

import pytest

from storage import listing, packed_spans
from storage.clauses import Holds, Ids, Query, Rows
from storage.database import Database, Value
from storage.listing import (
    INDEXED,
    NEWEST,
    ORDERS,
    Order,
    TooManyRows,
    list_hits,
    list_outlines,
    list_sessions,
    list_spans,
    list_traces,
    totals,
)
from storage.parameters import prepare
from storage.queries import get_session, get_span, get_trace, trace_outlines
from storage.records import Page, Tokens
from storage.search import SearchError, parse
from storage.totals import Totals
from storage.writes import apply
from tests.databases import opened
from tests.storage.calls import T0, end, span_id, spoken, start, trace_id, unknown_usage, write
from tests.storage.mixed import LISTS, NOW_US, in_order, world

ALL_ORDERS = [
    pytest.param(rows, Order(by, descending), id=f"{rows}-{by}-{'desc' if descending else 'asc'}")
    for rows in ORDERS
    for by in ORDERS[rows]
    for descending in (True, False)
]


async def walk(
    db: Database, query: Query, order: Order | None = None, *, limit: int = 7
) -> list[Any]:
    """Read all pages of a list."""
    found: list[Any] = []
    after = None
    by = {} if order is None else {"order": order}
    while True:
        page = await LISTS[query.rows](db, 1, limit, after, query=query, now_us=NOW_US, **by)
        assert len(page.rows) <= limit
        found += page.rows
        if page.next_after is None:
            return found
        after = page.next_after


@pytest.mark.parametrize(("rows", "order"), ALL_ORDERS)
@pytest.mark.parametrize(
    "text", ["since:100d", "since:100d cost:>=0 -status:failed", "alpha since:1d"]
)
async def test_pages_in_any_order_hold_each_row_that_is_found_once(
    db: Database, rows: Rows, order: Order, text: str
) -> None:
    here = await world(db, 5)
    query = parse(text, rows)
    expected = in_order(here.found(query), order.by, descending=order.descending)
    assert len(expected) > 2
    for limit in (1, 3, 1000):
        found = [row.seq for row in await walk(db, query, order, limit=limit)]
        assert found == expected, limit


@pytest.mark.parametrize(("rows", "order"), ALL_ORDERS)
async def test_a_reader_of_pages_meets_each_row_once_while_others_arrive(
    db: Database, rows: Rows, order: Order
) -> None:
    source = random.Random(1)  # noqa: S311

    def call(n: int) -> Any:
        ended = end(
            start(n, session_id=f"s{n}", started_at_us=T0 + source.randrange(9)),
            cost_nusd=source.choice((None, 0, 100, 200)),
            tokens=Tokens(input=source.choice((None, 1, 2)), output=source.choice((None, 1))),
            duration_us=source.randrange(4),
        )
        return unknown_usage(ended) if ended.cost_nusd is None else ended

    write(db, [call(n) for n in range(1, 31)])
    query = parse("since:100000d", rows)
    before = {row.seq for row in await walk(db, query, order)}
    met: list[int] = []
    after = None
    new = 1_000
    while True:
        page = await LISTS[rows](db, 1, 4, after, query=query, order=order, now_us=NOW_US)
        met += [row.seq for row in page.rows]
        if page.next_after is None:
            break
        after = page.next_after
        write(db, [call(n) for n in range(new, new + 3)])
        new += 3
    assert len(met) == len(set(met))
    assert before <= set(met)


async def test_what_is_unknown_is_sorted_as_less_than_nothing(db: Database) -> None:
    write(
        db,
        [
            end(start(1, session_id="free"), cost_nusd=0),
            unknown_usage(end(start(2, session_id="unknown"))),
            end(start(3, session_id="dear"), cost_nusd=5),
        ],
    )
    down = await walk(db, parse(""), Order("cost"))
    assert [one.session_id for one in down] == ["dear", "free", "unknown"]
    up = await walk(db, parse(""), Order("cost", descending=False))
    assert [one.session_id for one in up] == ["unknown", "free", "dear"]


@pytest.mark.parametrize("rows", ["sessions", "traces"])
@pytest.mark.parametrize("text", ["", "cost:>=0 -status:failed", "alpha"])
async def test_hits_are_those_of_the_list_page_by_page(db: Database, rows: Rows, text: str) -> None:
    await world(db, 5)
    query = parse(text, rows)
    for order in (Order(sorted(INDEXED[rows])[-1], descending) for descending in (True, False)):
        hits: list[tuple[Value, ...]] = []
        after = None
        while not hits or after is not None:
            page = await list_hits(db, 1, 2, after, query=query, order=order, now_us=NOW_US)
            hits += [tuple(hit) for hit in page.rows]
            after = page.next_after
        listed = await walk(db, query, order)
        assert hits == [
            (one.seq, one.session_id, int(one.starred))
            if rows == "sessions"
            else (one.seq, one.trace_id)
            for one in listed
        ]
        assert len(hits) > 2


async def test_sessions_are_listed_by_their_newest_trace_each_once(db: Database) -> None:
    write(db, [end(start(n, session_id=f"s{n % 5}"), model=f"m{n % 2}") for n in range(20)])
    listed = await walk(db, parse(""), limit=2)
    assert all(session.models == ("m0", "m1") for session in listed)
    assert [session.session_id for session in listed] == ["s4", "s3", "s2", "s1", "s0"]


async def test_a_clock_that_jumps_back_sorts_by_its_times_then_by_arrival_and_hides_nothing(
    db: Database,
) -> None:
    hour_us = 3_600_000_000
    # The third call begins after the clock went back an hour; the fourth in the same microsecond.
    times = (T0, T0 + 10, T0 - hour_us, T0 - hour_us, T0 + 5)
    met: list[int] = []
    after = None
    for n, at_us in enumerate(times):
        write(db, [end(start(n, session_id="s", started_at_us=at_us), duration_us=7)])
    for _ in times:  # one at a time, as a reader does who goes on with a cursor
        page = await list_traces(db, 1, 1, after, query=parse("", "traces"), now_us=NOW_US)
        met += [int.from_bytes(row.trace_id, "big") for row in page.rows]
        after = page.next_after
    assert met == [1, 4, 0, 3, 2]
    assert after is None
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.first_started_at_us, session.last_active_at_us) == (T0 - hour_us, T0 + 10)
    assert session.trace_count == len(times)
    spans = [await trace_outlines(db, 1, trace_id(n)) for n in range(len(times))]
    assert {one.duration_us for (one,) in spans} == {7}


async def test_a_page_that_is_just_full_is_the_last(db: Database) -> None:
    write(db, [end(start(n, session_id=f"s{n}")) for n in range(3)])
    for read in LISTS.values():
        page = await read(db, 1, 3)
        assert (len(page.rows), page.next_after) == (3, None)


async def large(db: Database) -> dict[int, int]:
    """Write calls with headers of many sizes; give these by the number of the span."""
    headers = {f"call {n}": f'["{"x" * (n * 397 % 4_000)}"]' for n in range(1, 31)}
    write(
        db,
        [end(start(n, session_id="s"), request_headers=headers[f"call {n}"]) for n in range(1, 31)],
    )
    page = await list_outlines(db, 1, 1000)
    return {span.seq: len(headers[span.name]) for span in page.rows}


@pytest.mark.parametrize("order", [NEWEST, Order("started", descending=False), Order("cost")])
@pytest.mark.parametrize(("limit", "at_once"), [(1000, 1000), (1000, 3), (7, 1000), (7, 3), (1, 1)])
async def test_answers_of_so_many_bytes_hold_each_span_once_and_whole(
    db: Database, order: Order, limit: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = await large(db)
    monkeypatch.setattr(packed_spans, "ANSWER_BYTES", 3_000)
    monkeypatch.setattr(listing, "SPANS_AT_ONCE", at_once)
    query = parse("session:s", "spans")
    expected = [span.seq for span in await walk(db, query, order)]
    found: list[int] = []
    after = None
    while True:
        page = await list_spans(db, 1, limit, after, query=query, order=order)
        spans = [one.unpacked() for one in page.rows]
        assert [len(span.request_headers or "") for span in spans] == [sizes[s.seq] for s in spans]
        assert 1 <= len(spans) <= limit
        assert len(spans) == 1 or sum(sizes[span.seq] for span in spans) <= 3_000
        found += [span.seq for span in spans]
        after = page.next_after
        if after is None:
            break
    assert found == expected
    assert len(found) == 30


async def test_an_answer_with_room_holds_as_many_spans_as_are_asked_for(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await large(db)
    monkeypatch.setattr(listing, "SPANS_AT_ONCE", 4)
    page = await list_spans(db, 1, 13)
    assert len(page.rows) == 13
    rest = await list_spans(db, 1, 1000, page.next_after)
    assert (len(rest.rows), rest.next_after) == (17, None)
    assert await list_spans(db, 2, 1000) == Page((), None)


async def test_a_project_lists_nothing_of_another(db: Database) -> None:
    write(db, [end(start(1, session_id="s", project_id=2))])
    for rows, read in LISTS.items():
        assert await read(db, 1, 10) == Page((), None)
        if rows != "spans":
            assert (await totals(db, 1, Query(rows))).trace_count == 0


@pytest.mark.parametrize("rows", ["traces", "spans"])
@pytest.mark.parametrize("by", ["duration", "cost", "tokens"])
@pytest.mark.parametrize(
    "text", ["", "session:a*", "-session:a", "-since:1h", "until:1h", "cost:1"]
)
async def test_calls_are_sorted_otherwise_than_by_time_only_where_they_are_bounded(
    db: Database, rows: Rows, by: str, text: str
) -> None:
    with pytest.raises(TooManyRows, match=r"session:ID.*since:24h"):
        await LISTS[rows](db, 1, 10, query=parse(text, rows), order=Order(by))


@pytest.mark.parametrize("rows", ["traces", "spans"])
@pytest.mark.parametrize("text", ["since:100d", "session:s", "session:s cost:5"])
async def test_more_calls_than_are_sorted_are_a_mistake(
    db: Database, rows: Rows, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, [end(start(n, session_id="s")) for n in range(6)])
    monkeypatch.setattr(listing, "SORTED", 5)
    monkeypatch.setattr(listing, "COUNT_SORTED", listing.COUNT_SORTED.replace("500001", "6"))
    query = parse(text, rows)
    if rows == "spans" and "cost" in text:
        return  # its few rows are found by an index, and then counted
    with pytest.raises(TooManyRows, match="up to 5 of them"):
        await LISTS[rows](db, 1, 10, query=query, order=Order("cost"), now_us=NOW_US)
    assert len((await LISTS[rows](db, 1, 10, query=query, now_us=NOW_US)).rows) in (0, 6)


@pytest.mark.parametrize(
    ("rows", "by"), [(rows, by) for rows in ORDERS for by in sorted(INDEXED[rows])]
)
@pytest.mark.parametrize("descending", [True, False])
async def test_a_filter_that_passes_over_many_rows_goes_on_with_the_next_page(
    db: Database,
    rows: Rows,
    by: str,
    descending: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 5)
    monkeypatch.setattr(listing, "LOOKED_AT_BY_SPANS", 3)
    write(
        db,
        [end(start(n, session_id=f"s{n:02}", user_id="u" if n == 7 else "v")) for n in range(30)],
    )
    order = Order(by, descending)
    query = parse("user:u", rows)
    first = await LISTS[rows](db, 1, 10, query=query, order=order)
    assert (first.rows, first.next_after is None) == ((), False)
    assert [row.seq for row in await walk(db, query, order)] == [8]
    for text in ("user:v", "user:*", "provider:none"):
        query = parse(text, rows)
        expected = {"user:v": 29, "user:*": 30, "provider:none": 0}[text]
        assert len({row.seq for row in await walk(db, query, order, limit=2)}) == expected


async def test_where_few_rows_can_be_meant_no_other_is_passed_over(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, [spoken(start(n, session_id=f"s{n}"), [f"u:w{n}"]) for n in range(30)])
    monkeypatch.setattr(listing, "LOOKED_AT", 5)
    for rows, read in LISTS.items():
        for text in ("w3", "session:s3", "session:s3 user:x", "w3 w4"):
            page = await read(db, 1, 10, query=parse(text, rows))
            assert len(page.rows) == (1 if text in ("w3", "session:s3") else 0)
            assert page.next_after is None


async def test_sums_are_those_of_all_rows_that_are_found(db: Database) -> None:
    here = await world(db, 7)
    for text in ("", "cost:>0.1", "-status:failed", "alpha", "session:a", "nobody"):
        for rows in ("sessions", "traces"):
            query = parse(text, rows)
            found = here.found(query)
            assert await totals(db, 1, query, NOW_US) == _summed(rows, found), (text, rows)


def _summed(rows: str, found: list[Any]) -> Totals:
    def known(values: list[int | None]) -> int | None:
        return (
            sum(v for v in values if v is not None) if any(v is not None for v in values) else None
        )

    of_sessions = rows == "sessions"
    return Totals(
        session_count=len(found) if of_sessions else None,
        trace_count=sum(row.trace_count for row in found) if of_sessions else len(found),
        span_count=sum(row.span_count for row in found),
        failed_trace_count=sum(
            row.failed_trace_count if of_sessions else row.status == "failed" for row in found
        ),
        unpriced_count=sum(row.unpriced_count for row in found),
        estimated_count=sum(row.estimated_count for row in found),
        input_tokens=known([row.tokens.input for row in found]),
        output_tokens=known([row.tokens.output for row in found]),
        cost_nusd=known([row.cost_nusd for row in found]),
        truncated=False,
    )


async def test_sums_of_too_many_rows_are_of_the_newest_and_say_so(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, [end(start(n, session_id=f"s{n}")) for n in range(6)])
    whole = {rows: await totals(db, 1, Query(rows)) for rows in ("sessions", "traces")}
    monkeypatch.setattr(listing, "LOOKED_AT", 6)
    assert {rows: await totals(db, 1, Query(rows)) for rows in whole} == whole
    monkeypatch.setattr(listing, "LOOKED_AT", 4)
    for rows in whole:
        sums = await totals(db, 1, Query(rows))
        assert (sums.trace_count, sums.cost_nusd, sums.truncated) == (4, 400, True)


async def steps(path: Path, sessions: int) -> dict[str, int]:
    """Count the tens of steps of SQLite's machine that each read takes at this size."""
    db = opened(path)
    with db.transaction() as tx:
        apply(tx, prepare([call(n) for n in range(sessions)]))
    await db.read("SELECT 1", {})
    (reader,) = db._readers
    counted = 0

    def tick() -> int:
        nonlocal counted
        counted += 1
        return 0

    await reader.set_progress_handler(tick, 10)
    middle = T0 + sessions // 2 * 1_000_000
    reads: dict[str, Any] = {
        "session": get_session(db, 1, "s50"),
        "session's traces": list_traces(db, 1, 50, query=parse("session:s50", "traces")),
        "session by its name": list_sessions(db, 1, 50, query=parse("session:s50")),
        "trace": get_trace(db, 1, trace_id(50)),
        "spans of a trace": trace_outlines(db, 1, trace_id(50)),
        "span": get_span(db, 1, span_id(50)),
    }
    for rows, read in LISTS.items():
        for by in INDEXED[rows]:
            at = (middle, 0) if by in ("started", "last_active") else (sessions // 2 * 10, 0)
            for descending in (True, False):
                order = Order(by, descending)
                name = f"{rows} by {by} {descending}"
                reads[name] = read(db, 1, 50, order=order)
                reads[f"{name} after"] = read(db, 1, 50, at, order=order)
        if rows == "spans":
            of_trace = Query(rows, (Ids((trace_id(50),), "trace"),))
            reads["spans by their trace"] = read(db, 1, 50, query=of_trace)
            by_cost = read(db, 1, 50, query=of_trace, order=Order("cost"))
            reads["spans by their trace, by cost"] = by_cost
            held = Query(rows, (Holds("CALL"),))
            reads["spans by a part of their name common"] = read(db, 1, 50, query=held)
        for text in COMMON:
            if (query := _parsed(text, rows)) is not None:
                reads[f"{rows} {text} common"] = read(db, 1, 50, query=query, now_us=middle)
    taken = {}
    for name, read in reads.items():
        counted = 0
        found = await read
        assert len(found.rows) == 50 if name.endswith("common") else found
        taken[name] = counted
    await db.close()
    return taken


# Each is fulfilled by all rows: a page of them is the first that are looked at.
COMMON = (
    *("model:gpt-5", "provider:openai", "user:u*", "status:completed", "session:s*", "cost:>=0"),
    *("-status:failed -model:o4 -provider:none", "since:9d until:0s", "errors:0", "source:header"),
    *("tokens:<1M", "duration:500", "-none", "-starred:true", "traces:1 spans:1"),
    *("kind:llm_call", "-kind:retrieval", "-tag:none"),
)


def _parsed(text: str, rows: Rows) -> Query | None:
    try:
        return parse(text, rows)
    except SearchError:
        return None


def call(n: int) -> Any:
    """Make a session of one call that costs more than the one before."""
    begun = start(n, session_id=f"s{n}", user_id=f"u{n}", provider="openai")
    tokens = Tokens(input=10 * n, output=0)
    return end(begun, cost_nusd=10 * n, tokens=tokens, model="gpt-5")


@pytest.mark.slow
@pytest.mark.sqlite_only("counts what SQLite's own machine does")
async def test_no_page_works_more_in_a_large_database(tmp_path: Path) -> None:
    small = await steps(tmp_path / "small.db", 500)
    large = await steps(tmp_path / "large.db", 5_000)
    assert small.keys() == large.keys()
    for name in small:
        # Before a filter, a page finds how far it may look, which no index does at once.
        passed = 5_000 if name.endswith("common") else 0
        assert large[name] <= 1.5 * small[name] + 1 + passed, (name, small[name], large[name])
        assert small[name] < 2_000 + passed, (name, small[name])


def test_the_default_orders_are_those_of_an_index() -> None:
    assert NEWEST.by in INDEXED["traces"] & INDEXED["spans"]
    assert all(INDEXED[rows] <= set(ORDERS[rows]) for rows in ORDERS)
    assert next(iter(ORDERS["sessions"])) == "last_active"
    assert list_outlines is LISTS["spans"]
