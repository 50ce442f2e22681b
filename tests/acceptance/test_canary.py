"""Keys sent in every usual place come out nowhere: no database, log, event, answer or page has one.

The server is a process of its own, so that all that it prints is seen; its upstream says again what
it was sent, in every form that an answer has. Each key has its own canary in it.

What is as it must be, and is not asked for here: a request and its answer pass as they are, so that
a caller is told the caller's own key where an upstream says it; it is recorded nowhere. The answer
to what is no HTTP says which line that is, to whoever sent it. A secret in the text of a body that
is no credential of that call cannot be told from other text: unless it is a key of ours, it is
recorded as it came. And a key that a stream of an unknown kind says in pieces is recorded in
pieces.
"""

import asyncio
import gzip
import signal
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote

import aiohttp
import orjson
import pytest
from yarl import URL

from storage.grants import Scope
from tests.keyed import Holder, prepared
from tests.running import CHAT
from tests.served import Served, served
from tests.wire import Peer, Received, ScriptedUpstream, connect

MARK = b"CaNaRy"
_numbers = count(100)


def provider_key() -> bytes:
    """Make a key as OpenAI's are."""
    return b"sk-proj-%b%d-0123456789abcdefghij" % (MARK, next(_numbers))


def our_key() -> bytes:
    """Make a key that looks like one of ours, and is none."""
    return b"tw_sk_%b%d_0123456789abcdefghijklmnopqrstuv" % (MARK, next(_numbers))


@dataclass
class Watched:
    """A server whose every word is kept: `answers` are all that its API and its pages said."""

    server: Served
    folder: Path
    holders: Mapping[tuple[str, Scope], Holder]
    upstream: ScriptedUpstream
    log: bytes = b""

    async def call(
        self, target: bytes, headers: bytes = b"", body: bytes = b"", method: bytes = b"POST"
    ) -> Received:
        async with connect(self.server.port) as peer:
            await peer.send(
                b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n%b"
                b"Connection: close\r\n\r\n%b" % (method, target, len(body), headers, body)
            )
            return await peer.response(head_only=method == b"HEAD")

    async def stop(self) -> None:
        """Stop the server, and keep what it printed."""
        self.server.process.send_signal(signal.SIGTERM)
        out, err = await self.server.process.communicate()
        self.log = "\n".join(self.server.lines).encode() + out + err
        assert self.server.process.returncode == 0, self.log


@asynccontextmanager
async def watched(
    folder: Path, upstream: ScriptedUpstream, *, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Watched]:
    holders = await prepared(folder)
    options = ("--upstream", f"openai={upstream.url}")
    async with served(folder, *options, environ=environ) as server:
        yield Watched(server, folder, holders, upstream)


def says_again(words: bytes, n: int) -> bytes:
    """Give an answer that holds these words, in one of the forms that answers have."""
    text = words.decode("latin-1")
    chat = orjson.dumps(
        {"id": "c", "model": text, "choices": [{"message": {"role": "assistant", "content": text}}]}
    )
    events = b"".join(
        b"data: %b\n\n" % orjson.dumps({"choices": [{"delta": {"content": piece}}]})
        for piece in (text[i : i + 5] for i in range(0, len(text), 5))
    )
    whole = b"data: %b\n\n" % orjson.dumps({"choices": [{"delta": {"content": text}}]})
    error = orjson.dumps({"error": {"message": f"Incorrect API key provided: {text}"}})
    forms = [
        (b"200 OK", b"application/json", b"", chat),
        (b"200 OK", b"application/json", b"Content-Encoding: gzip\r\n", gzip.compress(chat)),
        (b"401 No", b"application/json", b"", error),
        (b"500 " + words[:50], b"text/html", b"", b"<h1>%b</h1>" % words),
        (b"200 OK", b"text/event-stream", b"", whole + b"data: [DONE]\n\n"),
        (b"200 OK", b"text/event-stream", b"", events + b"data: [DONE]\n\n"),
        (b"200 OK", b"text/event-stream", b"Content-Encoding: gzip\r\n", gzip.compress(whole)),
        (b"200 OK", b"text/event-stream", b"", b"data: " + error + b"\n\n"),
        (b"302 Found", b"text/plain", b"Location: /next?key=%b\r\n" % words, words),
        (b"200 OK", b"application/octet-stream", b"", b"\0\xff" + words),
    ]
    status, kind, headers, body = forms[n % len(forms)]
    named = b"X-Your-Key: %b\r\nSet-Cookie: sid=%b; HttpOnly\r\n%b" % (words, words, headers)
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nConnection: close\r\n%b\r\n%b" % (
        status,
        kind,
        named,
        body,
    )


