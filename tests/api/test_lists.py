"""What a list is asked for, and the cursor that goes on with that list and no other."""

import contextlib
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.api import lists
from proxy.api.lists import BadQuery
from proxy.api.params import BadParameter
from storage.clauses import Name, Query, Rows
from storage.listing import ORDERS, Order
from storage.records import Page

PLACES = st.tuples(st.integers(-1, 2**62 - 1), st.integers(0, 2**62 - 1))


def asked(**query: str) -> web.Request:
    return make_mocked_request("GET", f"/api/sessions?{urlencode(query, errors='replace')}")


def cursor(place: tuple[int, int] | None, rows: Rows = "sessions", **query: str) -> str | None:
    return lists.asked(asked(**query), rows).cursor(Page((), place))


def test_a_list_has_its_order_and_fifty_rows_unless_others_are_said() -> None:
    found = lists.asked(asked(), "sessions")
    assert (found.query, found.order) == (Query("sessions"), Order("last_active"))
    assert (found.limit, found.after) == (50, None)
    assert lists.asked(asked(), "traces").order == Order("started")
    found = lists.asked(asked(sort_by="cost", sort_order="asc", limit="3"), "sessions")
    assert (found.order, found.limit) == (Order("cost", descending=False), 3)


@pytest.mark.parametrize("by", ["", "COST", "session_id", "cost; DROP TABLE sessions", "x" * 99])
def test_any_other_order_is_a_mistake_that_says_what_it_could_be(by: str) -> None:
    for rows in ORDERS:
        with pytest.raises(BadParameter, match=f"one of {', '.join(ORDERS[rows])}, not") as raised:
            lists.asked(asked(sort_by=by), rows)
        assert raised.value.name == "sort_by"


@pytest.mark.parametrize("order", ["", "DESC", "down", "asc "])
def test_a_list_goes_up_or_down(order: str) -> None:
    with pytest.raises(BadParameter, match="sort_order must be asc or desc"):
        lists.asked(asked(sort_order=order), "sessions")


def test_more_conditions_are_added_to_those_of_the_query() -> None:
    found = lists.asked(asked(q="cost:>1"), "traces", Name("session", "s"))
    assert str(found.query) == "cost:>1 session:s"


def test_a_query_that_is_none_says_where() -> None:
    with pytest.raises(BadQuery, match="q, position 2: expected one of the keys") as raised:
        lists.asked(asked(q="a foo:bar"), "sessions")
    assert (raised.value.position, raised.value.name) == (2, "q")


@settings(deadline=None)
@given(PLACES, st.sampled_from(sorted(ORDERS)), st.sampled_from(["", "a", "since:5m", 'b  "c"']))
def test_a_cursor_is_read_as_it_was_written(place: tuple[int, int], rows: Rows, q: str) -> None:
    text = cursor(place, rows, q=q, sort_by="cost")
    assert text is not None
    assert lists.asked(asked(q=q, sort_by="cost", cursor=text), rows).after == place


def test_the_beginning_and_the_end_have_no_cursor() -> None:
    assert lists.asked(asked(cursor=""), "sessions").after is None
    assert cursor(None) is None


def test_ages_are_counted_from_the_first_page_in_all_that_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.api.lists.now_us", lambda: 1_000)
    text = cursor((1, 2), q="since:5m")
    monkeypatch.setattr("proxy.api.lists.now_us", lambda: 2_000)
    assert text is not None
    assert lists.asked(asked(q="since:5m", cursor=text), "sessions").now_us == 1_000
    assert lists.asked(asked(q="since:5m"), "sessions").now_us == 2_000


def test_the_same_query_in_other_words_goes_on_with_the_same_cursor() -> None:
    text = cursor((1, 2), q="COST:>0.50   word")
    assert text is not None
    assert lists.asked(asked(q='cost:>0.5 "word"', cursor=text), "sessions").after == (1, 2)


@pytest.mark.parametrize(
    ("rows", "query"),
    [
        ("sessions", {"q": "cost:>1", "sort_by": "cost"}),
        ("sessions", {"q": "cost:>2", "sort_by": "tokens"}),
        ("sessions", {"q": "cost:>2", "sort_by": "cost", "sort_order": "asc"}),
        ("traces", {"q": "cost:>2", "sort_by": "cost"}),
    ],
)
def test_a_cursor_of_another_list_is_a_mistake(rows: Rows, query: dict[str, Any]) -> None:
    text = cursor((1, 2), q="cost:>2", sort_by="cost")
    with pytest.raises(BadParameter, match="cursor is of a list with another q, filter"):
        lists.asked(asked(**query, cursor=str(text)), rows)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "x",
            "1:2",
            "\xff",
            "é",
            "MTo",
            "LTE6Mg",
            "MTox\n",
            "MToy" * 100,
            "2aE6MQ",
            "A" * 100_000,
        ),
        "OTIyMzM3MjAzNjg1NDc3NTgwODoxOjE6MDAwMDAwMDAwMDAwMDAwMA",  # 2^63:1:1:0000000000000000
        "MToyOjM6eA",  # 1:2:3:x
    ],
)
def test_a_cursor_that_no_page_gave_is_a_mistake(text: str) -> None:
    with pytest.raises(BadParameter, match="cursor must be the one that an earlier page gave"):
        lists.asked(asked(cursor=text), "sessions")


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_any_cursor_is_read_or_is_a_mistake(text: str) -> None:
    with contextlib.suppress(BadParameter):
        assert lists.asked(asked(cursor=text), "sessions").after is None


@settings(deadline=None)
@given(st.text(), st.sampled_from(sorted(ORDERS)))
def test_any_query_is_read_or_is_a_mistake(text: str, rows: Rows) -> None:
    with contextlib.suppress(BadQuery):
        assert lists.query(asked(q=text), rows).rows == rows
