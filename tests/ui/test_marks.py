"""Stars, names and deletion on the pages: what is clicked, what others see, who may."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page, expect

from proxy.access import COOKIE
from proxy.api.sessions import Sessions
from proxy.ui import view
from storage.records import RUNNING
from tests.api.asking import ask, save
from tests.keyed import Keyed
from tests.running import Running
from tests.storage.calls import end, start
from tests.ui.looking import findings, width

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def some(tw: Running, *sessions: str) -> None:
    await save(tw, *(end(start(n, session_id=one)) for n, one in enumerate(sessions, 1)))


async def marks(tw: Running, session: str = "s") -> tuple[Any, Any]:
    found = (await ask(tw, f"/api/sessions/{session}")).body
    return found["name"], found["starred"]


@asynccontextmanager
async def without_scripts(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(java_script_enabled=False)
    context.set_default_timeout(10_000)
    yield await context.new_page()
    await context.close()


async def test_a_star_is_given_and_taken_in_the_list_and_stays_in_the_place_of_the_reader(
    tw: Running, page: Page
) -> None:
    await some(tw, "s", "t")
    await page.goto(f"{tw.url}/sessions?sort_by=cost")
    star = page.locator('[data-id="s"] button.star')
    for pressed in ("true", "false"):
        await star.click()
        await expect(star).to_have_attribute("aria-pressed", pressed)
        await expect(star).to_be_focused()
        assert await marks(tw) == (None, pressed == "true")
        assert page.url == f"{tw.url}/sessions?sort_by=cost"
    assert await marks(tw, "t") == (None, False)


async def test_the_starred_ones_are_a_link_away_and_all_of_them_as_well(
    tw: Running, page: Page
) -> None:
    await some(tw, "s", "t")
    await page.goto(f"{tw.url}/sessions?q=cost:>=0")
    await page.locator('[data-id="s"] button.star').click()
    await expect(page.locator('[data-id="s"] [aria-pressed="true"]')).to_be_visible()
    await page.get_by_role("link", name="Starred").click()
    await expect(page.locator("#rows tbody tr")).to_have_count(1)
    assert page.url == f"{tw.url}/sessions?q=cost%3A%3E%3D0+starred%3Atrue"
    await page.get_by_role("link", name="Starred").click()
    await expect(page.locator("#rows tbody tr")).to_have_count(2)
    assert page.url == f"{tw.url}/sessions?q=cost%3A%3E%3D0"


async def test_a_session_is_renamed_in_place_and_every_open_page_shows_it(
    tw: Running, page: Page, context: BrowserContext
) -> None:
    await some(tw, "s")
    other, rows = await context.new_page(), await context.new_page()
    await other.goto(f"{tw.url}/sessions/s")
    await rows.goto(f"{tw.url}/sessions")
    await page.goto(f"{tw.url}/sessions/s")
    await page.get_by_text("Rename").click()
    await page.get_by_label("Name of the session").fill("Lost <b>order</b>")
    await page.keyboard.press("Enter")
    for tab in (page, other):
        await expect(tab.locator("h1")).to_contain_text("Lost <b>order</b>")
        await expect(tab.locator("#head .mono")).to_have_text("s")
        await expect(tab).to_have_title("Lost <b>order</b> · Traceway")
    await expect(page.get_by_label("Name of the session")).to_be_hidden()
    await expect(rows.locator('[data-id="s"] .id a')).to_have_text("Lost <b>order</b>")
    await expect(rows.locator('[data-id="s"] .id .under')).to_have_text("s")
    await page.get_by_text("Rename").click()
    await page.get_by_label("Name of the session").fill(" ")
    await page.get_by_role("button", name="Save").click()
    await expect(rows.locator('[data-id="s"] .id a')).to_have_text("s")
    await page.locator("#marks button.star").click()
    await expect(other.locator("#marks button.star")).to_have_attribute("aria-pressed", "true")


async def test_what_is_being_typed_stays_while_somebody_else_stars_the_session(
    tw: Running, page: Page
) -> None:
    await some(tw, "s")
    await page.goto(f"{tw.url}/sessions/s")
    await page.get_by_text("Rename").click()
    await page.get_by_label("Name of the session").fill("half a na")
    await tw.client.patch(f"{tw.url}/api/sessions/s", data=b'{"starred":true}')
    await expect(page.locator("#marks button.star")).to_have_attribute("aria-pressed", "true")
    await expect(page.get_by_label("Name of the session")).to_have_value("half a na")
    await expect(page.get_by_label("Name of the session")).to_be_focused()


@pytest.mark.parametrize("session", ["s", "a/b?c#d", "..", "by-id"])
async def test_without_scripts_it_is_starred_named_and_deleted_by_forms(
    tw: Running, browser: Browser, session: str
) -> None:
    await some(tw, session, "other")
    async with without_scripts(browser) as page:
        await page.goto(f"{tw.url}/sessions?sort_by=cost")
        await page.locator(f'[data-id="{session}"] button.star').click()
        assert page.url == f"{tw.url}/sessions?sort_by=cost"
        await expect(
            page.locator(f'[data-id="{session}"] button.star[aria-pressed="true"]')
        ).to_be_visible()
        await page.locator(f'[data-id="{session}"] .id a').click()
        home = page.url
        await page.get_by_text("Rename").click()
        await page.get_by_label("Name of the session").fill("Lost order")
        await page.get_by_role("button", name="Save").click()
        assert page.url == home
        await expect(page.locator("h1")).to_contain_text("Lost order")
        await page.get_by_role("link", name="Delete").click()
        await page.get_by_role("button", name="Delete the session").click()
        assert page.url == f"{tw.url}/sessions"
        await expect(page.locator("#rows tbody tr")).to_have_count(1)


async def test_before_a_session_is_deleted_a_page_says_what_goes(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="s")), end(start(2, session_id="s")))
    await save(tw, start(3, trace=2, session_id="s"))
    await tw.client.patch(f"{tw.url}/api/sessions/s", data=b'{"starred":true,"name":"Mine"}')
    s = (await ask(tw, "/api/sessions/s")).body
    assert s["status"] == RUNNING
    await page.goto(f"{tw.url}/sessions/s")
    await page.get_by_role("link", name="Delete").click()
    told = page.locator(".notice")
    stored = view.size(s["stored_bytes"]).text
    for words in ("Delete Mine?", "2 traces", "3 spans", stored, "It is starred.", "A call of it"):
        await expect(told).to_contain_text(words)
    await page.get_by_role("link", name="Keep it").click()
    await expect(page.locator("h1")).to_contain_text("Mine")
    assert (await ask(tw, "/api/sessions/s")).status == 200


async def test_other_pages_show_that_a_session_is_gone(
    tw: Running, page: Page, context: BrowserContext
) -> None:
    await some(tw, "s", "t")
    rows, other = await context.new_page(), await context.new_page()
    await rows.goto(f"{tw.url}/sessions")
    await other.goto(f"{tw.url}/sessions/s")
    await page.goto(f"{tw.url}/sessions/s/delete")
    await page.get_by_role("button", name="Delete the session").click()
    await expect(page.locator("#rows tbody tr")).to_have_count(1)
    await expect(rows.locator('[data-id="s"].gone')).to_be_visible()
    await expect(other.locator("#session.gone")).to_be_visible()


async def test_a_mark_that_cannot_be_made_is_said_on_a_page(tw: Running, page: Page) -> None:
    await some(tw, "s")
    await page.goto(f"{tw.url}/sessions/s")
    await tw.client.delete(f"{tw.url}/api/sessions/s")
    await expect(page.locator("#session.gone")).to_be_visible()
    await page.locator("#marks button.star").click()
    await expect(page.locator("h1")).to_have_text("Not here")


@pytest.mark.parametrize(
    ("form", "status"),
    [("name=a%0Ab", 400), (f"name={'a' * 201}", 400), ("starred=perhaps", 400), ("starred=", 400)],
)
async def test_a_form_that_is_none_changes_nothing(tw: Running, form: str, status: int) -> None:
    await some(tw, "s")
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": tw.url}
    async with tw.client.post(f"{tw.url}/sessions/s/mark", data=form, headers=kind) as answer:
        assert answer.status == status
    assert await marks(tw) == (None, False)


@pytest.mark.parametrize("scope", ["read", "admin"])
async def test_only_admins_are_offered_what_only_they_may(
    team: Keyed, context: BrowserContext, page: Page, scope: str
) -> None:
    who = team["alpha", scope]  # type: ignore[index]
    tw = await team.by("alpha", "admin")
    await save(tw, end(start(1, session_id="s", project_id=who.project_id)))
    await tw.client.patch(f"{tw.url}/api/sessions/s", data=b'{"starred":true}')
    await context.add_cookies([{"name": COOKIE, "value": who.cookie, "url": tw.url}])
    offered = 1 if scope == "admin" else 0
    await page.goto(f"{tw.url}/sessions")
    await expect(page.locator(".id .star")).to_have_count(1)
    await expect(page.locator(".id button.star")).to_have_count(offered)
    await page.goto(f"{tw.url}/sessions/s")
    await expect(page.locator("#marks .star")).to_have_count(1)
    for selector in ("#marks button.star", "#rename", "#marks .delete"):
        await expect(page.locator(selector)).to_have_count(offered)
    await page.goto(f"{tw.url}/sessions/s/delete")
    await expect(page.get_by_role("button", name="Delete the session")).to_have_count(offered)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_use_them_on_any_screen(
    tw: Running, browser: Browser, scheme: Any
) -> None:
    await some(tw, "s", "long " * 20)
    await tw.client.patch(f"{tw.url}/api/sessions/s", data=b'{"starred":true,"name":"Lost order"}')
    context = await browser.new_context(viewport={"width": 360, "height": 780}, color_scheme=scheme)
    page = await context.new_page()
    for path in ("/sessions", "/sessions/s", "/sessions/s/delete"):
        await page.goto(tw.url + path)
        if path == "/sessions/s":
            await page.get_by_text("Rename").click()
        assert await findings(page) == []
        assert await width(page) == 360
    await context.close()


async def test_of_a_session_that_goes_part_by_part_a_page_says_so(
    tw: Running, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def later(*_: object) -> web.Response:
        return web.json_response({}, status=202)

    monkeypatch.setattr(Sessions, "delete", later)
    await some(tw, "s")
    await page.goto(f"{tw.url}/sessions/s/delete")
    await page.get_by_role("button", name="Delete the session").click()
    await expect(page.locator("h1")).to_have_text("Being deleted: s")
    await page.get_by_role("link", name="To the sessions").click()
    assert page.url == f"{tw.url}/sessions"
