"""The one table of OpenTelemetry names: what an attribute is called, by whom, and what it means.

Owns every name by which a span says what it is of ours; docs/opentelemetry.md shows the same table.
Invariant: of the rows of a field the first wins that a span has. A name that ends in ``.*`` is the
beginning of numbered ones. No name is looked for anywhere else but in ``messages.py``, where the
parts of numbered messages have theirs. Pure.

Source, as installed and as sent in November 2026: opentelemetry-semantic-conventions 0.66b2 and
opentelemetry-util-genai 0.4b0, openinference-semantic-conventions 0.1.42, OpenLLMetry's
opentelemetry-semantic-conventions-ai 0.5.1, and ai 6.0.326 (Vercel AI SDK).
"""

from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from storage.handed import Kind

Convention = Literal[
    "GenAI", "GenAI, before", "OpenInference", "OpenLLMetry", "Vercel AI SDK", "Langfuse", "MLflow",
    "Pydantic AI", "OpenTelemetry",
]  # fmt: skip
Field = Literal[
    "session", "user", "trace_name", "tags", "model", "asked_model", "provider", "response_id",
    "input_messages", "output_messages", "instructions", "tools", "input", "output",
    "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens",
    "reasoning_tokens", "audio_input_tokens", "audio_output_tokens", "cost", "error", "unused",
]  # fmt: skip


class Row(NamedTuple):
    """One name. What we send to a collector has the first GenAI name of a field."""

    field: Field
    name: str
    convention: Convention


