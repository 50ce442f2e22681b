"""Who may do what, over all routes that the server has; and what lets nobody in."""

import asyncio
import hashlib
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from proxy import operator_socket
from proxy.access import OPEN
from proxy.throttle import FREE_FAILURES, PAUSE_S
from proxy.tickets import TICKET_S
from storage import api_keys
from storage.database import Transaction
from tests.api.asking import ask, save
from tests.api.watching import Watching, kinds
from tests.conftest import ServeKeyed
from tests.keyed import FAR_US, Holder, Keyed
from tests.running import CHAT, Running
from tests.storage.calls import start
from tests.table import USE, Row, access_of, app_of, closed, stored, table
from tests.wire import Peer, Received, ScriptedUpstream, connect

UNKNOWN = (
    b'{"error":{"message":"this needs a key of this server: send it as `Authorization: Bearer'
    b" tw_sk_...`, or in X-Traceway-Api-Key beside your provider's key\","
    b'"type":"invalid_request_error","param":null,"code":"unauthorized"}}'
)
# What any key may read: who it is, and what there is to ask.
HAS_NO_RECORD = ("/api/self", "/api/openapi.json")
CHANGES = ("POST", "PUT", "PATCH", "DELETE")
# Words of a request that a page of our own makes.
FROM_US = b"Sec-Fetch-Site: same-origin\r\n"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before answers, which nobody waits for here."""
    found: list[float] = []

    async def sleep(pause_s: float) -> None:
        found.append(pause_s)

    monkeypatch.setattr("proxy.access.asyncio", SimpleNamespace(sleep=sleep))
    return found


async def say(tw: Running, row: Row, headers: bytes = b"", **values: str) -> Received:
    """Make a request of a route, with a form as our own pages send it."""
    path = row.filled(values)
    if row.method in CHANGES and not row.is_api:
        headers += FROM_US
    return await tw.raw(path.encode(), method=row.method.encode(), headers=headers)


def is_refused(row: Row, got: Received) -> bool:
    """Tell whether an answer is the one that everybody gets who is not let in."""
    if not row.is_api:
        return got.status in (401, 303) and b"tw_s" not in got.body.replace(b"tw_sk_...", b"")
    # OTLP has its own words before ours.
    same = row.method == "HEAD" or (
        got.body.endswith(UNKNOWN[1:]) if row.path == "/v1/traces" else got.body == UNKNOWN
    )
    return (got.status, got.get(b"WWW-Authenticate"), same) == (
        401,
        b'Bearer realm="traceway"',
        True,
    )


async def test_a_key_is_known_by_its_project_and_scope(team: Keyed) -> None:
    for project, scope in team.holders:
        for tw in (await team.by(project, scope), await team.by_cookie(project, scope)):
            reply = await ask(tw, "/api/self")
            assert reply.status == 200
            assert (reply.body["project"], reply.body["scope"]) == (project, scope)


@pytest.mark.parametrize("name", ["Authorization", "api-key", "X-API-Key", "x-goog-api-key"])
async def test_a_key_may_stand_where_the_providers_would(team: Keyed, name: str) -> None:
    key = team["beta", "read"].key
    values = [key] if name != "Authorization" else [key, f"Bearer {key}", f"bearer   {key}"]
    for value in values:
        reply = await ask(await team.with_headers({name: value}), "/api/self")
        assert reply.body["project"] == "beta"


async def test_without_a_key_only_open_routes_answer(
    team: Keyed, upstream: ScriptedUpstream, pauses: list[float]
) -> None:
    before = await stored(team.tw)
    opened = set()
    for row in table(team.tw):
        got = await say(team.tw, row)
        if row.need is OPEN:
            opened.add(row.path)
            assert got.status not in (401, 403), row
        else:
            assert is_refused(row, got), row
    assert {"/api/live", "/api/ready"} <= opened
    assert {path for path in opened if path.startswith("/api/")} <= {
        "/api/live",
        "/api/ready",
        "/api/openapi.json",
    }
    assert upstream.connections == 0
    assert await stored(team.tw) == before
    assert pauses == []  # who offers nothing guesses nothing


def flipped(key: str) -> str:
    """Change one character in the middle."""
    return key[:20] + ("A" if key[20] != "A" else "B") + key[21:]


# What somebody may offer who has no key: made of one that is right, of a cookie's secret, and of a
# provider's key.
WRONG: dict[str, Callable[[Holder], bytes]] = {
    "nothing": lambda _: b"",
    "an empty one": lambda _: b"X-Traceway-Api-Key: \r\n",
    "an empty bearer": lambda _: b"Authorization: Bearer \r\n",
    "no more than how keys begin": lambda _: b"Authorization: Bearer tw_sk_\r\n",
    "a beginning": lambda one: b"Authorization: Bearer %b\r\n" % one.key[:-1].encode(),
    "one that goes on": lambda one: b"Authorization: Bearer %ba\r\n" % one.key.encode(),
    "words behind it": lambda one: b"Authorization: Bearer %b x\r\n" % one.key.encode(),
    "one character changed": lambda one: b"X-Api-Key: %b\r\n" % flipped(one.key).encode(),
    "the other case": lambda one: b"X-Traceway-Api-Key: %b\r\n" % one.key.swapcase().encode(),
    "SQL": lambda _: b"X-Traceway-Api-Key: tw_sk_' OR '1'='1' --\r\n",
    "a pattern": lambda _: b"X-Traceway-Api-Key: tw_sk_%\r\n",
    "bytes above 127": lambda _: b"X-Traceway-Api-Key: tw_sk_\xff\xfe\xed\xa0\x80\r\n",
    "characters": lambda _: "Authorization: Bearer tw_sk_ключ\r\n".encode(),
    "7 KB": lambda _: b"Authorization: Bearer tw_sk_%b\r\n" % (b"a" * 7_000),
    "the hash, in hex": lambda one: (
        b"Authorization: Bearer tw_sk_%b\r\n"
        % hashlib.sha256(one.key.encode()).hexdigest().encode()
    ),
    "the hash itself": lambda one: (
        b"X-Traceway-Api-Key: %b\r\n" % b64encode(hashlib.sha256(one.key.encode()).digest())
    ),
    "the last four": lambda one: b"X-Traceway-Api-Key: tw_sk_%b\r\n" % one.key[-4:].encode(),
    "its number": lambda one: b"X-Traceway-Api-Key: %d\r\n" % one.key_id,
    "its name": lambda _: b"X-Traceway-Api-Key: alpha's admin\r\n",
    "basic, with it as a password": lambda one: (
        b"Authorization: Basic %b\r\n" % b64encode(b"tw:" + one.key.encode())
    ),
    "a cookie's secret as a key": lambda one: b"X-Traceway-Api-Key: %b\r\n" % one.cookie.encode(),
    "a cookie's secret as a bearer": lambda one: (
        b"Authorization: Bearer %b\r\n" % one.cookie.encode()
    ),
    "the key as a cookie": lambda one: b"Cookie: traceway_sign_in=%b\r\n" % one.key.encode(),
    "a cookie that is none": lambda _: b'Cookie: traceway_sign_in="\\377\\000"; x=\xff\r\n',
    "the key in another cookie": lambda one: b"Cookie: key=%b\r\n" % one.key.encode(),
    "a provider's key": lambda _: b"Authorization: Bearer sk-proj-0123456789abcdef\r\n",
    "as a proxy's": lambda one: b"Proxy-Authorization: Bearer %b\r\n" % one.key.encode(),
    "as a subprotocol": lambda one: (
        b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.%b\r\n" % one.key.encode()
    ),
    "a wrong one before a right one": lambda one: (
        b"X-Traceway-Api-Key: tw_sk_x\r\nAuthorization: Bearer %b\r\n" % one.key.encode()
    ),
    "a wrong one beside a cookie": lambda one: b"X-Api-Key: tw_sk_x\r\n" + one.cookie_header,
    "a project alone": lambda _: b"X-Traceway-Project: alpha\r\n",
    "a project that is none": lambda _: b"X-Traceway-Project: nobody\r\n",
}


@pytest.mark.parametrize("kind", WRONG)
async def test_every_wrong_key_is_answered_alike(
    team: Keyed, upstream: ScriptedUpstream, pauses: list[float], kind: str
) -> None:
    before = await stored(team.tw)
    headers = WRONG[kind](team["alpha", "admin"])
    for row in closed(team.tw):
        assert is_refused(row, await say(team.tw, row, headers)), row
    assert upstream.connections == 0
    assert await stored(team.tw) == before


async def test_a_key_in_an_address_lets_nobody_in(team: Keyed, pauses: list[float]) -> None:
    one = team["alpha", "admin"]
    for name in ("token", "key", "api_key", "access_token", "X-Traceway-Api-Key"):
        for path in ("/api/events", "/api/sessions", "/sessions", CHAT):
            for secret in (one.key, one.cookie):
                got = await team.tw.raw(f"{path}?{name}={secret}".encode(), method=b"GET")
                assert got.status in (401, 303), (path, name)


async def test_a_read_key_changes_nothing(team: Keyed, upstream: ScriptedUpstream) -> None:
    before = await stored(team.tw, USE)
    before.pop("tickets", None)  # which it may have, and which are no recordings
    one = team["alpha", "read"]
    for headers in (one.header, one.bearer, one.cookie_header + FROM_US):
        for row in closed(team.tw):
            if row.method not in CHANGES and "/api/proxy/" not in row.path:
                continue
            if row.path == "/sign-out":
                continue  # that anybody may
            got = await say(team.tw, row, headers)
            if row.path == "/api/events/tickets":
                assert got.status == 201
            elif row.path == "/mcp":
                assert got.status == 415  # it only reads, and there was nothing to read
            elif (
                row.is_api and "/api/proxy/" in row.path and headers not in (one.header, one.bearer)
            ):
                assert got.status == 401, row
            else:
                assert got.status == 403 or (not row.is_api and got.status < 400), row
    assert upstream.connections == 0
    after = await stored(team.tw, USE)
    after.pop("tickets", None)
    assert after == before


async def test_a_write_key_reads_nothing(team: Keyed) -> None:
    for headers in (team["alpha", "write"].header, team["alpha", "write"].cookie_header):
        for row in closed(team.tw):
            if row.method != "GET" or row.path in HAS_NO_RECORD or "/api/proxy/" in row.path:
                continue
            assert (await say(team.tw, row, headers)).status == 403, row


async def test_what_a_key_may_not_is_said_with_what_it_may(team: Keyed) -> None:
    reply = await ask(await team.by("alpha", "write"), "/api/sessions")
    assert reply.error == (403, "forbidden")
    assert reply.body["error"]["message"] == (
        "a key of scope write makes calls and hands in traces; this needs read or admin"
    )


async def test_an_admin_key_opens_every_route(team: Keyed, upstream: ScriptedUpstream) -> None:
    upstream.answers(b"{}")
    for row in closed(team.tw):
        if row.path == "/api/events":
            continue  # it goes on for ever
        got = await say(team.tw, row, team["alpha", "admin"].header, id="0", name="nobody")
        assert got.status not in (401, 403, 500), row


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        (b"GET", b"/api/nowhere", 404),
        (b"GET", b"/nowhere", 404),
        (b"GET", b"/", 302),
        (b"GET", b"/api/proxy/", 404),
        (b"PUT", b"/api/sessions", 405),
        (b"HEAD", b"/api/events", 405),
        (b"POST", b"/api/live", 405),
        (b"TRACE", b"/api/sessions", 405),
    ],
)
async def test_what_is_not_there_needs_a_key_as_well(
    team: Keyed, pauses: list[float], method: bytes, path: bytes, status: int
) -> None:
    for headers in (b"", b"X-Traceway-Api-Key: tw_sk_x\r\n"):
        got = await team.tw.raw(path, method=method, headers=headers)
        assert got.status in ((401,) if path.startswith(b"/api/") else (401, 303))
        assert got.get(b"Allow") is None
    got = await team.tw.raw(path, method=method, headers=team["alpha", "read"].header)
    assert got.status == status


async def test_guessing_is_slowed_and_right_keys_are_not(team: Keyed, pauses: list[float]) -> None:
    wrong = b"X-Traceway-Api-Key: tw_sk_x\r\n"
    for _ in range(FREE_FAILURES):
        assert (await team.tw.raw(b"/api/self", method=b"GET", headers=wrong)).status == 401
    assert pauses == []
    for headers in (wrong, b"Cookie: traceway_sign_in=x\r\n", b"Authorization: Basic eDp5\r\n"):
        assert (await team.tw.raw(b"/api/self", method=b"GET", headers=headers)).status == 401
    assert (await team.tw.raw(b"/api/events?token=x", method=b"GET")).status == 401
    assert pauses == [PAUSE_S] * 4
    for one in team.holders.values():
        for headers in (one.header, one.cookie_header):
            assert (await team.tw.raw(b"/api/self", method=b"GET", headers=headers)).status == 200
    assert (await team.tw.raw(b"/api/self", method=b"GET")).status == 401
    assert (await team.tw.raw(b"/api/live", method=b"GET", headers=wrong)).status == 200
    assert len(pauses) == 4
    assert access_of(team.tw)._throttle.waiting == 0


async def test_a_guess_that_leaves_while_it_waits_makes_room(
    team: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def leave(pause_s: float) -> None:
        waited.append(access_of(team.tw)._throttle.waiting)
        raise ConnectionResetError

    monkeypatch.setattr("proxy.access.asyncio", SimpleNamespace(sleep=leave))
    access = access_of(team.tw)
    for _ in range(FREE_FAILURES):
        access._throttle.failed("1.2.3.4", 0.0)
    monkeypatch.setattr("proxy.access.time", SimpleNamespace(monotonic=lambda: 1.0))
    request: Any = SimpleNamespace(remote="1.2.3.4")
    with pytest.raises(ConnectionResetError):
        await access.slow_down(request)
    assert (waited, access._throttle.waiting) == ([1], 0)


async def test_open_routes_answer_whatever_is_offered(team: Keyed) -> None:
    for headers in (
        b"X-Traceway-Api-Key: tw_sk_x\r\n",
        b"X-Traceway-Project: nobody\r\n",
        team["alpha", "read"].header + b"X-Traceway-Project: beta\r\n",
        team["alpha", "write"].header,
    ):
        assert (await team.tw.raw(b"/api/live", method=b"GET", headers=headers)).status == 200


async def test_only_admins_choose_another_project(team: Keyed) -> None:
    for scope in ("read", "write", "admin"):
        for headers in (team["alpha", scope].header, team["alpha", scope].cookie_header):

            async def at(project: bytes, headers: bytes = headers) -> Received:
                named = headers + b"X-Traceway-Project: %b\r\n" % project
                return await team.tw.raw(b"/api/self", method=b"GET", headers=named)

            assert b'"project":"alpha"' in (await at(b"alpha")).body
            for project in (b"beta", b"default", b"nobody", b"", b"\xff", b"Alpha"):
                got = await at(project)
                if scope != "admin":
                    assert (got.status, got.get(b"X-Traceway-Error")) == (403, b"other_project")
                elif project in (b"beta", b"default"):
                    assert b'"project":"%b"' % project in got.body
                else:
                    assert (got.status, got.get(b"X-Traceway-Error")) == (404, b"unknown_project")


async def test_a_cookie_opens_no_way_to_the_provider(
    team: Keyed, upstream: ScriptedUpstream, pauses: list[float]
) -> None:
    for scope in ("write", "admin"):
        for path in (CHAT, CHAT.replace("proxy", "%70roxy"), CHAT.replace("/api", "/%61pi")):
            got = await team.tw.raw(
                path.encode(), headers=team["alpha", scope].cookie_header + FROM_US
            )
            assert got.status == 401
    assert upstream.connections == 0


async def test_a_change_by_cookie_must_say_that_it_comes_from_our_pages(team: Keyed) -> None:
    cookie = team["alpha", "admin"].cookie_header
    own = b"http://127.0.0.1"
    for headers, allowed in [
        (b"", False),
        (b"Referer: http://127.0.0.1/settings\r\n", False),
        (b"X-Requested-With: XMLHttpRequest\r\n", False),
        (FROM_US, True),
        (b"Origin: %b\r\n" % own, True),
    ]:
        got = await team.tw.raw(b"/api/sessions/nobody", method=b"DELETE", headers=cookie + headers)
        assert (got.status == 404) is allowed
        assert got.status in (403, 404)
    got = await team.tw.raw(
        b"/api/sessions/nobody", method=b"DELETE", headers=team["alpha", "admin"].header
    )
    assert got.status == 404


async def test_what_is_revoked_or_signed_out_lets_nobody_in_from_the_next_request_on(
    team: Keyed,
) -> None:
    one = team["alpha", "read"]
    by_key, by_cookie = await team.by("alpha", "read"), await team.by_cookie("alpha", "read")
    admin = await team.by("beta", "admin")
    assert [(await ask(tw, "/api/self")).status for tw in (by_key, by_cookie)] == [200, 200]
    assert (await ask(admin, f"/api/keys/{one.key_id}", "DELETE")).status == 200
    for tw in (by_key, by_cookie):
        assert (await ask(tw, "/api/self")).error == (401, "unauthorized")


async def test_a_browser_of_a_key_that_is_no_admins_stays_in_its_project(
    serve_keyed: ServeKeyed,
) -> None:
    team = await serve_keyed()
    await switch(team, "alpha", "read", "beta")
    await switch(team, "alpha", "admin", "beta")
    assert (await ask(await team.by_cookie("alpha", "read"), "/api/self")).status == 401
    reply = await ask(await team.by_cookie("alpha", "admin"), "/api/self")
    assert reply.body["project"] == "beta"


async def switch(team: Keyed, project: str, scope: Any, to: str) -> None:
    """Have a browser look at another project, whoever it is."""
    one, other = team[project, scope], team[to, "read"]
    await granting_of(team).change(
        lambda tx, _: api_keys.switch_project(tx, secret(one), other.project_id)
    )


def secret(one: Holder) -> bytes:
    return hashlib.sha256(one.cookie.encode()).digest()


def granting_of(team: Keyed) -> Any:
    """Give what changes who may come in: the server's own, as its handlers have it."""
    (handler,) = {
        route.handler
        for route in app_of(team.tw).router.routes()
        if route.method == "POST" and route.resource.canonical == "/api/keys"
    }
    return handler.__self__._granting


