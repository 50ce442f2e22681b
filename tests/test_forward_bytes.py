"""What passes through is what was sent: target, headers, status and body, in both directions."""

import gzip

import pytest

from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Peer, Received, Script, ScriptedUpstream, connect

OURS = (b"x-traceway-", b"content-security-policy", b"x-content-type-options")


def foreign(message: Received) -> list[tuple[bytes, bytes]]:
    """Give a response's headers without those that we add."""
    return [pair for pair in message.headers if not pair[0].lower().startswith(OURS)]


def says(answer: bytes) -> Script:
    """Make a script that gives the same bytes to each request, and goes on."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    return script


@pytest.mark.parametrize(
    "rest",
    [
        b"/v1/models",
        b"/v1/models?",
        b"/v1/models?a=1&a=2&b=%7E+%2F;c",
        b"/v1/%7Euser/a%2Fb/a+b/x;y=1/%C3%A9",
        b"/v1//models///x",
        b"//evil.example/v1",
        b"/@evil.example/v1",
        b"/v1/models?url=http://evil.example/%23",
        b"/v1/..hidden/...",
        b"/v1/%252e%252e/x",
        b"/v1/a%0Ab%0D%00c",
        b"/v1/{id}|`^<>'\"",
        b"/",
    ],
)
async def test_path_and_query_arrive_as_they_were_sent(
    tw: Running, upstream: ScriptedUpstream, rest: bytes
) -> None:
    upstream.answers(b"{}")
    got = await tw.raw(b"/api/proxy/openai" + rest, method=b"GET")
    assert got.status == 200
    (sent,) = upstream.requests
    assert sent.start == b"GET " + rest + b" HTTP/1.1"


@pytest.mark.parametrize("name", ["api_base", "base_url", "url", "host", "endpoint", "proxy"])
async def test_a_body_that_names_another_host_goes_to_the_configured_one_as_it_is(
    tw: Running, upstream: ScriptedUpstream, name: str
) -> None:
    other = ScriptedUpstream()
    await other.start()
    body = b'{"model":"gpt-4o-mini","%b":"%b","messages":[]}' % (name.encode(), other.url.encode())
    upstream.answers(b"{}")
    got = await tw.raw(headers=b"X-Custom-Host: %b\r\n" % other.url.encode(), body=body)
    await other.stop()
    assert got.status == 200
    assert [sent.body for sent in upstream.requests] == [body]
    assert other.connections == 0


async def test_the_upstreams_own_path_stands_before_that_of_the_call(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    tw = await serve({"upstreams.openai.url": upstream.url + "/base/"})
    for target in (b"/api/proxy/openai", b"/api/proxy/openai?a", b"/api/proxy/openai/v1"):
        await tw.raw(target, method=b"GET")
    assert [sent.target for sent in upstream.requests] == [b"/base", b"/base?a", b"/base/v1"]


async def test_a_call_without_a_path_asks_for_the_root(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    for target in (b"/api/proxy/openai", b"/api/proxy/openai?a"):
        await tw.raw(target, method=b"GET")
    assert [sent.target for sent in upstream.requests] == [b"/", b"/?a"]


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"QUERY"])
async def test_any_method_is_relayed(
    tw: Running, upstream: ScriptedUpstream, method: bytes
) -> None:
    upstream.answers(b"{}")
    got = await tw.raw(b"/api/proxy/openai/v1/x", method=method, body=b"\x00\xff")
    assert (got.status, got.body) == (200, b"{}")
    (sent,) = upstream.requests
    assert (sent.start, sent.body) == (method + b" /v1/x HTTP/1.1", b"\x00\xff")


async def test_the_upstream_gets_no_header_that_the_client_did_not_send(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    async with connect(tw.port) as client:
        await client.send(
            b"POST /api/proxy/openai/v1/x HTTP/1.1\r\n"
            b"x-one: 1\r\n"
            b"HOST: localhost\r\n"
            b"Empty:\r\n"
            b"Cookie: a=b\r\n"
            b"X-Bytes: \xff\xfe \xc3\xa9\r\n"
            b"cookie: c=d\r\n"
            b"X-ONE: 2\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        assert (await client.response()).status == 200
    (sent,) = upstream.requests
    assert sent.headers == [
        (b"x-one", b"1"),
        (b"Host", b"127.0.0.1:%d" % upstream.port),
        (b"Empty", b""),
        (b"Cookie", b"a=b"),
        (b"X-Bytes", b"\xff\xfe \xc3\xa9"),
        (b"cookie", b"c=d"),
        (b"X-ONE", b"2"),
        (b"Content-Length", b"0"),
    ]


async def test_headers_between_neighbours_stay_between_them(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}", headers=b"Connection: X-Foo, keep-alive\r\nx-foo: 1\r\nX-Bar: 2\r\n")
    got = await tw.raw(
        b"/api/proxy/openai/v1/x",
        headers=b"TE: trailers\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTrailer: X\r\n"
        b"Proxy-Authorization: y\r\nX-Secret: 1\r\nX-Kept: 2\r\nConnection: x-secret, HOST\r\n",
    )
    (sent,) = upstream.requests
    assert sent.headers == [(b"Host", b"127.0.0.1:%d" % upstream.port), (b"X-Kept", b"2")]
    assert foreign(got) == [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"2"),
        (b"X-Bar", b"2"),
        (b"Connection", b"close"),
    ]


async def test_our_headers_reach_neither_side_and_cannot_be_forged(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    forged = b"X-Traceway-Error: quota\r\nx-traceway-trace-id: 1\r\nX-TRACEWAY-Session-Id: 2\r\n"
    upstream.answers(b"{}", headers=forged)
    got = await tw.raw(
        headers=b"X-Traceway-Session-Id: s\r\nx-traceway-anything: 1\r\nX-TRACEWAY-Capture: off\r\n"
    )
    (sent,) = upstream.requests
    assert [name for name, _ in sent.headers if name.lower().startswith(b"x-traceway")] == []
    assert got.get(b"X-Traceway-Error") is None
    assert got.all(b"X-Traceway-Session-Id") == [b"s"]
    (trace,) = (await tw.api("/api/traces"))["traces"]
    assert got.all(b"X-Traceway-Trace-Id") == [trace["id"].encode()]


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 200 ", b"HTTP/1.1 200 "),
        (b"HTTP/1.1 299 Fine \xff \xc3\xa9", b"HTTP/1.1 299 Fine \xff \xc3\xa9"),
        (b"HTTP/1.1 429 Slow down, please", b"HTTP/1.1 429 Slow down, please"),
        (b"HTTP/1.1 599 x", b"HTTP/1.1 599 x"),
        (b"HTTP/1.0 404 Old", b"HTTP/1.1 404 Old"),
    ],
)
async def test_status_and_reason_come_back_as_they_were_sent(
    tw: Running, upstream: ScriptedUpstream, line: bytes, seen: bytes
) -> None:
    upstream.script = says(line + b"\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi")
    got = await tw.raw(b"/api/proxy/openai/v1/x", method=b"GET")
    assert (got.start, got.body) == (seen, b"hi")


async def test_the_clients_answer_has_the_upstreams_headers_and_ours(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.script = says(
        b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nX-Bytes: \xff \xc3\xa9\r\nSet-Cookie: b=2\r\n"
        b"content-LENGTH: 2\r\nset-COOKIE: a=1\r\nEmpty:\r\nContent-Type: text/plain\r\n\r\nhi"
    )
    async with connect(tw.port) as client:
        await client.send(b"GET /api/proxy/openai/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = await client.response()
    assert got.headers[:-2] == [
        (b"set-cookie", b"a=1"),
        (b"X-Bytes", b"\xff \xc3\xa9"),
        (b"Set-Cookie", b"b=2"),
        (b"content-LENGTH", b"2"),
        (b"set-COOKIE", b"a=1"),
        (b"Empty", b""),
        (b"Content-Type", b"text/plain"),
    ]
    assert [name for name, _ in got.headers[-2:]] == [b"X-Traceway-Trace-Id", b"X-Traceway-Span-Id"]


@pytest.mark.parametrize("encoding", [b"gzip", b"br"])
async def test_compressed_bodies_pass_both_ways_as_they_are(
    tw: Running, upstream: ScriptedUpstream, encoding: bytes
) -> None:
    packed = gzip.compress(b'{"model":"m"}')  # sent as br it is garbage, and passes all the same
    upstream.answers(packed, headers=b"Content-Encoding: %b\r\n" % encoding)
    got = await tw.raw(
        headers=b"Content-Encoding: %b\r\nAccept-Encoding: zstd;q=0.1\r\n"
        b"Content-Type: application/json\r\n" % encoding,
        body=packed,
    )
    (sent,) = upstream.requests
    assert sent.body == packed
    assert sent.get(b"Content-Encoding") == encoding
    assert sent.get(b"Accept-Encoding") == b"zstd;q=0.1"
    assert got.body == packed
    assert got.get(b"Content-Encoding") == encoding


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary", b"308 Permanent"])
async def test_a_redirect_is_handed_over_and_not_followed(
    tw: Running, upstream: ScriptedUpstream, status: bytes
) -> None:
    upstream.answers(b"", status=status, headers=b"Location: /v1/elsewhere\r\n")
    got = await tw.raw(b"/api/proxy/openai/v1/x", method=b"GET")
    assert got.start == b"HTTP/1.1 " + status
    assert got.get(b"Location") == b"/v1/elsewhere"
    assert [sent.target for sent in upstream.requests] == [b"/v1/x"]


async def test_a_cookie_that_one_caller_gets_is_never_sent_for_the_next(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}", headers=b"Set-Cookie: session=1; Path=/\r\n")
    for _ in range(2):
        got = await tw.raw(b"/api/proxy/openai/v1/x", method=b"GET")
        assert got.get(b"Set-Cookie") == b"session=1; Path=/"
    assert upstream.connections == 1
    assert [sent.get(b"Cookie") for sent in upstream.requests] == [None, None]


@pytest.mark.parametrize(
    ("method", "status", "header"),
    [
        (b"HEAD", b"200 OK", b"Content-Length: 1234\r\n"),
        (b"HEAD", b"200 OK", b"Transfer-Encoding: chunked\r\n"),
        (b"HEAD", b"200 OK", b""),
        (b"GET", b"204 No Content", b""),
        (b"GET", b"304 Not Modified", b"ETag: x\r\nContent-Length: 99\r\n"),
        (b"GET", b"304 Not Modified", b""),
    ],
)
async def test_an_answer_without_a_body_ends_at_its_head_and_the_connections_go_on(
    tw: Running, upstream: ScriptedUpstream, method: bytes, status: bytes, header: bytes
) -> None:
    upstream.script = says(b"HTTP/1.1 " + status + b"\r\nX-A: 1\r\n" + header + b"\r\n")
    async with connect(tw.port) as client:
        for _ in range(2):
            await client.send(method + b" /api/proxy/openai/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            got = await client.response(head_only=True)
            assert got.start == b"HTTP/1.1 " + status
            kept = header if b"Length" in header else b""
            assert got.get(b"Content-Length") == (kept.split()[-1] if kept else None)
            assert got.get(b"Transfer-Encoding") is None
    assert upstream.connections == 1


async def test_interim_answers_are_not_the_answer(tw: Running, upstream: ScriptedUpstream) -> None:
    upstream.script = says(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    )
    for _ in range(2):
        got = await tw.raw(b"/api/proxy/openai/x", method=b"GET")
        assert (got.start, got.body, got.get(b"Link")) == (b"HTTP/1.1 200 OK", b"hi", None)
    assert upstream.connections == 1


async def test_a_client_that_waits_for_100_continue_gets_it_and_its_body_is_relayed(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    async with connect(tw.port) as client:
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Length: 5\r\n\r\n" % CHAT.encode()
        )
        assert (await client.head()).start == b"HTTP/1.1 100 Continue"
        await client.send(b"hello")
        assert (await client.response()).body == b"{}"
    (sent,) = upstream.requests
    assert (sent.body, sent.get(b"Expect")) == (b"hello", None)


async def test_an_http_1_0_client_gets_a_body_that_ends_with_the_connection(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.script = says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    )
    async with connect(tw.port) as client:
        await client.send(b"GET /api/proxy/openai/x HTTP/1.0\r\nHost: localhost\r\n\r\n")
        got = await client.response()
    assert got.start == b"HTTP/1.0 200 OK"
    assert got.get(b"Transfer-Encoding") is None
    assert got.body == b"hello"


async def test_an_answer_that_ends_with_its_connection_is_complete(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}")
        await peer.close()

    upstream.script = script
    got = await tw.raw()
    assert (got.body, got.get(b"Transfer-Encoding")) == (b"{}", b"chunked")
    assert (await tw.span())["status"] == "completed"


async def test_trailers_and_chunk_extensions_end_here_in_both_directions(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    seen = []

    async def script(peer: Peer) -> None:
        while True:
            message = await peer.head()
            assert message.all(b"Transfer-Encoding") == [b"chunked"]
            seen.append(await peer.reader.readexactly(len(b"5\r\nhello\r\n0\r\n\r\n")))
            assert message.get(b"Trailer") is None
            await peer.send(
                b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"2;a=b\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"
            )

    upstream.script = script
    async with connect(tw.port) as client:
        for _ in range(2):
            await client.send(
                b"POST /api/proxy/openai/x HTTP/1.1\r\nHost: localhost\r\nTrailer: X-Sum\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
            )
            got = await client.head()
            assert got.get(b"Trailer") is None
            assert got.get(b"X-Sum") is None
            assert await client.reader.readexactly(12) == b"2\r\nhi\r\n0\r\n\r\n"
    assert seen == [b"5\r\nhello\r\n0\r\n\r\n"] * 2
    assert upstream.connections == 1
