"""What all pages share: headers, static files, the pages of problems, ticking times."""

import itertools
import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import Page
from yarl import URL

from proxy.api.units import iso
from proxy.ui import view
from proxy.ui.frame import Static
from storage.database import StorageError
from tests.api.asking import save
from tests.api.test_answers import ODD_QUERIES
from tests.running import Running
from tests.storage.calls import end, start

pytestmark = pytest.mark.asyncio(loop_scope="session")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# Those of the API, and what only pages have.
ODD_PAGES = (
    *("?id=%00", "?id=%FF", "?new=%00&q=a", "?id=..&new=..", "?sort_by=%3Cb%3E", "?sort_order=up"),
    *("?" + "&".join(f"id={n:032x}" for n in range(150)), "?q=" + "a%20" * 60, "?q=%20%09%0A"),
)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/sessions", 200),
        ("/traces", 200),
        ('/sessions?q="', 400),
        ("/sessions?limit=x", 400),
        ("/sessions/rows?id=x", 200),
        ("/sessions/rows?new=x&q=%22", 400),
        ("/traces/rows?id=x", 200),
        ("/sessions/totals", 200),
    ],
)
async def test_every_page_has_the_policy_and_is_kept_by_nobody(
    tw: Running, path: str, status: int
) -> None:
    async with tw.client.get(tw.url + path) as answer:
        assert answer.status == status
        assert answer.content_type == "text/html"
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
        text = await answer.text()
    assert not re.search(r"<script(?! type=\"module\" src=)|<style|\sstyle=|\son\w+=", text)


PATHS = ("/sessions", "/sessions/rows", "/sessions/totals", "/traces", "/traces/rows")


async def test_no_parameter_makes_a_page_fail(tw: Running) -> None:
    await save(tw, end(start(1, session_id="s")))
    # Each of them on one page: they are read in the same way by all.
    for path, query in zip(itertools.cycle(PATHS), (*ODD_QUERIES, *ODD_PAGES), strict=False):
        async with tw.client.get(URL(tw.url + path + query, encoded=True)) as answer:
            assert answer.status in (200, 400), (path, query)
            assert answer.content_type == "text/html"


async def test_static_files_are_kept_for_ever_by_an_address_that_names_their_content(
    tw: Running,
) -> None:
    async with tw.client.get(f"{tw.url}/sessions") as answer:
        files = re.findall(r'(?:src|href)="(/static/[^"]+)"', await answer.text())
    kinds = {}
    for path in files:
        async with tw.client.get(tw.url + path) as answer:
            assert answer.status == 200
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            kinds[path.rpartition("/")[2]] = answer.content_type
    assert kinds == {
        "icon.svg": "image/svg+xml",
        "style.css": "text/css",
        "page.js": "text/javascript",
        "lists.js": "text/javascript",
    }


@pytest.mark.parametrize("path", ["/static/0/page.js", "/static/{version}/none.js"])
async def test_an_address_of_other_content_is_none(tw: Running, path: str) -> None:
    async with tw.client.get(tw.url + path.format(version=Static().version)) as answer:
        assert answer.status == 404


async def test_a_database_that_fails_is_a_page_too(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StorageError("here", "the disk is <full>", "make room")

    monkeypatch.setattr(tw.database, "read", fail)
    async with tw.client.get(f"{tw.url}/sessions") as answer:
        assert answer.status == 503
        assert "the disk is &lt;full&gt;" in await answer.text()


async def test_a_red_line_says_when_calls_are_not_recorded(
    tw: Running, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    await page.goto(f"{tw.url}/sessions")
    assert await page.get_by_role("alert").count() == 0
    tw.server.recorder.losses.add(bodies=1)
    await page.reload()
    assert "not all are recorded" in await page.get_by_role("alert").inner_text()


async def test_times_tick_as_the_server_writes_them(tw: Running, page: Page) -> None:
    await page.goto(f"{tw.url}/sessions")
    now = datetime(2026, 11, 26, 11, tzinfo=UTC)
    past = [-5, 0, 4.999, 5, 59, 60, 61, 3599, 3600, 86_399, 86_400, 2_591_999, 2_592_000, 1e8]
    times = [iso(round((now - timedelta(seconds=s)).timestamp() * 1e6)) for s in past]
    ticked = await page.evaluate(
        """async ([version, times, now]) => {
          const clock = await import(`/static/${version}/clock.js`);
          return times.map(time => clock.ago(time, now));
        }""",
        [Static().version, times, now.timestamp() * 1000],
    )
    assert ticked == [view.ago(time, now).text for time in times]


async def test_a_time_says_on_hover_when_it_was_here_and_in_utc(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="s")))
    await page.goto(f"{tw.url}/sessions")
    title = await page.locator("[data-id=s] time").get_attribute("title")
    assert title is not None
    here, utc = title.split("\n")
    assert re.fullmatch(r"\d\d/\d\d/\d{4}, \d\d:\d\d:\d\d", here)
    assert utc == "2023-11-14 22:13:21.000 UTC"
