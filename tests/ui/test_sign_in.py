"""Signing in and out: by hand as bytes, and in a real browser."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from aiohttp import web
from playwright.async_api import BrowserContext, Page, expect

from proxy.access import COOKIE
from proxy.keyring import hashed
from proxy.throttle import FREE_FAILURES, PAUSE_S
from proxy.ui.sign_in import SIGN_IN_S
from storage.grants import Scope
from tests.api.asking import save
from tests.keyed import Keyed
from tests.running import Running
from tests.storage.calls import end, start
from tests.ui.looking import findings, width
from tests.ui.test_forms import ELSEWHERE
from tests.ui.test_frame import POLICY
from tests.wire import Received

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
# A key of the right shape that nobody has.
WRONG = "tw_sk_" + "A" * 43


async def post(
    tw: Running,
    path: str,
    fields: dict[str, str],
    headers: bytes | None = None,
    cookie: bytes = b"",
) -> Received:
    """Send a form as bytes; by default it says that it comes from our own page."""
    own = b"Origin: http://127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n"
    sent = (own if headers is None else headers) + FORM + cookie
    return await tw.raw(path.encode(), headers=sent, body=urlencode(fields).encode())


def cookie_of(got: Received) -> tuple[str, set[str]]:
    """Give value and attributes of the cookie that an answer sets."""
    (line,) = [value for name, value in got.headers if name.lower() == b"set-cookie"]
    name_value, *attributes = line.decode().split("; ")
    name, _, value = name_value.partition("=")
    assert name == COOKIE
    return value.strip('"'), set(attributes)


@asynccontextmanager
async def attacker() -> AsyncIterator[str]:
    """Serve an empty page at another port of this machine: the same site, another origin."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="<title>evil</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def sign_in(
    page: Page, team: Keyed, project: str, scope: Scope, path: str = "/sessions"
) -> None:
    """Sign in by the form that stands in place of a page."""
    await page.goto(team.tw.url + path)
    await page.get_by_label("Key", exact=True).fill(team[project, scope].key)
    await page.get_by_role("button", name="Sign in").click()


async def test_a_right_key_is_exchanged_for_a_cookie_and_leads_back(team: Keyed) -> None:
    key = team["alpha", "read"].key
    got = await post(team.tw, "/sign-in", {"key": f" {key}\n", "back": "/traces?q=a+b"})
    assert (got.status, got.get(b"Location")) == (303, b"/traces?q=a+b")
    value, attributes = cookie_of(got)
    assert re.fullmatch(r"tw_si_[\w-]{43}", value)
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=2592000"} <= attributes
    assert "Secure" not in attributes
    assert (got.get(b"Cache-Control"), got.body) == (b"no-store", b"")
    page = await team.tw.raw(
        b"/sessions",
        method=b"GET",
        headers=b"Cookie: %b=%b\r\n" % (COOKIE.encode(), value.encode()),
    )
    assert page.status == 200
    assert key.encode() not in page.body
    assert value.encode() not in page.body
    ((expires_at_us,),) = await team.tw.database.read(
        "SELECT expires_at_us FROM sign_ins WHERE sha256 = :sha256", {"sha256": hashed(value)}
    )
    left_s = expires_at_us / 1e6 - time.time()
    assert SIGN_IN_S - 60 < left_s <= SIGN_IN_S


@pytest.mark.parametrize(
    "headers",
    [
        b"Origin: https://127.0.0.1\r\n",
        b"Sec-Fetch-Site: same-origin\r\nX-Forwarded-Proto: https\r\n",
    ],
)
async def test_the_cookie_of_a_page_that_came_by_https_goes_no_other_way(
    team: Keyed, headers: bytes
) -> None:
    got = await post(team.tw, "/sign-in", {"key": team["alpha", "read"].key}, headers)
    assert "Secure" in cookie_of(got)[1]


@pytest.mark.parametrize("key", ["", WRONG, "tw_sk_", "' OR 1=1 --", "\0", "é" * 100, "x" * 7000])
async def test_every_wrong_key_has_the_same_answer(team: Keyed, key: str) -> None:
    got = await post(team.tw, "/sign-in", {"key": key, "back": "/traces"})
    reference = await post(team.tw, "/sign-in", {"key": "wrong", "back": "/traces"})
    assert (got.status, got.body) == (401, reference.body)
    assert b"no key of this server, or it was revoked" in got.body
    assert got.get(b"Set-Cookie") is None
    assert key in ("", "tw_sk_") or key.encode() not in got.body


async def test_a_revoked_key_is_a_wrong_one(team: Keyed) -> None:
    holder = team["beta", "read"]
    admin = await team.by("alpha", "admin")
    async with admin.client.delete(f"{admin.url}/api/keys/{holder.key_id}") as answer:
        assert answer.status == 200
    got = await post(team.tw, "/sign-in", {"key": holder.key})
    assert (got.status, got.body) == (
        401,
        (await post(team.tw, "/sign-in", {"key": WRONG})).body,
    )


