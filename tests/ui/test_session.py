"""A session's page in a real browser: figures, views, branches, pages, and what is live."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from storage import budgets
from storage.spending import Reservation
from tests.api.asking import ask, damage, save
from tests.calling import DONE, USAGE, delta
from tests.running import Running, running
from tests.storage.calls import end, start
from tests.ui.looking import findings, width
from tests.ui.relay import relay
from tests.ui.rich import rich
from tests.ui.story import Story, assistant, usage, user
from tests.wire import Peer, ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOME = "/sessions/support-bot%3Auser_42"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """A session with everything, which still runs, for all tests that only read it."""
    async with running(tmp_path_factory.mktemp("story"), "http://127.0.0.1:9") as tw:
        told = await rich(tw, running=True)
        await tw.saved()
        yield told


async def html(tw: Running, path: str) -> str:
    await tw.saved()
    async with tw.client.get(tw.url + path) as answer:
        assert answer.status == 200, await answer.text()
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        return await answer.text()


async def status(tw: Running, path: str) -> int:
    async with tw.client.get(tw.url + path) as answer:
        assert answer.content_type == "text/html"
        return answer.status


def plain(text: str) -> str:
    """Give what is between tags, in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


async def test_it_reads_from_top_to_bottom_without_javascript(story: Story) -> None:
    text = plain(await html(story.tw, HOME))
    said = [
        *("System prompt", "How do I load a configuration", "Here is the plan", "Tool call search"),
        *("It is read in", "A gradient. The second picture", "Changed from here on", "Truncated"),
        *("validate it.", "Cancelled", "The default is"),
    ]
    places = [text.find(words) for words in said]
    assert -1 not in places, said[places.index(-1)]
    assert places == sorted(places)


async def test_its_six_metrics_are_those_of_the_api(story: Story, page: Page) -> None:
    session = await story.tw.api("/api/sessions/support-bot%3Auser_42")
    await page.goto(story.tw.url + HOME)

    async def exact(metric: str) -> str:
        figure = page.locator(f"[data-metric={metric}] .big > span")
        return (await figure.get_attribute("title") or "").split(";")[0]

    assert await page.locator(".tile dt").all_text_contents() == [
        *("Total cost", "Total tokens", "Total duration", "Avg latency", "Trace count"),
        "Error rate",
    ]
    assert float((await exact("cost"))[1:]) == session["cost"]
    assert (await exact("tokens")).replace(",", "") == f"{session['total_tokens']} tokens"
    for metric, key in (("duration", "duration_ms"), ("latency", "avg_latency_ms")):
        shown = float((await exact(metric)).removesuffix(" ms").replace(",", ""))
        assert shown == pytest.approx(session[key], abs=0.001)
    traces = page.locator("[data-metric=traces]")
    await expect(traces.locator(".big")).to_have_text(str(session["trace_count"]))
    await expect(traces).to_contain_text("6 completed")
    assert await exact("errors") == f"{session['error_rate']:.0%}"
    cost = page.locator("[data-metric=cost]")
    await expect(cost).to_contain_text(f"{session['unpriced_count']} call unpriced")
    await expect(cost).to_contain_text(f"{session['estimated_count']} calls estimated")


async def test_the_parts_of_its_sums_add_up(story: Story, page: Page) -> None:
    session = await story.tw.api("/api/sessions/support-bot%3Auser_42")
    await page.goto(story.tw.url + HOME)
    rows = page.locator("#by-model tbody tr")
    titles = [
        [await cell.get_attribute("title") for cell in await row.locator("td > span").all()]
        for row in await rows.all()
    ]
    costs = [float(cell[2][1:].split(";")[0]) for cell in titles if cell[2] and cell[2][0] == "$"]
    assert sum(costs) == pytest.approx(session["cost"], abs=1e-9)
    tokens = [int(cell[0].split()[0].replace(",", "")) for cell in titles if cell[0][0].isdigit()]
    assert sum(tokens) == session["input_tokens"]
    calls = [int(text) for text in await rows.locator("td:nth-child(2)").all_text_contents()]
    assert sum(calls) == session["span_count"]


