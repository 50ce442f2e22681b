"""What is shown of a body: messages as messages, text as text, all else as indented JSON."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ui.body_text import BODY_CHARS, MAX_MESSAGES, BodyText, answered_text, asked_text
from storage.rebuild import StoredBody
from tests.api.records import span

MESSAGE = {"role": "user", "content": "hi"}


def stored(data: bytes, **fields: Any) -> StoredBody:
    given: dict[str, Any] = {
        **dict.fromkeys(StoredBody.__dataclass_fields__),
        "content_type": "application/json",
    }
    return StoredBody(**{**given, "data": data, **fields})


def shown(
    data: bytes, *, raw: bool = False, handed_in: bool = True, kind: str = "custom"
) -> BodyText:
    found = asked_text(stored(data), span(handed_in=handed_in, kind=kind), raw=raw)
    assert found is not None
    return found


def roles(value: object) -> list[str]:
    return [message.role for message in shown(orjson.dumps(value)).said]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MESSAGE, ["user"]),
        ([MESSAGE, {"role": "assistant", "content": "ho"}], ["user", "assistant"]),
        ({"messages": [MESSAGE], "temperature": 1}, ["user"]),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}], ["assistant"]),
        ([{"role": "user", "content": [{"type": "text", "text": "hi"}]}], ["user"]),
        # What is not all of messages is none.
        ([MESSAGE, {"score": 1}], []),
        ([], []),
        ({}, []),
        ({"role": "admin"}, []),
        ({"role": "admin", "content": None}, []),
        ({"role": 1, "content": "x"}, []),
        ({"input": "q", "prompt": "p"}, []),
        ({"messages": "3 new"}, []),
        ([[MESSAGE]], []),
        (7, []),
        (None, []),
        ("hi", []),
    ],
)
def test_a_value_is_shown_as_messages_where_all_of_it_is_some(
    value: object, expected: list[str]
) -> None:
    assert roles(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        {"choices": [{"message": {"role": "assistant", "content": "ho"}}]},
        {"content": "ho", "role": "assistant"},
        {"output": [{"type": "message", "role": "assistant", "content": "ho"}]},
    ],
)
def test_what_a_call_answered_is_shown_as_its_conversation_has_it(value: object) -> None:
    call = span(handed_in=True, kind="llm_call")
    answer = answered_text(stored(orjson.dumps(value)), call, raw=False)
    assert answer is not None
    assert [message.role for message in answer.said] == ["assistant"]
    assert shown(b'[{"type":"function_call_output","output":"x"}]', kind="llm_call").said
    assert shown(b'"said"', kind="llm_call").is_plain


def test_a_string_is_shown_as_the_text_that_it_is() -> None:
    body = shown(b' "a\\n<b>\\u00e9" ')
    assert (body.text, body.is_plain) == ("a\n<b>é", True)
    assert not shown(b"1").is_plain
    assert not shown(b'"not closed').is_plain


def test_all_else_is_indented_with_every_digit() -> None:
    body = shown(b'{"x":1.0,"y":[12345678901234567890]}')
    assert body.text == '{\n  "x": 1.0,\n  "y": [\n    12345678901234567890\n  ]\n}'
    assert not body.is_plain


def test_raw_is_as_it_was_sent() -> None:
    for data in (b'"text"', b'[{"role":"user","content":"hi"}]', b'{"x":1}'):
        body = shown(data, raw=True)
        assert (body.text, body.said, body.is_plain) == (data.decode(), [], False)


def test_much_is_cut_and_many_messages_are_the_last() -> None:
    body = shown(orjson.dumps("x" * (BODY_CHARS + 1)))
    assert (len(body.text), body.is_cut) == (BODY_CHARS, True)
    many = shown(orjson.dumps([MESSAGE] * (MAX_MESSAGES + 3)))
    assert (len(many.said), many.earlier) == (MAX_MESSAGES, 3)


def test_a_call_is_read_as_its_provider_writes_it() -> None:
    assert [m.role for m in shown(b'{"prompt":"once"}', handed_in=False).said] == ["user"]
    answer = answered_text(stored(b'{"output":[]}'), span(), raw=False)
    assert answer is not None
    assert answer.said == []


def test_nothing_is_shown_of_nothing() -> None:
    assert asked_text(None, span(handed_in=True), raw=False) is None


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner)
    | st.dictionaries(st.sampled_from(["role", "content", "messages", "choices", "x"]), inner),
    max_leaves=9).map(orjson.dumps))  # fmt: skip
def test_any_value_is_shown_somehow(data: bytes) -> None:
    for raw in (False, True):
        for read in (asked_text, answered_text):
            for kind in ("llm_call", "tool_call"):
                assert read(stored(data), span(handed_in=True, kind=kind), raw=raw) is not None
