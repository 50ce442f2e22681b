"""What applications hand in becomes traces and spans, in whatever order and however often."""

import json
from typing import Any

import pytest

from storage.database import Database
from storage.doctor import check
from storage.events import read_after
from storage.handed import Said
from storage.queries import get_span, get_trace, stats, trace_outlines
from storage.rebuild import request_body, response_body
from storage.records import FAILED, RUNNING, Tokens
from tests.storage.calls import T0, end, found, rows, span_id, spoken, start, trace_id, write
from tests.storage.handing import NOW_US, begun, closed, done, hand_in, opened, talk_said, text_of

CALL = Said(kind="llm_call", model="m", tokens=Tokens(input=10, output=5))


def results(found: list[Any]) -> list[str]:
    return [outcome.result for outcome in found]


async def sound(db: Database) -> bool:
    return await check(db, text_of) == []


async def test_a_trace_that_is_opened_is_there_before_its_first_span(db: Database) -> None:
    hand_in(db, [opened(1, name="chat", session_id="s", user_id="u", tags=("a", "b"))])

    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert (trace.name, trace.session_id, trace.session_source) == ("chat", "s", "api")
    assert (trace.user_id, trace.tags, trace.status) == ("u", ("a", "b"), RUNNING)
    assert (trace.span_count, trace.ended_at_us, trace.started_at_us) == (0, None, T0 + 1_000_000)
    assert rows(db, "SELECT trace_count, span_count, status FROM sessions") == [(1, 0, RUNNING)]
    assert await sound(db)


async def test_a_trace_that_is_ended_has_the_state_of_its_spans(db: Database) -> None:
    hand_in(db, [opened(1), begun(2, trace=1), done(2, state=FAILED, error="it broke"), closed(1)])

    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert (trace.status, trace.error, trace.span_count) == (FAILED, "it broke", 1)
    assert trace.ended_at_us == T0 + 2_500_000
    assert await sound(db)


async def test_an_open_trace_runs_also_when_all_its_spans_have_ended(db: Database) -> None:
    hand_in(db, [opened(1), begun(2, trace=1), done(2)])
    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert trace.status == RUNNING


async def test_an_end_of_a_trace_may_come_before_everything_else_of_it(db: Database) -> None:
    first = hand_in(db, [closed(1)])
    later = hand_in(db, [opened(1, name="chat"), begun(1), done(1), closed(1)])

    assert results(first) == ["waiting"]
    assert results(later) == ["known", "created", "ended", "already_ended"]
    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert (trace.name, trace.status, trace.ended_at_us) == ("chat", "completed", T0 + 2_000_000)
    assert await sound(db)


async def test_a_span_has_what_its_start_and_its_end_say(db: Database) -> None:
    hand_in(
        db,
        [
            begun(
                1,
                parent_id=span_id(7),
                user_id="u",
                said=Said(kind="custom", label="reranker", attributes=b'{"metadata":{"a":1}}'),
            )
        ],
    )
    hand_in(db, [done(1, said=Said(attributes=b'{"metadata":{"b":2}}', output=b"[1]"))])

    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.kind, span.label, span.name, span.handed_in) == (
        *("custom", "reranker", "span 1"),
        True,
    )
    assert (span.state, span.duration_us, span.parent_id) == ("completed", 500_000, span_id(7))
    assert json.loads(span.attributes or b"") == {"metadata": {"a": 1, "b": 2}}
    assert (span.usage_source, span.cost_status) == (None, None)


@pytest.mark.sqlite_only("counts what SQLite's own machine does")
async def test_a_start_and_an_end_in_one_chunk_are_one_row_written_once(
    db: Database,
) -> None:
    statements: list[str] = []
    db._writer.set_trace_callback(statements.append)
    hand_in(db, [begun(1), done(1), begun(2), done(2)], indexed=False)
    db._writer.set_trace_callback(None)
    written = [one for one in statements if "spans" in one and not one.startswith("\nSELECT")]
    assert len(written) == 1


