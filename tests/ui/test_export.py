"""A session as one page: whole, without anything active, and shown without any network."""

import functools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from playwright.async_api import Browser, Page

from proxy.api import conversation
from proxy.api.conversation import Conversations
from proxy.providers.messages import text_of
from proxy.ui import export
from proxy.ui.export import HtmlExport
from proxy.ui.frame import Frame, Static
from storage.archive import ArchiveChanged
from storage.forget import delete_session, delete_trace
from tests.api.asking import save
from tests.running import Running
from tests.storage.calls import end, spoken, start, trace_id
from tests.ui.agents import Agent
from tests.ui.hostile import HOSTILE
from tests.ui.looking import findings, shapes, was_hacked, width
from tests.ui.rich import MARKDOWN, data_url, png, rich
from tests.ui.story import Story, assistant, tool_call, usage, user
from tests.ui.test_session_hostile import tell, words

pytestmark = pytest.mark.asyncio(loop_scope="session")

ELEMENTS: Final = words(
    """html head meta title style body main header h1 h2 svg circle path p span bdi strong em dl div
    dt dd details summary table thead tbody tr th td figure figcaption pre code ul ol li hr img
    section article footer nav a"""
)
ATTRIBUTES: Final = words(
    """lang http-equiv content charset name class id title aria-label aria-hidden aria-current
    viewbox cx cy r d data-metric tabindex scope open dir value src alt href data-id data-turn
    data-span data-length"""
)


def writer(tw: Running) -> HtmlExport:
    static = Static()
    frame = Frame(web.Application(), static, list, tw.server.keyring)
    return HtmlExport(frame, static, Conversations(tw.database), tw.database)


async def written(tw: Running, session: str = "story") -> str:
    return b"".join([piece async for piece in writer(tw).pieces(1, session)]).decode()


@asynccontextmanager
async def opened(
    browser: Browser, folder: Path, text: str, **how: Any
) -> AsyncIterator[tuple[Page, list[str]]]:
    """Open a page from a file in a browser without network; list what it asks for."""
    file = folder / "session.html"
    file.write_text(text, encoding="utf-8")
    asked: list[str] = []
    context = await browser.new_context(offline=True, **how)
    page = await context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: asked.append(line.text))
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    await page.goto(file.as_uri())
    asked.remove(file.as_uri())
    yield page, asked
    await context.close()


async def check(page: Page) -> None:
    """Tell that a page has nothing but what our templates write, and leads nowhere else."""
    await page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
    assert not await was_hacked(page)
    (whole,) = await shapes(page, "html")
    names = [one.lower().split(" ") for one in whole]
    assert {name[0] for name in names} <= ELEMENTS
    assert {one for name in names for one in name[1:]} <= ATTRIBUTES
    links = await page.locator("[href]").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert [link for link in links if not re.fullmatch(r"#[mtsb]-[0-9a-z-]+", link)] == []
    sources = await page.locator("[src]").evaluate_all("all => all.map(a => a.getAttribute('src'))")
    kinds = r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]*=*"
    assert [one for one in sources if not re.fullmatch(kinds, one)] == []


async def test_it_opens_without_network_and_asks_for_nothing(
    tw: Running, browser: Browser, tmp_path: Path
) -> None:
    story = await rich(tw)
    await tw.saved()
    text = await written(tw, story.session)
    assert text.index("Content-Security-Policy") < text.index("<meta charset") < 1000
    async with opened(browser, tmp_path, text) as (page, asked):
        assert all(url.startswith("data:image/png") for url in asked)
        await check(page)
        assert await page.locator("img").evaluate("image => image.naturalWidth") == 48
        await page.locator("a[href^='#m-']").first.click()
        assert "#m-" in page.url


async def test_every_message_of_every_branch_is_there_once_with_all_that_it_says(
    tw: Running, browser: Browser, tmp_path: Path
) -> None:
    story = Story(tw)
    long = "".join(f"word{n} " for n in range(20_000))
    await story.turn(user("start"), assistant(MARKDOWN), counts=usage(9, 9))
    kept = list(story.messages)
    await story.turn(user("one way"), assistant("the first answer"), counts=usage(9, 9))
    story.messages = list(kept)
    await story.turn(user("one way"), assistant("a second answer"), counts=usage(9, 9))
    story.messages = list(kept)
    call = tool_call("c1", "look", {"at": "this"})
    await story.turn(user("another way"), assistant(None, tool_calls=[call]), counts=usage(9, 9))
    result = {"role": "tool", "tool_call_id": "c1", "content": "found it"}
    await story.turn([result], assistant(long), counts=usage(9, 9))
    await tw.saved()
    async with opened(browser, tmp_path, await written(tw)) as (page, _):
        await page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
        shown = await page.locator("main").inner_text()
        assert shown.count("tomllib.loads") == shown.count("found it") == 1
        assert long.strip() in shown
        texts = await page.locator("article .text").all_inner_texts()
        for said in ("start", "one way", "another way", "the first answer", "a second answer"):
            assert [text.strip() for text in texts].count(said) == 1, said
        assert await page.locator("h2.branch").count() == 2
        ids = await page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
        assert len(ids) == len(set(ids))
        links = await page.locator("[href]").evaluate_all(
            "all => all.map(a => a.getAttribute('href').slice(1))"
        )
        assert set(links) <= set(ids)


