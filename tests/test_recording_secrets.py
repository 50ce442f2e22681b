"""A canary key in every usual place: it goes upstream, and never into API, database, WAL or log."""

import gzip
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import orjson
import pytest

from tests.calling import DONE, delta
from tests.databases import kept
from tests.running import CHAT, Running
from tests.wire import Received, ScriptedUpstream

KEY = b"sk-canary-8f0d2c4b6a"
OURS = b"tw_sk_canary8f0d2c4b6a"
PLACES: dict[str, tuple[bytes, bytes]] = {  # a query, headers
    "Authorization": (b"", b"Authorization: Bearer %b\r\n" % KEY),
    "Authorization without a scheme": (b"", b"authorization: %b\r\n" % KEY),
    "api-key": (b"", b"api-key: %b\r\n" % KEY),
    "x-api-key": (b"", b"X-Api-Key: %b\r\n" % KEY),
    "x-goog-api-key": (b"", b"x-goog-api-key: %b\r\n" % KEY),
    "Cookie": (b"", b"Cookie: lang=en; session=%b; theme=dark\r\n" % KEY),
    "?key=": (b"?key=" + KEY, b""),
    "?api_key=": (b"?a=1&api_key=%b&b=2" % KEY, b""),
    "?key= in another spelling": (b"?%6Bey=" + KEY.replace(b"-", b"%2D"), b""),
}


@dataclass
class Echo:
    """One way in which an upstream gives the key back: a body, and how it is sent."""

    body: bytes
    status: bytes = b"200 OK"
    content_type: bytes = b"application/json"
    headers: bytes = b""


JSON = b'{"model":"m-%b","choices":[{"message":{"content":"your key is %b"}}]}' % (KEY, KEY)
EVENTS = b"text/event-stream"
ECHOES: dict[str, Echo] = {
    "an answer": Echo(JSON),
    "a compressed answer": Echo(gzip.compress(JSON), headers=b"Content-Encoding: gzip\r\n"),
    "an error": Echo(b'{"error":{"message":"wrong key %b"}}' % KEY, status=b"401 No"),
    "a page": Echo(b"<title>no %b</title>" % KEY, b"502 No", b"text/html"),
    "a stream": Echo(delta(KEY.decode()) + DONE, content_type=EVENTS),
    "a compressed stream": Echo(
        gzip.compress(delta(KEY.decode()) + DONE),
        content_type=EVENTS,
        headers=b"Content-Encoding: gzip\r\n",
    ),
    "a stream without an end": Echo(delta(KEY.decode()) + KEY[:14], content_type=EVENTS),
    "an error event": Echo(b'data: {"error":"no %b"}\n\n' % KEY, content_type=EVENTS),
    "sound": Echo(b"\x00\xff" + KEY, content_type=b"audio/mpeg"),
    "what only says that it is compressed": Echo(
        b"plain " + KEY, headers=b"Content-Encoding: br\r\n"
    ),
    "a header": Echo(b"{}", headers=b"X-Your-Key: %b\r\n" % KEY),
}


def files(tw: Running) -> bytes:
    return kept(tw.config.database.path)


