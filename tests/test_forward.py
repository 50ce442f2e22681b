"""The relay end to end: what one side sent is what the other gets, and it is recorded once."""

import asyncio
from urllib.parse import quote

import orjson
import pytest

from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Received, ScriptedUpstream, connect

KEY = b"tw_sk_0123456789abcdef"


def error_of(got: Received) -> dict[str, object]:
    """Give the error object of an answer of ours."""
    error: dict[str, object] = orjson.loads(got.body)["error"]
    assert got.get(b"X-Traceway-Error") == str(error["code"]).encode()
    return error


async def test_a_call_arrives_as_it_was_sent_and_its_answer_comes_back(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b'{"id": "x",  "usage": null}', headers=b"X-Odd: a\r\nx-odd: b\r\n")

    got = await tw.raw(
        headers=b"X-Mixed: 1\r\nx-MIXED: 2\r\nAuthorization: Bearer k\r\n", body=b"{}"
    )

    (sent,) = upstream.requests
    assert sent.start == b"POST /v1/chat/completions HTTP/1.1"
    assert sent.headers == [
        (b"Host", b"127.0.0.1:%d" % upstream.port),
        (b"Content-Length", b"2"),
        (b"X-Mixed", b"1"),
        (b"x-MIXED", b"2"),
        (b"Authorization", b"Bearer k"),
    ]
    assert sent.body == b"{}"
    assert got.start == b"HTTP/1.1 200 OK"
    assert got.body == b'{"id": "x",  "usage": null}'
    assert [pair for pair in got.headers if pair[0].lower() == b"x-odd"] == [
        (b"X-Odd", b"a"),
        (b"x-odd", b"b"),
    ]
    assert (await tw.span())["status"] == "completed"


@pytest.mark.parametrize(
    "status",
    [
        b"429 Too Many Requests",
        b"500 Internal Server Error",
        b"503 Service Unavailable",
        b"529 Site is overloaded",
    ],
)
async def test_an_error_of_the_upstream_is_handed_on_unchanged_and_called_once(
    tw: Running, upstream: ScriptedUpstream, status: bytes
) -> None:
    body = b'{"error": {"message": "slow down"},\r\n "odd":1, "odd": \xff}'
    upstream.answers(body, status=status, headers=b"Retry-After: 7\r\nX-Should-Retry: true\r\n")
    got = await tw.raw(body=b"{}")
    assert got.start == b"HTTP/1.1 " + status
    assert (got.body, got.get(b"Retry-After"), got.all(b"X-Should-Retry")) == (
        body,
        b"7",
        [b"true"],
    )
    assert got.get(b"X-Traceway-Error") is None
    assert len(upstream.requests) == 1
    assert "failed" in (await tw.span())["status"]


async def test_an_upstream_that_is_not_configured_is_a_404_that_names_those_that_are(
    tw: Running,
) -> None:
    for name in (b"openrouter", b"..", b"OPENAI", b"openai%2Fv1", b"%6Fpenai"):
        got = await tw.raw(b"/api/proxy/%b/v1/models" % name, method=b"GET")
        assert got.status == 404
        error = error_of(got)
        assert error["code"] == "unknown_upstream"
        assert error["type"] == "invalid_request_error"
        assert "openai" in str(error["message"])
        assert got.get(b"X-Should-Retry") == b"false"
    states = [span["status"]["failed"]["phase"] for span in await tw.spans()]
    assert states == ["request"] * 5


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        (b"GET", b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        (b"POST", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"),
        (b"TRACE", b""),
        (b"POST", b"Transfer-Encoding: gzip, chunked\r\n"),
    ],
)
async def test_what_we_cannot_relay_is_a_clean_501_and_recorded(
    tw: Running, method: bytes, headers: bytes
) -> None:
    async with connect(tw.port) as client:
        await client.send(
            b"%b /api/proxy/openai/v1/realtime HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
            % (method, headers)
        )
        got = await client.response()
    assert got.status == 501
    assert error_of(got)["code"] == "unsupported"
    span = await tw.ended()
    failed = span["status"]["failed"]
    assert (failed["phase"], failed["ended_by"]) == ("request", "proxy")
    assert "unsupported" in failed["error"]