async def test_each_turn_has_a_bar_that_leads_to_it(story: Story, page: Page) -> None:
    await page.goto(story.tw.url + HOME)
    bars = page.locator(".strip a")
    assert await bars.count() == len(story.traces)
    link = await bars.nth(6).get_attribute("href")
    assert link == f"{HOME}?at={story.traces[6]}#t-{story.traces[6]}"
    await page.goto(story.tw.url + link)
    await expect(page.locator(f"#t-{story.traces[6]}")).to_be_in_viewport()


async def test_its_views_have_addresses(story: Story, page: Page) -> None:
    await page.goto(story.tw.url + HOME)
    await page.get_by_role("navigation", name="Views").get_by_role("link", name="Traces").click()
    await expect(page).to_have_url(f"{story.tw.url}{HOME}?view=traces")
    await expect(page.locator("tbody tr[data-id]")).to_have_count(len(story.traces))
    await page.get_by_role("link", name="Timeline").click()
    await expect(page).to_have_url(f"{story.tw.url}{HOME}?view=timeline")
    await expect(page.locator(".waterfall .bar-of")).to_have_count(len(story.traces))
    await expect(page.locator(".pause")).to_contain_text("20 h 00 m without a call")
    await page.go_back()
    await page.go_back()
    await expect(page.locator(".conversation")).to_be_visible()


async def test_a_trace_is_opened_and_leads_back(story: Story, page: Page) -> None:
    await page.goto(story.tw.url + HOME)
    (span,) = (await story.tw.api(f"/api/traces/{story.traces[0]}"))["spans"]
    await page.locator(".message.answer .links a", has_text="Trace").first.click()
    await expect(page).to_have_url(f"{story.tw.url}/traces/{story.traces[0]}?span={span['id']}")
    await page.get_by_role("link", name="support-bot:user_42").click()
    await expect(page.locator(f"#t-{story.traces[0]}")).to_be_attached()


async def test_a_branch_is_chosen_by_a_link(story: Story, page: Page) -> None:
    await page.goto(story.tw.url + HOME)
    await expect(page.get_by_text("which I cannot open")).to_be_visible()
    await page.locator(".branches a", has_text="A gradient from blue").click()
    await expect(page.get_by_text("a cat that I was not given")).to_be_visible()
    await expect(page.locator(".branches a[aria-current]").last).to_contain_text("from blue")
    failed = page.locator(".branches").first.locator("a:not([aria-current])")
    await failed.click()
    await expect(page.locator(".message.failed")).to_contain_text(
        "Failed by the upstream, in the body: HTTP 429: Rate limit reached"
    )


async def test_tool_calls_stand_with_their_results(story: Story, page: Page) -> None:
    await page.goto(story.tw.url + HOME)
    search, read = await page.locator(".tool").all()
    await expect(search).to_contain_text('"query": "tomllib"')
    await expect(search).to_contain_text('"line": 12')
    await expect(read).to_contain_text("import tomllib")
    # Under their calls, and nowhere else.
    await expect(page.locator(".conversation").get_by_text("import tomllib")).to_have_count(1)


async def test_a_picture_is_shown_from_our_own_bytes(story: Story, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(story.tw.url + HOME)
    image = page.locator(".attachment img")
    await image.scroll_into_view_if_needed()
    await expect(image).to_have_js_property("naturalWidth", 48)
    await expect(page.locator(".attachment", has_text="example.com")).to_be_visible()
    assert all(url.startswith(story.tw.url) for url in asked)


async def test_a_session_is_found_by_an_id_of_any_kind(tw: Running) -> None:
    for session in ("..", "by-id", "rows", "a/b?c#d", "{x}", "100%", "סשן"):
        await Story(tw, session).turn(user("hi"), assistant("hello there"))
    for path in (
        *("/sessions/by-id?id=..", "/sessions/by-id?id=by-id", "/sessions/by-id?id=rows"),
        *("/sessions/a%2Fb%3Fc%23d", "/sessions/%7Bx%7D", "/sessions/100%25"),
        "/sessions/%D7%A1%D7%A9%D7%9F",
    ):
        assert "hello there" in await html(tw, path)
        parted = path.replace("?id", "/live?id") if "?id" in path else f"{path}/live"
        assert "hello there" in await html(tw, parted)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/sessions/none", 404),
        ("/sessions/none/live", 404),
        (f"{HOME}?view=x", 400),
        (f"{HOME}?from=-1", 400),
        (f"{HOME}?limit=0", 400),
        (f"{HOME}?branch=x", 400),
        (f"{HOME}?at=x", 200),
        (f"{HOME}?from=9999", 200),
        (f"{HOME}?view=traces&from=9999", 200),
        (f"{HOME}?view=timeline&from=9999", 200),
    ],
)
async def test_a_mistake_in_an_address_is_a_page_that_says_so(
    story: Story, path: str, code: int
) -> None:
    assert await status(story.tw, path) == code


