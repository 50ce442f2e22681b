"""A stream's answer is what the same answer would have been without a stream."""

import json
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage

from proxy.providers.assemble import MAX_CHOICES, assemble, stream_text
from proxy.providers.facts import Operation
from proxy.providers.messages import read_message
from proxy.providers.openai import read_answer
from proxy.providers.operations import operation_of
from proxy.sse import Event, events_of
from tests.golden import Case, load

CHAT = operation_of("POST", "/v1/chat/completions")
COMPLETIONS = operation_of("POST", "/v1/completions")
RESPONSES = operation_of("POST", "/v1/responses")
RUNS = operation_of("POST", "/v1/threads/runs")
TRANSCRIPTS = operation_of("POST", "/v1/audio/transcriptions")


def event(data: object, name: str = "") -> Event:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Event(b"data: " + raw + b"\n\n", name, raw, 1)


def delta(index: int = 0, **fields: object) -> Event:
    return event({"choices": [{"index": index, "delta": fields}]})


def calling(**call: object) -> Event:
    return delta(tool_calls=[call])


def together(events: Iterable[Event], operation: Operation = CHAT) -> Any:
    found = assemble(operation, events)
    return found and json.loads(found.body)


def meaning(message: object) -> bytes:
    return read_message(json.dumps(message).encode()).meaning


def test_a_chat_gives_its_message_in_the_order_of_its_provider() -> None:
    events = [
        delta(role="assistant", content="", refusal=None),
        delta(reasoning_content="Hm."),
        delta(content="Let me"),
        delta(content=" look."),
        calling(index=0, id="call_1", type="function", function={"name": "f", "arguments": ""}),
        calling(index=0, function={"arguments": '{"a"'}),
        calling(index=1, id="call_2", type="custom", custom={"name": "g", "input": "x"}),
        calling(index=0, function={"arguments": ":1}"}),
        event(b"[DONE]"),
    ]
    found = assemble(CHAT, events)
    assert found is not None
    assert found.path == ()
    assert found.body == (
        b'{"role":"assistant","content":"Let me look.","reasoning_content":"Hm.","tool_calls":['
        b'{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\\"a\\":1}"}},'
        b'{"id":"call_2","type":"custom","custom":{"name":"g","input":"x"}}]}'
    )
    assert found.text == 'Let me look.\nf({"a":1})\ng(x)\nHm.'


def test_a_message_that_only_calls_has_no_content() -> None:
    events = [delta(role="assistant", content=None, function_call={"name": "f", "arguments": "{"})]
    events.append(delta(function_call={"arguments": "}"}))
    call = {"name": "f", "arguments": "{}"}
    assert together(events) == {"role": "assistant", "content": None, "function_call": call}


def test_sound_is_left_out_and_its_transcript_and_id_are_kept() -> None:
    events = [
        delta(audio={"id": "audio_1", "transcript": "Sa"}),
        delta(audio={"data": "UklG"}),
        delta(audio={"transcript": "id.", "expires_at": 1}),
    ]
    audio = {"id": "audio_1", "transcript": "Said."}
    assert together(events) == {"role": "assistant", "content": None, "audio": audio}


def test_several_choices_are_a_list_in_the_order_of_their_numbers() -> None:
    events = [delta(index, content=str(index)) for index in (10, 0, 2, 0)]
    found = assemble(CHAT, events)
    assert found is not None
    assert found.path == (0,)
    assert [message["content"] for message in json.loads(found.body)] == ["00", "2", "10"]
    assert found.text == "00\n2\n10"


def test_calls_that_share_a_number_are_told_apart_by_their_ids() -> None:
    events = [
        calling(index=0, id="1", function={"name": "f", "arguments": "{}"}),
        calling(index=0, id="2", function={"name": "f", "arguments": '{"a"'}),
        calling(index=0, function={"arguments": ":1}"}),
    ]
    calls = together(events)["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [
        ("1", "{}"),
        ("2", '{"a":1}'),
    ]


