"""What a request may come to: the limits it sets, and what counts for tokens beside its text."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.openai import operation_of, weigh
from proxy.providers.weight import Weight

CHAT = operation_of("POST", "/v1/chat/completions")
COMPLETIONS = operation_of("POST", "/v1/completions")
RESPONSES = operation_of("POST", "/v1/responses")
EMBEDDINGS = operation_of("POST", "/v1/embeddings")
JSON = "application/json"
FORM = "multipart/form-data; boundary=x"
FRAME = 32 + 8  # of a call, and of the prompt that there is at least


def weight(operation: Any = CHAT, **fields: Any) -> Weight:
    found = weigh(operation, orjson.dumps({"model": "gpt-5", **fields}), JSON)
    assert found is not None
    return found


def message(*parts: object) -> list[object]:
    return [{"role": "user", "content": list(parts)}]


def test_the_limit_of_each_operation_is_found() -> None:
    assert weight(max_tokens=7).output_tokens == 7
    assert weight(max_completion_tokens=8).output_tokens == 8
    assert weight(RESPONSES, max_output_tokens=9).output_tokens == 9
    assert weight(EMBEDDINGS, input="x").output_tokens == 0


def test_of_two_limits_the_larger_one_counts() -> None:
    assert weight(max_tokens=7, max_completion_tokens=800).output_tokens == 800


@pytest.mark.parametrize("value", [None, 0, -1, "7", True, [], {}, 0.5])
def test_what_is_no_limit_is_none(value: object) -> None:
    assert weight(max_tokens=value).output_tokens is None


def test_a_limit_may_be_written_with_a_point_and_is_bounded() -> None:
    assert weight(max_tokens=7.0).output_tokens == 7
    for huge in (b"1e999", b"9" * 400, b"1" + b"0" * 30):
        found = weigh(CHAT, b'{"max_tokens": %b}' % huge, JSON)
        assert found is not None
        assert found.output_tokens == 1_000_000_000


@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": 2, "best_of": 5}, 5),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"n": -5}, 1),
    ],
)
def test_every_answer_that_is_made_counts(fields: dict[str, Any], answers: int) -> None:
    assert weight(COMPLETIONS, **fields).answers == answers


def test_a_message_counts_for_its_frame_beside_its_text() -> None:
    one = weight(messages=[{"role": "user", "content": "hello"}])
    assert (one.text, one.beside_tokens) == ("hello", FRAME + 8)
    assert weight(messages=[{"role": "user", "content": "hello"}] * 10).beside_tokens == FRAME + 80


def test_tokens_given_as_numbers_count() -> None:
    assert weight(COMPLETIONS, prompt=[1] * 500).beside_tokens == FRAME + 500
    assert weight(EMBEDDINGS, input=[[1] * 200, [2] * 100]).beside_tokens == FRAME + 16 + 300


def test_a_picture_counts_the_same_however_it_is_given() -> None:
    for part in (
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_999_999}},
        {"type": "input_image", "file_id": "file-1"},
    ):
        found = weight(messages=message(part))
        assert (found.picture_tokens, found.beside_tokens) == (4_000, FRAME + 8 + 4_000)
        assert found.sound_tokens == 0


@pytest.mark.parametrize("model", ["gpt-4o-mini", "openai/gpt-4o-mini-2024-07-18"])
def test_a_picture_for_the_model_that_counts_most_for_it_counts_so(model: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    assert weight(model=model, messages=message(picture)).picture_tokens == 48_169


def test_sound_and_files_count_by_their_size_and_never_for_nothing() -> None:
    small = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}
    large = {"type": "input_audio", "input_audio": {"data": "A" * 4_000_000, "format": "mp3"}}
    assert weight(messages=message(small)).sound_tokens == 4_000
    assert weight(messages=message(large)).sound_tokens == 30_000
    file = {"type": "input_file", "file_data": "A" * 400_000}
    assert weight(RESPONSES, input=message(file)).beside_tokens >= 300_000 // 16


def test_what_a_tool_answered_with_pictures_counts() -> None:
    item = {"type": "function_call_output", "output": [{"type": "input_image", "file_id": "f"}]}
    assert weight(RESPONSES, input=[item]).picture_tokens == 4_000


def test_the_medium_of_an_answer_is_known_where_it_has_a_price_of_its_own() -> None:
    assert weight().medium == "text"
    assert weight(modalities=["text", "audio"]).medium == "sound"
    assert weight(operation_of("POST", "/v1/audio/speech"), input="hi").medium == "sound"
    assert weight(operation_of("POST", "/v1/images/generations"), prompt="a").medium == "picture"


def test_a_form_is_weighed_by_its_fields_and_files() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-image-1\r\n'
        b'--x\r\nContent-Disposition: form-data; name="n"\r\n\r\n2\r\n'
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nPNG\r\n--x--'
    )
    found = weigh(operation_of("POST", "/v1/images/edits"), body, FORM)
    assert found is not None
    assert (found.model, found.answers, found.picture_tokens) == ("gpt-image-1", 2, 4_000)
    spoken = weigh(operation_of("POST", "/v1/audio/transcriptions"), body, FORM)
    assert spoken is not None
    assert (spoken.sound_tokens, spoken.picture_tokens) == (4_000, 0)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"3", b"\xff"])
def test_what_is_no_object_cannot_be_weighed(body: bytes) -> None:
    assert weigh(CHAT, body, JSON) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "content", "text", "image_url", "file", "audio", "n"]), inner
        )
    ),
    max_leaves=12,
)
NAMES = [
    "model",
    "messages",
    "input",
    "prompt",
    "n",
    "best_of",
    "max_tokens",
    "modalities",
    "thread",
]


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_no_body_makes_it_fail_and_nothing_it_gives_is_negative(body: dict[str, Any]) -> None:
    for operation in (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS):
        found = weigh(operation, orjson.dumps(body), JSON)
        assert found is not None
        assert found.answers >= 1
        assert found.beside_tokens > 0
        assert found.output_tokens is None or found.output_tokens >= 0
