"""What a batch does to the rows, in whatever order and company its changes come."""

import os
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.database import Transaction
from storage.forget import delete_session, delete_trace, interrupt_running
from storage.parameters import MAX_COUNT, Change, clean_text, pack, prepare
from storage.queries import get_content, get_session, get_span, get_trace
from storage.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    TRUNCATED,
    Body,
    Content,
    Deleted,
    Settlement,
    SpanEnd,
    SpanStart,
    Tokens,
)
from storage.sqlite import SqliteDatabase
from storage.writes import apply
from tests.storage.calls import (
    OWNER,
    T0,
    body,
    checkpoint,
    end,
    rows,
    span_id,
    start,
    trace_id,
    unknown_usage,
    write,
)


def settlement(response_id: str, **given: Any) -> Settlement:
    values: dict[str, Any] = {
        "response_id": response_id,
        "model": "gpt-5-2026",
        "service_tier": None,
        "tokens": Tokens(input=70, output=7),
        "cost_nusd": 900,
        "cost_status": "priced",
        "price_version": "1",
    }
    return Settlement(**{**values, **given})


async def state_of(db: SqliteDatabase, n: int) -> str | None:
    span = await get_span(db, 1, span_id(n))
    return None if span is None else span.state


def stored(db: SqliteDatabase) -> int:
    return int(rows(db, "SELECT COUNT(*) FROM contents")[0][0])


async def test_a_start_is_a_row_that_runs(db: SqliteDatabase) -> None:
    written = write(db, [start(1, session_id="s", user_id="u", path="/v1/chat/completions")])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.state, span.path, span.ended_at_us) == (RUNNING, "/v1/chat/completions", None)
    trace = await get_trace(db, 1, trace_id(1))
    assert trace is not None
    assert (trace.status, trace.session_id, trace.duration_us) == (RUNNING, "s", None)
    assert written.spans == ((1, trace_id(1), span_id(1)),)
    assert written.sessions == ((1, "s"),)


async def test_every_field_of_an_end_is_read_back(db: SqliteDatabase) -> None:
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
    assert ended.request.content is not None
    assert span.request == replace(
        ended.request, content=None, content_sha256=ended.request.content.sha256
    )
    assert span.response is not None
    assert (span.response.truncated, span.response.content_encoding) == (True, "gzip")
    assert span.ended_at_us == ended.ended_at_us


@pytest.mark.parametrize("split", ["together", "apart", "end only", "end first"])
async def test_a_call_ends_the_same_however_its_start_and_end_come(
    db: SqliteDatabase, split: str
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


async def test_the_first_end_stands_and_a_batch_can_be_written_twice(db: SqliteDatabase) -> None:
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


async def test_a_prepared_batch_can_be_written_after_a_failed_try(db: SqliteDatabase) -> None:
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
    assert span.request.content_sha256 is not None


async def test_a_checkpoint_replaces_the_one_before_and_the_end_replaces_both(
    db: SqliteDatabase,
) -> None:
    begun = start(1)
    write(db, [begun, checkpoint(begun, b"once")])
    write(db, [checkpoint(begun, b"once upon")])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert span.response is not None
    assert span.response.content_sha256 is not None
    assert await get_content(db, 1, span.response.content_sha256) == b"once upon"
    assert stored(db) == 1
    write(db, [end(begun, response=body(b"once upon a time"))])
    assert rows(db, "SELECT data FROM contents") == [(b"once upon a time",)]
    assert write(db, [checkpoint(begun, b"late")]).late == 1
    assert stored(db) == 1


async def test_a_checkpoints_body_that_another_call_holds_stays(db: SqliteDatabase) -> None:
    one, two = start(1), start(2)
    write(db, [one, end(two, request=body(b"shared"))])
    write(db, [checkpoint(one, b"shared")])
    write(db, [end(one)])
    assert rows(db, "SELECT data FROM contents") == [(b"shared",)]


async def test_a_large_body_is_compressed_and_read_back_exactly(db: SqliteDatabase) -> None:
    text = b"all work and no play " * 5_000
    noise = os.urandom(50_000)
    write(db, [end(start(1), request=body(text), response=body(noise))])
    encodings = dict(rows(db, "SELECT size, encoding FROM contents"))
    assert encodings == {len(text): "zstd", len(noise): ""}
    for data in (text, noise):
        assert await get_content(db, 1, body(data).sha256 or b"") == data


def test_a_small_body_is_not_compressed() -> None:
    assert pack(Content(sha256=b"", data=b"a" * 1000)).encoding == ""


async def test_the_same_bytes_are_stored_once_in_each_project(db: SqliteDatabase) -> None:
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


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([COMPLETED, RUNNING, FAILED], RUNNING),
        ([COMPLETED, TRUNCATED, CANCELLED], FAILED),
        ([INTERRUPTED, COMPLETED], FAILED),
        ([COMPLETED, CANCELLED], CANCELLED),
        ([COMPLETED, COMPLETED], COMPLETED),
    ],
)
async def test_a_traces_status_follows_from_its_spans(
    db: SqliteDatabase, states: list[str], status: str
) -> None:
    for n, state in enumerate(states):
        begun = start(n, trace=9)
        write(db, [begun if state == RUNNING else end(begun, state=state)])
    trace = await get_trace(db, 1, trace_id(9))
    assert trace is not None
    assert (trace.status, trace.span_count) == (status, len(states))


