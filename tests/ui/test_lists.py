"""The lists of sessions and of traces, in a real browser."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from proxy.ui import view
from storage import listing
from storage.records import FAILED
from tests.api.asking import save
from tests.running import Running
from tests.storage.calls import end, start, unknown_usage
from tests.ui.looking import findings, width

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def ids(page: Page) -> list[str]:
    """Give the ids of the rows, from above."""
    found: list[str] = await page.locator("#rows tbody tr").evaluate_all(
        "rows => rows.map(row => row.dataset.id)"
    )
    return found


async def cells(page: Page, row_id: str) -> list[str]:
    """Give the text of each cell of a row, without what only narrow screens show."""
    found: list[str] = await page.locator(f'[data-id="{row_id}"] td').evaluate_all(
        "cells => cells.map(cell => cell.innerText.trim())"
    )
    return found


async def test_the_root_leads_to_the_sessions(tw: Running, page: Page) -> None:
    await page.goto(tw.url)
    assert urlsplit(page.url).path == "/sessions"
    await expect(page).to_have_title("Sessions · Traceway")


async def test_every_figure_of_a_session_is_the_apis(shown: Running, page: Page) -> None:
    sessions = (await shown.api("/api/sessions"))["sessions"]
    await page.goto(f"{shown.url}/sessions")
    assert await ids(page) == [session["id"] for session in sessions]
    for s in sessions:
        seen = await cells(page, s["id"])
        notes = {"unpriced": s["unpriced_count"], "estimated": s["estimated_count"]}
        failed = s["failed_trace_count"]
        assert seen[3].split("\n")[0] == f"{s['trace_count']:,}"
        assert seen[3].split("\n")[1:] == ([f"{failed} failed"] if failed else [])
        assert seen[4] == f"{s['span_count']:,}"
        tokens = view.tokens(s["total_tokens"], estimated=s["estimated_count"])
        assert seen[5:8] == [
            tokens.text,
            view.money(s["cost"], **notes).text,
            view.duration(s["duration_ms"]).text,
        ]
        assert seen[1] == "\n".join(
            view.one_line(text)
            for text in (
                s["first_input"],
                s["last_error"] if s["status"] == "failed" else s["last_output"],
            )
        )


async def test_every_figure_of_a_trace_is_the_apis(shown: Running, page: Page) -> None:
    traces = (await shown.api("/api/traces"))["traces"]
    await page.goto(f"{shown.url}/traces")
    assert await ids(page) == [trace["id"] for trace in traces]
    for t in traces:
        seen = await cells(page, t["id"])
        notes = {"unpriced": t["unpriced_count"], "estimated": t["estimated_count"]}
        assert seen[2] == (view.middle(t["session_id"], 24) if t["session_id"] else "—")
        assert seen[3:7] == [
            f"{t['span_count']:,}",
            view.tokens(t["total_tokens"], estimated=t["estimated_count"]).text,
            view.money(t["cost"], **notes).text,
            view.duration(t["duration_ms"]).text,
        ]


async def test_the_totals_are_the_apis(shown: Running, page: Page) -> None:
    stats = await shown.api("/api/stats")
    await page.goto(f"{shown.url}/sessions")
    notes = {"unpriced": stats["unpriced_count"], "estimated": stats["estimated_count"]}
    assert await page.locator("#totals dd").all_inner_texts() == [
        f"{stats['session_count']:,}",
        f"{stats['trace_count']:,}",
        view.tokens(stats["total_tokens"], estimated=stats["estimated_count"]).text,
        view.money(stats["cost"], **notes).text,
    ]


async def test_a_state_has_a_word_and_a_form_of_its_own(tw: Running, page: Page) -> None:
    await save(
        tw,
        end(start(1, session_id="good")),
        end(start(2, session_id="bad"), state=FAILED, error="no"),
        end(start(3, session_id="left"), state="cancelled"),
        start(4, session_id="busy"),
    )
    await page.goto(f"{tw.url}/sessions")
    states = {
        row: await page.locator(f"[data-id={row}] .status").text_content()
        for row in ("good", "bad", "left", "busy")
    }
    assert {row: (word or "").strip() for row, word in states.items()} == {
        "good": "completed",
        "bad": "failed",
        "left": "cancelled",
        "busy": "running",
    }
    drawn = {
        await page.locator(f"[data-id={row}] .status svg").inner_html() for row in ("good", "bad")
    }
    assert len(drawn) == 2


async def test_a_call_that_runs_says_so_where_its_answer_will_stand(
    tw: Running, page: Page
) -> None:
    await save(tw, start(1, session_id="busy"))
    await page.goto(f"{tw.url}/sessions")
    await expect(page.locator("[data-id=busy] .last")).to_have_text("running…")


async def test_what_is_not_known_is_a_dash_and_not_a_nought(tw: Running, page: Page) -> None:
    await save(tw, unknown_usage(end(start(1, session_id="s"))))
    await page.goto(f"{tw.url}/sessions")
    seen = await cells(page, "s")
    assert seen[5:7] == ["—", "—"]
    why = page.locator("[data-id=s] td:nth-child(7) span")
    await expect(why).to_have_attribute("title", "1 call without a known price")


async def test_the_pages_of_a_list_hold_every_row_once(tw: Running, page: Page) -> None:
    await save(tw, *(end(start(n, session_id=f"s{n}")) for n in range(1, 8)))
    await page.goto(f"{tw.url}/sessions?limit=3")
    seen = await ids(page)
    for _ in range(2):
        await page.get_by_role("link", name="Next page").click()
        await expect(page.get_by_role("link", name="First page")).to_be_visible()
        seen += await ids(page)
    assert seen == [f"s{n}" for n in range(7, 0, -1)]
    await expect(page.get_by_role("link", name="Next page")).to_have_count(0)
    await page.get_by_role("link", name="First page").click()
    assert urlsplit(page.url).query == "limit=3"


async def test_a_search_stands_in_the_address_and_back_undoes_it(
    shown: Running, page: Page
) -> None:
    await page.goto(f"{shown.url}/sessions")
    every = await ids(page)
    await page.keyboard.press("/")
    await page.keyboard.type('fires "on hills"')
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/sessions?q=*")
    assert await ids(page) == ["browser-tab-closed"]
    await expect(page.locator("#q")).to_have_value('fires "on hills"')
    await page.get_by_role("link", name="Clear").click()
    await page.wait_for_url("**/sessions")  # or only the rows are there that have come so far
    assert await ids(page) == every
    await page.go_back()
    assert await ids(page) == ["browser-tab-closed"]


async def test_headings_sort_and_turn_round(shown: Running, page: Page) -> None:
    await page.goto(f"{shown.url}/sessions?q=a")
    cost = page.get_by_role("columnheader", name="Cost")
    for order, query in (("descending", "sort_by=cost"), ("ascending", "sort_order=asc")):
        await cost.get_by_role("link").click()
        await page.wait_for_url(f"**{query}*")
        await expect(cost).to_have_attribute("aria-sort", order)
        found = await shown.api(f"/api/sessions?{urlsplit(page.url).query}")
        assert await ids(page) == [session["id"] for session in found["sessions"]]
    await expect(page.locator("th[aria-sort]")).to_have_count(1)


async def test_a_heading_of_traces_sorts_those_of_a_day(shown: Running, page: Page) -> None:
    await page.goto(f"{shown.url}/traces")
    await page.get_by_role("columnheader", name="Cost").get_by_role("link").click()
    await expect(page.locator("#q")).to_have_value("since:24h")
    found = await shown.api("/api/traces?q=since:24h&sort_by=cost")
    assert await ids(page) == [trace["id"] for trace in found["traces"]]


async def test_an_order_that_is_refused_is_left_by_clearing_and_by_searching(
    shown: Running, page: Page
) -> None:
    async def leads_on(name: str, role: Any) -> None:
        await page.get_by_role(role, name=name).click()
        await expect(page.locator("#rows tbody tr").first).to_be_visible()

    await page.goto(f"{shown.url}/traces?q=since:24h&sort_by=cost")
    await leads_on("Clear", "link")
    refused = f"{shown.url}/traces?q=-model:none&sort_by=cost&sort_order=asc"
    for name, role in (("Clear", "link"), ("Search", "button")):
        await page.goto(refused)
        await expect(page.locator("#q-problem")).to_contain_text("sorted by started")
        await leads_on(name, role)
    await page.goto(f"{shown.url}/traces?q=since:24h model:none&sort_by=cost")
    await page.locator(".clauses a").first.click()
    await expect(page).to_have_url(f"{shown.url}/traces?q=model%3Anone")


@pytest.mark.parametrize("kind", ["sessions", "traces"])
@pytest.mark.parametrize("q", ["status:failed", "cost:>0.001 -model:o3-mini", "hills"])
async def test_the_totals_of_a_search_are_the_apis(
    shown: Running, page: Page, kind: str, q: str
) -> None:
    await page.goto(f"{shown.url}/{kind}?q={q}")
    found = await shown.api(f"/api/{kind}?q={q}")
    assert await ids(page) == [row["id"] for row in found[kind]] != []
    sums = await shown.api(f"/api/{kind}/totals?q={q}")
    notes = {"unpriced": sums["unpriced_count"], "estimated": sums["estimated_count"]}
    counts = [] if kind == "traces" else [f"{sums['session_count']:,}"]
    await expect(page.locator("#totals dd")).to_have_text(
        [
            *counts,
            f"{sums['trace_count']:,}",
            view.tokens(sums["total_tokens"], estimated=sums["estimated_count"]).text,
            view.money(sums["cost"], **notes).text,
        ]
    )


async def test_a_query_that_is_refused_shows_where(tw: Running, page: Page) -> None:
    answer = await page.goto(f'{tw.url}/sessions?q=refund "open')
    assert answer is not None
    assert answer.status == 400
    await expect(page.locator("#q-problem mark")).to_have_text('"open')
    await expect(page.locator("#q")).to_have_attribute("aria-describedby", "q-problem")


async def test_a_search_without_a_match_says_which_part_has_none(
    shown: Running, page: Page
) -> None:
    await page.goto(f"{shown.url}/sessions?q=lighthouses xylophone")
    parts = page.locator(".clauses li")
    await expect(parts).to_contain_text(
        ["lighthouses matches by itself", "xylophone matches nothing by itself"]
    )
    await parts.nth(1).get_by_role("link").click()
    assert await ids(page) == ["browser-tab-closed"]


@pytest.mark.parametrize("kind", ["sessions", "traces"])
async def test_a_search_that_found_nothing_yet_says_so_and_leads_on(
    tw: Running, page: Page, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 5)
    users = {3: "x"}
    rows = [end(start(n, session_id=f"s{n}", user_id=users.get(n, "y"))) for n in range(1, 10)]
    await save(tw, *rows)
    await page.goto(f"{tw.url}/{kind}?q=user:x")
    await expect(page.locator(".notice")).to_contain_text(f"No {kind} found so far")
    await page.get_by_role("link", name="Next page").click()
    await expect(page.locator("#rows tbody tr")).to_have_count(1)
    await page.goto(f"{tw.url}/{kind}?q=user:nobody")
    await page.get_by_role("link", name="Next page").click()
    await expect(page.locator(".notice")).to_contain_text(f"No more {kind}")
    await page.get_by_role("link", name="Back to the first page").click()
    await expect(page.get_by_role("link", name="Next page")).to_be_visible()


async def test_calls_without_a_session_are_counted_and_the_header_is_shown(
    tw: Running, page: Page
) -> None:
    await save(tw, end(start(1)), end(start(2)))
    await page.goto(f"{tw.url}/sessions")
    notice = page.locator("[data-empty]")
    await expect(notice).to_contain_text("2 traces, but no session")
    await expect(notice).to_contain_text("X-Traceway-Session-Id")


async def test_the_first_page_has_examples_with_the_address_that_it_was_asked_at(
    tw: Running, page: Page
) -> None:
    await page.goto(f"http://localhost:{tw.port}/sessions")
    base_url = f"http://localhost:{tw.port}/api/proxy/openai/v1"
    for language in ("curl", "Python", "JavaScript"):
        await page.get_by_text(language, exact=True).click()
        await expect(page.get_by_role("region", name=f"{language} example")).to_contain_text(
            base_url
        )


async def test_lists_work_without_javascript(shown: Running, browser: Browser) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{shown.url}/sessions?limit=5")
    seen = []
    while await page.locator("a[rel=next]").count():
        seen += await page.locator("tbody tr .id a").all_inner_texts()
        await page.locator("a[rel=next]").click()
    seen += await page.locator("tbody tr .id a").all_inner_texts()
    sessions = (await shown.api("/api/sessions"))["sessions"]
    assert seen == [view.middle(session["id"], 26) for session in sessions]
    await page.get_by_role("link", name="Cost").click()
    await expect(page.locator("th[aria-sort]")).to_have_text("Cost")
    await page.locator("#q").fill("lighthouses")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    assert parse_qs(urlsplit(page.url).query) == {"q": ["lighthouses"], "sort_by": ["cost"]}
    await expect(page.locator("#live")).to_be_hidden()
    await context.close()


PAGES = [
    "/sessions?limit=8",
    "/traces?limit=8",
    "/sessions?q=lighthouses+zebra",
    '/sessions?q="open',
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nobody_is_shut_out_of_a_page(shown: Running, page: Page, scheme: Any) -> None:
    await page.emulate_media(color_scheme=scheme)
    for path in PAGES:
        await page.goto(shown.url + path)
        assert await findings(page) == [], path


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nobody_is_shut_out_of_an_empty_page(tw: Running, page: Page, scheme: Any) -> None:
    await page.emulate_media(color_scheme=scheme)
    await page.goto(f"{tw.url}/sessions")
    assert await findings(page) == []
    await page.keyboard.press("?")
    assert await findings(page) == []


async def test_a_narrow_screen_shows_all_without_scrolling_sideways(
    shown: Running, page: Page
) -> None:
    await page.set_viewport_size({"width": 360, "height": 740})
    for path in PAGES:
        await page.goto(shown.url + path)
        assert await width(page) == 360, path
    await page.goto(shown.url + PAGES[0])
    assert await findings(page) == []
