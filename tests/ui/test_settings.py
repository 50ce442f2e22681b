"""The settings: keys and projects, by hand as bytes and in a real browser."""

import re
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, expect

from proxy.ui.snippets import lines_for
from storage.grants import Scope
from tests.keyed import Keyed
from tests.running import CHAT, Running, running
from tests.ui.hostile import HOSTILE
from tests.ui.looking import findings, was_hacked, width
from tests.ui.test_frame import POLICY
from tests.ui.test_sign_in import cookie_of, post, sign_in
from tests.wire import Received, ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = re.compile(rb"tw_sk_[\w-]{43}")
KEY_LIKE = "tw_sk_" + "A" * 43


def made_key(got: Received) -> str:
    """Give the key that a page shows; it must be one."""
    (key,) = set(KEY.findall(got.body))
    return str(key.decode())


async def test_the_first_key_turns_keys_on_and_locks_nobody_out(tw: Running, page: Page) -> None:
    await page.goto(f"{tw.url}/settings")
    await expect(page.get_by_text("The first key turns keys on")).to_be_visible()
    await expect(page.get_by_role("radio", name="admin")).to_be_checked()
    await page.get_by_label("Name").first.fill("mine")
    await page.get_by_role("button", name="Make the key and turn keys on").click()
    await expect(page.get_by_text("Keys are on now.")).to_be_visible()
    key = await page.locator("#made").inner_text()
    assert key not in page.url
    async with tw.client.get(f"{tw.url}/api/self") as answer:
        assert answer.status == 401
    async with tw.client.get(
        f"{tw.url}/api/self", headers={"Authorization": f"Bearer {key}"}
    ) as answer:
        assert (answer.status, (await answer.json())["scope"]) == (200, "admin")
    await page.get_by_role("link", name="Done").click()
    await expect(page.get_by_text("this browser's")).to_be_visible()
    await expect(page.locator("main")).not_to_contain_text(key)
    await expect(page.locator("[data-key]")).to_contain_text(key[-4:])
    # The next one is for a client, as most are.
    await expect(page.get_by_role("radio", name="write")).to_be_checked()
    await page.goto(f"{tw.url}/sessions")
    await expect(page.locator("#live")).to_have_text("Live")
    await expect(page.get_by_role("heading", name="With your own provider key")).to_be_visible()


async def test_a_first_key_that_may_read_signs_in_and_says_how_to_manage(tw: Running) -> None:
    got = await post(tw, "/settings/keys", {"name": "r", "scope": "read"})
    assert got.status == 200
    cookie, attributes = cookie_of(got)
    assert {"HttpOnly", "SameSite=Strict"} <= attributes
    assert b"traceway keys create --name NAME --scope admin" in got.body
    headers = f"Cookie: traceway_sign_in={cookie}\r\n".encode()
    assert (await tw.raw(b"/sessions", method=b"GET", headers=headers)).status == 200


async def test_a_first_key_that_writes_signs_nobody_in(tw: Running) -> None:
    got = await post(tw, "/settings/keys", {"name": "w", "scope": "write"})
    assert got.get(b"Set-Cookie") is None
    assert b"does not open these pages" in got.body
    assert b"traceway keys create --name NAME --scope admin" in got.body


async def test_later_keys_change_nothing_of_the_sign_in(team: Keyed) -> None:
    cookie = team["alpha", "admin"].cookie_header
    got = await post(team.tw, "/settings/keys", {"name": "x", "scope": "read"}, cookie=cookie)
    assert got.status == 200
    assert got.get(b"Set-Cookie") is None
    assert b"Keys are on now" not in got.body