TABLE: Final = (
    # Sessions: in the order in which they are believed.
    Row("session", "gen_ai.conversation.id", "GenAI"),
    Row("session", "session.id", "OpenInference"),
    Row("session", "langfuse.session.id", "Langfuse"),
    Row("session", "mlflow.trace.session", "MLflow"),
    Row("session", "ai.telemetry.metadata.sessionId", "Vercel AI SDK"),
    Row("session", "traceloop.association.properties.session_id", "OpenLLMetry"),
    Row("user", "user.id", "OpenInference"),
    Row("user", "enduser.id", "OpenTelemetry"),
    Row("user", "langfuse.user.id", "Langfuse"),
    Row("user", "mlflow.trace.user", "MLflow"),
    Row("user", "ai.telemetry.metadata.userId", "Vercel AI SDK"),
    Row("user", "traceloop.association.properties.user_id", "OpenLLMetry"),
    Row("user", "gen_ai.user", "OpenLLMetry"),
    Row("user", "llm.user", "OpenLLMetry"),
    Row("trace_name", "langfuse.trace.name", "Langfuse"),
    Row("trace_name", "ai.telemetry.functionId", "Vercel AI SDK"),
    Row("tags", "tag.tags", "OpenInference"),
    Row("tags", "langfuse.trace.tags", "Langfuse"),
    # What was called. What answered has the price, so it wins over what was asked for.
    Row("model", "gen_ai.response.model", "GenAI"),
    Row("model", "ai.response.model", "Vercel AI SDK"),
    Row("model", "llm.response.model_name", "OpenInference"),
    Row("model", "llm.model_name", "OpenInference"),
    Row("model", "embedding.model_name", "OpenInference"),
    Row("model", "langfuse.observation.model.name", "Langfuse"),
    Row("asked_model", "gen_ai.request.model", "GenAI"),
    Row("asked_model", "ai.model.id", "Vercel AI SDK"),
    Row("asked_model", "llm.request.model_name", "OpenInference"),
    Row("asked_model", "llm.invocation_parameters", "OpenInference"),
    Row("asked_model", "embedding.invocation_parameters", "OpenInference"),
    Row("provider", "gen_ai.provider.name", "GenAI"),
    Row("provider", "ai.model.provider", "Vercel AI SDK"),
    Row("provider", "gen_ai.system", "GenAI, before"),
    Row("provider", "llm.provider", "OpenInference"),
    Row("provider", "llm.system", "OpenInference"),
    Row("response_id", "gen_ai.response.id", "GenAI"),
    Row("response_id", "ai.response.id", "Vercel AI SDK"),
    # What was said. Messages become those of a chat.
    Row("instructions", "gen_ai.system_instructions", "GenAI"),
    Row("input_messages", "gen_ai.input.messages", "GenAI"),
    Row("input_messages", "ai.prompt.messages", "Vercel AI SDK"),
    Row("input_messages", "llm.input_messages.*", "OpenInference"),
    Row("input_messages", "gen_ai.prompt.*", "OpenLLMetry"),
    Row("output_messages", "gen_ai.output.messages", "GenAI"),
    Row("output_messages", "llm.output_messages.*", "OpenInference"),
    Row("output_messages", "gen_ai.completion.*", "OpenLLMetry"),
    Row("tools", "gen_ai.tool.definitions", "GenAI"),
    Row("tools", "ai.prompt.tools", "Vercel AI SDK"),
    Row("tools", "llm.tools.*", "OpenInference"),
    Row("input", "gen_ai.tool.call.arguments", "GenAI"),
    Row("input", "gen_ai.retrieval.query.text", "GenAI"),
    Row("input", "gen_ai.prompt", "GenAI, before"),
    Row("input", "ai.prompt", "Vercel AI SDK"),
    Row("input", "ai.toolCall.args", "Vercel AI SDK"),
    Row("input", "ai.values", "Vercel AI SDK"),
    Row("input", "ai.value", "Vercel AI SDK"),
    Row("input", "ai.documents", "Vercel AI SDK"),
    Row("input", "input.value", "OpenInference"),
    Row("input", "traceloop.entity.input", "OpenLLMetry"),
    Row("input", "langfuse.observation.input", "Langfuse"),
    Row("input", "mlflow.spanInputs", "MLflow"),
    Row("output", "gen_ai.tool.call.result", "GenAI"),
    Row("output", "gen_ai.retrieval.documents", "GenAI"),
    Row("output", "gen_ai.completion", "GenAI, before"),
    Row("output", "ai.toolCall.result", "Vercel AI SDK"),
    Row("output", "ai.response.text", "Vercel AI SDK"),
    Row("output", "ai.response.object", "Vercel AI SDK"),
    Row("output", "ai.ranking", "Vercel AI SDK"),
    Row("output", "output.value", "OpenInference"),
    Row("output", "retrieval.documents.*", "OpenInference"),
    Row("output", "traceloop.entity.output", "OpenLLMetry"),
    Row("output", "langfuse.observation.output", "Langfuse"),
    Row("output", "mlflow.spanOutputs", "MLflow"),
    # Tokens: totals with everything in them.
    Row("input_tokens", "gen_ai.usage.input_tokens", "GenAI"),
    Row("input_tokens", "ai.usage.inputTokens", "Vercel AI SDK"),
    Row("input_tokens", "ai.usage.promptTokens", "Vercel AI SDK"),
    Row("input_tokens", "ai.usage.tokens", "Vercel AI SDK"),
    Row("input_tokens", "llm.token_count.prompt", "OpenInference"),
    Row("input_tokens", "gen_ai.usage.prompt_tokens", "GenAI, before"),
    Row("input_tokens", "llm.usage.prompt_tokens", "OpenLLMetry"),
    Row("output_tokens", "gen_ai.usage.output_tokens", "GenAI"),
    Row("output_tokens", "ai.usage.outputTokens", "Vercel AI SDK"),
    Row("output_tokens", "ai.usage.completionTokens", "Vercel AI SDK"),
    Row("output_tokens", "llm.token_count.completion", "OpenInference"),
    Row("output_tokens", "gen_ai.usage.completion_tokens", "GenAI, before"),
    Row("output_tokens", "llm.usage.completion_tokens", "OpenLLMetry"),
    # Parts of the totals.
    Row("cached_input_tokens", "gen_ai.usage.cache_read.input_tokens", "GenAI"),
    Row("cached_input_tokens", "ai.usage.inputTokenDetails.cacheReadTokens", "Vercel AI SDK"),
    Row("cached_input_tokens", "ai.usage.cachedInputTokens", "Vercel AI SDK"),
    Row("cached_input_tokens", "llm.token_count.prompt_details.cache_read", "OpenInference"),
    Row("cached_input_tokens", "llm.token_count.prompt_details.cache_input", "OpenInference"),
    Row("cached_input_tokens", "gen_ai.usage.cache_read_input_tokens", "OpenLLMetry"),
    Row("cached_input_tokens", "gen_ai.usage.details.cache_read_tokens", "Pydantic AI"),
    Row("cached_input_tokens", "gen_ai.usage.details.cached_tokens", "Pydantic AI"),
    Row("cache_write_tokens", "gen_ai.usage.cache_creation.input_tokens", "GenAI"),
    Row("cache_write_tokens", "ai.usage.inputTokenDetails.cacheWriteTokens", "Vercel AI SDK"),
    Row("cache_write_tokens", "llm.token_count.prompt_details.cache_write", "OpenInference"),
    Row("cache_write_tokens", "gen_ai.usage.cache_creation_input_tokens", "OpenLLMetry"),
    Row("cache_write_tokens", "gen_ai.usage.details.cache_write_tokens", "Pydantic AI"),
    Row("reasoning_tokens", "gen_ai.usage.reasoning.output_tokens", "GenAI"),
    Row("reasoning_tokens", "ai.usage.outputTokenDetails.reasoningTokens", "Vercel AI SDK"),
    Row("reasoning_tokens", "ai.usage.reasoningTokens", "Vercel AI SDK"),
    Row("reasoning_tokens", "llm.token_count.completion_details.reasoning", "OpenInference"),
    Row("reasoning_tokens", "gen_ai.usage.reasoning_tokens", "OpenLLMetry"),
    Row("reasoning_tokens", "llm.usage.reasoning_tokens", "OpenLLMetry"),
    Row("reasoning_tokens", "gen_ai.usage.details.reasoning_tokens", "Pydantic AI"),
    Row("audio_input_tokens", "llm.token_count.prompt_details.audio", "OpenInference"),
    Row("audio_output_tokens", "llm.token_count.completion_details.audio", "OpenInference"),
    # USD, where the application knows better than our prices.
    Row("cost", "llm.cost.total", "OpenInference"),
    Row("cost", "gen_ai.usage.cost", "OpenLLMetry"),
    Row("cost", "operation.cost", "Pydantic AI"),
    Row("error", "error.message", "OpenTelemetry"),
    Row("error", "error.type", "OpenTelemetry"),
    # Said elsewhere in the span, or no use without what we leave out: vectors of an embedding.
    Row("unused", "ai.response.toolCalls", "Vercel AI SDK"),
    Row("unused", "ai.response.reasoning", "Vercel AI SDK"),
    Row("unused", "ai.embedding", "Vercel AI SDK"),
    Row("unused", "ai.embeddings", "Vercel AI SDK"),
    Row("unused", "ai.usage.totalTokens", "Vercel AI SDK"),
    Row("unused", "ai.usage.inputTokenDetails.noCacheTokens", "Vercel AI SDK"),
    Row("unused", "ai.usage.outputTokenDetails.textTokens", "Vercel AI SDK"),
    Row("unused", "embedding.embeddings.*", "OpenInference"),
    Row("unused", "llm.token_count.total", "OpenInference"),
    Row("unused", "input.mime_type", "OpenInference"),
    Row("unused", "output.mime_type", "OpenInference"),
    Row("unused", "gen_ai.usage.total_tokens", "OpenLLMetry"),
    Row("unused", "llm.usage.total_tokens", "OpenLLMetry"),
)


