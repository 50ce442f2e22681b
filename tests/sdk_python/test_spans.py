"""What the application writes, and what arrives of it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from tests.sdk_python.collector import Collector
from traceway import Traceway, current_span, current_trace


class Wrong(Exception):
    """What goes wrong in the application."""


def test_a_trace_goes_with_its_session_before_its_spans_and_ends_after_them(
    tw: Traceway, collector: Collector
) -> None:
    with (
        tw.trace("chat-turn", session_id="sess_1", user_id="ada", tags=["a", "b"]) as trace,
        trace.span("think", input={"q": 1}, metadata={"k": "v"}) as span,
    ):
        span.set_output(["yes"])
    assert tw.flush()
    opening, spans, end = collector.taken
    started_at = opening.pop("started_at")
    assert opening == {
        "type": "trace",
        "id": trace.id,
        "name": "chat-turn",
        "session_id": "sess_1",
        "user_id": "ada",
        "tags": ["a", "b"],
    }
    duration_ms, span_at = spans.pop("duration_ms"), spans.pop("started_at")
    assert spans == {
        "type": "span",
        "id": span.id,
        "trace_id": trace.id,
        "name": "think",
        "kind": {"type": "custom"},
        "input": {"q": 1},
        "output": ["yes"],
        "metadata": {"k": "v"},
        "status": "completed",
    }
    ended_at = end.pop("ended_at")
    assert end == {"type": "end", "id": trace.id}
    times = [datetime.fromisoformat(at) for at in (started_at, span_at, ended_at)]
    assert times == sorted(times)
    assert 0 <= duration_ms < 10_000
    assert (tw.dropped, tw.pending) == (0, 0)


def test_ids_are_what_the_write_api_takes(tw: Traceway) -> None:
    trace = tw.trace("t")
    span = trace.span("s")
    assert len(trace.id) == 32
    assert trace.id[12] == "7"  # a UUIDv7
    assert len(span.id) == 16
    assert len({tw.trace("t").id for _ in range(1_000)}) == 1_000


def test_spans_nest_by_where_the_code_is(tw: Traceway, collector: Collector) -> None:
    with tw.trace("t") as trace, trace.span("a") as a, tw.span("b") as b:
        trace.span("c").end()
        a.span("d").end()
        assert current_span() is b
        assert current_trace() is trace
    assert current_trace() is None
    tw.flush()
    parents = {name: span.get("parent_id") for name, span in collector.spans().items()}
    assert parents == {"a": None, "b": a.id, "c": b.id, "d": a.id}


def test_plain_handles_need_no_block(tw: Traceway, collector: Collector) -> None:
    trace = tw.trace("t", session_id="s")
    outer = trace.span("outer")
    inner = outer.span("inner")
    inner.end(output="done")
    outer.end()
    outer.end()
    trace.end()
    trace.end()
    tw.flush()
    assert [item["type"] for item in collector.taken] == ["trace", "span", "span", "end"]
    assert collector.spans()["inner"]["parent_id"] == outer.id
    assert collector.spans()["inner"]["output"] == "done"


def test_each_kind_has_its_own_fields(tw: Traceway, collector: Collector) -> None:
    trace = tw.trace("t")
    with trace.llm_call("answer", model="gpt-4o", provider="openai", input="Hi") as call:
        call.set_usage(input_tokens=5, output_tokens=7, cost=0.1, response_id="r")
    trace.embedding(model="small").end()
    trace.tool_call("run", input={"x": 1}).end()
    trace.retrieval("find").end()
    trace.fs_read("/etc/hosts").end()
    trace.fs_write("out.txt", input="text").end()
    trace.span("rank", kind="reranker").end()
    trace.span("own", kind={"type": "custom", "attributes": {"a": 1}}).end()
    tw.flush()
    assert {name: span["kind"] for name, span in collector.spans().items()} == {
        "answer": {
            "type": "llm_call",
            "model": "gpt-4o",
            "provider": "openai",
            "input_tokens": 5,
            "output_tokens": 7,
            "cost": 0.1,
            "response_id": "r",
        },
        "small": {"type": "embedding", "model": "small"},
        "run": {"type": "tool_call"},
        "find": {"type": "retrieval"},
        "/etc/hosts": {"type": "fs_read", "path": "/etc/hosts"},
        "out.txt": {"type": "fs_write", "path": "out.txt"},
        "rank": {"type": "custom", "kind": "reranker"},
        "own": {"type": "custom", "attributes": {"a": 1}},
    }


def test_an_exception_fails_the_span_and_goes_on(tw: Traceway, collector: Collector) -> None:
    with pytest.raises(Wrong), tw.trace("t") as trace, trace.span("s"):
        raise Wrong("no luck")
    tw.flush()
    assert [item["type"] for item in collector.taken] == ["trace", "span", "end"]
    span = collector.spans()["s"]
    assert (span["status"], span["error"]) == ("failed", "Wrong: no luck")


def test_an_exception_outside_of_every_span_is_a_failed_span_of_its_own(
    tw: Traceway, collector: Collector
) -> None:
    @tw.trace("turn")
    def turn() -> None:
        tw.span("fine").end()
        raise Wrong

    with pytest.raises(Wrong):
        turn()
    tw.flush()
    assert collector.spans()["fine"]["status"] == "completed"
    assert collector.spans()["turn"]["error"] == "Wrong"


def test_an_exception_that_was_handled_fails_its_span_alone(
    tw: Traceway, collector: Collector
) -> None:
    with tw.trace("t") as trace:
        try:
            with trace.span("first"):
                raise Wrong
        except Wrong:
            pass
        trace.span("second").end()
    tw.flush()
    states = {name: span["status"] for name, span in collector.spans().items()}
    assert states == {"first": "failed", "second": "completed"}


def test_fail_ends_a_plain_handle_and_leaves_a_block_to_its_end(
    tw: Traceway, collector: Collector
) -> None:
    trace = tw.trace("t")
    trace.span("plain").fail("bad")
    with trace.span("block") as span:
        span.fail(Wrong("later"))
        span.set_output("partial")
    tw.flush()
    plain, block = collector.spans()["plain"], collector.spans()["block"]
    assert (plain["status"], plain["error"]) == ("failed", "bad")
    assert (block["error"], block["output"]) == ("Wrong: later", "partial")


def test_a_trace_that_is_failed_by_hand_says_so_once(tw: Traceway, collector: Collector) -> None:
    wrong = Wrong("no")
    plain = tw.trace("plain")
    plain.fail("bad")

    @tw.trace("block")
    def block() -> None:
        trace = current_trace()
        assert trace is not None
        trace.fail(wrong)
        assert tw.span("inner").trace is trace
        raise wrong

    with pytest.raises(Wrong):
        block()
    tw.flush()
    failed = [span for span in collector.of("span") if span.get("status") == "failed"]
    assert [(span["name"], span["error"]) for span in failed] == [
        ("plain", "bad"),
        ("block", "Wrong: no"),
    ]
    assert len(collector.of("end")) == 2


def test_what_is_said_after_the_end_is_not_sent(tw: Traceway, collector: Collector) -> None:
    span = tw.span("s", input="in")
    span.end(output="out")
    span.set_input("late")
    span.set_output("late")
    span.set_usage(input_tokens=1)
    span.set_metadata(late=True)
    span.fail("late")
    tw.flush()
    sent = collector.spans()["s"]
    assert (sent["input"], sent["output"], sent["status"]) == ("in", "out", "completed")
    assert sent["kind"] == {"type": "custom"}
    assert "metadata" not in sent


def test_a_span_outside_of_a_trace_has_one_of_its_own(tw: Traceway, collector: Collector) -> None:
    with tw.span("alone"):
        tw.span("inner").end()
    tw.flush()
    assert [item["type"] for item in collector.taken] == ["trace", "span", "span", "end"]
    assert len({item.get("trace_id", item["id"]) for item in collector.taken}) == 1


def test_a_session_that_is_known_late_is_still_said(tw: Traceway, collector: Collector) -> None:
    with tw.trace("t") as trace:
        trace.identify(session_id="s", user_id="u")
        trace.identify(session_id="other")
    tw.flush()
    sessions = [item.get("session_id") for item in collector.of("trace")]
    assert sessions[-1] == "s"
    assert "other" not in sessions


async def test_async_blocks_and_tasks_keep_their_own_place(
    tw: Traceway, collector: Collector
) -> None:
    both = asyncio.Barrier(2)

    async def work(name: str) -> None:
        async with tw.span(name):
            await both.wait()
            tw.span(f"{name}-inner").end()

    async with tw.trace("t"):
        await asyncio.gather(work("a"), work("b"))
    await asyncio.to_thread(tw.flush)
    spans = collector.spans()
    assert spans["a-inner"]["parent_id"] == spans["a"]["id"]
    assert spans["b-inner"]["parent_id"] == spans["b"]["id"]
    assert "parent_id" not in spans["a"]


async def test_a_cancelled_task_fails_its_span(tw: Traceway, collector: Collector) -> None:
    began = asyncio.Event()

    async def work() -> None:
        async with tw.span("s"):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(tw.flush)
    assert collector.spans()["s"]["error"] == "CancelledError"


def test_a_handle_carries_a_trace_into_other_threads(tw: Traceway, collector: Collector) -> None:
    with tw.trace("t") as trace, trace.span("main") as main:

        def work(n: int) -> None:
            assert current_trace() is None
            with main.span(f"thread-{n}"):
                tw.span(f"deep-{n}").end()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(20)))
    tw.flush()
    spans = collector.spans()
    for n in range(20):
        assert spans[f"thread-{n}"]["parent_id"] == main.id
        assert spans[f"deep-{n}"]["parent_id"] == spans[f"thread-{n}"]["id"]
    assert len({span["trace_id"] for span in spans.values()}) == 1


def test_blocks_that_end_in_another_order_leave_nothing_behind(tw: Traceway) -> None:
    trace = tw.trace("t")
    a, b = trace.span("a"), trace.span("b")
    a.__enter__()
    b.__enter__()
    a.__exit__(None, None, None)
    assert current_span() is b
    b.__exit__(None, None, None)
    assert current_span() is None


def test_a_decorated_function_is_a_trace_or_a_span_each_time(
    tw: Traceway, collector: Collector
) -> None:
    @tw.span("step", kind="retrieval", metadata={"k": 1})
    def step(n: int) -> int:
        """Say it twice."""
        return n * 2

    @tw.trace("turn", session_id="s")
    def turn(n: int) -> int:
        return step(n)

    assert [turn(1), turn(2)] == [2, 4]
    assert (step.__name__, step.__doc__) == ("step", "Say it twice.")
    tw.flush()
    assert [item["type"] for item in collector.taken] == ["trace", "span", "end"] * 2
    assert len({item["id"] for item in collector.taken if item["type"] != "end"}) == 4
    first, second = collector.of("span")
    assert first["kind"] == second["kind"] == {"type": "retrieval"}
    assert first["metadata"] == {"k": 1}
    assert [item["session_id"] for item in collector.of("trace")] == ["s", "s"]


async def test_decorated_coroutines_last_until_they_are_done(
    tw: Traceway, collector: Collector
) -> None:
    @tw.trace("turn")
    async def turn() -> str:
        async with tw.span("inner"):
            await asyncio.sleep(0)
        return "done"

    assert await turn() == "done"
    await asyncio.to_thread(tw.flush)
    assert [item["type"] for item in collector.taken] == ["trace", "span", "end"]


def test_a_decorated_generator_is_where_it_is_only_while_it_runs(
    tw: Traceway, collector: Collector
) -> None:
    @tw.span("numbers")
    def numbers() -> Iterator[int]:
        tw.span("first").end()
        got = yield 1
        with tw.span("inner") as inner:
            yield got
            assert current_span() is inner
        return "end"

    with tw.trace("t") as trace:
        made: Any = numbers()
        assert next(made) == 1
        assert current_span() is None
        trace.span("reader").end()
        assert made.send(7) == 7
        assert current_span() is None
        with pytest.raises(StopIteration) as stop:
            next(made)
        assert stop.value.value == "end"
    tw.flush()
    spans = collector.spans()
    assert spans["first"]["parent_id"] == spans["inner"]["parent_id"] == spans["numbers"]["id"]
    assert "parent_id" not in spans["reader"]


def test_a_generator_that_is_left_early_is_completed_and_one_that_raises_failed(
    tw: Traceway, collector: Collector
) -> None:
    closed = []

    @tw.span("left")
    def left() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append(True)

    @tw.span("raised")
    def raised() -> Iterator[int]:
        yield 1
        raise Wrong

    made: Any = left()
    next(made)
    made.close()
    with pytest.raises(Wrong):
        list(raised())
    tw.flush()
    assert closed == [True]
    assert collector.spans()["left"]["status"] == "completed"
    assert collector.spans()["raised"]["status"] == "failed"


async def test_a_decorated_async_generator_lasts_until_its_end(
    tw: Traceway, collector: Collector
) -> None:
    @tw.span("stream")
    async def stream() -> AsyncIterator[int]:
        for n in range(3):
            tw.span(f"step-{n}").end()
            yield n

    @tw.span("broken")
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise Wrong

    assert [n async for n in stream()] == [0, 1, 2]
    stepped = broken()
    assert await anext(stepped) == 1
    assert current_span() is None
    with pytest.raises(Wrong):
        await anext(stepped)
    await asyncio.to_thread(tw.flush)
    spans = collector.spans()
    assert {spans[f"step-{n}"]["parent_id"] for n in range(3)} == {spans["stream"]["id"]}
    assert spans["broken"]["status"] == "failed"


def test_what_is_open_for_long_is_seen_running_and_ends_by_the_rest(collector: Collector) -> None:
    with Traceway(collector.url, flush_interval_s=60) as tw:
        with tw.trace("t", session_id="s") as trace:
            with trace.llm_call("slow", model="m", input="question") as span:
                tw.flush()
                running = collector.spans()["slow"]
                span.set_output("answer")
                span.set_usage(output_tokens=3)
            failing = trace.span("failing")
            tw.flush()
            failing.fail("bad")
        tw.flush()
    assert running["input"] == "question"
    assert not {"status", "duration_ms", "output"} & running.keys()
    (rest,) = collector.of("complete")
    assert 0 <= rest.pop("duration_ms") < 10_000
    assert rest == {
        "id": span.id,
        "trace_id": trace.id,
        "kind": {"type": "llm_call", "model": "m", "output_tokens": 3},
        "output": "answer",
    }
    assert collector.of("fail")[0]["error"] == "bad"
    assert len(collector.of("trace")) == 1


def test_what_is_open_is_sent_without_being_asked(collector: Collector) -> None:
    with Traceway(collector.url, flush_interval_s=0.01) as tw, tw.trace("t"), tw.span("long"):
        while not collector.of("span"):
            assert collector.arrived.acquire(timeout=10)
    assert len(collector.of("complete")) == 1


def test_what_the_application_gives_never_raises(tw: Traceway, collector: Collector) -> None:
    class Hostile:
        def __str__(self) -> str:
            raise Wrong

        __repr__ = __str__

    hostile: Any = Hostile()
    with (
        tw.trace(hostile, session_id=hostile, user_id=hostile, tags=hostile) as trace,
        trace.span(hostile, kind=hostile, input=hostile, metadata=hostile) as span,
    ):
        span.set_output(hostile)
        span.set_usage(input_tokens=hostile)
        span.set_metadata(x=hostile)
        span.fail(hostile)
    tw.trace("t", session_id="a\nb").end()
    assert tw.flush()
    assert tw.dropped == 0
    assert len(collector.of("span")) == 1


def test_an_input_is_what_it_was_when_it_was_given(tw: Traceway, collector: Collector) -> None:
    messages = ["one"]
    with tw.span("s", input=messages):
        messages.append("two")
    tw.flush()
    assert collector.spans()["s"]["input"] == ["one"]


def test_a_client_that_is_switched_off_sends_nothing(collector: Collector) -> None:
    with Traceway(collector.url, enabled=False) as tw:
        with tw.trace("t"), tw.span("s"):
            pass
        assert tw.flush()
    assert collector.requests == []
    assert threading.active_count() < 50
