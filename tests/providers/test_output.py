"""The text in messages, in items of a response and in whole answers."""

import pytest

from proxy.providers.output import answer_text, content_text, item_kind, message_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (["a", {"type": "text", "text": "b"}, {"refusal": "c"}, {"transcript": "d"}], "a\nb\nc\nd"),
        ([{"type": "text", "text": {"value": "a", "annotations": []}}], "a"),
        ([{"type": "image_url", "image_url": {"url": "data:"}}, None, 7, [["x"]]], ""),
        ([{"text": 7}, {"text": {"value": 7}}, {"text": ["x"]}], ""),
        ({"text": "a"}, ""),
        (None, ""),
        (7, ""),
    ],
)
def test_the_text_of_a_content_is_that_of_its_parts(value: object, text: str) -> None:
    assert content_text(value) == text


def test_a_message_is_its_content_then_its_calls_then_its_reasoning() -> None:
    message = {
        "reasoning_content": "Hm.",
        "tool_calls": [
            {"id": "1", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"id": "2", "custom": {"name": "g", "input": "x"}},
            {"id": "3", "function": {"name": "h", "arguments": {"a": ["y"]}}},
            {"id": "4"},
        ],
        "function_call": {"name": "old", "arguments": "{}"},
        "audio": {"data": "UklG", "transcript": "Said."},
        "refusal": "No.",
        "content": "Yes.",
    }
    text = 'Yes.\nNo.\nSaid.\nf({"a":1})\ng(x)\nh(y)\nold({})\nHm.'
    assert message_text(message) == text
    assert answer_text([{"message": message}], None, None) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"refusal": "No."}, "No."),
        ({"audio": {"transcript": "Said."}}, "Said."),
        ({"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}, "f()"),
        ({"function_call": {"name": "f", "arguments": ""}}, "f()"),
    ],
)
def test_each_thing_that_a_message_says_is_text_without_a_content_too(
    message: dict[str, object], text: str
) -> None:
    assert message_text({"role": "assistant", "content": None, **message}) == text


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_both_names_that_gateways_have_for_reasoning_are_read(key: str) -> None:
    assert message_text({key: "Hm."}) == "Hm."


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (
            {"type": "reasoning", "summary": [{"text": "Hm."}], "content": [{"text": "So."}]},
            "Hm.So.",
        ),
        ({"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}, "No."),
        ({"type": "function_call", "id": "fc_1", "name": "f", "arguments": "{}"}, "f({})"),
        ({"type": "custom_tool_call", "name": "g", "input": "x"}, "g(x)"),
        ({"type": "function_call_output", "call_id": "1", "output": "22"}, "22"),
        ({"type": "code_interpreter_call", "code": "1 + 1", "outputs": [{"logs": "2"}]}, "1 + 1.2"),
        ({"type": "mcp_call", "name": "m", "arguments": "{}", "output": "3"}, "m({}).3"),
        ({"type": "shell_call", "action": {"commands": ["ls", "pwd"]}, "status": "done"}, "ls.pwd"),
        ({"type": "image_generation_call", "result": "UklG", "revised_prompt": "A cat"}, "A cat"),
        (
            {"type": "other", "a": {"b": "1", "c": ["2", {"d": "3", "e": "4"}]}, "f": "5"},
            "1.2.3.4.5",
        ),
        ({"type": "program_output", "result": "4"}, "4"),
        ({"type": "computer_call_output", "output": {"image_url": "https://a"}}, ""),
        ({"type": "other", "screen": "data:image/png;base64,UklG", "found": "x"}, "x"),
        ({"type": "compaction", "encrypted_content": "gAAA"}, ""),
        ("Hi", "Hi"),
        (7, ""),
    ],
)
def test_an_item_is_its_call_and_then_all_other_text_in_it(item: object, text: str) -> None:
    assert message_text(item).replace("\n", ".").replace("..", ".") == text


def test_an_item_that_is_deeper_than_the_stack_is_read_to_its_end() -> None:
    nested: object = "deep"
    for _ in range(5_000):
        nested = [nested]
    assert message_text({"type": "other", "value": nested}) == "deep"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"role": "user", "content": "Hi"}, None),
        ({"type": "message", "content": []}, None),
        ({"type": "text", "role": "user", "content": "Hi"}, None),
        ({"type": "reasoning", "content": []}, "reasoning"),
        ({"type": "additional_tools", "role": "developer"}, "additional_tools"),
        ({"type": ["x"]}, None),
    ],
)
def test_an_item_that_is_no_message_has_a_kind(message: dict[str, object], kind: object) -> None:
    assert item_kind(message) == kind


def test_each_choice_and_each_item_begins_a_line() -> None:
    assert answer_text([{"text": "a"}, {"message": {"content": "b"}}, {}], None, None) == "a\nb"
    items = [{"type": "message", "content": [{"text": "a"}]}, {"role": "assistant", "content": "b"}]
    assert answer_text(None, items, None) == "a\nb"


@pytest.mark.parametrize(("text", "expected"), [("a\0", "a\ufffd"), (7, ""), (None, "")])
def test_a_transcript_is_its_text(text: object, expected: str) -> None:
    assert answer_text(None, None, text) == expected