@pytest.mark.parametrize(
    "target",
    [b"localhost:80", b"/api/proxy/openai/v1"],
    ids=["a tunnel", "a path"],
)
async def test_connect_is_refused(tw: Running, target: bytes) -> None:
    async with connect(tw.port) as client:
        await client.send(b"CONNECT %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
        got = await client.head()
    assert got.status in (400, 404)
    assert await tw.spans() == []


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (CHAT.encode(), b"Authorization: Bearer " + KEY),
        (CHAT.encode(), b"X-Anything: a=" + KEY),
        (CHAT.encode(), KEY + b": 1"),
        (CHAT.encode() + b"?key=" + KEY, b"X-A: 1"),
        (CHAT.encode() + b"?key=tw%5Fsk%5f0123", b"X-A: 1"),
        (b"/api/proxy/openai/" + KEY + b"/x", b"X-A: 1"),
        (b"/api/proxy/" + KEY + b"/x", b"X-A: 1"),
    ],
)
async def test_a_key_of_ours_is_a_401_and_goes_nowhere(
    tw: Running, target: bytes, headers: bytes
) -> None:
    got = await tw.raw(target, headers=headers + b"\r\n", body=b"{}")
    assert got.status == 401
    assert error_of(got)["code"] == "keys_are_off"
    assert KEY not in got.body
    assert await tw.spans() == []


async def test_a_key_of_ours_beside_the_providers_own_is_passed_over(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    sent = b"Authorization: Bearer sk-theirs\r\nX-Traceway-Api-Key: %b\r\n" % KEY
    assert (await tw.raw(headers=sent, body=b"{}")).status == 200
    assert KEY not in repr(upstream.requests).encode()
    assert KEY.decode() not in repr(await tw.spans())


@pytest.mark.parametrize(
    "rest",
    [
        b"/v1/../x",
        b"/..",
        b"/v1/./x",
        b"/v1/%2e%2e/x",
        b"/v1/%2E./x",
        b"/v1/.%2e%2fx",
        b"/v1/x%2f..%2fy",
        b"/v1/..%5cx",
        b"/v1/\\..\\x",
        b"/%2e",
        b"/v1/x#fragment",
        b"/v1/x?a=b#fragment",
    ],
)
async def test_a_target_that_could_mean_another_place_is_a_400_and_goes_nowhere(
    tw: Running, rest: bytes
) -> None:
    got = await tw.raw(b"/api/proxy/openai" + rest, method=b"GET")
    assert got.status == 400
    assert await tw.spans() == []


@pytest.mark.parametrize(
    "target",
    [
        b"http://evil.example/api/proxy/openai/v1/models",
        b"http://127.0.0.1/api/proxy/openai/v1/models",
        b"http://openai@evil.example/api/proxy/openai/v1/models",
        b"https://evil.example:443/api/proxy/openai/v1/models",
        b"evil.example:443",
        b"//evil.example/api/proxy/openai/v1/models",
        b"\\evil.example/api/proxy/openai/v1",
        b"*",
        b"/api/proxy/openai/v1/\xff\xfe",
        b"/api/proxy/openai/v1?q=\xc3\xa9",
    ],
)
async def test_a_target_that_is_not_a_plain_path_goes_nowhere(tw: Running, target: bytes) -> None:
    got = await tw.raw(target, method=b"GET")
    assert got.status in (400, 404)
    assert await tw.spans() == []


@pytest.mark.parametrize(
    "request_head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
        b"Content-Length: -5",
        b"Content-Length: 0x5",
        b"Content-Length : 5",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        b"X-A: 1\r\n folded: 2\r\nContent-Length: 5",
        b"X-A: 1\rTransfer-Encoding: chunked\r\nContent-Length: 5",
        b"X-A: \x00\r\nContent-Length: 5",
    ],
)
async def test_a_request_with_ambiguous_framing_is_a_400_and_goes_nowhere(
    tw: Running, request_head: bytes
) -> None:
    async with connect(tw.port) as client:
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n0\r\n\r\n"
            % (CHAT.encode(), request_head)
        )
        assert (await client.head()).status == 400
    assert await tw.spans() == []


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"X-Large: " + b"x" * 66_000, id="a field over 64 KiB"),
        pytest.param(b"\r\n".join([b"X-A: 1"] * 1100), id="over 1,000 fields"),
        pytest.param(b"\r\n".join([b"X-A: " + b"x" * 60_000] * 5), id="over 256 KiB in all"),
    ],
)
async def test_a_requests_head_has_limits(tw: Running, head: bytes) -> None:
    got = await tw.raw(headers=head + b"\r\n", body=b"{}")
    assert got.status in (400, 431)
    assert await tw.spans() == []