class KindRow(NamedTuple):
    """What a value of an attribute makes of a span; ``label`` is what a custom span is called."""

    name: str
    value: str
    kind: Kind
    label: str | None = None


# The first attribute that a span has decides. Vercel's is the surest: its outer spans repeat the
# usage of those inside, which alone are calls.
KINDS: Final = (
    *(
        KindRow("ai.operationId", f"ai.{name}", "llm_call")
        for name in (
            *("generateText.doGenerate", "streamText.doStream"),
            *("generateObject.doGenerate", "streamObject.doStream"),
        )
    ),
    KindRow("ai.operationId", "ai.embed.doEmbed", "embedding"),
    KindRow("ai.operationId", "ai.embedMany.doEmbed", "embedding"),
    KindRow("ai.operationId", "ai.toolCall", "tool_call"),
    *(
        KindRow("ai.operationId", f"ai.{name}", "custom", f"ai.{name}")
        for name in (
            *("generateText", "streamText", "generateObject", "streamObject", "embed"),
            *("embedMany", "rerank", "rerank.doRerank"),
        )
    ),
    KindRow("openinference.span.kind", "LLM", "llm_call"),
    KindRow("openinference.span.kind", "EMBEDDING", "embedding"),
    KindRow("openinference.span.kind", "TOOL", "tool_call"),
    KindRow("openinference.span.kind", "RETRIEVER", "retrieval"),
    *(
        KindRow("openinference.span.kind", value, "custom", value.lower())
        for value in (
            *("CHAIN", "AGENT", "RERANKER", "GUARDRAIL", "EVALUATOR", "PROMPT", "DECISION"),
            "UNKNOWN",
        )
    ),
    KindRow("gen_ai.operation.name", "chat", "llm_call"),
    KindRow("gen_ai.operation.name", "generate_content", "llm_call"),
    KindRow("gen_ai.operation.name", "text_completion", "llm_call"),
    KindRow("gen_ai.operation.name", "embeddings", "embedding"),
    KindRow("gen_ai.operation.name", "execute_tool", "tool_call"),
    KindRow("gen_ai.operation.name", "retrieval", "retrieval"),
    KindRow("gen_ai.operation.name", "create_agent", "custom", "create_agent"),
    KindRow("gen_ai.operation.name", "invoke_agent", "custom", "agent"),
    KindRow("gen_ai.operation.name", "invoke_workflow", "custom", "workflow"),
    KindRow("traceloop.span.kind", "tool", "tool_call"),
    KindRow("traceloop.span.kind", "agent", "custom", "agent"),
    KindRow("traceloop.span.kind", "task", "custom", "task"),
    KindRow("traceloop.span.kind", "workflow", "custom", "workflow"),
    KindRow("llm.request.type", "chat", "llm_call"),
    KindRow("llm.request.type", "completion", "llm_call"),
    KindRow("llm.request.type", "embedding", "embedding"),
    KindRow("llm.request.type", "rerank", "custom", "reranker"),
    KindRow("langfuse.observation.type", "generation", "llm_call"),
    KindRow("langfuse.observation.type", "embedding", "embedding"),
    KindRow("langfuse.observation.type", "tool", "tool_call"),
    KindRow("langfuse.observation.type", "retriever", "retrieval"),
    KindRow("mlflow.spanType", "CHAT_MODEL", "llm_call"),
    KindRow("mlflow.spanType", "LLM", "llm_call"),
    KindRow("mlflow.spanType", "EMBEDDING", "embedding"),
    KindRow("mlflow.spanType", "TOOL", "tool_call"),
    KindRow("mlflow.spanType", "RETRIEVER", "retrieval"),
)

