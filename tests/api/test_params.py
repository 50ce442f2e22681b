"""Query parameters and ids, read strictly."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
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
    ("query", "found"),
    [("", None), ("id=0a", (b"\n",)), ("id=0a,ff,0a", (b"\n", b"\xff", b"\n"))],
)
def test_ids_have_commas_between(query: str, found: tuple[bytes, ...] | None) -> None:
    assert params.ids(asked(query), 2) == found


@pytest.mark.parametrize("text", ["", ",", "0a,", "0A", "0a,x", ",".join(["0a"] * 101)])
def test_what_is_no_list_of_ids_is_a_mistake_that_says_what_it_could_be(text: str) -> None:
    with pytest.raises(BadParameter, match="id must be up to 100 ids of 2 hex digits"):
        params.ids(asked(f"id={text}"), 2)


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
