"""Looking at one project or another: nothing of the one is seen in the other."""

import pytest
from playwright.async_api import BrowserContext, Page, expect

from proxy.access import PROJECT_COOKIE
from tests.api.asking import save
from tests.keyed import Keyed
from tests.running import CHAT, Running
from tests.storage.calls import end, start
from tests.ui.test_sign_in import post, sign_in
from tests.wire import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def switch(page: Page, project: str) -> None:
    """Choose another project in the menu."""
    await page.locator("#menu summary").click()
    await page.get_by_role("button", name=project, exact=True).click()
    await expect(page.locator(".menu-name")).to_have_text(project)


async def fill(team: Keyed) -> None:
    """Put a session of the same id, and one of its own, into both projects."""
    for n, project in enumerate(("alpha", "beta")):
        known = {"project_id": team[project, "admin"].project_id, "user_id": f"{project}-user"}
        await save(
            team.tw,
            end(start(10 * n + 1, session_id="same", name=f"{project}-name", **known)),
            end(start(10 * n + 2, session_id=f"{project}-only", name=f"{project}-name", **known)),
        )


async def test_an_admin_sees_one_project_at_a_time(team: Keyed, page: Page) -> None:
    await fill(team)
    await sign_in(page, team, "alpha", "admin")
    await expect(page.locator("[data-id=alpha-only]")).to_be_visible()
    assert "beta-" not in await page.locator("main").inner_html()
    await switch(page, "beta")
    assert page.url == f"{team.tw.url}/sessions"
    await expect(page.locator("[data-id=beta-only]")).to_be_visible()
    for path in (
        *("/sessions", "/traces", "/sessions/same", "/sessions/same?view=traces"),
        *("/sessions?q=alpha", "/sessions/same?view=timeline", "/traces?q=user:alpha-user"),
    ):
        await page.goto(team.tw.url + path)
        shown = await page.locator("main").inner_html()
        assert "alpha-only" not in shown, path
        assert "alpha-name" not in shown, path
    answer = await page.goto(f"{team.tw.url}/sessions/alpha-only")
    assert answer is not None
    assert answer.status == 404
    await page.goto(f"{team.tw.url}/sessions")
    await page.get_by_role("combobox").fill("user:")
    await expect(page.get_by_role("option")).to_have_text(["user:beta-user"])


async def test_an_open_list_hears_of_its_own_project_alone(team: Keyed, page: Page) -> None:
    await fill(team)
    await sign_in(page, team, "beta", "read")
    await expect(page.locator("#live")).to_have_text("Live")
    ours = {"project_id": team["beta", "read"].project_id}
    theirs = {"project_id": team["alpha", "read"].project_id}
    await save(team.tw, end(start(31, session_id="alpha-new", **theirs)))
    await save(team.tw, end(start(32, session_id="same", **theirs)))
    await save(team.tw, end(start(33, session_id="beta-new", **ours)))
    await expect(page.locator("[data-id=beta-new]")).to_be_visible()
    await expect(page.locator("[data-id=alpha-new]")).to_have_count(0)
    await expect(page.locator("[data-id=same] td").nth(3)).to_contain_text("1")


async def test_a_tab_of_the_project_before_says_so_and_shows_nothing_of_the_next(
    team: Keyed, page: Page, context: BrowserContext
) -> None:
    await fill(team)
    await sign_in(page, team, "alpha", "admin")
    await expect(page.locator("#live")).to_have_text("Live")
    other = await context.new_page()
    await other.goto(f"{team.tw.url}/traces")
    await switch(other, "beta")
    assert other.url == f"{team.tw.url}/traces"
    beta = {"project_id": team["beta", "read"].project_id}
    alpha = {"project_id": team["alpha", "read"].project_id}
    # The stream of the old project ends with what would have been said next.
    await save(team.tw, end(start(41, session_id="beta-new", **beta)))
    await save(team.tw, end(start(42, session_id="alpha-new", **alpha)))
    await expect(page.get_by_role("alert")).to_contain_text("looks at project beta now")
    await expect(page.locator("#live")).to_have_text("Ended")
    assert "beta-" not in await page.locator("main").inner_html()
    await expect(page.locator("tr.gone")).to_have_count(0)
    # What the tab asks for, it asks of its own project.
    await page.get_by_role("link", name="All sessions").click()
    await expect(page.locator("[data-id=beta-new]")).to_be_visible()


async def test_where_a_key_belongs_to_one_project_no_other_is_named(
    team: Keyed, page: Page
) -> None:
    await sign_in(page, team, "alpha", "read")
    await expect(page.locator(".menu-name")).to_have_text("alpha")
    assert "beta" not in await page.content()


