"""The filters of GET /api/spans: what each finds, together and with `q`, and what is a mistake."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import lists, span_filters
from proxy.api.params import BadParameter
from proxy.api.span_filters import PARAMETERS, filters
from storage.clauses import Query
from storage.records import FAILED, Page, Tokens
from tests.api.asking import ask, pages, save
from tests.api.test_lists import asked as request
from tests.running import Running
from tests.storage.calls import end, start, trace_id
from tests.ui.story import Story, assistant, user

SECOND_US = 1_000_000


async def names(tw: Running, query: str) -> list[str]:
    reply = await ask(tw, f"/api/spans?{query}")
    assert reply.status == 200, reply.body
    return sorted(span["name"] for span in reply.body["spans"])


async def fill(tw: Running) -> None:
    """Save four spans, each of which is different in every way."""
    await save(
        tw,
        end(
            start(1, session_id="s", name="Find docs", provider="openai"),
            model="gpt-5",
            duration_us=2 * SECOND_US,
            tokens=Tokens(input=10, output=10),
            cost_nusd=500_000_000,
        ),
        end(
            start(2, trace=1, session_id="s", name="find", provider="other"),
            model="gpt-5-mini",
            state=FAILED,
            duration_us=1500,
            tokens=Tokens(input=5),
            cost_nusd=1,
        ),
        end(start(3, name="answer 100%", provider="openai"), model="o4", duration_us=SECOND_US),
        start(4, name="runs"),
    )
    await tw.server.recorder.write(
        lambda tx: tx.execute(
            "UPDATE spans SET kind = 'custom', label = 'rerank' WHERE name = 'answer 100%'", {}
        )
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (f"trace_id={trace_id(1).hex()}", ["Find docs", "find"]),
        ("session_id=s", ["Find docs", "find"]),
        ("model=gpt-5", ["Find docs"]),
        ("model=gpt*", ["Find docs", "find"]),
        ("provider=openai", ["Find docs", "answer 100%"]),
        ("status=failed", ["find"]),
        ("status=running", ["runs"]),
        ("kind=llm_call", ["Find docs", "find", "runs"]),
        ("kind=rerank", ["answer 100%"]),
        ("kind=custom", ["answer 100%"]),
        ("kind=retrieval", []),
        ("since=2023-11-14T22:13:22.5Z", ["Find docs", "answer 100%", "runs"]),
        ("until=2023-11-14T22:13:22Z", ["Find docs", "find"]),
        ("since=1s", []),
        ("name_contains=FIND", ["Find docs", "find"]),
        ("name_contains=0%25", ["answer 100%"]),
        ("name_contains=_", []),
        ("duration_min=1000", ["Find docs", "answer 100%"]),
        ("duration_min=1.5&duration_max=1s", ["answer 100%", "find"]),
        ("duration_max=1.499", []),
        ("tokens_min=15", ["Find docs", "answer 100%"]),
        ("cost_min=0.5", ["Find docs"]),
        ("cost_min=0", ["Find docs", "answer 100%", "find"]),
        ("model=gpt*&status=completed", ["Find docs"]),
        ("model=gpt*&q=-status:failed", ["Find docs"]),
        ("q=model:o4&provider=other", []),
    ],
)
async def test_a_filter_finds_spans_and_all_of_them_with_the_query_must_hold(
    tw: Running, query: str, found: list[str]
) -> None:
    await fill(tw)
    assert await names(tw, query) == found


async def test_a_text_is_found_in_messages_that_were_saved_just_before(tw: Running) -> None:
    story = Story(tw, "s")
    await story.turn(user("where is my order"), assistant("it left the house"))
    await story.turn(user("thank you"), assistant("welcome"))
    for text, number in (("my order", 1), ("order my", 0), ("LEFT", 1), ("welcome", 1)):
        assert len(await names(tw, f"text_contains={text.replace(' ', '+')}")) == number, text


@pytest.mark.parametrize(
    "narrow", [f"trace_id={trace_id(1).hex()}", "session_id=s", "since=100000d"]
)
async def test_a_filter_that_bounds_the_list_lets_it_be_sorted_by_figures(
    tw: Running, narrow: str
) -> None:
    await fill(tw)
    reply = await ask(tw, f"/api/spans?{narrow}&name_contains=f&sort_by=cost&sort_order=asc")
    assert [span["name"] for span in reply.body["spans"]] == ["find", "Find docs"]
    assert (await ask(tw, "/api/spans?model=gpt-5&sort_by=cost")).error == (400, "bad_parameter")


async def test_pages_of_a_filtered_list_hold_each_span_once(tw: Running) -> None:
    await save(tw, *(end(start(n), model=f"m{n % 2}") for n in range(1, 10)))
    met = []
    async for page in pages(tw, "/api/spans?model=m1&limit=2", "spans"):
        met += [span["name"] for span in page]
    assert met == [f"call {n}" for n in (9, 7, 5, 3, 1)]


VALUES = {
    **{"trace_id": ("0" * 32, "1" * 32), "session_id": ("a", "b"), "model": ("a", "a*")},
    **{"provider": ("a", "b"), "status": ("failed", "running"), "kind": ("custom", "rerank")},
    **{"since": ("1h", "2h"), "until": ("1h", "2h"), "name_contains": ("a", "b")},
    **{"text_contains": ("a", "b"), "duration_min": ("1", "2"), "duration_max": ("1", "2")},
    **{"tokens_min": ("1", "2"), "cost_min": ("1", "2")},
}


def cursor(**query: str) -> str:
    made = request(**query)
    return lists.asked(made, "spans", *filters(made)).cursor(Page((), (1, 1))) or ""


@pytest.mark.parametrize("name", [parameter.name for parameter in PARAMETERS])
def test_a_cursor_goes_on_with_its_own_filter_and_no_other(name: str) -> None:
    one, other = VALUES[name]
    for before, asks in (({}, {name: one}), ({name: one}, {}), ({name: one}, {name: other})):
        made = request(cursor=cursor(**before), **asks)
        with pytest.raises(BadParameter, match="cursor is of a list with another"):
            lists.asked(made, "spans", *filters(made))
    made = request(cursor=cursor(**{name: one}), **{name: one})
    assert lists.asked(made, "spans", *filters(made)).after == (1, 1)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("trace_id=ABC", "trace_id must be 32 lower-case hex digits, not 'ABC'"),
        ("status=done", "status must be one of running, completed, failed, truncated"),
        ("kind=", "kind must be a name, or its beginning and \\*, of 1 to 2000 characters, not ''"),
        ("model=+", "model must be a name"),
        ("session_id=", "session_id must be an id"),
        ("name_contains=", "name_contains must be a text"),
        (f"text_contains={'x' * 2001}", "text_contains must be a text"),
        ("since=yesterday", "since must be a time such as 5m"),
        ("until=9999-12-31T23:59:59-10:00", "until must be a time"),
        ("duration_min=-1", "duration_min must be milliseconds such as 500 or 1.125"),
        ("duration_max=1.00000001", "duration_max must be milliseconds"),
        ("tokens_min=1.5", "tokens_min must be a whole number"),
        ("cost_min=$1", "cost_min must be USD such as 0.5, not '\\$1'"),
    ],
)
async def test_a_mistake_names_the_parameter_and_what_it_takes(
    tw: Running, query: str, expected: str
) -> None:
    reply = await ask(tw, f"/api/spans?{query}")
    assert reply.error == (400, "bad_parameter")
    assert reply.body["error"]["param"] == query.partition("=")[0]
    assert re.match(expected, reply.body["error"]["message"])


@given(st.sampled_from([parameter.name for parameter in PARAMETERS]), st.text(max_size=40))
def test_any_text_is_read_or_is_a_mistake(name: str, text: str) -> None:
    with contextlib.suppress(BadParameter):
        (condition,) = filters(request(**{name: text}))
        assert Query("spans", (condition,)) != Query("spans")


def test_the_description_has_every_filter() -> None:
    assert set(VALUES) == set(span_filters._FILTERS) == {one.name for one in PARAMETERS}
