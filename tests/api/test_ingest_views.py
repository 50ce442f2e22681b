"""What became of an item is said with ids and states, and with nothing that is stored."""

import pytest

from proxy.api import ingest_views
from proxy.api.ingest_views import (
    EndedSpanView,
    EndedTraceView,
    TakenSpanView,
    TakenTraceView,
    is_accepted,
    mistake_of,
    result_of,
    view_of,
)
from proxy.api.params import BadParameter
from storage.handed import Outcome, SpanClosed, SpanOpened, TraceClosed, TraceOpened

TRACE, SPAN = bytes(range(16)), bytes(range(8))
T, S = TRACE.hex(), SPAN.hex()
TRACE_OPENED = TraceOpened(project_id=1, trace_id=TRACE)
TRACE_CLOSED = TraceClosed(project_id=1, trace_id=TRACE)
SPAN_OPENED = SpanOpened(project_id=1, trace_id=TRACE, span_id=SPAN, name="secret")
SPAN_CLOSED = SpanClosed(project_id=1, span_id=SPAN, state="completed")


def test_each_thing_has_an_answer_of_its_own() -> None:
    made = Outcome("created", TRACE, SPAN, "running", "s")
    assert view_of(TRACE_OPENED, made) == TakenTraceView(
        id=T, session_id="s", status="running", created=True
    )
    assert view_of(SPAN_OPENED, made._replace(result="known")) == TakenSpanView(
        id=S, trace_id=T, status="running", created=False
    )
    ended = Outcome("ended", TRACE, SPAN, "completed")
    assert view_of(SPAN_CLOSED, ended) == EndedSpanView(id=S, trace_id=T, status="completed")
    assert view_of(TRACE_CLOSED, ended) == EndedTraceView(id=T, status="completed")
    waiting = Outcome("waiting", None, SPAN)
    assert view_of(SPAN_CLOSED, waiting) == EndedSpanView(id=S, trace_id=None, status="waiting")
    assert view_of(TRACE_CLOSED, Outcome("waiting", TRACE, None, "completed")) == EndedTraceView(
        id=T, status="waiting"
    )


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ("created", 201),
        ("known", 200),
        ("ended", 200),
        ("waiting", 202),
        ("already_ended", 409),
        ("conflict", 409),
    ],
)
def test_a_result_has_the_status_that_it_would_have_alone(result: str, status: int) -> None:
    outcome = Outcome(result, TRACE, SPAN)  # type: ignore[arg-type] # one of them
    told = result_of(SPAN_OPENED, outcome)
    assert (told["status"], told["id"], told["trace_id"]) == (status, S, T)
    assert ("error" in told) == (status == 409)
    assert is_accepted(outcome) == (result != "conflict")
    assert ingest_views.STATUSES[result] == status


def test_what_was_no_item_has_an_error_and_no_id() -> None:
    assert mistake_of(BadParameter("items[0].id: no", "items[0].id")) == {
        "status": 400,
        "error": {"code": "bad_parameter", "message": "items[0].id: no", "param": "items[0].id"},
    }