async def test_a_long_session_is_read_page_by_page(tw: Running, page: Page) -> None:
    story = Story(tw)
    for n in range(60):
        await story.turn(user(f"question {n}."), assistant(f"answer {n}."), pause_s=1)
    await tw.saved()
    await page.goto(f"{tw.url}/sessions/story")
    seen: list[str] = []
    while True:
        seen += await page.locator(".conversation .text").all_text_contents()
        following = page.locator("#pager a[rel=next]")
        if not await following.count():
            break
        await following.click()
    said = [text for n in range(60) for text in (f"question {n}.", f"answer {n}.")]
    assert [text.strip() for text in seen] == said
    # A link to a turn opens the page that it is on.
    await page.goto(f"{tw.url}/sessions/story?at={story.traces[40]}#t-{story.traces[40]}")
    await expect(page.get_by_text("question 40.")).to_be_in_viewport()
    await expect(page.locator("#pager")).to_contain_text("51 to 100 of 120")
    await expect(page.locator(".strip a")).to_have_count(60)


async def test_no_page_of_a_session_reads_attributes_or_headers(tw: Running) -> None:
    story = Story(tw)
    await story.turn(user("hi"), assistant("hello"))
    await tw.saved()
    (span,) = await tw.spans()
    await damage(tw, bytes.fromhex(span["id"]))
    for view in ("", "?view=timeline", "?view=traces", f"?at={story.traces[0]}"):
        assert await status(tw, f"/sessions/story{view}") == 200, view
    assert (await ask(tw, "/api/sessions/story/conversation")).status == 200
    assert (await ask(tw, f"/api/spans/{span['id']}")).error == (503, "storage_unavailable")


async def test_a_session_without_conversations_says_so(tw: Running) -> None:
    story = Story(tw)
    await story.call({"model": "m", "input": "x"}, b"{}")
    assert "No call of this session" not in await html(tw, "/sessions/story?view=traces")


async def test_a_page_past_the_last_message_says_so_and_leads_back(tw: Running) -> None:
    story = Story(tw)
    await story.turn(user("hello"), assistant("hi"))
    await tw.saved()
    past = await html(tw, "/sessions/story?from=50")
    assert "The last message stands on a page before this one" in past
    assert "none of 2" in past
    assert "No call of this session" not in past


async def grow(story: Story, words: list[str]) -> None:
    for word in words:
        await story.turn(user(f"more {word}"), assistant(f"said {word}"), counts=usage(5, 5))


async def test_new_turns_and_metrics_appear_without_a_reload(tw: Running, page: Page) -> None:
    story = Story(tw)
    await grow(story, ["a"])
    await tw.saved()
    await page.goto(f"{tw.url}/sessions/story")
    await expect(page.locator("#live")).to_have_attribute("data-state", "live")
    await page.evaluate("window.stayed = true")
    await grow(story, ["b"])
    await expect(page.get_by_text("said b")).to_be_visible()
    traces = page.locator("[data-metric=traces] .big")
    await expect(traces).to_have_text("2")
    await expect(page.locator("[data-metric=tokens] .big")).to_have_text("20")
    await expect(page.locator(".strip a")).to_have_count(2)
    assert await page.evaluate("window.stayed")


