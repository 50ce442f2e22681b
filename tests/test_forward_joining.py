"""Calls that name a trace, over real sockets: one tree, the ids in the answer, and one session."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from proxy.pricing import CustomPrice
from tests.api.watching import watch
from tests.calling import DONE, delta
from tests.conftest import Serve
from tests.running import CHAT, Running, running
from tests.storage.seen_twice import Handed, take
from tests.wire import Peer, Received, ScriptedUpstream, connect

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
NAMED = b"X-Traceway-Trace-Id: %b\r\n" % TRACE
PARENT = b"X-Traceway-Parent-Span-Id: %b\r\n" % SPAN
SESSION = b"X-Traceway-Session-Id: s\r\n"
TYPE = b"Content-Type: application/json\r\n"
BODY = b'{"model": "m", "max_tokens": 4000, "messages": [{"role": "user", "content": "Hi"}]}'
ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [{"message": {"role": "assistant", "content": "Hello"}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4000},
    }
)
# An answer of 4,000 tokens costs 4 cents.
PRICES = (
    CustomPrice(
        model="m", input_per_million_usd=Decimal("0.01"), output_per_million_usd=Decimal(10)
    ),
)


@pytest.fixture
async def tw(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Running]:
    upstream.answers(ANSWER)
    # In the other modes an answer may leave before anybody knows where its call is.
    settings = {"recording.durability": "strict"}
    async with running(tmp_path, upstream.url, settings, PRICES) as server:
        yield server


async def call(tw: Running, *headers: bytes, body: bytes = BODY) -> Received:
    return await tw.raw(headers=b"".join(headers) + TYPE, body=body)


def ids(got: Received) -> tuple[str, str]:
    trace, span = got.get(b"X-Traceway-Trace-Id"), got.get(b"X-Traceway-Span-Id")
    assert trace is not None
    assert span is not None
    return trace.decode(), span.decode()


async def test_a_call_is_a_span_of_the_trace_that_it_names_and_the_answer_says_so(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    got = await call(tw, NAMED, PARENT, SESSION)
    (request,) = upstream.requests
    assert not any(name.lower().startswith(b"x-traceway") for name, _ in request.headers)
    trace_id, span_id = ids(got)
    assert trace_id == TRACE.decode()
    assert got.get(b"X-Traceway-Session-Id") == b"s"
    trace = await tw.api(f"/api/traces/{trace_id}")
    (span,) = trace["spans"]
    assert (span["id"], span["parent_id"]) == (span_id, SPAN.decode())
    assert (span["trace_id"], trace["session_id"], trace["span_count"]) == (trace_id, "s", 1)


async def test_a_call_inherits_the_session_of_the_trace_and_its_answer_names_it(
    tw: Running,
) -> None:
    await call(tw, NAMED, SESSION)
    got = await call(tw, NAMED, b"Helicone-Session-Id: other\r\n")
    assert ids(got)[0] == TRACE.decode()
    assert got.get(b"X-Traceway-Session-Id") == b"s"
    assert got.get(b"X-Traceway-Session-Source") == b"header"
    session = await tw.api("/api/sessions/s")
    assert (session["trace_count"], session["span_count"]) == (1, 2)


async def test_a_call_that_names_another_session_is_a_trace_of_its_own(tw: Running) -> None:
    await call(tw, NAMED, SESSION)
    got = await call(tw, NAMED, b"X-Traceway-Session-Id: t\r\n")
    own, _ = ids(got)
    assert own != TRACE.decode()
    assert got.get(b"X-Traceway-Session-Id") == b"t"
    assert (await tw.api(f"/api/traces/{own}"))["session_id"] == "t"


async def test_the_answer_of_a_call_without_a_trace_names_its_own_and_its_span(
    tw: Running,
) -> None:
    trace_id, span_id = ids(await call(tw))
    (span,) = (await tw.api(f"/api/traces/{trace_id}"))["spans"]
    assert span["id"] == span_id


@pytest.mark.parametrize(
    "headers",
    [
        *(b"X-Traceway-Trace-Id: 1\r\n", b"X-Traceway-Trace-Id: %b\r\n" % (b"0" * 32)),
        *(PARENT, NAMED + b"X-Traceway-Parent-Span-Id: x\r\n"),
    ],
)
async def test_what_names_no_trace_is_refused_before_anything_is_forwarded(
    tw: Running, upstream: ScriptedUpstream, headers: bytes
) -> None:
    got = await call(tw, headers)
    assert (got.status, got.get(b"X-Traceway-Error")) == (400, b"bad_trace")
    assert upstream.requests == []
    assert (await tw.api("/api/stats"))["span_count"] == 0


@pytest.mark.parametrize("durability", ["safe", "strict", "fast"])
async def test_the_ids_of_an_answer_lead_to_the_call_in_every_mode(
    serve: Serve, upstream: ScriptedUpstream, durability: str
) -> None:
    upstream.answers(ANSWER)
    tw = await serve({"recording.durability": durability})
    for headers in ((NAMED,), (NAMED, SESSION), (NAMED, SESSION), ()):
        trace_id, span_id = ids(await call(tw, *headers))
        trace = await tw.api(f"/api/traces/{trace_id}")
        assert span_id in {span["id"] for span in trace["spans"]}
    assert len((await tw.api(f"/api/traces/{TRACE.decode()}"))["spans"]) == 3


async def test_a_traceparent_joins_what_is_known_and_goes_upstream_as_it_is(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    traceparent = b"traceparent: 00-%b-%b-01\r\n" % (TRACE, SPAN)
    own, _ = ids(await call(tw, traceparent))
    assert own != TRACE.decode()
    assert upstream.requests[0].get(b"traceparent") == b"00-%b-%b-01" % (TRACE, SPAN)
    # Another call makes it known, and the first moves there; what its answer named leads to it.
    await call(tw, NAMED, SESSION)
    got = await call(tw, traceparent)
    assert ids(got)[0] == TRACE.decode()
    trace = await tw.api(f"/api/traces/{own}")
    assert trace["id"] == TRACE.decode()
    assert sorted(span["parent_id"] or "" for span in trace["spans"]) == [
        *("", SPAN.decode(), SPAN.decode())
    ]
    async with tw.client.get(f"{tw.url}/traces/{own}") as page:
        assert page.status == 200
        assert TRACE.decode() in await page.text()
    async with tw.client.get(f"{tw.url}/traces/{'1' * 32}") as page:
        assert page.status == 404


async def test_a_stream_that_moves_while_it_runs_is_told_where_it_is(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    go_on, end = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            + delta("one")
        )
        await go_on.wait()
        await peer.send(delta("two"))
        await end.wait()
        await peer.send(DONE)

    upstream.script = script
    tw = await serve({"recording.checkpoint_s": "0.1"})
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
    traceparent = b"traceparent: 00-%b-%b-01\r\n" % (TRACE, SPAN)
    async with connect(tw.port) as client, watch(tw, "progress=1&session=s") as events:
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n%b%b\r\n%b" % (CHAT.encode(), len(body), traceparent, TYPE, body)
        )
        await client.head()
        handed = Handed(n=int(SPAN, 16), trace=int(TRACE, 16), session="s", kind="custom")
        await tw.server.recorder.write(lambda tx: take(tx, handed))
        # With its next checkpoint the call knows, and who watches the session hears it.
        go_on.set()
        told = (await events.until("span_progress"))[-1]
        assert (told["trace_id"], told["session_id"]) == (TRACE.decode(), "s")
        assert told["text"].startswith("one")
        end.set()
        await client.gone()
    spans = (await tw.api(f"/api/traces/{TRACE.decode()}"))["spans"]
    assert [span["status"] for span in spans] == ["completed", "completed"]


BUDGET = b"X-Traceway-Session-Budget-Usd: 0.05\r\n"


@pytest.mark.parametrize("how", [NAMED, b"traceparent: 00-%b-%b-01\r\n" % (TRACE, SPAN)])
async def test_a_call_that_only_inherits_its_session_is_held_to_its_budget(
    tw: Running, upstream: ScriptedUpstream, how: bytes
) -> None:
    assert (await call(tw, NAMED, SESSION)).status == 200
    assert (await call(tw, how, BUDGET)).status == 429
    got = await call(tw, how, BUDGET, b"Helicone-Session-Id: other\r\n")
    assert (got.status, got.get(b"X-Traceway-Error")) == (429, b"session_budget_exceeded")
    error = orjson.loads(got.body)["error"]
    assert (error["session_id"], error["spent_usd"]) == ("s", pytest.approx(0.04, abs=0.001))
    assert len(upstream.requests) == 1
    session = await tw.api("/api/sessions/s")
    assert session["budget"]["reserved_usd"] == 0


async def test_a_projects_budget_holds_for_calls_that_inherit_and_for_no_others(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    project = f"{tw.url}/api/projects/default"
    async with tw.client.patch(project, json={"session_budget_usd": 0.05}) as changed:
        assert changed.status == 200
    assert (await call(tw, NAMED, SESSION)).status == 200
    assert (await call(tw, NAMED)).status == 429
    other = NAMED.replace(b"4bf9", b"4bf8")
    for _ in range(3):  # of a trace without a session
        assert (await call(tw, other)).status == 200


async def test_a_budget_for_a_trace_without_a_session_is_refused(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    got = await call(tw, NAMED, BUDGET)
    assert (got.status, got.get(b"X-Traceway-Error")) == (400, b"bad_budget")
    assert upstream.requests == []
