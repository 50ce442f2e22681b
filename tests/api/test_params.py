"""Query parameters and ids, read strictly."""

import contextlib
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import params
from proxy.api.params import BadParameter

INT64 = st.integers(0, 2**63 - 1)


def asked(query: str) -> web.Request:
    return make_mocked_request("GET", f"/api/sessions?{query}")


@pytest.mark.parametrize(("query", "limit"), [("", 50), ("limit=1", 1), ("limit=1000", 1000)])
def test_a_limit_goes_from_1_to_1000_and_is_50_unless_it_is_said(query: str, limit: int) -> None:
    assert params.limit(asked(query)) == limit


@pytest.mark.parametrize(
    "text",
    ["", "0", "1001", "-1", "+5", "5.0", "1e3", "0x10", "ten", "%D9%A5", "5%20", "9" * 5000, "%00"],
)
def test_any_other_limit_is_a_mistake_that_says_what_it_could_be(text: str) -> None:
    with pytest.raises(BadParameter, match="limit must be an integer from 1 to 1000"):
        params.limit(asked(f"limit={text}"))


def test_a_list_may_have_another_limit() -> None:
    assert params.limit(asked(""), 7, 9) == 7
    with pytest.raises(BadParameter, match="from 1 to 9"):
        params.limit(asked("limit=10"), 7, 9)


@pytest.mark.parametrize(
    ("q", "terms"),
    [
        ("", ()),
        ("  ", ()),
        ("weather", ("weather",)),
        (' weather  in "New York" ', ("weather", "in", "New York")),
        ('a"b c"d', ("a", "b c", "d")),
        ('"" " " x', ("x",)),
        (
            "http://host:80/a?b 12:30 c++ foo:bar -x",
            ("http://host:80/a?b", "12:30", "c++", "foo:bar", "-x"),
        ),
        ('"model:gpt" models:', ("model:gpt", "models:")),
        ("日本 élan", ("日本", "élan")),
    ],
)
def test_a_search_is_words_and_phrases(q: str, terms: tuple[str, ...]) -> None:
    assert params.search(asked(urlencode({"q": q}))) == terms


@pytest.mark.parametrize(
    ("q", "why"),
    [
        ("a model:gpt-5", "character 3: model: is not searched by yet"),
        ("-status:failed", "character 1: status: is not"),
        ('session:"a b"', "character 1: session: is not"),
        ("COST:>1", "character 1: COST: is not"),
        ('a "b', "character 3: a quote is opened and not closed"),
        ('a "b" "', "character 7: a quote"),
        ("x " * 33, "q has 33 words and phrases; it may have 32"),
    ],
)
def test_a_search_that_is_not_possible_says_where_and_why(q: str, why: str) -> None:
    with pytest.raises(BadParameter, match=why):
        params.search(asked(urlencode({"q": q})))


@given(st.text())
def test_any_search_is_terms_or_a_mistake(q: str) -> None:
    with contextlib.suppress(BadParameter):
        terms = params.search(asked(urlencode({"q": q}, errors="replace")))
        assert all(term.strip() == term != "" for term in terms)


@given(INT64, INT64)
def test_a_cursor_is_read_as_it_was_written(time_us: int, seq: int) -> None:
    text = params.encode_cursor((time_us, seq))
    assert params.cursor(asked(f"cursor={text}")) == (time_us, seq)


def test_no_cursor_is_the_beginning_and_the_end_has_none() -> None:
    assert params.cursor(asked("")) is None
    assert params.cursor(asked("cursor=")) is None
    assert params.encode_cursor(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "1:2",
        "%FF",
        "%C3%A9",
        "MTo",  # 1:
        "LTE6Mg",  # -1:2
        "MTox%0A",
        "MToy" * 100,
        "OTIyMzM3MjAzNjg1NDc3NTgwODox",  # 2^63:1
        "2aE6MQ",  # a digit that is not ASCII
        "A" * 100_000,
    ],
)
def test_a_cursor_that_no_page_gave_is_a_mistake(text: str) -> None:
    with pytest.raises(BadParameter, match="cursor must be the one that an earlier page gave"):
        params.cursor(asked(f"cursor={text}"))


@given(st.text(st.characters(codec="utf-8")))
def test_any_cursor_is_read_or_is_a_mistake(text: str) -> None:
    request = asked("")
    request = request.clone(rel_url=request.rel_url.with_query(cursor=text))
    with contextlib.suppress(BadParameter):
        params.cursor(request)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("00ff", b"\x00\xff"),
        ("00FF", None),
        ("0ff", None),
        ("000ff", None),
        ("0x0f", None),
        ("\u0660\u0660\u0660\u0661", None),
        ("", None),
    ],
)
def test_an_id_is_so_many_lower_case_hex_digits(text: str, found: bytes | None) -> None:
    assert params.hex_id(text, 4) == found
