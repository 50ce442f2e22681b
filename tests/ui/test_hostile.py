"""Text of attackers in every place of the lists, in a real browser."""

import re
from urllib.parse import quote

import pytest
from playwright.async_api import Page, expect

from proxy.ui import view
from storage.parameters import Change, clean_text
from storage.records import FAILED
from tests.api.asking import save
from tests.running import Running
from tests.storage.calls import end, start
from tests.ui.hostile import HOSTILE
from tests.ui.looking import SHAPE, shapes, was_hacked

pytestmark = pytest.mark.asyncio(loop_scope="session")

# A model that is none, so that each row has the same parts.
PLAIN = "plain"
TEXTS = (PLAIN, *HOSTILE)


def calls(texts: tuple[str, ...] = TEXTS, first: int = 0) -> list[Change]:
    """Make two calls for each text, a good and a failed one, with the text in every place."""
    made: list[Change] = []
    for n, text in enumerate(texts, first):
        for m, state in enumerate(("completed", FAILED)):
            begun = start(2 * n + m + 1, session_id=text + "!" * m, name=text)
            error = {"error": text} if state == FAILED else {}
            made.append(
                end(
                    begun,
                    state=state,
                    name=text,
                    model=text,
                    input_preview=text,
                    output_preview=text,
                    **error,
                )
            )
    return made


@pytest.mark.parametrize("path", ["/sessions", "/traces"])
async def test_rows_show_it_as_text(tw: Running, page: Page, path: str) -> None:
    assert len(set(HOSTILE)) >= 50
    await save(tw, *calls())
    await page.goto(f"{tw.url}{path}?limit=1000")
    rows = await shapes(page, "#rows tbody tr")
    assert len(rows) == 2 * len(TEXTS)
    failed, good = rows[-2:]
    assert failed != good
    assert all(row == (failed, good)[n % 2] for n, row in enumerate(rows))
    said = await page.locator("#rows .said .first").all_text_contents()
    assert [text.strip() for text in said] == [
        view.one_line(clean_text(text)) for text in reversed(TEXTS) for _ in range(2)
    ]
    assert not await was_hacked(page)


async def test_rows_that_come_in_later_show_it_as_text(tw: Running, page: Page) -> None:
    await save(tw, end(start(0, session_id="before")))
    await page.goto(f"{tw.url}/sessions?limit=1000")
    await expect(page.locator("#live")).to_have_text("Live")
    shown = 0
    # As many as enter one by one; more of them begin the page anew.
    for n in range(0, len(TEXTS), 20):
        texts = TEXTS[n : n + 20]
        await save(tw, *calls(texts, first=n))
        shown += 2 * len(texts)
        await expect(page.locator("#rows tbody tr.fresh")).to_have_count(shown)
    rows = await shapes(page, "#rows tbody tr.fresh")
    assert len({tuple(row) for row in rows}) == 2
    assert not await was_hacked(page)


async def test_links_lead_to_the_session_and_nowhere_else(tw: Running, page: Page) -> None:
    await save(tw, *calls())
    await page.goto(f"{tw.url}/sessions?limit=1000")
    links = await page.locator("#rows .id a").evaluate_all("all => all.map(a => a.href)")
    assert links == [
        tw.url + view.session_path(clean_text(text) + "!" * m)
        for text in reversed(TEXTS)
        for m in (1, 0)
    ]


# All that a page of a search can be made of: no match, one for several parts, a mistake.
PLAIN_SEARCHES = ("plain", "plain words", '"open')
READ = """async q => {
  const text = await (await fetch(`/sessions?q=${encodeURIComponent(q)}`)).text();
  const page = new DOMParser().parseFromString(text, "text/html");
  return [page.getElementById("q").value, shapeOf(page.documentElement)];
}"""


async def test_a_search_for_it_shows_it_as_text(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="s")))
    await page.goto(f"{tw.url}/sessions?q={PLAIN}")
    read = READ.replace("shapeOf", f"({SHAPE})")
    known = {part for q in PLAIN_SEARCHES for part in (await page.evaluate(read, q))[1]}
    for text in HOSTILE:
        value, parts = await page.evaluate(read, text[:2000])
        assert set(parts) <= known, text
        # A field has one line, and the parser takes NUL for U+FFFD.
        assert value == re.sub(r"[\r\n]", "", text[:2000]).replace("\0", "\ufffd")


@pytest.mark.parametrize("n", range(6))
async def test_a_page_of_a_search_for_it_runs_nothing(tw: Running, page: Page, n: int) -> None:
    await save(tw, end(start(1, session_id="s")))
    # Every second time as a mistake, which is shown in another place.
    texts = " ".join(text[:200].replace('"', "'") for text in HOSTILE[n::6])
    answer = await page.goto(f"{tw.url}/sessions?q={quote(texts)}{quote(n % 2 * chr(34))}")
    assert answer is not None
    assert answer.status in (200, 400)
    await expect(page.locator("#q-problem, .clauses")).to_be_visible()
    assert not await was_hacked(page)


async def test_a_state_of_the_address_that_is_no_state_is_refused(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="s")))
    for text in HOSTILE[:40]:
        for name in ("cursor", "limit", "sort_by", "sort_order"):
            answer = await page.request.get(f"{tw.url}/sessions?{name}={quote(text)}")
            assert answer.status in (200, 400)
            assert "<" not in text or text not in await answer.text()
