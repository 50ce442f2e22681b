"""What a batch does to the rows, in whatever order and company its changes come."""

import os
from dataclasses import fields, replace

import pytest

from storage.database import Database
from storage.doctor import check
from storage.parameters import Change, prepare
from storage.queries import get_session, get_span, get_trace
from storage.rebuild import request_body, response_body
from storage.records import (
    COMPLETED,
    FAILED,
    RUNNING,
    SpanEnd,
    SpanStart,
    Tokens,
)
from storage.writes import apply
from tests.storage.calls import (
    body,
    checkpoint,
    end,
    rows,
    settlement,
    span_id,
    start,
    state_of,
    stored,
    text_of,
    trace_id,
    unknown_usage,
    write,
)


async def test_a_start_is_a_row_that_runs(db: Database) -> None:
    written = write(db, [start(1, session_id="s", user_id="u", path="/v1/chat/completions")])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.state, span.path, span.ended_at_us) == (RUNNING, "/v1/chat/completions", None)
    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert (trace.status, trace.session_id, trace.duration_us) == (RUNNING, "s", None)
    assert written.spans == ((1, trace_id(1), span_id(1)),)
    assert written.sessions == ((1, "s"),)


async def test_every_field_of_an_end_is_read_back(db: Database) -> None:
    ended = end(
        start(
            1,
            parent_id=span_id(7),
            kind="tool",
            upstream="openai",
            provider="openai",
            operation="chat",
            method="POST",
            path="/v1",
            query="a=b",
        ),
        state=FAILED,
        name="renamed",
        user_id="u",
        http_status=500,
        error="it broke",
        ended_by="upstream",
        phase="body",
        first_byte_us=10,
        first_token_us=20,
        model_requested="gpt-5-latest",
        service_tier="flex",
        response_id="resp_1",
        tokens=Tokens(**{f.name: i for i, f in enumerate(fields(Tokens))}),
        price_version="7",
        input_preview="in",
        output_preview="out",
        request=body(b"question", content_type="application/json", redacted=True),
        response=body(b"answer", content_encoding="gzip", truncated=True),
        request_headers="[]",
        response_headers="[1]",
        notes=("one", "two"),
    )
    write(db, [ended])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    for name in {f.name for f in fields(SpanEnd)} & {f.name for f in fields(type(span))}:
        if name not in ("request", "response"):
            assert getattr(span, name) == getattr(ended, name), name
    for name in {f.name for f in fields(SpanStart)} & {f.name for f in fields(type(span))}:
        if name not in ("name",):
            assert getattr(span, name) == getattr(ended.start, name), name
    assert ended.request is not None
    assert span.request == replace(ended.request, content=None, stored=True)
    assert span.response is not None
    assert (span.response.truncated, span.response.content_encoding) == (True, "gzip")
    assert span.ended_at_us == ended.ended_at_us


@pytest.mark.parametrize("split", ["together", "apart", "end only", "end first"])
async def test_a_call_ends_the_same_however_its_start_and_end_come(
    db: Database, split: str
) -> None:
    begun = start(1, session_id="s")
    ended = end(begun, request=body(b"q"), response=body(b"a"))
    splits: dict[str, list[list[Change]]] = {
        "together": [[begun, ended]],
        "apart": [[begun], [ended]],
        "end only": [[ended]],
        "end first": [[ended], [begun]],
    }
    late = sum(write(db, batch).late for batch in splits[split])
    assert late == (1 if split == "end first" else 0)
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.status, session.trace_count, session.tokens.total) == (COMPLETED, 1, 15)
    assert session.models == ("gpt-5",)
    assert stored(db) == 2


async def test_the_first_end_stands_and_a_batch_can_be_written_twice(db: Database) -> None:
    begun = start(1, session_id="s")
    batch: list[Change] = [begun, checkpoint(begun, b"part"), end(begun, request=body(b"q"))]
    write(db, batch)
    assert write(db, batch).late == 1
    assert write(db, [end(begun, state=FAILED, request=body(b"other"))]).late == 1
    assert await state_of(db, 1) == COMPLETED
    assert stored(db) == 1
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.span_count, session.cost_nusd) == (1, 100)


async def test_a_prepared_batch_can_be_written_after_a_failed_try(db: Database) -> None:
    begun = start(1)
    batch = prepare([begun, end(begun, request=body(b"q"))])
    with pytest.raises(ZeroDivisionError), db.transaction() as tx:  # noqa: PT012 (block is tested)
        apply(tx, batch)
        raise ZeroDivisionError
    with db.transaction() as tx:
        assert apply(tx, batch).late == 0
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert span.request is not None
    assert span.request.stored


