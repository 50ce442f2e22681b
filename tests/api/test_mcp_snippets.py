"""Snippets: the words around what was looked for, of the side that was asked for."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.mcp_snippets import AROUND, MOST, snippets
from storage.search import Words, parse

BODY = orjson.Fragment(
    b'{"messages":[{"content":"where is my order?"},{"content":[{"text":"Refund the order-88"}]}]}'
)


def found(query: str, value: object = BODY, side: str = "input") -> list[object]:
    return [one["text"] for one in snippets({side: value}, parse(query, "spans").words)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("refund", ["Refund the order-88"]),
        ("order", ["Refund the order-88"]),
        ('"my order"', ["where is my order?"]),
        ('"order 88"', ["Refund the order-88"]),
        ("ord", []),
        ("-refund", []),
        ("output:refund", []),
        ("input:refund", ["Refund the order-88"]),
        ("refund where", ["Refund the order-88", "where is my order?"]),
        ("status:failed", []),
        ('"!!"', []),
    ],
)
def test_what_was_looked_for_is_shown_of_the_newest_message(
    query: str, expected: list[str]
) -> None:
    assert found(query) == expected


def test_a_long_text_is_cut_around_what_was_found() -> None:
    (text,) = found("needle", "a" * 5000 + " needle " + "b" * 5000)
    assert isinstance(text, str)
    assert "needle" in text
    assert (text[0], text[-1]) == ("…", "…")
    assert len(text) <= 2 * AROUND + 10


@given(st.text() | st.none() | st.lists(st.text()), st.text(min_size=1, max_size=2000))
def test_whatever_stands_there_snippets_are_short(value: object, word: str) -> None:
    given = snippets({"input": value, "output": value}, [Words(word), Words("a")])
    assert len(given) <= MOST
    assert all(len(str(one["text"])) <= 4 * AROUND + 2 for one in given)


def test_json_that_is_none_has_no_snippets() -> None:
    assert found("x", orjson.Fragment(b"{")) == []
