"""Requests for another host or from another origin reach no handler, on any route."""

import re

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from proxy.guard import Guard, Refusal, host_name
from tests.conftest import Serve, ServeKeyed
from tests.running import CHAT, Running
from tests.wire import Received, ScriptedUpstream, connect

# Words that fill a route's pattern, as {id:[^/]+}.
FILLED = re.compile(r"\{\w+(?::[^{}]*)?\}")


def all_routes(tw: Running) -> list[tuple[bytes, bytes]]:
    """Give method and path of every route that the server has, and of two that it has not."""
    runner = tw.server._runner
    assert runner is not None
    app = runner.app
    assert isinstance(app, web.Application)
    found = []
    for route in app.router.routes():
        resource = route.resource
        assert resource is not None
        path = FILLED.sub("openai/x", resource.canonical)
        method = "POST" if route.method == "*" else route.method
        found.append((method.encode(), path.encode()))
    assert len(found) > 10
    return [*found, (b"GET", b"/nowhere"), (b"OPTIONS", CHAT.encode())]


def code_of(got: Received) -> str:
    code = orjson.loads(got.body)["error"]["code"] if got.body else ""
    assert (got.get(b"X-Traceway-Error") or b"").decode() == code
    return str(code)


def has_cors(got: Received) -> bool:
    return any(name.lower().startswith(b"access-control") for name, _ in got.headers)


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"evil.example:3000",
        b"localhost.evil.example",
        b"127.0.0.1.evil.example",
        b"127.0.0.2",
        b"[::1]evil.example",
        b"localhost@evil.example",
        b"localhost:80:80",
        b"localhost:x",
        b"localhost/",
        b"[::2]",
        b"\xff\xfe",
        b"",
    ],
)
async def test_a_foreign_host_is_a_421_on_every_route(tw: Running, host: bytes) -> None:
    for method, path in all_routes(tw):
        got = await tw.raw(path, method=method, host=host)
        assert got.status == 421, (method, path)
        if method != b"HEAD":
            assert code_of(got) == "foreign_host"
    assert await tw.spans() == []


@pytest.mark.parametrize(
    "header",
    [
        b"Origin: http://evil.example",
        b"Origin: null",
        b"Origin: ",
        b"Origin: http://127.0.0.1:1",
        b"Origin: http://localhost",
        b"Origin: file://",
        b"Origin: chrome-extension://127.0.0.1",
        b"Origin: http://127.0.0.1@evil.example",
        b"Origin: http://[",
        b"Origin: \xff",
        b"Origin: http://127.0.0.1\r\nOrigin: http://evil.example",
        b"Sec-Fetch-Site: cross-site",
        b"Sec-Fetch-Site: same-site",
        b"Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site",
        b"Origin: http://127.0.0.1\r\nSec-Fetch-Site: cross-site",
    ],
)
async def test_a_foreign_page_is_a_403_on_every_route(tw: Running, header: bytes) -> None:
    for method, path in all_routes(tw):
        got = await tw.raw(path, method=method, headers=header + b"\r\n")
        assert got.status == 403, (method, path)
        if method != b"HEAD":
            assert code_of(got) in ("foreign_origin", "cross_site")
        assert not has_cors(got)
    assert await tw.spans() == []


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"LOCALHOST:3000", b"localhost.", b"127.0.0.1:1", b"[::1]:3000", b"proxy.local"],
)
async def test_our_own_names_and_those_of_the_configuration_pass(
    serve: Serve, upstream: ScriptedUpstream, host: bytes
) -> None:
    upstream.answers(b"{}")
    tw = await serve({"server.allowed_hosts": "proxy.local"})
    got = await tw.raw(host=host)
    assert got.status == 200
    got = await tw.raw(
        host=host, headers=b"Origin: http://%b\r\nSec-Fetch-Site: same-origin\r\n" % host
    )
    assert got.status == 200
    assert not has_cors(got)
    got = await tw.raw(host=host, headers=b"Sec-Fetch-Site: none\r\n")
    assert got.status == 200
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("hosts", [b"Host: localhost\r\nHost: evil.example", b"X-No-Host: 1"])
async def test_one_host_is_what_a_request_must_have(
    tw: Running, hosts: bytes, version: bytes
) -> None:
    async with connect(tw.port) as client:
        await client.send(b"POST %b HTTP/%b\r\n%b\r\n\r\n" % (CHAT.encode(), version, hosts))
        got = await client.head()
    assert got.status in (400, 421)
    assert await tw.spans() == []


@pytest.mark.parametrize("target", [b"/api/live#x", b"/api\\live", b"http://localhost/api/live"])
async def test_a_target_must_be_a_plain_path_on_every_route(tw: Running, target: bytes) -> None:
    got = await tw.raw(target, method=b"GET", host=b"localhost")
    assert got.status == 400


