"""What tests of pages look at in the browser."""

from typing import Any

from axe_playwright_python.base import AXE_FILE_PATH
from playwright.async_api import Page

from tests.ui.hostile import MARK

# The shape of markup: its elements and the names of their attributes, in order.
SHAPE = """element => [...element.querySelectorAll("*")].map(
  each => [each.tagName, ...[...each.attributes].map(one => one.name).sort()].join(" "))"""
# As a screen reader's user or a keyboard's would be shut out by them.
_SEVERE = ("serious", "critical")


async def shapes(page: Page, selector: str) -> list[list[str]]:
    """Give the shape of every element that fits."""
    found: list[list[str]] = await page.locator(selector).evaluate_all(f"all => all.map({SHAPE})")
    return found


async def was_hacked(page: Page) -> bool:
    """Tell whether some text ran as a script."""
    return bool(await page.evaluate(f"{MARK} !== undefined"))


async def findings(page: Page) -> list[str]:
    """Give what axe-core finds that is serious or worse, with what it is about."""
    # Not as a <script>, which the page's policy forbids.
    await page.evaluate(AXE_FILE_PATH.read_text() + ";0")
    result: dict[str, Any] = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{found['id']}: {node['html'][:200]}"
        for found in result["violations"]
        if found["impact"] in _SEVERE
        for node in found["nodes"]
    ]


async def width(page: Page) -> int:
    """Give how wide the page is that a reader can scroll to, in pixels."""
    return int(await page.evaluate("document.documentElement.scrollWidth"))
