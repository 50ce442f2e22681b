"""The list of sessions in a real browser."""

import pytest
from playwright.async_api import Page, expect

from tests.api.asking import save
from tests.running import Running
from tests.storage.calls import end, start

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_session_is_a_row_of_the_list(tw: Running, page: Page) -> None:
    await save(tw, end(start(1, session_id="mine"), input_preview="hello"))
    await page.goto(tw.url)
    row = page.locator("[data-id=mine]")
    await expect(row).to_contain_text("hello")
