"""GET /api/events, on real sockets: what comes, to whom, and what becomes of who does not read."""

import asyncio
import random
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.api.frames import PAGE_BYTES
from storage import events, forget
from storage.records import SpanEnd
from tests.api.asking import ask, save
from tests.api.watching import Watching, kinds, watch
from tests.calling import ANSWER
from tests.running import Running, running
from tests.storage.calls import end, spoken, start, text_of, trace_id
from tests.wire import ScriptedUpstream, connect

SESSION = b"X-Traceway-Session-Id: s\r\n"


async def test_a_call_is_told_as_it_begins_and_as_it_ends(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    async with watch(tw) as watching:
        await tw.raw(headers=SESSION, body=b'{"model":"gpt-4o-mini"}')
        told = await watching.until("span_completed")
        told += await watching.until("session_updated")
    session = (await tw.api("/api/sessions/s")) | {}
    (trace,) = session.pop("traces")
    assert session.pop("budget") is None
    ids = {"trace_id": trace["id"], "session_id": "s"}
    assert told[0]["type"] == "trace_created"
    span = next(event for event in told if event["type"] == "span_completed")
    assert span == {
        "type": "span_completed",
        **ids,
        "span_id": span["span_id"],
        "at": span["at"],
        "model": "gpt-4o-mini-2024-07-18",
        "status": "completed",
    }
    assert told[-1] == {
        "type": "session_updated",
        "session_id": "s",
        "at": told[-1]["at"],
        "session": session,
    }
    newest = [event for event in told if event["type"] in ("trace_created", "trace_updated")][-1]
    assert newest == {"type": newest["type"], **ids, "at": newest["at"], "trace": trace}
    assert session["started_at"] <= told[0]["at"] <= told[-1]["at"]


async def test_the_answer_says_that_it_is_a_stream_that_nobody_keeps(tw: Running) -> None:
    async with watch(tw) as watching:
        assert watching.head.get(b"Content-Type") == b"text/event-stream"
        assert watching.head.get(b"Cache-Control") == b"no-store"
        assert watching.head.get(b"X-Accel-Buffering") == b"no"
        assert watching.head.get(b"X-Content-Type-Options") == b"nosniff"
    async with tw.client.head(tw.url + "/api/events") as answer:
        assert answer.status == 405


async def test_without_since_it_begins_now_and_says_where_that_is(tw: Running) -> None:
    await save(tw, end(start(1)))
    async with watch(tw) as watching:
        assert watching.position == "3"
    await save(tw, start(2))
    async with watch(tw, last_event_id=watching.position) as again:
        assert kinds(await again.events(2)) == ["trace_created", "span_created"]
        assert again.position == "5"


async def test_a_browsers_last_event_id_wins_over_since(tw: Running) -> None:
    await save(tw, *(start(n) for n in range(1, 4)))
    async with watch(tw, "since=0") as watching:
        assert watching.position == "0"
        assert len(await watching.events(6)) == 6
    async with watch(tw, "since=0", last_event_id="4") as watching:
        assert (await watching.event())["trace_id"] == trace_id(3).hex()
    async with watch(tw, "since=4", last_event_id="") as watching:
        assert (await watching.event())["trace_id"] == trace_id(3).hex()


@pytest.mark.parametrize("seed", range(3))
async def test_who_comes_again_gets_every_event_once_and_ends_with_the_rows_of_the_api(
    tw: Running, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 (a test's choices)
    changes = spawn_changes(tw, chance)
    numbers: list[int] = []
    sessions: dict[str, Any] = {}
    traces: dict[str, Any] = {}
    position = "0"
    writing = asyncio.ensure_future(changes)
    while not writing.done() or (await newest(tw)) > int(position):
        async with watch(tw, last_event_id=position) as watching:
            for _ in range(chance.randrange(25)):
                if writing.done() and (await newest(tw)) == int(position):
                    break
                event = await watching.event()
                position = watching.position
                numbers.append(int(position))
                take(event, sessions, traces)
            watching.peer.cut()
    await writing
    assert numbers == list(range(1, await newest(tw) + 1))
    found = (await ask(tw, "/api/sessions?limit=1000")).body["sessions"]
    assert sessions == {session["id"]: session for session in found}
    found = (await ask(tw, "/api/traces?limit=1000")).body["traces"]
    assert traces == {trace["id"]: trace for trace in found}
    assert traces
    assert "auto_" in "".join(sessions)


async def spawn_changes(tw: Running, chance: random.Random) -> None:
    """Make calls begin, end and go on, and delete some, in random order and batches."""
    running_calls = []
    for n in range(1, 60):
        kind = chance.choice(["start", "start", "end", "talk", "delete", "batch"])
        session = chance.choice(["a", "b", "ü/c", None])
        named = {"session_id": session} if session else {}
        if kind == "start":
            running_calls.append(start(n, **named))
            await save(tw, running_calls[-1])
        elif kind == "end" and running_calls:
            state = chance.choice(["completed", "failed", "cancelled"])
            await save(tw, end(running_calls.pop(), state=state))
        elif kind == "talk":
            said = [f"u:{n}"]
            await save(tw, spoken(start(1000 + 2 * n), said, ["a:yes"]))
            await save(tw, spoken(start(1001 + 2 * n), [*said, "a:yes", "u:so"], ["a:no"]))
        elif kind == "delete":
            gone = partial(
                forget.delete_session, project_id=1, session_id=chance.choice("ab"), text_of=text_of
            )
            await tw.server.recorder.write(gone)
        else:
            ended: list[SpanEnd] = [end(start(5000 + 10 * n + i, **named)) for i in range(5)]
            await save(tw, *ended)


async def newest(tw: Running) -> int:
    return (await events.bounds(tw.database))[1]


def take(event: Any, sessions: dict[str, Any], traces: dict[str, Any]) -> None:
    """Do what a page does with an event."""
    if event["type"] == "session_updated":
        sessions.pop(event["session_id"], None)
        if event["session"] is not None:
            sessions[event["session_id"]] = event["session"]
    elif event["type"] in ("trace_created", "trace_updated"):
        traces.pop(event["trace_id"], None)
        if event["trace"] is not None:
            traces[event["trace_id"]] = event["trace"]
    elif event["type"] == "trace_deleted":
        traces.pop(event["trace_id"], None)


@pytest.mark.sqlite_only("nobody else can have the calls that run")
async def test_events_are_told_again_after_a_restart(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with running(tmp_path, upstream.url) as tw:
        async with watch(tw) as watching:
            await save(tw, start(1, session_id="s"))
            await watching.events(3)
        await save(tw, end(start(2)))
    async with (
        running(tmp_path, upstream.url) as tw,
        watch(tw, last_event_id=watching.position) as again,
    ):
        told = await again.events(6)
    assert kinds(told) == [
        *("trace_created", "span_created", "span_completed"),
        *("span_failed", "trace_updated", "session_updated"),
    ]
    assert told[3]["status"] == "interrupted"
    assert again.position == "9"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        ("session=s", [1, 2, 3, 10, 12, 13]),
        ("session=nobody", []),
        ("kind=trace_created", [1, 4, 7]),
        ("kind=span_failed,session_updated", [6, 10, 11, 13]),
        ("model=other", [4, 5, 6, 10, 11, 12, 13]),
        ("model=gpt-5&kind=session_updated,span_created", [2, 8, 10, 13]),
        ("model=other&session=t", [4, 5, 6, 11]),
    ],
)
async def test_filters_choose_by_session_type_and_model(
    tw: Running, monkeypatch: pytest.MonkeyPatch, query: str, expected: list[int]
) -> None:
    monkeypatch.setattr("proxy.api.hub.HEARTBEAT_S", 0.01)
    await save(
        tw,
        end(start(1, session_id="s")),
        end(start(2, session_id="t"), model="other", state="failed"),
        end(start(3)),
    )
    # What is gone may have been of any model: 10, 12 and 13.
    await tw.server.recorder.write(lambda tx: forget.delete_trace(tx, 1, trace_id(1), text_of))
    chosen = []
    async with watch(tw, f"since=0&{query}") as watching:
        while watching.position != "13":
            fields = await watching.frame()
            chosen += [int(fields["id"])] if "data" in fields else []
    assert chosen == expected


async def test_a_deletion_is_told(tw: Running) -> None:
    await save(tw, *(end(start(n, session_id="s")) for n in (1, 2)))
    async with watch(tw) as watching:
        await ask(tw, f"/api/traces/{trace_id(1).hex()}", "DELETE")
        first, session = await watching.events(2)
        await ask(tw, "/api/sessions/s", "DELETE")
        second, gone = await watching.events(2)
    del first["at"], second["at"]
    for event, n in ((first, 1), (second, 2)):
        assert event == {
            "type": "trace_deleted",
            "trace_id": trace_id(n).hex(),
            "session_id": "s",
        }
    assert (session["session_id"], session["session"]["trace_count"]) == ("s", 1)
    assert (gone["session_id"], gone["session"]) == ("s", None)


async def test_an_inferred_session_is_told_with_the_trace_that_moves_into_it(tw: Running) -> None:
    async with watch(tw) as watching:
        await save(tw, spoken(start(1), ["u:hi"], ["a:hello"]))
        await save(tw, spoken(start(2), ["u:hi", "a:hello", "u:and?"], ["a:yes"]))
        told = await watching.until("session_updated")
    name = f"auto_{trace_id(1).hex()}"
    (moved,) = [event for event in told if event["type"] == "trace_updated"]
    assert (moved["trace_id"], moved["trace"]["session_id"]) == (trace_id(1).hex(), name)
    assert told[-1]["session"]["trace_count"] == 2


@pytest.mark.parametrize("since", ["3", "12", "999999999999999999"])
async def test_who_missed_what_was_pruned_or_comes_from_elsewhere_begins_anew(
    tw: Running, monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    await save(tw, start(1), start(2))
    monkeypatch.setattr(events, "MAX_AGE_US", -1_000_000)
    await tw.server.recorder.write(events.prune)
    monkeypatch.undo()
    await save(tw, start(3))
    async with connect(tw.port) as peer:
        await peer.send(
            f"GET /api/events?since={since} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        watching = Watching(peer, await peer.head())
        assert await watching.event() == {"type": "resync"}
        assert (await watching.frame())["id"] == "6"
        await save(tw, start(4))
        assert (await watching.event())["trace_id"] == trace_id(4).hex()
    async with watch(tw, "since=4") as complete:
        assert (await complete.event())["trace_id"] == trace_id(3).hex()


@pytest.mark.parametrize(
    ("query", "name"),
    [
        *(("since=x", "since"), ("since=-1", "since"), ("since=1.5", "since")),
        *(("since=99999999999999999999", "since"), ("since=%D9%A3", "since")),
        *(("kind=session_updated,nothing", "kind"), ("kind=span_progress", "kind")),
        ("progress=yes", "progress"),
    ],
)
async def test_a_bad_parameter_is_named(tw: Running, query: str, name: str) -> None:
    reply = await ask(tw, f"/api/events?{query}")
    assert reply.error == (400, "bad_parameter")
    assert reply.body["error"]["message"].startswith(f"{name} must be ")


async def test_a_bad_last_event_id_is_named(tw: Running) -> None:
    async with tw.client.get(tw.url + "/api/events", headers={"Last-Event-ID": "x"}) as answer:
        assert answer.status == 400
        assert "Last-Event-ID must be" in await answer.text()


async def test_there_is_a_bound_on_subscribers_and_health_counts_them(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.api.hubs.MAX_SUBSCRIBERS", 2)
    async with watch(tw), watch(tw) as second:
        assert (await ask(tw, "/api/health")).body["event_subscribers"] == 2
        assert (await ask(tw, "/api/events")).error == (503, "too_many_subscribers")
        second.peer.cut()
        async with asyncio.timeout(10):
            await watched_by(tw, 1)
        async with watch(tw) as third:
            await save(tw, start(1))
            assert (await third.event())["type"] == "trace_created"


async def test_a_stop_ends_every_subscription_properly(tw: Running) -> None:
    async with watch(tw) as idle, watch(tw, "progress=1") as watching:
        await save(tw, start(1))
        await watching.events(2)
        await tw.server.stop(60, asyncio.Event())
        assert kinds(await idle.ended()) == ["trace_created", "span_created"]
        assert await watching.ended() == []
        await watching.peer.gone()


@pytest.mark.slow
async def test_200_watch_and_one_that_does_not_read_delays_nobody_and_is_dropped(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.api.events.STALL_S", 0.5)
    text = "x" * 20_000
    n = sent_bytes = most_bytes = 0
    async with AsyncExitStack() as stack, connect(tw.port) as stuck:
        others = [
            await stack.enter_async_context(watch(tw, "kind=span_completed")) for _ in range(200)
        ]
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await stuck.send(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while (
            watching := (await ask(tw, "/api/health")).body["event_subscribers"]
        ) != 200 or not n:
            assert watching in (200, 201)
            calls = [end(start(n + i), input_preview=text) for i in range(20)]
            n += len(calls)
            sent_bytes += len(calls) * len(text)
            await save(tw, *calls)
            for other in others:
                told = await other.events(len(calls))
                assert told[-1]["trace_id"] == trace_id(n - 1).hex()
            most_bytes = max(most_bytes, *buffered(tw))
        stuck.writer.transport.resume_reading()  # type: ignore[attr-defined]
        late = Watching(stuck, await stuck.head())
        async with asyncio.timeout(10):
            assert (await late.ended())[-1] == {"type": "resync"}
    assert 0 < most_bytes <= 4 * PAGE_BYTES < sent_bytes


async def test_who_never_reads_again_is_cut(tw: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.api.events.STALL_S", 0.01)
    monkeypatch.setattr("proxy.api.events.GRACE_S", 0.01)
    async with connect(tw.port) as stuck:
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await stuck.send(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(20):
            await watched_by(tw, 1)
            sockets = transports(tw)
            n = 0
            while (await ask(tw, "/api/health")).body["event_subscribers"]:
                n += 20
                await save(tw, *(end(start(n + i), input_preview="x" * 20_000) for i in range(20)))
            while any(socket.get_write_buffer_size() for socket in sockets):
                await tw.saved()


async def watched_by(tw: Running, subscribers: int) -> None:
    """Wait until so many watch."""
    while (await ask(tw, "/api/health")).body["event_subscribers"] != subscribers:
        pass


def buffered(tw: Running) -> list[int]:
    """Give the bytes that wait in the server for each of its clients."""
    return [transport.get_write_buffer_size() for transport in transports(tw)]


def transports(tw: Running) -> list[asyncio.Transport]:
    """Give the server's connections."""
    runner = tw.server._runner
    assert runner is not None
    assert runner.server is not None
    found = [connection.transport for connection in runner.server.connections]
    return [transport for transport in found if transport is not None]
