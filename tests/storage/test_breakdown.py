"""The parts of a session's sums: by model, by state, by turn; a page of its traces and spans."""

import pytest

from storage import breakdown
from storage.breakdown import (
    model_shares,
    page_spans,
    page_traces,
    trace_states,
    turn_sums,
    whole_traces,
)
from storage.database import Database
from storage.handed import Said
from storage.queries import get_session
from storage.records import FAILED, SpanEnd, Tokens, add
from storage.squeeze import MARK
from tests.storage.calls import end, rows, span_id, start, trace_id, unknown_usage, write
from tests.storage.handing import begun, done, hand_in


def of(session: str, n: int, **fields: object) -> SpanEnd:
    return end(start(n, session_id=session), **fields)


def some(db: Database) -> None:
    write(
        db,
        [
            of("s", 1, cost_nusd=300, first_token_us=1000),
            of("s", 2, model="b", tokens=Tokens(input=7), cost_nusd=900, duration_us=100_000),
            unknown_usage(of("s", 3, model="b", duration_us=200_000)),
            of("s", 4, model=None, state=FAILED, tokens=Tokens(), cost_nusd=None),
            start(5, session_id="s"),
            of("other", 6),
        ],
    )


async def test_models_come_with_what_their_calls_took(db: Database) -> None:
    some(db)
    dearest, other, unnamed = await model_shares(db, 1, "s")
    assert (dearest.model, dearest.calls, dearest.cost_nusd, dearest.unpriced) == ("b", 2, 900, 1)
    assert (dearest.input_tokens, dearest.output_tokens) == (7, None)
    assert (dearest.mean_duration_us, dearest.mean_first_token_us) == (150_000, None)
    assert (other.model, other.cost_nusd, other.mean_first_token_us) == ("gpt-5", 300, 1000)
    assert (unnamed.model, unnamed.calls, unnamed.input_tokens) == (None, 2, None)


async def test_the_parts_add_up_to_the_session(db: Database) -> None:
    some(db)
    session = await get_session(db, 1, "s")
    assert session is not None
    shares = await model_shares(db, 1, "s")
    turns = await turn_sums(db, 1, "s")
    states = await trace_states(db, 1, "s")
    assert sum(one.cost_nusd or 0 for one in shares) == session.cost_nusd
    assert sum(turn.cost_nusd or 0 for turn in turns) == session.cost_nusd
    assert sum(turn.total_tokens or 0 for turn in turns) == session.tokens.total
    assert sum(add(one.input_tokens, one.output_tokens) or 0 for one in shares) == (
        session.tokens.total
    )
    assert sum(one.calls for one in shares) == session.span_count
    assert sum(one.unpriced for one in shares) == session.unpriced_count
    assert states == {"completed": 3, "failed": 1, "running": 1}


async def test_turns_come_oldest_first_and_unknown_is_none(db: Database) -> None:
    some(db)
    turns = await turn_sums(db, 1, "s")
    assert [turn.trace_id for turn in turns] == [trace_id(n) for n in range(1, 6)]
    assert [turn.total_tokens for turn in turns] == [15, 7, None, None, None]
    assert [turn.cost_nusd for turn in turns] == [300, 900, None, None, None]


async def test_of_many_turns_the_newest_are_read(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakdown, "MAX_TURNS", 2)
    some(db)
    assert [turn.trace_id for turn in await turn_sums(db, 1, "s")] == [trace_id(4), trace_id(5)]


async def test_pages_begin_where_they_are_told_to(db: Database) -> None:
    some(db)
    write(db, [end(start(7, trace=2))])
    traces = await page_traces(db, 1, "s", 1, 2)
    assert [trace.trace_id for trace in traces] == [trace_id(2), trace_id(3)]
    spans = await page_spans(db, 1, "s", 1, 2)
    assert [span.trace_id for span in spans] == [trace_id(2), trace_id(3), trace_id(2)]
    assert await page_traces(db, 1, "s", 9, 2) == []
    assert await page_spans(db, 1, "none", 0, 2) == []


async def test_a_page_reads_neither_attributes_nor_headers(db: Database) -> None:
    some(db)
    for column in ("attributes", "request_head", "response_head"):
        sql = f"UPDATE spans SET {column} = :said"  # noqa: S608 (one of three names)
        rows(db, sql, said=MARK + b"damaged")
    assert len(await page_spans(db, 1, "s", 0, 9)) == 5


async def test_of_many_spans_those_of_whole_traces_are_counted(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    some(db)
    write(db, [end(start(n, trace=trace)) for n, trace in ((7, 2), (8, 4), (9, 4), (10, 4))])
    monkeypatch.setattr(breakdown, "MAX_SPANS", 3)
    assert len(await page_spans(db, 1, "s", 0, 5)) == 4
    assert await whole_traces(db, 1, "s", 0, 5) == (2, 3)
    assert await whole_traces(db, 1, "s", 2, 5) == (1, 1)
    assert await whole_traces(db, 1, "s", 3, 5) == (1, 4)
    assert await whole_traces(db, 1, "s", 9, 5) == (0, 0)
    assert await whole_traces(db, 2, "s", 0, 5) == (0, 0)


async def test_another_projects_session_of_the_same_name_is_not_read(db: Database) -> None:
    some(db)
    assert await model_shares(db, 2, "s") == []
    assert await trace_states(db, 2, "s") == {}
    assert await turn_sums(db, 2, "s") == []
    assert await page_traces(db, 2, "s", 0, 9) == []
    assert await page_spans(db, 2, "s", 0, 9) == []


async def test_a_page_has_the_calls_and_the_outermost_spans_of_its_traces(
    db: Database,
) -> None:
    call, tool = Said(kind="llm_call"), Said(kind="tool_call")
    hand_in(
        db,
        [
            begun(1, trace=1, session_id="s"),
            begun(2, trace=1, parent_id=span_id(1), said=tool),
            begun(3, trace=1, parent_id=span_id(2), said=call),
            begun(4, trace=1, parent_id=span_id(2), said=call),
            begun(5, trace=1, parent_id=span_id(77), said=tool),  # whose parent is not here
            begun(6, trace=1, parent_id=span_id(6), said=tool),
        ],
    )
    with db.transaction() as tx:
        tx.execute("UPDATE spans SET same_call = :s WHERE span_id = :s4",
                   {"s": span_id(99), "s4": span_id(4)})  # fmt: skip
    spans = await page_spans(db, 1, "s", 0, 10)
    assert [span.span_id for span in spans] == [span_id(n) for n in (1, 3, 5, 6)]


async def test_steps_that_take_nothing_and_what_saw_a_call_as_well_are_no_calls(
    db: Database,
) -> None:
    write(db, [of("s", 1)])
    call = Said(kind="llm_call", model="m", tokens=Tokens(input=3), cost_nusd=7)
    hand_in(db, [begun(2, session_id="s", said=Said(kind="retrieval")), done(2)])
    hand_in(db, [begun(3, session_id="s", said=call), done(3)])
    hand_in(db, [begun(4, session_id="s", said=call), done(4)])
    rows(
        db, "UPDATE spans SET same_call = :call WHERE span_id = :id", call=span_id(1), id=span_id(4)
    )
    shares = await model_shares(db, 1, "s")
    assert [(one.model, one.calls, one.cost_nusd) for one in shares] == [
        ("gpt-5", 1, 100),
        ("m", 1, 7),
    ]