async def test_a_checkpoint_replaces_the_one_before_and_the_end_replaces_both(
    db: Database,
) -> None:
    begun = start(1)
    write(db, [begun, checkpoint(begun, b"once")])
    write(db, [checkpoint(begun, b"once upon")])
    kept = await response_body(db, 1, span_id(1))
    assert kept is not None
    assert kept.data == b"once upon"
    assert stored(db) == 1
    write(db, [end(begun, response=body(b"once upon a time"))])
    assert rows(db, "SELECT data FROM contents") == [(b"once upon a time",)]
    assert write(db, [checkpoint(begun, b"late")]).late == 1
    assert stored(db) == 1


async def test_a_body_that_the_last_checkpoint_stored_is_counted_with_its_call(
    db: Database,
) -> None:
    begun = start(1, session_id="s")
    write(db, [begun, checkpoint(begun, b"once")])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert session.stored_bytes == 0
    write(db, [checkpoint(begun, b"all there is")])
    write(db, [checkpoint(begun, b"all there is")])
    write(db, [end(begun, response=body(b"all there is"))])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert session.stored_bytes == len(b"all there is")
    assert await check(db, text_of) == []


async def test_a_checkpoints_body_that_another_call_holds_stays(db: Database) -> None:
    one, two = start(1), start(2)
    write(db, [one, end(two, request=body(b"shared"))])
    write(db, [checkpoint(one, b"shared")])
    write(db, [end(one)])
    assert rows(db, "SELECT data FROM contents") == [(b"shared",)]


async def test_a_large_body_is_compressed_and_read_back_exactly(db: Database) -> None:
    text = b"all work and no play " * 5_000
    noise = os.urandom(50_000)
    write(db, [end(start(1), request=body(text), response=body(noise))])
    encodings = dict(rows(db, "SELECT size, encoding FROM contents"))
    assert encodings == {len(text): "zstd", len(noise): ""}
    asked, answered = await request_body(db, 1, span_id(1)), await response_body(db, 1, span_id(1))
    assert asked is not None
    assert answered is not None
    assert (asked.data, answered.data) == (text, noise)


async def test_the_same_bytes_are_stored_once_in_each_project(db: Database) -> None:
    shared = body(b"the same")
    write(
        db,
        [
            end(start(1), request=shared, response=shared),
            end(start(2), request=shared),
            end(start(3, project_id=2), request=shared),
        ],
    )
    assert rows(db, "SELECT project_id FROM contents ORDER BY 1") == [(1,), (2,)]


async def test_usage_reported_by_another_call_settles_the_call_that_made_the_response(
    db: Database,
) -> None:
    maker = unknown_usage(end(start(1, session_id="s"), response_id="resp_1", model="gpt-5"))
    poll = unknown_usage(end(start(2, session_id="s"), response_id="resp_1", model=None))
    write(db, [maker])
    write(db, [replace(poll, settles=settlement("resp_1"))])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.tokens, span.cost_nusd) == (Tokens(input=70, output=7), 900)
    assert (span.usage_source, span.settled_by, span.model) == (
        "provider",
        span_id(2),
        "gpt-5-2026",
    )
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.cost_nusd, session.unpriced_count, session.models) == (900, 1, ("gpt-5-2026",))


async def test_a_response_is_settled_once_by_whoever_comes_first(db: Database) -> None:
    maker = unknown_usage(end(start(1), response_id="resp_1"))
    polls = [
        replace(
            unknown_usage(end(start(n), response_id="resp_1")),
            settles=settlement("resp_1", cost_nusd=n),
        )
        for n in (2, 3)
    ]
    # In one batch, whatever the order; and once more later.
    write(db, [polls[0], maker])
    write(db, [polls[1]])
    costs = rows(db, "SELECT cost_nusd FROM spans ORDER BY started_at_us")
    assert costs == [(2,), (None,), (None,)]


async def test_usage_that_the_maker_reported_itself_is_not_replaced(db: Database) -> None:
    write(db, [end(start(1), response_id="resp_1")])
    write(db, [replace(unknown_usage(end(start(2))), settles=settlement("resp_1"))])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.cost_nusd, span.settled_by) == (100, None)


async def test_a_reported_usage_replaces_an_estimate_even_where_it_knows_less(
    db: Database,
) -> None:
    guess = end(start(1, session_id="s"), response_id="resp_1", usage_source="estimated")
    report = settlement("resp_1", tokens=Tokens(output=3), cost_nusd=None, cost_status="unpriced")
    write(db, [guess])
    write(db, [replace(unknown_usage(end(start(2))), settles=report)])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.tokens, session.cost_nusd) == (Tokens(output=3), None)
    assert (session.estimated_count, session.unpriced_count) == (0, 1)


async def test_another_projects_response_is_not_settled(db: Database) -> None:
    write(db, [unknown_usage(end(start(1, project_id=2), response_id="resp_1"))])
    write(db, [replace(unknown_usage(end(start(2))), settles=settlement("resp_1"))])
    assert rows(db, "SELECT DISTINCT cost_nusd FROM spans") == [(None,)]
