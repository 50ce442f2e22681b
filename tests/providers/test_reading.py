"""What a person reads in a message, in whatever form it came."""

import base64
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.reading import (
    Part,
    Reading,
    ToolCall,
    answer_so_far,
    instruction_text,
    read,
    tool_names,
)

PICTURE = base64.b64encode(b"x" * 100).decode()


def reading(value: object) -> Reading:
    return read(orjson.dumps(value))


@pytest.mark.parametrize(
    ("message", "role"),
    [
        ("hi", "user"),
        ({"role": "system", "content": "hi"}, "system"),
        ({"role": "user", "content": [{"type": "text", "text": "hi"}]}, "user"),
        ({"role": "user", "content": {"type": "text", "text": "hi"}}, "user"),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            "user",
        ),
        ({"type": "message", "content": [{"type": "output_text", "text": "hi"}]}, "assistant"),
        ({"role": "assistant", "content": "hi", "refusal": None, "tool_calls": None}, "assistant"),
    ],
)
def test_plain_text_is_text_alone(message: object, role: str) -> None:
    assert reading(message) == Reading(role, "hi")


def test_parts_stand_in_their_order_where_one_is_no_text() -> None:
    found = reading(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "this"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
                {"type": "text", "text": "and that"},
            ],
        }
    )
    assert found.text == "this\nand that"
    assert found.parts == (
        Part("text", "this"),
        Part("image", mime="image/png", size=100),
        Part("text", "and that"),
    )


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
            Part("image", url="https://x.test/a.png"),
        ),
        ({"type": "input_image", "image_url": "http://x.test"}, Part("image", url="http://x.test")),
        ({"type": "input_image", "file_id": "file-1"}, Part("image", name="file-1")),
        (
            {"type": "input_image", "image_url": "https://x.test/" + "a" * 3000},
            Part("image"),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}},
            Part("audio", mime="audio/wav", size=100),
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": PICTURE}},
            Part("file", name="a.pdf", size=100),
        ),
        (
            {"type": "input_file", "file_url": "https://x.test/a", "filename": "a"},
            Part("file", name="a", url="https://x.test/a"),
        ),
        ({"type": "refusal", "refusal": "no"}, Part("refusal", "no")),
        ({"type": "thinking", "thinking": "hm"}, Part("reasoning", "hm")),
        ({"type": "hologram", "beam": 1}, Part("other", name="hologram")),
    ],
)
def test_each_kind_of_part_says_what_it_is(part: object, shown: Part) -> None:
    assert reading({"role": "user", "content": [part]}).parts == (shown,)


def test_no_bytes_of_a_picture_leave_a_message() -> None:
    places = [
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:," + PICTURE}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": PICTURE}}]},
        {"role": "assistant", "audio": {"id": "a", "data": PICTURE, "transcript": "hi"}},
        {"type": "image_generation_call", "id": "i", "result": PICTURE},
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {
                "type": "computer_screenshot",
                "image_url": "data:image/png;base64," + PICTURE,
            },
        },
    ]
    for place in places:
        found = reading(place)
        assert PICTURE not in repr(found)
        assert len(found.parts) == 1


def test_an_answer_in_sound_shows_its_transcript() -> None:
    found = reading({"role": "assistant", "audio": {"id": "a1", "transcript": "hello"}})
    assert found.parts == (Part("audio", "hello", name="a1"),)


def test_reasoning_and_refusal_are_parts() -> None:
    found = reading({"role": "assistant", "reasoning_content": "hm", "refusal": "no"})
    assert found == Reading("assistant", "", (Part("reasoning", "hm"), Part("refusal", "no")))
    item = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]}
    assert reading(item).parts == (Part("reasoning", "so"),)
    assert reading({"type": "reasoning", "encrypted_content": "x"}).parts == (Part("reasoning"),)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            {"tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": '{"a":1}'}}]},
            ToolCall("c1", "f", "function", '{"a":1}'),
        ),
        (
            {"tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
            ToolCall("c1", "f", "custom", "x"),
        ),
        (
            {"function_call": {"name": "f", "arguments": "{}"}},
            ToolCall("f", "f", "function", "{}"),
        ),
        (
            {"type": "function_call", "id": "i", "call_id": "c1", "name": "f", "arguments": "{}"},
            ToolCall("c1", "f", "function", "{}"),
        ),
        (
            {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": "x"},
            ToolCall("c1", "f", "custom", "x"),
        ),
        (
            {"type": "local_shell_call", "call_id": "c1", "action": {"command": ["ls"]}},
            ToolCall("c1", "local_shell", "local_shell_call", '{"command":["ls"]}'),
        ),
        (
            {"type": "web_search_call", "id": "w1", "action": {"query": "x"}},
            ToolCall("w1", "web_search", "web_search_call", '{"query":"x"}'),
        ),
    ],
)
def test_each_form_of_a_tool_call_is_read(message: object, call: ToolCall) -> None:
    assert reading(message).tool_calls == (call,)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "42"}]},
        {"role": "function", "name": "c1", "content": "42"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [{"type": "input_text", "text": "42"}],
        },
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "42"},
    ],
)
def test_each_form_of_a_result_names_its_call(message: object) -> None:
    found = reading(message)
    assert (found.result_of, found.text) == ("c1", "42")


