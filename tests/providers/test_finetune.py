"""Lines for fine-tuning: what of a recorded message is said in one, and what never is."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.finetune import (
    Head,
    Message,
    NotExpressible,
    goes_on,
    is_cut_short,
    write_line,
)

USER = {"role": "user", "content": "hi"}
HELLO = {"role": "assistant", "content": "hello"}


def call(call_id: str, name: str = "look", arguments: str = '{"at": 1.0}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def messages(*values: object, answers: int = 1) -> list[Message]:
    """Write messages; of the last so many the model is the author, in turn 1."""
    first = len(values) - answers
    return [
        Message(json.dumps(v).encode(), 1 if n >= first else None) for n, v in enumerate(values)
    ]


def line(*values: object, answers: int = 1, **head: Any) -> dict[str, Any]:
    given = {name: json.dumps(value).encode() for name, value in head.items()}
    return orjson.loads(write_line(Head(**given), messages(*values, answers=answers), {1}))  # type: ignore[no-any-return]


def said(*values: object, answers: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = line(*values, answers=answers)["messages"]
    return found


def refused(*values: object, answers: int = 1) -> tuple[str, int]:
    with pytest.raises(NotExpressible) as caught:
        line(*values, answers=answers)
    return caught.value.reason, caught.value.index


def test_an_answer_is_trained_and_what_the_client_says_that_the_model_said_is_not() -> None:
    own = {"role": "assistant", "content": "made up"}
    assert said(USER, own, USER, HELLO) == [
        USER,
        {**own, "weight": 0},
        USER,
        {**HELLO, "weight": 1},
    ]
    line = write_line(Head(), messages(USER, HELLO), set())
    assert orjson.loads(line)["messages"][-1]["weight"] == 0


@pytest.mark.parametrize(
    "text", ["", " a\n\tb ", '"\\u0041"', "😀\u2028\u202e", "1.0", "</s><|im_end|>", "\x00\x7f"]
)
def test_texts_stay_exactly_as_they_are(text: str) -> None:
    answer = {"role": "assistant", "content": text, "tool_calls": [call("c", arguments=text)]}
    user, found = said({"role": "user", "content": text}, answer)
    assert user["content"] == found["content"] == text
    assert found["tool_calls"][0]["function"]["arguments"] == text


@given(st.text())
def test_any_text_passes_and_the_line_is_one(text: str) -> None:
    written = write_line(Head(), messages({"role": "user", "content": text}, HELLO), {1})
    assert b"\n" not in written
    assert json.loads(written)["messages"][0]["content"] == text


def test_half_a_character_passes_as_it_was_written() -> None:
    data = b'{"role":"user","content":"\\ud83d"}'
    written = write_line(Head(), [Message(data), *messages(HELLO)], {1})
    assert json.loads(written)["messages"][0]["content"] == "\ud83d"


def test_only_what_the_format_knows_is_said() -> None:
    answer = {
        **HELLO,
        "id": "m",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "reasoning_content": "hm",
        "logprobs": {},
    }
    assert said({**USER, "cache_control": {}, "name": "ada"}, answer) == [
        {**USER, "name": "ada"},
        {**HELLO, "weight": 1},
    ]


def test_developers_are_the_system_and_instructions_come_first() -> None:
    developer = {"role": "developer", "content": "brief"}
    given = Head(b'"be kind"', [json.dumps(developer).encode()])
    found = orjson.loads(write_line(given, messages(USER, HELLO), {1}))["messages"]
    assert found[:3] == [
        {"role": "system", "content": "be kind"},
        {"role": "system", "content": "brief"},
        USER,
    ]
    listed = line(USER, HELLO, instructions=[{"role": "developer", "content": "brief"}])
    assert listed["messages"][0] == {"role": "system", "content": "brief"}


def test_calls_have_their_results_right_behind_them() -> None:
    both = {"role": "assistant", "content": None, "tool_calls": [call("a"), call("b")]}
    results = [{"role": "tool", "tool_call_id": one, "content": one} for one in ("b", "a")]
    assert said(USER, both, *results, HELLO) == [
        USER,
        {**both, "weight": 0},
        *results,
        {**HELLO, "weight": 1},
    ]
    # The last thing that the model does may be a call.
    assert said(USER, both)[-1] == {**both, "weight": 1}


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ((USER, {**HELLO, "tool_calls": [call("a")]}, USER, HELLO), 2),
        ((USER, {**HELLO, "tool_calls": [call("a"), call("b")]},
          {"role": "tool", "tool_call_id": "a", "content": "x"}, HELLO), 2),
        ((USER, {"role": "tool", "tool_call_id": "a", "content": "x"}, HELLO), 1),
        ((USER, {**HELLO, "tool_calls": [call("a"), call("a")]}), 1),
        ((USER, {"type": "function_call_output", "call_id": "a", "output": "x"}, HELLO), 1),
    ],
)  # fmt: skip
def test_what_has_no_pair_ends_what_can_be_said(values: Any, index: int) -> None:
    assert refused(*values) == ("unpaired_tool_call", index)


def test_items_of_one_answer_are_one_message() -> None:
    def item(call_id: str) -> dict[str, Any]:
        return {"type": "function_call", "id": "fc", "call_id": call_id, "name": "look",
                "arguments": "{}", "status": "completed"}  # fmt: skip

    text = {"type": "message", "id": "m", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "I look", "annotations": []}]}  # fmt: skip
    thought = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "secret"}
    given: list[dict[str, Any]] = [thought, text, item("a"), thought, item("b")]
    asked, answer = said("look it up", *given, answers=5)
    assert asked == {"role": "user", "content": "look it up"}
    calls = [call(one, arguments="{}") for one in ("a", "b")]
    assert answer == {"role": "assistant", "content": "I look", "tool_calls": calls, "weight": 1}
    result = {"type": "function_call_output", "call_id": "b", "output": [
        {"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}]}  # fmt: skip
    first = {"type": "function_call_output", "call_id": "a", "output": "found"}
    found = said("look it up", *given, first, result, text)
    assert found[2] == {"role": "tool", "content": "found", "tool_call_id": "a"}
    assert found[3]["content"] == [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    assert [one.get("weight") for one in found] == [None, 0, None, None, 1]


def test_messages_of_the_chat_are_never_made_one() -> None:
    two = {"role": "assistant", "content": None, "tool_calls": [call("a")]}
    assert [one["role"] for one in said(USER, HELLO, two)] == ["user", "assistant", "assistant"]


def test_pictures_of_users_stand_where_they_are() -> None:
    url = "data:image/png;base64,iVBORw0KGgo="
    chat = {"type": "image_url", "image_url": {"url": url, "detail": "low", "id": 5}}
    item = {"type": "input_image", "image_url": "https://x.example/a.png", "detail": None}
    user = {"role": "user", "content": [{"type": "text", "text": "see"}, chat, item]}
    assert said(user, HELLO)[0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
    ]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "audio"),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "file"),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}, "file"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, "image"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "image"),
        ({"role": "user", "content": [{"type": "novel"}]}, "other"),
        ({"role": "tool", "tool_call_id": "a",
          "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]},
         "image"),
        ({"role": "assistant", "content": None, "refusal": "no"}, "refusal"),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, "refusal"),
        ({"role": "assistant", "content": None, "audio": {"id": "a"}}, "audio"),
        ({"role": "assistant", "content": None, "function_call": {"name": "f"}},
         "legacy_function"),
        ({"role": "function", "name": "f", "content": "x"}, "legacy_function"),
        ({"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {}}]},
         "custom_tool"),
        ({"type": "custom_tool_call", "call_id": "a", "input": "x"}, "custom_tool"),
        ({"type": "custom_tool_call_output", "call_id": "a", "output": "x"}, "custom_tool"),
        ({"type": "web_search_call", "id": "w"}, "built_in_tool"),
        ({"type": "code_interpreter_call", "id": "w", "code": "1"}, "built_in_tool"),
        ({"type": "mcp_list_tools", "id": "w"}, "built_in_tool"),
        ({"type": "image_generation_call", "result": "x"}, "built_in_tool"),
        ({"type": "computer_call_output", "output": {}}, "built_in_tool"),
        ({"type": "item_reference", "id": "i"}, "item_reference"),
        ({"type": "compaction", "encrypted_content": "x"}, "other"),
        ({"role": "narrator", "content": "x"}, "other"),
        ({"role": "assistant", "content": None}, "unreadable"),
        ({"role": "tool", "content": "x"}, "unreadable"),
        ({"type": "function_call", "call_id": "a", "name": "f", "arguments": {"x": 1}},
         "unreadable"),
        (5, "unreadable"),
        (None, "unreadable"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_with_its_reason_and_place(
    message: object, reason: str
) -> None:
    assert refused(USER, message, HELLO) == (reason, 1)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(NotExpressible, match="unreadable"):
        write_line(Head(), [Message(b"{"), *messages(HELLO)], {1})


def test_the_functions_of_the_request_are_the_lines_tools() -> None:
    function = {"name": "look", "description": "d", "parameters": {"type": "object"}}
    wanted = [{"type": "function", "function": function}]
    chat = [{"type": "function", "function": {**function, "strict": None}}]
    flat = [{"type": "function", **function, "strict": None}, {"type": "web_search"}]
    assert line(USER, HELLO, tools=chat)["tools"] == wanted
    assert line(USER, HELLO, tools=flat)["tools"] == wanted
    assert line(USER, HELLO, functions=[function])["tools"] == wanted
    assert "tools" not in line(USER, HELLO, tools=[{"type": "web_search"}])


@pytest.mark.parametrize(
    ("frame", "cut"),
    [
        (b'{"choices":[{"message":,"finish_reason":"stop"}]}', False),
        (b'{"choices":[{"message":,"finish_reason":"tool_calls"}]}', False),
        (b'{"choices":[{"message":,"finish_reason": "length"}]}', True),
        (b'{"choices":[{"message":,"finish_reason":"content_filter"}]}', True),
        (b'{"status":"incomplete","output":}', True),
        (b'{"status":"completed","x":"\\"status\\":\\"incomplete\\""}', False),
    ],
)
def test_an_answer_that_was_cut_short_is_known(frame: bytes, cut: bool) -> None:
    assert is_cut_short(frame) is cut


@pytest.mark.parametrize(
    ("request_body", "held"),
    [
        (b'{"input":"hi"}', False),
        (b'{"input":"hi","previous_response_id":null,"conversation":null}', False),
        (b'{"input":"hi","previous_response_id":"resp_1"}', True),
        (b'{"input":"hi","conversation":"conv_1"}', True),
        (b'{"prompt":{"id":"pmpt_1"}}', True),
        (b"\x1f\x8b", True),
    ],
)
def test_what_goes_on_with_what_is_not_said_is_known(request_body: bytes, held: bool) -> None:
    assert goes_on(request_body) is held
