"""A provider's key does not come out of an answer, however the answer is cut and spelled."""

import html
import json
import re
import time
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.mask import PART_BYTES, Mask, spellings

KEY = b"sk-proj-0123456789abcdef"
ODD = b"k/0+&\"<'\\=%>1"


def masked(key: bytes, *pieces: bytes) -> bytes:
    mask = Mask(spellings(key))
    return b"".join([*map(mask.feed, pieces), mask.finish()])


def replaced(key: bytes, whole: bytes) -> bytes:
    """Replace by the one search that a whole text allows."""
    found = re.compile(b"|".join(map(re.escape, spellings(key))))
    return found.sub(lambda match: b"*" * len(match[0]), whole)


def test_as_many_stars_stand_where_the_key_stood() -> None:
    assert masked(KEY, b"no " + KEY + b", and " + KEY) == b"no %b, and %b" % (b"*" * 24, b"*" * 24)


def test_a_text_without_the_key_is_the_same_object() -> None:
    mask = Mask(spellings(KEY))
    text = b"nothing of it is here\n\n"
    assert mask.feed(text) is text
    assert mask.hidden(text) is text
    assert mask.finish() == b""


def test_a_key_of_letters_digits_and_hyphens_has_one_spelling() -> None:
    assert spellings(KEY) == (KEY,)
    assert spellings(b"AIza_b-1") == (b"AIza_b-1",)


@pytest.mark.parametrize("at", range(2 + len(KEY) + 2))
def test_a_key_is_hidden_wherever_it_is_cut(at: int) -> None:
    whole = b"ab" + KEY + b"cd"
    assert masked(KEY, whole[:at], whole[at:]) == b"ab" + b"*" * len(KEY) + b"cd"


def test_a_key_is_hidden_that_comes_byte_by_byte() -> None:
    whole = b"s sk" + KEY + KEY + b"sk-"
    pieces = [whole[at : at + 1] for at in range(len(whole))]
    assert masked(KEY, *pieces) == b"s sk" + b"*" * (2 * len(KEY)) + b"sk-"


@pytest.mark.parametrize(
    "spelled",
    [
        ODD.decode(),
        json.dumps(ODD.decode())[1:-1],
        json.dumps(ODD.decode())[1:-1].replace("/", "\\/"),
        quote(ODD),
        quote(ODD, safe=""),
        quote_plus(ODD),
        re.sub("%..", lambda match: match[0].lower(), quote(ODD, safe="")),
        html.escape(ODD.decode()),
        html.escape(ODD.decode(), quote=False),
        html.escape(ODD.decode()).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
        # System.Text.Json of .NET, and encoding/json of Go, wrote these.
        r"k/0\u002B\u0026\u0022\u003C\u0027\\=%\u003E1",
        r"k/0+\u0026\"\u003c'\\=%\u003e1",
    ],
)
def test_a_key_is_hidden_as_json_html_and_urls_spell_it(spelled: str) -> None:
    text = spelled.encode()
    assert masked(ODD, b'{"a":"' + text + b'"}') == b'{"a":"' + b"*" * len(text) + b'"}'
    for at in range(1, len(text)):
        assert masked(ODD, text[:at], text[at:]) == b"*" * len(text)


keys = st.text(alphabet="ab*/\\\"'&", min_size=2, max_size=6).map(str.encode)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Give a key, and pieces of an answer that is made of it, of parts of it, and of little else.

    It ends in white space, so that no part of a key stands at its end.
    """
    key = draw(keys)
    parts = st.one_of(
        st.sampled_from([*spellings(key), b"a", b"b", b"*", b"\\", b"\n"]),
        st.sampled_from(spellings(key)).flatmap(
            lambda spelling: st.integers(0, len(spelling)).map(lambda size: spelling[:size])
        ),
    )
    whole = b"".join(draw(st.lists(parts, max_size=12))) + b" "
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    edges = [0, *cuts, len(whole)]
    return key, [whole[a:b] for a, b in pairwise(edges)]


@given(answers())
def test_any_pieces_come_out_as_the_whole_would(answer: tuple[bytes, list[bytes]]) -> None:
    key, pieces = answer
    whole = b"".join(pieces)
    shown = masked(key, *pieces)
    assert shown == replaced(key, whole) == Mask(spellings(key)).hidden(whole)
    assert len(shown) == len(whole)


@given(answers())
def test_what_is_held_back_may_be_the_beginning_of_a_key(
    answer: tuple[bytes, list[bytes]],
) -> None:
    key, pieces = answer
    mask = Mask(spellings(key))
    given_bytes = shown_bytes = 0
    so_far = b""
    for piece in pieces:
        shown_bytes += len(mask.feed(piece))
        given_bytes += len(piece)
        so_far += piece
        held = so_far[shown_bytes:]
        assert not held or any(s.startswith(held) and s != held for s in spellings(key))


@pytest.mark.parametrize("end", [b"\n", b"\n\n", b"\r\n\r\n", b" "])
def test_nothing_is_held_back_of_an_event_or_a_line(end: bytes) -> None:
    event = b"data: " + KEY[:-1] + end
    assert Mask(spellings(KEY)).feed(event) == event


def test_an_answer_that_ends_within_a_key_does_not_show_its_beginning() -> None:
    assert masked(KEY, b"see " + KEY[:-1]) == b"see " + b"*" * (len(KEY) - 1)
    assert masked(KEY, b"see " + KEY[:12]) == b"see " + b"*" * 12
    assert masked(KEY, b"see " + KEY[:11]) == b"see " + KEY[:11]
    long = KEY * 8
    assert masked(long, long[:PART_BYTES]) == b"*" * PART_BYTES
    assert masked(long, long[: PART_BYTES - 1]) == long[: PART_BYTES - 1]


def test_the_key_is_hidden_in_headers_which_keep_their_order() -> None:
    sent = [(b"X-A", b"1"), (b"Location", b"/?key=" + KEY), (b"X-A", KEY), (b"X-" + KEY, b"")]
    stars = b"*" * len(KEY)
    assert Mask(spellings(KEY)).headers(sent) == [
        (b"X-A", b"1"),
        (b"Location", b"/?key=" + stars),
        (b"X-A", stars),
        (b"X-" + stars, b""),
    ]


def test_a_mask_does_not_say_what_it_hides() -> None:
    assert KEY.decode() not in repr(Mask(spellings(KEY)))


@pytest.mark.parametrize("piece_bytes", [1, 4096])
def test_the_worst_key_costs_no_more_than_a_moment(piece_bytes: int) -> None:
    key = b"a" * 4095 + b"b"
    mask = Mask(spellings(key))
    began_s = time.perf_counter()
    for _ in range(100):
        mask.feed(b"a" * piece_bytes)
    assert time.perf_counter() - began_s < 2.0


class Searched(bytes):
    """Bytes that count how many of them were looked at to find something."""

    looked_at = 0

    def find(self, what: bytes, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        at = super().find(what, start, len(self) if end is None else end)
        Searched.looked_at += (at if at >= 0 else len(self)) - start
        return at


def test_an_answer_full_of_the_key_is_read_once_for_each_spelling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Searched, "looked_at", 0)
    spelled = spellings(ODD)
    assert len(spelled) > 5
    answer = Searched(ODD * 1000)
    assert Mask(spelled).hidden(answer) == b"*" * len(answer)
    assert Searched.looked_at <= (len(spelled) + 1) * len(answer)
