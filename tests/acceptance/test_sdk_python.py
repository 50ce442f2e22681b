"""The Python SDK and the openai package against a running server: one tree, one sum."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.acceptance.provider import Provider
from tests.running import Running
from traceway import Traceway

KEY = "sk-canary-0123456789abcdef"
MESSAGES: Any = [{"role": "user", "content": "Where is my order?"}]


@pytest.fixture
async def tw(proxy: Running) -> AsyncIterator[Traceway]:
    """A client of the server, which is in this thread's event loop and must not be waited for."""
    client = Traceway(proxy.url)
    yield client
    assert await asyncio.to_thread(client.close)
    assert client.dropped == 0


async def flushed(tw: Traceway) -> None:
    assert await asyncio.to_thread(tw.flush)


def turn(tw: Traceway, session_id: str) -> str:
    """One turn of an agent: it looks something up, asks the model, runs a tool."""
    with (
        openai.OpenAI(api_key=KEY, max_retries=0) as plain,
        tw.trace("chat-turn", session_id=session_id, user_id="ada", tags=["shop"]) as trace,
    ):
        client = tw.wrap(plain)
        with trace.retrieval("find-order", input={"query": "order"}) as found:
            found.set_output(["order 88213"])
        with trace.span("answer", kind="agent") as answer:
            client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
            with tw.span("send-mail", kind="tool_call", input={"to": "ada"}) as tool:
                tool.set_output("sent")
            with trace.llm_call("judge", model="gpt-4o-mini", provider="openai") as judge:
                judge.set_usage(input_tokens=1_000, output_tokens=200)
            answer.set_output("It is on its way.")
    return trace.id


async def test_one_trace_with_a_proxied_call_in_its_place(
    proxy: Running, openai_like: Provider, tw: Traceway
) -> None:
    trace_id = await asyncio.to_thread(turn, tw, "sess_1")
    await flushed(tw)
    await proxy.server.idle()
    trace = await proxy.api(f"/api/traces/{trace_id}")
    spans = {span["name"]: span for span in trace["spans"]}
    assert openai_like.authorizations == {f"Bearer {KEY}"}
    calls = [span for span in trace["spans"] if span["kind"]["type"] == "llm_call"]
    (call,) = (span for span in calls if span["name"] != "judge")
    answer = spans["answer"]["id"]
    assert {span["name"]: span["parent_id"] for span in trace["spans"]} == {
        "find-order": None,
        "answer": None,
        call["name"]: answer,
        "send-mail": answer,
        "judge": answer,
    }
    assert spans["answer"]["kind"]["type"] == "custom"
    assert spans["send-mail"]["kind"]["type"] == "tool_call"
    assert trace["status"] == "completed"
    assert (trace["name"], trace["session_id"]) == ("chat-turn", "sess_1")
    # The figures of the trace and of the session are the sum of the two model calls.
    session = await proxy.api("/api/sessions/sess_1")
    for name in ("input_tokens", "output_tokens"):
        assert [one["kind"][name] for one in calls] == [1_000 if name[0] == "i" else 200] * 2
        assert trace[name] == session[name] == sum(one["kind"][name] for one in calls)
    assert trace["cost"] == pytest.approx(sum(one["kind"]["cost"] for one in calls))
    assert session["cost"] == trace["cost"]
    assert (session["trace_count"], session["span_count"]) == (1, 5)
    assert session["user_id"] == "ada"


async def test_a_call_that_a_span_saw_as_well_counts_once(proxy: Running, tw: Traceway) -> None:
    def work() -> str:
        with (
            openai.OpenAI(api_key=KEY, max_retries=0) as plain,
            tw.trace("t", session_id="once") as trace,
            trace.llm_call("ask", model="gpt-4o-mini", provider="openai") as span,
        ):
            tw.wrap(plain).chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
            span.set_usage(input_tokens=1_000, output_tokens=200)
        return trace.id

    trace_id = await asyncio.to_thread(work)
    await flushed(tw)
    await proxy.server.idle()
    trace = await proxy.api(f"/api/traces/{trace_id}")
    session = await proxy.api("/api/sessions/once")
    assert trace["span_count"] == 2
    assert (trace["input_tokens"], trace["output_tokens"]) == (1_000, 200)
    assert (session["input_tokens"], session["cost"]) == (1_000, trace["cost"])


async def test_two_turns_are_one_session(proxy: Running, tw: Traceway) -> None:
    first = await asyncio.to_thread(turn, tw, "user_123:conv_456")
    second = await asyncio.to_thread(turn, tw, "user_123:conv_456")
    await flushed(tw)
    await proxy.server.idle()
    session = await proxy.api("/api/sessions/user_123:conv_456")
    assert [trace["id"] for trace in session["traces"]] == [first, second]
    assert session["span_count"] == 10


async def test_what_fails_and_what_still_runs_is_seen(proxy: Running, tw: Traceway) -> None:
    with tw.trace("job", session_id="jobs") as trace:
        with pytest.raises(ValueError, match="no"), trace.span("step"):
            raise ValueError("no")
        with trace.span("long"):
            await flushed(tw)
            running = await proxy.api(f"/api/traces/{trace.id}")
    await flushed(tw)
    ended = await proxy.api(f"/api/traces/{trace.id}")
    assert running["status"] == "running"
    assert {span["name"]: span["status"] for span in running["spans"]}["long"] == "running"
    states = {span["name"]: span["status"] for span in ended["spans"]}
    assert states["long"] == "completed"
    assert states["step"]["failed"]["error"] == "ValueError: no"
    assert ended["status"] == "failed"


async def test_a_retry_after_a_lost_answer_changes_nothing(proxy: Running, tw: Traceway) -> None:
    with tw.trace("t", session_id="s") as trace:
        trace.span("a").end()
    sent: list[list[bytes]] = []
    connection = tw._sender._connection
    post = connection.post

    def twice(items: list[bytes]) -> Any:
        sent.append(items)
        post(items)
        return post(items)

    connection.post = twice  # type: ignore[method-assign]
    await flushed(tw)
    assert sent
    assert (await proxy.api(f"/api/traces/{trace.id}"))["span_count"] == 1
    assert (await proxy.api("/api/sessions/s"))["trace_count"] == 1


@pytest.mark.parametrize(
    "value",
    [None, "", "é\ud800", 1.5, float("nan"), b"\xff", [[]], {"a": {1: {2}}}, "x" * 2_000_000],
    ids=repr,
)
async def test_any_value_is_taken(proxy: Running, tw: Traceway, value: object) -> None:
    with tw.span("s", input=value, metadata={"m": value}) as span:
        span.set_output(value)
    await flushed(tw)
    stored = await proxy.api(f"/api/spans/{span.id}")
    assert stored["status"] == "completed"
    assert (stored["input"] is None) == (value is None)