async def test_what_a_reader_opened_and_where_he_is_stays(tw: Running, page: Page) -> None:
    story = Story(tw)
    thought = assistant("A " + "long " * 900, reasoning_content="because")
    await story.turn(user("why?"), thought)
    await tw.saved()
    await page.goto(f"{tw.url}/sessions/story")
    await expect(page.locator("#live")).to_have_attribute("data-state", "live")
    await page.locator(".reasoning summary").click()
    await page.locator("#by-model summary").click()
    article = await page.locator(".message.answer").element_handle()
    assert article is not None
    await page.evaluate("scrollTo(0, 400)")
    top = "element => element.isConnected && Math.round(element.getBoundingClientRect().top)"
    before = await article.evaluate(top)
    await grow(story, ["b"])
    await expect(page.get_by_text("said b")).to_be_attached()
    await expect(page.locator(".reasoning")).to_have_attribute("open", "")
    await expect(page.locator("#by-model")).to_have_attribute("open", "")
    assert await article.evaluate(top) == before


async def test_a_reader_at_the_end_stays_at_the_end(tw: Running, page: Page) -> None:
    story = Story(tw)
    await grow(story, [str(n) for n in range(12)])
    await tw.saved()
    await page.goto(f"{tw.url}/sessions/story")
    await expect(page.locator("#live")).to_have_attribute("data-state", "live")
    await page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    await grow(story, ["last"])
    await expect(page.get_by_text("said last")).to_be_in_viewport()


async def test_a_connection_that_was_cut_brings_what_it_missed_once(
    tw: Running, page: Page
) -> None:
    story = Story(tw)
    await grow(story, ["a"])
    await tw.saved()
    async with relay(tw.port) as (wire, url):
        await page.goto(f"{url}/sessions/story")
        await expect(page.locator("#live")).to_have_attribute("data-state", "live")
        wire.cut()
        await grow(story, [f"{n}" for n in range(50)])
        wire.mend()
        await expect(page.locator("[data-metric=traces] .big")).to_have_text("51")
        said = await page.locator(".message.answer .text").all_inner_texts()
    assert said == ["said a", *(f"said {n}" for n in range(50))]


async def test_a_stream_fills_in_while_it_runs(
    tw: Running, upstream: ScriptedUpstream, page: Page
) -> None:
    said, ended = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for words in ("The **first** words", " and 😀 more"):
            data = delta(words)
            await peer.send(b"%x\r\n%b\r\n" % (len(data), data))
            await said.wait()
        await ended.wait()
        data = USAGE + DONE
        await peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    story = Story(tw)
    await story.turn(user("hi"), assistant("hello"))
    await tw.saved()
    upstream.script = script
    await page.goto(f"{tw.url}/sessions/story")
    await expect(page.locator("#live")).to_have_attribute("data-state", "live")
    request = {"model": "gpt-4o-mini", "stream": True, "messages": [user("Tell me")]}
    call = asyncio.create_task(
        tw.raw(
            headers=b"Content-Type: application/json\r\nX-Traceway-Session-Id: story\r\n",
            body=orjson.dumps(request),
        )
    )
    text = page.locator("[data-span]")
    await expect(text).to_have_text("The **first** words")
    said.set()
    await expect(text).to_have_text("The **first** words and 😀 more")
    ended.set()
    assert (await call).status == 200
    await expect(text).to_have_count(0)
    answer = page.locator(".message.answer").last
    await expect(answer.locator("strong", has_text="first")).to_have_count(1)
    await expect(answer).to_contain_text("9 → 2 tokens")


