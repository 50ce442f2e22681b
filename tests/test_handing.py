"""A chat is read as one, whoever wrote it; anything else is shown, found and never refused."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.conversation import Conversations
from proxy.handing import MAX_TEXT_CHARS, HandedReader, provider_of
from proxy.prefixes import Owner
from proxy.pricing import Prices
from proxy.providers.openai import operation_of
from storage.chain import Conversation
from storage.handed import Said
from storage.records import Tokens

READER = HandedReader(Prices())
AT_US = 1_764_147_600_000_000
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is my order?"},
    {"role": "assistant", "content": "Which?"},
    {"role": "user", "content": [{"type": "text", "text": "The last."}]},
]
ANSWER = {"role": "assistant", "content": "It left."}
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "messages", "choices", "message", "type", "output"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def written(value: object) -> bytes:
    return orjson.dumps(value)


def conversation(asked: object, answered: object = None) -> Conversation | None:
    answer = None if answered is None else written(answered)
    return READER.conversation(Said(kind="llm_call", input=written(asked), output=answer))


# Cost.


def test_the_applications_own_figure_wins() -> None:
    said = Said(kind="llm_call", model="gpt-4o-mini", tokens=Tokens(input=1), cost_nusd=5)
    assert READER.cost(said, started_at_us=AT_US) == (5, "priced", "reported")
    free = Said(kind="tool_call", cost_nusd=0)
    assert READER.cost(free, started_at_us=AT_US) == (0, "free", "reported")


def test_else_it_is_ours_by_the_tokens() -> None:
    tokens = Tokens(input=1_000, output=100, cached_input=400)
    said = Said(kind="llm_call", provider="openai", model="gpt-4o-mini", tokens=tokens)
    nusd, status, version = READER.cost(said, started_at_us=AT_US)
    # 0.15, 0.075 and 0.60 USD per million.
    assert (nusd, status) == (600 * 150 + 400 * 75 + 100 * 600, "priced")
    assert str(version).startswith("genai-prices ")


def test_an_embedding_has_no_output_to_pay_for() -> None:
    said = Said(
        kind="embedding",
        provider="openai",
        model="text-embedding-3-small",
        tokens=Tokens(input=1_000_000),
    )
    assert READER.cost(said, started_at_us=AT_US)[:2] == (20_000_000, "priced")


def test_what_nobody_knows_is_unpriced_and_never_free() -> None:
    some = Tokens(input=1, output=1)
    for said in (
        Said(kind="llm_call"),
        Said(kind="llm_call", model="gpt-4o-mini", provider="openai"),
        Said(kind="llm_call", model="nobody's", tokens=some),
        Said(kind="llm_call", model="gpt-4o-mini", provider="nobody", tokens=some),
    ):
        assert READER.cost(said, started_at_us=AT_US)[:2] == (None, "unpriced")


def test_a_time_that_no_calendar_has_raises_nothing() -> None:
    said = Said(kind="llm_call", model="gpt-4o", tokens=Tokens(input=1, output=1))
    for at_us in (0, 7_258_118_399_999_999, -(10**18), 2**62):
        READER.cost(said, started_at_us=at_us)


def test_only_model_calls_and_embeddings_are_billed() -> None:
    said = Said(kind="retrieval", model="gpt-4o-mini", tokens=Tokens(input=1, output=1))
    assert READER.cost(said, started_at_us=AT_US) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "model", "provider"),
    [
        ("openai", None, "openai"),
        ("OpenAI", None, "openai"),
        ("openai.chat", None, "openai"),
        ("az.ai.openai", None, "azure"),
        ("azure.ai.inference", None, "azure"),
        ("azure-openai.responses", None, "azure"),
        ("aws.bedrock", None, "aws"),
        ("amazon-bedrock", None, "aws"),
        ("gcp.vertex_ai", None, "google"),
        ("gcp.gemini", None, "google"),
        ("google.generative-ai", None, "google"),
        ("google.vertex.chat", None, "google"),
        ("mistral_ai", None, "mistral"),
        ("x_ai", None, "x-ai"),
        ("anthropic.messages", None, "anthropic"),
        ("my gateway", "gpt-4o", "my gateway"),
        (None, "gpt-4o-mini-2024-07-18", "openai"),
        (None, "claude-sonnet-4-5", "anthropic"),
        (None, "gemini-2.5-pro", "google"),
        (None, "llama-3", ""),
        (None, None, ""),
        ("", "o3-mini", "openai"),
    ],
)
def test_providers_are_known_by_the_names_that_tools_have_for_them(
    name: str | None, model: str | None, provider: str
) -> None:
    assert provider_of(name, model) == provider


# Conversations.


@pytest.mark.parametrize("spaced", [True, False])
def test_a_chat_is_the_conversation_that_a_proxied_call_of_it_would_be(spaced: bool) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    body = json.dumps({"model": "gpt-4o", "messages": CHAT}, separators=separators).encode()
    operation = operation_of("POST", "/v1/chat/completions")
    proxied = Conversations().question(Owner(1, None, "", operation), body, ())
    assert proxied is not None
    for value in (CHAT, {"messages": CHAT, "model": "gpt-4o"}):
        data = json.dumps(value, separators=separators).encode()
        found = READER.conversation(Said(kind="llm_call", input=data))
        assert found is not None
        assert found.messages == proxied.messages
        assert (found.points, found.prelude) == (proxied.head.points, proxied.head.prelude)
        assert (found.known, found.input_meaning) == (None, proxied.head.meaning)
        assert found.output_meaning is None
        said = b"".join(one.lead + one.data for one in found.messages)
        assert said in data


@pytest.mark.parametrize(
    "output",
    [
        "It left.",
        ANSWER,
        [ANSWER],
        {"content": "It left."},
        {"choices": [{"index": 0, "message": ANSWER}], "usage": {}},
        {"choices": [{"text": "It left."}]},
        {"messages": [ANSWER]},
        {"output": [{"type": "message", "role": "assistant", "content": "It left."}]},
    ],
)
def test_an_answer_has_the_meaning_with_which_the_next_call_brings_it_again(output: object) -> None:
    first = conversation(CHAT, output)
    second = conversation([*CHAT, ANSWER, {"role": "user", "content": "And?"}])
    assert first is not None
    assert second is not None
    assert [one.role for one in first.answer] == ["assistant"]
    assert first.output_meaning in {point.meaning for point in second.points}


def test_a_string_is_what_the_user_said() -> None:
    alone, listed = conversation("hi"), conversation([{"role": "user", "content": "hi"}])
    assert alone is not None
    assert listed is not None
    assert alone.input_meaning == listed.input_meaning


@pytest.mark.parametrize(
    "asked",
    [
        [],
        {},
        1,
        {"messages": []},
        {"messages": "hi"},
        [1, 2, 3],
        ["hi"],
        [CHAT[0], 5],
        [{"type": "text", "text": "a part of a content"}],
        [{"query": "x"}],
        {"query": "x"},
    ],
)
def test_what_is_no_chat_is_no_conversation(asked: object) -> None:
    assert conversation(asked, ANSWER) is None


def test_only_model_calls_are_conversations_and_none_without_an_input() -> None:
    assert READER.conversation(Said(kind="tool_call", input=written(CHAT))) is None
    assert READER.conversation(Said(kind="llm_call", output=written(ANSWER))) is None


def test_an_output_that_is_no_message_leaves_the_question() -> None:
    found = conversation(CHAT, {"score": 1})
    assert found is not None
    assert (found.answer, found.output_meaning) == ((), None)


# Previews and text.


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("  two\n lines ", "two lines"),
        (CHAT, "The last."),
        ({"messages": CHAT[:3]}, "Where is my order?"),
        (ANSWER, "It left."),
        ({"choices": [{"message": ANSWER}]}, "It left."),
        ({"query": "café", "n": 2.5}, '{"query":"café","n":2.5}'),
        ([0.25, 1], "[0.25,1]"),
        (12, "12"),
        (True, "true"),
        ("", None),
        ("a\0b", "a\ufffdb"),
    ],
)
def test_a_preview_is_what_a_person_would_look_at(value: object, shown: str | None) -> None:
    for data in (written(value), json.dumps(value, separators=(",", ":")).encode()):
        assert READER.preview(data) == shown


def test_a_preview_has_240_characters_at_most() -> None:
    for value in ("x" * 10_000, ["x" * 500], {"a": ["é" * 100_000]}):
        assert len(READER.preview(written(value)) or "") == 240


def test_text_is_all_strings_of_a_value_and_of_a_chat_its_words() -> None:
    assert READER.text(written({"a": ["x", {"b": "y"}], "c": 1, "d": "z"})) == "x\ny\nz"
    assert READER.text(written(CHAT)) == "Be brief.\nWhere is my order?\nWhich?\nThe last."
    assert READER.text(written("data:image/png;base64,AAAA")) != ""
    assert READER.text(written({"a": "data:image/png;base64,AAAA"})) == ""
    assert READER.text(b'{"a":1e999,"b":"x","c":123456789012345678901234567890}') == "x"
    assert READER.text(written(["x" * 50_000] * 3)).count("x") <= MAX_TEXT_CHARS


def test_a_message_has_the_meaning_of_a_calls() -> None:
    found = conversation([CHAT[1]])
    assert found is not None
    assert READER.meaning(found.messages[0].data) == found.messages[0].meaning


# Whatever it is.


@given(VALUES, VALUES)
def test_any_json_is_read_without_a_word_of_complaint(asked: object, answered: object) -> None:
    for data in (json.dumps(asked).encode(), b"\xff" + json.dumps(asked).encode(), b"", b"["):
        said = Said(kind="llm_call", input=data, output=json.dumps(answered).encode())
        READER.conversation(said)
        shown = READER.preview(data)
        text = READER.text(data)
        for one in (shown or "", text):
            one.encode()
            assert "\0" not in one


@pytest.mark.parametrize("data", [b"[" * 100_000, b"[" * 900 + b"]" * 900, b'{"a":' * 5_000])
def test_depth_is_no_danger(data: bytes) -> None:
    said = Said(kind="llm_call", input=data, output=data)
    assert READER.conversation(said) is None
    assert READER.text(data) == ""
    assert READER.preview(data) is not None