async def test_where_the_configuration_says_that_no_key_is_needed_the_page_says_so(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with running(tmp_path, upstream.url, {"auth.mode": "off"}) as tw:
        got = await tw.raw(b"/settings", method=b"GET")
        assert b'[auth] mode = "off"' in got.body
        assert b"turns keys on" not in got.body
        got = await post(tw, "/settings/keys", {"name": "x", "scope": "admin"})
        assert got.get(b"Set-Cookie") is None
        assert (await tw.raw(b"/sessions", method=b"GET")).status == 200


async def test_a_key_is_on_the_page_of_its_making_and_nowhere_else(
    team: Keyed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cookie = team["alpha", "admin"].cookie_header
    fields = {"name": "ci", "scope": "write", "project": "beta", "calls_per_minute": "60"}
    got = await post(team.tw, "/settings/keys", fields, cookie=cookie)
    assert got.status == 200
    assert got.get(b"Cache-Control") == b"no-store"
    assert got.get(b"Content-Security-Policy") == POLICY.encode()
    key = made_key(got)
    assert key.encode() not in got.head
    for path in (b"/settings", b"/sessions", b"/api/keys"):
        again = await team.tw.raw(path, method=b"GET", headers=cookie)
        assert again.status == 200
        assert key.encode() not in again.body
    await team.tw.saved()
    for file in ("traceway.db", "traceway.db-wal"):
        assert key.encode() not in (tmp_path / file).read_bytes()
    assert key not in caplog.text
    who = await team.with_headers({"Authorization": f"Bearer {key}"})
    about = await who.api("/api/self")
    assert (about["project"], about["scope"]) == ("beta", "write")
    assert about["key"]["calls_per_minute"] == 60


@pytest.mark.parametrize("scope", ["read", "write", "admin"])
async def test_a_new_key_comes_with_the_lines_for_a_client(team: Keyed, scope: Scope) -> None:
    cookie = team["alpha", "admin"].cookie_header
    got = await post(team.tw, "/settings/keys", {"name": "x", "scope": scope}, cookie=cookie)
    lines = lines_for("http://127.0.0.1", made_key(got), scope)
    assert f"<code>{lines}</code>" in got.body.decode()


@pytest.mark.parametrize(
    ("path", "fields", "says"),
    [
        ("/settings/keys", {"scope": "read"}, "A key needs a name"),
        ("/settings/keys", {"name": "x" * 101, "scope": "read"}, "A key needs a name"),
        ("/settings/keys", {"name": "a\nb", "scope": "read"}, "A key needs a name"),
        ("/settings/keys", {"name": "x"}, "The scope of a key is read, write or admin"),
        ("/settings/keys", {"name": "x", "scope": "root"}, "The scope of a key"),
        ("/settings/keys", {"name": "x", "scope": "read", "project": "none"}, "no such project"),
        ("/settings/keys", {"name": "x", "scope": "read", "calls_per_minute": "0"}, "whole number"),
        (
            "/settings/keys",
            {"name": "x", "scope": "read", "calls_per_minute": "1.5"},
            "whole number",
        ),
        ("/settings/projects", {"name": "A b"}, "small letters"),
        ("/settings/projects", {"name": ""}, "small letters"),
        ("/settings/projects", {"name": "alpha"}, "There is a project"),
        ("/settings/projects", {"name": "x", "session_budget_usd": "-1"}, "amount in USD"),
        ("/settings/projects", {"name": "x", "session_budget_usd": "nan"}, "amount in USD"),
        ("/settings/projects", {"name": "x", "session_budget_usd": "inf"}, "amount in USD"),
        ("/settings/projects", {"name": "x", "session_budget_usd": "1e9"}, "amount in USD"),
        ("/settings/projects/beta", {"name": "alpha"}, "There is a project"),
        ("/settings/projects/beta", {"name": "-"}, "small letters"),
        ("/settings/projects/beta", {"name": "beta", "session_budget_usd": "x"}, "amount in USD"),
    ],
)
async def test_a_mistake_is_told_at_its_form_and_changes_nothing(
    team: Keyed, path: str, fields: dict[str, str], says: str
) -> None:
    me = await team.by("alpha", "admin")
    before = [await me.api("/api/keys"), await me.api("/api/projects")]
    got = await post(team.tw, path, fields, cookie=team["alpha", "admin"].cookie_header)
    assert got.status == 400
    assert says in got.body.decode()
    after = [await me.api("/api/keys"), await me.api("/api/projects")]
    for one in (*before[0]["keys"], *after[0]["keys"]):
        one["last_used_at"] = None
    assert after == before


async def test_projects_are_made_renamed_and_given_a_budget(team: Keyed, page: Page) -> None:
    await sign_in(page, team, "alpha", "admin", "/settings")
    new = page.locator("#new-project")
    await new.get_by_label("Name").fill("gamma")
    await new.get_by_label("Session budget").fill("2.5")
    await new.get_by_role("button").click()
    row = page.get_by_role("form", name="Project gamma")
    await expect(row.get_by_label("Session budget")).to_have_value("2.5")
    # In a list that has its labels on the first row only.
    await row.get_by_label("Name").fill("delta")
    await row.get_by_label("Session budget").fill("")
    await row.get_by_role("button").click()
    await expect(page.get_by_role("form", name="Project delta")).to_be_visible()
    me = await team.by("alpha", "admin")
    found = {
        one["name"]: one["session_budget_usd"]
        for one in (await me.api("/api/projects"))["projects"]
    }
    assert found == {"default": None, "alpha": None, "beta": None, "delta": None}


async def test_what_was_filled_in_is_there_again_after_a_mistake(team: Keyed, page: Page) -> None:
    await sign_in(page, team, "alpha", "admin", "/settings")
    new = page.locator("#new-project")
    await new.get_by_label("Name").fill("alpha")
    await new.get_by_role("button").click()
    await expect(page.get_by_role("alert")).to_contain_text("There is a project 'alpha' already")
    await expect(new.get_by_label("Name")).to_have_value("alpha")


async def test_a_key_is_revoked_after_a_question(team: Keyed, page: Page) -> None:
    holder = team["beta", "read"]
    await sign_in(page, team, "alpha", "admin", "/settings")
    row = page.locator(f"[data-key='{holder.key_id}']")
    await row.get_by_role("link", name="Revoke").click()
    await expect(page.get_by_role("heading", name="Revoke beta's read?")).to_be_visible()
    await expect(page.get_by_text("last admin key")).to_have_count(0)
    assert (await team.tw.raw(b"/api/self", method=b"GET", headers=holder.header)).status == 200
    await page.get_by_role("button", name="Revoke the key").click()
    await expect(page.get_by_text("1 revoked key")).to_be_visible()
    await expect(row.get_by_role("link", name="Revoke")).to_have_count(0)
    for headers in (holder.header, holder.cookie_header):
        assert (await team.tw.raw(b"/api/self", method=b"GET", headers=headers)).status == 401
    gone = f"/settings/keys/{holder.key_id}/revoke"
    got = await team.tw.raw(
        gone.encode(), method=b"GET", headers=team["alpha", "admin"].cookie_header
    )
    assert got.status == 404


async def test_whoever_revokes_the_last_admin_key_is_warned_and_signed_out(
    team: Keyed, page: Page
) -> None:
    me = await team.by("alpha", "admin")
    async with me.client.delete(f"{me.url}/api/keys/{team['beta', 'admin'].key_id}") as answer:
        assert answer.status == 200
    await sign_in(page, team, "alpha", "admin", "/settings")
    row = page.locator(f"[data-key='{team['alpha', 'admin'].key_id}']")
    await row.get_by_role("link", name="Revoke").click()
    await expect(page.get_by_text("It is the last admin key.")).to_be_visible()
    await expect(page.get_by_text("traceway keys create")).to_be_visible()
    await expect(page.get_by_text("This browser is signed in with it")).to_be_visible()
    await page.get_by_role("button", name="Revoke the key").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.parametrize("key_id", ["0", "999", "x", "%00", "1" * 30, "-1", "٣"])
async def test_a_key_that_is_none_cannot_be_revoked(team: Keyed, key_id: str) -> None:
    cookie = team["alpha", "admin"].cookie_header
    got = await post(team.tw, f"/settings/keys/{key_id}/revoke", {}, cookie=cookie)
    assert got.status in (400, 404)


@pytest.mark.parametrize("scope", ["read", "write"])
async def test_nobody_but_an_admin_has_settings(team: Keyed, scope: str) -> None:
    holder = team["beta", "read" if scope == "read" else "write"]
    paths = ("/settings/keys", "/settings/projects", "/settings/projects/beta", "/project")
    paths = (*paths, f"/settings/keys/{holder.key_id}/revoke")
    for path in paths:
        fields = {"name": "x", "scope": "admin", "project": "alpha"}
        assert (await post(team.tw, path, fields, cookie=holder.cookie_header)).status == 403, path
    for path in ("/settings", paths[-1]):
        got = await team.tw.raw(path.encode(), method=b"GET", headers=holder.cookie_header)
        assert got.status == 403
        assert b"alpha" not in got.body
    me = await team.by("alpha", "admin")
    assert (await me.api("/api/keys"))["count"] == 6


async def test_a_provider_key_is_stored_used_and_deleted_and_shown_to_nobody(
    team: Keyed, page: Page, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    key = "sk-proj-0123456789abcdefWXYZ"
    writer = await team.by("alpha", "write")
    await sign_in(page, team, "alpha", "admin", "/settings")
    row = page.locator("[data-upstream=openai]")
    await expect(row).to_contain_text("no key")
    await row.get_by_role("textbox").fill(f" {key}\n")
    await row.get_by_role("button", name="Store").click()
    await expect(row).to_contain_text("stored now, ends in WXYZ")
    assert key not in await page.content()
    upstream.answers(b"{}")
    ours = {"Authorization": f"Bearer {team['alpha', 'write'].key}"}
    async with writer.client.post(writer.url + CHAT, json={}, headers=ours) as answer:
        assert answer.status == 200
    (call,) = upstream.requests
    assert call.get(b"Authorization") == f"Bearer {key}".encode()
    await team.tw.saved()
    for file in ("traceway.db", "traceway.db-wal"):
        assert key.encode() not in (tmp_path / file).read_bytes()
    # It is of this project alone.
    beta = await team.tw.raw(
        b"/settings", method=b"GET", headers=team["beta", "admin"].cookie_header
    )
    assert b"WXYZ" not in beta.body
    await row.get_by_role("button", name="Delete the key").click()
    await expect(row).to_contain_text("no key")
    async with writer.client.post(writer.url + CHAT, json={}, headers=ours) as answer:
        assert answer.status == 422


@pytest.mark.parametrize(
    ("key", "says"),
    [("", "printable"), ("short", "printable"), ("a b c d e f", "printable"), (KEY_LIKE, "tw_sk_")],
)
async def test_what_cannot_be_a_provider_key_is_told_and_not_shown(
    team: Keyed, key: str, says: str
) -> None:
    cookie = team["alpha", "admin"].cookie_header
    got = await post(team.tw, "/settings/provider-keys/openai", {"key": key}, cookie=cookie)
    assert got.status == 400
    assert says in got.body.decode()
    assert len(key) < 6 or key.encode() not in got.body
    assert (await (await team.by("alpha", "admin")).api("/api/provider-keys"))["count"] == 0


async def test_there_is_no_provider_key_of_an_upstream_that_is_none(team: Keyed) -> None:
    cookie = team["alpha", "admin"].cookie_header
    for path in ("/settings/provider-keys/none", "/settings/provider-keys/openai/delete"):
        got = await post(team.tw, path, {"key": "sk-0123456789abcdef"}, cookie=cookie)
        assert got.status == 404


async def test_names_of_strangers_do_nothing_in_the_settings(
    team: Keyed, page: Page, context: BrowserContext
) -> None:
    cookie = team["alpha", "admin"].cookie_header
    names = [text for text in HOSTILE if len(text) <= 100 and text.isprintable()]
    for name in names:
        got = await post(team.tw, "/settings/keys", {"name": name, "scope": "read"}, cookie=cookie)
        assert got.status == 200
    # A mistake shows them again, too.
    await sign_in(page, team, "alpha", "admin", "/settings")
    await expect(page.locator("[data-key]")).to_have_count(6 + len(names))
    assert not await was_hacked(page)
    form = page.locator("#new-key")
    for name in names:
        await form.evaluate("form => { form.noValidate = true; }")
        await form.get_by_label("Name").fill(name)
        await form.get_by_label("Calls a minute").fill("0")
        await form.get_by_role("button").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        assert not await was_hacked(page)
        assert await form.get_by_label("Name").input_value() == name
        break
    key_id = (await (await team.by("alpha", "admin")).api("/api/keys"))["keys"][0]["id"]
    await page.goto(f"{team.tw.url}/settings/keys/{key_id}/revoke")
    assert not await was_hacked(page)


async def test_everything_works_without_javascript(team: Keyed, browser) -> None:  # type: ignore[no-untyped-def]
    plain = await browser.new_context(java_script_enabled=False)
    page = await plain.new_page()
    await sign_in(page, team, "alpha", "admin", "/settings")
    await page.locator("#new-key").get_by_label("Name").fill("plain")
    await page.locator("#new-key").get_by_role("button").click()
    assert re.fullmatch(r"tw_sk_[\w-]{43}", await page.locator("#made").inner_text())
    await page.locator("#menu summary").click()
    await page.get_by_role("button", name="beta").click()
    await expect(page.locator(".menu-name")).to_have_text("beta")
    await page.locator("#menu summary").click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await plain.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("wide", [1280, 360])
async def test_everybody_can_use_the_settings(
    team: Keyed, page: Page, scheme: str, wide: int
) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.set_viewport_size({"width": wide, "height": 780})
    await sign_in(page, team, "alpha", "admin", "/settings")
    key_id = team["beta", "read"].key_id
    await page.locator("#menu summary").click()
    assert await findings(page) == []
    assert await width(page) == wide
    await page.goto(f"{team.tw.url}/settings/keys/{key_id}/revoke")
    assert await findings(page) == []
    assert await width(page) == wide
    await page.get_by_role("button", name="Revoke the key").click()
    await page.get_by_text("1 revoked key").click()
    assert await findings(page) == []
    await page.locator("#new-key").get_by_label("Name").fill("n" * 100)
    await page.locator("#new-key").get_by_role("button").click()
    await expect(page.locator("#made")).to_be_visible()
    assert await findings(page) == []
    assert await width(page) == wide
