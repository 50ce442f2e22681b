"""The text that a model wrote: the same out of a whole answer and out of the stream of it."""

import json
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers import output
from proxy.providers.openai import operation_of
from proxy.providers.output import answer_text, content_text, stream_text
from proxy.sse import Event

CHAT = operation_of("POST", "/v1/chat/completions")
RESPONSES = operation_of("POST", "/v1/responses")
RUNS = operation_of("POST", "/v1/threads/runs")


def event(data: object, name: str = "") -> Event:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Event(b"data: " + raw + b"\n\n", name, raw, 1)


def delta(**fields: object) -> Event:
    return event({"choices": [{"index": 0, "delta": fields}]})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (["a", {"type": "text", "text": "b"}, {"refusal": "c"}, {"transcript": "d"}], "abcd"),
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
        ],
        "function_call": {"name": "old", "arguments": "{}"},
        "audio": {"data": "UklG", "transcript": "Said."},
        "refusal": "No.",
        "content": "Yes.",
    }
    text = 'Yes.\nNo.\nSaid.\nf({"a":1})\ng(x)\nold({})\nHm.'
    assert answer_text([{"message": message}], None, None) == text


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_both_names_that_gateways_have_for_reasoning_are_read(key: str) -> None:
    assert answer_text([{"message": {key: "Hm."}}], None, None) == "Hm."
    assert stream_text(CHAT, [delta(**{key: "Hm."})]) == "Hm."


def test_each_choice_and_each_item_begins_a_line() -> None:
    assert answer_text([{"text": "a"}, {"message": {"content": "b"}}, {}], None, None) == "a\nb"
    items = [
        {"type": "reasoning", "summary": [{"text": "Hm."}], "content": [{"text": "So."}]},
        {"type": "message", "content": [{"type": "refusal", "refusal": "No."}, {"text": "Yes."}]},
        {"type": "function_call", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "name": "g", "input": "x"},
        {"type": "code_interpreter_call", "code": "1 + 1"},
        {"type": "image_generation_call", "result": "UklG"},
    ]
    assert answer_text(None, items, None) == "Hm.So.\nYes.\nNo.\nf({})\ng(x)\n1 + 1"


@pytest.mark.parametrize(("text", "expected"), [("a\0", "a\ufffd"), (7, ""), (None, "")])
def test_a_transcript_is_its_text(text: object, expected: str) -> None:
    assert answer_text(None, None, text) == expected


def test_the_text_of_a_response_without_deltas_is_that_of_its_end() -> None:
    parts = [{"type": "output_text", "text": "Hi"}]
    end = {
        "type": "response.completed",
        "response": {"output": [{"type": "message", "content": parts}]},
    }
    assert stream_text(RESPONSES, [event(end)]) == "Hi"


def test_the_text_of_a_stream_that_was_cut_is_what_came() -> None:
    opening = event({"type": "response.created", "response": {"output": []}})
    first = event({"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"})
    assert stream_text(RESPONSES, [opening, first]) == "Hel"
    assert stream_text(CHAT, [delta(content="Hel")]) == "Hel"
    assert stream_text(CHAT, []) == ""


def test_a_transcript_has_its_deltas_and_else_its_end() -> None:
    transcripts = operation_of("POST", "/v1/audio/transcriptions")
    pieces = [event({"type": "transcript.text.delta", "delta": piece}) for piece in ("He", "llo")]
    end = event({"type": "transcript.text.done", "text": "Hello"})
    assert stream_text(transcripts, [*pieces, end]) == "Hello"
    assert stream_text(transcripts, [end]) == "Hello"


def test_the_messages_of_a_run_are_told_apart_by_their_ids() -> None:
    def piece(message_id: str, text: str) -> Event:
        content = [{"index": 0, "type": "text", "text": {"value": text}}]
        return event({"id": message_id, "delta": {"content": content}}, "thread.message.delta")

    events = [piece("msg_1", "He"), piece("msg_2", "Bye"), piece("msg_1", "llo")]
    assert stream_text(RUNS, events) == "Hello\nBye"


def test_a_pair_of_surrogates_that_two_chunks_share_is_replaced_and_not_lost() -> None:
    halves = [
        event(rb'{"choices":[{"delta":{"content":"a\ud83d"}}]}'),
        event(rb'{"choices":[{"delta":{"content":"\ude00b"}}]}'),
    ]
    assert stream_text(CHAT, halves) == "a\U0001f600b"


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/images/edits"])
def test_sound_and_pictures_are_no_text(path: str) -> None:
    events = [event({"type": "speech.audio.delta", "audio": "UklG"}), delta(content="x")]
    assert stream_text(operation_of("POST", path), events) == ""


