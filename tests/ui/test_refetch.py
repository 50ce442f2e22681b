"""How open pages fetch themselves anew where that fails, in a real browser."""

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from tests.api.asking import save
from tests.running import Running
from tests.storage.calls import end, start, trace_id
from tests.ui.looking import findings
from tests.ui.test_live import live

pytestmark = pytest.mark.asyncio(loop_scope="session")

SESSION, TRACE = "/sessions/s", f"/traces/{trace_id(1).hex()}"
# Notes how long a page means to wait, and lets it wait no longer than it must.
HURRIED = """(() => {
  const wait = window.setTimeout;
  window.rests = [];
  window.setTimeout = (run, ms) => {
    rests.push(ms);
    return wait(run, 0);
  };
})()"""


async def more(tw: Running, n: int) -> None:
    """Put another call into the session, and into the trace."""
    await save(tw, end(start(n, trace=1, session_id="s")))


@pytest.mark.parametrize(
    ("path", "part"),
    [(SESSION, "**/s/live*"), (TRACE, "**/traces/*"), ("/sessions", "**/sessions/rows*")],
)
async def test_a_page_that_is_refused_says_so_and_asks_no_more(
    tw: Running, page: Page, path: str, part: str
) -> None:
    await more(tw, 1)
    await page.clock.install()
    await live(page, tw.url + path)
    asked: list[str] = []

    async def refuse(route: Route) -> None:
        asked.append(route.request.url)
        await route.fulfill(status=400, body="no")

    await page.route(part, refuse)
    await more(tw, 2)
    line = page.get_by_role("alert")
    await expect(line).to_contain_text("The server refuses to give this page anew (400).")
    await expect(line).to_contain_text("This page is not updated any more.")
    await expect(page.locator("#live")).to_have_text("Ended")
    assert await findings(page) == []
    await page.clock.run_for(20_000)
    assert len(asked) == 1
    await page.unroute_all()
    await line.get_by_role("link", name="Reload").click()
    await expect(line).to_have_count(0)
    await expect(page.locator("#live")).to_have_text("Live")


async def test_a_server_that_fails_is_asked_ever_more_rarely(tw: Running, page: Page) -> None:
    await more(tw, 1)
    await page.add_init_script(HURRIED)
    await live(page, tw.url + SESSION)
    await page.route("**/s/live*", lambda route: route.fulfill(status=503), times=5)
    await more(tw, 2)
    await expect(page.locator("#metrics")).to_contain_text("2 spans")
    assert await page.evaluate("rests") == [120, 600, 1200, 2500, 5000, 5000]


async def test_an_answer_that_is_no_page_of_ours_is_not_asked_for_again_and_again(
    tw: Running, context: BrowserContext
) -> None:
    tab = await context.new_page()
    await more(tw, 1)
    await tab.clock.install()
    await live(tab, tw.url + TRACE)
    asked: list[str] = []

    async def answer(route: Route) -> None:
        asked.append(route.request.url)
        await route.fulfill(content_type="text/html", body="<p>Welcome to this network</p>")

    await tab.route("**/traces/*", answer)
    async with tab.expect_event("pageerror"):
        await more(tw, 2)
    await tab.clock.run_for(20_000)
    assert len(asked) == 1
    await tab.unroute_all()
    await more(tw, 3)
    await expect(tab.locator(".tree li")).to_have_count(3)


@pytest.mark.parametrize("path", [SESSION, TRACE])
async def test_what_is_there_again_is_not_shown_as_gone(tw: Running, page: Page, path: str) -> None:
    await more(tw, 1)
    await live(page, tw.url + path)
    await tw.client.delete(f"{tw.url}/api/sessions/s")
    await expect(page.locator(".gone")).to_have_count(1)
    await more(tw, 1)
    await expect(page.locator(".gone")).to_have_count(0)
