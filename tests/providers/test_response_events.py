"""What the provider sent whole keeps its bytes; what it did not is made of its deltas."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.messages import read_message
from proxy.providers.response_events import ResponseEvents

MESSAGE = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant"}


def answer(*events: tuple[str, object]) -> tuple[bytes | None, list[object]]:
    response = ResponseEvents()
    for kind, data in events:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        response.add(f"response.{kind}", raw)
    return response.answer()


def output(*events: tuple[str, object]) -> list[Any]:
    body, found = answer(*events)
    assert body is not None
    assert json.loads(body)["output"] == found
    return found


def text(piece: object, index: int = 0, part: int = 0) -> tuple[str, object]:
    fields = {"item_id": f"msg_{index}", "output_index": index, "content_index": part}
    return "output_text.delta", {**fields, "delta": piece}


CREATED = ("created", {"response": {"id": "resp_1", "status": "in_progress", "output": []}})


def test_a_response_that_ended_has_its_exact_bytes() -> None:
    whole = b'{ "output":[ {"type":"message","content":[]} ] , "n":1.50, "n":2}'
    body, found = answer(CREATED, text("x"), ("completed", b'{"response": %b}' % whole))
    assert body == whole
    assert found == [{"type": "message", "content": []}]


def test_a_response_that_was_cut_has_the_items_that_came() -> None:
    done = b'{ "type":"message", "content":[{"text":"Hi"}]}'
    body, found = answer(
        CREATED,
        text("H"),
        ("output_item.done", b'{"output_index":0,"item":%b}' % done),
        ("output_item.added", {"output_index": 1, "item": MESSAGE | {"content": []}}),
        text("A", 1),
        text("B", 1, part=1),
        text("nd", 1),
    )
    assert body is not None
    assert body.startswith(b'{"id":"resp_1","status":"in_progress","output":[' + done)
    parts = [{"type": "output_text", "text": "And"}, {"type": "output_text", "text": "B"}]
    assert found[1] == MESSAGE | {"content": parts}


def test_a_response_that_failed_keeps_its_error_and_what_came_before_it() -> None:
    failed = {"id": "resp_1", "error": {"code": "server_error"}, "output": []}
    body, _ = answer(CREATED, text("Hi"), ("failed", {"response": failed}))
    assert json.loads(body or b"") == failed | {
        "output": [
            {
                "type": "message",
                "id": "msg_0",
                "content": [{"type": "output_text", "text": "Hi"}],
            }
        ]
    }


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        ("refusal.delta", {"type": "message", "content": [{"type": "refusal", "refusal": "ab"}]}),
        (
            "audio.transcript.delta",
            {"type": "message", "content": [{"type": "output_audio", "transcript": "ab"}]},
        ),
        (
            "reasoning_text.delta",
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "ab"}]},
        ),
        (
            "reasoning_summary_text.delta",
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "ab"}]},
        ),
        ("function_call_arguments.delta", {"type": "function_call", "arguments": "ab"}),
        ("custom_tool_call_input.delta", {"type": "custom_tool_call", "input": "ab"}),
        ("mcp_call_arguments.delta", {"type": "mcp_call", "arguments": "ab"}),
        ("code_interpreter_call_code.delta", {"type": "code_interpreter_call", "code": "ab"}),
    ],
)
def test_each_kind_of_delta_makes_its_item(kind: str, item: object) -> None:
    assert output((kind, {"delta": "a"}), (kind, {"delta": "b"})) == [item]


def test_a_call_that_was_cut_has_its_name_and_the_arguments_that_came() -> None:
    call = {"id": "fc_1", "type": "function_call", "call_id": "1", "name": "f", "arguments": ""}
    found = output(
        ("output_item.added", {"output_index": 0, "item": call}),
        ("function_call_arguments.delta", {"output_index": 0, "delta": '{"a'}),
    )
    assert found == [call | {"arguments": '{"a'}]


def test_of_an_item_that_was_only_begun_its_texts_are_kept() -> None:
    begun = {"id": "x_1", "type": "other", "name": "f"}
    more = {"content": [{"type": "output_text", "text": ""}], "deep": [[]], "number": 1}
    assert output(("output_item.added", {"output_index": 0, "item": begun | more})) == [begun]


def test_nothing_gives_nothing() -> None:
    assert answer() == (None, [])
    assert answer(("created", b'{"sequence_number":0}')) == (None, [])
    assert answer(("created", b"{")) == (None, [])


def test_a_lone_surrogate_or_bytes_that_are_no_text_lose_nothing_else() -> None:
    found = output(
        ("output_text.delta", rb'{"output_index":0,"delta":"a\ud83d"}'),
        ("output_text.delta", rb'{"output_index":0,"delta":"\ude00b"}'),
    )
    assert found[0]["content"][0]["text"] == "a\U0001f600b"
    whole = b'{"output":[{"role":"assistant","content":"\xff"}]}'
    body, _ = answer(("completed", b'{"response":%b}' % whole))
    assert body == whole


items = st.one_of(
    st.text(max_size=8).map(
        lambda text: MESSAGE | {"content": [{"type": "output_text", "text": text}]}
    ),
    st.builds(
        lambda name, arguments: {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": name,
            "arguments": arguments,
        },
        st.text(max_size=8),
        st.text(max_size=8),
    ),
)


@given(st.lists(items, max_size=3), st.data())
def test_items_cut_into_deltas_anywhere_have_the_meanings_of_the_whole(
    whole: list[dict[str, Any]], data: st.DataObject
) -> None:
    events: list[tuple[str, object]] = [CREATED]
    for index, item in enumerate(whole):
        message = item["type"] == "message"
        said = item["content"][0]["text"] if message else item["arguments"]
        opening = item | ({"content": []} if message else {"arguments": ""})
        events.append(("output_item.added", {"output_index": index, "item": opening}))
        at = data.draw(st.integers(0, len(said)))
        kind = "output_text.delta" if message else "function_call_arguments.delta"
        events += [
            (kind, {"output_index": index, "delta": said[a:b]}) for a, b in ((0, at), (at, None))
        ]
        if data.draw(st.booleans()):
            events.append(("output_item.done", {"output_index": index, "item": item}))
    _, found = answer(*events)
    meanings = [read_message(json.dumps(item).encode()).meaning for item in whole]
    assert [read_message(json.dumps(item).encode()).meaning for item in found] == meanings
