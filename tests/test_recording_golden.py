"""Every golden case, played through the real proxy: what the API then says of the call.

Injection is off, so that each answer reaches the recorder as its file has it; test_send.py and
test_inject.py have the rest.
"""

import pytest

from storage.records import TOKEN_BUCKETS
from tests.conftest import Serve
from tests.golden import Case, load
from tests.wire import ScriptedUpstream

CASES = load()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_call_is_recorded_as_its_documentation_says(
    serve: Serve, upstream: ScriptedUpstream, case: Case
) -> None:
    tw = await serve({"upstreams.openai.inject_usage": "never"})
    upstream.answers(
        case.answer,
        status=b"%d Said" % case.status,
        content_type=case.answer_type.encode(),
    )

    got = await tw.raw(
        b"/api/proxy/openai" + case.path.encode(),
        method=case.method.encode(),
        headers=b"Content-Type: %b\r\nX-Traceway-Session-Id: golden\r\n"
        % case.request_type.encode(),
        body=case.request,
    )
    span = await tw.span()

    assert (got.status, got.body) == (case.status, case.answer)
    (sent,) = upstream.requests
    assert (sent.body, sent.target) == (case.request, case.path.encode())
    kind = span["kind"]
    settled_elsewhere = case.settles_id is not None
    # A stream that did not say that it is complete was cut, where its kind says so.
    state = case.state or "truncated"
    assert (span["status"] if state == "completed" else next(iter(span["status"]))) == state
    assert kind["model"] == (case.model or case.asked_model)
    assert kind["model_requested"] == case.asked_model
    assert kind["service_tier"] == case.service_tier
    assert span["metadata"]["http_status"] == case.status
    assert span["metadata"]["operation"] == (case.operation or None)
    if case.reported and not settled_elsewhere:
        assert kind["usage_source"] == "provider"
        for bucket in TOKEN_BUCKETS:
            assert kind[f"{bucket}_tokens"] == getattr(case.tokens, bucket), bucket
        if case.cost_usd is None:
            assert (kind["cost"], kind["cost_status"]) == (None, "unpriced")
        else:
            assert kind["cost"] == pytest.approx(float(case.cost_usd), abs=1e-9)
    elif settled_elsewhere:
        assert (kind["input_tokens"], kind["cost"], kind["cost_status"]) == (None, 0, "free")
    else:
        assert kind["usage_source"] in ("estimated", "missing", None)
    session = await tw.api("/api/sessions/golden")
    assert (session["input_tokens"], session["output_tokens"], session["cost"]) == (
        kind["input_tokens"],
        kind["output_tokens"],
        kind["cost"],
    )
    assert session["span_count"] == 1


def test_there_are_at_least_forty_cases() -> None:
    assert len(CASES) >= 40