async def test_headers_of_other_proxies_do_not_change_the_host(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    got = await tw.raw(
        headers=b"X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n"
        b"X-HTTP-Method-Override: DELETE\r\n"
    )
    assert got.status == 200
    (sent,) = upstream.requests
    assert sent.get(b"Host") == b"127.0.0.1:%d" % upstream.port
    assert sent.start.startswith(b"POST ")


LINK = b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"


@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
@pytest.mark.parametrize("path", [b"/sessions", b"/sessions/x?y=1", b"/", b"/nowhere"])
async def test_a_link_on_another_site_opens_a_page(tw: Running, path: bytes, site: bytes) -> None:
    got = await tw.raw(path, method=b"GET", headers=LINK.replace(b"cross-site", site))
    assert got.status in (200, 302, 303, 404)
    if path == b"/sessions":
        assert got.get(b"Cross-Origin-Opener-Policy") == b"same-origin"
        assert b"frame-ancestors 'none'" in (got.get(b"Content-Security-Policy") or b"")


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        (b"GET", b"/api/sessions", LINK),
        (b"GET", b"/%61pi/sessions", LINK),
        (b"GET", b"/api", LINK),
        (b"GET", b"/api/proxy/openai/v1/models", LINK),
        (b"GET", b"/metrics", LINK),
        (b"POST", b"/sign-in", LINK),
        (b"HEAD", b"/sessions", LINK),
        (b"GET", b"/sessions", LINK.replace(b"navigate", b"no-cors")),
        (b"GET", b"/sessions", LINK.replace(b"navigate", b"cors")),
        (b"GET", b"/sessions", LINK.replace(b"document", b"iframe")),
        (b"GET", b"/sessions", LINK.replace(b"document", b"embed")),
        (b"GET", b"/sessions", LINK + b"Sec-Fetch-Dest: iframe\r\n"),
        (b"GET", b"/sessions", LINK + b"Origin: http://evil.example\r\n"),
        (b"GET", b"/sessions", b"Sec-Fetch-Site: cross-site\r\n"),
    ],
)
async def test_nothing_else_of_another_site_passes(
    tw: Running, method: bytes, path: bytes, headers: bytes
) -> None:
    got = await tw.raw(path, method=method, headers=headers)
    assert got.status == 403
    assert await tw.spans() == []


@pytest.mark.parametrize("version", [b"2.0", b"0.9"])
async def test_another_version_of_http_is_a_505_on_every_route(tw: Running, version: bytes) -> None:
    for method, path in all_routes(tw):
        async with connect(tw.port) as client:
            await client.send(b"%b %b HTTP/%b\r\nHost: localhost\r\n\r\n" % (method, path, version))
            got = await client.response(head_only=method == b"HEAD")
            await client.gone()
        assert got.start == b"HTTP/1.1 505 HTTP Version Not Supported", (method, path)
    assert await tw.spans() == []


async def test_a_preflight_of_a_foreign_page_is_refused(tw: Running) -> None:
    got = await tw.raw(
        method=b"OPTIONS",
        headers=b"Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n",
    )
    assert got.status == 403
    assert not has_cors(got)


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("LocalHost", "localhost"),
        ("localhost:80", "localhost"),
        ("localhost.:80", "localhost"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]"),
        ("a..", "a."),
        ("[::1]x", ""),
        ("[::1", ""),
        ("a:b", ""),
        ("", ""),
    ],
)
def test_a_host_name_is_read_strictly(authority: str, name: str) -> None:
    assert host_name(authority) == name


@pytest.mark.parametrize(
    ("configured", "sent"),
    [
        ("2001:db8:0::5", "[2001:DB8::5]:3000"),
        ("::", "[::]"),
        ("192.168.1.5", "192.168.1.5:80"),
        ("Box.Local.", "box.local"),
    ],
)
def test_an_address_of_ours_may_be_written_as_one_likes(configured: str, sent: str) -> None:
    request = make_mocked_request("GET", "/", headers={"Host": sent})
    Guard([configured]).check(request)
    with pytest.raises(Refusal):
        Guard([]).check(request)


# Pages of other origins that may hand in traces.

APP = b"https://app.example.com"
WRITES = [
    b"/api/traces",
    b"/api/traces/%b/end" % (b"1" * 32),
    b"/api/spans",
    b"/api/spans/%b/complete" % (b"1" * 16),
    b"/api/spans/%b/fail" % (b"1" * 16),
    b"/api/batch",
    b"/v1/traces",
]
PREFLIGHT = b"Origin: %b\r\nAccess-Control-Request-Method: POST\r\nSec-Fetch-Site: cross-site\r\n"


