"""Open pages while calls come in, in a real browser."""

from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from playwright.async_api import Page, expect

from storage.records import FAILED
from tests.api.asking import save
from tests.running import CHAT, Running
from tests.storage.calls import end, start, trace_id
from tests.ui.looking import findings
from tests.ui.relay import relay
from tests.wire import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"Hello you."},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}'
)


async def live(page: Page, url: str) -> None:
    """Open a page and wait until it hears of what happens."""
    await page.goto(url)
    await expect(page.locator("#live")).to_have_text("Live")


async def ids(page: Page) -> list[str]:
    found: list[str] = await page.locator("#rows tbody tr").evaluate_all(
        "rows => rows.map(row => row.dataset.id)"
    )
    return found


async def forget_events(tw: Running) -> None:
    """Prune the log: who comes back later is told to read everything anew."""

    def forget(tx: Any) -> None:
        tx.execute("DELETE FROM events", {})
        tx.execute(
            "UPDATE counters SET value = (SELECT value FROM counters WHERE name = 'event')"
            " WHERE name = 'pruned_event'",
            {},
        )

    await tw.server.recorder.write(forget)


async def test_a_call_of_the_openai_client_appears_within_a_second(
    tw: Running, upstream: ScriptedUpstream, page: Page
) -> None:
    await save(tw, end(start(1, session_id="old")))
    upstream.answers(ANSWER)
    await live(page, f"{tw.url}/sessions")
    async with openai.AsyncOpenAI(base_url=tw.openai_base, api_key="sk-x") as client:
        await client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "Hello!"}],
            extra_headers={"X-Traceway-Session-Id": "new"},
        )
    await expect(page.locator("[data-id=new]")).to_contain_text("Hello you.", timeout=1000)
    assert await ids(page) == ["new", "old"]
    await expect(page.locator("#totals dd").first).to_have_text("2")


async def test_the_first_call_turns_the_empty_page_into_the_list(tw: Running, page: Page) -> None:
    await live(page, f"{tw.url}/sessions")
    await expect(page.locator(".welcome")).to_be_visible()
    await save(tw, end(start(1, session_id="first")))
    await expect(page.locator("[data-id=first]")).to_be_visible()
    await expect(page.locator(".welcome")).to_have_count(0)
    await save(tw, end(start(2, session_id="second")))
    await expect(page.locator("[data-id=second]")).to_be_visible()


async def test_a_row_changes_where_it_stands(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="a")), end(start(2, session_id="b")))
    await live(page, f"{tw.url}/sessions")
    await save(tw, end(start(3, session_id="a"), state=FAILED, error="it broke"))
    row = page.locator("[data-id=a]")
    await expect(row).to_contain_text("it broke")
    await expect(row.locator("td").nth(3)).to_contain_text("2")
    assert await ids(page) == ["b", "a"]


async def test_what_is_deleted_stays_where_it_was_and_is_struck_out(
    tw: Running, page: Page
) -> None:
    await save(tw, end(start(1, session_id="a")), end(start(2, session_id="b")))
    await live(page, f"{tw.url}/sessions")
    await tw.client.delete(f"{tw.url}/api/sessions/a")
    await expect(page.locator("[data-id=a]")).to_have_class("gone")
    assert await ids(page) == ["b", "a"]


async def test_under_the_pointer_nothing_moves_but_a_bar_counts(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="a")), end(start(2, session_id="b")))
    await live(page, f"{tw.url}/sessions")
    await page.locator("[data-id=b]").hover()
    await save(tw, end(start(3, session_id="c")))
    await save(tw, end(start(4, session_id="d")))
    bar = page.locator("#news")
    await expect(bar).to_have_text("2 new sessions")
    assert await ids(page) == ["b", "a"]
    await bar.click()
    assert await ids(page) == ["d", "c", "b", "a"]
    await expect(bar).to_be_hidden()


