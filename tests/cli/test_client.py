"""Asking a server: what it answers, that nobody does, that somebody else does; its events."""

import socket

import pytest

from proxy.api.span_views import SpanView
from proxy.api.views import SessionView
from proxy.cli.client import Client, NoAnswer, Refused, Told
from tests.api.asking import ask, save
from tests.running import Running
from tests.storage.calls import end, start
from tests.wire import Peer, ScriptedUpstream


async def test_an_answer_is_read_as_the_api_means_it(tw: Running) -> None:
    await save(tw, end(start(1, session_id="a/b?&=%20 ü")))
    async with Client(f"{tw.url}/") as client:
        path, asked = "/api/sessions/by-id", {"id": "a/b?&=%20 ü", "cursor": None}
        session = await client.read(SessionView, path, asked)
        span = await client.read(SpanView, f"/api/spans/{1:016x}", {})
    assert (session.id, session.total_tokens, session.cost) == ("a/b?&=%20 ü", 15, 1e-7)
    assert (span.status, span.metadata.duration_ms) == ("completed", 500)
    whole = (await ask(tw, f"/api/spans/{1:016x}")).body
    assert (span.kind.model, span.started_at) == (whole["kind"]["model"], whole["started_at"])


async def test_a_refusal_says_what_the_server_says_and_where_a_query_is_wrong(tw: Running) -> None:
    async with Client(tw.url) as client:
        with pytest.raises(Refused) as wrong:
            await client.get("/api/sessions", {"q": "cost:>1 modell:x"})
        with pytest.raises(Refused) as missing:
            await client.get("/api/sessions/nobody", {})
    assert (wrong.value.status, wrong.value.position) == (400, 8)
    assert str(wrong.value).startswith("expected one of the keys session, ")
    assert (missing.value.status, missing.value.position) == (404, None)
    assert str(missing.value) == "there is no such session"


async def test_where_nobody_listens_it_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with Client(url) as client:
        with pytest.raises(NoAnswer) as nobody:
            await client.get("/api/sessions", {})
        with pytest.raises(NoAnswer) as no_events:
            await anext(client.follow(None, {}))
    assert str(nobody.value) == str(no_events.value)
    assert str(nobody.value) == (
        f"no server answers at {url}: start it with `traceway serve`, or say with --url where it is"
    )


@pytest.mark.parametrize(
    ("body", "how"),
    [
        (b"<html>", {"content_type": b"text/html"}),
        (b"<html>", {"content_type": b"application/json"}),
        (b'{"error":"no"}', {"status": b"401 Unauthorized"}),
        (b"{}", {}),
        (b'{"id":5}', {}),
        (b"\xff", {"status": b"500 Oh"}),
    ],
)
async def test_what_is_another_server_is_told_from_ours(
    upstream: ScriptedUpstream, body: bytes, how: dict[str, bytes]
) -> None:
    upstream.answers(body, **how)
    async with Client(upstream.url) as client:
        with pytest.raises(NoAnswer, match=r"is not (a )?Traceway"):
            await client.read(SessionView, "/api/sessions/x", {})


async def test_an_answer_that_breaks_off_is_none(upstream: ScriptedUpstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        await peer.send(head + b"{")
        peer.cut()

    upstream.script = script
    async with Client(upstream.url) as client:
        with pytest.raises(NoAnswer, match="no server answers"):
            await client.get("/api/sessions", {})


async def events(url: str, since: int | None, count: int) -> list[Told]:
    """Read until so many events have come."""
    told: list[Told] = []
    async with Client(url) as client:
        async for one in client.follow(since, {}):
            told.append(one)
            if sum(len(some.events) for some in told) >= count:
                break
    return told


async def test_events_come_with_the_number_to_go_on_from(tw: Running) -> None:
    await save(tw, end(start(1, session_id="s")))
    told = await events(tw.url, 0, 4)
    found = [event for one in told for event in one.events]
    assert {event.type for event in found} == {
        *("trace_created", "span_created", "span_completed", "session_updated")
    }
    numbers = [event.number for event in found]
    assert told[-1].position == numbers[-1]
    (ended,) = [event for event in found if event.type == "span_completed"]
    assert (ended.trace_id, ended.span_id) == (f"{1:032x}", f"{1:016x}")
    assert (ended.session_id, ended.status) == ("s", "completed")

    await save(tw, start(2))
    behind = await events(tw.url, numbers[-1], 1)
    assert behind[-1].events[0].number == (numbers[-1] or 0) + 1


async def test_events_cut_anywhere_are_read_as_one(upstream: ScriptedUpstream) -> None:
    frames = b'retry: 1000\nid: 7\n\n: heartbeat\nid: 9\n\nid: 10\ndata: {"type":"x"}\n\n'
    frames += b'data: {"type":"resync"}\n\n'

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for byte in frames:
            await peer.send(b"1\r\n%c\r\n" % byte)
        await peer.send(b"0\r\n\r\n")

    upstream.script = script
    async with Client(upstream.url) as client:
        told = [one async for one in client.follow(3, {})]
    assert [(e.number, e.type) for one in told for e in one.events] == [(10, "x"), (None, "resync")]
    assert {one.position for one in told} <= {3, 7, 9, 10}
    assert told[-1].position == 10