def test_what_is_no_object_is_passed_over() -> None:
    events = [event(raw) for raw in (b"[DONE]", b"", b"7", b"{", b"[]", b"null")]
    assert stream_text(CHAT, [delta(content="a"), *events, delta(content="b")]) == "ab"


def test_events_without_text_leave_nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Message(output._Message):
        def __init__(self) -> None:
            made.append(self)
            super().__init__()

    monkeypatch.setattr(output, "_Message", Message)
    events = [event({"id": n}) for n in range(100)]
    events += [event({"type": "thread.run.step.delta", "id": n}) for n in range(100)]
    assert stream_text(RUNS, events) == ""
    assert made == []


# Both ways give the same text.

words = st.text(max_size=8)
chat_messages = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | words,
        "refusal": words,
        "reasoning_content": words,
        "tool_calls": st.lists(
            st.fixed_dictionaries({"name": words, "arguments": words}), max_size=3
        ).map(lambda calls: [{"function": call} for call in calls]),
    },
)


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def deltas_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Give a message as the deltas of a stream, which begins with its role."""
    found: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for key in ("content", "refusal", "reasoning_content"):
        found += [{key: piece} for piece in halves(message.get(key) or "")]
    for index, call in enumerate(message.get("tool_calls", [])):
        first, second = halves(call["function"]["arguments"])
        function = {"name": call["function"]["name"], "arguments": first}
        found.append({"tool_calls": [{"index": index, "id": "call", "function": function}]})
        found.append({"tool_calls": [{"index": index, "function": {"arguments": second}}]})
    return found


@given(st.lists(chat_messages, max_size=3))
def test_a_chat_reads_the_same_streamed_and_whole(messages: list[dict[str, Any]]) -> None:
    whole = answer_text([{"message": message} for message in messages], None, None)
    rounds = zip_longest(*map(deltas_of, messages))  # the choices take turns
    events = [
        event({"choices": [{"index": index, "delta": piece}]})
        for turn in rounds
        for index, piece in enumerate(turn)
        if piece is not None
    ]
    assert stream_text(CHAT, [*events, event(b"[DONE]")]) == whole


response_items = st.one_of(
    words.map(lambda text: {"type": "message", "content": [{"type": "output_text", "text": text}]}),
    words.map(lambda text: {"type": "message", "content": [{"type": "refusal", "refusal": text}]}),
    words.map(lambda text: {"type": "reasoning", "summary": [{"text": text}]}),
    st.builds(
        lambda name, text: {"type": "function_call", "name": name, "arguments": text}, words, words
    ),
    st.builds(
        lambda name, text: {"type": "custom_tool_call", "name": name, "input": text}, words, words
    ),
)
DELTA_OF = {
    "output_text": "response.output_text.delta",
    "refusal": "response.refusal.delta",
    "reasoning": "response.reasoning_summary_text.delta",
    "function_call": "response.function_call_arguments.delta",
    "custom_tool_call": "response.custom_tool_call_input.delta",
}


def events_of(index: int, item: dict[str, Any]) -> list[Event]:
    """Give an output item as the events of a stream."""
    kind, text = item["type"], item.get("arguments", item.get("input", ""))
    if kind == "message":
        (part,) = item["content"]
        kind, text = part["type"], part.get("text", part.get("refusal"))
    elif kind == "reasoning":
        text = item["summary"][0]["text"]
    opened = {"type": item["type"]} | ({"name": item["name"]} if "name" in item else {})
    place = {"output_index": index}
    added = event({"type": "response.output_item.added", "item": opened} | place)
    return [
        added,
        *(event({"type": DELTA_OF[kind], "delta": piece} | place) for piece in halves(text)),
    ]


@given(st.lists(response_items, max_size=4))
def test_a_response_reads_the_same_streamed_and_whole(items: list[dict[str, Any]]) -> None:
    whole = answer_text(None, items, None)
    events = [one for index, item in enumerate(items) for one in events_of(index, item)]
    end = event({"type": "response.completed", "response": {"output": items}})
    assert stream_text(RESPONSES, events) == whole
    assert stream_text(RESPONSES, [*events, end]) == whole
