"""Reads: order, pages, projects, and work that does not grow with the database."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from storage import queries
from storage.database import Database, DatabaseCorrupt
from storage.queries import (
    get_session,
    get_span,
    get_trace,
    numbered_span,
    outline_of,
    project_id,
    span_of,
    stats,
    trace_outlines,
)
from storage.squeeze import MARK, squeeze
from storage.totals import Stats
from tests.storage.calls import (
    body,
    end,
    rows,
    span_id,
    start,
    trace_id,
    unknown_usage,
    write,
)


async def test_the_spans_of_a_trace_are_read_oldest_first_up_to_a_limit(
    db: Database,
) -> None:
    write(db, [end(start(n, trace=9)) for n in (3, 1, 2)])
    spans = await trace_outlines(db, 1, trace_id(9))
    assert [span.span_id for span in spans] == [span_id(n) for n in (1, 2, 3)]
    assert [span.span_id for span in await trace_outlines(db, 1, trace_id(9), 2)] == [
        span_id(1),
        span_id(2),
    ]


@pytest.mark.parametrize(("count", "aside"), [(2, False), (60, True)])
async def test_many_spans_are_read_beside_the_event_loop(
    db: Database, monkeypatch: pytest.MonkeyPatch, count: int, aside: bool
) -> None:
    write(db, [end(start(n, trace=99)) for n in range(1, count + 1)])
    threads: list[threading.Thread] = []

    def noted(row: Any) -> Any:
        threads.append(threading.current_thread())
        return outline_of(row)

    monkeypatch.setattr(queries, "outline_of", noted)
    assert len(await trace_outlines(db, 1, trace_id(99))) == count
    assert [thread is not threading.main_thread() for thread in threads] == [aside] * count


async def test_a_span_has_all_that_was_said_of_it_unless_it_is_read_in_outline(
    db: Database,
) -> None:
    write(db, [end(start(1), request_headers='[["a","b"]]', response_headers="[]")])
    rows(db, "UPDATE spans SET attributes = :said", said=squeeze(b'{"kind":{"k":1}}'))
    whole = await get_span(db, 1, span_id(1))
    assert whole is not None
    assert whole.attributes == b'{"kind":{"k":1}}'
    assert (whole.request_headers, whole.response_headers) == ('[["a","b"]]', "[]")
    assert await numbered_span(db, 1, whole.seq) == whole
    (outline,) = await trace_outlines(db, 1, trace_id(1))
    unread: dict[str, Any] = dict.fromkeys(("attributes", "request_headers", "response_headers"))
    assert outline == replace(whole, **unread)


@pytest.mark.parametrize(("size", "aside"), [(1_000, False), (100_000, True)])
async def test_a_span_of_which_much_was_said_is_unpacked_beside_the_event_loop(
    db: Database, monkeypatch: pytest.MonkeyPatch, size: int, aside: bool
) -> None:
    write(db, [end(start(1), request_headers=f'["{"x" * size}"]')])
    threads: list[threading.Thread] = []

    def noted(row: Any) -> Any:
        threads.append(threading.current_thread())
        return span_of(row)

    monkeypatch.setattr(queries, "span_of", noted)
    found = await get_span(db, 1, span_id(1))
    assert found is not None
    assert len(found.request_headers or "") == size + 4
    assert [thread is not threading.main_thread() for thread in threads] == [aside]


async def test_a_span_is_read_by_its_number_in_its_project_alone(db: Database) -> None:
    write(db, [end(start(1)), end(start(2, project_id=2))])
    (own,) = await trace_outlines(db, 1, trace_id(1))
    (other,) = await trace_outlines(db, 2, trace_id(2))
    found = await numbered_span(db, 1, own.seq)
    assert found is not None
    assert found.span_id == span_id(1)
    assert await numbered_span(db, 1, other.seq) is None
    assert await numbered_span(db, 1, 77) is None


@pytest.mark.parametrize("column", ["attributes", "request_head", "response_head"])
async def test_what_is_damaged_of_a_span_is_no_matter_to_its_outline(
    db: Database, column: str
) -> None:
    write(db, [end(start(1))])
    sql = f"UPDATE spans SET {column} = :said"  # noqa: S608 (one of three names)
    rows(db, sql, said=MARK + b"damaged")
    (outline,) = await trace_outlines(db, 1, trace_id(1))
    for read in (get_span(db, 1, span_id(1)), numbered_span(db, 1, outline.seq)):
        with pytest.raises(DatabaseCorrupt, match="does not expand"):
            await read


async def test_a_project_sees_nothing_of_another(db: Database) -> None:
    write(db, [end(start(1, session_id="s", project_id=2), request=body(b"q"))])
    assert await get_session(db, 1, "s") is None
    assert await get_trace(db, 1, trace_id(1)) is None
    assert await trace_outlines(db, 1, trace_id(1)) == ()
    assert await get_span(db, 1, span_id(1)) is None
    assert await stats(db, 1) == await stats(db, 3)


@pytest.mark.parametrize("session_id", ["", "a/b", "%", "_", "'; --", "héllo", "{x}", "a" * 1024])
async def test_a_session_id_is_read_by_itself_only(db: Database, session_id: str) -> None:
    write(db, [end(start(1, session_id=session_id)), end(start(2, session_id="other"))])
    found = await get_session(db, 1, session_id)
    assert found is not None
    assert (found.session_id, found.trace_count) == (session_id, 1)


async def test_a_session_id_with_a_lone_surrogate_is_unknown_and_no_error(
    db: Database,
) -> None:
    assert await get_session(db, 1, "\ud800") is None


async def test_statistics_are_sums_over_the_project(db: Database) -> None:
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
    db: Database,
) -> None:
    write(db, [unknown_usage(end(start(1)))])
    sums = await stats(db, 1)
    assert (sums.input_tokens, sums.output_tokens, sums.cost_nusd) == (None, None, None)


async def test_a_project_is_found_by_its_name(db: Database) -> None:
    assert await project_id(db, "default") == 1
    assert await project_id(db, "nobody's") is None