async def test_what_an_end_says_stands_before_what_the_start_said(db: Database) -> None:
    start_said = Said(kind="llm_call", model="m-1", tokens=Tokens(input=1, output=1), cost_nusd=7)
    end_said = Said(model="m-2", tokens=Tokens(output=9))
    for n, chunks in enumerate(
        (
            [[begun(1, said=start_said), done(1, said=end_said)]],
            [[begun(2, said=start_said)], [done(2, said=end_said)]],
            [[done(3, said=end_said)], [begun(3, said=start_said)]],
            [[done(4, trace=4, said=end_said)], [begun(4, said=start_said)]],
        ),
        1,
    ):
        for chunk in chunks:
            hand_in(db, chunk)
        span = await get_span(db, 1, span_id(n))
        assert span is not None
        assert (span.model, span.tokens, span.cost_nusd, span.price_version) == (
            *("m-2", Tokens(input=1, output=9)),
            *(7, "reported"),
        )
    assert await sound(db)


async def test_a_call_is_priced_by_us_where_the_application_gives_no_cost(
    db: Database,
) -> None:
    hand_in(db, [begun(1, said=CALL), done(1), begun(2, said=Said(kind="llm_call")), done(2)])
    priced, unpriced = await get_span(db, 1, span_id(1)), await get_span(db, 1, span_id(2))
    assert priced is not None
    assert unpriced is not None
    assert (priced.cost_nusd, priced.cost_status, priced.usage_source) == (
        150,
        "priced",
        "reported",
    )
    assert (unpriced.cost_nusd, unpriced.cost_status, unpriced.usage_source) == (
        *(None, "unpriced"),
        "missing",
    )
    assert (await stats(db, 1)).cost_nusd == 150


async def test_handing_in_twice_changes_nothing(db: Database) -> None:
    items = [
        opened(1, name="chat", session_id="s"),
        begun(1, said=talk_said(["u:hi"], ["a:yo"], model="m")),
        done(1),
        begun(2, trace=1),
        done(3),
        closed(1),
    ]
    hand_in(db, items)
    before = dump(db)
    told = await read_after(db, 1, 0)
    assert results(hand_in(db, items)) == [
        *("known", "known", "already_ended", "known", "waiting", "already_ended"),
    ]
    assert dump(db) == before
    assert await read_after(db, 1, 0) == told


def dump(db: Database) -> dict[str, list[Any]]:
    tables = ("spans", "traces", "sessions", "contents", "nodes", "mentions", "early_ends")
    return {name: rows(db, f"SELECT * FROM {name}") for name in tables}  # noqa: S608


async def test_an_end_without_its_trace_waits_for_the_start(db: Database) -> None:
    waiting = hand_in(db, [done(1, said=Said(output=b'"found"'))])
    assert waiting == [("waiting", None, span_id(1), None, None)]
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(0,)]

    hand_in(db, [begun(1)])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.state, span.duration_us, span.output_preview) == ("completed", 500_000, "found")
    assert rows(db, "SELECT COUNT(*) FROM early_ends") == [(0,)]
    assert await sound(db)


async def test_an_end_with_its_trace_makes_a_span_that_says_its_start_is_missing(
    db: Database,
) -> None:
    hand_in(db, [done(1, trace=1, said=Said(output=b'{"found": "it"}'))])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.name, span.state, span.notes) == ("span", "completed", ("start_missing",))
    assert await sound(db)

    assert results(hand_in(db, [begun(1, said=Said(kind="retrieval"))])) == ["known"]
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.name, span.kind, span.notes) == ("span 1", "retrieval", ())
    assert (span.started_at_us, span.duration_us) == (T0 + 1_000_000, 500_000)
    assert rows(db, "SELECT COUNT(*) FROM early_ends") == [(0,)]
    assert await sound(db)


async def test_a_duration_counts_from_the_start_also_where_that_comes_later(
    db: Database,
) -> None:
    hand_in(db, [done(1, trace=1, ended_at_us=None, duration_us=7)])
    hand_in(db, [begun(1)])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.started_at_us, span.duration_us) == (T0 + 1_000_000, 7)


async def test_an_end_that_says_no_time_was_when_it_came(db: Database) -> None:
    hand_in(db, [done(1, ended_at_us=None)], now_us=T0 + 3_000_000)
    hand_in(db, [begun(1)], now_us=T0 + 9_000_000)
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert span.ended_at_us == T0 + 3_000_000


