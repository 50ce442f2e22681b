"""Session budgets end to end: what would exceed one goes nowhere, and a crash spends nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from proxy import budget as session_budgets
from proxy.pricing import CustomPrice
from proxy.providers.messages import text_of
from tests.running import CHAT, Running, running
from tests.served import Served, served
from tests.wire import Peer, Received, ScriptedUpstream, connect

# An answer of 4,000 tokens costs 4 cents.
PRICES = (
    CustomPrice(
        model="m", input_per_million_usd=Decimal("0.01"), output_per_million_usd=Decimal(10)
    ),
)
PRICES_TOML = """
[[prices]]
model = "m"
input_per_million_usd = 0.01
output_per_million_usd = 10
"""
BODY = b'{"model": "m", "max_tokens": 4000,  "messages": [{"role": "user", "content": "Hi"}]}'
STREAM = BODY.replace(b"{", b'{"stream": true, ', 1)
SESSION = b"X-Traceway-Session-Id: s\r\n"
BUDGET = SESSION + b"X-Traceway-Session-Budget-Usd: 1.00\r\n"
TYPE = b"Content-Type: application/json\r\n"


def answer(output_tokens: int = 4000) -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": output_tokens}
    message = {"role": "assistant", "content": "Hello"}
    return orjson.dumps({"model": "m", "choices": [{"message": message}], "usage": usage})


@pytest.fixture
async def tw(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Running]:
    async with priced(tmp_path, upstream) as server:
        yield server


@asynccontextmanager
async def priced(
    folder: Path, upstream: ScriptedUpstream, **settings: str
) -> AsyncIterator[Running]:
    async with running(folder, upstream.url, settings, PRICES) as server:
        yield server


async def call(tw: Running, body: bytes = BODY, headers: bytes = BUDGET) -> Received:
    return await tw.raw(headers=headers + TYPE, body=body)


def error_of(got: Received) -> dict[str, Any]:
    error: dict[str, Any] = orjson.loads(got.body)["error"]
    assert got.get(b"X-Traceway-Error") == str(error["code"]).encode()
    return error


async def stand(tw: Running) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (await tw.api("/api/sessions/s"))["budget"]
    return found


class Gate:
    """An upstream that holds every answer until it is opened."""

    def __init__(self, upstream: ScriptedUpstream, reply: bytes) -> None:
        self.asked = 0
        self.one_came = asyncio.Event()
        self.open = asyncio.Event()
        self._reply = reply
        upstream.script = self._script

    async def _script(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.asked += 1
            self.one_came.set()
            await self.open.wait()
            await peer.respond(self._reply)


async def test_fifty_calls_at_once_spend_no_more_than_the_budget_but_for_their_input(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    gate = Gate(upstream, answer())
    answers: list[Received] = []
    decided = asyncio.Condition()

    async def one() -> None:
        got = await call(tw)
        async with decided:
            answers.append(got)
            decided.notify_all()

    async with asyncio.TaskGroup() as calls:
        for _ in range(50):
            calls.create_task(one())
        async with asyncio.timeout(20), decided:
            # Those that are refused are answered while all others are in flight at once.
            await decided.wait_for(lambda: len(answers) == 26)
            while gate.asked < 24:
                gate.one_came.clear()
                await gate.one_came.wait()
        assert (await stand(tw))["reserved_usd"] == pytest.approx(0.96, abs=0.001)
        gate.open.set()

    statuses = [got.status for got in answers]
    assert (statuses.count(200), statuses.count(429)) == (24, 26)
    assert gate.asked == 24  # nothing of what was refused went anywhere
    session = await tw.api("/api/sessions/s")
    assert session["cost"] == pytest.approx(0.96, abs=0.001)
    assert session["cost"] <= 1
    assert session["budget"] == {"limit_usd": 1.0, "spent_usd": session["cost"], "reserved_usd": 0}
    assert session["failed_trace_count"] == 26
    assert await tw.findings(text_of) == []


async def test_a_refused_call_has_the_figures_and_is_recorded_as_ended_by_us(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    got = await call(tw, headers=BUDGET.replace(b"1.00", b"0.01"))
    assert got.status == 429
    assert got.get(b"x-should-retry") == b"false"
    assert got.get(b"Retry-After") is None
    assert got.get(b"X-Traceway-Session-Id") == b"s"
    error = error_of(got)
    assert error["type"] == "insufficient_quota"
    assert error["code"] == "session_budget_exceeded"
    assert (error["session_id"], error["budget_usd"]) == ("s", 0.01)
    assert (error["spent_usd"], error["reserved_usd"]) == (0, 0)
    assert error["needed_usd"] == pytest.approx(0.04, abs=0.001)
    span = await tw.span()
    failed = span["status"]["failed"]
    assert (failed["ended_by"], failed["phase"]) == ("proxy", "request")
    assert "budget" in failed["error"]
    assert (await tw.api(f"/api/spans/{span['id']}/request")) == orjson.loads(BODY)
    assert upstream.connections == 0
    assert await stand(tw) == {"limit_usd": 0.01, "spent_usd": 0, "reserved_usd": 0}


async def test_openais_client_raises_its_rate_limit_error_and_does_not_try_again(
    tw: Running,
) -> None:
    headers = {"X-Traceway-Session-Id": "s", "X-Traceway-Session-Budget-Usd": "0.01"}
    async with openai.AsyncOpenAI(api_key="sk-x", base_url=tw.openai_base, max_retries=2) as client:
        with pytest.raises(openai.RateLimitError) as raised:
            await client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "Hi"}],
                max_tokens=4000,
                extra_headers=headers,
            )
    assert raised.value.code == "session_budget_exceeded"
    assert raised.value.type == "insufficient_quota"
    assert len(await tw.spans()) == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_call_with_a_budget_goes_on_byte_for_byte_and_its_header_does_not(
    tw: Running, upstream: ScriptedUpstream, chunked: bool
) -> None:
    upstream.answers(answer())
    if chunked:
        async with connect(tw.port) as client:
            await client.send(
                b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b%bTransfer-Encoding: chunked\r\n\r\n"
                % (CHAT.encode(), BUDGET, TYPE)
            )
            await client.send(b"5\r\n%b\r\n" % BODY[:5])
            await client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY) - 5, BODY[5:]))
            assert (await client.response()).status == 200
    else:
        assert (await call(tw)).body == answer()
    (sent,) = upstream.requests
    assert sent.body == BODY
    assert not [name for name, _ in sent.headers if name.lower().startswith(b"x-traceway")]
    span = await tw.span()
    assert span["status"] == "completed"
    async with tw.client.get(f"{tw.url}/api/spans/{span['id']}/request") as got:
        assert await got.read() == BODY


async def test_usage_is_asked_for_in_a_stream_that_has_a_budget(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    events = (
        b'data: {"model":"m","choices":[{"delta":{"content":"Hi"}}],"usage":null}\n\n',
        b'data: {"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}}\n\n',
        b"data: [DONE]\n\n",
    )
    upstream.answers(b"".join(events), content_type=b"text/event-stream")
    got = await call(tw, STREAM)
    assert b"usage" not in got.body
    assert b'"include_usage":true' in upstream.requests[0].body
    span = await tw.span()
    assert span["kind"]["usage_source"] == "injected"
    found = await stand(tw)
    assert found is not None
    assert found["spent_usd"] == pytest.approx(0.00009, abs=1e-6)
    assert found["reserved_usd"] == 0


@pytest.mark.parametrize(
    ("reply", "status", "spent", "reserved"),
    [
        (answer(1000), b"200 OK", 0.01, 0),
        (b'{"error": {"message": "no"}}', b"400 Bad Request", 0, 0),
        (b'{"error": {"message": "no"}}', b"500 Oh", 0, 0),
    ],
    ids=["complete", "refused by the provider", "failed at the provider"],
)
async def test_what_a_call_really_cost_takes_the_place_of_what_it_reserved(
    tw: Running,
    upstream: ScriptedUpstream,
    reply: bytes,
    status: bytes,
    spent: float,
    reserved: float,
) -> None:
    upstream.answers(reply, status=status)
    await call(tw)
    found = await stand(tw)
    assert found is not None
    assert found["spent_usd"] == pytest.approx(spent, abs=1e-6)
    assert found["reserved_usd"] == reserved


async def test_a_call_that_reaches_nobody_gives_back_what_it_reserved(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    await upstream.stop()
    assert (await call(tw)).status == 502
    assert await stand(tw) == {"limit_usd": 1.0, "spent_usd": 0, "reserved_usd": 0}


async def test_what_nobody_can_price_afterwards_stays_reserved(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(answer().replace(b'"m"', b'"a model without a price"'))
    assert (await call(tw)).status == 200
    found = await stand(tw)
    assert found is not None
    assert found["spent_usd"] == 0
    assert found["reserved_usd"] == pytest.approx(0.04, abs=0.001)
    assert [(await call(tw)).status for _ in range(24)].count(200) == 23


async def test_a_request_that_no_answer_came_to_may_have_been_billed_and_stays_reserved(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.cut()

    upstream.script = script
    assert (await call(tw)).status == 502
    found = await stand(tw)
    assert found is not None
    assert found["reserved_usd"] == pytest.approx(0.04, abs=0.001)


async def test_a_client_that_leaves_in_mid_stream_has_spent_what_came(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
            b'data: {"model":"m","choices":[{"delta":{"content":"Hello there"}}]}\n\n'
        )
        await peer.gone()
        left.set()

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b%bContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), BUDGET, TYPE, len(STREAM), STREAM)
        )
        await client.reader.readuntil(b"there")
    async with asyncio.timeout(10):
        await left.wait()
    span = await tw.ended()
    assert "cancelled" in span["status"]
    found = await stand(tw)
    assert found is not None
    assert found["reserved_usd"] == 0
    assert 0 < found["spent_usd"] < 0.001


async def test_a_client_that_leaves_before_its_call_is_made_has_spent_nothing(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    asked = asyncio.Event()

    async def never(_: object) -> Any:
        asked.set()
        await asyncio.Event().wait()

    forwarder = tw.server._forwarder
    assert forwarder is not None
    forwarder._budgets._ask = never  # type: ignore[method-assign]
    async with connect(tw.port) as client:
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b%bContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), BUDGET, TYPE, len(BODY), BODY)
        )
        async with asyncio.timeout(10):
            await asked.wait()
    span = await tw.ended()
    assert span["status"]["cancelled"]["phase"] == "request"
    assert span["kind"]["cost"] == 0
    assert upstream.connections == 0


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (SESSION + b"X-Traceway-Session-Budget-Usd: much\r\n", 400, "bad_budget"),
        (b"X-Traceway-Session-Budget-Usd: 1\r\n", 400, "bad_budget"),
    ],
)
async def test_a_budget_that_makes_no_sense_is_a_400_and_goes_nowhere(
    tw: Running, headers: bytes, status: int, code: str
) -> None:
    got = await call(tw, headers=headers)
    assert (got.status, error_of(got)["code"]) == (status, code)
    assert await tw.spans() == []


async def test_a_model_without_a_price_is_refused_where_there_is_a_budget(tw: Running) -> None:
    got = await call(tw, BODY.replace(b'"m"', b'"nobody-knows"'))
    assert got.status == 429
    assert got.get(b"x-should-retry") == b"false"
    error = error_of(got)
    assert (error["type"], error["code"]) == ("insufficient_quota", "session_budget_unpriced")
    assert 'unpriced = "allow"' in error["message"]
    assert "failed" in (await tw.span())["status"]


async def test_a_model_without_a_price_goes_through_where_that_is_allowed(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.answers(answer().replace(b'"m"', b'"nobody-knows"'))
    async with priced(tmp_path, upstream, **{"limits.unpriced": "allow"}) as tw:
        assert (await call(tw, BODY.replace(b'"m"', b'"nobody-knows"'))).status == 200
        assert await stand(tw) == {"limit_usd": 1.0, "spent_usd": 0, "reserved_usd": 0}


async def test_a_request_too_large_to_be_read_first_is_a_413_that_says_why(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_budgets, "MAX_BODY_BYTES", 1_000)
    length = b"Content-Length: 1001\r\n\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n%b\r\n" % (b" " * 1_000) * 2
    for framing in (length, chunks):
        async with connect(tw.port) as client:
            head = b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b%b" % (CHAT.encode(), BUDGET, TYPE)
            await client.send(head + framing)
            got = await client.response()
        assert (got.status, error_of(got)["code"]) == (413, "budget_request_too_large")
    phases = [span["status"]["failed"]["phase"] for span in await tw.spans()]
    assert phases == ["request", "request"]


@asynccontextmanager
async def stuck(tw: Running) -> AsyncIterator[None]:
    """Have the writer do nothing else meanwhile."""
    go_on, begun = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(_: object) -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    held = tw.server.recorder.write(hold)
    await begun.wait()
    try:
        yield
    finally:
        go_on.set()
        await held


async def test_a_call_is_refused_while_the_database_does_not_answer(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_budgets, "RESERVE_WAIT_S", 0.05)
    async with stuck(tw):
        got = await call(tw)
        assert (got.status, error_of(got)["code"]) == (503, "budget_unavailable")
    # It was reserved after all, and the end of the call gave it back.
    assert await stand(tw) == {"limit_usd": 1.0, "spent_usd": 0, "reserved_usd": 0}


async def test_what_could_not_be_reserved_in_time_is_not_reserved_later(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.recorder.CHANGE_WAIT_S", 0.05)
    asked: list[object] = []
    monkeypatch.setattr("storage.budgets.reserve", lambda _, one: asked.append(one))
    async with stuck(tw):
        got = await call(tw)
        assert (got.status, error_of(got)["code"]) == (503, "budget_unavailable")
    await tw.saved()
    assert asked == []


async def test_a_call_without_a_budget_reads_no_body_before_it_is_sent(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    head = asyncio.Event()

    async def script(peer: Peer) -> None:
        message = await peer.head()
        head.set()
        message.body = await peer.body(message)
        await peer.respond(answer())

    upstream.script = script
    async with connect(tw.port) as client:
        await client.send(
            b"POST /api/proxy/openai/v1/responses HTTP/1.1\r\nHost: localhost\r\n%b%b"
            b"Content-Length: %d\r\n\r\n%b" % (SESSION, TYPE, len(BODY), BODY[:10])
        )
        async with asyncio.timeout(10):
            await head.wait()
        await client.send(BODY[10:])
        assert (await client.response()).status == 200
    assert await stand(tw) is None


async def test_a_projects_default_holds_for_sessions_that_the_headers_name_unless_they_say_more(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(answer())
    project = {"session_budget_usd": 0.05}
    async with tw.client.patch(f"{tw.url}/api/projects/default", json=project) as changed:
        assert changed.status == 200, await changed.text()
    assert [(await call(tw, headers=SESSION)).status for _ in range(2)] == [200, 429]
    assert (await call(tw, headers=BUDGET)).status == 200
    assert (await stand(tw) or {})["limit_usd"] == 1
    # A session that is found in the body, or inferred, is not known before the call.
    named = BODY.replace(b"{", b'{"session_id": "s", ', 1)
    assert (await call(tw, named, headers=b"")).status == 200
    other = SESSION.replace(b": s", b": t")
    assert [(await call(tw, headers=other)).status for _ in range(2)] == [200, 429]


async def test_a_deleted_session_begins_with_a_whole_budget(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(answer())
    assert (await call(tw, headers=BUDGET.replace(b"1.00", b"0.05"))).status == 200
    assert (await call(tw, headers=BUDGET.replace(b"1.00", b"0.05"))).status == 429
    await tw.saved()
    async with tw.client.delete(f"{tw.url}/api/sessions/s") as deleted:
        assert deleted.status == 200
    assert (await call(tw, headers=BUDGET.replace(b"1.00", b"0.05"))).status == 200


@pytest.mark.parametrize("durability", ["safe", "strict", "fast"])
async def test_a_budget_holds_after_a_restart(
    tmp_path: Path, upstream: ScriptedUpstream, durability: str
) -> None:
    upstream.answers(answer())
    for statuses in ([200], [429]):
        async with priced(tmp_path, upstream, **{"recording.durability": durability}) as tw:
            headers = BUDGET.replace(b"1.00", b"0.07")
            assert [(await call(tw, headers=headers)).status for _ in statuses] == statuses


# In a process that is killed.


async def ask(server: Served, budget: bytes) -> Received:
    async with connect(server.port) as client:
        await client.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bX-Traceway-Session-Budget-Usd: %b\r\n%b"
            b"Content-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), SESSION, budget, TYPE, len(BODY), BODY)
        )
        return await client.response()


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["safe", "fast"])
async def test_a_budget_holds_after_a_kill_with_calls_in_flight(
    tmp_path: Path, upstream: ScriptedUpstream, durability: str
) -> None:
    gate = Gate(upstream, answer())
    config = tmp_path / "traceway.toml"
    config.write_text(PRICES_TOML)
    options = ("--config", str(config), "--upstream", f"openai={upstream.url}")
    environ = {"TRACEWAY_RECORDING_DURABILITY": durability}
    async with served(tmp_path, *options, environ=environ) as server:
        calls = [asyncio.create_task(ask(server, b"0.10")) for _ in range(3)]
        done, _ = await asyncio.wait(calls, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result().status for one in done] == [429]  # two of three fit
        while gate.asked < 2:
            gate.one_came.clear()
            await gate.one_came.wait()
        server.process.kill()
        await asyncio.gather(*calls, return_exceptions=True)

    async with served(tmp_path, *options, environ=environ) as server:
        got = await ask(server, b"0.10")
        assert got.status == 429
        error = error_of(got)
        assert error["spent_usd"] == 0
        assert error["reserved_usd"] == pytest.approx(0.08, abs=0.001)
        gate.open.set()
        assert (await ask(server, b"0.20")).status == 200