async def test_what_waits_is_counted_and_enters_only_while_the_query_finds_it(
    tw: Running, page: Page
) -> None:
    await save(tw, start(1, session_id="a"))
    await live(page, f"{tw.url}/sessions?q=status:running")
    await page.locator("[data-id=a]").hover()
    await save(tw, *(start(n, session_id=name) for n, name in ((2, "b"), (3, "c"), (4, "d"))))
    bar = page.locator("#news")
    await expect(bar).to_have_text("3 new sessions")
    await save(tw, end(start(2, session_id="b")))
    await expect(bar).to_have_text("2 new sessions")
    await tw.client.delete(f"{tw.url}/api/sessions/c")
    await expect(bar).to_have_text("1 new session")
    await bar.click()
    assert await ids(page) == ["d", "a"]


async def test_what_waits_too_long_to_be_among_the_newest_is_not_left_out(
    tw: Running, page: Page
) -> None:
    await save(tw, end(start(1)))
    await live(page, f"{tw.url}/traces?limit=200")
    await page.locator("#rows tbody tr").hover()
    for first in (2, 42, 82):
        await save(tw, *(start(n) for n in range(first, first + 40)))
        name = "40 new traces" if first == 2 else "Many new traces"
        await expect(page.locator("#news")).to_have_text(name)
    await save(tw, end(start(2)))
    await page.locator("#news").click()
    await expect(page.locator("#rows tbody tr")).to_have_count(121)


async def test_what_is_new_enters_no_list_that_is_sorted_otherwise(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="a")))
    await live(page, f"{tw.url}/sessions?sort_by=cost&sort_order=asc")
    await save(tw, end(start(2, session_id="b")))
    await save(tw, end(start(3, session_id="a")))
    await expect(page.locator("[data-id=a] td").nth(3)).to_contain_text("2")
    assert await ids(page) == ["a"]


async def test_only_what_the_query_finds_enters_a_search(
    tw: Running, upstream: ScriptedUpstream, page: Page
) -> None:
    upstream.answers(ANSWER)

    async def say(text: str, session: str) -> None:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}
        headers = {"X-Traceway-Session-Id": session}
        async with tw.client.post(tw.url + CHAT, json=body, headers=headers) as answer:
            await answer.read()
        await tw.server.idle()
        await tw.saved()

    await say("zebra one", "a")
    await live(page, f"{tw.url}/sessions?q=zebra")
    await say("gnu", "b")
    await say("zebra two", "c")
    await expect(page.locator("[data-id=c]")).to_be_visible()
    assert await ids(page) == ["c", "a"]


async def test_traces_are_live_too(tw: Running, page: Page) -> None:
    await save(tw, end(start(1)))
    await live(page, f"{tw.url}/traces")
    await save(tw, start(2))
    row = page.locator(f"[data-id='{trace_id(2).hex()}']")
    await expect(row.locator(".status")).to_contain_text("running")
    await save(tw, end(start(2)))
    await expect(row.locator(".status")).to_contain_text("completed")
    assert await ids(page) == [trace_id(2).hex(), trace_id(1).hex()]


async def test_fifty_calls_of_a_time_without_connection_all_appear_once(
    tw: Running, page: Page
) -> None:
    await save(tw, end(start(1, session_id="s1")))
    async with relay(tw.port) as (wire, url):
        await live(page, f"{url}/sessions?limit=100")
        wire.cut()
        indicator = page.locator("#live")
        await expect(indicator).to_have_text("Disconnected")
        assert await findings(page) == []
        await save(tw, *(end(start(n, session_id=f"s{n}")) for n in range(2, 52)))
        wire.mend()
        await expect(indicator).to_have_text("Live")
        await expect(page.locator("#rows tbody tr")).to_have_count(51)
        assert await ids(page) == [f"s{n}" for n in range(51, 0, -1)]


async def test_a_page_that_missed_events_for_good_reads_itself_anew(
    tw: Running, page: Page
) -> None:
    await save(tw, end(start(1, session_id="a")))
    await live(page, f"{tw.url}/sessions")
    await page.keyboard.press(".")
    await expect(page.locator("#live")).to_have_text("Paused")
    await save(tw, end(start(2, session_id="b")))

    await forget_events(tw)
    await page.keyboard.press(".")
    await expect(page.locator("[data-id=b]")).to_be_visible()


