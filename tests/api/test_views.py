"""The shapes of sessions, traces and totals: every field in its unit, nulls, confidence."""

from dataclasses import asdict, fields

import pytest

from proxy.api import views
from storage.records import Session, Trace
from storage.spending import SessionBudget
from storage.totals import Stats
from tests.api.records import session, trace


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
        "sent_bytes": 900,
        "stored_bytes": 300,
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
        "session_confidence": "named",
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
        "sent_bytes": 90,
        "stored_bytes": 30,
        "input": "hi",
        "output": None,
        "error": "no",
        "tags": (),
        "linked_trace_id": None,
    }


def test_a_trace_shows_its_tags_and_the_trace_that_its_call_named() -> None:
    shown = views.trace_view(trace(tags=("beta", "eu"), linked_trace_id=b"\x0b" * 16))
    assert (shown.tags, shown.linked_trace_id) == (("beta", "eu"), "0b" * 16)


def test_a_running_trace_has_no_end_and_no_duration() -> None:
    shown = views.trace_view(trace(ended_at_us=None, status="running"))
    assert (shown.ended_at, shown.duration_ms) == (None, None)


@pytest.mark.parametrize(
    ("source", "confidence"),
    [
        ("helicone", "adopted"),
        ("previous_response", "adopted"),
        ("continuation", "inferred"),
        ("ambiguous", None),
        ("from a later version", None),
        (None, None),
    ],
)
def test_a_trace_says_how_surely_its_session_is_known(
    source: str | None, confidence: str | None
) -> None:
    assert views.trace_view(trace(session_source=source)).session_confidence == confidence


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
        received_bytes=7,
        stored_bytes=5,
    )
    shown = views.stats_view(stats)
    assert (shown.input_tokens, shown.total_tokens, shown.cost) == (None, 4, None)
    assert (shown.sent_bytes, shown.stored_bytes) == (7, 5)


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
        "received_bytes": "sent_bytes",
    }
    assert {renamed.get(f.name, f.name) for f in fields(Trace)} - hidden <= shown
    inside = {"ended_trace_count", "ended_duration_us", "tokens", "session_id", *hidden}
    session_fields = {f.name for f in fields(views.SessionView)}
    times = {
        "first_started_at_us": "started_at",
        "last_ended_at_us": "ended_at",
        "last_active_at_us": "last_active_at",
        "cost_nusd": "cost",
        "received_bytes": "sent_bytes",
    }
    assert {times.get(f.name, f.name) for f in fields(Session)} - inside <= session_fields


def test_a_budget_is_shown_in_usd_and_none_is_null() -> None:
    budget = SessionBudget(limit_nusd=1_500_000_000, spent_nusd=1, reserved_nusd=0)
    assert views.budget_view(budget) == views.BudgetView(
        limit_usd=1.5, spent_usd=1e-9, reserved_usd=0.0
    )
    assert views.budget_view(None) is None
