"""Open pages whose sign-in ends: they say so, ask nothing further, and show no page in a page."""

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.api.asking import save
from tests.keyed import Keyed
from tests.storage.calls import end, start, trace_id
from tests.ui.looking import findings, width
from tests.ui.test_sign_in import sign_in

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def revoke(team: Keyed, key_id: int) -> None:
    admin = await team.by("alpha", "admin")
    async with admin.client.delete(f"{admin.url}/api/keys/{key_id}") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/sessions",
        "/traces",
        "/sessions/s?view=traces",
        "/sessions?q=session:s",
        f"/traces/{trace_id(1).hex()}",
    ],
)
async def test_a_key_that_is_revoked_ends_the_pages_that_are_open(
    team: Keyed, page: Page, path: str
) -> None:
    holder = team["beta", "read"]
    ours = {"session_id": "s", "project_id": holder.project_id, "name": "call"}
    await save(team.tw, end(start(1, **ours)))
    await sign_in(page, team, "beta", "read", path)
    await expect(page.locator("#live")).to_have_text("Live")
    before = await page.locator("[data-id]").all_inner_texts()
    assert before != []
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await revoke(team, holder.key_id)
    await save(team.tw, end(start(2, **ours)))
    line = page.get_by_role("alert")
    await expect(line).to_contain_text("You are signed out. This page is not updated any more.")
    await expect(page.locator("#live")).to_have_text("Ended")
    await expect(page.locator("input[type=password]")).to_have_count(0)
    assert await page.locator("[data-id]").all_inner_texts() == before
    assert await findings(page) == []
    # It has let go: neither an event nor a key asks anything further.
    count = len(asked)
    assert count <= 4
    await page.keyboard.press(".")
    await page.evaluate("dispatchEvent(new Event('online'))")
    await page.evaluate("new Promise(done => setTimeout(done, 700))")  # longer than two retries
    assert len(asked) == count
    await line.get_by_role("link", name="Sign in").click()
    await page.get_by_label("Key", exact=True).fill(team["alpha", "read"].key)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("button", name="Sign in")).to_have_count(0)
    assert page.url == team.tw.url + path


async def test_signing_out_in_one_tab_ends_the_others(
    team: Keyed, page: Page, context: BrowserContext
) -> None:
    await sign_in(page, team, "beta", "read")
    await expect(page.locator("#live")).to_have_text("Live")
    other = await context.new_page()
    await other.goto(f"{team.tw.url}/traces")
    await other.locator("#menu summary").click()
    await other.get_by_role("button", name="Sign out").click()
    await expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
    await save(team.tw, end(start(1, session_id="s", project_id=team["beta", "read"].project_id)))
    await expect(page.get_by_role("alert")).to_contain_text("You are signed out.")
    assert "data-id" not in await page.locator("main").inner_html()


async def test_a_page_that_a_browser_kept_is_asked_for_anew(team: Keyed, page: Page) -> None:
    holder = team["beta", "read"]
    await save(team.tw, end(start(1, session_id="s", project_id=holder.project_id)))
    await sign_in(page, team, "beta", "read")
    await expect(page.locator("#live")).to_have_text("Live")
    await page.keyboard.press(".")
    await expect(page.locator("#live")).to_have_text("Paused")
    await revoke(team, holder.key_id)
    await page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(page.locator("[data-id=s]")).to_have_count(0)


async def test_a_search_after_the_end_completes_nothing_and_says_so(
    team: Keyed, page: Page
) -> None:
    holder = team["beta", "read"]
    await save(team.tw, end(start(1, session_id="s", project_id=holder.project_id)))
    await sign_in(page, team, "beta", "read")
    await expect(page.locator("#live")).to_have_text("Live")
    await page.keyboard.press(".")
    await revoke(team, holder.key_id)
    await page.get_by_role("combobox").fill("mod")
    await expect(page.get_by_role("alert")).to_contain_text("You are signed out.")
    await expect(page.get_by_role("option")).to_have_count(0)


async def test_copying_after_the_end_copies_nothing_and_stays(team: Keyed, page: Page) -> None:
    holder = team["beta", "read"]
    await save(team.tw, end(start(1, session_id="s", project_id=holder.project_id)))
    await sign_in(page, team, "beta", "read", f"/traces/{trace_id(1).hex()}")
    await expect(page.locator("#live")).to_have_text("Live")
    await revoke(team, holder.key_id)
    await page.get_by_role("link", name="Copy as curl").click()
    await expect(page.get_by_role("alert")).to_contain_text("You are signed out.")
    await expect(page.get_by_role("link", name="Copy as curl")).not_to_have_class("done")


async def test_the_line_fits_a_narrow_page(team: Keyed, page: Page) -> None:
    await page.set_viewport_size({"width": 360, "height": 780})
    holder = team["beta", "read"]
    await save(team.tw, end(start(1, session_id="s", project_id=holder.project_id)))
    await sign_in(page, team, "beta", "read")
    await expect(page.locator("#live")).to_have_attribute("data-state", "live")
    assert await width(page) == 360
    await revoke(team, holder.key_id)
    await save(team.tw, end(start(2, session_id="s", project_id=holder.project_id)))
    await expect(page.get_by_role("alert")).to_be_visible()
    assert await width(page) == 360