def cors(got: Received) -> dict[bytes, bytes]:
    return {n.lower(): v for n, v in got.headers if n.lower().startswith(b"access-control")}


@pytest.mark.parametrize("path", [*WRITES, b"/v1/traces"])
async def test_a_page_of_an_allowed_origin_may_ask_to_hand_in(serve: Serve, path: bytes) -> None:
    tw = await serve({"server.allowed_origins": APP.decode()})
    got = await tw.raw(path, method=b"OPTIONS", headers=PREFLIGHT % APP)
    assert (got.status, got.body) == (204, b"")
    assert cors(got) == {
        b"access-control-allow-origin": APP,
        b"access-control-allow-methods": b"POST",
        b"access-control-allow-headers": b"authorization, content-encoding, content-type,"
        b" x-traceway-api-key, x-traceway-project",
        b"access-control-max-age": b"600",
    }
    assert got.get(b"Vary") == b"Origin"


@pytest.mark.parametrize("origin", [b"https://evil.example", b"null", b"http://app.example.com"])
async def test_no_other_origin_may_even_ask(serve: Serve, origin: bytes) -> None:
    tw = await serve({"server.allowed_origins": APP.decode()})
    for path in WRITES:
        for method, headers in (
            (b"OPTIONS", PREFLIGHT % origin),
            (b"POST", b"Origin: %b\r\n" % origin),
        ):
            got = await tw.raw(path, method=method, headers=headers, body=b"{}")
            assert (got.status, code_of(got), cors(got)) == (403, "foreign_origin", {})
    assert (await tw.api("/api/traces"))["traces"] == []


async def test_an_allowed_origin_may_do_nothing_else(serve: Serve) -> None:
    tw = await serve({"server.allowed_origins": APP.decode()})
    told = b"Origin: %b\r\nSec-Fetch-Site: cross-site\r\n" % APP
    for method, path in all_routes(tw):
        if (method == b"POST" and re.sub(rb"openai/x|x", b"1", path) in _shapes()) or (
            (method, path) == (b"GET", b"/api/events")
        ):
            continue
        got = await tw.raw(path, method=method, headers=told)
        assert (got.status, cors(got)) == (403, {}), (method, path)
    for method in (b"GET", b"DELETE", b"PUT"):
        asked = told + b"Access-Control-Request-Method: %b\r\n" % method
        got = await tw.raw(WRITES[0], method=b"OPTIONS", headers=asked)
        assert (got.status, cors(got)) == (403, {}), method
    assert (await tw.raw(CHAT.encode(), method=b"OPTIONS", headers=PREFLIGHT % APP)).status == 403


def _shapes() -> set[bytes]:
    return {re.sub(rb"1+", b"1", path) for path in WRITES}


async def test_its_answers_can_be_read_also_where_they_are_errors(serve_keyed: ServeKeyed) -> None:
    team = await serve_keyed({"server.allowed_origins": APP.decode()})
    told = b"Origin: %b\r\nContent-Type: application/json\r\n" % APP
    write = team["alpha", "write"].bearer
    for headers, body, status in (
        (write, b'{"items":[]}', 200),
        (write, b"{", 400),
        (b"", b'{"items":[]}', 401),
        (team["alpha", "read"].bearer, b'{"items":[]}', 403),
    ):
        got = await team.tw.raw(b"/api/batch", headers=told + headers, body=body)
        assert got.status == status
        assert cors(got) == {
            b"access-control-allow-origin": APP,
            b"access-control-expose-headers": b"Retry-After, X-Traceway-Error",
        }
        assert got.get(b"Vary") == b"Origin"
    own = await team.tw.raw(b"/api/batch", headers=write, body=b'{"items":[]}')
    assert (own.status, cors(own)) == (200, {})


async def test_somebody_elses_cookie_hands_in_nothing(serve_keyed: ServeKeyed) -> None:
    team = await serve_keyed({"server.allowed_origins": APP.decode()})
    cookie = team["alpha", "admin"].cookie_header
    body = b'{"items":[{"type":"trace","name":"forged"}]}'
    told = b"Origin: %b\r\nContent-Type: text/plain\r\n" % APP
    got = await team.tw.raw(b"/api/batch", headers=told + cookie, body=body)
    assert (got.status, code_of(got)) == (403, "forbidden")
    assert (await (await team.by("alpha", "read")).api("/api/traces"))["traces"] == []
    ours = b"Origin: http://127.0.0.1\r\n"
    assert (await team.tw.raw(b"/api/batch", headers=ours + cookie, body=body)).status == 200
