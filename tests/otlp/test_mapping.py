"""Spans of each convention, as what applications hand in."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.otlp import names
from proxy.otlp.mapping import MOST_SPANS, mapped
from proxy.otlp.received import Event
from storage.handed import SpanOpened, TraceClosed, TraceOpened
from storage.records import Tokens
from tests.otlp.spans import END_NS, ROOT, SPAN, START_NS, TRACE, opened, received, said

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini"}
PARTS = '[{"role":"user","parts":[{"type":"text","content":"Hi"}]}]'


def read(value: bytes | None) -> object:
    return None if value is None else json.loads(value)


def test_a_span_keeps_its_ids_times_and_name() -> None:
    found = opened(received(CHAT, name="chat gpt-4o-mini"))
    assert (found.trace_id, found.span_id, found.parent_id) == (TRACE, SPAN, ROOT)
    assert found.started_at_us == START_NS // 1000
    assert found.name == "chat gpt-4o-mini"
    assert found.end is not None
    assert (found.end.state, found.end.ended_at_us) == ("completed", END_NS // 1000)


def test_a_root_names_its_trace_and_ends_it() -> None:
    child = received(CHAT, start_ns=START_NS + 10)
    root = received(
        {"session.id": "s", "user.id": "u", "tag.tags": ["a", "b", "a"]},
        span_id=ROOT,
        parent_id=None,
        name="turn",
    )
    # Children come first: they end first.
    trace, first, second, end = mapped(1, [child, root]).items
    assert trace == TraceOpened(
        project_id=1,
        trace_id=TRACE,
        name="turn",
        session_id="s",
        session_source="session.id",
        user_id="u",
        tags=("a", "b"),
        started_at_us=START_NS // 1000,
    )
    assert isinstance(first, SpanOpened)
    assert isinstance(second, SpanOpened)
    assert (first.name, second.name) == ("turn", "a span")
    assert end == TraceClosed(project_id=1, trace_id=TRACE, ended_at_us=END_NS // 1000)


def test_the_vercel_sdk_s_function_names_the_trace() -> None:
    root = received(
        {"ai.telemetry.functionId": "chat-turn"}, parent_id=None, name="ai.generateText"
    )
    trace, span, _ = mapped(1, [root]).items
    assert isinstance(trace, TraceOpened)
    assert isinstance(span, SpanOpened)
    assert (trace.name, span.name) == ("chat-turn", "ai.generateText")


def test_a_span_without_an_end_is_open() -> None:
    (found,) = mapped(1, [received(CHAT, end_ns=0)]).items
    assert isinstance(found, SpanOpened)
    assert found.end is None


def test_an_end_before_the_start_is_the_start() -> None:
    found = opened(received(CHAT, end_ns=START_NS - 5_000_000))
    assert found.end is not None
    assert found.end.ended_at_us == START_NS // 1000


def test_faults_are_counted_and_told_and_the_others_taken() -> None:
    late = received(end_ns=7_258_118_400_000_000_000)
    found = mapped(1, ["no id", received(), late, "no id"])
    assert (len(found.items), found.refused) == (1, 3)
    assert found.message == "no id (spans: 2); a time must be before the year 2200 (spans: 1)"


@pytest.mark.parametrize(
    ("attributes", "kind", "label"),
    [
        ({"gen_ai.operation.name": "chat"}, "llm_call", None),
        ({"gen_ai.operation.name": "embeddings"}, "embedding", None),
        ({"gen_ai.operation.name": "execute_tool"}, "tool_call", None),
        ({"gen_ai.operation.name": "retrieval"}, "retrieval", None),
        ({"gen_ai.operation.name": "invoke_agent"}, "custom", "agent"),
        ({"openinference.span.kind": "LLM"}, "llm_call", None),
        ({"openinference.span.kind": "RETRIEVER"}, "retrieval", None),
        ({"openinference.span.kind": "CHAIN"}, "custom", "chain"),
        ({"traceloop.span.kind": "tool"}, "tool_call", None),
        ({"traceloop.span.kind": "workflow"}, "custom", "workflow"),
        ({"llm.request.type": "completion"}, "llm_call", None),
        ({"ai.operationId": "ai.streamText.doStream"}, "llm_call", None),
        ({"ai.operationId": "ai.toolCall"}, "tool_call", None),
        ({"ai.operationId": "ai.embed.doEmbed"}, "embedding", None),
        ({"mlflow.spanType": '"CHAT_MODEL"'}, "llm_call", None),
        ({"langfuse.observation.type": "generation"}, "llm_call", None),
        ({"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 0}, "llm_call", None),
        ({"http.request.method": "GET"}, "custom", None),
        ({"gen_ai.operation.name": "dance"}, "custom", None),
    ],
)
def test_each_convention_has_its_kinds(
    attributes: dict[str, object], kind: str, label: str | None
) -> None:
    found = said(attributes)
    assert (found.kind, found.label) == (kind, label)


def test_the_vercel_sdk_s_outer_spans_count_nothing() -> None:
    usage = {"ai.usage.inputTokens": 20, "ai.usage.outputTokens": 7, "ai.model.id": "gpt-4o-mini"}
    outer = said({"ai.operationId": "ai.generateText", **usage})
    inner = said({"ai.operationId": "ai.generateText.doGenerate", **usage})
    assert (outer.kind, outer.label, outer.tokens) == ("custom", "ai.generateText", Tokens())
    assert outer.model is None
    assert inner.tokens == Tokens(input=20, output=7)
    assert outer.attributes is not None
    assert json.loads(outer.attributes)["kind"]["ai.usage.inputTokens"] == 20


@pytest.mark.parametrize(
    ("attributes", "tokens"),
    [
        (
            {
                "gen_ai.usage.input_tokens": 20,
                "gen_ai.usage.output_tokens": 7,
                "gen_ai.usage.cache_read.input_tokens": 8,
                "gen_ai.usage.cache_creation.input_tokens": 4,
                "gen_ai.usage.reasoning.output_tokens": 3,
            },
            Tokens(input=20, output=7, cached_input=8, cache_write=4, reasoning=3),
        ),
        (
            {"gen_ai.usage.prompt_tokens": 20, "gen_ai.usage.completion_tokens": 7},
            Tokens(input=20, output=7),
        ),
        (
            {
                "llm.token_count.prompt": 20,
                "llm.token_count.completion": 7,
                "llm.token_count.prompt_details.cache_read": 8,
                "llm.token_count.completion_details.reasoning": 3,
                "llm.token_count.prompt_details.audio": 2,
            },
            Tokens(input=20, output=7, cached_input=8, reasoning=3, audio_input=2),
        ),
        (
            {
                "gen_ai.usage.prompt_tokens": 20,
                "gen_ai.usage.completion_tokens": 7,
                "llm.usage.total_tokens": 27,
                "gen_ai.usage.cache_read_input_tokens": 8,
                "llm.usage.reasoning_tokens": 3,
            },
            Tokens(input=20, output=7, cached_input=8, reasoning=3),
        ),
        # More was cached than there is input: it was counted apart.
        (
            {
                "gen_ai.usage.input_tokens": 20,
                "gen_ai.usage.cache_read.input_tokens": 100,
                "gen_ai.usage.cache_creation.input_tokens": 5,
            },
            Tokens(input=125, cached_input=100, cache_write=5),
        ),
        ({"gen_ai.usage.input_tokens": "20"}, Tokens(input=20)),
        ({"gen_ai.usage.input_tokens": 20.0}, Tokens(input=20)),
        ({"gen_ai.usage.input_tokens": -1, "gen_ai.usage.output_tokens": "many"}, Tokens()),
        ({"gen_ai.usage.input_tokens": True}, Tokens()),
    ],
)
def test_tokens_are_totals_with_their_parts_in_them(
    attributes: dict[str, object], tokens: Tokens
) -> None:
    assert said({**CHAT, **attributes}).tokens == tokens


def test_the_vercel_sdk_5_counted_anthropic_s_cache_apart() -> None:
    told = {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.model.provider": "anthropic.messages",
        "ai.usage.inputTokens": 20,
        "ai.usage.cachedInputTokens": 8,
        "ai.response.providerMetadata": '{"anthropic":{"cacheCreationInputTokens":4}}',
    }
    assert said(told).tokens == Tokens(input=32, cached_input=8, cache_write=4)
    with_details = {**told, "ai.usage.inputTokenDetails.noCacheTokens": 8}
    assert said(with_details).tokens == Tokens(input=20, cached_input=8)


def test_unknown_tokens_are_none_and_not_zero() -> None:
    assert said(CHAT).tokens == Tokens()


@pytest.mark.parametrize(
    ("attributes", "model"),
    [
        ({"gen_ai.response.model": "gpt-4o-mini-2024"}, "gpt-4o-mini-2024"),
        ({"gen_ai.response.model": ""}, "gpt-4o-mini"),
        ({}, "gpt-4o-mini"),
    ],
)
def test_the_model_is_the_one_that_answered(attributes: dict[str, object], model: str) -> None:
    assert said({**CHAT, **attributes}).model == model


def test_a_failed_call_s_model_is_in_its_parameters() -> None:
    told = {"openinference.span.kind": "LLM", "llm.invocation_parameters": '{"model":"gpt-4o"}'}
    assert said(told).model == "gpt-4o"


@pytest.mark.parametrize(
    ("attributes", "provider"),
    [
        ({"gen_ai.system": "openai"}, "openai"),
        ({"gen_ai.provider.name": "azure.ai.openai"}, "azure"),
        ({"gen_ai.system": "az.ai.openai"}, "azure"),
        ({"gen_ai.provider.name": "aws.bedrock"}, "aws"),
        ({"gen_ai.provider.name": "gcp.vertex_ai"}, "google"),
        ({"ai.model.provider": "openai.chat", "gen_ai.system": "openai.chat"}, "openai"),
        ({"llm.provider": "azure", "llm.system": "openai"}, "azure"),
        ({}, None),
    ],
)
def test_providers_have_the_names_that_prices_know(
    attributes: dict[str, object], provider: str | None
) -> None:
    assert said({**CHAT, **attributes}).provider == provider


def test_the_application_s_cost_is_taken_exactly() -> None:
    assert said({**CHAT, "llm.cost.total": 0.000123}).cost_nusd == 123_000
    assert said({**CHAT, "gen_ai.usage.cost": 1}).cost_nusd == 1_000_000_000
    assert said({**CHAT, "llm.cost.total": -1.0}).cost_nusd is None
    assert said(CHAT).cost_nusd is None


def test_a_response_is_known_by_its_id() -> None:
    assert said({**CHAT, "gen_ai.response.id": "chatcmpl-1"}).response_id == "chatcmpl-1"
    answer = '{"id":"chatcmpl-2","choices":[{"message":{"role":"assistant","content":"x"}}]}'
    told = {"openinference.span.kind": "LLM", "output.value": answer}
    assert said(told).response_id == "chatcmpl-2"
    assert said({**told, "output.value": '{"id":"a row of ours"}'}).response_id is None


ORDER = (
    "gen_ai.conversation.id",
    "session.id",
    "langfuse.session.id",
    "mlflow.trace.session",
    "ai.telemetry.metadata.sessionId",
    "traceloop.association.properties.session_id",
)


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_name_of_a_session_wins(first: int) -> None:
    found = opened(received({name: f"of {name}" for name in reversed(ORDER[first:])}))
    assert (found.session_id, found.session_source) == (f"of {ORDER[first]}", ORDER[first])


def test_the_span_s_session_comes_before_the_resource_s() -> None:
    resource = {"gen_ai.conversation.id": "of the resource"}
    found = opened(received({"session.id": "of the span"}, resource=resource))
    assert found.session_id == "of the span"
    found = opened(received(CHAT, resource=resource))
    assert (found.session_id, found.session_source) == (
        "of the resource",
        "gen_ai.conversation.id",
    )


@pytest.mark.parametrize("value", ["", "  ", "undefined", "null", "a\nb", 1.5, True, None, ["s"]])
def test_what_names_no_session_is_none(value: object) -> None:
    found = opened(received({"session.id": value, "langfuse.session.id": "next"}))
    assert found.session_id == "next"


def test_a_session_may_be_a_number_and_mlflow_s_is_json() -> None:
    assert opened(received({"session.id": 42})).session_id == "42"
    assert opened(received({"mlflow.trace.session": '"quoted"'})).session_id == "quoted"
    assert opened(received({"mlflow.trace.session": "plain"})).session_id == "plain"


def test_users_have_many_names() -> None:
    for name in ("user.id", "enduser.id", "langfuse.user.id", "ai.telemetry.metadata.userId"):
        assert opened(received({name: "u"})).user_id == "u"
    assert opened(received(CHAT, resource={"enduser.id": "r"})).user_id == "r"


def test_a_failure_says_why() -> None:
    exception = Event("exception", 0, {"exception.type": "E", "exception.message": "broke"})

    def error(**told: object) -> str | None:
        end = opened(received(failed=True, **told)).end  # type: ignore[arg-type]
        assert end is not None
        assert end.state == "failed"
        return end.error

    assert error(status_message="bad", events=(exception,)) == "bad"
    assert error(events=(exception,)) == "E: broke"
    assert error(attributes={"error.type": "Timeout"}) == "Timeout"
    assert error() is None


def test_messages_become_those_of_a_chat() -> None:
    found = said(
        {
            **CHAT,
            "gen_ai.system_instructions": '[{"type":"text","content":"Be brief"}]',
            "gen_ai.input.messages": PARTS,
            "gen_ai.output.messages": PARTS.replace("user", "assistant"),
            "gen_ai.tool.definitions": '[{"type":"function","name":"weather"}]',
        }
    )
    assert read(found.input) == {
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Hi"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    }
    assert read(found.output) == {"role": "assistant", "content": "Hi"}


def test_openinference_s_whole_request_and_answer_stay_as_they_were() -> None:
    request = '{"model": "m",  "messages": [{"role": "user", "content": "Hi"}]}'
    answer = '{"choices": [{"message": {"role": "assistant", "content": "x"}}]}'
    found = said({"openinference.span.kind": "LLM", "input.value": request, "output.value": answer})
    assert found.input == request.encode()
    assert found.output == answer.encode()


def test_openinference_s_numbered_messages_serve_where_the_request_is_no_chat() -> None:
    found = said(
        {
            "openinference.span.kind": "LLM",
            "input.value": '{"input": "Hi"}',
            "llm.input_messages.1.message.role": "user",
            "llm.input_messages.1.message.content": "Hi",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": "Hello",
        }
    )
    assert read(found.input) == {"messages": [{"role": "user", "content": "Hi"}]}
    assert read(found.output) == {"role": "assistant", "content": "Hello"}


def test_openllmetry_s_older_numbers_are_read() -> None:
    found = said(
        {
            "llm.request.type": "chat",
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": "Hi",
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": "Hello",
            "gen_ai.completion.0.finish_reason": "stop",
        }
    )
    assert read(found.input) == {"messages": [{"role": "user", "content": "Hi"}]}
    assert read(found.output) == {"role": "assistant", "content": "Hello"}
    assert found.attributes is not None
    assert b"Hello" not in found.attributes


def test_events_are_messages_where_attributes_are_none() -> None:
    events = (
        Event("gen_ai.system.message", 0, {"content": "Be brief"}),
        Event("gen_ai.user.message", 0, {"content": "Hi", "role": "user"}),
        Event("gen_ai.choice", 0, {"index": 0, "message": '{"content":"Hello"}'}),
    )
    found = said(CHAT, events=events)
    assert read(found.input) == {
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Hi"},
        ]
    }
    assert read(found.output) == {"role": "assistant", "content": "Hello"}


def test_the_older_events_hold_the_whole_prompt() -> None:
    events = (
        Event("gen_ai.content.prompt", 0, {"gen_ai.prompt": '[{"role":"user","content":"Hi"}]'}),
        Event("gen_ai.content.completion", 0, {"gen_ai.completion": "Hello"}),
    )
    found = said(CHAT, events=events)
    assert read(found.input) == {"messages": [{"role": "user", "content": "Hi"}]}
    assert read(found.output) == "Hello"


def test_the_event_with_details_says_more_of_its_span() -> None:
    details = Event(
        "gen_ai.client.inference.operation.details", 0, {"gen_ai.input.messages": PARTS}
    )
    assert read(said(CHAT, events=(details,)).input) == {
        "messages": [{"role": "user", "content": "Hi"}]
    }


@pytest.mark.parametrize(
    ("attributes", "asked", "answered"),
    [
        (
            {
                "ai.operationId": "ai.toolCall",
                "ai.toolCall.args": '{"city":"Oslo"}',
                "ai.toolCall.result": '"rain"',
            },
            {"city": "Oslo"},
            "rain",
        ),
        (
            {
                "openinference.span.kind": "TOOL",
                "input.value": "plain words",
                "output.value": "7",
            },
            "plain words",
            "7",
        ),
        (
            {
                "traceloop.span.kind": "task",
                "traceloop.entity.input": '{"args":[1]}',
                "traceloop.entity.output": '{"x":2}',
            },
            {"args": [1]},
            {"x": 2},
        ),
        (
            {
                "openinference.span.kind": "RETRIEVER",
                "input.value": "q",
                "retrieval.documents.0.document.content": "one",
                "retrieval.documents.1.document.content": "two",
            },
            "q",
            [{"document": {"content": "one"}}, {"document": {"content": "two"}}],
        ),
        (
            {"ai.operationId": "ai.embed.doEmbed", "ai.values": ['"words"', '"more"']},
            ["words", "more"],
            None,
        ),
        (
            {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.arguments": {"a": [1]}},
            {"a": [1]},
            None,
        ),
        (
            {"gen_ai.operation.name": "invoke_agent", "gen_ai.input.messages": PARTS},
            {"messages": [{"role": "user", "content": "Hi"}]},
            None,
        ),
    ],
)
def test_any_kind_has_an_input_and_an_output(
    attributes: dict[str, object], asked: object, answered: object
) -> None:
    found = said(attributes)
    assert (read(found.input), read(found.output)) == (asked, answered)


def test_keys_of_ours_are_cut_out_and_it_is_said() -> None:
    found = said({**CHAT, "gen_ai.prompt": "my key is tw_sk_abcdefgh", "x": "tw_sk_abcdefgh"})
    assert found.redacted
    assert b"tw_sk_" not in (found.input or b"") + (found.attributes or b"")
    assert not said(CHAT).redacted


def test_keys_of_ours_are_in_no_name_either() -> None:
    key = "x tw_sk_abc-1"
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": key,
        "gen_ai.provider.name": key,
        "gen_ai.response.id": key,
        "user.id": key,
        "session.id": key,
        "langfuse.trace.tags": [key],
    }
    items = mapped(1, [received(told, name=key, parent_id=None)]).items
    assert "tw_sk_" not in repr(items)
    assert repr(items).count("x [redacted]") >= 8


def test_what_all_spans_keep_of_their_resource_is_bounded() -> None:
    resource = {f"k{n}": "x" * 8_000 for n in range(7)}
    spans = [received(resource=resource, span_id=bytes([n, 1] * 4)) for n in range(40)]
    assert mapped(1, spans).refused == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proxy.otlp.mapping._MOST_KEPT_BYTES", 1_000_000)
        found = mapped(1, spans)
    assert (len(found.items), found.refused) == (18, 22)
    assert found.message.endswith("send smaller batches (spans: 22)")


def test_a_request_has_only_so_many_spans_and_the_rest_is_refused() -> None:
    spans = [received(span_id=n.to_bytes(8)) for n in range(1, MOST_SPANS + 11)]
    found = mapped(1, spans)
    assert (len(found.items), found.refused) == (MOST_SPANS, 10)
    assert found.message == (
        "the request has too many spans, or attributes in all: send smaller batches (spans: 10)"
    )


def test_nul_and_halves_of_characters_are_replaced() -> None:
    found = opened(
        received({**CHAT, "gen_ai.prompt": "a\0b", "x\0": "\0", "session.id": 1}, name="n\0")
    )
    assert found.name == "n\ufffd"
    assert read(found.said.input) == "a\ufffdb"
    assert b"\\u0000" not in (found.said.attributes or b"")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(['{"messages":[{"role":"user"}]}', '[{"role":"user","parts":[1]}]', "[[1]]"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
_NAMES = [
    row.name.replace(".*", end) for row in names.TABLE for end in (".0.role", ".1.content", ".x")
]
_KINDS = st.sampled_from([(row.name, row.value) for row in names.KINDS])
_EVENTS = st.sampled_from(
    ["gen_ai.user.message", "gen_ai.choice", "gen_ai.content.prompt", "exception", "other"]
)
_ATTRIBUTES = st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=9), _JSON, max_size=8)


@settings(max_examples=300)
@given(kind=_KINDS, told=_ATTRIBUTES, event=_EVENTS, of_event=_ATTRIBUTES)
def test_whatever_a_span_says_it_is_read(
    kind: tuple[str, str],
    told: dict[str, object],
    event: str,
    of_event: dict[str, object],
) -> None:
    attributes = {**told, kind[0]: kind[1]}
    span = received(
        attributes, resource=told, events=(Event(event, 1, of_event),), failed=True, parent_id=None
    )
    for item in mapped(1, [span]).items:
        if isinstance(item, SpanOpened):
            for value in (item.said.input, item.said.output, item.said.attributes):
                assert value is None or json.loads(value) is not Ellipsis