def test_a_name_that_comes_again_with_each_piece_is_not_said_twice() -> None:
    events = [
        calling(index=0, id="1", function={"name": "f", "arguments": "{"}),
        calling(index=0, id="1", function={"name": "f", "arguments": "}"}),
    ]
    assert together(events)["tool_calls"] == [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


@pytest.mark.parametrize("strange", [7, [["x"]], {"a": "b"}, True])
def test_an_id_that_is_no_text_is_none(strange: object) -> None:
    events = [
        calling(index=0, id=strange, function={"name": "f", "arguments": "{}"}),
        delta(audio={"id": strange, "transcript": "a"}),
    ]
    message = together(events)
    assert message["tool_calls"] == [
        {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert message["audio"]["transcript"] == "a"
    assert not message["audio"].get("id")


def test_a_completion_gives_its_choices_with_their_texts() -> None:
    events = [
        event({"choices": [{"index": i, "text": t}]}) for i, t in ((0, " a"), (1, "b"), (0, "c"))
    ]
    found = assemble(COMPLETIONS, [*events, event({"choices": [{"index": 2, "text": ""}]})])
    assert found is not None
    assert json.loads(found.body) == {"choices": [{"text": " ac"}, {"text": "b"}, {"text": ""}]}
    assert found.path == ("choices", 0, "text")
    assert found.text == " ac\nb"


def test_a_pair_of_surrogates_that_two_chunks_share_is_one_character() -> None:
    events = [
        event(rb'{"choices":[{"delta":{"content":"a\ud83d"}}]}'),
        event(rb'{"choices":[{"delta":{"content":"\ude00b"}}]}'),
    ]
    found = assemble(CHAT, events)
    assert found is not None
    assert (json.loads(found.body)["content"], found.text) == ("a\U0001f600b", "a\U0001f600b")


@pytest.mark.parametrize(
    "events",
    [[], [event(b"[DONE]")], [event({"error": {"message": "no"}})], [event({"choices": []})]],
)
def test_a_stream_that_says_nothing_gives_nothing(events: list[Event]) -> None:
    assert assemble(CHAT, events) is None
    assert assemble(RESPONSES, events) is None


def test_what_is_no_object_is_passed_over() -> None:
    events = [event(raw) for raw in (b"[DONE]", b"", b"7", b"{", b"[]", b"null", b'{"type":[]}')]
    found = together([delta(content="a"), *events, delta(content="b")])
    assert found["content"] == "ab"


def test_a_response_whose_events_have_no_names_is_put_together_by_their_types() -> None:
    piece = {"type": "response.output_text.delta", "output_index": 0, "delta": "Hi"}
    for name in ("", "message", "response.output_text.delta"):
        found = assemble(RESPONSES, [event(piece, name)])
        assert found is not None
        assert (found.path, found.text) == (("output",), "Hi")


# Streams that are of no conversation.


def test_a_transcript_has_its_deltas_and_else_its_end() -> None:
    pieces = [event({"type": "transcript.text.delta", "delta": piece}) for piece in ("He", "llo")]
    end = event({"type": "transcript.text.done", "text": "Hello"})
    assert stream_text(TRANSCRIPTS, pieces) == "Hello"
    assert stream_text(TRANSCRIPTS, [*pieces, end]) == "Hello"
    assert stream_text(TRANSCRIPTS, [end]) == "Hello"
    assert assemble(TRANSCRIPTS, [end]) is None


def test_the_messages_of_a_run_are_told_apart_by_their_ids() -> None:
    def piece(message_id: str, text: str) -> Event:
        content = [{"index": 0, "type": "text", "text": {"value": text}}]
        return event({"id": message_id, "delta": {"content": content}}, "thread.message.delta")

    events = [piece("msg_1", "He"), piece("msg_2", "Bye"), piece("msg_1", "llo")]
    assert stream_text(RUNS, events) == "Hello\nBye"
    assert assemble(RUNS, events) is None


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/images/edits"])
def test_sound_and_pictures_are_no_text(path: str) -> None:
    events = [event({"type": "speech.audio.delta", "audio": "UklG"}), delta(content="x")]
    assert stream_text(operation_of("POST", path), events) == ""


# Golden cases, and properties.


@pytest.mark.parametrize(
    "case", [case for case in load() if case.streamed], ids=lambda case: case.name
)
def test_each_golden_stream_has_its_text_in_one_pass(case: Case) -> None:
    operation = operation_of(case.method, case.path)
    found = assemble(operation, events_of(case.answer))
    if found is not None:
        assert found.text == case.text
    assert stream_text(operation, events_of(case.answer)) == case.text


GOLDEN = {case.name: case for case in load()}


def test_a_golden_stream_has_the_message_that_the_same_answer_has_whole() -> None:
    whole = json.loads(GOLDEN["chat, tool calls"].answer)["choices"][0]["message"]
    streamed = GOLDEN["chat stream with tool calls and two choices"].answer
    first, _ = together(events_of(streamed))
    assert first == {key: whole[key] for key in ("role", "content", "tool_calls")}
    assert meaning(first) == meaning(whole)


@pytest.mark.parametrize(
    "name", ["response stream, completed", "response stream without event names"]
)
def test_a_golden_response_says_the_same_with_its_end_and_cut_before_it(name: str) -> None:
    events = list(events_of(GOLDEN[name].answer))
    whole, cut = together(events, RESPONSES), together(events[:-1], RESPONSES)
    assert whole["status"] == "completed"
    assert cut["status"] == "in_progress"
    assert list(map(meaning, cut["output"])) == list(map(meaning, whole["output"]))


words = st.text(max_size=8)
tool_calls = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(min_size=1, max_size=4),
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": st.text(min_size=1), "arguments": words}),
        }
    ),
    min_size=1,
    max_size=3,
)
chat_messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | words},
    optional={
        "refusal": st.none() | words,
        "reasoning_content": words,
        "function_call": st.fixed_dictionaries({"name": words, "arguments": words}),
        "tool_calls": tool_calls,
        "audio": st.fixed_dictionaries(
            {
                "id": st.text(min_size=1, max_size=4),
                "data": st.just("UklG"),
                "expires_at": st.just(1),
                "transcript": words,
            }
        ),
    },
)


