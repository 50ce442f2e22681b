"""The text that an event of a stream adds, in each dialect of OpenAI's API."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.delta import MAX_EVENT_BYTES, text_delta
from proxy.sse import Event
from tests.calling import DONE, USAGE, delta


def event(data: object, name: str = "") -> Event:
    encoded = data if isinstance(data, bytes) else orjson.dumps(data)
    return Event(b"", name, encoded, 1)


def choice(delta: object, index: object = 0) -> dict[str, object]:
    return {"choices": [{"index": index, "delta": delta}]}


@pytest.mark.parametrize(
    ("data", "name", "text"),
    [
        (choice({"role": "assistant", "content": "Hi"}), "", "Hi"),
        (choice({"content": [{"type": "text", "text": "Hi"}]}), "", "Hi"),
        (choice({"refusal": "No"}), "", "No"),
        ({"choices": [{"delta": {"content": "no index"}}]}, "", "no index"),
        ({"choices": [{"index": 0, "text": "legacy"}]}, "", "legacy"),
        ({"type": "response.output_text.delta", "delta": "Hi"}, "response.output_text.delta", "Hi"),
        ({"type": "response.output_text.delta", "delta": "Hi"}, "", "Hi"),
        ({"type": "response.refusal.delta", "delta": "No"}, "response.refusal.delta", "No"),
        ({"type": "transcript.text.delta", "delta": "said"}, "", "said"),
        (
            {"delta": {"content": [{"type": "text", "text": {"value": "thread"}}]}},
            "thread.message.delta",
            "thread",
        ),
    ],
)
def test_what_the_model_says_is_text(data: object, name: str, text: str) -> None:
    assert text_delta(event(data, name)) == text


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (choice({"content": "another choice"}, 1), ""),
        (choice({"reasoning_content": "hm", "tool_calls": [{"function": {"name": "f"}}]}), ""),
        (choice(None), ""),
        (choice({"content": None}), ""),
        ({"choices": [None, 3]}, ""),
        ({"choices": 3}, ""),
        ({"type": "response.reasoning_text.delta", "delta": "hm"}, "response.reasoning_text.delta"),
        ({"type": "response.output_text.done", "text": "all of it"}, "response.output_text.done"),
        ({"type": 7, "delta": "x"}, ""),
        ({"type": "transcript.text.done", "text": "said"}, ""),
        (b"[DONE]", ""),
        (b"{", ""),
        (b"", ""),
        (b'{"choices":[{"delta":{"content":"%b"}}]}' % (b"x" * MAX_EVENT_BYTES), ""),
    ],
)
def test_nothing_else_is(data: object, name: str) -> None:
    assert text_delta(event(data, name)) == ""


def test_the_events_of_a_stream_are_its_text() -> None:
    pieces = [delta("Fi"), delta("ne."), USAGE, DONE]
    assert "".join(text_delta(event(piece[6:-2])) for piece in pieces) == "Fine."


@given(st.binary(max_size=80) | st.recursive(st.none() | st.text(), st.lists).map(orjson.dumps))
def test_it_takes_anything(data: bytes) -> None:
    assert isinstance(text_delta(event(data)), str)
    assert isinstance(text_delta(event(b'{"choices":' + data + b"}")), str)
    assert isinstance(text_delta(event(b'{"delta":' + data + b"}", "thread.message.delta")), str)