async def test_sums_of_what_is_unknown_are_null_and_of_zero_are_zero(db: SqliteDatabase) -> None:
    write(db, [unknown_usage(end(start(1, session_id="s")))])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.tokens, session.cost_nusd, session.unpriced_count) == (Tokens(), None, 1)
    write(db, [end(start(2, session_id="s"), tokens=Tokens(input=0), cost_nusd=0)])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.tokens, session.cost_nusd) == (Tokens(input=0), 0)


async def test_a_trace_keeps_the_first_session_that_was_named(db: SqliteDatabase) -> None:
    write(db, [end(start(1, trace=9))])
    write(db, [end(start(2, trace=9, session_id="first"))])
    write(db, [end(start(3, trace=9, session_id="second"))])
    trace = await get_trace(db, 1, trace_id(9))
    assert trace is not None
    assert trace.session_id == "first"
    first = await get_session(db, 1, "first")
    assert first is not None
    assert (first.trace_count, first.span_count) == (1, 3)
    assert await get_session(db, 1, "second") is None


async def test_a_sessions_texts_come_from_its_oldest_and_newest_traces(db: SqliteDatabase) -> None:
    def call(n: int, **given: object) -> SpanEnd:
        return end(start(n, session_id="s", session_source=f"source {n}"), **given)

    write(db, [call(2, input_preview="second", output_preview="two", user_id="b")])
    write(db, [call(3, input_preview="third", state=FAILED, error="broke")])
    write(db, [call(1, input_preview="first", output_preview="one", user_id="a")])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.first_input, session.source) == ("first", "source 1")
    assert (session.last_output, session.last_error) == ("two", "broke")
    assert (session.user_id, session.status) == ("a", FAILED)
    assert session.last_active_at_us == T0 + 3_000_000


async def test_usage_reported_by_another_call_settles_the_call_that_made_the_response(
    db: SqliteDatabase,
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


async def test_a_response_is_settled_once_by_whoever_comes_first(db: SqliteDatabase) -> None:
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


async def test_usage_that_the_maker_reported_itself_is_not_replaced(db: SqliteDatabase) -> None:
    write(db, [end(start(1), response_id="resp_1")])
    write(db, [replace(unknown_usage(end(start(2))), settles=settlement("resp_1"))])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.cost_nusd, span.settled_by) == (100, None)


async def test_a_reported_usage_replaces_an_estimate_even_where_it_knows_less(
    db: SqliteDatabase,
) -> None:
    guess = end(start(1, session_id="s"), response_id="resp_1", usage_source="estimated")
    report = settlement("resp_1", tokens=Tokens(output=3), cost_nusd=None, cost_status="unpriced")
    write(db, [guess])
    write(db, [replace(unknown_usage(end(start(2))), settles=report)])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.tokens, session.cost_nusd) == (Tokens(output=3), None)
    assert (session.estimated_count, session.unpriced_count) == (0, 1)


async def test_another_projects_response_is_not_settled(db: SqliteDatabase) -> None:
    write(db, [unknown_usage(end(start(1, project_id=2), response_id="resp_1"))])
    write(db, [replace(unknown_usage(end(start(2))), settles=settlement("resp_1"))])
    assert rows(db, "SELECT DISTINCT cost_nusd FROM spans") == [(None,)]


async def test_calls_of_a_dead_process_end_when_they_were_last_seen(db: SqliteDatabase) -> None:
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
    db: SqliteDatabase,
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
        deleted = delete_session(tx, 1, "s")
        assert delete_session(tx, 1, "s") is None
    assert deleted == Deleted(traces=2, spans=2, contents=2, content_bytes=13)
    assert await get_session(db, 1, "s") is None
    assert await get_session(db, 2, "s") is not None
    assert [await state_of(db, n) for n in (1, 2, 3)] == [None, None, COMPLETED]
    assert rows(db, "SELECT project_id, data FROM contents ORDER BY 1") == [
        (1, b"shared"),
        (2, b"own words"),
    ]


async def test_deleting_the_last_trace_of_a_session_deletes_the_session(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, session_id="s")), end(start(2, session_id="s"), cost_nusd=None)])
    rows(db, "UPDATE sessions SET name = 'kept', starred = 1")
    with db.transaction() as tx:
        assert delete_trace(tx, 1, trace_id(1)) is not None
        assert delete_trace(tx, 2, trace_id(2)) is None
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.trace_count, session.cost_nusd) == (1, None)
    assert (session.name, session.starred) == ("kept", True)
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(2))
    assert await get_session(db, 1, "s") is None