async def test_its_figures_are_those_of_the_session(
    tw: Running, browser: Browser, tmp_path: Path, page: Page
) -> None:
    story = await rich(tw, running=False)
    await tw.saved()
    await page.goto(f"{tw.url}/sessions/{story.session}")
    figures = await page.locator("#metrics").inner_text()
    async with opened(browser, tmp_path, await written(tw, story.session)) as (alone, _):
        assert await alone.locator("#metrics").inner_text() == figures
        assert await alone.locator("h1 bdi").inner_text() == story.session


async def test_it_is_the_same_page_whatever_is_read_at_a_time(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(tw)
    for n in range(9):
        parts = [{"type": "image_url", "image_url": {"url": data_url(png(20 + n, 9))}}]
        await story.turn(user(parts), assistant(f"a picture {n} " + "x" * n * 300))
    await tw.saved()

    def without(text: str) -> str:
        lines = (line.strip() for line in text.split("\n"))
        return "\n".join(one for one in lines if one and "section" not in one)

    whole = without(await written(tw))
    assert whole.count("data:image/png;base64,") == 9
    for messages, most_bytes in ((3, 1 << 22), (1, 1 << 22), (50, 1500), (50, 1)):
        monkeypatch.setattr(export, "MESSAGES", messages)
        monkeypatch.setattr(export, "PART_BYTES", most_bytes)
        assert without(await written(tw)) == whole, (messages, most_bytes)


async def test_what_is_beyond_the_bounds_is_named(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(tw)
    await story.turn(user("u" * 500), assistant("short"))
    await tw.saved()
    monkeypatch.setattr(export, "TEXT_CHARS", 100)
    assert "It goes on: 500 characters in all" in await written(tw)
    monkeypatch.setattr(export, "MAX_BYTES", 100)
    monkeypatch.setattr(export, "PART_BYTES", 100)
    text = await written(tw)
    assert "It was too much for a page" in text
    assert "short" in text


async def test_no_text_does_anything_in_any_place(
    tw: Running, browser: Browser, tmp_path: Path
) -> None:
    story = Story(tw)
    for hostile in HOSTILE:
        await tell(story, hostile)
    await story.runs(user("go"), HOSTILE[0])
    await tw.saved()
    name = {"name": "".join(filter(str.isprintable, HOSTILE[26]))}
    async with tw.client.patch(f"{tw.url}/api/sessions/story", json=name) as answer:
        assert answer.status == 200
    async with opened(browser, tmp_path, await written(tw)) as (page, asked):
        await check(page)
        assert [url for url in asked if not url.startswith("data:image/png")] == []
        assert await page.locator("article").count() > len(HOSTILE) * 5


async def test_no_name_of_a_session_changes_its_page(
    tw: Running, browser: Browser, tmp_path: Path
) -> None:
    shown = []
    for n, hostile in enumerate(HOSTILE):
        session = hostile[:300].replace("\0", "")
        await save(tw, end(start(n + 1, session_id=session, user_id=hostile[:200])))
        async with opened(browser, tmp_path, await written(tw, session)) as (page, asked):
            assert asked == []
            await check(page)
            shown.append(await shapes(page, "html"))
    assert [one for one in shown if one != shown[0]] == []


async def test_a_session_without_messages_shows_what_its_traces_did(
    tw: Running, browser: Browser, tmp_path: Path
) -> None:
    for number, hostile in enumerate(HOSTILE[:40:3], 1):
        agent = Agent(tw, number, session="told")
        await agent.open(hostile[:60].replace("\0", ""))
        await agent.span("step", "custom", asked=hostile, answered=hostile)
    await tw.saved()
    async with opened(browser, tmp_path, await written(tw, "told")) as (page, asked):
        await check(page)
        assert asked == []
        assert await page.locator("article").count() == 14
        assert HOSTILE[3] in await page.locator("main").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_read_it_on_any_screen(
    tw: Running, browser: Browser, tmp_path: Path, scheme: Any
) -> None:
    story = await rich(tw)
    await tw.saved()
    text = await written(tw, story.session)
    how = {"viewport": {"width": 360, "height": 780}, "color_scheme": scheme}
    # axe runs as a script, which the page's own policy forbids to everybody.
    async with opened(browser, tmp_path, text, bypass_csp=True, **how) as (page, _):
        paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(17, 18, 22)" if scheme == "dark" else "rgb(247, 247, 248)")
        assert await findings(page) == []
        assert await width(page) == 360


async def test_on_paper_everything_is_open_and_light(
    tw: Running, browser: Browser, tmp_path: Path
) -> None:
    story = Story(tw)
    thought = {"reasoning_content": "a thought that is folded"}
    await story.turn(user("hi"), assistant("hello", **thought), counts=usage(9, 9))
    await tw.saved()
    async with opened(browser, tmp_path, await written(tw), color_scheme="dark") as (page, _):
        folded = page.locator(".reasoning .text")
        assert not await folded.is_visible()
        await page.emulate_media(media="print")
        assert await folded.is_visible()
        paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"


@pytest.mark.parametrize("has_messages", [True, False])
@pytest.mark.parametrize("goes", ["all", "a part"])
@pytest.mark.parametrize("at", [1, 2])
async def test_a_session_of_which_something_goes_meanwhile_has_no_end(
    tw: Running, has_messages: bool, goes: str, at: int
) -> None:
    for n in (1, 2):
        call = start(n, session_id="s")
        await save(tw, spoken(call, [f"U:{n}"], ["A:1"]) if has_messages else end(call))
    if goes == "all":
        change = functools.partial(delete_session, project_id=1, session_id="s", text_of=text_of)
    else:
        change = functools.partial(
            delete_trace, project_id=1, trace_id=trace_id(1), text_of=text_of
        )
    text = b""

    async def read() -> None:
        nonlocal text
        pieces = writer(tw).pieces(1, "s")
        for _ in range(at):
            text += await anext(pieces)
        await tw.server.recorder.write(change)
        async for piece in pieces:
            text += piece

    with pytest.raises(ArchiveChanged):
        await read()
    assert b"<main" in text
    assert b"</main>" not in text


async def test_traces_that_are_taken_from_a_session_meanwhile_leave_it_without_an_end(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(tw, *(end(start(n, session_id="s")) for n in (1, 2)))
    monkeypatch.setattr(export, "TRACES", 1)
    pieces = writer(tw).pieces(1, "s")
    assert await anext(pieces)
    taken = "UPDATE traces SET session_id = 't' WHERE session_id = 's' AND seq = 2"
    await tw.server.recorder.write(lambda tx: tx.execute(taken, {}))
    assert await anext(pieces)
    with pytest.raises(ArchiveChanged, match="a trace"):
        await anext(pieces)


async def test_a_session_that_is_not_there_is_known_before_the_first_piece(tw: Running) -> None:
    with pytest.raises(LookupError):
        await anext(writer(tw).pieces(1, "nobody"))
    await save(tw, end(start(1, session_id="s")))
    with pytest.raises(LookupError):
        await anext(writer(tw).pieces(2, "s"))


async def test_its_bounds_are_no_smaller_than_what_is_kept() -> None:
    assert export.MAX_BYTES == conversation.PAGE_BYTES
    assert "</style" not in "".join(Static().text(name) for name in export._STYLES)
    assert "url(" not in "".join(Static().text(name) for name in export._STYLES)


async def test_the_api_sends_it_as_a_file_that_runs_nothing_on_our_origin(
    tw: Running, page: Page, tmp_path: Path
) -> None:
    story = Story(tw, "a/b c")
    await story.turn(user("hi"), assistant("hello"))
    await tw.saved()
    async with tw.client.get(f"{tw.url}/api/sessions/a%2Fb%20c/export?format=html") as answer:
        assert answer.status == 200
        text = await answer.text()
        headers = answer.headers
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Disposition"] == 'attachment; filename="session-a_b_c.html"'
    assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "hello" in text
    assert text.endswith("</html>\n")
    await page.goto(f"{tw.url}/sessions/a%2Fb%20c")
    await page.get_by_text("Export").click()
    async with page.expect_download() as started:
        await page.get_by_role("link", name="A page that opens without a server").click()
    download = await started.value
    assert download.suggested_filename == "session-a_b_c.html"
    saved = tmp_path / "saved.html"
    await download.save_as(saved)
    assert "hello" in saved.read_text()


async def test_it_is_not_there_for_others(tw: Running) -> None:
    async with tw.client.get(f"{tw.url}/api/sessions/nobody/export?format=html") as answer:
        assert answer.status == 404
