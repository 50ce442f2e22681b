"""Pages of others in a real Chromium: they make no call, change nothing and read nothing.

The danger on a developer's machine is the page in the next tab: it can have the browser send a
request to any address. Each page here tries all that a page can try. That of another port of this
machine is of the same site, so that a cookie goes with what it sends; that of another name is not;
and a rebound name is one that leads to us, so that for the browser our server is the page's own.
"""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright

from proxy.access import COOKIE
from proxy.guard import Guard, Refusal
from tests.api.asking import save
from tests.keyed import keyed
from tests.running import Running
from tests.storage.calls import spoken, start
from tests.table import USE, stored
from tests.ui.conftest import CHROMIUM, FLAGS
from tests.wire import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What a page that reads anything of ours would have read.
WORDS = "the words of a victim"
NAMES = "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP rebound.example 127.0.0.1"
# Chromium keeps public pages from local addresses by itself; not every browser does.
UNPROTECTED = (
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,"
    "PrivateNetworkAccessSendPreflights,PrivateNetworkAccessRespectPreflightResults"
)
ATTACK = """async ([base, key, patience]) => {
  const found = [], went = [];
  const note = (what, text) => { if (text) found.push(`${what}: ${text}`); };
  const soon = (promise, ms = 400) =>
    Promise.race([promise, new Promise(done => setTimeout(done, ms))]).catch(() => {});
  const body = JSON.stringify({model: "gpt-5", messages: [{role: "user", content: "spend"}]});
  const reads = ["/api/sessions", "/api/sessions/victim", "/api/traces", "/api/stats", "/sessions",
    "/api/self", "/api/keys", "/sessions/victim", "/api/proxy/openai/v1/models", "/sign-in",
    "/settings", "/api/proxy/openai/v1/models?key=1"];
  const changes = [["POST", "/api/proxy/openai/v1/chat/completions", body],
    ["DELETE", "/api/sessions/victim", null], ["PATCH", "/api/sessions/victim", '{"starred":true}'],
    ["POST", "/sessions/victim/mark", "starred=true"], ["POST", "/sessions/victim/delete", "x=1"],
    ["PATCH", "/api/projects/default", '{"name":"evil"}'],
    ["POST", "/api/projects", '{"name":"evil"}'],
    ["POST", "/api/keys", '{"name":"x","scope":"admin"}'],
    ["POST", "/api/events/tickets", ""], ["POST", "/sign-out", ""], ["POST", "/sign-in", "key=x"],
    ["POST", "/settings/keys", "name=x&scope=admin"], ["PUT", "/api/provider-keys", '{"key":"x"}']];
  const how = [{}, {credentials: "include"}, {mode: "no-cors", credentials: "include"},
    {headers: {"X-Traceway-Api-Key": key}}, {headers: {Authorization: "Bearer sk-x"}},
    {mode: "no-cors", headers: {"Accept": "text/event-stream"}, cache: "no-store"},
    {referrerPolicy: "no-referrer", credentials: "include"}];
  const types = ["text/plain", "application/json", "application/x-www-form-urlencoded"];
  const ask = async (path, options) => {
    try {
      const stop = new AbortController();
      const answer = await fetch(base + path, {...options, signal: stop.signal});
      went.push(`${options.method || "GET"} ${path} ${answer.status} ${answer.type}`);
      if (!answer.ok) return;
      const reader = answer.body.getReader();
      const piece = await soon(reader.read());
      note(`fetch ${path}`, piece?.value && new TextDecoder().decode(piece.value));
      stop.abort();
    } catch (error) {}
  };
  const element = (tag, attributes, ms) => {
    const made = document.createElement(tag);
    const loaded = new Promise(done => { made.onload = done; made.onerror = done; });
    Object.assign(made, attributes);
    document.body.append(made);
    return soon(loaded, ms).then(() => made);
  };
  const frames = paths => Promise.all(paths.map(async path => {
    const frame = await element("iframe", {src: base + path}, patience);
    try { note("iframe", frame.contentDocument.body.innerText); } catch (error) {}
  }));
  const windows = paths => Promise.all(paths.map(async path => {
    const opened = window.open(base + path);
    await new Promise(done => setTimeout(done, patience));
    try { note("window", opened.document.body.innerText); } catch (error) {}
    opened?.close();
  }));
  const enctypes = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];
  const forms = () => Promise.all(changes.flatMap(([method, path, text]) =>
    enctypes.map(async enctype => {
      const name = `frame${Math.random()}`;
      const frame = Object.assign(document.createElement("iframe"), {name});
      const form = Object.assign(document.createElement("form"),
        {method: "POST", action: base + path, enctype, target: name});
      const field = document.createElement("input");
      [field.name, field.value] = [(text || "x").slice(0, -1), (text || "x").slice(-1)];
      form.append(field);
      document.body.append(frame, form);
      const loaded = new Promise(done => { frame.onload = done; });
      form.submit();
      await soon(loaded, patience);
      try { note("form", frame.contentDocument.body.innerText); } catch (error) {}
    })));
  const listen = async path => {
    for (const withCredentials of [false, true]) {
      const source = new EventSource(base + path, {withCredentials});
      source.onopen = () => note("EventSource", path);
      source.onmessage = event => note("EventSource", event.data);
      await soon(new Promise(done => { source.onerror = done; }));
      source.close();
    }
  };
  await Promise.all(reads.flatMap(path => how.map(options => ask(path, options))));
  await frames(reads);
  await windows(reads);
  await Promise.all(reads.flatMap(path => {
    const url = base + path;
    return [soon(import(url)), element("script", {src: url}), element("video", {src: url}),
      element("script", {src: url, type: "module"}), element("object", {data: url}),
      element("link", {rel: "stylesheet", href: url}), element("embed", {src: url}),
      element("link", {rel: "prefetch", href: url}), element("a", {href: url, ping: url}, 0),
      element("link", {rel: "preload", as: "fetch", href: url}),
      element("img", {src: url}).then(image => { if (image.naturalWidth) note("img", path); })];
  }));
  for (const path of ["/api/events", "/api/events?since=0", `/api/events?token=${key}`]) {
    await listen(path);
    for (const options of how) await ask(path, options);
    const socket = new WebSocket(base.replace("http", "ws") + path, ["realtime"]);
    socket.onopen = () => note("WebSocket", path);
    await soon(new Promise(done => { socket.onerror = done; }));
  }
  await forms();
  for (const [method, path, text] of changes) {
    navigator.sendBeacon(base + path, text || "x");
    navigator.sendBeacon(base + path, new Blob([text || "x"], {type: "text/plain"}));
    await Promise.all(how.flatMap(options => types.map(type => ask(path, {...options, method,
      body: text || undefined, keepalive: true,
      headers: {...options.headers, "Content-Type": type}}))));
  }
  return [found, went];
}"""
PAGE = "<!doctype html><title>cats</title><body>cats"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def attackers() -> AsyncIterator[Browser]:
    """A browser for which other names lead here; it asks nobody before a window opens."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH")
    async with async_playwright() as playwright:
        flags = [*FLAGS, NAMES, UNPROTECTED, "--disable-popup-blocking"]
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def tab(attackers: Browser) -> AsyncIterator[Page]:
    """A tab of a profile of its own."""
    context = await attackers.new_context()
    context.set_default_timeout(60_000)
    yield await context.new_page()
    await context.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def elsewhere() -> AsyncIterator[int]:
    """The port of somebody else's pages."""

    async def serve(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the guard turned what away: that a page came through to it at all."""
    found: Counter[str] = Counter()
    check = Guard.check

    def counted(guard: Guard, request: web.Request) -> None:
        try:
            check(guard, request)
        except Refusal as refusal:
            found[f"{request.method} {refusal.code}"] += 1
            raise

    monkeypatch.setattr(Guard, "check", counted)
    return found


def came_through(refusals: Counter[str]) -> bool:
    """Tell whether a page tried enough: to read, to change, and to ask whether it may."""
    tried: Counter[str] = Counter()
    for what, count in refusals.items():
        tried[what.split()[0]] += count
    return tried["GET"] > 100 and tried["POST"] > 50


async def victim(tw: Running, project_id: int = 1) -> None:
    begun = start(1, project_id=project_id, session_id="victim")
    await save(tw, spoken(begun, [f"u:{WORDS}"], ["a:yes"], input_preview=WORDS))


async def attack(tab: Page, origin: str, base: str, key: str = "tw_sk_x") -> tuple[Any, Any]:
    """Open a page of an origin, and have it try everything against a server."""
    if "rebound" in origin:  # as it was before its name came to lead to us
        await tab.route(
            f"{origin}/cats", lambda route: route.fulfill(body=PAGE, content_type="text/html")
        )
    await tab.goto(f"{origin}/cats")
    assert await tab.title() == "cats"
    found, went = await tab.evaluate(ATTACK, [base, key, 1000])
    return found, went


def read(found: list[str]) -> list[str]:
    """Give what a page read of us; a rebound one may read that it may not."""
    return [line for line in found if '"code":"foreign_host"' not in line]


# Where a page is, and under which name it calls us.
ORIGINS = {
    "another port of this machine": ("http://127.0.0.1:{elsewhere}", "http://127.0.0.1:{port}"),
    "another name of it": ("http://localhost:{elsewhere}", "http://127.0.0.1:{port}"),
    "another site": ("http://evil.example:{elsewhere}", "http://127.0.0.1:{port}"),
    "a rebound name": ("http://rebound.example:{port}", "http://rebound.example:{port}"),
    "another site, by a rebound name": (
        "http://evil.example:{elsewhere}",
        "http://rebound.example:{port}",
    ),
}


@pytest.mark.parametrize("where", ORIGINS)
async def test_a_page_of_others_does_nothing_where_keys_are_off(
    tw: Running,
    upstream: ScriptedUpstream,
    tab: Page,
    elsewhere: int,
    refusals: Counter[str],
    where: str,
) -> None:
    upstream.answers(WORDS.encode())
    await victim(tw)
    before = await stored(tw)
    origin, base = (one.format(elsewhere=elsewhere, port=tw.port) for one in ORIGINS[where])
    found, went = await attack(tab, origin, base)
    assert read(found) == []
    assert came_through(refusals), refusals
    # What was answered at all was refused, or is hidden from the page.
    assert {
        line for line in went if not line.endswith((" 403 basic", " 421 basic", " 0 opaque"))
    } == set()
    assert upstream.connections == 0
    assert await stored(tw) == before


@pytest.mark.parametrize("where", ORIGINS)
async def test_a_page_of_others_does_nothing_where_somebody_is_signed_in(
    tmp_path: Path,
    upstream: ScriptedUpstream,
    tab: Page,
    elsewhere: int,
    refusals: Counter[str],
    where: str,
) -> None:
    upstream.answers(WORDS.encode())
    async with keyed(tmp_path, upstream.url) as team:
        one = team["alpha", "admin"]
        await victim(team.tw, one.project_id)
        origin, base = (o.format(elsewhere=elsewhere, port=team.tw.port) for o in ORIGINS[where])
        for url in (base, team.tw.url):
            await tab.context.add_cookies([cookie(url, one.cookie)])
        before = await stored(team.tw, USE)
        found, _ = await attack(tab, origin, base, one.cookie)
        assert read(found) == []
        assert came_through(refusals), refusals
        assert upstream.connections == 0
        assert await stored(team.tw, USE) == before


def cookie(url: str, secret: str) -> Any:
    return {"name": COOKIE, "value": secret, "url": url, "httpOnly": True, "sameSite": "Strict"}


async def test_the_attack_would_be_seen(tw: Running, upstream: ScriptedUpstream, tab: Page) -> None:
    """From our own origin the same script reads, calls and changes."""
    upstream.answers(WORDS.encode())
    await victim(tw)
    await tab.route(
        f"{tw.url}/cats", lambda route: route.fulfill(body=PAGE, content_type="text/html")
    )
    await tab.goto(f"{tw.url}/cats")
    found, _ = await tab.evaluate(ATTACK, [tw.url, "tw_sk_x", 5000])
    for way in (
        "fetch /api/sessions",
        "fetch /api/proxy",
        "iframe",
        "EventSource",
        "form",
        "window",
    ):
        assert any(line.startswith(way) for line in found), way
    assert any(WORDS in line for line in found)
    assert upstream.connections > 0


LISTEN = """async ([url, credentials]) => {
  const source = new EventSource(url, {withCredentials: credentials});
  const result = await new Promise(done => {
    source.onmessage = event => done(event.data);
    source.onerror = () => { if (source.readyState === 2) done("refused"); };
    setTimeout(() => done("nothing"), 5000);
  });
  source.close();
  return result;
}"""


async def test_a_known_origin_reads_the_events_once_with_a_ticket_and_nothing_else(
    tmp_path: Path,
    upstream: ScriptedUpstream,
    tab: Page,
    elsewhere: int,
    refusals: Counter[str],
) -> None:
    origin = f"http://evil.example:{elsewhere}"
    async with keyed(tmp_path, upstream.url, {"server.allowed_origins": origin}) as team:
        one = team["alpha", "read"]
        await victim(team.tw, one.project_id)
        beta = await team.by("beta", "read")
        async with (await team.by("alpha", "read")).client.post(
            f"{team.tw.url}/api/events/tickets"
        ) as answer:
            token = (await answer.json())["token"]
        base = f"http://127.0.0.1:{team.tw.port}"
        await tab.goto(f"{origin}/cats")
        url = f"{base}/api/events?since=0&token={token}"
        assert '"session_id":"victim"' in await tab.evaluate(LISTEN, [url, False])
        assert await tab.evaluate(LISTEN, [url, False]) == "refused"
        assert await tab.evaluate(LISTEN, [f"{base}/api/events?since=0", True]) == "refused"
        before = await stored(team.tw, USE)
        found, _ = await attack(tab, origin, base, one.key)
        assert read(found) == []
        assert came_through(refusals), refusals
        assert upstream.connections == 0
        assert await stored(team.tw, USE) == before
        assert (await beta.api("/api/stats"))["trace_count"] == 0


async def test_an_origin_that_is_not_known_cannot_use_a_ticket(
    tmp_path: Path, upstream: ScriptedUpstream, tab: Page, elsewhere: int
) -> None:
    settings = {"server.allowed_origins": f"http://evil.example:{elsewhere}"}
    async with keyed(tmp_path, upstream.url, settings) as team:
        tw = await team.by("alpha", "read")
        async with tw.client.post(f"{tw.url}/api/events/tickets") as answer:
            token = (await answer.json())["token"]
        url = f"http://127.0.0.1:{tw.port}/api/events?since=0&token={token}"
        await tab.goto(f"http://localhost:{elsewhere}/cats")
        assert await tab.evaluate(LISTEN, [url, False]) == "refused"


async def test_our_pages_stand_in_no_frame(tw: Running, tab: Page) -> None:
    """Not even in one of our own origin, which the guard lets through."""
    await victim(tw)
    await tab.route(
        f"{tw.url}/cats", lambda route: route.fulfill(body=PAGE, content_type="text/html")
    )
    for path in ("/sessions", "/sessions/victim", "/traces"):
        await tab.goto(f"{tw.url}/cats")
        text = await tab.evaluate(
            """async url => {
              const frame = document.createElement("iframe");
              frame.src = url;
              const loaded = new Promise(done => { frame.onload = done; });
              document.body.append(frame);
              await loaded;
              try { return frame.contentDocument.body.innerText; } catch (error) { return null; }
            }""",
            tw.url + path,
        )
        assert text is None  # the browser's own page that says so


@pytest.mark.parametrize(
    "kind", ["text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", ""]
)
async def test_what_an_upstream_says_runs_nothing_in_our_origin(
    tw: Running, upstream: ScriptedUpstream, tab: Page, kind: str
) -> None:
    script = "document.title='hacked';fetch('/api/sessions').then(()=>document.title='read')"
    xml = "" if kind == "text/html" else ' xmlns="http://www.w3.org/1999/xhtml"'
    page = (
        f"<html{xml}><head><title>page</title></head><body><script>{script}</script></body></html>"
    )
    if "svg" in kind:
        page = f'<svg xmlns="http://www.w3.org/2000/svg"><title>page</title><script>{script}</script></svg>'
    upstream.answers(page.encode(), content_type=kind.encode())
    answer = await tab.goto(f"{tw.url}/api/proxy/openai/v1/page")
    assert answer is not None
    assert answer.status == 200
    assert await tab.evaluate("window.origin") == "null"
    assert await tab.title() not in ("hacked", "read")


FOLLOW = """([url, rel]) => {
  const link = Object.assign(document.createElement("a"), {href: url, target: "_blank", rel});
  document.body.append(link);
  link.click();
}"""
HOLD = """url => new Promise(done => {
  const opened = window.open(url);
  const look = () => opened.closed ? done(true) : setTimeout(look, 20);
  setTimeout(() => done(opened.closed), 5000);
  look();
})"""
FETCH = """url => fetch(url, {mode: "no-cors", credentials: "include"})
  .then(answer => answer.text(), String)"""


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost"])
async def test_a_link_on_another_site_opens_a_page_and_gives_no_hold_of_it(
    tw: Running, tab: Page, elsewhere: int, refusals: Counter[str], origin: str
) -> None:
    await victim(tw)
    await tab.goto(f"{origin}:{elsewhere}/cats")
    url = f"{tw.url}/sessions"
    for rel in ("", "opener", "noreferrer"):
        async with tab.context.expect_page() as opening:
            await tab.evaluate(FOLLOW, [url, rel])
        opened = await opening.value
        await opened.wait_for_load_state()
        assert WORDS in await opened.inner_text("body"), opened.url
        assert await opened.evaluate("window.opener") is None
        await opened.close()
    assert await tab.evaluate(HOLD, url) is True  # to the page that opened it, it looks closed
    assert refusals == {}
    assert WORDS not in await tab.evaluate(FETCH, url)
    assert refusals == {"GET cross_site": 1}
    await tab.goto(f"{origin}:{elsewhere}/cats")
    async with tab.expect_response(f"{tw.url}/api/sessions") as answering:
        await tab.evaluate("url => { location.href = url; }", f"{tw.url}/api/sessions")
    assert (await answering.value).status == 403