def deltas_of(message: dict[str, Any], draw: Any) -> list[dict[str, Any]]:
    """Give a message as deltas, its texts cut anywhere, its calls and texts taking turns."""

    def cut(text: str) -> list[str]:
        at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
        return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]

    rows: list[list[dict[str, Any]]] = [
        [{key: piece} for piece in cut(message.get(key) or "")]
        for key in ("content", "refusal", "reasoning_content")
    ]
    for index, call in enumerate(message.get("tool_calls", [])):
        first, *rest = cut(call["function"]["arguments"])
        opening = {**call, "index": index, "function": {**call["function"], "arguments": first}}
        pieces = [{"index": index, "function": {"arguments": piece}} for piece in rest]
        rows.append([{"tool_calls": [piece]} for piece in (opening, *pieces)])
    if call := message.get("function_call"):
        first, *rest = cut(call["arguments"])
        pieces = [{**call, "arguments": first}, *({"arguments": piece} for piece in rest)]
        rows.append([{"function_call": piece} for piece in pieces])
    if audio := message.get("audio"):
        first, *rest = cut(audio["transcript"])
        pieces = [{**audio, "transcript": first}, *({"transcript": piece} for piece in rest)]
        rows.append([{"audio": piece} for piece in pieces])
    turns = [piece for turn in zip_longest(*rows) for piece in turn if piece is not None]
    return [{"role": "assistant", "content": ""}, *turns, {}]


@given(chat_messages, st.data())
def test_a_message_cut_into_deltas_anywhere_has_the_meaning_and_text_of_the_whole(
    message: dict[str, Any], data: st.DataObject
) -> None:
    found = assemble(CHAT, [delta(**piece) for piece in deltas_of(message, data.draw)])
    assert found is not None
    whole = json.dumps({"choices": [{"message": message}]}).encode()
    assert read_message(found.body).meaning == meaning(message)
    assert found.text == read_answer(CHAT, 200, whole).text


@given(chat_messages)
def test_a_streamed_answer_that_a_client_of_openai_sends_again_has_its_meaning(
    message: dict[str, Any],
) -> None:
    body = together(
        [
            delta(**{k: v for k, v in message.items() if k != "tool_calls"}),
            *(calling(index=i, **call) for i, call in enumerate(message.get("tool_calls", []))),
        ]
    )
    sent = ChatCompletionMessage.model_validate(message)
    for again in (sent.model_dump(), sent.model_dump(exclude_none=True), sent.to_dict()):
        assert meaning(again) == meaning(body)


@given(st.lists(chat_messages, min_size=2, max_size=3), st.data())
def test_choices_that_take_turns_are_told_apart(
    messages: list[dict[str, Any]], data: st.DataObject
) -> None:
    rounds = zip_longest(*(deltas_of(message, data.draw) for message in messages))
    events = [
        delta(index, **piece)
        for turn in rounds
        for index, piece in enumerate(turn)
        if piece is not None
    ]
    assert list(map(meaning, together(events))) == list(map(meaning, messages))


@given(chat_messages, st.data())
def test_a_stream_cut_anywhere_gives_the_beginning_of_its_answer(
    message: dict[str, Any], data: st.DataObject
) -> None:
    raw = b"".join(delta(**piece).raw for piece in deltas_of(message, data.draw))
    at = data.draw(st.integers(0, len(raw)))
    found = together(events_of(raw[:at]))
    assert (message["content"] or "").startswith((found and found["content"]) or "")


FIELDS = ["id", "model", "type", "response", "choices", "delta", "content", "output", "arguments"]
FIELDS += ["output_index", "item", "name", "index", "tool_calls", "function", "custom", "text"]
FIELDS += ["audio", "function_call", "message", "content_index"]
KINDS = ["", "response.completed", "response.created", "response.output_text.delta"]
KINDS += ["response.output_item.added", "response.output_item.done", "thread.message.delta"]
KINDS += ["response.function_call_arguments.delta", "transcript.text.done"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(KINDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)
    ),
    max_leaves=20,
)
json_bytes = json_values.map(lambda value: json.dumps(value).encode())
strange = st.builds(event, json_bytes | st.binary(max_size=20), st.sampled_from(KINDS))


@given(st.lists(strange, max_size=5), st.sampled_from([CHAT, COMPLETIONS, RESPONSES, RUNS]))
def test_no_events_make_it_raise(events: list[Event], operation: Operation) -> None:
    found = assemble(operation, events)
    for text in (stream_text(operation, events), found.text if found else ""):
        assert "\0" not in text
        text.encode()
    if found is not None:
        json.loads(found.body.decode("utf-8", "replace"))


def test_more_choices_than_a_provider_gives_are_not_held() -> None:
    stream = [delta(index, content="a") for index in range(MAX_CHOICES + 1)]
    found = assemble(CHAT, [*stream, delta(0, content="b")])
    assert found is not None
    messages = json.loads(found.body)
    assert len(messages) == MAX_CHOICES
    assert messages[0]["content"] == "ab"
