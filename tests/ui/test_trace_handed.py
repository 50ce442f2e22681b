"""A trace that an application told of, in a real browser: its kinds, its values, its arrival."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.api.asking import save
from tests.running import Running, running
from tests.storage.calls import end, span_id, start, trace_id
from tests.ui.agents import Agent, mark
from tests.ui.looking import findings, width
from tests.ui.test_trace import facts

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = [
    *("span", "chain", "file read", "embedding", "retrieval", "reranker", "model call"),
    *("tool call", "tool call", "file write"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    """A trace with a span of every kind, for all tests that only read it."""
    async with running(tmp_path_factory.mktemp("agent"), "http://127.0.0.1:9") as tw:
        told = Agent(tw)
        await told.every_kind()
        yield told


async def show(agent: Agent, page: Page, number: int, more: str = "") -> None:
    """Open the page at one of its spans."""
    span = agent.spans[number].hex()
    await page.goto(f"{agent.tw.url}{agent.path}?span={span}{more}")


async def test_every_kind_has_a_bar_a_glyph_and_a_word(agent: Agent, page: Page) -> None:
    await page.goto(agent.tw.url + agent.path)
    rows = page.locator(".tree li")
    assert [await word.inner_text() for word in await rows.locator(".kind").all()] == WORDS
    await expect(rows.locator(".kind svg path")).to_have_count(len(WORDS))
    await expect(rows.locator("rect.bar-of")).to_have_count(len(WORDS))
    glyphs = {await path.get_attribute("d") for path in await rows.locator(".kind path").all()}
    assert len(glyphs) == 7
    depths = [await row.get_attribute("class") for row in await rows.all()]
    assert depths == ["d0", "d1", "d2", "d2", "d2", "d2", "d1", "d1", "d1", "d1"]
    await expect(page.locator("#head h1 > bdi")).to_have_text("chat-turn")
    await expect(page.get_by_role("list", name="Tags").locator("li")).to_have_text(
        ["beta", "eu-west"]
    )


async def test_a_message_is_shown_as_one_and_a_text_as_text(agent: Agent, page: Page) -> None:
    await show(agent, page, 6)
    found = await facts(page)
    assert (found["Type"], found["Told by"]) == ("llm_call", "its application")
    assert (found["Input tokens"], found["Tokens from"]) == ("688", "reported")
    who = page.get_by_role("region", name="Input").locator(".who")
    await expect(who).to_have_text(["System", "User"])
    bold = page.get_by_role("region", name="Output").locator("strong:not(.who)")
    await expect(bold).to_have_text("lost on its way")
    await show(agent, page, 0)
    text = page.get_by_role("region", name="Input").locator(".plain")
    await expect(text).to_have_text("Where is my order 88213, and what do I get back?")
    metadata = page.get_by_role("region", name="Metadata")
    await expect(metadata.locator("pre")).to_contain_text('"arm": "b"')


async def test_any_other_value_is_json_and_no_tokens_are_shown(agent: Agent, page: Page) -> None:
    await show(agent, page, 4)
    await expect(page.get_by_role("region", name="Output").locator("pre")).to_contain_text(
        '"score": 0.91,'
    )
    await expect(page.get_by_role("region", name="Attributes").locator("pre")).to_contain_text(
        '"top_k": 3,'
    )
    await expect(page.get_by_role("heading", name="Usage and cost")).to_have_count(0)
    await show(agent, page, 5)
    assert (await facts(page))["Kind"] == "reranker"
    await expect(page.get_by_role("region", name="Input")).to_have_count(0)
    await show(agent, page, 7)
    await expect(page.locator(".problem-box")).to_contain_text("Failed")
    await expect(page.locator(".problem-box")).to_contain_text("TimeoutError: the shop did not")


async def test_what_was_no_call_is_no_command(agent: Agent, page: Page) -> None:
    await show(agent, page, 6)
    await expect(page.get_by_role("link", name="Copy JSON")).to_be_visible()
    await expect(page.get_by_role("link", name="Copy as curl")).to_have_count(0)
    async with agent.tw.client.get(f"{agent.tw.url}/spans/{agent.spans[6].hex()}/curl") as answer:
        assert answer.status == 404


async def test_raw_values_are_those_that_were_handed_in(agent: Agent, page: Page) -> None:
    await show(agent, page, 0, "&view=raw")
    shown = page.get_by_role("region", name="Input").locator("pre")
    assert await shown.inner_text() == '"Where is my order 88213, and what do I get back?"'
    await expect(page.get_by_role("region", name="Metadata")).to_contain_text("shop-eu")
    await expect(page.get_by_role("region", name="Request headers")).to_have_count(0)


async def test_a_trace_without_spans_shows_its_head_and_fills_up(tw: Running, page: Page) -> None:
    agent = Agent(tw, session=None)
    await agent.open("nightly", tags=("batch",))
    await page.goto(tw.url + agent.path)
    await expect(page.locator("#head h1 > bdi")).to_have_text("nightly")
    await expect(page.locator("#head .badge")).to_have_text("running")
    await expect(page.locator("#none")).to_contain_text("No span has come yet")
    await expect(page.locator("#live")).to_have_text("Live")
    root = await agent.span("root", took_s=3)
    await expect(page.locator(".tree li")).to_have_count(1)
    await expect(page.locator("#none")).to_have_count(0)
    await agent.span("search", "retrieval", parent=root, at_s=1)
    await expect(page.locator(".tree li.d1 .kind")).to_have_text("retrieval")


async def test_the_span_that_is_read_stays_when_an_older_one_comes(tw: Running, page: Page) -> None:
    agent = Agent(tw)
    child = await agent.span("child", "tool_call", at_s=2, answered="kept")
    await page.goto(tw.url + agent.path)
    await expect(page.locator("#live")).to_have_text("Live")
    await agent.span("parent", took_s=5)
    await expect(page.locator(".tree li")).to_have_count(2)
    shown = page.locator(".tree a[aria-current]")
    await expect(shown).to_contain_text("child")
    assert (await facts(page))["Span id"] == child.hex()


async def test_a_long_tree_is_open_at_the_span_that_is_read_and_stays_there(
    tw: Running, page: Page
) -> None:
    agent = Agent(tw)
    spans = [await agent.span(f"step {n}", at_s=n) for n in range(60)]
    await page.goto(f"{tw.url}{agent.path}?span={spans[40].hex()}")
    await expect(page.locator("#live")).to_have_text("Live")
    shown = page.locator(".tree a[aria-current]")
    await expect(shown).to_be_in_viewport()
    assert await page.evaluate("scrollY") == 0
    at = await page.locator(".tree ol").evaluate("one => one.scrollTop")
    assert at > 0
    await agent.span("last", at_s=99)
    await expect(page.locator(".tree li")).to_have_count(61)
    assert await page.locator(".tree ol").evaluate("one => one.scrollTop") == at


async def test_two_spans_of_one_call_lead_to_each_other(tw: Running, page: Page) -> None:
    agent = Agent(tw)
    told = await agent.span("ask the model", "llm_call", took_s=3, tokens=(10, 5))
    passed = start(7, parent_id=told, name="gpt-5", method="POST")
    passed = replace(passed, trace_id=agent.trace_id)
    await save(tw, end(passed))
    await mark(tw, told, passed.span_id)
    await page.goto(f"{tw.url}{agent.path}?span={told.hex()}")
    await expect(page.locator("#counted")).to_contain_text("Counted with the call gpt-5")
    await expect(page.locator(".tree rect.twin")).to_have_count(1)
    await page.locator("#counted a").click()
    assert (await facts(page))["Span id"] == span_id(7).hex()
    await expect(page.locator("#told")).to_contain_text("tells of this call as well: ask the model")
    await page.locator("#told a").click()
    assert (await facts(page))["Span id"] == told.hex()


async def test_a_trace_leads_to_the_one_that_its_call_named(tw: Running, page: Page) -> None:
    named = Agent(tw, 2, session="other")
    await named.span("there")
    await save(tw, end(start(1, session_id="s")))
    await tw.server.recorder.write(
        lambda tx: tx.execute(
            "UPDATE traces SET linked_trace_id = :t WHERE session_id = 's'", {"t": named.trace_id}
        )
    )
    (trace,) = (await tw.api("/api/traces?session_id=s"))["traces"]
    assert trace["linked_trace_id"] == named.trace_id.hex()
    await page.goto(f"{tw.url}/traces/{trace['id']}")
    await page.get_by_role("link", name="another trace").click()
    await expect(page).to_have_url(tw.url + named.path)


async def test_a_span_beyond_those_of_the_tree_is_shown(
    tw: Running, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.ui.trace.MAX_SPANS", 2)
    agent = Agent(tw)
    for n in range(4):
        last = await agent.span(f"step {n}", at_s=n)
    await page.goto(f"{tw.url}{agent.path}?span={last.hex()}")
    assert (await facts(page))["Span id"] == last.hex()
    await expect(page.locator(".tree")).to_contain_text("The first 2 of 4 spans.")
    other = Agent(tw, 2)
    stranger = await other.span("elsewhere")
    async with tw.client.get(f"{tw.url}{agent.path}?span={stranger.hex()}") as answer:
        assert answer.status == 404


async def test_nothing_shuts_people_out(agent: Agent, page: Page) -> None:
    for scheme in ("light", "dark"):
        await page.emulate_media(
            color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
        )
        for number, more in ((0, ""), (4, ""), (6, ""), (7, ""), (0, "&view=raw")):
            await show(agent, page, number, more)
            assert await findings(page) == [], (scheme, number, more)


async def test_it_fits_a_narrow_screen(agent: Agent, page: Page) -> None:
    await page.set_viewport_size({"width": 360, "height": 780})
    for number, more in ((0, ""), (4, ""), (6, ""), (0, "&view=raw")):
        await show(agent, page, number, more)
        assert await width(page) == 360, (number, more)


@pytest.mark.parametrize(
    "session",
    [{}, {"session_id": "agent"}, {"session_id": "other", "session_source": "metadata"}],
    ids=["none", "the same", "another"],
)
async def test_a_call_that_moves_into_another_trace_is_followed_there(
    tw: Running, page: Page, session: dict[str, str]
) -> None:
    agent = Agent(tw)
    await save(tw, end(start(1, external_trace_id=agent.trace_id, **session)))
    await page.goto(f"{tw.url}/traces/{trace_id(1).hex()}")
    await expect(page.locator("#live")).to_have_text("Live")
    await agent.span("root", took_s=3)
    await expect(page.locator(".tree li")).to_have_count(2)
    await expect(page.locator("#live")).to_have_text("Live")
    await agent.span("search", "retrieval", at_s=1)
    await expect(page.locator(".tree li")).to_have_count(3)
    assert (await facts(page))["Span id"] == span_id(1).hex()
