"""Hostile text in every place of a session's and a trace's pages: it does nothing and is shown."""

from typing import Final

import pytest
from playwright.async_api import Page

from proxy.ui import view
from tests.calling import CUT
from tests.running import Running
from tests.ui.hostile import HOSTILE
from tests.ui.looking import shapes, was_hacked
from tests.ui.rich import data_url, png
from tests.ui.story import Story, assistant, tool_call, usage, user

pytestmark = pytest.mark.asyncio(loop_scope="session")


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What our templates and Markdown write; no text of a stranger makes another element or attribute.
ELEMENTS: Final = words(
    """html head meta title link script body a header svg circle path rect nav div button span main
    h1 h2 p bdi time dl dt dd details summary table caption thead tbody tr th td figure figcaption
    pre code em strong ul ol li hr img section article footer dialog form kbd
    input label"""
)
ATTRIBUTES: Final = words(
    """lang charset name content rel href type src class id title aria-hidden aria-label
    aria-current aria-pressed aria-haspopup aria-labelledby role hidden tabindex viewbox d cx cy r
    x y width height rx preserveaspectratio scope datetime dir value alt loading open method
    action download for maxlength autocomplete placeholder
    data-since data-project data-session data-live data-copy data-copy-from data-metric
    data-state data-ago data-local data-keyed data-start data-id data-turn data-span data-length
    data-tail data-trace data-row-count"""
)
# Reads pages without showing them: the shape of each, and where its links lead.
PARSED: Final = """async (paths) => {
  const found = [];
  for (const path of paths) {
    const answer = await fetch(path);
    const text = await answer.text();
    const page = new DOMParser().parseFromString(text, "text/html");
    const names = (each) => [each.tagName, ...[...each.attributes].map((one) => one.name).sort()];
    found.push([
      answer.status,
      [...page.querySelectorAll("*")].map((each) => names(each).join(" ")),
      [...page.querySelectorAll("a[href]")].map((each) => each.getAttribute("href").trim()),
    ]);
  }
  return found;
}"""


async def tell(story: Story, text: str) -> None:
    """Put a text into every place that a client or a provider fills."""
    story.model = text[:500].replace("\0", "")
    tools = [{"type": "function", "function": {"name": text[:64]}}, {"type": text}]
    parts = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": text}},
        {"type": "image_url", "image_url": {"url": data_url(png(4, 4), text[:30])}},
        {"type": "file", "file": {"filename": text, "file_data": text}},
        {"type": text, "text": text},
    ]
    calls = [tool_call(text[:99], text, text), tool_call("2", "f", {text: text})]
    story.messages = [{"role": "system", "content": text}]
    await story.turn(
        user(parts),
        assistant(text, reasoning_content=text, refusal=text, tool_calls=calls),
        counts=usage(9, 9),
        request={"tools": tools, "user": text},
    )
    result = {"role": "tool", "tool_call_id": text[:99], "content": text}
    marks = f"```{text}\n{text}\n```\n- {text}\n1. **{text}**\n[{text}]({text}) `{text}` *{text}*"
    await story.turn([result, {"role": text, "name": text, "content": marks}], assistant(marks))
    story.messages[0] = {"role": "system", "content": f"{text}\nchanged"}
    await story.fails(user(text), text)
    await story.breaks_off(user(text), text, CUT)


async def check(page: Page, paths: list[str]) -> list[list[str]]:
    """Tell that pages have nothing that is not ours, and give their shapes."""
    shapes = []
    found = await page.evaluate(PARSED, paths)
    for path, (status, each, links) in zip(paths, found, strict=True):
        assert status == 200, path
        names = [one.lower().split(" ") for one in each]
        assert {name[0] for name in names} <= ELEMENTS, path
        assert {one for name in names for one in name[1:]} <= ATTRIBUTES, path
        assert [link for link in links if not link.startswith(("/", "#", "http"))] == []
        shapes.append(each)
    return shapes


async def test_no_text_does_anything_in_any_place(tw: Running, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    story = Story(tw)
    for text in HOSTILE:
        await tell(story, text)
    await story.runs(user("go"), HOSTILE[0])
    await tw.saved()
    home = "/sessions/story"
    for path in (f"{home}?limit=1000", f"{home}?view=traces&limit=1000", f"{home}?view=timeline"):
        await page.goto(tw.url + path)
        await page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
        assert not await was_hacked(page)
        (whole,) = await shapes(page, "html")
        shown = [one.lower().split(" ") for one in whole]
        assert {names[0] for names in shown} <= ELEMENTS
        assert {one for names in shown for one in names[1:]} <= ATTRIBUTES
    traces = [f"/traces/{trace}" for trace in story.traces]
    await check(page, [*traces[::6], *(f"{trace}?view=raw" for trace in traces[::14])])
    assert all(url.startswith((f"{tw.url}/", "data:image/png")) for url in asked)


async def test_no_name_of_a_session_changes_its_page(tw: Running, page: Page) -> None:
    # What else there is a header does not take.
    printable = ["".join(filter(str.isprintable, text))[:300].strip() for text in HOSTILE]
    names = ["harmless", *dict.fromkeys(filter(None, printable))]
    traces = []
    for name in names:
        story = Story(tw, name)
        traces.append(await story.turn(user("hi"), assistant("hello"), counts=usage(9, 9)))
    await tw.saved()
    await page.goto(f"{tw.url}/sessions/harmless")
    for paths in (
        [view.session_path(name) for name in names],
        [view.address(view.session_path(name), view="timeline") for name in names[::8]],
        [f"/traces/{trace}" for trace in traces[::8]],
    ):
        first, *others = await check(page, paths)
        assert [paths[n] for n, other in enumerate(others, 1) if other != first] == []


async def test_text_is_shown_as_it_was_written(tw: Running, page: Page) -> None:
    story = Story(tw)
    for text in HOSTILE:
        await story.turn(user(f"```\n{text}\n```"), assistant("x"), keep=False)
    await tw.saved()
    await page.goto(f"{tw.url}/sessions/story?limit=1000")
    shown: list[str] = await page.locator(".by-user pre").evaluate_all(
        "all => all.map(one => one.textContent)"
    )
    for text, found in zip(HOSTILE, shown, strict=True):
        assert found == view.lines(text.replace("\0", "\ufffd"))
