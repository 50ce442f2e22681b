"""The API's shapes: units, nulls, and how an end is said."""

from dataclasses import asdict, fields
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import views
from storage.records import Body, Session, Span, Stats, Tokens, Trace
from tests.api.records import session, span, trace


def test_a_time_is_iso_8601_in_utc_with_microseconds() -> None:
    assert views.iso(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
    assert views.iso(0) == "1970-01-01T00:00:00.000000Z"


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_time_keeps_its_microseconds(time_us: int) -> None:
    seconds, rest_us = divmod(time_us, 1_000_000)
    found = datetime.fromisoformat(views.iso(time_us))
    assert (int(found.replace(microsecond=0).timestamp()), found.microsecond) == (seconds, rest_us)


@pytest.mark.parametrize(("nusd", "usd"), [(None, None), (0, 0.0), (1, 1e-9), (1_500_000_000, 1.5)])
def test_money_is_usd_and_unknown_money_is_null(nusd: int | None, usd: float | None) -> None:
    assert views.usd(nusd) == usd


def test_a_session_shows_each_documented_field_in_its_unit() -> None:
    assert asdict(views.session_view(session())) == {
        "id": "s",
        "name": "mine",
        "starred": True,
        "user_id": "u",
        "source": "header",
        "trace_count": 4,
        "span_count": 5,
        "input_tokens": 10,
        "output_tokens": None,
        "total_tokens": 10,
        "cached_input_tokens": 0,
        "reasoning_tokens": None,
        "cost": 0.0025,
        "unpriced_count": 2,
        "estimated_count": 3,
        "failed_trace_count": 1,
        "error_rate": 0.25,
        "started_at": "1970-01-01T00:00:01.000000Z",
        "ended_at": "1970-01-01T00:00:03.500000Z",
        "last_active_at": "1970-01-01T00:00:02.000000Z",
        "duration_ms": 2500.0,
        "avg_latency_ms": 0.75,
        "models": ("a", "b"),
        "first_input": "hi",
        "last_output": "bye",
        "last_error": "no",
        "status": "completed",
    }


def test_a_session_without_an_end_has_no_duration_and_no_latency() -> None:
    shown = views.session_view(session(last_ended_at_us=None, ended_trace_count=0))
    assert (shown.ended_at, shown.duration_ms, shown.avg_latency_ms) == (None, None, None)


def test_a_trace_shows_each_documented_field_in_its_unit() -> None:
    assert asdict(views.trace_view(trace())) == {
        "id": "00" * 15 + "0a",
        "session_id": "s",
        "session_source": "header",
        "name": "gpt-5",
        "user_id": None,
        "status": "failed",
        "started_at": "1970-01-01T00:00:01.000000Z",
        "ended_at": "1970-01-01T00:00:01.000500Z",
        "duration_ms": 0.5,
        "span_count": 1,
        "input_tokens": 1,
        "output_tokens": 2,
        "total_tokens": 3,
        "cost": None,
        "unpriced_count": 1,
        "estimated_count": 0,
        "input": "hi",
        "output": None,
        "error": "no",
    }


def test_a_running_trace_has_no_end_and_no_duration() -> None:
    shown = views.trace_view(trace(ended_at_us=None, status="running"))
    assert (shown.ended_at, shown.duration_ms) == (None, None)


@pytest.mark.parametrize("state", ["running", "completed"])
def test_a_span_that_went_well_says_its_state_in_a_word(state: str) -> None:
    assert views.span_view(span(state=state), None, None).status == state


@pytest.mark.parametrize("state", ["failed", "truncated", "cancelled", "interrupted"])
def test_a_span_that_did_not_complete_says_who_ended_it_and_when(state: str) -> None:
    shown = views.span_view(span(state=state), None, None)
    assert shown.status == {state: views.EndView(error="no", ended_by="upstream", phase="body")}


def test_a_span_is_of_the_model_that_answered_else_of_the_one_that_was_asked_for() -> None:
    assert views.span_view(span(), None, None).kind.model == "gpt-5"
    assert views.span_view(span(model="gpt-5-2026"), None, None).kind.model == "gpt-5-2026"


def test_a_span_shows_every_token_bucket_under_its_name() -> None:
    tokens = Tokens(**{field.name: number for number, field in enumerate(fields(Tokens), start=1)})
    kind = views.span_view(span(tokens=tokens), None, None).kind
    assert {f.name: getattr(kind, f"{f.name}_tokens") for f in fields(Tokens)} == asdict(tokens)


def test_a_body_is_shown_by_its_size_and_hash_whether_or_not_it_was_kept() -> None:
    dropped = Body(size=9, sha256=b"\x01" * 32, content_type="text/plain", truncated=True)
    shown = views.span_view(span(request=dropped), None, None).metadata
    assert shown.request == views.BodyView(
        size=9,
        sha256="01" * 32,
        content_type="text/plain",
        content_encoding=None,
        stored=False,
        truncated=True,
        redacted=False,
    )
    assert shown.response is None


def test_totals_add_what_is_known() -> None:
    stats = Stats(
        session_count=0,
        trace_count=0,
        span_count=0,
        running_span_count=0,
        input_tokens=None,
        output_tokens=4,
        cost_nusd=None,
        unpriced_count=0,
        estimated_count=0,
        received_bytes=0,
        stored_bytes=0,
    )
    shown = views.stats_view(stats)
    assert (shown.input_tokens, shown.total_tokens, shown.cost) == (None, 4, None)


def test_a_view_is_given_flat_in_the_order_of_its_fields() -> None:
    view = views.trace_view(trace())
    assert list(views.flat(view).items()) == list(asdict(view).items())


def test_no_field_of_a_record_is_forgotten() -> None:
    """Those that are not shown are named here, so that a new one is shown or decided about."""
    hidden = {"project_id", "seq"}
    shown = {f.name for f in fields(views.TraceView)}
    renamed = {
        "trace_id": "id",
        "started_at_us": "started_at",
        "ended_at_us": "ended_at",
        "cost_nusd": "cost",
        "input_preview": "input",
        "output_preview": "output",
        "tokens": "input_tokens",
    }
    assert {renamed.get(f.name, f.name) for f in fields(Trace)} - hidden <= shown
    inside = {"ended_trace_count", "ended_duration_us", "tokens", "session_id", *hidden}
    session_fields = {f.name for f in fields(views.SessionView)}
    times = {
        "first_started_at_us": "started_at",
        "last_ended_at_us": "ended_at",
        "last_active_at_us": "last_active_at",
        "cost_nusd": "cost",
    }
    assert {times.get(f.name, f.name) for f in fields(Session)} - inside <= session_fields
    assert {f.name for f in fields(Span)} >= {"request", "response"}