async def test_a_paused_page_hears_nothing_until_it_goes_on(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="a")))
    await live(page, f"{tw.url}/sessions")
    await page.locator("#live").click()
    await expect(page.locator("#live")).to_have_attribute("aria-pressed", "false")
    await save(tw, end(start(2, session_id="b")))
    await page.locator("#live").click()
    await expect(page.locator("[data-id=b]")).to_be_visible()


async def test_more_calls_than_a_page_has_rows_begin_the_page_anew(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="s1")))
    await live(page, f"{tw.url}/sessions")
    await save(tw, *(end(start(n, session_id=f"s{n}")) for n in range(2, 202)))
    await expect(page.locator("[data-id=s201]")).to_be_visible()
    assert await ids(page) == [f"s{n}" for n in range(201, 151, -1)]
    await expect(page.get_by_role("link", name="Next page")).to_be_visible()


async def test_many_calls_under_the_pointer_wait_as_few_do(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="s1")))
    await live(page, f"{tw.url}/sessions")
    await page.locator("[data-id=s1]").hover()
    await save(tw, *(end(start(n, session_id=f"s{n}")) for n in range(2, 102)))
    await expect(page.locator("#news")).to_have_text("Many new sessions")
    assert await ids(page) == ["s1"]
    await page.locator("#news").click()
    await expect(page.locator("#rows tbody tr")).to_have_count(50)
    await expect(page.locator("#news")).to_be_hidden()


async def test_sessions_with_the_longest_ids_are_fetched_in_several_pieces(
    tw: Running, page: Page
) -> None:
    await save(tw, end(start(1, session_id="first")))
    await live(page, f"{tw.url}/sessions?limit=100")
    await save(tw, *(end(start(n, session_id=f"{n}" + "é" * 500)) for n in range(2, 42)))
    await expect(page.locator("#rows tbody tr")).to_have_count(41)


async def test_the_search_of_a_page_that_was_empty_completes_too(tw: Running, page: Page) -> None:
    await live(page, f"{tw.url}/sessions")
    await save(tw, end(start(1, session_id="first")))
    await expect(page.get_by_role("combobox", name="Search sessions")).to_be_visible()


# A tab that `seem` hides and shows: a browser without a window shows all of them.
SEEMING = """hidden => {
  window.seem = (now) => {
    hidden = now;
    document.dispatchEvent(new Event("visibilitychange"));
  };
  Object.defineProperty(document, "hidden", { get: () => hidden });
}"""


async def test_a_tab_that_was_opened_in_the_background_connects_when_it_is_seen(
    tw: Running, page: Page
) -> None:
    await save(tw, end(start(1, session_id="a")))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    await page.add_init_script(f"({SEEMING})(true)")
    await page.goto(f"{tw.url}/sessions")
    await expect(page.locator("#live")).to_have_text("Connecting")
    await save(tw, end(start(2, session_id="b")))
    assert "/api/events" not in asked
    await page.evaluate("seem(false)")
    await expect(page.locator("[data-id=b]")).to_be_visible()
    assert await ids(page) == ["b", "a"]


async def test_a_hidden_tab_whose_connection_breaks_makes_none_until_it_is_seen(
    tw: Running, page: Page
) -> None:
    await save(tw, end(start(1, session_id="a")))
    async with relay(tw.port) as (wire, url):
        await page.add_init_script(f"({SEEMING})(false)")
        await page.clock.install()
        await live(page, f"{url}/sessions")
        await page.evaluate("seem(true)")
        wire.cut()
        await expect(page.locator("#live")).to_have_text("Connecting")
        wire.mend()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.clock.run_for(30_000)
        assert asked == []
        await page.evaluate("seem(false)")
        await expect(page.locator("#live")).to_have_text("Live")