async def test_an_end_before_the_start_is_at_the_start(db: Database) -> None:
    hand_in(db, [begun(5), done(5, ended_at_us=T0)])
    span = await get_span(db, 1, span_id(5))
    assert span is not None
    assert span.duration_us == 0


async def test_a_second_end_is_refused_and_changes_nothing(db: Database) -> None:
    hand_in(db, [begun(1), done(1)])
    assert results(hand_in(db, [done(1, state=FAILED, error="no")])) == ["already_ended"]
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.state, span.error) == ("completed", None)


async def test_the_id_of_a_call_or_of_a_span_in_another_trace_is_a_conflict(
    db: Database,
) -> None:
    write(db, [end(start(1))])
    hand_in(db, [begun(2)])
    before = dump(db)
    items = [begun(1), done(1), begun(2, trace=9), done(2, trace=9)]
    assert results(hand_in(db, items)) == ["conflict"] * 4
    assert dump(db) == before


async def test_a_session_has_the_sums_of_spans_and_calls_alike(db: Database) -> None:
    write(db, [end(start(1, session_id="s"))])
    hand_in(db, [begun(2, said=CALL, session_id="s"), done(2)])
    found = rows(db, "SELECT trace_count, span_count, input_tokens, cost_nusd FROM sessions")
    assert found == [(2, 2, 20, 250)]
    assert rows(db, "SELECT model, n FROM session_models") == [("gpt-5", 1), ("m", 1)]
    assert await sound(db)


async def test_an_opening_wins_over_a_session_that_was_inferred(db: Database) -> None:
    first, second = start(1, owner=b"x"), start(2, owner=b"x")
    write(db, [spoken(first, ["u:hi"], ["a:yo"])])
    write(db, [spoken(second, ["u:hi", "a:yo", "u:more"], ["a:ok"])])
    auto = f"auto_{trace_id(1).hex()}"
    assert rows(db, "SELECT session_id, trace_count FROM sessions") == [(auto, 2)]

    hand_in(db, [opened(2, session_id="s")])

    found = rows(db, "SELECT session_id, trace_count FROM sessions ORDER BY session_id")
    assert found == [(auto, 1), ("s", 1)]
    assert await sound(db)


async def test_an_opening_leaves_a_session_that_a_call_named(db: Database) -> None:
    write(db, [end(start(1, session_id="theirs"))])
    outcome = hand_in(db, [opened(1, session_id="s")])
    assert outcome[0].session_id == "theirs"
    assert rows(db, "SELECT session_id FROM sessions") == [("theirs",)]


@pytest.mark.parametrize("chunks", [1, 2])
async def test_input_and_output_are_kept_byte_for_byte(db: Database, chunks: int) -> None:
    given, found = b'{"query" : "rivers", "k":3}', b'["the Elbe", "the Oder" ]'
    items = [
        begun(1, said=Said(kind="retrieval", input=given)),
        done(1, said=Said(output=found)),
    ]
    for chunk in [items] if chunks == 1 else [[item] for item in items]:
        hand_in(db, chunk)
    request, response = (
        await request_body(db, 1, span_id(1)),
        await response_body(db, 1, span_id(1)),
    )
    assert request is not None
    assert response is not None
    assert (request.data, request.content_type) == (given, "application/json")
    assert response.data == found
    assert await sound(db)


@pytest.mark.parametrize("chunks", [1, 2])
async def test_the_messages_of_an_llm_call_are_stored_once_for_all_that_resend_them(
    db: Database, chunks: int
) -> None:
    asked = ["s:brief", "u:hi"]
    for n in range(1, 6):
        said = talk_said(asked, [f"a:{n}"])
        items = [begun(n, session_id="s", said=said), done(n)]
        for chunk in [items] if chunks == 1 else [[item] for item in items]:
            hand_in(db, chunk)
        request = await request_body(db, 1, span_id(n))
        assert request is not None
        assert request.data == said.input
        response = await response_body(db, 1, span_id(n))
        assert response is not None
        assert response.data == said.output
        asked += [f"a:{n}", f"u:{n}"]
    # Two at the beginning, and each turn one answer and, but for the last, one more question.
    assert rows(db, "SELECT COUNT(*) FROM contents") == [(2 + 5 + 4,)]
    assert rows(db, "SELECT fresh_count FROM spans ORDER BY seq") == [(1,)] * 5
    assert await sound(db)