class Feed:
    """A scripted /api/events: what the page takes for the server's."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def install(self) -> None:
        await self._page.add_init_script(
            """window.EventSource = class extends EventTarget {
                 constructor() {
                   super();
                   window.feed = (event) => {
                     const data = JSON.stringify(event);
                     this.dispatchEvent(new MessageEvent("message", { data }));
                   };
                   setTimeout(() => this.dispatchEvent(new Event("open")));
                 }
                 close() {}
               };"""
        )

    async def send(self, event: dict[str, Any]) -> None:
        await self._page.evaluate("event => window.feed(event)", event)


async def test_a_running_answer_grows_as_text_and_is_replaced_at_its_end(
    tw: Running, page: Page
) -> None:
    story = Story(tw)
    _, span = await story.runs(user("go"), "one ")
    await tw.saved()
    feed = Feed(page)
    await feed.install()
    await page.goto(f"{tw.url}/sessions/story")
    text = page.locator(f"[data-span='{span}']")
    await expect(text).to_have_text("one ")

    async def progress(offset: int, words: str) -> None:
        await feed.send({"type": "span_progress", "span_id": span, "offset": offset, "text": words})

    await progress(4, "<b>two</b> ")
    await expect(text).to_have_text("one <b>two</b> ")
    await progress(4, "<b>two</b> 😀 three")  # what came already counts once, by its characters
    await expect(text).to_have_text("one <b>two</b> 😀 three")
    await progress(22, "!")
    await expect(text).to_have_text("one <b>two</b> 😀 three!")
    await expect(text.locator("*")).to_have_count(0)


@pytest.mark.parametrize("view", ["traces", "timeline"])
async def test_a_running_answer_fetches_nothing_where_it_is_not_shown(
    tw: Running, page: Page, view: str
) -> None:
    story = Story(tw)
    _, span = await story.runs(user("go"), "one ")
    await tw.saved()
    feed = Feed(page)
    await feed.install()
    await page.clock.install()
    await page.goto(f"{tw.url}/sessions/story?view={view}")
    await expect(page.locator("#live")).to_have_attribute("data-state", "live")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await feed.send({"type": "span_progress", "span_id": span, "offset": 4, "text": "two"})
    await page.clock.run_for(1000)
    assert asked == []
    await feed.send({"type": "span_created", "span_id": span})
    async with page.expect_response("**/live?*"):
        await page.clock.run_for(1000)


async def test_keys_step_through_turns_and_errors(story: Story, page: Page) -> None:
    await page.goto(story.tw.url + HOME)
    turns = page.locator("[data-turn]")
    for key, turn in (("]", 0), ("]", 1), ("]", 2), ("[", 1)):
        await page.keyboard.press(key)
        await expect(turns.nth(turn)).to_have_class(re.compile("current"))
    await page.keyboard.press("e")
    await expect(page.locator(".message.failed")).to_have_class(re.compile("current"))
    await page.keyboard.press("k")
    await expect(page.locator(".message.failed")).not_to_have_class(re.compile("current"))


async def test_a_call_is_copied_as_curl(story: Story, page: Page) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto(story.tw.url + HOME)
    await page.get_by_role("link", name="Copy as curl").first.click()
    await expect(page.locator("a.done")).to_have_count(1)
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"curl {story.tw.url}/api/proxy/openai/v1/chat/completions")
    await expect(page).to_have_url(story.tw.url + HOME)


async def test_nothing_shuts_people_out(story: Story, page: Page) -> None:
    await page.emulate_media(color_scheme="light", reduced_motion="reduce")
    for view in ("?view=traces", "?view=timeline", ""):
        await page.goto(story.tw.url + HOME + view)
        assert await findings(page) == []
    await page.emulate_media(color_scheme="dark")
    assert await findings(page) == []


async def test_it_fits_a_narrow_screen(story: Story, page: Page) -> None:
    await page.set_viewport_size({"width": 360, "height": 780})
    for view in ("", "?view=traces", "?view=timeline"):
        await page.goto(story.tw.url + HOME + view)
        assert await width(page) == 360


async def test_a_budget_is_shown_with_the_cost_where_there_is_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with running(tmp_path_factory.mktemp("budget"), "http://127.0.0.1:9") as tw:
        one = start(1, session_id="s")
        await save(tw, end(one, cost_nusd=250_000_000))
        assert "left of" not in await html(tw, "/sessions/s")
        asked = Reservation(
            project_id=1,
            trace_id=one.trace_id,
            span_id=one.span_id,
            session_id="s",
            limit_nusd=1_000_000_000,
            amount_nusd=100_000_000,
        )
        await tw.server.recorder.write(lambda tx: budgets.reserve(tx, asked))
        for path in ("/sessions/s", "/sessions/s/live"):
            assert "$0.65 left of $1.00, $0.10 reserved" in plain(await html(tw, path))
        assert (await tw.api("/api/sessions/s"))["budget"] == {
            "limit_usd": 1.0,
            "spent_usd": 0.25,
            "reserved_usd": 0.1,
        }