async def test_a_call_in_flight_when_its_session_is_deleted_comes_back_whole_when_it_ends(
    db: SqliteDatabase,
) -> None:
    begun = start(2, trace=9, session_id="s")
    write(db, [end(start(1, trace=9, session_id="s")), begun])
    with db.transaction() as tx:
        delete_session(tx, 1, "s")
    assert write(db, [checkpoint(begun, b"part")]).late == 1
    assert stored(db) == 0
    assert await get_session(db, 1, "s") is None
    write(db, [end(begun, response=body(b"whole"))])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.trace_count, session.span_count, session.status) == (1, 1, COMPLETED)
    assert stored(db) == 1


async def test_deleted_words_are_in_no_file_after_the_space_is_given_back(
    db: SqliteDatabase,
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
        delete_session(tx, 1, "s")
    db.reclaim()
    for file in db.path.parent.iterdir():
        assert canary not in file.read_bytes(), file.name


async def test_giving_space_back_makes_the_file_smaller(db: SqliteDatabase) -> None:
    write(db, [end(start(1), request=body(os.urandom(1_000_000)))])
    db.reclaim()
    before = db.path.stat().st_size
    with db.transaction() as tx:
        delete_trace(tx, 1, trace_id(1))
    db.reclaim()
    assert db.path.stat().st_size < before - 900_000


HOSTILE_TEXT = st.text(st.characters(codec=None), max_size=20)
HOSTILE_INT = st.sampled_from(
    [None, -1, 0, MAX_COUNT, MAX_COUNT + 1, 2**63, -(2**70), float("nan"), 1.5, True]
)


@given(HOSTILE_TEXT)
def test_clean_text_is_storable_and_changes_nothing_else(text: str) -> None:
    clean = clean_text(text)
    clean.encode()
    assert "\0" not in clean
    if clean != text:
        assert "\ufffd" in clean or any("\ud800" <= c <= "\udfff" for c in text)


def test_a_surrogate_pair_becomes_its_character() -> None:
    assert clean_text("a\ud83d\ude00\ud800\0b") == "a\U0001f600\ufffd\ufffdb"


# The test deletes what it wrote, so each example begins with an empty database.
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HOSTILE_TEXT, number=HOSTILE_INT)
def test_hostile_values_never_lose_a_row(tx: Transaction, text: str, number: int | None) -> None:
    def hostile(record: type, *but: str) -> dict[str, Any]:
        values: dict[Any, object] = {str: text, str | None: text, int: number, int | None: number}
        return {
            f.name: values[f.type]
            for f in fields(record)
            if f.type in values and f.name not in ("project_id", *but)
        }

    begun = SpanStart(project_id=1, trace_id=trace_id(1), span_id=span_id(1), **hostile(SpanStart))
    ended = SpanEnd(
        start=begun,
        state=COMPLETED,
        **hostile(SpanEnd, "state"),
        tokens=Tokens(**hostile(Tokens)),
        request=replace(body(b"q"), **hostile(Body)),
        notes=(text, text),
        settles=settlement(text, cost_nusd=number),
    )
    written = apply(tx, prepare([begun, checkpoint(begun, b"", elapsed_us=number), ended]))
    assert len(written.spans) == 1
    assert delete_trace(tx, 1, trace_id(1)) is not None


@pytest.fixture
def tx(db: SqliteDatabase) -> Iterator[Transaction]:
    with db.transaction() as opened:
        yield opened


async def test_the_largest_counts_that_pass_add_up(db: SqliteDatabase) -> None:
    large = Tokens(input=MAX_COUNT, output=MAX_COUNT + 1)
    write(db, [end(start(n, session_id="s"), tokens=large, duration_us=MAX_COUNT) for n in (1, 2)])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.tokens.input, session.tokens.output) == (2 * MAX_COUNT, None)


async def test_times_at_both_ends_of_the_calendar_add_up(db: SqliteDatabase) -> None:
    for n in range(100):
        first = start(2 * n, trace=1000 + n, session_id="s", started_at_us=0)
        last = replace(first, span_id=span_id(2 * n + 1), started_at_us=253_000_000_000_000_000)
        write(db, [end(first), end(last)])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert session.ended_trace_count == 100


async def test_text_that_had_to_be_cleaned_is_flagged(db: SqliteDatabase) -> None:
    write(db, [end(start(1, session_id="a\0b"), output_preview="x\ud800", notes=("n",))])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.output_preview, span.notes) == ("x\ufffd", ("n", "text_cleaned"))
    assert await get_session(db, 1, "a\0b") is not None
