"""A session of traces that an application told of, in a real browser: turns, figures, timeline."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from storage import breakdown
from tests.api.asking import save
from tests.running import Running, running
from tests.storage.calls import end, start
from tests.ui.agents import Agent
from tests.ui.looking import findings, width
from tests.ui.story import MODEL, T0, S

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    """A session of one such trace, for all tests that only read it."""
    async with running(tmp_path_factory.mktemp("agent"), "http://127.0.0.1:9") as tw:
        told = Agent(tw)
        await told.every_kind()
        yield told


async def test_a_trace_of_many_spans_is_one_turn(agent: Agent, page: Page) -> None:
    await page.goto(f"{agent.tw.url}/sessions/agent")
    await expect(page.locator(".strip a title")).to_have_count(1)
    who = page.locator(".message .who")
    await expect(who).to_have_text(["Prompt", "User", "Assistant"])
    await expect(page.locator(".message .turn")).to_have_text(["#1", "#1", "#1"])
    outcome = page.locator(".outcome")
    await expect(outcome).to_contain_text("688 → 52 tokens")
    await expect(outcome).not_to_contain_text("first token")
    await expect(outcome.get_by_role("link", name="Copy as curl")).to_have_count(0)
    await outcome.get_by_role("link", name="Trace").click()
    await expect(page.locator(".tree a[aria-current]")).to_contain_text("gpt-4o-mini")


async def test_shares_of_models_are_of_what_is_billed(agent: Agent, page: Page) -> None:
    await page.goto(f"{agent.tw.url}/sessions/agent")
    await page.locator("#by-model summary").click()
    rows = page.locator("#by-model tbody tr")
    await expect(rows.locator("th")).to_have_text([MODEL, "text-embedding-3-small"])
    await expect(rows.locator("td:nth-child(2)")).to_have_text(["1", "1"])
    session = await agent.tw.api("/api/sessions/agent")
    tokens = page.locator("[data-metric=tokens] .big")
    await expect(tokens).to_have_text(f"{session['total_tokens']:,}")
    assert session["total_tokens"] == 688 + 52 + 14


async def test_the_timeline_shows_turns_and_calls_and_leads_to_them(
    agent: Agent, page: Page
) -> None:
    await page.goto(f"{agent.tw.url}/sessions/agent?view=timeline")
    rows = page.locator(".waterfall li")
    await expect(rows.locator(".lane-name a")).to_have_text(["chat-turn", "gpt-4o-mini"])
    await expect(rows.locator("rect.bar-of.custom")).to_have_count(1)
    await rows.locator(".lane-name a").nth(1).click()
    await expect(page.locator(".tree a[aria-current]")).to_contain_text("gpt-4o-mini")


async def test_a_call_that_was_seen_twice_is_one_turn(tw: Running, page: Page) -> None:
    asked = [{"role": "user", "content": "hi"}]
    for number, marked in ((1, False), (2, True)):
        agent = Agent(tw, number, session=f"marked {marked}")
        told = await agent.span(
            *("ask", "llm_call"),
            took_s=3,
            asked=asked,
            answered="hello",
            tokens=(10, 5),
            model="gpt-5",
        )
        parent_id = told if marked else None
        passed = start(7 + number, parent_id=parent_id, started_at_us=agent.at_us + S, name="gpt-5")
        passed = replace(passed, trace_id=agent.trace_id)
        await save(tw, end(passed, model="gpt-5", usage_source="provider"))
    # Of the call that passed no messages are kept here.
    for session, outcomes, calls in (("marked False", 1, "2"), ("marked True", 0, "1")):
        await page.goto(f"{tw.url}/sessions/{session}")
        await expect(page.locator(".outcome")).to_have_count(outcomes)
        await page.locator("#by-model summary").click()
        await expect(page.locator("#by-model tbody td:nth-child(2)")).to_have_text(calls)
    await page.goto(f"{tw.url}/sessions/marked True?view=timeline")
    await expect(page.locator(".waterfall rect.bar-of")).to_have_count(2)


async def test_a_trace_without_spans_counts_on_every_view(tw: Running, page: Page) -> None:
    agent = Agent(tw)
    await agent.open("nightly")
    await page.goto(f"{tw.url}/sessions/agent")
    await expect(page.locator("[data-metric=traces] .big")).to_have_text("1")
    await expect(page.locator("#live")).to_have_text("Live")
    await agent.span("step", "tool_call")
    await expect(page.locator("[data-metric=traces] .parts")).to_contain_text("1 running")
    for view in ("traces", "timeline"):
        await page.goto(f"{tw.url}/sessions/agent?view={view}")
        await expect(page.locator("#view")).to_contain_text(
            "nightly" if view == "traces" else "step"
        )
        await expect(page.get_by_role("link", name="Next")).to_have_count(0)


async def test_a_session_without_messages_shows_its_traces_until_there_are_some(
    tw: Running, page: Page
) -> None:
    agent = Agent(tw)
    await agent.open("chat-turn")
    await page.goto(f"{tw.url}/sessions/agent")
    await expect(page.locator("#nothing")).to_contain_text("messages that can be read yet")
    await expect(page.locator("#view tbody a").first).to_have_attribute("href", agent.path)
    await expect(page.locator("#view tbody .id")).to_contain_text("chat-turn")
    await expect(page.locator("[data-metric=cost]")).not_to_contain_text("every call priced")
    await expect(page.locator("#live")).to_have_text("Live")
    assert await findings(page) == []
    asked = [{"role": "user", "content": "Where is my order?"}]
    await agent.span(
        *("answer", "llm_call"), asked=asked, answered="On its way.", tokens=(9, 3), model=MODEL
    )
    await expect(page.locator(".message .who")).to_have_text(["User", "Assistant"])
    await expect(page.locator("#view")).to_have_count(0)
    await expect(page.locator("#nothing")).to_have_count(0)
    await expect(page.locator("[data-metric=cost]")).to_contain_text("every call priced")


async def test_a_timeline_without_spans_says_so(tw: Running, page: Page) -> None:
    agent = Agent(tw)
    await agent.open("nightly")
    await page.goto(f"{tw.url}/sessions/agent?view=timeline")
    await expect(page.locator("#nothing")).to_contain_text("No span has come yet")
    await expect(page.locator("#legend")).to_have_count(0)
    await expect(page.locator("#live")).to_have_text("Live")
    await agent.span("step", "tool_call")
    await expect(page.locator("#view")).to_contain_text("step")
    await page.goto(f"{tw.url}/sessions/agent?view=timeline&from=50")
    await expect(page.locator("#nothing")).to_have_text("No span is on this page.")


async def test_a_timeline_of_many_calls_has_whole_traces_and_loses_none(
    tw: Running, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakdown, "MAX_SPANS", 3)
    # Traces that overlap: the first three calls are not those of the first ones.
    calls = {1: (0, 8), 2: (1, 2), 3: (3,), 4: (20, 21, 22, 23)}
    for number, starts in calls.items():
        agent = Agent(tw, number, at_us=T0 + number)
        for at_s in starts:
            await agent.span(f"{number} at {at_s}", "llm_call", at_s=at_s)
    seen: list[str] = []
    await page.goto(f"{tw.url}/sessions/agent?view=timeline")
    for traces in ("1 to 1 of 4", "2 to 3 of 4", "4 to 4 of 4"):
        if seen:
            await expect(page.locator("#cut")).to_have_count(0)
            await page.get_by_role("link", name="Next").click()
        await expect(page.locator("#pager")).to_contain_text(traces)
        seen += await page.locator(".waterfall svg a").evaluate_all(
            "all => all.map(each => each.getAttribute('aria-label').split(',')[0])"
        )
    every = [f"{number} at {at_s}" for number, starts in calls.items() for at_s in starts]
    assert sorted(seen) == every[:-1]
    await expect(page.locator("#cut")).to_have_text("The first 3 of 4 calls of this trace.")
    await expect(page.get_by_role("link", name="Next")).to_have_count(0)


async def test_nothing_shuts_people_out_and_it_fits_a_narrow_screen(
    agent: Agent, page: Page
) -> None:
    await page.emulate_media(reduced_motion="reduce")
    for view in ("", "?view=traces", "?view=timeline"):
        await page.set_viewport_size({"width": 1280, "height": 800})
        await page.goto(f"{agent.tw.url}/sessions/agent{view}")
        assert await findings(page) == [], view
        await page.set_viewport_size({"width": 360, "height": 780})
        assert await width(page) == 360, view
