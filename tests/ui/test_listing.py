"""What a list asks of the API, and the addresses around it."""

from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import Request

from proxy.api.lists import query
from proxy.api.params import BadParameter
from proxy.ui.listing import SESSIONS, TRACES, Clause, Listing, Problem, clauses, newest, read

asked: list[str] = []


async def find(request: Request) -> dict[str, Any]:
    """Stand for the API: finds three rows for any query but `nothing`, and refuses a quote.

    Where `far` is in the query it finds nothing in what it looks at first.
    """
    asked.append(request.rel_url.query_string)
    q = request.query.get("q", "")
    query(request, "sessions")
    if request.query.get("limit") == "x":
        raise BadParameter("limit must be an integer")
    found = [] if "nothing" in q or "far" in q else ["a", "b", "c"]
    answer = {"sessions": found, "traces": found, "count": len(found)}
    return answer if "nothing" in q else {**answer, "cursor": "next"}


async def listing(query: str = "") -> Listing:
    asked.clear()
    return await read(make_mocked_request("GET", f"/sessions{query}"), SESSIONS, find)


async def test_an_address_without_a_state_is_the_newest_of_all() -> None:
    found = await listing()
    assert (found.rows, found.q, found.sort_by, found.descending) == (
        ["a", "b", "c"],
        "",
        "last_active",
        True,
    )
    assert found.first
    assert found.takes_new
    assert found.start == "/sessions"
    assert found.next == "/sessions?cursor=next"


async def test_all_state_stays_in_the_addresses_around() -> None:
    found = await listing("?q=a%26b&sort_by=cost&sort_order=asc&limit=7&cursor=x")
    state = "q=a%26b&sort_by=cost&sort_order=asc&limit=7"
    assert not found.first
    assert found.next == f"/sessions?{state}&cursor=next"
    assert found.start == f"/sessions?{state}"
    assert found.without_q == "/sessions?sort_by=cost&sort_order=asc&limit=7"
    assert found.asking("c") == "/sessions?q=c&sort_by=cost&sort_order=asc&limit=7"
    assert found.totals == "/sessions/totals?q=a%26b"


@pytest.mark.parametrize(
    ("query", "key", "address"),
    [
        ("", "cost", "/sessions?sort_by=cost"),
        ("?sort_by=cost", "cost", "/sessions?sort_by=cost&sort_order=asc"),
        ("?sort_by=cost&sort_order=asc", "cost", "/sessions?sort_by=cost"),
        ("?sort_by=cost&sort_order=asc", "tokens", "/sessions?sort_by=tokens"),
        ("?sort_by=cost", "last_active", "/sessions"),
        ("", "last_active", "/sessions?sort_order=asc"),
        ("?q=a&cursor=x", "cost", "/sessions?q=a&sort_by=cost"),
    ],
)
async def test_a_heading_sorts_from_the_most_and_then_from_the_least(
    query: str, key: str, address: str
) -> None:
    assert (await listing(query)).sorted_by(key) == address


@pytest.mark.parametrize("query", ["?cursor=x", "?sort_by=cost", "?sort_order=asc"])
async def test_only_the_beginning_of_the_newest_takes_what_is_new(query: str) -> None:
    assert not (await listing(query)).takes_new


async def test_a_query_that_is_refused_says_why_and_where() -> None:
    found = await listing("?q=a%20%22b")
    assert found.problem is not None
    assert found.problem.message.startswith("q, position 2: expected")
    assert found.problem.position == 2
    assert found.rows == ()
    assert (await listing("?limit=x")).problem == Problem("limit must be an integer", None)


async def test_each_part_of_a_query_is_asked_for_by_itself() -> None:
    request = make_mocked_request("GET", "/sessions?q=model:x%20nothing&sort_by=cost")
    found = await read(request, SESSIONS, find)
    asked.clear()
    assert await clauses(request, found, find) == [
        Clause("model:x", False, "/sessions?q=nothing&sort_by=cost"),
        Clause("nothing", True, "/sessions?q=model:x&sort_by=cost".replace(":", "%3A")),
    ]
    assert [query.split("&")[1] for query in asked] == ["limit=1", "limit=1"]


async def test_a_part_of_which_not_all_was_looked_at_is_not_said_to_match_nothing() -> None:
    request = make_mocked_request("GET", "/sessions?q=far%20nothing")
    found = await read(request, SESSIONS, find)
    assert found.matches_nothing
    assert [part.empty for part in await clauses(request, found, find)] == [None, True]
    assert not (await listing("?q=far")).matches_nothing
    assert not (await listing("?q=nothing&cursor=x")).matches_nothing


async def test_what_is_new_is_asked_for_by_the_same_query() -> None:
    request = make_mocked_request("GET", "/traces/rows?new=a&q=model:x")
    asked.clear()
    assert await newest(request, TRACES, find) == ("a", "b", "c")
    assert asked == ["q=model:x&limit=100"]


@pytest.mark.parametrize(
    ("q", "key", "address"),
    [
        ("", "cost", "/traces?q=since%3A24h&sort_by=cost"),
        ("model:x", "cost", "/traces?q=model%3Ax+since%3A24h&sort_by=cost"),
        ("since:1h", "cost", "/traces?q=since%3A1h&sort_by=cost"),
        ("session:a", "duration", "/traces?q=session%3Aa&sort_by=duration"),
        ("model:x", "started", "/traces?q=model%3Ax&sort_order=asc"),
    ],
)
async def test_traces_are_sorted_otherwise_within_a_time_or_a_session_only(
    q: str, key: str, address: str
) -> None:
    request = make_mocked_request("GET", f"/traces?q={quote(q)}")
    assert (await read(request, TRACES, find)).sorted_by(key) == address


@pytest.mark.parametrize(
    ("q", "address"),
    [
        ("", "/traces?limit=7"),
        ("model:x", "/traces?q=model%3Ax&limit=7"),
        ("since:1h", "/traces?q=since%3A1h&sort_by=cost&sort_order=asc&limit=7"),
    ],
)
async def test_traces_keep_their_order_only_with_a_query_that_may_have_it(
    q: str, address: str
) -> None:
    asks = "/traces?q=since:24h&sort_by=cost&sort_order=asc&limit=7"
    found = await read(make_mocked_request("GET", asks), TRACES, find)
    assert found.asking(q) == address
    assert found.without_q == found.asking("")
    newest_last = make_mocked_request("GET", "/traces?q=a&sort_order=asc")
    assert (await read(newest_last, TRACES, find)).without_q == "/traces?sort_order=asc"