async def test_guessing_is_slow_and_a_right_key_never_waits(
    team: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    monkeypatch.setattr("proxy.access.asyncio", SimpleNamespace(sleep=sleep))
    for _ in range(FREE_FAILURES):
        await post(team.tw, "/sign-in", {"key": WRONG})
    assert pauses == []
    await post(team.tw, "/sign-in", {"key": WRONG})
    assert pauses == [PAUSE_S]
    # The same count as for keys in headers: there is one place.
    await team.tw.raw(b"/api/self", method=b"GET", headers=b"Authorization: Bearer x\r\n")
    assert pauses == [PAUSE_S] * 2
    assert (await post(team.tw, "/sign-in", {"key": team["alpha", "read"].key})).status == 303
    assert pauses == [PAUSE_S] * 2


async def test_a_write_key_is_told_that_it_may_not_read(team: Keyed) -> None:
    got = await post(team.tw, "/sign-in", {"key": team["alpha", "write"].key})
    assert got.status == 403
    assert b"A key of scope write makes calls and may read nothing" in got.body
    assert got.get(b"Set-Cookie") is None


@pytest.mark.parametrize("back", ELSEWHERE)
async def test_nobody_is_sent_elsewhere(team: Keyed, back: str) -> None:
    fields = {"key": team["alpha", "read"].key, "back": back}
    got = await post(team.tw, "/sign-in", fields)
    assert (got.status, got.get(b"Location")) == (303, b"/sessions")
    path = f"/sign-in?{urlencode({'back': back})}"
    form = await team.tw.raw(path.encode(), method=b"GET")
    assert form.status in (200, 400)
    assert b'name="back" value="/sessions"' in form.body or form.status == 400


@pytest.mark.parametrize(
    ("path", "is_signed_in"),
    [("/sign-in", False), ("/sign-out", True), ("/project", True), ("/settings/keys", True)],
)
@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"Origin: null\r\n",
        b"Origin: http://evil.example\r\n",
        b"Origin: http://127.0.0.1:1\r\n",
        b"Sec-Fetch-Site: cross-site\r\n",
        b"Sec-Fetch-Site: same-site\r\n",
        b"Origin: http://127.0.0.1\r\nSec-Fetch-Site: same-site\r\n",
        b"Referer: http://127.0.0.1/sign-in\r\n",
    ],
)
async def test_a_form_that_does_not_come_from_our_page_does_nothing(
    team: Keyed, path: str, is_signed_in: bool, headers: bytes
) -> None:
    cookie = team["alpha", "admin"].cookie_header if is_signed_in else b""
    fields = {
        "key": team["alpha", "read"].key,
        "project": "beta",
        "name": "x",
        "scope": "admin",
    }
    got = await post(team.tw, path, fields, headers, cookie)
    assert got.status == 403
    assert got.get(b"Set-Cookie") is None
    assert b"tw_s" not in got.body.replace(b"tw_sk_...", b"").replace("tw_sk_…".encode(), b"")
    me = await team.by_cookie("alpha", "admin")
    assert (await me.api("/api/self"))["project"] == "alpha"
    assert (await me.api("/api/keys"))["count"] == 6


async def test_a_page_without_a_key_is_the_sign_in_page_in_place(team: Keyed) -> None:
    await save(team.tw, end(start(1, session_id="s", name="secret")))
    team.tw.server.recorder.losses.add(bodies=1)
    for path in (
        "/sessions?q=x",
        "/traces",
        "/settings",
        "/sessions/s",
        "/nowhere",
        "/",
    ):
        got = await team.tw.raw(path.encode(), method=b"GET")
        assert got.status == 401
        assert got.get(b"WWW-Authenticate") == b'Bearer realm="traceway"'
        assert got.get(b"Content-Security-Policy") == POLICY.encode()
        assert got.get(b"Cache-Control") == b"no-store"
        assert b'action="/sign-in"' in got.body
        for hidden in (
            b"secret",
            b"recorded:",
            b"<script",
            b"/api/health",
            b"alpha",
            b"Traceway 0",
        ):
            assert hidden not in got.body
    got = await team.tw.raw(b"/sessions?q=a%20b", method=b"GET")
    assert b'name="back" value="/sessions?q=a%20b"' in got.body


async def test_a_key_whose_scope_does_not_suffice_is_told_so_with_a_way_on(team: Keyed) -> None:
    got = await team.tw.raw(b"/settings", method=b"GET", headers=team["beta", "read"].cookie_header)
    assert got.status == 403
    assert b"A key of scope read reads what is recorded; this needs admin." in got.body
    assert b'href="/sign-in?back=%2Fsettings"' in got.body
    assert got.get(b"Content-Security-Policy") == POLICY.encode()