async def test_a_call_never_goes_on_from_what_was_only_handed_in(db: Database) -> None:
    hand_in(db, [begun(1, said=talk_said(["u:hi"], ["a:yo"])), done(1)])
    write(db, [spoken(start(2), ["u:hi", "a:yo", "u:more"], ["a:ok"])])
    assert rows(db, "SELECT session_id FROM traces") == [(None,), (None,)]


async def test_all_text_of_a_span_is_found(db: Database) -> None:
    hand_in(
        db,
        [
            begun(1, said=Said(kind="tool_call", input=b'{"path": "a", "q": ["needle one"]}')),
            done(1, said=Said(output=b'"needle two"')),
        ],
    )
    assert found(db, "needle") == 2
    assert await sound(db)


async def test_attributes_above_512_kib_are_dropped_with_a_note(db: Database) -> None:
    large = b'{"metadata":{"a":"%b"}}' % (b"x" * 524_288)
    hand_in(db, [begun(1, said=Said(attributes=large)), done(1)])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.attributes, span.notes) == (None, ("attributes_dropped",))


async def test_a_trace_has_the_output_of_its_root(db: Database) -> None:
    hand_in(
        db,
        [
            begun(1, said=Said(output=b'"the report"')),
            begun(2, trace=1, parent_id=span_id(1), said=Said(output=b'"a detail"')),
            done(2),
            done(1),
        ],
    )
    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert trace.output_preview == "the report"


async def test_events_tell_of_what_was_handed_in_as_of_calls(db: Database) -> None:
    hand_in(db, [opened(1, session_id="s"), begun(1)])
    hand_in(db, [done(1, state=FAILED), begun(2, trace=1), done(2)])
    told = [(one.event.type, one.event.span_id) for one in await read_after(db, 1, 0)]
    assert told == [
        ("trace_created", None),
        ("span_created", span_id(1)),
        ("session_updated", None),
        ("span_failed", span_id(1)),
        ("span_created", span_id(2)),
        ("span_completed", span_id(2)),
        ("trace_updated", None),
        ("session_updated", None),
    ]


async def test_a_call_that_joins_an_open_trace_keeps_what_was_said_of_it(
    db: Database,
) -> None:
    hand_in(db, [opened(1, name="chat", user_id="u", session_id="s")], now_us=NOW_US)
    write(db, [end(start(2, trace=1))])
    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert (trace.name, trace.user_id, trace.session_id) == ("chat", "u", "s")
    assert (trace.status, len(await trace_outlines(db, 1, trace_id(1)))) == (RUNNING, 1)
    assert await sound(db)


@pytest.mark.parametrize("call_first", [True, False])
async def test_a_call_that_was_seen_twice_counts_once_in_its_trace(
    db: Database, call_first: bool
) -> None:
    said = Said(kind="llm_call", model="m", tokens=Tokens(input=3), response_id="r", cost_nusd=7)
    items = [opened(2, session_id="s"), begun(2, said=said), done(2)]
    call = end(start(1), response_id="r")
    if call_first:
        write(db, [call])
        hand_in(db, items)
    else:
        hand_in(db, items)
        write(db, [call])
    found = rows(db, "SELECT trace_count, span_count, cost_nusd, input_tokens FROM sessions")
    assert found == [(1, 2, 100, 10)]
    assert await sound(db)


@pytest.mark.parametrize("call_first", [True, False])
async def test_a_call_whose_traceparent_names_a_trace_is_in_it(
    db: Database, call_first: bool
) -> None:
    call = end(start(1, external_trace_id=trace_id(2), external_parent_id=span_id(2)))
    items = [opened(2, session_id="s"), begun(2), done(2)]
    if call_first:
        write(db, [call])
        hand_in(db, items)
    else:
        hand_in(db, items)
        write(db, [call])
    spans = await trace_outlines(db, 1, trace_id(2))
    assert [(span.span_id, span.parent_id) for span in spans] == [
        (span_id(1), span_id(2)),
        (span_id(2), None),
    ]
    assert rows(db, "SELECT trace_count, span_count FROM sessions") == [(1, 2)]
    assert await sound(db)
