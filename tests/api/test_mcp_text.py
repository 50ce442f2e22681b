"""Recorded text for a model: nothing hidden in it, measured as it stands, cut to the room."""

import sys
import unicodedata
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.mcp_text import (
    CUT,
    Piece,
    Place,
    Room,
    capped,
    fitted,
    laid_out,
    original,
    shown,
    visible,
)

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from('"\\\n\t\x00\x1b\u202e\u200d\ufe0f\U000e0041<U+202E>')
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def test_every_character_that_is_not_seen_is_written_out_but_for_line_feeds_and_tabs() -> None:
    hidden = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Zl", "Zp"} and chr(code) not in "\n\t"
    ]
    assert len(hidden) > 200
    assert [one for one in hidden if visible(one) != f"<U+{ord(one):04X}>"] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, Ελλάδα, 漢字, 🙂\n\ttext", "plain, Ελλάδα, 漢字, 🙂\n\ttext"),
        ("a\u202eb", "a<U+202E>b"),
        ("\U000e0049\U000e0067", "<U+E0049><U+E0067>"),
        ("x\ufe0f\U000e0100", "x<U+FE0F><U+E0100>"),
        ("\x1b[2J\r\x00", "<U+001B>[2J<U+000D><U+0000>"),
        ("\u3164\u2800\u115f", "<U+3164><U+2800><U+115F>"),
    ],
)
def test_what_is_hidden_is_shown_and_all_else_stays(text: str, expected: str) -> None:
    assert visible(text) == expected
    assert original(expected) == text


@pytest.mark.parametrize("text", ["<U+0041>", "<U+FFFFFF>", "<U+>", "a <U+000A>"])
def test_only_what_was_written_out_is_read_back(text: str) -> None:
    assert original(text) == text


@given(VALUES)
def test_texts_are_shown_wherever_they_stand(value: Any) -> None:
    def check(one: Any) -> None:
        if isinstance(one, str):
            assert visible(one) == one
        for inner in (
            one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        ):
            check(inner)

    check(shown(value))


@given(st.lists(VALUES, max_size=6), st.booleans())
def test_what_is_measured_is_what_stands_in_an_answer(values: list[Any], twice: bool) -> None:
    def length(items: list[Any]) -> int:
        text = orjson.dumps({"items": items}).decode()
        inside = len(orjson.dumps(text).decode())
        return inside + (len(text) if twice else 0)

    room = Room(10**9, twice)
    for value in values:
        assert room.takes(value)
    assert 10**9 - room.left >= length(values) - length([])


@given(VALUES, st.integers(0, 5), st.integers(0, 3))
def test_a_value_is_capped_all_through(value: Any, chars: int, rows: int) -> None:
    def check(one: Any) -> None:
        if isinstance(one, str):
            assert len(one) <= chars + len(CUT)
        elif isinstance(one, dict):
            for inner in one.values():
                check(inner)
        elif isinstance(one, list):
            assert len(one) <= rows
            for inner in one:
                check(inner)

    check(capped(value, chars, rows))


@given(TEXTS, VALUES, st.dictionaries(st.sampled_from("abcdef"), TEXTS), st.integers(70, 2000))
def test_a_row_is_cut_until_it_fits_and_says_so(
    name: str, figure: Any, recorded: dict[str, str], chars: int
) -> None:
    room = Room(chars, True)
    row = {"id": name, "figure": figure, "recorded": recorded}
    made = fitted(row, room.fits)
    assert room.fits(made)
    assert made == shown(row) or made["cut"] is True


def test_a_row_loses_its_texts_before_its_figures_and_keeps_its_id_the_longest() -> None:
    row = {"id": "one", "cost": 1.5, "tokens": 7, "recorded": {"text": "x" * 1000}}
    made = [fitted(row, Room(chars, False).fits) for chars in (2000, 300, 80, 50, 35)]
    assert made[0] == row
    assert made[1]["recorded"] == {"text": "x" * 150 + CUT}
    assert made[2:] == [
        {"id": "one", "cost": 1.5, "tokens": 7, "cut": True},
        {"id": "one", "cost": 1.5, "cut": True},
        {"id": "one", "cut": True},
    ]


PIECES = st.lists(
    st.builds(
        Piece,
        st.sampled_from(["text", "input"]),
        TEXTS,
        st.just("part"),
        st.fixed_dictionaries({"name": TEXTS}),
    ),
    max_size=4,
)


@given(PIECES, st.integers(220, 3000), st.booleans())
def test_all_texts_are_there_by_the_end_of_the_last_page(
    pieces: list[Piece], chars: int, twice: bool
) -> None:
    heads: list[dict[str, object]] = [
        {"id": "1", "recorded": {"model": "m" * 100}, "figure": 1.0},
        {"id": "1"},
    ]
    texts: dict[int, str] = {}
    place: Place | None = Place()
    while place is not None:
        begin = place
        item: dict[str, Any]
        item, place = laid_out(heads, pieces, begin, Room(chars, twice).fits)
        assert Room(chars, twice).fits(item)
        assert place is None or (place.number, place.char) > (begin.number, begin.char)
        assert (place is not None) <= ("cut" in item)
        assert ("continued" in item) == (begin != Place())
        found = {kind: list(item.get("recorded", {}).get(kind, ())) for kind in ("text", "input")}
        for number in range(begin.number, len(pieces)):
            if place is None or number <= place.number:
                here = found[pieces[number].place]
                if here:
                    texts[number] = texts.get(number, "") + here.pop(0)["part"]
        assert not any(found.values())
    assert [texts.get(n, "") for n in range(len(pieces))] == [visible(p.text) for p in pieces]


def test_a_head_is_made_smaller_where_it_leaves_no_room_for_a_text() -> None:
    heads: list[dict[str, object]] = [{"id": "1", "recorded": {"model": "m" * 300}}, {"id": "1"}]
    item, place = laid_out(heads, [Piece("input", "words " * 100)], Place(), Room(200, False).fits)
    assert set(item) == {"id", "cut", "recorded"}
    assert place is not None
    assert place.char > 50