SESSION_SOURCES: Final = tuple(row.name for row in TABLE if row.field == "session")


def _by_field() -> Mapping[str, tuple[str, ...]]:
    names: dict[str, list[str]] = defaultdict(list)
    for row in TABLE:
        names[row.field].append(row.name)
    return MappingProxyType({field: tuple(of) for field, of in names.items()})


def _kinds() -> Mapping[str, Mapping[str, KindRow]]:
    found: dict[str, dict[str, KindRow]] = defaultdict(dict)
    for row in KINDS:
        found[row.name][row.value] = row
    return MappingProxyType(dict(found))


# Names of each field, and kinds by attribute and value, both in the order of their tables.
BY_FIELD: Final = _by_field()
BY_KIND: Final = _kinds()
# What we call a field to others.
SENT: Final[Mapping[str, str]] = MappingProxyType(
    {row.field: row.name for row in reversed(TABLE) if row.convention == "GenAI"}
)
# Fields of calls of a model, and of no other kind: an agent's usage is that of its calls.
_OF_CALLS: Final = frozenset(
    {
        *("model", "provider", "response_id", "cost", "input_tokens", "output_tokens"),
        *("cached_input_tokens", "cache_write_tokens", "reasoning_tokens"),
        *("audio_input_tokens", "audio_output_tokens"),
    }
)
# Kept by their own names, too: they are told of the trace, or beside what wins over them.
_KEPT: Final = frozenset({"asked_model", "error", "trace_name"})
_TOLD: Final = frozenset(
    row.name for row in TABLE if row.field not in _KEPT and row.field not in _OF_CALLS
)
_TOLD_OF_CALLS: Final = frozenset(row.name for row in TABLE if row.field in _OF_CALLS)
_NUMBERED: Final = tuple(row.name[:-1] for row in TABLE if row.name.endswith(".*"))


def is_told(name: str, *, billed: bool) -> bool:
    """Tell whether an attribute is told as a field of ours, so that it need not be kept as well."""
    if name in _TOLD or (billed and name in _TOLD_OF_CALLS):
        return True
    return name.startswith(_NUMBERED) and name.split(".", 3)[2].isdigit()  # two words, a number
