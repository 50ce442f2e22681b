"""Asking a server: what it answers, that nobody does, that somebody else does; its events."""

import socket

import aiohttp
import pytest

from proxy import operator_socket
from proxy.api.keys import MadeKeyView, ProjectView, SelfView
from proxy.api.span_views import SpanView
from proxy.api.views import SessionView
from proxy.cli import client as client_module
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


async def test_a_change_is_made_and_its_answer_read(tw: Running) -> None:
    async with Client(tw.url) as client:
        made = await client.send("POST", "/api/projects", {"name": "b"})
        changed = await client.send("PATCH", "/api/projects/b", {"name": "c"})
    assert client.decode(ProjectView, made).name == "b"
    assert client.decode(ProjectView, changed).name == "c"


async def test_it_is_asked_with_a_key_in_a_project_or_by_a_socket(tw: Running) -> None:
    path = operator_socket.path_of(tw.config.database.path)
    async with Client(socket=path) as operator:
        await operator.send("POST", "/api/projects", {"name": "b"})
        asked = {"name": "x", "scope": "admin", "project": "b"}
        key = operator.decode(MadeKeyView, await operator.send("POST", "/api/keys", asked)).key
    assert await whoami(Client(tw.url, key=key)) == ("b", "admin")
    assert await whoami(Client(tw.url, key=key, project="default")) == ("default", "admin")
    assert await whoami(Client(socket=path)) == ("default", "admin")
    assert await whoami(Client(socket=path, project="b")) == ("b", "admin")


async def whoami(client: Client) -> tuple[str, str]:
    async with client:
        found = await client.read(SelfView, "/api/self", {})
        return found.project, found.scope


async def test_what_programs_are_told_is_said_so_that_a_person_knows_what_to_do(
    tw: Running,
) -> None:
    with pytest.raises(Refused) as unknown:
        await whoami(Client(tw.url, project="nobody"))
    async with Client(tw.url) as client:
        await client.send("POST", "/api/keys", {"name": "x", "scope": "read"})
    with pytest.raises(Refused) as keyless:
        await whoami(Client(tw.url))
    with pytest.raises(Refused) as wrong:
        await whoami(Client(tw.url, key="tw_sk_canary"))
    assert "`traceway projects create nobody` makes it" in str(unknown.value)
    assert "put one into TRACEWAY_API_KEY" in str(keyless.value)
    assert "it is wrong, or it was revoked" in str(wrong.value)
    assert "canary" not in str(wrong.value)


async def test_a_change_of_which_nothing_is_heard_is_not_said_to_have_failed(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async def cut(peer: Peer) -> None:
        await peer.request()
        peer.cut()

    monkeypatch.setattr(client_module, "CHANGING", aiohttp.ClientTimeout(total=0.1))
    for script in (silent, cut):
        upstream.script = script
        async with Client(upstream.url) as client:
            with pytest.raises(NoAnswer, match="did not say whether it is done"):
                await client.send("POST", "/api/keys", {"name": "x", "scope": "read"})
    assert upstream.connections == 2


async def test_a_server_that_is_silent_is_said_to_be_so(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    upstream.script = silent
    monkeypatch.setattr(client_module, "_ASKING", aiohttp.ClientTimeout(total=0.1))
    async with Client(upstream.url) as client:
        with pytest.raises(NoAnswer, match=r"no server answers at \S+ \(no answer\): start it"):
            await client.get("/api/self", {})


async def test_nothing_shows_the_key(tw: Running) -> None:
    client = Client(tw.url, key="tw_sk_canary")
    assert "canary" not in repr(client)
