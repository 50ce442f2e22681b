"""The lists by keyboard alone, and the completion of a search, in a real browser."""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, Route, expect

from tests.running import Running
from tests.ui.looking import findings

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def focused(page: Page) -> str | None:
    """Give the id of the row that has the focus."""
    found: str | None = await page.evaluate(
        "document.activeElement.closest('[data-id]')?.dataset.id ?? null"
    )
    return found


async def test_j_and_k_go_down_and_up_the_rows(shown: Running, page: Page) -> None:
    rows = [s["id"] for s in (await shown.api("/api/sessions"))["sessions"]]
    await page.goto(f"{shown.url}/sessions")
    seen = []
    for key in "jjjkkk":
        await page.keyboard.press(key)
        seen.append(await focused(page))
    assert seen == [rows[n] for n in (0, 1, 2, 1, 0, 0)]


async def test_what_has_the_focus_can_be_seen(shown: Running, page: Page) -> None:
    await page.goto(f"{shown.url}/sessions")
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_in_viewport()
    await page.keyboard.press("j")
    outline = await page.evaluate(
        "getComputedStyle(document.activeElement.closest('tr')).outlineStyle"
    )
    assert outline == "solid"


async def test_enter_opens_the_row(shown: Running, page: Page) -> None:
    rows = (await shown.api("/api/traces"))["traces"]
    await page.goto(f"{shown.url}/traces")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    assert urlsplit(page.url).path == f"/traces/{rows[1]['id']}"


async def test_o_opens_the_row_in_another_tab(shown: Running, page: Page) -> None:
    rows = (await shown.api("/api/traces"))["traces"]
    await page.goto(f"{shown.url}/traces")
    await page.keyboard.press("j")
    async with page.context.expect_page() as opened:
        await page.keyboard.press("o")
    other = await opened.value
    await other.wait_for_url(f"**/traces/{rows[0]['id']}")
    assert urlsplit(page.url).path == "/traces"


async def test_c_copies_the_whole_id(shown: Running, page: Page) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto(f"{shown.url}/sessions?q=tides")
    await page.keyboard.press("j")
    await page.keyboard.press("c")
    await expect(page.locator("#said")).to_have_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == (
        "essay-helper-7f3a9c52-4b1d-4e0e-9a57-2c1d5be0a911"
    )


async def test_a_question_mark_opens_the_help_and_escape_closes_it(
    shown: Running, page: Page
) -> None:
    await page.goto(f"{shown.url}/sessions")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    await page.keyboard.press("j")
    assert await focused(page) is None
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_keys_are_letters_while_somebody_types(shown: Running, page: Page) -> None:
    await page.goto(f"{shown.url}/sessions")
    await page.keyboard.press("/")
    await page.keyboard.type("jok.?/c")
    await expect(page.locator("#q")).to_have_value("jok.?/c")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("Escape")
    await expect(page.locator("#q")).not_to_be_focused()


async def suggest(route: Route) -> None:
    """Answer as /api/search/suggest does."""
    assert "rows=sessions" in route.request.url
    if "q=status%3A&" in route.request.url:
        rows = [{"text": "status:failed"}, {"text": "status:<b>running</b>"}]
        await route.fulfill(json={"suggestions": rows, "start": 0, "end": 7})
    elif "q=st&" in route.request.url:
        rows = [{"text": "status:", "meaning": "running, failed ..."}, {"text": "starred:"}]
        await route.fulfill(json={"suggestions": rows, "start": 0, "end": 2})
    else:
        await route.fulfill(json={"suggestions": [], "start": 0, "end": 0})


async def test_tab_accepts_a_key_and_then_a_value(shown: Running, page: Page) -> None:
    await page.route("**/api/search/suggest*", suggest)
    await page.goto(f"{shown.url}/sessions")
    await page.keyboard.press("/")
    await page.keyboard.type("st")
    options = page.get_by_role("option")
    await expect(options).to_have_text(["status:running, failed ...", "starred:"])
    assert await findings(page) == []
    await page.keyboard.press("Tab")
    await expect(options).to_have_text(["status:failed", "status:<b>running</b>"])
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    await expect(page.locator("#q")).to_have_attribute("aria-activedescendant", "q-option-1")
    await page.keyboard.press("Enter")
    await expect(page.locator("#q")).to_have_value("status:<b>running</b> ")
    await expect(options).to_have_count(0)
    await expect(page.locator("#q")).to_be_focused()


async def test_what_stands_between_emojis_is_completed_in_its_place(
    shown: Running, page: Page
) -> None:
    await page.goto(f"{shown.url}/sessions")
    await page.keyboard.press("/")
    await page.keyboard.type("😀 statu")
    options, field = page.get_by_role("option"), page.locator("#q")
    await expect(options.first.locator("bdi")).to_have_text("status:")
    await page.keyboard.press("Tab")
    await expect(field).to_have_value("😀 status:")
    await expect(options.first).to_be_visible()
    await page.keyboard.type("fai 🦓")
    await expect(options).to_have_count(0)
    for key in ("ArrowLeft", "ArrowLeft", "l"):
        await page.keyboard.press(key)
    await expect(options.first.locator("bdi")).to_have_text("status:failed")
    await page.keyboard.press("Tab")
    await expect(field).to_have_value("😀 status:failed 🦓")


async def test_a_key_that_is_completed_stays_apart_from_the_part_behind_it(
    shown: Running, page: Page
) -> None:
    await page.goto(f"{shown.url}/sessions")
    await page.keyboard.press("/")
    await page.keyboard.type("stat zebra")
    for key in (*["ArrowLeft"] * len(" zebra"), "u"):
        await page.keyboard.press(key)
    await expect(page.get_by_role("option").first.locator("bdi")).to_have_text("status:")
    await page.keyboard.press("Tab")
    await expect(page.locator("#q")).to_have_value("status: zebra")


async def test_keys_alone_find_what_failed(shown: Running, page: Page) -> None:
    await page.goto(f"{shown.url}/sessions")
    await page.keyboard.press("/")
    options = page.get_by_role("option")
    for typed, first in (("statu", "status:"), ("fa", "status:failed")):
        await page.keyboard.type(typed)
        await expect(options.first.locator("bdi")).to_have_text(first)
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/sessions?q=status%3Afailed*")
    found = await shown.api("/api/sessions?q=status:failed")
    await expect(page.locator("#rows tbody tr")).to_have_count(found["count"])


async def test_without_completion_the_search_is_a_plain_field(shown: Running, page: Page) -> None:
    async def missing(route: Route) -> None:
        await route.fulfill(status=404, body="")

    await page.route("**/api/search/suggest*", missing)
    await page.goto(f"{shown.url}/sessions")
    await page.keyboard.press("/")
    async with page.expect_response("**/api/search/suggest*"):
        await page.keyboard.type("lighthouses")
    await expect(page.get_by_role("option")).to_have_count(0)
    await page.keyboard.press("Enter")
    await expect(page.locator("#rows tbody tr")).to_have_count(1)