FORMS = 10


def echoing(upstream: ScriptedUpstream) -> None:
    """Have an upstream say again whatever of a request has a canary in it, a few bytes a time."""
    turns = count()

    async def script(peer: Peer) -> None:
        request = await peer.request()
        upstream.requests.append(request)
        values = [value for _, value in request.headers] + [request.target]
        words = [w for v in values for w in v.replace(b"=", b" ").replace(b"&", b" ").split()]
        said = b" ".join(word.strip(b";,") for word in words if MARK in word)
        answer = says_again(said, next(turns))
        for start in range(0, len(answer), 200):
            await peer.send(answer[start : start + 200])
            await asyncio.sleep(0)

    upstream.script = script


async def everything(one: Watched) -> bytes:
    """Read all that the API and the pages say to an admin of each project."""
    said = []
    for project in ("alpha", "beta", "default"):
        headers = {
            "X-Traceway-Api-Key": one.holders["alpha", "admin"].key,
            "X-Traceway-Project": project,
        }
        base = f"http://127.0.0.1:{one.server.port}"
        async with aiohttp.ClientSession(headers=headers) as client:

            async def get(
                path: str, client: aiohttp.ClientSession = client, base: str = base
            ) -> bytes:
                async with client.get(URL(base + path, encoded=True)) as answer:
                    assert answer.status in (200, 404), path
                    body = await answer.read()
                    said.append(str(dict(answer.headers)).encode() + body)
                    return body

            sessions = orjson.loads(await get("/api/sessions?limit=1000"))["sessions"]
            traces = orjson.loads(await get("/api/traces?limit=1000"))["traces"]
            spans = orjson.loads(await get("/api/spans?limit=1000"))["spans"]
            for path in (
                "health",
                "stats",
                "keys",
                "projects",
                "self",
                "provider-keys",
                "search/suggest?q=model:",
            ):
                await get(f"/api/{path}")
            for path in ("/sessions", "/traces", "/settings", "/sign-in", "/metrics"):
                await get(path)
            for session in sessions:
                name = quote(session["id"], safe="")
                for path in (f"/api/sessions/{name}", f"/sessions/{name}"):
                    await get(path)
                await get(f"/api/sessions/{name}/conversation")
                await get(f"/sessions/{name}?view=timeline")
            for trace in traces:
                await get(f"/api/traces/{trace['id']}")
                await get(f"/traces/{trace['id']}")
                await get(f"/traces/{trace['id']}?view=raw")
            for span in spans:
                for part in ("", "/request", "/response"):
                    await get(f"/api/spans/{span['id']}{part}")
                await get(f"/spans/{span['id']}/curl")
            async with client.get(f"{base}/api/events?since=0") as stream:
                if traces:
                    newest = traces[0]["id"].encode()
                    while newest not in b"".join(said[-50:]):
                        said.append(await stream.content.readany())
    return b"".join(said)


async def found_in(one: Watched) -> dict[str, bytes]:
    """Gather every place in which a key may have been left."""
    said = await everything(one)
    running = b"".join(path.read_bytes() for path in one.folder.iterdir() if path.is_file())
    await one.stop()
    stopped = b"".join(path.read_bytes() for path in one.folder.iterdir() if path.is_file())
    return {"answers": said, "files": running, "files after the end": stopped, "log": one.log}


def leaks(places: Mapping[str, bytes], secrets: Mapping[str, bytes]) -> list[str]:
    """Say which secrets were found where; also where only a canary is left of one."""
    found = []
    for place, data in places.items():
        for name, secret in secrets.items():
            at = data.find(secret)
            if at >= 0:
                found.append(f"{name} in {place}: {data[max(0, at - 80) : at + 80]!r}")
        if MARK in data and not found:
            at = data.find(MARK)
            found.append(f"a canary in {place}: {data[max(0, at - 80) : at + 80]!r}")
    return found


