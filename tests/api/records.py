"""Records as storage gives them, for the tests of what is made of them."""

from dataclasses import replace
from typing import Any

from storage.records import Session, Span, Tokens, Trace


def session(**fields: Any) -> Session:
    given = Session(
        project_id=1,
        session_id="s",
        seq=1,
        source="header",
        name="mine",
        starred=True,
        user_id="u",
        status="completed",
        trace_count=4,
        span_count=5,
        failed_trace_count=1,
        ended_trace_count=2,
        ended_duration_us=1500,
        tokens=Tokens(input=10, cached_input=0),
        cost_nusd=2_500_000,
        unpriced_count=2,
        estimated_count=3,
        received_bytes=900,
        stored_bytes=300,
        first_started_at_us=1_000_000,
        last_ended_at_us=3_500_000,
        last_active_at_us=2_000_000,
        first_input="hi",
        last_output="bye",
        last_error="no",
        models=("a", "b"),
    )
    return replace(given, **fields)


def trace(**fields: Any) -> Trace:
    given = Trace(
        project_id=1,
        trace_id=(10).to_bytes(16, "big"),
        seq=1,
        session_id="s",
        session_source="header",
        user_id=None,
        name="gpt-5",
        status="failed",
        started_at_us=1_000_000,
        ended_at_us=1_000_500,
        span_count=1,
        tokens=Tokens(input=1, output=2),
        cost_nusd=None,
        unpriced_count=1,
        estimated_count=0,
        received_bytes=90,
        stored_bytes=30,
        input_preview="hi",
        output_preview=None,
        error="no",
    )
    return replace(given, **fields)


def span(**fields: Any) -> Span:
    unknown = dict.fromkeys(Span.__dataclass_fields__)
    given: dict[str, Any] = {
        **unknown,
        "project_id": 1,
        "trace_id": bytes(16),
        "span_id": bytes(8),
        "seq": 1,
        "kind": "llm_call",
        "name": "gpt-5",
        "state": "failed",
        "error": "no",
        "ended_by": "upstream",
        "phase": "body",
        "started_at_us": 1_000_000,
        "model_requested": "gpt-5",
        "tokens": Tokens(),
        "notes": (),
        "handed_in": False,
    }
    return Span(**{**given, **fields})