async def test_with_keys_off_one_project_needs_no_name_and_two_can_be_chosen(
    tw: Running, upstream: ScriptedUpstream, page: Page, context: BrowserContext
) -> None:
    await page.goto(f"{tw.url}/sessions")
    await expect(page.locator("#menu, .project")).to_have_count(0)
    await expect(page.get_by_role("link", name="Settings")).to_be_visible()
    async with tw.client.post(f"{tw.url}/api/projects", json={"name": "beta"}) as answer:
        assert answer.status == 201
    await save(tw, end(start(1, session_id="ours")))
    await save(tw, end(start(2, session_id="theirs", project_id=2)))
    await page.reload()
    await expect(page.locator("[data-id=ours]")).to_be_visible()
    await switch(page, "beta")
    await expect(page.locator("[data-id=theirs]")).to_be_visible()
    await expect(page.locator("[data-id=ours]")).to_have_count(0)
    await expect(page.locator("#live")).to_have_text("Live")
    await save(tw, end(start(3, session_id="ours", name="x")))
    await save(tw, end(start(4, session_id="theirs-too", project_id=2)))
    await expect(page.locator("[data-id=theirs-too]")).to_be_visible()
    await expect(page.locator("[data-id=ours]")).to_have_count(0)
    (cookie,) = await context.cookies()
    assert (cookie["name"], cookie["value"], cookie["httpOnly"]) == (PROJECT_COOKIE, "2", True)


async def test_an_open_tab_asks_for_its_own_project_whatever_the_browser_looks_at_now(
    tw: Running, page: Page, context: BrowserContext
) -> None:
    async with tw.client.post(f"{tw.url}/api/projects", json={"name": "beta"}) as answer:
        assert answer.status == 201
    await save(tw, end(start(1, session_id="ours", user_id="our-user")))
    await save(tw, end(start(2, session_id="same", project_id=2, user_id="their-user")))
    await page.goto(f"{tw.url}/sessions")
    await expect(page.locator("#live")).to_have_text("Live")
    other = await context.new_page()
    await other.goto(f"{tw.url}/sessions")
    await switch(other, "beta")
    await save(tw, end(start(3, session_id="same", user_id="our-user")))
    row = page.locator("[data-id=same]")
    await expect(row).to_be_visible()
    await expect(row.locator("td").nth(3)).to_contain_text("1")
    await page.get_by_role("combobox").fill("user:")
    await expect(page.get_by_role("option")).to_have_text(["user:our-user"])
    # Only a connection that was lost cannot be had again for it.
    await page.keyboard.press("Escape")
    await page.keyboard.press("Escape")
    await page.locator("#live").click()
    await page.locator("#live").click()
    await expect(page.get_by_role("alert")).to_contain_text("looks at project beta now")


@pytest.mark.parametrize("value", ["3", "0", "x", "", "2;", "99999999999", "-2", "default"])
async def test_a_cookie_that_names_no_project_is_the_default_one(tw: Running, value: str) -> None:
    async with tw.client.post(f"{tw.url}/api/projects", json={"name": "beta"}) as answer:
        assert answer.status == 201
    headers = f"Cookie: {PROJECT_COOKIE}={value}\r\n".encode()
    got = await tw.raw(b"/api/self", method=b"GET", headers=headers)
    assert b'"project":"default"' in got.body or value == "2;"


async def test_calls_go_to_the_default_project_whatever_a_browser_looks_at(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    async with tw.client.post(f"{tw.url}/api/projects", json={"name": "beta"}) as answer:
        assert answer.status == 201
    upstream.answers(b"{}")
    headers = {"Cookie": f"{PROJECT_COOKIE}=2"}
    async with tw.client.post(tw.url + CHAT, json={}, headers=headers) as answer:
        assert answer.status == 200
    assert (await tw.span())["id"]


async def test_there_is_no_way_to_a_project_that_is_none(team: Keyed) -> None:
    admin, reader = team["alpha", "admin"], team["alpha", "read"]
    got = await post(team.tw, "/project", {"project": "none"}, cookie=admin.cookie_header)
    assert got.status == 400
    got = await post(team.tw, "/project", {"project": "beta"}, cookie=reader.cookie_header)
    assert got.status == 403
    assert (
        await post(
            team.tw, "/project", {"project": "beta"}, admin.header + b"Origin: http://127.0.0.1\r\n"
        )
    ).status == 400


async def test_switching_leads_to_a_page_that_is_there(team: Keyed) -> None:
    cookie = team["alpha", "admin"].cookie_header
    for back, leads in (("/traces", b"/traces"), ("//evil.example", b"/sessions")):
        fields = {"project": "beta", "back": back}
        got = await post(team.tw, "/project", fields, cookie=cookie)
        assert (got.status, got.get(b"Location")) == (303, leads)
    got = await team.tw.raw(b"/settings", method=b"GET", headers=cookie)
    assert b'name="back" value="/settings"' in got.body
    got = await team.tw.raw(b"/sessions/x", method=b"GET", headers=cookie)
    assert b'name="back" value="/sessions"' in got.body
