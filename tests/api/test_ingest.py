"""The write API as an application sees it: real requests, and what the reads then show."""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.api import ingest
from proxy.api.ingest import CHUNK_BYTES, CHUNK_ITEMS
from storage.database import StatementRefused, StorageError
from tests.api.asking import ask
from tests.api.handing import (
    AT,
    LATER,
    MODEL_CALL,
    MODEL_CALL_USD,
    OTHER,
    SPAN,
    TRACE,
    batch,
    hand_in,
    span,
)
from tests.api.watching import watch
from tests.conftest import Serve
from tests.keyed import Keyed
from tests.running import CHAT, Running, running
from tests.table import app_of
from tests.wire import ScriptedUpstream, connect

UNKNOWN_TRACE = "0" * 31 + "1"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a commit may take as long as a change may wait."""
    monkeypatch.setattr("proxy.recorder.CHANGE_WAIT_S", 30.0)


async def metric(tw: Running, result: str) -> float:
    async with tw.client.get(tw.url + "/metrics") as answer:
        for line in (await answer.text()).splitlines():
            if line.startswith(f'traceway_ingested_spans_total{{result="{result}"}}'):
                return float(line.split()[-1])
    return 0


# One thing at a time.


async def test_a_trace_is_opened_and_ended(tw: Running) -> None:
    opened = {
        "id": TRACE,
        "name": "chat-turn",
        "session_id": "user_1:conv",
        "user_id": "u",
        "tags": ["shop"],
        "started_at": AT,
    }
    made = await hand_in(tw, "/api/traces", opened)
    assert (made.status, made.body) == (
        201,
        {"id": TRACE, "session_id": "user_1:conv", "status": "running", "created": True},
    )
    shown = await tw.api(f"/api/traces/{TRACE}")
    assert (shown["name"], shown["status"]) == ("chat-turn", "running")
    assert (shown["session_id"], shown["session_source"]) == ("user_1:conv", "api")
    assert (shown["user_id"], shown["session_confidence"]) == ("u", "named")

    ended = await hand_in(tw, f"/api/traces/{TRACE}/end", {"ended_at": LATER})
    assert (ended.status, ended.body) == (200, {"id": TRACE, "status": "completed"})
    shown = await tw.api(f"/api/traces/{TRACE}")
    assert (shown["status"], shown["duration_ms"]) == ("completed", 2500)
    assert (await tw.api("/api/sessions/user_1%3Aconv"))["trace_count"] == 1


async def test_without_an_id_one_is_made(tw: Running) -> None:
    trace = await hand_in(tw, "/api/traces", {"name": "a"})
    made = await hand_in(tw, "/api/spans", {"trace_id": trace.body["id"], "name": "b"})
    assert (trace.status, made.status) == (201, 201)
    assert made.body["trace_id"] == trace.body["id"]
    (one,) = (await tw.api(f"/api/traces/{trace.body['id']}"))["spans"]
    assert (one["id"], one["status"]) == (made.body["id"], "running")


async def test_a_span_without_a_trace_has_one_for_itself_the_same_each_time(tw: Running) -> None:
    first = await hand_in(tw, "/api/spans", {"id": SPAN, "session_id": "s"})
    again = await hand_in(tw, "/api/spans", {"id": SPAN, "session_id": "s"})
    assert (first.status, again.status) == (201, 200)
    assert (first.body["created"], again.body["created"]) == (True, False)
    assert first.body["trace_id"] == again.body["trace_id"]
    assert len((await tw.api("/api/traces"))["traces"]) == 1
    assert (await tw.api("/api/sessions/s"))["trace_count"] == 1


async def test_a_span_is_completed_with_what_it_came_to(tw: Running) -> None:
    await hand_in(
        tw,
        "/api/spans",
        {
            "id": SPAN,
            "trace_id": TRACE,
            "name": "search",
            "kind": {"type": "retrieval", "index": "orders"},
            "input": {"query": "88213", "limit": 2.50},
            "metadata": {"host": "a1"},
            "started_at": AT,
        },
    )
    done = await hand_in(
        tw, f"/api/spans/{SPAN}/complete", {"output": ["order 88213"], "ended_at": LATER}
    )
    assert (done.status, done.body) == (
        200,
        {"id": SPAN, "trace_id": TRACE, "status": "completed"},
    )
    shown = await tw.api(f"/api/spans/{SPAN}")
    assert (shown["name"], shown["status"], shown["kind"]["type"]) == (
        "search",
        "completed",
        "retrieval",
    )
    assert shown["input"] == {"query": "88213", "limit": 2.50}
    assert shown["output"] == ["order 88213"]
    assert shown["metadata"]["duration_ms"] == 2500
    async with tw.client.get(f"{tw.url}/api/spans/{SPAN}/request") as answer:
        assert await answer.read() == b'{"query":"88213","limit":2.5}'
        assert answer.headers["X-Traceway-Body"] == "exact"


async def test_a_span_fails_with_its_error(tw: Running) -> None:
    await hand_in(tw, "/api/spans", {"id": SPAN, "trace_id": TRACE, "kind": "tool_call"})
    failed = await hand_in(tw, f"/api/spans/{SPAN}/fail", {"error": "no such order"})
    assert (failed.status, failed.body["status"]) == (200, "failed")
    shown = await tw.api(f"/api/spans/{SPAN}")
    assert shown["status"]["failed"]["error"] == "no such order"
    assert (await tw.api(f"/api/traces/{TRACE}"))["error"] == "no such order"


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "running"),
        ({"status": "running"}, "running"),
        ({"status": "completed"}, "completed"),
        ({"duration_ms": 5}, "completed"),
        ({"ended_at": LATER}, "completed"),
        ({"status": "failed"}, "failed"),
        ({"error": "no"}, "failed"),
        ({"error": "no", "duration_ms": 5}, "failed"),
        ({"error": None, "ended_at": None, "status": None}, "running"),
    ],
)
async def test_a_span_may_be_handed_in_ended(
    tw: Running, fields: dict[str, object], state: str
) -> None:
    made = await hand_in(tw, "/api/spans", {"id": SPAN, "trace_id": TRACE, **fields})
    assert (made.status, made.body["status"]) == (201, state)
    assert (await tw.api(f"/api/traces/{TRACE}"))["status"] == state


async def test_what_has_ended_ends_no_more(tw: Running) -> None:
    await hand_in(tw, "/api/spans", {"id": SPAN, "trace_id": TRACE, "status": "completed"})
    for path, body in (
        (f"/api/spans/{SPAN}/complete", {}),
        (f"/api/spans/{SPAN}/fail", {"error": "no"}),
    ):
        assert (await hand_in(tw, path, body)).error == (409, "already_ended")
    assert (await tw.api(f"/api/spans/{SPAN}"))["status"] == "completed"
    await hand_in(tw, f"/api/traces/{TRACE}/end", {})
    again = await hand_in(tw, f"/api/traces/{TRACE}/end", {})
    assert again.error == (409, "already_ended")


async def test_the_id_of_a_proxied_call_is_a_conflict(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    await tw.raw(body=b"{}")
    call = await tw.span()
    opening = {"id": call["id"], "trace_id": call["trace_id"]}
    for path, body in (
        ("/api/spans", opening),
        (f"/api/spans/{call['id']}/complete", {}),
        (f"/api/spans/{call['id']}/fail", {"error": "no"}),
    ):
        assert (await hand_in(tw, path, body)).error == (409, "conflict")
    assert await tw.span() == call
    assert await metric(tw, "conflict") == 3


# Order of arrival.


async def test_an_end_may_come_before_its_start(tw: Running) -> None:
    waits = await hand_in(tw, f"/api/spans/{SPAN}/complete", {"output": "x", "ended_at": LATER})
    assert (waits.status, waits.body) == (
        202,
        {"id": SPAN, "trace_id": None, "status": "waiting"},
    )
    assert (await ask(tw, f"/api/spans/{SPAN}")).status == 404
    made = await hand_in(tw, "/api/spans", {"id": SPAN, "trace_id": TRACE, "started_at": AT})
    assert (made.status, made.body["status"]) == (201, "completed")
    shown = await tw.api(f"/api/spans/{SPAN}")
    assert (shown["output"], shown["metadata"]["duration_ms"]) == ("x", 2500)


async def test_an_end_that_names_its_trace_is_there_at_once(tw: Running) -> None:
    ended = await hand_in(tw, f"/api/spans/{SPAN}/fail", {"error": "no", "trace_id": TRACE})
    assert (ended.status, ended.body["trace_id"]) == (200, TRACE)
    assert (await tw.api(f"/api/traces/{TRACE}"))["status"] == "failed"
    made = await hand_in(tw, "/api/spans", {"id": SPAN, "trace_id": TRACE, "name": "late"})
    assert (made.status, made.body["status"]) == (200, "failed")
    assert (await tw.api(f"/api/spans/{SPAN}"))["name"] == "late"


async def test_a_trace_may_end_before_it_begins(tw: Running) -> None:
    waits = await hand_in(tw, f"/api/traces/{TRACE}/end", {})
    assert (waits.status, waits.body) == (202, {"id": TRACE, "status": "waiting"})
    made = await hand_in(tw, "/api/traces", {"id": TRACE, "session_id": "s"})
    assert made.body["status"] == "completed"


ITEMS: list[dict[str, Any]] = [
    {"type": "trace", "id": TRACE, "name": "turn", "session_id": "s", "started_at": AT},
    span(1, kind="retrieval"),
    span(2, kind=MODEL_CALL, parent_id=f"{1:016x}", input=[{"role": "user", "content": "hi"}]),
    {"type": "span", "id": SPAN, "trace_id": TRACE, "name": "tool", "started_at": AT},
    {"type": "complete", "id": SPAN, "output": 1, "ended_at": LATER},
    {"type": "end", "id": TRACE, "ended_at": LATER},
]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 4, 0, 3, 5, 1]])
@pytest.mark.parametrize("at_once", [True, False])
async def test_in_whatever_order_it_comes_it_is_the_same_trace(
    tw: Running, order: list[int], at_once: bool
) -> None:
    if at_once:
        await batch(tw, *(ITEMS[n] for n in order))
    else:
        for n in order:
            await batch(tw, ITEMS[n])
    shown = await tw.api(f"/api/traces/{TRACE}")
    assert {key: shown[key] for key in ("name", "status", "session_id", "duration_ms", "cost")} == {
        "name": "turn",
        "status": "completed",
        "session_id": "s",
        "duration_ms": 2500,
        "cost": MODEL_CALL_USD,
    }
    found = {one["id"]: (one["name"], one["parent_id"], one["status"]) for one in shown["spans"]}
    assert found == {
        f"{1:016x}": ("span 1", None, "completed"),
        f"{2:016x}": ("span 2", f"{1:016x}", "completed"),
        SPAN: ("tool", None, "completed"),
    }


async def test_what_is_handed_in_twice_is_there_once(tw: Running) -> None:
    first = await batch(tw, *ITEMS)
    before = await tw.api("/api/sessions/s")
    assert [one["status"] for one in first] == [201, 201, 201, 201, 200, 200]
    again = await batch(tw, *ITEMS)
    assert [one["status"] for one in again] == [200, 200, 200, 200, 409, 409]
    assert [one["error"]["code"] for one in again[4:]] == ["already_ended", "already_ended"]
    assert await tw.api("/api/sessions/s") == before
    assert await metric(tw, "created") == 3
    assert await metric(tw, "known") == 3
    assert await metric(tw, "already_ended") == 1


# Batches.


async def test_an_item_that_is_wrong_is_refused_and_all_others_are_taken(tw: Running) -> None:
    items = [
        span(1),
        {"type": "span", "id": "x"},
        span(2, started_at="yesterday"),
        {"type": "spam"},
        [],
        b'{"type":"span","input":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
        span(3),
    ]
    results = await batch(tw, *items)
    assert [one["status"] for one in results] == [201, 400, 400, 400, 400, 400, 201]
    assert [one["error"]["param"] for one in results[1:6]] == [
        "items[1].id",
        "items[2].started_at",
        "items[3].type",
        "items[4]",
        "items[5]",
    ]
    assert results[1]["error"]["code"] == "bad_parameter"
    assert results[1]["error"]["message"] == ("items[1].id: expected 16 hex digits, not all zeros")
    assert (await tw.api(f"/api/traces/{TRACE}"))["span_count"] == 2
    assert await metric(tw, "refused") == 5


async def test_a_batch_is_stored_in_pieces_between_which_calls_are_recorded(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    change = tw.server.recorder.change

    def counted(*work: Any, **how: Any) -> Any:
        pieces.append(1)
        return change(*work, **how)

    monkeypatch.setattr(tw.server.recorder, "change", counted)
    results = await batch(tw, *(span(n) for n in range(1, 2 * CHUNK_ITEMS + 2)))
    assert {one["status"] for one in results} == {201}
    assert len(pieces) == 3
    assert (await tw.api(f"/api/traces/{TRACE}"))["span_count"] == 2 * CHUNK_ITEMS + 1


async def test_of_large_spans_fewer_are_a_transaction(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    take = ingest.take

    def counted(tx: Any, items: Any, **how: Any) -> Any:
        pieces.append(len(items))
        return take(tx, items, **how)

    monkeypatch.setattr(ingest, "take", counted)
    large = ["x" * (CHUNK_BYTES * share // 10) for share in (4, 5, 5, 20, 1)]
    results = await batch(tw, *(span(n, input=text) for n, text in enumerate(large, 1)))
    assert {one["status"] for one in results} == {201}
    assert pieces == [2, 1, 1, 1]


async def test_calls_wait_for_one_transaction_of_what_is_handed_in_however_many_hand_in(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[asyncio.Future[Any]] = []
    most = 0
    change = tw.server.recorder.change

    def counted(*work: Any, **how: Any) -> Any:
        nonlocal most
        asked.append(change(*work, **how))
        most = max(most, sum(not one.done() for one in asked))
        return asked[-1]

    monkeypatch.setattr(tw.server.recorder, "change", counted)
    async with asyncio.TaskGroup() as group:
        for number in range(1, 11):
            group.create_task(batch(tw, span(number)))
    assert (len(asked), most) == (10, 1)


async def test_a_batch_of_nothing_is_fine_and_one_of_too_much_is_not(tw: Running) -> None:
    assert await batch(tw) == []
    for body in (b'{"items":[%b]}' % b",".join([b"{}"] * 1_001), b"{}", b"[]", b"", b"\xff", b"{"):
        assert (await hand_in(tw, "/api/batch", body)).error == (400, "bad_parameter")


async def test_what_the_database_refuses_costs_nothing_else(
    tw: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refusing(tx: Any, items: Any, **how: Any) -> Any:
        if any(one.name == "span 3" for one in items):
            raise StatementRefused("the database", "too odd")
        return take(tx, items, **how)

    take = ingest.take
    monkeypatch.setattr(ingest, "take", refusing)
    results = await batch(tw, *(span(n) for n in range(1, 6)))
    assert [one["status"] for one in results] == [201, 201, 409, 201, 201]
    assert "cannot be stored" in caplog.text
    assert (await tw.api(f"/api/traces/{TRACE}"))["span_count"] == 4


# Projects and keys.


async def test_only_keys_that_write_hand_in_and_they_do_not_read(team: Keyed) -> None:
    for scope, status in (("write", 201), ("admin", 200), ("read", 403)):
        tw = await team.by("alpha", scope)  # type: ignore[arg-type]
        assert (await hand_in(tw, "/api/spans", {"id": SPAN, "trace_id": TRACE})).status == status
    nobody = await team.with_headers({})
    assert (await hand_in(nobody, "/api/batch", {"items": []})).error == (401, "unauthorized")
    write = await team.by("alpha", "write")
    assert (await ask(write, f"/api/spans/{SPAN}")).status == 403


async def test_the_same_ids_in_two_projects_are_two_things(team: Keyed) -> None:
    for project in ("alpha", "beta"):
        tw = await team.by(project, "admin")
        made = await batch(tw, {"type": "trace", "id": TRACE, "session_id": project}, span(1))
        assert [one["status"] for one in made] == [201, 201]
    for project in ("alpha", "beta"):
        tw = await team.by(project, "admin")
        shown = await tw.api(f"/api/traces/{TRACE}")
        assert (shown["session_id"], shown["span_count"]) == (project, 1)


async def test_an_admin_hands_in_to_the_project_that_it_names(team: Keyed) -> None:
    admin = await team.by("alpha", "admin")
    await hand_in(admin, "/api/traces", {"id": TRACE}, **{"X-Traceway-Project": "beta"})
    assert (await ask(admin, f"/api/traces/{TRACE}")).status == 404
    assert (await ask(await team.by("beta", "read"), f"/api/traces/{TRACE}")).status == 200


async def test_who_lost_the_key_while_sending_is_not_heard(team: Keyed) -> None:
    one, admin = team["alpha", "write"], await team.by("beta", "admin")
    body = b'{"items":[{"type":"trace","id":"%b"}]}' % TRACE.encode()
    async with connect(team.tw.port) as peer:
        await peer.send(
            b"POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%b\r\n{"
            % (len(body), one.bearer)
        )
        async with admin.client.delete(f"{admin.url}/api/keys/{one.key_id}") as answer:
            assert answer.status == 200
        await peer.send(body[1:])
        assert (await peer.response()).status == 401
    assert (await ask(await team.by("alpha", "admin"), f"/api/traces/{TRACE}")).status == 404


# Bodies.


@pytest.mark.parametrize("packed", [gzip.compress, zlib.compress])
async def test_a_body_may_be_packed(tw: Running, packed: Any) -> None:
    coding = {"Content-Encoding": "gzip" if packed is gzip.compress else "deflate"}
    body = packed(orjson.dumps({"items": [span(n) for n in range(1, 301)]}))
    reply = await hand_in(tw, "/api/batch", body, **coding)
    assert reply.body["accepted"] == 300


async def test_a_body_that_is_packed_otherwise_or_badly_is_refused(tw: Running) -> None:
    lzma = await hand_in(tw, "/api/batch", b"x", **{"Content-Encoding": "lzma"})
    assert lzma.error == (415, "unknown_encoding")
    broken = await hand_in(tw, "/api/batch", b"{}", **{"Content-Encoding": "gzip"})
    assert broken.error == (400, "bad_parameter")


async def test_a_body_has_a_bound_also_when_it_is_unpacked(serve: Serve) -> None:
    tw = await serve({"ingest.max_body_bytes": "200000"})
    body = orjson.dumps({"items": [span(1)]})
    assert (await hand_in(tw, "/api/batch", body.ljust(200_000))).status == 200
    assert (await hand_in(tw, "/api/batch", body.ljust(200_001))).error == (413, "body_too_large")
    bomb = gzip.compress(body.ljust(100_000_000))
    assert len(bomb) < 200_000
    packed = await hand_in(tw, "/api/batch", bomb, **{"Content-Encoding": "gzip"})
    assert packed.error == (413, "body_too_large")
    async with connect(tw.port) as peer:  # in pieces, without a length that says it
        await peer.send(
            b"POST /api/batch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        piece = b" " * 50_000
        for _ in range(5):
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        assert (await peer.head()).status == 413


async def test_eight_mebibytes_come_back_as_they_were(tw: Running) -> None:
    value = "é" * (4 * 1024 * 1024 - 500)
    body = b'{"items":[{"type":"span","id":"%b","trace_id":"%b","input":"%b"}]}' % (
        SPAN.encode(),
        TRACE.encode(),
        value.encode(),
    )
    assert 8_000_000 < len(body) <= 8 << 20
    assert (await hand_in(tw, "/api/batch", body)).body["accepted"] == 1
    async with tw.client.get(f"{tw.url}/api/spans/{SPAN}/request") as answer:
        assert orjson.loads(await answer.read()) == value


async def test_when_too_much_comes_at_once_some_of_it_has_to_wait(serve: Serve) -> None:
    tw = await serve({"ingest.max_body_bytes": "20000"})
    body = b'{"items":[]}'.ljust(20_000)
    async with AsyncExitStack() as stack:
        for number in range(1, 4):  # three that take their time; a fourth would be the last
            peer = await stack.enter_async_context(connect(tw.port))
            await peer.send(
                b"POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n"
            )
            await peer.send(b" " * 15_000)
            await _until(tw, lambda held, least=number * 15_000: held >= least)
        refused = await hand_in(tw, "/api/batch", body)
        assert refused.error == (429, "too_much_at_once")
        assert refused.headers["Retry-After"] == "1"
        assert "x-should-retry" not in refused.headers
        assert (await hand_in(tw, "/api/batch", b'{"items":[]}')).status == 200
    await _until(tw, lambda held: held == 0)
    assert (await hand_in(tw, "/api/batch", body)).status == 200


async def _until(tw: Running, is_so: Callable[[int], bool]) -> None:
    """Wait until so many bytes are held."""
    handlers = [getattr(route.handler, "__self__", None) for route in app_of(tw).router.routes()]
    (door,) = {one for one in handlers if isinstance(one, ingest.Ingest)}
    async with asyncio.timeout(10):
        while not is_so(door.held_bytes):
            await tw.api("/api/live")


# When the database does not take it.


async def test_what_cannot_be_stored_now_may_be_sent_again(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(tx: Any, items: Any, **how: Any) -> Any:
        raise StorageError("the database", "it is full", "make room")

    take = ingest.take
    monkeypatch.setattr("proxy.recorder.CHANGE_WAIT_S", 0.05)
    monkeypatch.setattr(ingest, "take", failing)
    for path, body in (("/api/batch", {"items": [span(1)]}), ("/api/spans", {"id": SPAN})):
        reply = await hand_in(tw, path, body)
        assert reply.error == (503, "storage_unavailable")
        assert reply.headers["Retry-After"] == "1"
        assert "x-should-retry" not in reply.headers
    monkeypatch.setattr("proxy.recorder.CHANGE_WAIT_S", 30.0)
    monkeypatch.setattr(ingest, "take", take)
    assert (await batch(tw, span(1)))[0]["status"] == 201


async def test_what_was_handed_in_is_there_after_a_restart_and_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:1") as tw:
        await batch(tw, *ITEMS[:4])
        await hand_in(tw, "/api/traces/" + "1" * 32 + "/end", {})
        await hand_in(tw, f"/api/spans/{OTHER}/complete", {"output": "early"})
    async with running(tmp_path, "http://127.0.0.1:1") as tw:
        shown = await tw.api(f"/api/traces/{TRACE}")
        assert (shown["status"], shown["span_count"]) == ("running", 3)
        again = await batch(tw, *ITEMS)
        assert [one["status"] for one in again] == [200, 200, 200, 200, 200, 200]
        made = await hand_in(tw, "/api/spans", {"id": OTHER, "trace_id": TRACE})
        assert made.body["status"] == "completed"
        assert (await tw.api(f"/api/spans/{OTHER}"))["output"] == "early"


async def test_what_nobody_ended_is_ended_when_its_time_is_over(serve: Serve) -> None:
    tw = await serve({"ingest.open_timeout_s": "1"})
    await hand_in(tw, "/api/spans", {"id": SPAN, "trace_id": TRACE})
    async with asyncio.timeout(20):
        while (await tw.api(f"/api/traces/{TRACE}"))["status"] == "running":
            pass
    shown = await tw.api(f"/api/spans/{SPAN}")
    assert shown["status"]["interrupted"]["ended_by"] == "proxy"
    late = await hand_in(tw, f"/api/spans/{SPAN}/complete", {"output": "after all"})
    assert (late.status, late.body["status"]) == (200, "completed")
    assert (await tw.api(f"/api/traces/{TRACE}"))["status"] == "completed"


# Whatever is sent.

HOSTILE = [
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"{",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"input":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    b'{"input":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    b'{"kind":{"type":"llm_call","input_tokens":1e999}}',
    b'{"kind":{"type":"llm_call","input_tokens":99999999999999999999999999}}',
    b'{"kind":{"type":"llm_call","cost":1e-999,"model":"\\u0000"}}',
    b'{"duration_ms":99999999999999999999999999}',
    b'{"started_at":"0000-00-00T00:00:00Z"}',
    b'{"started_at":"2199-12-31T23:59:59.999999Z","duration_ms":31622400000}',
    b'{"name":"\\u0000","session_id":"\\ud800","error":"\\udc00","input":"\\ud800\\u0000"}',
    b'{"session_id":"' + b"x" * 100_000 + b'","name":"' + b"y" * 100_000 + b'"}',
    b'{"name":"a","name":"b","input":1,"input":{"a":1,"a":2},"metadata":{"x":1,"x":2}}',
    b'{"input":1e999,"output":-0,"metadata":{"a":1e999,"\\u0000":"\\u0000"}}',
    b'{"kind":{"type":"custom","\\ud83d":1,"attributes":{"":{"":[]}},"kind":"\\u0000"}}',
    b'{"error":"","status":"failed"}',
    b'{"id":"tw_sk_abcdef"}',
    b'{"items":[{"type":"span","input":"\\ud83d"}]}',
]


@pytest.mark.parametrize(
    "path", ["traces", "spans", f"spans/{SPAN}/complete", f"spans/{SPAN}/fail"]
)
async def test_no_body_is_an_error_of_ours(
    tw: Running, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    for body in HOSTILE:
        assert (await hand_in(tw, f"/api/{path}", body)).status in (200, 201, 202, 400, 409), body
    assert (await hand_in(tw, f"/api/traces/{TRACE}/end", HOSTILE[8])).status == 400
    results = await batch(tw, *(b'{"type":"span",' + body[1:] for body in HOSTILE[8:]))
    assert {one["status"] for one in results} == {201, 400}
    for body in HOSTILE:
        assert (await hand_in(tw, "/api/batch", body)).status in (200, 400)
    for one in (await tw.api("/api/spans?q=since:99999d&limit=1000"))["spans"]:
        shown = await tw.api(f"/api/spans/{one['id']}")
        assert shown["status"]
    for rows in ("traces", "sessions"):
        await tw.api(f"/api/{rows}?limit=1000")
    assert caplog.text == ""


async def test_who_watches_is_told_of_it(tw: Running) -> None:
    async with watch(tw) as watching:
        await batch(tw, *ITEMS[:2])
        told = await watching.until("session_updated", session_id="s")
        assert {"trace_created", "span_completed"} <= {one["type"] for one in told}
        (row,) = [one["trace"] for one in told if one["type"] == "trace_created"]
        assert (row["id"], row["name"], row["status"]) == (TRACE, "turn", "running")


# Sums.


async def test_the_sessions_figures_are_those_of_its_spans(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(
        b'{"id":"c1","model":"gpt-4o-mini","choices":[{"message":{"role":"assistant","content":'
        b'"hello"}}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}',
    )
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
    await tw.raw(CHAT.encode(), headers=b"X-Traceway-Session-Id: s\r\n", body=body)
    reported = {**MODEL_CALL, "cost": 0.123456789, "cached_input_tokens": 400}
    await batch(
        tw,
        {"type": "trace", "id": TRACE, "session_id": "s"},
        span(1, kind=MODEL_CALL),
        span(2, kind=reported),
        span(3, kind={"type": "embedding", "input_tokens": 7, "model": "nobody's"}),
        span(4, kind="tool_call", error="no"),
        {"type": "end", "id": TRACE},
    )
    session = await tw.api("/api/sessions/s")
    traces = (await tw.api("/api/traces?session_id=s"))["traces"]
    spans = await tw.spans()
    assert (session["trace_count"], session["span_count"]) == (2, 5)
    assert session["input_tokens"] == 10 + 1_000 + 1_000 + 7
    assert session["output_tokens"] == 5 + 100 + 100
    costs = [one["kind"]["cost"] for one in spans]
    assert sorted(cost for cost in costs if cost is not None)[-1] == 0.123456789
    assert session["cost"] == pytest.approx(sum(cost or 0 for cost in costs), abs=1e-12)
    assert session["cost"] == pytest.approx(sum(one["cost"] for one in traces), abs=1e-12)
    assert (session["unpriced_count"], session["failed_trace_count"]) == (1, 1)
    assert session["cached_input_tokens"] == 400
    assert {one["kind"]["usage_source"] for one in spans} >= {"reported", "provider"}


async def test_words_of_what_was_handed_in_are_found(tw: Running) -> None:
    await batch(
        tw,
        span(1, kind="tool_call", input={"city": "Reykjavík"}, output="snow"),
        span(2, kind=MODEL_CALL, input=[{"role": "user", "content": "a zeppelin"}], output="yes"),
    )
    for word, number in (("Reykjavík", 1), ("snow", 1), ("zeppelin", 2)):
        found = (await tw.api(f"/api/spans?q=since:99999d+{word}"))["spans"]
        assert [one["id"] for one in found] == [f"{number:016x}"], word


async def test_a_model_call_is_read_as_a_conversation(tw: Running) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    answer = {"role": "assistant", "content": "hello"}
    second = [*asked, answer, {"role": "user", "content": "and?"}]
    await batch(
        tw,
        {"type": "trace", "id": TRACE, "session_id": "s"},
        span(1, kind=MODEL_CALL, input=asked, output="hello"),
        span(2, kind=MODEL_CALL, input={"messages": second}, output=answer, started_at=LATER),
    )
    found = (await tw.api("/api/sessions/s/conversation"))["messages"]
    assert [(one["role"], one["text"]) for one in found if one["kind"] != "prompt"] == [
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "and?"),
        ("assistant", "hello"),
    ]