async def test_the_answer_names_the_trace_and_the_session(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    session_id = "user 1/é:{}"
    got = await tw.raw(headers=b"X-Traceway-Session-Id: %b\r\n" % session_id.encode())
    assert got.get(b"X-Traceway-Session-Id") == quote(session_id, safe="").encode()
    assert got.get(b"X-Traceway-Session-Source") == b"header"
    (trace,) = (await tw.api("/api/traces"))["traces"]
    assert got.get(b"X-Traceway-Trace-Id") == trace["id"].encode()
    assert trace["session_id"] == session_id

    got = await tw.raw()
    assert got.get(b"X-Traceway-Session-Id") is None
    assert got.get(b"X-Traceway-Session-Source") is None


async def test_an_error_of_ours_names_the_trace_and_the_session_too(tw: Running) -> None:
    got = await tw.raw(b"/api/proxy/nobody/v1/models", headers=b"X-Traceway-Session-Id: s\r\n")
    assert got.status == 404
    (trace,) = (await tw.api("/api/traces"))["traces"]
    assert got.all(b"X-Traceway-Trace-Id") == [trace["id"].encode()]
    assert got.all(b"X-Traceway-Session-Id") == [b"s"]


@pytest.mark.parametrize(
    ("content_type", "sandboxed"),
    [
        (b"text/html; charset=utf-8", True),
        (b"application/xhtml+xml", True),
        (b"image/svg+xml", True),
        (b"text/xml", True),
        (b"", True),
        (b"application/json", False),
        (b"text/event-stream", False),
    ],
)
async def test_an_answer_that_a_browser_would_run_is_sandboxed(
    tw: Running, upstream: ScriptedUpstream, content_type: bytes, sandboxed: bool
) -> None:
    upstream.answers(b"<script>", content_type=content_type)
    got = await tw.raw()
    assert got.all(b"Content-Security-Policy") == ([b"sandbox"] if sandboxed else [])
    assert got.all(b"X-Content-Type-Options") == ([b"nosniff"] if sandboxed else [])


async def test_a_capture_that_nobody_knows_is_a_400(tw: Running) -> None:
    got = await tw.raw(headers=b"X-Traceway-Capture: some\r\n")
    assert got.status == 400
    assert error_of(got)["code"] == "bad_capture"


async def test_a_call_of_a_strict_server_that_cannot_be_recorded_is_not_made(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    tw = await serve({"recording.durability": "strict"})

    async def never(_: object) -> bool:
        return False

    monkeypatch.setattr(tw.server.recorder.waits, "committed", never)
    got = await tw.raw()
    assert got.status == 503
    assert error_of(got)["code"] == "recording_unavailable"


async def test_a_bug_of_ours_is_one_500_or_a_visible_cut_and_recorded(
    tw: Running, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(_: object) -> None:
        raise ZeroDivisionError

    upstream.answers(b"{}")
    monkeypatch.setattr(tw.server.recorder.waits, "started", failing)
    got = await tw.raw()
    assert got.status == 500
    assert error_of(got)["code"] == "internal"
    assert (await tw.span())["status"]["failed"]["ended_by"] == "proxy"


async def test_a_bug_of_ours_in_mid_answer_is_a_visible_cut(
    tw: Running, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise ZeroDivisionError

    upstream.answers(b"{}")
    monkeypatch.setattr("proxy.call.Call.watched", failing)
    async with connect(tw.port) as client:
        await client.send(b"GET /api/proxy/openai/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await client.response()  # it was whole, but the connection is not used again
        async with asyncio.timeout(10):
            assert await client.reader.read() == b""
