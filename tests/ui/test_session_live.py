"""A session's page that stays open while more comes than one page has, in a real browser."""

import pytest
from playwright.async_api import Page, expect

from tests.running import Running
from tests.ui.story import Story, assistant, user
from tests.ui.test_session import grow

pytestmark = pytest.mark.asyncio(loop_scope="session")

TO_END = "scrollTo(0, document.documentElement.scrollHeight)"
TOP = "element => Math.round(element.getBoundingClientRect().top)"


async def full(tw: Running, page: Page) -> Story:
    """Open a session that then grows to as many messages as an open page has."""
    story = Story(tw)
    await grow(story, ["first"])
    await tw.saved()
    await page.goto(f"{tw.url}/sessions/story")
    await expect(page.locator("#live")).to_have_attribute("data-state", "live")
    await story.turn([user(f"note {n}") for n in range(297)], assistant("that is full"))
    await expect(page.locator(".message")).to_have_count(300)
    return story


async def test_a_page_that_is_full_stays_as_it_is_and_says_that_there_is_more(
    tw: Running, page: Page
) -> None:
    story = await full(tw, page)
    await page.evaluate("scrollTo(0, 2000)")
    note = page.locator(".message", has_text="note 20").first
    before = await note.evaluate(TOP)
    for n, word in ((302, "more"), (304, "yet more")):
        await grow(story, [word])
        await expect(page.locator("#pager")).to_contain_text(f"1 to 300 of {n}")
    assert await note.evaluate(TOP) == before
    # He who goes to the end of it now is not at the end of the session.
    await page.evaluate(TO_END)
    await grow(story, ["last"])
    await expect(page.locator("#pager")).to_contain_text("1 to 300 of 306")
    await page.locator("#pager").get_by_role("link", name="Next").click()
    await expect(page.locator(".conversation .text").last).to_have_text("said last")


async def test_who_is_at_the_end_of_a_page_that_is_full_goes_on_to_the_newest(
    tw: Running, page: Page
) -> None:
    story = await full(tw, page)
    await page.evaluate(TO_END)
    await grow(story, ["more"])
    await expect(page.get_by_text("said more")).to_be_in_viewport()
    await expect(page.locator("#pager")).to_contain_text("251 to 302 of 302")
    await expect(page.get_by_text("that is full")).to_be_visible()
    await grow(story, ["last"])
    await expect(page.get_by_text("said last")).to_be_in_viewport()
    await expect(page.locator("#pager")).to_contain_text("251 to 304 of 304")
    await page.locator("#pager").get_by_role("link", name="Previous").click()
    await expect(page.locator("#pager")).to_contain_text("201 to 250 of 304")