# Each gives a query or path, and lines of a head, for a provider's key.
PLACES = {
    "a bearer": lambda key: (b"", b"Authorization: Bearer %b\r\n" % key),
    "no scheme": lambda key: (b"", b"authorization: %b\r\n" % key),
    "api-key": lambda key: (b"", b"api-key: %b\r\n" % key),
    "x-api-key": lambda key: (b"", b"X-API-Key: %b\r\n" % key),
    "x-goog-api-key": lambda key: (b"", b"x-goog-api-key: %b\r\n" % key),
    "subscription": lambda key: (b"", b"Ocp-Apim-Subscription-Key: %b\r\n" % key),
    "ephemeral": lambda key: (b"", b"OpenAI-Ephemeral-User-Token: %b\r\n" % key),
    "basic": lambda key: (b"", b"Authorization: Basic %b\r\n" % b64encode(b"user:" + key)),
    "a proxy's": lambda key: (b"", b"Proxy-Authorization: Bearer %b\r\n" % key),
    "cookies": lambda key: (b"", b"Cookie: a=b; session=%b; c=d\r\n" % key),
    "another tool's": lambda key: (b"", b"Helicone-Auth: Bearer %b\r\n" % key),
    "a third one's": lambda key: (b"", b"x-portkey-api-key: %b\r\n" % key),
    "a security token": lambda key: (b"", b"X-Amz-Security-Token: %b\r\n" % key),
    "a header of any name": lambda key: (b"", b"X-Whatever: it is %b, see\r\n" % key),
    "baggage": lambda key: (b"", b"baggage: user=1,key=%b;p=1\r\n" % key),
    "tracestate": lambda key: (b"", b"tracestate: vendor=%b\r\n" % key),
    "a traceparent": lambda key: (b"", b"traceparent: %b\r\n" % key),
    "the session's id": lambda key: (
        b"",
        b"Authorization: Bearer %b\r\nX-Traceway-Session-Id: %b\r\n" % (key, key),
    ),
    "the session's id alone": lambda key: (b"", b"X-Traceway-Session-Id: %b\r\n" % key),
    "another session header": lambda key: (b"", b"x-session-id: %b\r\n" % key),
    "a subprotocol": lambda key: (
        b"",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.%b\r\n" % key,
    ),
    "a referer": lambda key: (b"", b"Referer: https://app.example/?key=%b\r\n" % key),
    "?key=": lambda key: (b"?key=%b" % key, b""),
    "?api_key=": lambda key: (b"?a=b&api_key=%b&c=d" % key, b""),
    "?token=": lambda key: (b"?TOKEN=%b" % key, b""),
    "?key= encoded": lambda key: (b"?%%6Bey=%b" % key.replace(b"-", b"%2D"), b""),
    "a query of any name": lambda key: (b"?q=%b" % key, b""),
    "a path": lambda key: (b"/%b/x" % key, b""),
    "a path, encoded": lambda key: (b"/%b" % key.replace(b"-", b"%2d"), b""),
    "a header beyond bounds": lambda key: (b"", b"%b: %b\r\n" % (b"x" * 70, key)),
    "a folded one": lambda key: (b"", b"Authorization: Bearer\t%b\r\n" % key),
}


