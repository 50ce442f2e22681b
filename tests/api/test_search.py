"""Completion over HTTP, and any query at all: an answer or a 400, never a 5xx."""

from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.api.lists import query
from storage.listing import ORDERS
from storage.search import KEYS, MAX_CHARS, parse
from tests.api.asking import ask, save
from tests.running import Running
from tests.storage.calls import end, start

PATHS = st.sampled_from(
    [
        *("/api/sessions", "/api/traces", "/api/spans", "/api/sessions/totals"),
        *("/api/traces/totals", "/api/search/suggest"),
    ]
)
PIECES = st.sampled_from(
    [
        *(f"{key}:" for key in KEYS),
        *(
            "-",
            '"',
            "\\",
            "*",
            "..",
            ">",
            "<=",
            " ",
            "0.5",
            "10k",
            "5m",
            "99999999d",
            "true",
            "failed",
        ),
        *("2026-01-01", "0001-01-01", "9999-12-31T23:59:59Z", "word", "s", "\0", "'", "%", ":q0"),
    ]
)
QUERIES = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=10).map("".join))
SORTS = st.sampled_from(sorted({by for rows in ORDERS for by in ORDERS[rows]}))


@settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(PATHS, QUERIES, SORTS, st.sampled_from(["asc", "desc"]))
async def test_no_query_makes_an_error_of_ours(
    tw: Running, path: str, q: str, by: str, order: str
) -> None:
    asked = urlencode({"q": q, "sort_by": by, "sort_order": order}, errors="replace")
    reply = await ask(tw, f"{path}?{asked}")
    assert reply.status in (200, 400), reply.body


async def suggested(tw: Running, q: str, **more: Any) -> Any:
    reply = await ask(tw, f"/api/search/suggest?{urlencode({'q': q, **more})}")
    assert reply.status == 200
    return reply.body


async def test_a_query_is_completed_where_its_cursor_is(tw: Running) -> None:
    await save(tw, end(start(1, session_id="s"), model="gpt-5"))
    assert await suggested(tw, "hi mod") == {
        "start": 3,
        "end": 6,
        "suggestions": [{"text": "model:", "meaning": KEYS["model"].meaning}],
    }
    assert await suggested(tw, "model:g cost:>1", at=7) == {
        "start": 0,
        "end": 7,
        "suggestions": [{"text": "model:gpt-5", "meaning": None}],
    }
    assert (await suggested(tw, "trac", rows="traces"))["suggestions"] == []


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ("q=a&at=2", "at"),
        ("q=a&at=-1", "at"),
        ("q=a&at=x", "at"),
        ("q=a&at=%D9%A1", "at"),
        ("rows=users", "rows"),
        (f"q={'a' * (MAX_CHARS + 1)}", "q"),
    ],
)
async def test_a_place_outside_of_the_query_is_a_mistake(
    tw: Running, asked: str, param: str
) -> None:
    reply = await ask(tw, f"/api/search/suggest?{asked}")
    assert reply.error == (400, "bad_parameter")
    assert reply.body["error"]["param"] == param


async def test_what_is_suggested_is_accepted(tw: Running) -> None:
    await save(tw, end(start(1, session_id='say "hi"'), user_id="a b", model="x*"))
    for key in KEYS:
        for one in (await suggested(tw, f"-{key}:"))["suggestions"]:
            assert (await ask(tw, f"/api/sessions?q={quote(one['text'])}")).status == 200
            assert parse(one["text"]).conditions[0].negated
    assert query.__module__ == "proxy.api.lists"