async def everything(tw: Running, log: Callable[[], Iterable[str]]) -> bytes:
    """Give all that the API says, all that is in the files, and all that was logged."""
    await tw.saved()
    spans = await tw.spans()
    paths = ["/api/traces", "/api/sessions", "/api/health", "/api/stats", "/api/sessions/s"]
    answers = [orjson.dumps(await tw.api(path)) for path in paths]
    return b"".join([*answers, orjson.dumps(spans), files(tw), "".join(log()).encode()])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], Iterable[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [caplog.text]


async def call(tw: Running, query: bytes, headers: bytes, body: bytes) -> Received:
    headers += b"Content-Type: application/json\r\nX-Traceway-Session-Id: s\r\n"
    return await tw.raw(CHAT.encode() + query, headers=headers, body=body)


@pytest.mark.parametrize("place", PLACES)
async def test_a_key_goes_upstream_and_is_not_kept_wherever_it_stands(
    tw: Running, upstream: ScriptedUpstream, log: Callable[[], Iterable[str]], place: str
) -> None:
    query, headers = PLACES[place]
    upstream.answers(JSON)
    request = b'{"model":"m","messages":[{"role":"user","content":"my key is %b"}]}' % KEY

    got = await call(tw, query, headers, request)

    (sent,) = upstream.requests
    assert headers[:-2] in sent.head
    assert sent.target.endswith(query)
    assert (sent.body, got.body) == (request, JSON)
    assert KEY not in await everything(tw, log)
    (span,) = await tw.spans()
    assert span["input"]["messages"][0]["content"] == "my key is [redacted]"
    assert span["metadata"]["request"]["redacted"] is True
    assert span["metadata"]["response"]["redacted"] is True


@pytest.mark.parametrize("what", ECHOES)
async def test_a_key_that_an_upstream_gives_back_reaches_the_client_and_is_not_kept(
    tw: Running, upstream: ScriptedUpstream, log: Callable[[], Iterable[str]], what: str
) -> None:
    echo = ECHOES[what]
    upstream.answers(
        echo.body, status=echo.status, content_type=echo.content_type, headers=echo.headers
    )

    got = await call(tw, b"", PLACES["Authorization"][1], b"{}")

    assert got.body == echo.body
    found = await everything(tw, log)
    assert KEY not in found
    assert KEY[:14] not in found


async def test_a_key_in_a_form_is_not_kept(
    tw: Running, upstream: ScriptedUpstream, log: Callable[[], Iterable[str]]
) -> None:
    upstream.answers(b'{"text":"hello"}')
    form = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n%b\r\n--b--\r\n' % KEY
    headers = PLACES["Authorization"][1] + b"Content-Type: multipart/form-data; boundary=b\r\n"
    headers += b"X-Traceway-Session-Id: s\r\n"
    await tw.raw(b"/api/proxy/openai/v1/audio/transcriptions", headers=headers, body=form)
    assert upstream.requests[0].body == form
    assert KEY not in await everything(tw, log)


async def test_a_cookie_that_an_upstream_sets_is_not_kept(
    tw: Running, upstream: ScriptedUpstream, log: Callable[[], Iterable[str]]
) -> None:
    upstream.answers(JSON, headers=b"Set-Cookie: sid=%b; Path=/; HttpOnly\r\n" % KEY)
    got = await call(tw, b"", b"", b"{}")
    assert got.get(b"Set-Cookie") == b"sid=%b; Path=/; HttpOnly" % KEY
    assert KEY not in await everything(tw, log)


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_key_of_ours_in_a_body_is_not_kept(
    tw: Running,
    upstream: ScriptedUpstream,
    log: Callable[[], Iterable[str]],
    compressed: bool,
) -> None:
    answer = JSON.replace(KEY, OURS)
    headers = b"Content-Encoding: gzip\r\n" if compressed else b""
    upstream.answers(gzip.compress(answer) if compressed else answer, headers=headers)
    body = b'{"messages":[{"role":"user","content":"it is %b, or so"}]}' % OURS
    await call(tw, b"", b"", body)
    found = await everything(tw, log)
    assert b"tw_sk_" not in found
    (span,) = await tw.spans()
    assert span["input"]["messages"][0]["content"] == "it is [redacted], or so"
    assert span["output"]["choices"][0]["message"]["content"] == "your key is [redacted]"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (b"?key=" + OURS, b""),
        (b"?q=tw%5Fsk%5Fcanary8f0d2c4b6a", b""),
        (b"", b"Authorization: Bearer %b\r\n" % OURS),
    ],
)
async def test_a_key_of_ours_in_a_head_goes_nowhere_and_leaves_nothing(
    tw: Running,
    upstream: ScriptedUpstream,
    log: Callable[[], Iterable[str]],
    query: bytes,
    headers: bytes,
) -> None:
    got = await tw.raw(CHAT.encode() + query, headers=headers, body=b"{}")
    assert (got.status, upstream.connections) == (401, 0)
    assert await tw.spans() == []
    assert b"canary" not in files(tw)
    assert "canary" not in "".join(log())


async def test_a_key_of_ours_beside_the_providers_own_leaves_nothing(
    tw: Running, upstream: ScriptedUpstream, log: Callable[[], Iterable[str]]
) -> None:
    upstream.answers(b"{}")
    got = await tw.raw(headers=b"X-Traceway-Api-Key: %b\r\n" % OURS, body=b"{}")
    assert (got.status, len(await tw.spans())) == (200, 1)
    assert b"canary" not in files(tw)
    assert "canary" not in "".join(log())


async def test_the_search_finds_what_is_no_secret(
    tw: Running, upstream: ScriptedUpstream, log: Callable[[], Iterable[str]]
) -> None:
    upstream.answers(JSON)
    headers = b"X-Traceway-Session-Id: s\r\n"
    await tw.raw(CHAT.encode(), headers=headers, body=b"{}")
    assert KEY in await everything(tw, log)