async def test_a_providers_key_is_left_nowhere(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    echoing(upstream)
    secrets = {}
    async with watched(tmp_path, upstream) as one:
        ours = one.holders["alpha", "write"].header
        for name, place in PLACES.items():
            for n in range(FORMS):
                key = secrets[f"{name} ({n})"] = provider_key()
                more, headers = place(key)
                if "basic" in name:
                    secrets[f"{name} encoded ({n})"] = b64encode(b"user:" + key)
                body = b'{"model":"m","messages":[{"role":"user","content":"it is %b"}]}' % key
                target = CHAT.encode() + more
                json = b"Content-Type: application/json\r\n"
                got = await one.call(target, headers + ours + json, body)
                assert got.status in (200, 302, 401, 500, 501), (name, got)
        assert len(upstream.requests) > 200
        places = await found_in(one)
        assert len(places["answers"]) > 1_000_000
    assert leaks(places, secrets) == []


async def test_a_projects_own_key_is_left_nowhere(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    echoing(upstream)
    key = provider_key()
    environ = {"TRACEWAY_PROVIDER_KEY_OPENAI": key.decode()}
    async with watched(tmp_path, upstream, environ=environ) as one:
        for line in (b"Authorization: Bearer %b\r\n", b"api-key: %b\r\n", b"x-api-key: %b\r\n"):
            for _ in range(FORMS):
                ours = line % one.holders["beta", "write"].key.encode()
                got = await one.call(CHAT.encode(), ours, b'{"messages":[]}')
                assert key not in got.head + got.body
                assert MARK not in got.body
                assert key in upstream.requests[-1].head
                assert b"tw_sk_" not in upstream.requests[-1].head
        one.upstream.script = refuse
        await one.call(CHAT.encode(), one.holders["beta", "write"].bearer, b"{}")
        places = await found_in(one)
    secrets = {"the project's": key}
    secrets |= {str(who): holder.key.encode() for who, holder in one.holders.items()}
    assert leaks(places, secrets) == []


async def test_a_stored_key_is_left_nowhere_but_sealed(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    echoing(upstream)
    secrets = {}
    async with watched(tmp_path, upstream) as one:
        admin = one.holders["alpha", "admin"]
        for _ in range(2):
            key = secrets[f"stored {len(secrets)}"] = provider_key()
            body = orjson.dumps({"key": key.decode()})
            got = await one.call(b"/api/provider-keys/openai", admin.header, body, b"PUT")
            assert got.status == 200, got
            assert key not in got.body
            got = await one.call(CHAT.encode(), admin.bearer, b'{"messages":[]}')
            assert key in upstream.requests[-1].head
            assert key not in got.head + got.body
        got = await one.call(b"/api/provider-keys/openai", admin.header, method=b"DELETE")
        assert got.status == 200
        places = await found_in(one)
    assert leaks(places, secrets) == []


async def refuse(peer: Peer) -> None:
    """Answer with what is no HTTP, with whatever came in it."""
    request = await peer.request()
    await peer.send(b"HTTP/9.9 %b\r\n%b\r\n\r\n" % (request.head[:200], request.head))


async def test_a_key_of_ours_is_left_nowhere(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Right ones and wrong ones; in heads, in bodies, and in answers that say them."""
    echoing(upstream)
    async with watched(tmp_path, upstream) as one:
        secrets = {str(who): holder.key.encode() for who, holder in one.holders.items()}
        secrets |= {f"{who} cookie": holder.cookie.encode() for who, holder in one.holders.items()}
        right = one.holders["alpha", "write"]

        async def send(name: str, key: bytes) -> None:
            more, headers = PLACES[name](key)
            body = b'{"model":"m","messages":[{"role":"user","content":"it is %b"}]}' % key
            for ours in (b"", right.header):
                got = await one.call(CHAT.encode() + more, headers + ours, body)
                said = got.head + got.body
                assert key not in said or got.get(b"X-Traceway-Error") is None, (name, got)
                asked = await one.call(b"/api/sessions" + more, headers, method=b"GET")
                assert key not in asked.head + asked.body

        async with asyncio.TaskGroup() as at_once:  # the answers to wrong keys wait
            for name in PLACES:
                for key in (our_key(), right.key.encode()):
                    secrets[f"{name} {len(secrets)}"] = key
                    at_once.create_task(send(name, key))
        for request in upstream.requests:
            assert b"tw_sk_" not in request.head
        places = await found_in(one)
    assert leaks(places, secrets) == []


async def test_a_key_in_what_is_refused_is_said_nowhere(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Wrong fields, parameters, paths, methods and malformed requests, with and without a key."""
    upstream.script = refuse
    secrets = {}
    async with watched(tmp_path, upstream) as one:
        admin = one.holders["alpha", "admin"]
        write = one.holders["alpha", "write"]
        for make in (provider_key, our_key):
            for ours in (b"", admin.header):
                key = make()
                secrets[f"refused {len(secrets)}"] = key
                answers = [
                    await one.call(
                        path.replace(b"KEY", key),
                        headers.replace(b"KEY", key) + ours,
                        body.replace(b"KEY", key),
                        method,
                    )
                    for method, path, headers, body in REFUSED
                ]
                for got, (method, path, *_) in zip(answers, REFUSED, strict=True):
                    assert 300 <= got.status < 600, (method, path, got)
                    assert key not in got.head + got.body, (method, path)
        for headers in (write.header + b"Authorization: Bearer KEY\r\n", write.bearer):
            key = provider_key()
            secrets[f"failed {len(secrets)}"] = key
            got = await one.call(CHAT.encode(), headers.replace(b"KEY", key), b"{}")
            assert got.status in (502, 422)
            assert key not in got.head + got.body
        for line in MALFORMED:
            key = provider_key()
            secrets[f"malformed {len(secrets)}"] = key
            async with connect(one.server.port) as peer:
                await peer.send(line.replace(b"KEY", key) + b"\r\nConnection: close\r\n\r\n")
                assert (await peer.reader.read()).startswith(b"HTTP/1.")
        places = await found_in(one)
    assert leaks(places, secrets) == []


FORM = (
    b"Sec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Accept: text/html\r\n"
)
REFUSED = [
    (b"POST", b"/api/keys", b"", b'{"name":"a","scope":"KEY"}'),
    (b"POST", b"/api/keys", b"", b'{"name":"a","scope":"\'KEY"}'),
    (b"POST", b"/api/keys", b"", b'{"name":"a","scope":"read","key":"KEY"}'),
    (b"POST", b"/api/keys", b"", b'{"name":"a","scope":"read","KEY":1}'),
    (b"POST", b"/api/keys", b"", b'{"name":["KEY"],"scope":"read"}'),
    (b"POST", b"/api/keys", b"", b'{"name":"a","scope":"read","project":"KEY"}'),
    (b"POST", b"/api/keys", b"", b"KEY"),
    (b"POST", b"/api/projects", b"", b'{"name":"-KEY"}'),
    (b"PATCH", b"/api/projects/KEY", b"", b'{"name":"a"}'),
    (b"DELETE", b"/api/keys/KEY", b"", b""),
    (b"PUT", b"/api/provider-keys", b"", b'{"key":"KEY"}'),
    (b"POST", b"/sign-in", b"Content-Type: application/x-www-form-urlencoded\r\n", b"key=KEY&x=1"),
    (b"POST", b"/sign-in", FORM, b"key=KEY"),
    (b"POST", b"/sign-in", FORM, b"key=KEY&to=/KEY"),
    (b"POST", b"/sign-in?key=KEY", FORM, b""),
    (b"POST", b"/settings/keys", FORM, b"name=a&scope=KEY"),
    (b"PUT", b"/api/provider-keys/KEY", b"", b'{"key":"x"}'),
    (b"PUT", b"/api/provider-keys/openai", b"", b'{"KEY":"x"}'),
    (b"PUT", b"/api/provider-keys/openai", b"", b'{"key":["KEY"]}'),
    (b"PUT", b"/api/provider-keys/openai", b"", b'{"key":"KEY\\n"}'),
    (b"GET", b"/api/nowhere/KEY", b"", b""),
    (b"KEY", b"/api/sessions", b"", b""),
    (b"GET", b"/api/sessions/KEY", b"", b""),
    (b"GET", b"/api/sessions?limit=KEY", b"", b""),
    (b"GET", b"/api/sessions?sort_by=KEY", b"", b""),
    (b"GET", b"/api/sessions?cursor=KEY", b"", b""),
    (b"GET", b"/api/sessions?q=cost:KEY", b"", b""),
    (b"GET", b"/api/events?kind=KEY", b"", b""),
    (b"GET", b"/api/events?since=KEY", b"", b""),
    (b"GET", b"/api/events?token=KEY&since=x", b"", b""),
    (b"GET", b"/api/sessions", b"X-Traceway-Project: KEY\r\n", b""),
    (b"GET", b"/api/sessions", b"Origin: https://KEY\r\n", b""),
    (b"POST", b"/api/proxy/KEY/v1/chat/completions", b"", b"{}"),
    (b"POST", b"/api/proxy/openai/v1/x/../KEY", b"", b"{}"),
    (b"POST", b"/api/proxy/openai/v1", b"X-Traceway-Capture: KEY\r\n", b"{}"),
    (b"GET", b"/nowhere/KEY", b"", b""),
    (b"GET", b"/static/KEY/x.js", b"", b""),
]
MALFORMED = [
    b"GET /api/sessions?key=KEY HTP/1.1\r\nHost: localhost",
    b"GET /api/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer KEY\x01",
    b"GET /api/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization Bearer KEY",
    b"KEY",
    b"POST /api/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: KEY",
    b"POST /api/keys HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: KEY",
    b"GET http://KEY@localhost/ HTTP/1.1\r\nHost: localhost",
    b"CONNECT KEY:443 HTTP/1.1\r\nHost: localhost",
]


def test_a_canary_is_found_where_it_is() -> None:
    key = provider_key()
    assert leaks({"log": b"it is " + key}, {"a": key}) != []
    assert leaks({"log": b"it is " + MARK}, {"a": key}) != []
    assert leaks({"log": b"it is not"}, {"a": key}) == []


@pytest.mark.parametrize("variable", ["TRACEWAY_PROVIDER_KEY_OPENAI", "TRACEWAY_API_KEY"])
async def test_a_key_in_the_environment_is_not_printed(
    tmp_path: Path, upstream: ScriptedUpstream, variable: str
) -> None:
    key = provider_key()
    async with watched(tmp_path, upstream, environ={variable: key.decode()}) as one:
        assert leaks(await found_in(one), {"environment": key}) == []
