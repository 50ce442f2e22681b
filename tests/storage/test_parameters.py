"""The door: whatever comes, the row is stored, and its values are clean."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.database import Database, Transaction
from storage.forget import delete_trace
from storage.parameters import MAX_COUNT, clean_text, prepare
from storage.queries import get_session, get_span
from storage.records import (
    COMPLETED,
    Body,
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
    text_of,
    trace_id,
    write,
)

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
    batch = prepare([begun, checkpoint(begun, b"", elapsed_us=number), ended])
    written = apply(tx, batch)
    assert len(written.spans) == 1
    assert delete_trace(tx, 1, trace_id(1), text_of) is not None


@pytest.fixture
def tx(db: Database) -> Iterator[Transaction]:
    with db.transaction() as opened:
        yield opened


async def test_the_largest_counts_that_pass_add_up(db: Database) -> None:
    large = Tokens(input=MAX_COUNT, output=MAX_COUNT + 1)
    write(db, [end(start(n, session_id="s"), tokens=large, duration_us=MAX_COUNT) for n in (1, 2)])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.tokens.input, session.tokens.output) == (2 * MAX_COUNT, None)


async def test_times_at_both_ends_of_the_calendar_add_up(db: Database) -> None:
    for n in range(100):
        first = start(2 * n, trace=1000 + n, session_id="s", started_at_us=0)
        last = replace(first, span_id=span_id(2 * n + 1), started_at_us=253_000_000_000_000_000)
        write(db, [end(first), end(last)])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert session.ended_trace_count == 100


async def test_text_that_had_to_be_cleaned_is_flagged(db: Database) -> None:
    write(db, [end(start(1, session_id="a\0b"), output_preview="x\ud800", notes=("n",))])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    assert (span.output_preview, span.notes) == ("x\ufffd", ("n", "text_cleaned"))
    assert await get_session(db, 1, "a\0b") is not None


async def test_what_indexes_have_whole_is_cut_and_found_again(db: Database) -> None:
    long = "é" * 3_000
    with db.transaction() as tx:
        first = start(1, session_id="s", user_id=long)
        apply(tx, prepare([end(first, model=long, response_id=long)]))
        apply(tx, prepare([end(start(2), previous_response_id=long)]))
    cut = rows(db, "SELECT user_id, model, response_id, notes FROM spans ORDER BY seq")
    assert cut[0] == (*("é" * 512,) * 3, "text_cleaned")
    session = await get_session(db, 1, "s")
    assert session is not None
    assert session.trace_count == 2