async def test_with_keys_off_there_is_nothing_to_sign_in_to(tw: Running) -> None:
    got = await tw.raw(b"/sign-in?back=/traces", method=b"GET")
    assert (got.status, got.get(b"Location")) == (303, b"/sessions")
    got = await post(tw, "/sign-in", {"key": WRONG})
    assert (got.status, got.get(b"Location")) == (303, b"/sessions")
    assert got.get(b"Set-Cookie") is None


async def test_signing_in_anew_forgets_the_sign_in_before(team: Keyed) -> None:
    holder = team["alpha", "read"]
    got = await post(
        team.tw, "/sign-in", {"key": team["beta", "read"].key}, cookie=holder.cookie_header
    )
    assert got.status == 303
    old = await team.tw.raw(b"/api/self", method=b"GET", headers=holder.cookie_header)
    assert old.status == 401


async def test_signing_out_forgets_the_cookie_here_and_there(team: Keyed) -> None:
    holder = team["alpha", "read"]
    got = await post(team.tw, "/sign-out", {}, cookie=holder.cookie_header)
    assert (got.status, got.get(b"Location")) == (303, b"/sessions")
    assert got.get(b"Clear-Site-Data") == b'"cache"'
    value, attributes = cookie_of(got)
    assert (value, "Max-Age=0" in attributes) == ("", True)
    old = await team.tw.raw(b"/api/self", method=b"GET", headers=holder.cookie_header)
    assert old.status == 401
    # Another browser that the same key signed in stays.
    assert (await post(team.tw, "/sign-in", {"key": holder.key})).status == 303


async def test_a_browser_signs_in_reads_and_signs_out(
    team: Keyed, page: Page, context: BrowserContext
) -> None:
    await save(
        team.tw,
        end(start(1, session_id="ours", project_id=team["alpha", "read"].project_id)),
        end(start(2, session_id="theirs", project_id=team["beta", "read"].project_id)),
    )
    await sign_in(page, team, "alpha", "read", "/sessions?sort_by=cost")
    await expect(page.locator("[data-id=ours]")).to_be_visible()
    assert page.url == f"{team.tw.url}/sessions?sort_by=cost"
    await expect(page.locator("[data-id=theirs]")).to_have_count(0)
    await expect(page.locator("#live")).to_have_text("Live")
    (cookie,) = await context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
    await page.locator("#menu summary").click()
    await expect(page.get_by_role("link", name="Settings")).to_have_count(0)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert await context.cookies() == []
    await page.go_back()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert "ours" not in await page.content()


async def test_a_wrong_key_is_told_where_it_was_typed(team: Keyed, page: Page) -> None:
    await page.goto(f"{team.tw.url}/traces?q=x")
    await page.get_by_label("Key", exact=True).fill(WRONG)
    await page.get_by_label("Key", exact=True).press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("no key of this server")
    field = page.get_by_label("Key", exact=True)
    assert await field.input_value() == ""
    await expect(field).to_be_focused()
    await field.fill(team["beta", "read"].key)
    await field.press("Enter")
    await expect(page.get_by_role("heading", name="Traces", exact=True)).to_be_visible()
    assert page.url == f"{team.tw.url}/traces?q=x"


async def test_pages_of_another_port_can_neither_sign_in_nor_out(
    team: Keyed, page: Page, context: BrowserContext
) -> None:
    await sign_in(page, team, "alpha", "admin")
    await expect(page.locator("#live")).to_have_text("Live")
    async with attacker() as url:
        for path, fields in (
            ("/sign-out", {}),
            ("/sign-in", {"key": team["beta", "read"].key}),
            ("/project", {"project": "beta"}),
            ("/settings/keys", {"name": "x", "scope": "admin"}),
        ):
            inputs = "".join(f"<input name={name} value={value}>" for name, value in fields.items())
            action = f"{team.tw.url}{path}"
            form = f"<form method=post action={action}>{inputs}<button>Go</button></form>"
            await page.goto(url)
            await page.set_content(form)
            async with page.expect_response(action) as answered:
                await page.get_by_role("button").click()
            assert (await answered.value).status == 403
        await page.goto(url)
        got = await page.evaluate(
            """async address => {
              const answer = await fetch(address, {method: "POST", credentials: "include",
                mode: "no-cors", body: new URLSearchParams({project: "beta"})});
              return answer.type;
            }""",
            f"{team.tw.url}/project",
        )
        assert got == "opaque"
    await page.goto(f"{team.tw.url}/settings")
    await expect(page.locator("[data-key]")).to_have_count(6)
    await expect(page.locator(".menu-name")).to_have_text("alpha")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("wide", [1280, 360])
async def test_everybody_can_use_the_sign_in_page(
    team: Keyed, page: Page, scheme: str, wide: int
) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.set_viewport_size({"width": wide, "height": 780})
    await page.goto(f"{team.tw.url}/sessions")
    await page.get_by_label("Key", exact=True).fill(WRONG)
    await page.get_by_label("Key", exact=True).press("Enter")
    await expect(page.get_by_role("alert")).to_be_visible()
    assert await findings(page) == []
    assert await width(page) == wide
