"""Pictures of every page, for people to look at: `make screenshots` puts them into build/.

Light and dark, 1440 and 360 pixels wide, of the demo database.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from proxy.access import COOKIE
from proxy.ui import view
from tests.keyed import keyed
from tests.ui.agents import Agent
from tests.ui.conftest import CHROMIUM, FLAGS
from tests.ui.demo import demo, talks
from tests.ui.rich import rich

SIZES = {"desktop": (1440, 900), "narrow": (360, 780)}
PAGES = {
    "sessions": "/sessions",
    "sessions-by-cost": "/sessions?sort_by=cost",
    "sessions-no-match": "/sessions?q=lighthouse+zebra",
    "sessions-problem": "/sessions?q=refund+%22open",
    "traces": "/traces",
}


async def main(folder: Path) -> None:
    """Take all pictures."""
    now_us = time.time_ns() // 1000
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with tempfile.TemporaryDirectory() as scratch:
            async with demo(Path(scratch), talks(), now_us) as tw:
                await _take(browser, tw.url, folder, PAGES)
        with tempfile.TemporaryDirectory() as scratch:
            async with demo(Path(scratch), [], now_us) as tw:
                await _take(
                    browser,
                    tw.url,
                    folder,
                    {"welcome": "/sessions", "settings-without-keys": "/settings"},
                )
        with tempfile.TemporaryDirectory() as scratch:
            async with demo(Path(scratch), [], now_us) as tw:
                # Twenty hours and three minutes from its first call to the one that runs.
                story = await rich(tw, at_us=now_us - (20 * 3600 + 180) * 1_000_000)
                await tw.saved()
                session = view.session_path(story.session)
                await _take(
                    browser,
                    tw.url,
                    folder,
                    {
                        "session": session,
                        "session-traces": view.address(session, view="traces"),
                        "session-timeline": view.address(session, view="timeline"),
                        "trace": view.trace_path(story.traces[0]),
                        "trace-failed": view.trace_path(story.traces[3]),
                        "trace-raw": view.address(view.trace_path(story.traces[0]), view="raw"),
                    },
                )
        with tempfile.TemporaryDirectory() as scratch:
            async with demo(Path(scratch), [], now_us) as tw:
                agent = Agent(tw, session="shop:user_17", at_us=now_us - 120_000_000)
                await agent.every_kind()
                opened = Agent(tw, 2, session="shop:user_17", at_us=now_us - 20_000_000)
                await opened.open("chat-turn", tags=("beta",))
                session = view.session_path("shop:user_17")
                at = {
                    name: view.address(agent.path, span=agent.spans[n].hex())
                    for name, n in (("retrieval", 4), ("call", 6), ("failed", 7))
                }
                await _take(
                    browser,
                    tw.url,
                    folder,
                    {
                        "agent": agent.path,
                        **{f"agent-{name}": path for name, path in at.items()},
                        "agent-raw": view.address(agent.path, view="raw"),
                        "agent-opened": opened.path,
                        "agent-session": session,
                        "agent-timeline": view.address(session, view="timeline"),
                        "agent-traces": view.address(session, view="traces"),
                    },
                )
        with tempfile.TemporaryDirectory() as scratch:
            async with keyed(Path(scratch), "http://127.0.0.1:9") as team:
                await _take(browser, team.tw.url, folder, {"sign-in": "/sessions"})
                await _take(
                    browser,
                    team.tw.url,
                    folder,
                    {
                        "settings": "/settings",
                        "settings-revoke": f"/settings/keys/{team['beta', 'read'].key_id}/revoke",
                        "welcome-with-keys": "/sessions",
                    },
                    team["alpha", "admin"].cookie,
                )
        untagged = [talk for talk in talks() if talk.session is None]
        with tempfile.TemporaryDirectory() as scratch:
            async with demo(Path(scratch), untagged, now_us) as tw:
                await _take(browser, tw.url, folder, {"no-sessions": "/sessions"})
        await browser.close()


async def _take(
    browser: Browser, url: str, folder: Path, pages: dict[str, str], cookie: str | None = None
) -> None:
    for size, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            context = await browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
                device_scale_factor=1 if size == "desktop" else 2,
            )
            if cookie is not None:
                await context.add_cookies([{"name": COOKIE, "value": cookie, "url": url}])
            tab = await context.new_page()
            for name, path in pages.items():
                await tab.goto(url + path)
                whole = name.startswith("settings")  # which goes on below
                await tab.screenshot(path=folder / f"{name}-{size}-{scheme}.png", full_page=whole)
            await context.close()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(target))
