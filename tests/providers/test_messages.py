"""One meaning for one thing said, whoever wrote its JSON; another for anything else."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage
from openai.types.responses import Response

from proxy.providers.messages import (
    MessageFacts,
    answer_path,
    messages_key,
    read_message,
    text_of,
)
from proxy.providers.operations import operation_of

ARGUMENTS = '{ "city" : "P\\u0061ris", "days": 2.0, "x":null}'


def read(message: object) -> MessageFacts:
    return read_message(message if isinstance(message, bytes) else json.dumps(message).encode())


def meaning(message: object) -> bytes:
    return read(message).meaning


def function_call(call_id: object, name: str, arguments: object) -> dict[str, object]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


# An answer of a chat, as the provider gives it, and as clients were seen to send it again.

CHAT_ANSWER: dict[str, Any] = {
    "role": "assistant",
    "content": "Let me look. ",
    "refusal": None,
    "annotations": [],
    "tool_calls": [function_call("call_1", "weather", ARGUMENTS), function_call("c2", "now", "")],
}
PARSED = ChatCompletionMessage.model_validate(CHAT_ANSWER)
AI_SDK_CALLS = [
    function_call("call_1", "weather", '{"city":"Paris","days":2,"x":null}'),
    function_call("c2", "now", "{}"),
]
LANGCHAIN_CALLS = [
    function_call("call_1", "weather", '{"city": "Paris", "days": 2.0, "x": null}'),
    function_call("c2", "now", "{}"),
]
CHAT_FORMS = {
    "openai, model_dump": PARSED.model_dump(),
    "openai, model_dump without nulls": PARSED.model_dump(exclude_none=True),
    "openai, to_dict": PARSED.to_dict(),
    "by hand": {k: CHAT_ANSWER[k] for k in ("tool_calls", "content", "role")},
    "Vercel AI SDK": {
        "role": "assistant",
        "content": "Let me look. ",
        "tool_calls": AI_SDK_CALLS,
    },
    "LangChain": {"content": "Let me look. ", "role": "assistant", "tool_calls": LANGCHAIN_CALLS},
    "LangChain, content blocks": {
        "content": [{"type": "text", "text": "Let me look. "}],
        "role": "assistant",
        "tool_calls": LANGCHAIN_CALLS,
    },
    "a gateway, with what it adds": CHAT_ANSWER
    | {"name": "bot", "reasoning_content": "Hm.", "reasoning": "Hm.", "reasoning_details": [{}]},
}


@pytest.mark.parametrize("form", CHAT_FORMS.values(), ids=CHAT_FORMS)
def test_an_answer_of_a_chat_that_a_client_sends_again_has_its_meaning(form: object) -> None:
    assert meaning(form) == meaning(CHAT_ANSWER)


# The items of a response, and as clients were seen to send them again.

REASONING = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}
SEARCH = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "weather", "sources": []},
}
OUTPUT_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [
        {"type": "output_text", "text": "Let me look. ", "annotations": [], "logprobs": []}
    ],
}
CALL_ITEM = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "weather",
    "arguments": ARGUMENTS,
}
OUTPUT = [REASONING, SEARCH, OUTPUT_MESSAGE, CALL_ITEM]
RESPONSE = Response.model_validate(
    {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5",
        "output": OUTPUT,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
)
AI_SDK_MESSAGE = {
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Let me look. "}],
    "id": "msg_1",
}
AI_SDK_CALL = {
    "type": "function_call",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city":"Paris","days":2,"x":null}',
}
RESPONSE_FORMS = {
    "openai, model_dump": [item.model_dump() for item in RESPONSE.output],
    "openai, model_dump without nulls": [i.model_dump(exclude_none=True) for i in RESPONSE.output],
    "openai, to_dict": [item.to_dict() for item in RESPONSE.output],
    "by hand": [
        {"role": "assistant", "content": "Let me look."},
        {k: CALL_ITEM[k] for k in ("type", "call_id", "name", "arguments")},
    ],
    "Vercel AI SDK, nothing stored": [REASONING, SEARCH, AI_SDK_MESSAGE, AI_SDK_CALL],
    "LangChain": [
        REASONING,
        SEARCH,
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "Let me look. ", "annotations": []}],
            "role": "assistant",
            "id": "msg_1",
        },
        CALL_ITEM,
    ],
}


@pytest.mark.parametrize("form", RESPONSE_FORMS.values(), ids=RESPONSE_FORMS)
def test_an_output_that_a_client_sends_again_has_its_meanings(form: list[object]) -> None:
    counting = [meaning(item) for item in form if meaning(item)]
    assert counting == [meaning(OUTPUT_MESSAGE), meaning(CALL_ITEM)]


@pytest.mark.parametrize("item_id", ["rs_1", "ws_1", "msg_1"])
def test_a_reference_names_the_item_that_it_stands_for(item_id: str) -> None:
    facts = read({"type": "item_reference", "id": item_id})
    assert (facts.refers_to, facts.item_id) == (item_id, None)
    assert read({"id": item_id}).refers_to == item_id
    assert facts.meaning != meaning({"type": "item_reference", "id": "other"})
    assert [read(item).item_id for item in OUTPUT] == ["rs_1", "ws_1", "msg_1", "fc_1"]


def test_an_answer_with_sound_has_one_meaning_whole_and_by_its_id_alone() -> None:
    audio = {"id": "audio_1", "data": "UklG", "expires_at": 1, "transcript": "Said."}
    answer = {"role": "assistant", "content": None, "refusal": None, "audio": audio}
    again = {"role": "assistant", "audio": {"id": "audio_1"}}
    assert meaning(answer) == meaning(again) != meaning({"role": "assistant"})
    assert meaning(again) != meaning({"role": "assistant", "audio": {"id": "audio_2"}})


def test_a_picture_that_was_made_has_one_meaning_whole_and_by_its_id_alone() -> None:
    call = {"type": "image_generation_call", "id": "ig_1"}
    assert meaning(call) == meaning(call | {"status": "completed", "result": "iVBO"})
    assert meaning(call) != meaning(call | {"id": "ig_2"})


USER = {"role": "user", "content": "Hi"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SAME = [
    (USER, "Hi"),
    (USER, {"type": "message", "content": [{"type": "input_text", "text": "Hi"}], "role": "user"}),
    (USER, USER | {"name": "ann", "id": "msg_1", "cache_control": {"type": "ephemeral"}}),
    (USER, {"role": "user", "content": "\n Hi\t"}),
    (USER, {"role": "user", "content": ["H", {"text": "i"}, {"type": "text", "text": ""}]}),
    ({"role": "user"}, {"role": "user", "content": ""}),
    ({"role": "user", "content": None}, {"role": "user", "content": []}),
    (
        {"role": "user", "content": [IMAGE]},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": IMAGE["image_url"] | {"detail": "low"}},  # type: ignore[operator]  # JSON
                {"type": "thinking", "thinking": "Hm."},
            ],
        },
    ),
    (
        {"role": "assistant", "content": "Hm.", "refusal": "No."},
        {"role": "assistant", "content": ["Hm.", {"type": "refusal", "refusal": "No."}]},
    ),
    (
        {"role": "tool", "tool_call_id": "1", "content": "22"},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "22"}]},
    ),
    (
        {"role": "tool", "tool_call_id": "1", "content": "22"},
        {"type": "function_call_output", "call_id": "1", "output": "22", "id": "fco_1"},
    ),
    (
        {"role": "assistant", "tool_calls": [function_call("1", "f", '{"b":1,"a":[1e2]}')]},
        {"role": "assistant", "tool_calls": [function_call("1", "f", {"a": [100], "b": 1})]},
    ),
    (
        {"role": "assistant", "tool_calls": [function_call("1", "f", ' {"a": ')]},
        {"role": "assistant", "tool_calls": [function_call("1", "f", '{"a":')]},
    ),
    (
        {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}},
        {
            "id": "sh_1",
            "status": "completed",
            "caller": None,
            "call_id": "1",
            "action": {"commands": ["ls"], "timeout_ms": None},
            "type": "shell_call",
        },
    ),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_does_not_count_does_not_change_the_meaning(one: object, other: object) -> None:
    assert meaning(one) == meaning(other)


def calling(call: object) -> dict[str, object]:
    return {"role": "assistant", "tool_calls": [call]}


DIFFERENT = [
    (USER, {"role": "user", "content": "hi"}),
    (USER, {"role": "system", "content": "Hi"}),
    (USER, {"role": "user", "content": [{"type": "refusal", "refusal": "Hi"}]}),
    (USER, {"role": "user", "content": ["Hi", IMAGE]}),
    ({"role": "user", "content": "a b"}, {"role": "user", "content": "a  b"}),
    (
        {"role": "user", "content": ["a", IMAGE, "b"]},
        {"role": "user", "content": ["a", "b", IMAGE]},
    ),
    (
        {"role": "user", "content": [IMAGE]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b"}}]},
    ),
    (
        {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
        {"role": "user", "content": [{"type": "input_file", "file_id": "file-2"}]},
    ),
    (calling(function_call("1", "f", "{}")), calling(function_call("2", "f", "{}"))),
    (calling(function_call("1", "f", "{}")), calling(function_call("1", "g", "{}"))),
    (calling(function_call("1", "f", "{}")), calling(function_call("1", "f", '{"a":1}'))),
    (calling(function_call("1", "f", "1e999")), calling(function_call("1", "f", "null"))),
    (
        calling(function_call("1", "f", '{"a":12345678901234567890123}')),
        calling(function_call("1", "f", '{"a":12345678901234567890124}')),
    ),
    (
        calling(function_call("1", "f", '{"a":1e999}')),
        calling(function_call("1", "f", '{"a":null}')),
    ),
    (
        calling(function_call("1", "f", '{"a":1')),
        calling(function_call("1", "f", '{"a":2')),
    ),
    (
        calling(function_call(None, "f", "{}")),
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
    ),
    (
        {"role": "tool", "tool_call_id": "1", "content": "22"},
        {"role": "tool", "tool_call_id": "2", "content": "22"},
    ),
    (
        {"role": "function", "name": "f", "content": "22"},
        {"role": "function", "name": "g", "content": "22"},
    ),
    (
        {"type": "custom_tool_call", "call_id": "1", "name": "f", "input": "a"},
        {"type": "custom_tool_call", "call_id": "1", "name": "f", "input": "b"},
    ),
    (
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"},
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAB"},
    ),
    ({"type": "item_reference", "id": "msg_1"}, {"type": "reasoning", "id": "msg_1"}),
    # What is no UTF-8, or no pair of surrogates, reads as U+FFFD and is not the same for that.
    (b'{"role":"user","content":"\xff"}', b'{"role":"user","content":"\xfe"}'),
    (b'{"role":"user","content":"\\ud800"}', b'{"role":"user","content":"\\ud801"}'),
    (b'{"role":"user","content":"\xff"}', '{"role":"user","content":"\ufffd"}'.encode()),
    (b"[NaN]", b"[Infinity]"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_says_something_else_has_another_meaning(one: object, other: object) -> None:
    assert meaning(one) != meaning(other)


@pytest.mark.parametrize(
    ("message", "role"),
    [
        ("Hi", "user"),
        ({"role": "developer", "content": "Hi"}, "developer"),
        ({"content": "Hi"}, "assistant"),
        ({"role": 7, "content": "Hi"}, "assistant"),
        ({"role": "r\0" * 50, "content": ""}, "r\ufffd" * 32),
        (CALL_ITEM, "assistant"),
        (REASONING, "assistant"),
        ({"type": "function_call_output", "call_id": "1", "output": ""}, "tool"),
        ({"type": "computer_call_output", "call_id": "1", "output": {}}, "tool"),
        ({"type": "mcp_approval_response", "approve": True}, "tool"),
        ({"type": "additional_tools", "role": "developer", "tools": []}, "developer"),
    ],
)
def test_each_message_has_a_role(message: object, role: str) -> None:
    assert read(message).role == role


def test_a_message_is_found_by_all_of_its_text_and_by_nothing_in_base64() -> None:
    message = {
        "role": "assistant",
        "content": ["one", IMAGE, {"type": "text", "text": "two\0"}],
        "refusal": "three",
        "audio": {"id": "audio_1", "data": "UklG", "transcript": "four"},
        "tool_calls": [function_call("1", "five", '{"a":"six"}')],
        "reasoning": "seven",
    }
    assert read(message).text == 'one\ntwo\ufffd\nthree\nfour\nfive({"a":"six"})\nseven'
    result = {"type": "function_call_output", "call_id": "1", "output": [{"text": "22"}, IMAGE]}
    assert text_of(json.dumps(result).encode()) == "22"


def test_the_text_of_what_cannot_be_read_exactly_is_found_all_the_same() -> None:
    assert read(b'{"role":"user","content":"caf\xe9 \\ud83d \\\\ud83d \\ud83d\\ude00"}').text == (
        "caf\ufffd \ufffd \\ud83d \U0001f600"
    )


def test_a_text_is_at_most_a_mebibyte_long_and_its_end_still_counts() -> None:
    long = {"role": "user", "content": "a" * (1024 * 1024 + 1)}
    longer = {"role": "user", "content": "a" * (1024 * 1024 + 2)}
    assert len(read(long).text) == 1024 * 1024
    assert meaning(long) != meaning(longer)


def test_a_role_counts_to_its_end() -> None:
    assert meaning({"role": "r" * 65}) != meaning({"role": "r" * 66})


@pytest.mark.parametrize("depth", [200, 300, 1000, 5000])
def test_the_text_does_not_depend_on_how_deep_the_stack_is(depth: int) -> None:
    nested = b"[" * depth + b'"deep"' + b"]" * depth
    data = b'{"type":"custom","value":%b}' % nested

    def below(frames: int) -> MessageFacts:
        return below(frames - 1) if frames else read_message(data)

    assert below(0) == below(sys.getrecursionlimit() // 2)
    assert below(0).meaning != read_message(data.replace(b"deep", b"Deep")).meaning


def test_the_conversation_of_each_operation_stands_where_its_provider_puts_it() -> None:
    found = {
        path: (messages_key(operation_of("POST", path)), answer_path(operation_of("POST", path)))
        for path in (
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/responses",
            "/v1/responses/compact",
            "/v1/responses/input_tokens",
            "/v1/embeddings",
            "/v1/threads/runs",
            "/v1/unknown",
        )
    }
    assert found == {
        "/v1/chat/completions": ("messages", ("choices", 0, "message")),
        "/v1/completions": ("prompt", ("choices", 0, "text")),
        "/v1/responses": ("input", ("output",)),
        "/v1/responses/compact": ("input", None),
        "/v1/responses/input_tokens": ("input", None),
        "/v1/embeddings": (None, None),
        "/v1/threads/runs": (None, None),
        "/v1/unknown": (None, None),
    }


# Properties.

# Few values, so that two messages often share all but one of them.
words = st.sampled_from(["", "a", "b", '"', "],[", '{"a":1}', "\u00e9", "\U0001f600", "a b"])
calls = st.tuples(words, words, st.dictionaries(words, st.integers(0, 2) | words, max_size=2))
said = st.tuples(
    st.sampled_from(["user", "assistant", "tool"]), words, words, st.lists(calls, max_size=2), words
)


def message_of(what: tuple[Any, ...]) -> dict[str, object]:
    role, content, refusal, tool_calls, result = what
    return {
        "role": role,
        "content": content,
        "refusal": refusal,
        "tool_calls": [function_call(i, name, json.dumps(args)) for i, name, args in tool_calls],
        "tool_call_id": result,
    }


@given(said, said)
def test_two_messages_have_one_meaning_only_if_they_say_the_same(
    one: tuple[Any, ...], other: tuple[Any, ...]
) -> None:
    assert (meaning(message_of(one)) == meaning(message_of(other))) is (one == other)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
KEYS = ["role", "content", "type", "text", "refusal", "tool_calls", "function", "arguments", "id"]
KEYS += ["audio", "function_call", "tool_call_id", "output", "input", "name", "custom", "call_id"]
KINDS = ["message", "text", "refusal", "function_call", "function_call_output", "item_reference"]
KINDS += ["image_generation_call", "reasoning", "thinking", "web_search_call", "{", '{"a":1.0}']
messages = st.recursive(
    json_values | st.sampled_from(KINDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=20,
)


def spelled(value: object, draw: Any) -> str:
    """Write JSON with other white space, escapes and order of keys."""

    def space() -> str:
        return str(draw(st.sampled_from(["", "", " ", "\n\t"])))

    if isinstance(value, str):
        escaped = draw(st.booleans())
        text = json.dumps(value, ensure_ascii=escaped)
        return text.replace("a", "\\u0061") if escaped and "\\" not in text else text
    if isinstance(value, list):
        return "[" + ",".join(space() + spelled(item, draw) + space() for item in value) + "]"
    if isinstance(value, dict):
        pairs = draw(st.permutations(list(value.items())))
        found = [f"{space()}{spelled(k, draw)}{space()}:{spelled(v, draw)}" for k, v in pairs]
        return "{" + ",".join(found) + "}"
    return json.dumps(value)


@given(messages, st.data())
def test_one_message_has_one_meaning_however_its_json_is_spelled(
    message: object, data: st.DataObject
) -> None:
    other = spelled(message, data.draw).encode("utf-8", "surrogatepass")
    assert meaning(other) == meaning(message)


@given(messages | st.binary(max_size=50))
def test_nothing_makes_it_raise_or_gives_what_cannot_be_stored(message: object) -> None:
    facts = read(message)
    assert len(facts.meaning) in (0, 16)
    for text in (facts.role, facts.text, facts.item_id or "", facts.refers_to or ""):
        assert "\0" not in text
        text.encode()
