"""Hostile text in every place that an application fills: it does nothing and is shown."""

from typing import Any

import pytest
from playwright.async_api import Page

from proxy.ui import view
from storage.parameters import clean_text
from tests.running import Running
from tests.ui.agents import Agent, mark
from tests.ui.hostile import HOSTILE
from tests.ui.looking import shapes, was_hacked
from tests.ui.test_session_hostile import ATTRIBUTES, ELEMENTS, check

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def tell(agent: Agent, text: str) -> None:
    """Put a text into every place that an application fills."""
    await agent.open(text, tags=(text[:64], text[:8]))
    value: Any = {text: [text, {text: text}]}
    more = {"attributes": value, "metadata": value, "label": text[:64], "response_id": text[:200]}
    root = await agent.span(text, took_s=9, asked=text, answered=value, **more)
    message = [{"role": "system", "content": text}, {"role": text, "name": text, "content": text}]
    call = await agent.span(
        *(text, "llm_call"),
        parent=root,
        model=text[:500],
        provider=text[:200],
        tokens=(1, 1),
        asked=message,
        answered={"role": text, "content": text, "tool_calls": [{"function": {"name": text}}]},
        **more,
    )
    await agent.span(
        *(text, "tool_call"), parent=call, state="failed", error=text, asked=value, **more
    )
    await agent.span(text, "retrieval", parent=root, asked=[message, text], **more)
    await mark(agent.tw, agent.spans[3], call)


async def test_no_text_does_anything_in_any_place(tw: Running, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    agents = []
    for number, text in enumerate(HOSTILE, 1):
        agent = Agent(tw, number, session="told")
        await tell(agent, clean_text(text))
        agents.append(agent)
    for path in ("/sessions/told?limit=1000", "/sessions/told?view=timeline", "/traces"):
        await page.goto(tw.url + path)
        await page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
        assert not await was_hacked(page)
    for agent in agents[::9]:
        await page.goto(f"{tw.url}{agent.path}?span={agent.spans[1].hex()}")
        assert not await was_hacked(page)
        (whole,) = await shapes(page, "html")
        shown = [one.lower().split(" ") for one in whole]
        assert {names[0] for names in shown} <= ELEMENTS
        assert {one for names in shown for one in names[1:]} <= ATTRIBUTES
    paths = [
        f"{agent.path}?span={span.hex()}{more}"
        for n, agent in enumerate(agents)
        for span, more in ((agent.spans[n % 4], ""), (agent.spans[(n + 1) % 4], "&view=raw"))
    ]
    for start in range(0, len(paths), 30):
        await check(page, paths[start : start + 30])
    assert all(url.startswith(f"{tw.url}/") for url in asked)


async def test_text_is_shown_as_it_was_written(tw: Running, page: Page) -> None:
    for number, text in enumerate(HOSTILE, 1):
        said = clean_text(text)
        agent = Agent(tw, number)
        await agent.span("said", asked=said, answered={"x": said})
        await page.goto(tw.url + agent.path)
        shown = page.get_by_role("region", name="Input").locator(".plain")
        assert await shown.text_content() == view.lines(said)