def test_a_tool_that_the_provider_runs_has_its_result_beside_it() -> None:
    found = reading({"type": "mcp_call", "id": "m", "name": "f", "arguments": "{}", "output": "42"})
    assert (found.tool_calls, found.text) == ((ToolCall("m", "f", "mcp_call", "{}"),), "42")


@pytest.mark.parametrize(
    "text",
    [
        "This session is being continued from a previous conversation that ran out of context.",
        "<summary>\nThe user asked for",
        "Here is a summary of the conversation so far:",
        "The conversation so far has been summarized as follows",
        "Another language model started to solve this problem and produced a summary of it",
    ],
)
def test_what_stands_for_an_earlier_conversation_is_a_summary(text: str) -> None:
    assert reading({"role": "user", "content": text}).summary
    assert reading({"type": "compaction", "encrypted_content": "x"}).summary


@pytest.mark.parametrize(
    "text", ["Summarize this article: ...", "Write a summary of chapter 1", ""]
)
def test_to_ask_for_a_summary_is_none(text: str) -> None:
    assert not reading({"role": "user", "content": text}).summary


def test_tools_have_names_in_every_dialect() -> None:
    tools = [
        {"type": "function", "function": {"name": "a", "strict": True}},
        {"type": "function", "name": "b"},
        {"type": "custom", "custom": {"name": "c"}},
        {"type": "web_search"},
        {"type": "mcp", "server_label": "d"},
        {"name": "e"},
        7,
    ]
    assert list(tool_names(orjson.dumps(tools))) == ["a", "b", "c", "web_search", "mcp:d", "e", "?"]


def test_a_tool_is_the_same_whatever_the_order_of_its_keys() -> None:
    one, other = b'[{"name":"a","x":{"y":1,"z":2}}]', b'[ {"x": {"z":2,"y":1}, "name":"a"}]'
    assert tool_names(one) == tool_names(other)
    assert tool_names(one) != tool_names(b'[{"name":"a"}]')


def test_instructions_are_text_or_items() -> None:
    assert instruction_text(b'"be brief"') == "be brief"
    assert instruction_text(b'[{"role":"developer","content":"be brief"}]') == "be brief"
    assert instruction_text(b"null") == ""


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": "so far"},
        [{"role": "assistant", "content": "so far"}, {"role": "assistant", "content": "other"}],
        {"choices": [{"text": "so far"}]},
        {"choices": [{"message": {"role": "assistant", "content": "so far"}}]},
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": "so far"}]}]},
        "so far",
    ],
)
def test_an_answer_is_read_as_far_as_it_came(answer: object) -> None:
    assert answer_so_far(orjson.dumps(answer)) == Reading("assistant", "so far")


def test_an_output_of_many_items_is_one_reading() -> None:
    items = [
        {"type": "reasoning", "summary": [{"text": "hm"}]},
        {"type": "message", "content": "hi"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    found = answer_so_far(orjson.dumps({"output": items}))
    assert found.parts == (Part("reasoning", "hm"), Part("text", "hi"))
    assert [call.name for call in found.tool_calls] == ["f"]


def test_text_that_cannot_be_stored_is_mended() -> None:
    assert read(b'{"role":"user","content":"a\\ud83d\\u0000b"}').text == "a\ufffd\ufffdb"
    assert read(b'{"role":"user","content":"\xff"}').text == "\ufffd"


keys = st.sampled_from(
    [
        *(
            "role",
            "type",
            "content",
            "text",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "output",
        ),
        *("image_url", "url", "audio", "input_audio", "file", "summary", "call_id", "action"),
        *("refusal", "result", "reasoning", "choices", "custom", "function_call"),
    ]
)
kinds = st.sampled_from(
    [
        *("message", "text", "image_url", "input_audio", "file", "function_call", "reasoning"),
        *("web_search_call", "function_call_output", "image_generation_call", "compaction"),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | kinds,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)


@given(values)
def test_nothing_of_any_shape_is_too_much(value: object) -> None:

    data = json.dumps(value).encode()
    for found in (read(data), answer_so_far(data)):
        texts = [found.text, found.role, *(part.text or "" for part in found.parts)]
        assert all("\0" not in text and text.encode() is not None for text in texts)
    tool_names(data)
    instruction_text(data)


@given(st.binary(max_size=50))
def test_no_bytes_are_too_much(data: bytes) -> None:
    read(data)
    answer_so_far(data)
    tool_names(data)
    instruction_text(data)


@pytest.mark.parametrize("depth", [500, 900, 1000, 1020, 5000, 100_000])
def test_no_depth_is_too_much(depth: int) -> None:
    data = b'{"content":' + b"[" * depth + b"]" * depth + b"}"
    read(data)
    answer_so_far(data)
