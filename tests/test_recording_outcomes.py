"""Every way in which a call can end leaves one row, ended, with who ended it and in which phase.

None stays `running`, and nothing of it stays in memory.
"""

import asyncio
import contextlib
import gzip
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest

from proxy.send import Sender
from tests.calling import ANSWER, DONE, delta
from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Peer, ScriptedUpstream, connect

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
ASKED = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


Asked = asyncio.Event  # set when the upstream has the request
Server = Callable[[Peer, Asked], Awaitable[None]]
Client = Callable[[Running, Asked], Awaitable[None]]

# What an upstream does.


def says(*pieces: bytes, then: str = "closes") -> Server:
    """Answer with these bytes, then close, reset, or say nothing more."""

    async def script(peer: Peer, asked: Asked) -> None:
        await peer.request()
        asked.set()
        for piece in pieces:
            await peer.send(piece)
        if then == "is silent":
            await peer.gone()
        elif then == "resets":
            peer.cut()

    return script


async def answers_early(peer: Peer, _: Asked) -> None:
    await peer.head()
    await peer.send(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    await peer.gone()


async def only_listens(peer: Peer, asked: Asked) -> None:
    await peer.head()
    asked.set()
    await peer.gone()


# What a client does.


async def waits(tw: Running, _: Asked) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await tw.raw(headers=b"Content-Type: application/json\r\n", body=ASKED)


def sends(head: bytes, body: bytes = b"", *, until: bytes | None = None) -> Client:
    """Send a head and a body, and leave when `until` came.

    b"" is when the upstream has the request, None when the answer is whole or cut.
    """

    async def client(tw: Running, asked: Asked) -> None:
        async with connect(tw.port) as peer:
            await peer.send(head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body)
            if until == b"":
                await asked.wait()
            if until is None:
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                    await peer.response(head_only=head.startswith(b"HEAD"))
            elif until:
                await peer.reader.readuntil(until)

    return client


POST = b"POST %b HTTP/1.1\nHost: 127.0.0.1\nContent-Type: application/json" % CHAT.encode()
WHOLE = POST + b"\nContent-Length: %d" % len(ASKED)
HALF = POST + b"\nContent-Length: 1000"


@dataclass
class Outcome:
    """What the two sides do, and what the row then says."""

    state: str
    ended_by: str
    phase: str
    upstream: Server | None = None
    client: Client = waits
    settings: Mapping[str, str] = field(default_factory=dict)
    durabilities: tuple[str, ...] = ("safe", "strict")


SHORT = {"upstreams.openai.headers_timeout_s": "0.1", "upstreams.openai.idle_timeout_s": "0.1"}
HEAD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
UP, CLIENT, PROXY = "upstream", "client", "proxy"

OUTCOMES: dict[str, Outcome] = {
    "a whole answer": Outcome("completed", UP, "body", says(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))),
    "an answer that ends with its connection": Outcome("completed", UP, "body", says(
        b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER)),
    "no content": Outcome("completed", UP, "body", says(b"HTTP/1.1 204 No\r\n\r\n")),
    "only a head": Outcome("completed", UP, "body", says(HEAD_OK), sends(
        b"HEAD /api/proxy/openai/v1/x HTTP/1.1\nHost: 127.0.0.1")),
    "a whole stream": Outcome("completed", UP, "body", says(
        SSE + chunk(delta("hi")) + chunk(DONE) + b"0\r\n\r\n")),
    "a whole stream whose client left at its own end": Outcome("completed", CLIENT, "body", says(
        SSE + chunk(delta("hi")) + chunk(DONE), then="is silent"),
        sends(WHOLE, ASKED, until=b"[DONE]"), durabilities=("safe", "fast")),
    "an error": Outcome("failed", UP, "body", says(
        b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}")),
    "a redirect": Outcome("failed", UP, "body", says(
        b"HTTP/1.1 302 There\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")),
    "an error event": Outcome("failed", UP, "body", says(
        SSE + chunk(b'data: {"error":{"message":"no"}}\n\n') + b"0\r\n\r\n")),
    "an early error": Outcome("failed", UP, "body", answers_early, sends(HALF, b"{")),
    "a stream without its end": Outcome("truncated", UP, "body", says(
        SSE + chunk(delta("hi")) + b"0\r\n\r\n")),
    "a stream that is closed": Outcome("truncated", UP, "body", says(SSE + chunk(delta("hi")))),
    "a stream that is reset": Outcome("truncated", UP, "body", says(
        SSE + chunk(delta("hi")), then="resets")),
    "a stream with a broken chunk": Outcome("truncated", UP, "body", says(SSE, b"zz\r\n")),
    "a stream that falls silent": Outcome("truncated", UP, "body", says(
        SSE + chunk(delta("hi")), then="is silent"), settings=SHORT),
    "a body that is closed": Outcome("truncated", UP, "body", says(LONG, b"{")),
    "a body that is reset": Outcome("truncated", UP, "body", says(LONG, b"{", then="resets")),
    "a body that falls silent": Outcome("truncated", UP, "body", says(
        LONG, b"{", then="is silent"), settings=SHORT),
    "closed without an answer": Outcome("failed", UP, "headers", says()),
    "reset without an answer": Outcome("failed", UP, "headers", says(then="resets")),
    "garbage for an answer": Outcome("failed", UP, "headers", says(b"\x00\x01\x02\r\n\r\n")),
    "a second framing": Outcome("failed", UP, "headers", says(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}")),
    "silence": Outcome("failed", UP, "headers", says(then="is silent"), settings=SHORT),
    "nobody there": Outcome("failed", UP, "connect", settings={
        "upstreams.openai.url": "http://127.0.0.1:1"}),
    "no such upstream": Outcome("failed", PROXY, "request", None, sends(
        WHOLE.replace(b"openai", b"nobody"), ASKED)),
    "an upgrade": Outcome("failed", PROXY, "request", None, sends(
        b"GET /api/proxy/openai/v1/realtime HTTP/1.1\nHost: 127.0.0.1\n"
        b"Connection: Upgrade\nUpgrade: websocket")),
    "a request that is too large": Outcome("failed", CLIENT, "request", None, settings={
        "server.max_request_bytes": "10"}),
    "a request that grows too large": Outcome("failed", CLIENT, "request", only_listens, sends(
        POST.replace(CHAT.encode(), b"/api/proxy/openai/v1/files")
        + b"\nTransfer-Encoding: chunked", chunk(b"x" * 8) + chunk(b"x" * 8)),
        settings={"server.max_request_bytes": "10"}),
    "a client that leaves before the answer": Outcome(
        "cancelled", CLIENT, "headers", says(then="is silent"), sends(WHOLE, ASKED, until=b"")),
    "a client that leaves in its request": Outcome(
        "cancelled", CLIENT, "request", only_listens, sends(
            HALF.replace(CHAT.encode(), b"/api/proxy/openai/v1/files"), b"{", until=b"")),
    "a client that leaves in a stream": Outcome("cancelled", CLIENT, "body", says(
        SSE + chunk(delta("hi")), then="is silent"), sends(WHOLE, ASKED, until=b"hi")),
    "a client that leaves in a body": Outcome("cancelled", CLIENT, "body", says(
        LONG, b"{", then="is silent"), sends(WHOLE, ASKED, until=b"{")),
    "a bomb": Outcome("completed", UP, "body", says(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\n",
        gzip.compress(b"\n" * (8 << 20)))),
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "durability"),
    [(what, durability) for what in OUTCOMES for durability in OUTCOMES[what].durabilities],
)
async def test_each_outcome_leaves_one_ended_row(
    serve: Serve, upstream: ScriptedUpstream, what: str, durability: str
) -> None:
    outcome = OUTCOMES[what]
    asked = asyncio.Event()
    tw = await serve(
        {
            "upstreams.openai.inject_usage": "never",
            **outcome.settings,
            "recording.durability": durability,
        }
    )
    if (server := outcome.upstream) is not None:
        upstream.script = lambda peer: server(peer, asked)

    await outcome.client(tw, asked)

    span = await tw.ended()
    status = span["status"]
    state = status if isinstance(status, str) else next(iter(status))
    assert state == outcome.state
    if state != "completed":
        assert status[state]["error"]
        assert (status[state]["ended_by"], status[state]["phase"]) == (
            outcome.ended_by,
            outcome.phase,
        )
    assert span["ended_at"] is not None
    assert (await tw.api("/api/stats"))["running_span_count"] == 0
    health = await tw.api("/api/health")
    assert (health["held_bytes"], health["queued_bytes"], health["calls_in_flight"]) == (0, 0, 0)


@pytest.mark.parametrize("what", ["a stream", "a silence"])
async def test_a_server_that_stops_ends_the_calls_that_it_cuts(
    tw: Running, upstream: ScriptedUpstream, what: str
) -> None:
    begun = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if what == "a stream":
            await peer.send(SSE + chunk(delta("hi")))
        begun.set()
        await peer.gone()

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(WHOLE.replace(b"\n", b"\r\n") + b"\r\n\r\n" + ASKED)
        await begun.wait()
        if what == "a stream":
            await client.reader.readuntil(b"hi")
        await tw.server.stop(0, asyncio.Event())
    rows = await tw.database.read("SELECT state, ended_by, phase FROM spans", {})
    assert rows == [("interrupted", "proxy", "body" if what == "a stream" else "headers")]


async def test_a_bug_of_ours_ends_its_call_too(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Sender, "send", fail)
    await waits(tw, asyncio.Event())
    status = (await tw.ended())["status"]
    assert status["failed"]["ended_by"] == "proxy"
