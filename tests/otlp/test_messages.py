"""Messages of each convention as a chat's."""

import json

import pytest

from proxy.otlp import messages
from proxy.otlp.received import Event

CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
}


def test_parts_become_text_calls_results_and_pictures() -> None:
    found = messages.from_content(
        json.dumps(
            [
                {
                    "role": "assistant",
                    "parts": [
                        {"type": "reasoning", "content": "hm"},
                        {"type": "text", "content": ""},
                        {
                            "type": "tool_call",
                            "id": "call_1",
                            "name": "weather",
                            "arguments": {"city": "Oslo"},
                        },
                    ],
                },
                {
                    "role": "tool",
                    "parts": [
                        {"type": "tool_call_response", "id": "call_1", "response": "rain"},
                        {"type": "tool_call_response", "id": "call_2", "result": {"a": 1}},
                    ],
                },
                {
                    "role": "user",
                    "parts": [
                        {"type": "text", "content": "what"},
                        {"type": "uri", "modality": "image", "uri": "https://x/y.png"},
                        {
                            "type": "blob",
                            "modality": "image",
                            "mime_type": "image/gif",
                            "content": "AAE=",
                        },
                        {"type": "file", "file_id": "f"},
                    ],
                },
                {"role": "user", "parts": []},
            ]
        )
    )
    assert found == [
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [CALL],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_2", "content": '{"a":1}'},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/gif;base64,AAE="}},
                {"type": "file", "file_id": "f"},
            ],
        },
        {"role": "user", "content": ""},
    ]


def test_the_vercel_sdk_s_content_becomes_the_same() -> None:
    found = messages.from_content(
        json.dumps(
            [
                {"role": "system", "content": "Be brief"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "what"},
                        {"type": "image", "image": "https://x/y.png"},
                        {"type": "file", "mediaType": "image/png", "data": "AAE="},
                    ],
                },
                {
                    "role": "assistant",
                    "content": [
                        {
                            "type": "tool-call",
                            "toolCallId": "call_1",
                            "toolName": "weather",
                            "input": {"city": "Oslo"},
                        }
                    ],
                },
                {
                    "role": "tool",
                    "content": [
                        {
                            "type": "tool-result",
                            "toolCallId": "call_1",
                            "toolName": "weather",
                            "output": {"type": "text", "value": "rain"},
                        }
                    ],
                },
            ]
        )
    )
    assert found == [
        {"role": "system", "content": "Be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAE="}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]


def test_numbers_give_the_order_and_may_be_left_out() -> None:
    told = {
        "m.10.message.role": "assistant",
        "m.10.message.content": "last",
        "m.2.message.role": "tool",
        "m.2.message.content": "rain",
        "m.2.message.tool_call_id": "call_1",
        "m.1.message.role": "assistant",
        "m.1.message.tool_calls.0.tool_call.id": "call_1",
        "m.1.message.tool_calls.0.tool_call.function.name": "weather",
        "m.1.message.tool_calls.0.tool_call.function.arguments": '{"city":"Oslo"}',
        "other": "words",
    }
    assert messages.from_numbered(told, "m.") == [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "last"},
    ]


def test_openllmetry_s_calls_and_lists_of_parts_are_read() -> None:
    told = {
        "p.0.role": "user",
        "p.0.content": '[{"type":"text","text":"what"},{"type":"image_url","image_url":{}}]',
        "p.1.role": "assistant",
        "p.1.tool_calls.0.id": "call_1",
        "p.1.tool_calls.0.name": "weather",
        "p.1.tool_calls.0.arguments": '{"city":"Oslo"}',
        "p.2.content": '{"just":"json"}',
    }
    assert messages.from_numbered(told, "p.") == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "user", "content": '{"just":"json"}'},
    ]


@pytest.mark.parametrize(
    "told",
    [
        {"p.": 1},
        {"p.0": "no message"},
        {"p.a.b": 1},
        {"p.0.content": None},
        {"p.0.message": [1], "p.0.message.role": 2},
        {"p." + "x." * 5_000: 1},
        {"p.0.tool_calls.0": 5, "p.0.contents.0": None},
    ],
)
def test_numbers_that_make_no_sense_do_no_harm(told: dict[str, object]) -> None:
    for message in messages.from_numbered(told, "p."):
        assert isinstance(message["role"], str)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "words",
        "[",
        "[]",
        '[{"role":1}]',
        [None],
        {"parts": 1},
        [{"role": "u", "parts": 1}],
    ],
)
def test_what_is_no_list_of_messages_gives_none_or_empty_ones(value: object) -> None:
    assert all(message == {"role": "u", "content": ""} for message in messages.from_content(value))


def test_events_of_a_span_are_messages() -> None:
    asked, answered = messages.from_events(
        [
            Event("gen_ai.assistant.message", 0, {"tool_calls": json.dumps([CALL])}),
            Event("gen_ai.tool.message", 0, {"content": "rain", "id": "call_1"}),
            Event("gen_ai.user.message", 0, {"gen_ai.event.content": '{"content":"Hi"}'}),
            Event("something", 0, {"content": "else"}),
            Event("gen_ai.choice", 0, {"message": {"role": "assistant", "content": "Hello"}}),
        ]
    )
    assert asked == [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
        {"role": "user", "content": "Hi"},
    ]
    assert answered == [{"role": "assistant", "content": "Hello"}]


def test_several_answers_are_choices_or_one_after_the_other() -> None:
    one: messages.Message = {"role": "assistant", "content": "a"}
    two: messages.Message = {"role": "assistant", "content": "b"}
    assert messages.answer([one], are_choices=True) == one
    assert messages.answer([one, two], are_choices=False) == [one, two]
    assert messages.answer([one, two], are_choices=True) == {
        "choices": [{"index": 0, "message": one}, {"index": 1, "message": two}]
    }


def test_the_vercel_sdk_s_answer_has_text_reasoning_and_calls() -> None:
    told = {
        "ai.response.text": "Hello",
        "ai.response.reasoning": "hm",
        "ai.response.toolCalls": json.dumps(
            [{"toolCallId": "call_1", "toolName": "weather", "input": '{"city":"Oslo"}'}]
        ),
    }
    assert messages.vercel_answer(told) == [
        {
            "role": "assistant",
            "content": "Hello",
            "reasoning_content": "hm",
            "tool_calls": [CALL],
        }
    ]
    assert messages.vercel_answer({"ai.response.object": '{"a":1}'}) == [
        {"role": "assistant", "content": '{"a":1}'}
    ]
    assert messages.vercel_answer({}) == []


def test_tools_are_those_of_a_chat() -> None:
    schema = {"type": "object"}
    function = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    vercel = [json.dumps({"type": "function", "name": "weather", "inputSchema": schema})]
    genai = json.dumps([{"type": "function", "name": "weather", "parameters": schema}])
    inference = {"llm.tools.0.tool.json_schema": json.dumps(function)}
    assert messages.tools(vercel, {}) == [function]
    assert messages.tools(genai, {}) == [function]
    assert messages.tools("llm.tools.", inference) == [function]
    assert messages.tools(None, {}) == []


def test_only_a_list_of_messages_is_a_chat() -> None:
    assert messages.is_chat([{"role": "user", "content": "x"}])
    for value in ([], None, "x", [{}], [[{"role": "user"}]], [{"role": "user", "parts": []}]):
        assert not messages.is_chat(value)


def test_attributes_of_named_events_are_joined() -> None:
    events = [Event("a", 0, {"x": 1}), Event("b", 0, {"y": 2}), Event("a", 0, {"z": 3})]
    assert messages.merged(events, ("a",)) == {"x": 1, "z": 3}
