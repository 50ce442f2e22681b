"""Open lists that lose all rows, begin without any, or are read anew, in a real browser."""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, expect

from storage import listing
from storage.records import FAILED
from tests.api.asking import save
from tests.running import Running
from tests.storage.calls import end, start, trace_id
from tests.ui.test_live import forget_events, ids, live

pytestmark = pytest.mark.asyncio(loop_scope="session")


def paths_asked(page: Page) -> list[str]:
    """Give a list to which the paths of the requests from now on are added."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    return asked


async def test_a_list_that_no_row_belongs_to_any_more_says_so_and_goes_on(
    tw: Running, page: Page
) -> None:
    await save(tw, start(1, session_id="s1"))
    await live(page, f"{tw.url}/sessions?q=status:running")
    await page.locator("[data-id=s1]").hover()
    await save(tw, *(start(n, session_id=f"s{n}") for n in range(2, 62)))
    await expect(page.locator("#news")).to_have_text("Many new sessions")
    await page.mouse.move(0, 0)
    await save(tw, *(end(start(n, session_id=f"s{n}")) for n in range(1, 62)))
    await expect(page.locator(".notice")).to_contain_text("No sessions match")
    await save(tw, start(62, session_id="s62"))
    await expect(page.locator("[data-id=s62]")).to_be_visible()
    assert await ids(page) == ["s62"]


@pytest.mark.parametrize("kind", ["sessions", "traces"])
async def test_the_first_match_of_a_search_appears_and_leaves_alone_what_is_typed(
    tw: Running, page: Page, kind: str
) -> None:
    await save(tw, end(start(1, session_id="a")))
    await live(page, f"{tw.url}/{kind}?q=status:failed")
    await expect(page.locator(".notice")).to_contain_text(f"No {kind} match")
    await page.locator("#q").fill("status:failed zeb")
    asked = paths_asked(page)
    async with page.expect_response(f"**/{kind}/rows?*"):
        await save(tw, end(start(2, session_id="b")))
    await save(tw, end(start(3, session_id="c"), state=FAILED, error="it broke"))
    await expect(page.locator("#rows tbody tr")).to_contain_text(["it broke"])
    assert await ids(page) == ["c" if kind == "sessions" else trace_id(3).hex()]
    assert asked.count(f"/{kind}") == 1
    await expect(page.locator("#said")).to_have_text("The first match has arrived")
    await expect(page.locator("#totals dd").first).to_have_text("1")
    await expect(page.locator("#q")).to_have_value("status:failed zeb")
    await expect(page.locator("#q")).to_be_focused()


async def test_the_first_match_appears_where_not_all_was_looked_at(
    tw: Running, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 5)
    await save(tw, *(end(start(n, session_id=f"s{n}", user_id="y")) for n in range(1, 10)))
    await live(page, f"{tw.url}/sessions?q=user:x")
    await expect(page.locator(".notice")).to_contain_text("No sessions found so far")
    await save(tw, end(start(10, session_id="s10", user_id="x")))
    await expect(page.locator("[data-id=s10]")).to_be_visible()


async def test_many_that_wait_are_still_counted_where_they_could_not_be_fetched(
    tw: Running, page: Page
) -> None:
    await save(tw, end(start(1, session_id="s1")))
    await live(page, f"{tw.url}/sessions")
    await page.locator("[data-id=s1]").hover()
    await save(tw, *(end(start(n, session_id=f"s{n}")) for n in range(2, 102)))
    bar = page.locator("#news")
    await expect(bar).to_have_text("Many new sessions")
    await page.route("**/sessions", lambda route: route.abort(), times=1)
    async with page.expect_event("requestfailed"):
        await bar.click()
    await bar.click()
    await expect(page.locator("#rows tbody tr")).to_have_count(50)
    await expect(bar).to_be_hidden()


async def test_a_long_list_is_not_read_anew_where_nothing_new_came(tw: Running, page: Page) -> None:
    await save(tw, *(end(start(n, session_id=f"s{n}")) for n in range(1, 502)))
    await live(page, f"{tw.url}/sessions?limit=1000")
    await expect(page.locator("#rows tbody tr")).to_have_count(501)
    asked = paths_asked(page)
    await save(tw, end(start(502, session_id="s1"), state=FAILED, error="it broke"))
    await expect(page.locator("[data-id=s1]")).to_contain_text("it broke")
    assert "/sessions/rows" in asked
    assert "/sessions" not in asked


async def test_a_list_that_missed_events_for_good_asks_for_every_row_that_it_shows(
    tw: Running, page: Page
) -> None:
    await save(tw, end(start(1, session_id="a")), end(start(2, session_id="b")))
    await live(page, f"{tw.url}/sessions?limit=2")
    await save(tw, end(start(3, session_id="c")), end(start(4, session_id="d")))
    await expect(page.locator("#rows tbody tr")).to_have_count(4)
    await page.keyboard.press(".")
    await expect(page.locator("#live")).to_have_text("Paused")
    await tw.client.delete(f"{tw.url}/api/sessions/a")
    await tw.client.patch(f"{tw.url}/api/sessions/b", data=b'{"starred":true}')
    await forget_events(tw)
    await page.keyboard.press(".")
    await expect(page.locator("[data-id=a]")).to_have_class("gone")
    star = page.locator("[data-id=b] button.star")
    await expect(star).to_have_attribute("aria-pressed", "true")
    assert await ids(page) == ["d", "c", "b", "a"]
