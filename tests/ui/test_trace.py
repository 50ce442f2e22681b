"""A trace's page in a real browser: its tree, one span, what is raw, and the way back."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from proxy.api import span_views
from tests.api.asking import damage, save
from tests.running import Running, running
from tests.storage.calls import end, span_id, start, trace_id
from tests.ui.looking import findings, width
from tests.ui.rich import rich
from tests.ui.story import Story, assistant, user

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """A session with everything, which has ended, for all tests that only read it."""
    async with running(tmp_path_factory.mktemp("story"), "http://127.0.0.1:9") as tw:
        told = await rich(tw, running=False)
        await tw.saved()
        yield told


# Keeps every state that the page says the trace is in, one after the other.
STATES = """() => {
  window.states = [];
  const look = () => {
    const text = document.querySelector("#head .badge").textContent;
    if (states.at(-1) !== text) states.push(text);
  };
  look();
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
}"""


async def facts(page: Page) -> dict[str, str]:
    """Give what the page lists of a span."""
    rows = await page.locator(".facts-list > div").all()
    return {
        (await row.locator("dt").inner_text()): (await row.locator("dd").inner_text())
        for row in rows
    }


async def test_it_shows_a_call_with_its_figures_and_messages(story: Story, page: Page) -> None:
    await page.goto(f"{story.tw.url}/traces/{story.traces[0]}")
    found = await facts(page)
    assert (found["State"], found["Model"]) == ("completed", "gpt-4o-mini-2024-07-18")
    assert (found["Latency"], found["First token"]) == ("4.2 s", "500 ms")
    assert (found["Input tokens"], found["of them cached"]) == ("812", "512")
    assert (found["Output tokens"], found["of them reasoning"]) == ("240", "64")
    await expect(page.get_by_role("region", name="Input")).to_contain_text("How do I load")
    await expect(
        page.get_by_role("region", name="Output").locator("strong", has_text="plan")
    ).to_have_count(1)
    (span,) = (await story.tw.api(f"/api/traces/{story.traces[0]}"))["spans"]
    cost = page.locator(".facts-list div", has_text="Cost").locator("dd > span")
    assert float((await cost.get_attribute("title") or "$")[1:]) == span["kind"]["cost"]


async def test_an_error_stands_in_words(story: Story, page: Page) -> None:
    await page.goto(f"{story.tw.url}/traces/{story.traces[3]}")
    box = page.locator(".problem-box")
    await expect(box).to_contain_text("Failed")
    await expect(box).to_contain_text("HTTP 429: Rate limit reached")
    await expect(box).to_contain_text("Ended by the upstream, in the body.")


async def test_spans_are_a_tree_and_one_is_chosen(tw: Running, page: Page) -> None:
    root = start(1, session_id="s")
    changes = [
        end(root),
        end(start(2, trace=1, parent_id=span_id(1)), model="inner"),
        end(start(3, trace=1, parent_id=span_id(2)), state="failed", error="no"),
    ]
    await save(tw, *changes)
    await page.goto(f"{tw.url}/traces/{trace_id(1).hex()}")
    spans = page.locator(".tree li")
    assert [await one.get_attribute("class") for one in await spans.all()] == ["d0", "d1", "d2"]
    await expect(page.locator(".tree .bar-of")).to_have_count(3)
    await spans.nth(1).locator("a").click()
    await expect(page).to_have_url(f"{tw.url}/traces/{trace_id(1).hex()}?span={span_id(2).hex()}")
    assert (await facts(page))["Model"] == "inner"
    await expect(spans.nth(1).locator("a")).to_have_attribute("aria-current", "true")
    await page.go_back()
    assert (await facts(page))["Span id"] == span_id(1).hex()


async def test_raw_bodies_are_text_as_it_was_sent(story: Story, page: Page) -> None:
    await page.goto(f"{story.tw.url}/traces/{story.traces[0]}")
    await page.get_by_role("link", name="Raw").click()
    (span,) = (await story.tw.api(f"/api/traces/{story.traces[0]}"))["spans"]
    async with story.tw.client.get(f"{story.tw.url}/api/spans/{span['id']}/request") as answer:
        sent = await answer.text()
    assert await page.locator("pre.body").first.inner_text() == sent
    await expect(page.locator("pre.body")).to_have_count(4)
    await expect(page.get_by_role("region", name="Request headers")).to_contain_text("Content-Type")


async def test_a_body_that_is_no_conversation_is_shown_indented(tw: Running, page: Page) -> None:
    story = Story(tw)
    trace = await story.call({"model": "m", "documents": [1]}, b'{"data":[{"x":1}]}')
    await tw.saved()
    await page.goto(f"{tw.url}/traces/{trace}")
    output = page.get_by_role("region", name="Output")
    await expect(output.locator("pre")).to_contain_text('"data": [')


async def test_it_leads_back_to_its_turn(story: Story, page: Page) -> None:
    await page.goto(f"{story.tw.url}/traces/{story.traces[2]}")
    await page.get_by_role("link", name="support-bot:user_42").click()
    await expect(page.locator(f"#t-{story.traces[2]}")).to_be_in_viewport()


async def test_a_running_trace_is_told_when_it_ends(tw: Running, page: Page) -> None:
    running = start(1, session_id="s")
    await save(tw, running)
    await page.goto(f"{tw.url}/traces/{trace_id(1).hex()}")
    await expect(page.locator("#live")).to_have_text("Live")
    await expect(page.locator("#head .badge")).to_have_text("running")
    await save(tw, end(running))
    await expect(page.locator("#head .badge")).to_have_text("completed")


async def test_an_answer_that_comes_late_replaces_no_newer_one(tw: Running, page: Page) -> None:
    running = start(1, session_id="s")
    await save(tw, running)
    await page.goto(f"{tw.url}/traces/{trace_id(1).hex()}")
    await expect(page.locator("#live")).to_have_text("Live")
    first, second = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        if first.is_set():
            await route.continue_()
            second.set()
            return
        answer = await route.fetch()
        first.set()
        # At most as long as a page that does not wait for it needs to ask again.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(second.wait(), 1)
            await expect(page.locator("#head .badge")).to_have_text("completed")
        await route.fulfill(response=answer)

    await page.route("**/traces/*", hold)
    await page.evaluate(STATES)
    await save(tw, start(2, trace=1, parent_id=span_id(1)))
    await asyncio.wait_for(first.wait(), 10)
    await save(tw, end(running), end(start(2, trace=1, parent_id=span_id(1))))
    await expect(page.locator("#head .badge")).to_have_text("completed")
    await page.unroute_all(behavior="wait")
    await save(tw, end(start(3, trace=1, parent_id=span_id(1))))
    await expect(page.locator(".tree li")).to_have_count(3)
    assert await page.evaluate("states") == ["running", "completed"]


async def test_a_fetch_that_failed_is_tried_again(tw: Running, page: Page) -> None:
    running = start(1, session_id="s")
    await save(tw, running)
    await page.goto(f"{tw.url}/traces/{trace_id(1).hex()}")
    await expect(page.locator("#live")).to_have_text("Live")
    await page.route("**/traces/*", lambda route: route.abort(), times=1)
    await page.route("**/traces/*", lambda route: route.fulfill(status=503), times=1)
    await save(tw, end(running))
    await expect(page.locator("#head .badge")).to_have_text("completed")


@pytest.mark.parametrize(
    "path", ["/traces/x", f"/traces/{'0' * 32}", "/spans/x/curl", f"/spans/{'0' * 16}/curl"]
)
async def test_what_is_not_there_is_a_page_that_says_so(tw: Running, path: str) -> None:
    async with tw.client.get(tw.url + path) as answer:
        assert (answer.status, answer.content_type) == (404, "text/html")


async def test_a_span_of_another_trace_is_not_found(story: Story) -> None:
    (other,) = (await story.tw.api(f"/api/traces/{story.traces[1]}"))["spans"]
    async with story.tw.client.get(
        f"{story.tw.url}/traces/{story.traces[0]}?span={other['id']}"
    ) as answer:
        assert answer.status == 404


async def test_only_the_span_that_is_shown_is_read_whole(tw: Running) -> None:
    await save(tw, end(start(1)), end(start(2, trace=1)))
    await damage(tw, span_id(2))
    path = f"{tw.url}/traces/{trace_id(1).hex()}"
    for query in ("", f"?span={span_id(1).hex()}"):
        async with tw.client.get(path + query) as answer:
            assert answer.status == 200
            assert span_id(2).hex() in await answer.text()
    async with tw.client.get(f"{path}?span={span_id(2).hex()}") as answer:
        assert answer.status == 503


async def test_spans_are_made_ready_beside_the_event_loop(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(tw, end(start(1, session_id="s")), end(start(2, session_id="s", trace=1)))
    threads: list[threading.Thread] = []

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return of_view(*given)

    of_view = span_views._attributes  # which each view of a span has read
    monkeypatch.setattr(span_views, "_attributes", noted)
    for path, count in ((f"/traces/{trace_id(1).hex()}", 3), ("/sessions/s?view=timeline", 2)):
        threads.clear()
        async with tw.client.get(tw.url + path) as answer:
            assert answer.status == 200
        assert len(threads) == count
        assert threading.main_thread() not in threads


async def test_a_call_as_a_command_names_no_key(tw: Running) -> None:
    story = Story(tw)
    await story.turn(user("it's"), assistant("x"))
    (trace,) = (await tw.api("/api/traces"))["traces"]
    (span,) = (await tw.api(f"/api/traces/{trace['id']}"))["spans"]
    async with tw.client.get(f"{tw.url}/spans/{span['id']}/curl") as answer:
        assert answer.content_type == "text/plain"
        text = await answer.text()
    assert text.startswith(f"curl {tw.url}/api/proxy/openai/v1/chat/completions")
    assert "it'\"'\"'s" in text
    assert "$OPENAI_API_KEY" in text


async def test_nothing_shuts_people_out(story: Story, page: Page) -> None:
    for scheme, path in (
        ("light", story.traces[0]),
        ("light", f"{story.traces[0]}?view=raw"),
        ("dark", story.traces[3]),
    ):
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await page.goto(f"{story.tw.url}/traces/{path}")
        assert await findings(page) == []


async def test_it_fits_a_narrow_screen(story: Story, page: Page) -> None:
    await page.set_viewport_size({"width": 360, "height": 780})
    for path in (story.traces[0], f"{story.traces[0]}?view=raw"):
        await page.goto(f"{story.tw.url}/traces/{path}")
        assert await width(page) == 360
