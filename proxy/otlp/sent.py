"""Our calls as spans of OpenTelemetry, by GenAI's names out of the one table (names.py). Pure.

Invariants: a call that came with a `traceparent` stands below it; a session is told only where it
was named to us; no text of a call is sent, neither its messages nor its headers.
"""

import importlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from proxy import __version__
from proxy.otlp.names import SENT
from proxy.session import CONFIDENCE
from storage.records import COMPLETED, Span

_CLIENT: Final = 3  # SPAN_KIND_CLIENT
_ERROR: Final = 2  # STATUS_CODE_ERROR
# Operations of ours by GenAI's names; others go by their own.
_OPERATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "chat.completions": "chat",
        "responses": "chat",
        "completions": "text_completion",
        "embeddings": "embeddings",
    }
)
# What we call a provider, by GenAI's names where they differ.
_PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "azure": "azure.ai.openai",
        "aws": "aws.bedrock",
        "google": "gcp.gemini",
        "mistral": "mistral_ai",
        "x-ai": "x_ai",
    }
)


class Call(NamedTuple):
    """A call that ended, as it is sent: in a project, perhaps in a session and below a span."""

    project: str
    span: Span
    session_id: str | None
    session_source: str | None
    external_trace_id: bytes | None
    external_parent_id: bytes | None


def export(calls: Iterable[Call]) -> bytes:
    """Write an ExportTraceServiceRequest in protobuf: a resource for each project."""
    service = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    request = service.ExportTraceServiceRequest()
    by_project: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_project[call.project].append(call)
    for project, of_project in by_project.items():
        of_resource = request.resource_spans.add()
        about = {"service.name": "traceway", "service.version": __version__}
        _tell(of_resource.resource, {**about, "traceway.project": project})
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name, of_scope.scope.version = "traceway", __version__
        for call in of_project:
            _write(of_scope.spans.add(), call)
    return bytes(request.SerializeToString())


def refused(answer: bytes) -> int:
    """Give how many spans a collector refused, by its ExportTraceServiceResponse."""
    service = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    errors = importlib.import_module("google.protobuf.message")
    try:
        response = service.ExportTraceServiceResponse.FromString(answer)
    except errors.DecodeError:
        return 0
    return max(int(response.partial_success.rejected_spans), 0)


def _write(message: Any, call: Call) -> None:
    span = call.span
    # A call that joined a trace here stands in it; else where its caller's traceparent says.
    is_below = span.parent_id is None and call.external_parent_id is not None
    message.trace_id = (call.external_trace_id if is_below else None) or span.trace_id
    message.span_id = span.span_id
    if parent_id := call.external_parent_id if is_below else span.parent_id:
        message.parent_span_id = parent_id
    operation = _OPERATIONS.get(span.operation or "", span.operation or "")
    message.name = " ".join(filter(None, (operation, span.model_requested or span.model)))
    message.kind = _CLIENT
    message.start_time_unix_nano = span.started_at_us * 1000
    message.end_time_unix_nano = (span.started_at_us + (span.duration_us or 0)) * 1000
    if span.state != COMPLETED:
        message.status.code = _ERROR
        message.status.message = span.error or span.state
    _tell(message, _attributes(call, operation))


def _attributes(call: Call, operation: str) -> dict[str, object]:
    span, tokens = call.span, call.span.tokens
    provider = span.provider or ""
    told: dict[str, object] = {
        "gen_ai.operation.name": operation,
        SENT["provider"]: _PROVIDERS.get(provider, provider),
        SENT["asked_model"]: span.model_requested,
        SENT["model"]: span.model,
        SENT["response_id"]: span.response_id,
        SENT["input_tokens"]: tokens.input,
        SENT["output_tokens"]: tokens.output,
        SENT["cached_input_tokens"]: tokens.cached_input,
        SENT["cache_write_tokens"]: tokens.cache_write,
        SENT["reasoning_tokens"]: tokens.reasoning,
        "http.response.status_code": span.http_status,
        "error.type": None if span.state == COMPLETED else span.state,
        "traceway.usage_source": span.usage_source,
    }
    if CONFIDENCE.get(call.session_source or "") == "named":
        told[SENT["session"]] = call.session_id
    if span.cost_nusd is not None:
        told["traceway.cost_usd"] = span.cost_nusd / 1e9
    return told


def _tell(holder: Any, told: Mapping[str, object]) -> None:
    """Add attributes, but for those that are unknown."""
    for name, value in told.items():
        if value is None or value == "":
            continue
        attribute = holder.attributes.add(key=name)
        if isinstance(value, int):
            attribute.value.int_value = value
        elif isinstance(value, float):
            attribute.value.double_value = value
        else:
            attribute.value.string_value = str(value)