async def test_a_browser_that_is_signed_out_is_out(team: Keyed) -> None:
    one = team["alpha", "read"]
    tw = await team.by_cookie("alpha", "read")
    assert (await ask(tw, "/api/self")).status == 200
    await granting_of(team).change(lambda tx, _: api_keys.sign_out(tx, secret(one)))
    assert (await ask(tw, "/api/self")).status == 401
    assert (await ask(await team.by("alpha", "read"), "/api/self")).status == 200


async def test_a_browser_is_out_when_its_time_is_over(
    team: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    tw = await team.by_cookie("alpha", "read")
    for at_us, status in [(FAR_US - 1, 200), (FAR_US, 401)]:
        clock = SimpleNamespace(time_ns=lambda us=at_us: us * 1000, monotonic=lambda: 0.0)
        with monkeypatch.context() as patch:
            patch.setattr("proxy.access.time", clock)
            assert (await ask(tw, "/api/self")).status == status


async def test_without_keys_everybody_is_the_same_admin_of_the_first_project(tw: Running) -> None:
    seen = []
    access = access_of(tw)
    identify = access.identify

    def watched(request: Any) -> Any:
        seen.append(identify(request))
        return seen[-1]

    access.identify = watched  # type: ignore[method-assign]
    for headers in (b"", b"X-Traceway-Api-Key: tw_sk_x\r\n", b"Authorization: Bearer sk-x\r\n"):
        got = await tw.raw(b"/api/self", method=b"GET", headers=headers)
        assert b'{"project":"default","scope":"admin","keys_are_on":false' in got.body
    assert len({id(one) for one in seen}) == 1


@pytest.mark.parametrize(
    "header", [b"Authorization: Bearer tw_sk_...\r\n", b"X-Traceway-Api-Key: tw_sk_...\r\n"]
)
async def test_without_keys_one_that_is_sent_proves_nothing_and_hinders_nothing(
    tw: Running, header: bytes
) -> None:
    in_json = header + b"Content-Type: application/json\r\n"
    trace = b'{"name":"chat-turn","session_id":"sess_abc123"}'
    for path, status, body in (
        (b"/api/traces", 201, trace),
        (b"/api/batch", 200, b'{"items":[{"type":"trace",%b]}' % trace[1:]),
        (b"/v1/traces", 200, b"{}"),
        (b"/mcp", 200, b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'),
    ):
        assert (await tw.raw(path, headers=in_json, body=body)).status == status, path
    got = await tw.raw(b"/api/sessions/sess_abc123", method=b"GET", headers=header)
    assert (got.status, b'"trace_count":2' in got.body) == (200, True)


async def test_without_keys_one_in_the_providers_place_is_refused_since_it_would_go_upstream(
    tw: Running,
) -> None:
    got = await tw.raw(headers=b"Authorization: Bearer tw_sk_...\r\n", body=b"{}")
    assert got.status == 401


async def test_keys_are_on_from_the_first_one_on_and_revoking_all_lets_nobody_in(
    tw: Running, pauses: list[float]
) -> None:
    async with tw.client.post(
        tw.url + "/api/keys", json={"name": "first", "scope": "admin"}
    ) as answer:
        made = await answer.json()
    assert (await ask(tw, "/api/self")).status == 401
    header = b"X-Traceway-Api-Key: %b\r\n" % made["key"].encode()
    for status in (200, 401):
        path = b"/api/keys/%d" % made["id"]
        assert (await tw.raw(path, method=b"DELETE", headers=header)).status == status
    assert (await ask(tw, "/api/self")).status == 401


@pytest.mark.sqlite_only("a socket beside the file")
async def test_who_owns_the_database_needs_no_key(team: Keyed) -> None:
    path = operator_socket.path_of(team.tw.config.database.path)
    with operator_socket.address(path) as at:
        reader, writer = await asyncio.open_unix_connection(at)
    for head in (b"", b"X-Traceway-Project: beta\r\n", b"X-Traceway-Api-Key: tw_sk_x\r\n"):
        writer.write(b"GET /api/self HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % head)
        got = await Peer(reader, writer).response()
        project = b"beta" if b"beta" in head else b"default"
        assert (
            b'{"project":"%b","scope":"admin","keys_are_on":true,"key":null}' % project == got.body
        )
    writer.write(b"GET /api/self HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert (await Peer(reader, writer).response()).status == 421
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def stream(tw: Running, headers: bytes = b"", query: str = "") -> AsyncIterator[Watching]:
    """Watch a project's events."""
    async with connect(tw.port) as peer:
        await peer.send(
            b"GET /api/events%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (query.encode(), headers)
        )
        watching = Watching(peer, await peer.head())
        if watching.head.status == 200:
            await watching.frame()
        yield watching


@pytest.mark.parametrize("end", ["revoke", "sign out", "expire"])
async def test_a_stream_ends_when_what_let_it_in_is_taken_away(
    team: Keyed, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    one = team["alpha", "read"]
    changing = granting_of(team)
    async with (
        stream(team.tw, one.header) as by_key,
        stream(team.tw, one.cookie_header) as by_cookie,
    ):
        await write(team, one, 1)
        assert kinds(await by_key.events(2)) == kinds(await by_cookie.events(2))
        if end == "revoke":
            await changing.change(revoking(one))
        elif end == "sign out":
            await changing.change(lambda tx, _: api_keys.sign_out(tx, secret(one)))
        else:
            clock = SimpleNamespace(time_ns=lambda: FAR_US * 1000)
            monkeypatch.setattr("proxy.access.time", clock)
        await write(team, one, 2)
        assert await by_cookie.ended() == []
        if end == "revoke":
            assert await by_key.ended() == []
        else:
            assert len(await by_key.events(2)) == 2


def revoking(one: Holder) -> Callable[[Transaction, int], None]:
    return lambda tx, now_us: api_keys.revoke_key(tx, one.key_id, now_us)


async def write(team: Keyed, one: Holder, number: int) -> None:
    """Record a call in somebody's project."""
    await save(team.tw, start(number, project_id=one.project_id))


async def ticket(team: Keyed, headers: bytes) -> str:
    got = await team.tw.raw(b"/api/events/tickets", headers=headers)
    assert got.status == 201
    return str(orjson.loads(got.body)["token"])


async def test_a_ticket_opens_the_stream_of_its_project_once(
    team: Keyed, pauses: list[float]
) -> None:
    numbers = count()
    for one in (team["alpha", "read"], team["beta", "admin"]):
        for headers in (one.header, one.cookie_header + FROM_US):
            token = await ticket(team, headers)
            for method in (b"POST", b"PUT", b"HEAD"):  # none of these uses it up
                got = await team.tw.raw(f"/api/events?token={token}".encode(), method=method)
                assert got.status == 401
            for path in ("/api/self", "/api/sessions", "/sessions", CHAT, "/api/events/tickets"):
                got = await team.tw.raw(f"{path}?token={token}".encode(), method=b"GET")
                assert got.status in (401, 303)
            async with stream(team.tw, query=f"?token={token}") as watching:
                assert watching.head.status == 200
                other = "beta" if one.project == "alpha" else "alpha"
                await write(team, team[other, "read"], next(numbers))
                await write(team, one, own := next(numbers))
                first = await watching.event()
                assert first["trace"]["id"] == start(own).trace_id.hex()
            async with stream(team.tw, query=f"?token={token}") as again:
                assert again.head.status == 401


@pytest.mark.parametrize("end", ["revoke", "sign out", "wait"])
async def test_a_ticket_is_no_better_than_who_had_it_made(
    team: Keyed, pauses: list[float], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    one = team["alpha", "read"]
    tokens = [await ticket(team, h) for h in (one.header, one.cookie_header + FROM_US)]
    if end == "revoke":
        await granting_of(team).change(revoking(one))
    elif end == "sign out":
        await granting_of(team).change(lambda tx, _: api_keys.sign_out(tx, secret(one)))
    else:
        later = time.monotonic() + TICKET_S
        clock = SimpleNamespace(time_ns=time.time_ns, monotonic=lambda: later)
        monkeypatch.setattr("proxy.access.time", clock)
        wall = SimpleNamespace(time_ns=lambda: time.time_ns() + round(TICKET_S * 10**9))
        monkeypatch.setattr("proxy.api.stored_tickets.time", wall)
    for token, is_refused in zip(tokens, (end != "sign out", True), strict=True):
        async with stream(team.tw, query=f"?token={token}") as watching:
            assert watching.head.status == (401 if is_refused else 200)


async def test_a_ticket_that_needed_no_key_is_none_when_keys_are_on(
    tw: Running, pauses: list[float]
) -> None:
    got = await tw.raw(b"/api/events/tickets")
    token = orjson.loads(got.body)["token"]
    async with stream(tw) as before:
        async with tw.client.post(
            tw.url + "/api/keys", json={"name": "a", "scope": "read"}
        ) as made:
            assert made.status == 201
        await save(tw, start(1))
        assert await before.ended() == []
    async with stream(tw, query=f"?token={token}") as watching:
        assert watching.head.status == 401
