"""A real Chromium for the tests of the pages: one for all of them, a fresh profile for each.

The browser outlives a test, so everything here runs in one event loop: a test module of pages says
`pytestmark = pytest.mark.asyncio(loop_scope="session")`, and gets the servers below.
"""

import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.keyed import Keyed, keyed
from tests.running import Running, running
from tests.ui.demo import demo, talks
from tests.wire import ScriptedUpstream

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",  # the pages are our own, and CI is root
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The browser of the system; without one its tests are skipped, but never in CI."""
    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI installs chromium, and it is not there")
        pytest.skip("no chromium on PATH: the pages are tested in it (apt-get install chromium)")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A profile of its own, 1280 by 800, in light mode."""
    fresh = await browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    fresh.set_default_timeout(10_000)
    yield fresh
    await fresh.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A tab; whatever its scripts raise, and whatever its policy blocks, fails the test."""
    tab = await context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    tab.on(
        "console",
        lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None,
    )
    yield tab
    assert wrong == []


@pytest_asyncio.fixture(loop_scope="session")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """The scripted upstream, in the browser's loop."""
    scripted = ScriptedUpstream()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shown(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The demo, for tests that only look."""
    now_us = time.time_ns() // 1000
    async with demo(tmp_path_factory.mktemp("demo"), talks(), now_us) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def tw(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Running]:
    """A server in front of the upstream, in the browser's loop."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(running(tmp_path, upstream.url))


@pytest_asyncio.fixture(loop_scope="session")
async def team(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Keyed]:
    """A server with keys on, in front of the upstream, in the browser's loop."""
    async with keyed(tmp_path, upstream.url) as served:
        yield served
