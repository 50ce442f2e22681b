"""Our calls as spans of OpenTelemetry, read again by the real messages."""

from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from proxy.otlp.sent import Call, export, refused
from storage.records import Tokens
from tests.api.records import span as a_span

TRACE, SPAN, PARENT = b"T" * 16, b"s" * 8, b"p" * 8


def call(session: str | None = None, source: str | None = None, **told: Any) -> Call:
    span = a_span(
        **{
            "state": "completed",
            "error": None,
            "trace_id": TRACE,
            "span_id": SPAN,
            "provider": "openai",
            "operation": "chat.completions",
            "model_requested": "gpt-4o-mini",
            "model": "gpt-4o-mini-2024-07-18",
            "response_id": "chatcmpl-1",
            "tokens": Tokens(input=20, output=7, cached_input=0),
            "cost_nusd": 1_500,
            **told,
        }
    )
    return Call("default", span, session, source, None, None)


def sent(one: Call) -> tuple[Any, dict[str, Any]]:
    """Give a call as a span, and its attributes."""
    request = ExportTraceServiceRequest.FromString(export([one]))
    (span,) = request.resource_spans[0].scope_spans[0].spans
    told = {}
    for attribute in span.attributes:
        told[attribute.key] = getattr(attribute.value, attribute.value.WhichOneof("value"))
    return span, told


def test_a_call_has_the_names_of_genai() -> None:
    span, told = sent(call())
    assert (span.trace_id, span.span_id, span.parent_span_id) == (TRACE, SPAN, b"")
    assert (span.name, span.kind, span.status.code) == ("chat gpt-4o-mini", 3, 0)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.request.model"] == "gpt-4o-mini"
    assert told["gen_ai.response.model"] == "gpt-4o-mini-2024-07-18"
    assert told["gen_ai.response.id"] == "chatcmpl-1"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (20, 7)
    assert told["gen_ai.usage.cache_read.input_tokens"] == 0
    assert "gen_ai.usage.reasoning.output_tokens" not in told
    assert told["traceway.cost_usd"] == 0.0000015


def test_only_a_session_that_was_named_is_told() -> None:
    assert sent(call("s", "header"))[1]["gen_ai.conversation.id"] == "s"
    assert sent(call("s", "api"))[1]["gen_ai.conversation.id"] == "s"
    for source in ("helicone", "continuation", "session.id", None):
        assert "gen_ai.conversation.id" not in sent(call("s", source))[1]


def test_a_call_with_a_traceparent_stands_below_it_unless_it_joined_a_trace_here() -> None:
    below = call()._replace(external_trace_id=b"E" * 16, external_parent_id=PARENT)
    span, _ = sent(below)
    assert (span.trace_id, span.parent_span_id) == (b"E" * 16, PARENT)
    joined = call(parent_id=b"j" * 8)._replace(
        external_trace_id=b"E" * 16, external_parent_id=PARENT
    )
    span, _ = sent(joined)
    assert (span.trace_id, span.parent_span_id) == (TRACE, b"j" * 8)


def test_a_call_that_failed_says_how() -> None:
    span, told = sent(call(state="truncated", error="it stopped"))
    assert (span.status.code, span.status.message) == (2, "it stopped")
    assert told["error.type"] == "truncated"


def test_each_project_is_a_resource_of_its_own() -> None:
    request = ExportTraceServiceRequest.FromString(
        export([call(), call()._replace(project="shop"), call()])
    )
    counts = [len(one.scope_spans[0].spans) for one in request.resource_spans]
    assert counts == [2, 1]


def test_what_a_collector_refused_is_read() -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 3
    assert refused(answer.SerializeToString()) == 3
    assert refused(b"") == refused(b"<html>") == 0
