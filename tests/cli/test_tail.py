"""`traceway tail`: calls as they end, one line each, over breaks, restarts and floods."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import openai
import orjson
import pytest

from storage import packed_spans
from storage.records import CANCELLED, FAILED, TRUNCATED, Tokens
from tests.api.asking import ask as ask_api
from tests.api.asking import save
from tests.cli.asking import Said, Started, started
from tests.cli.talking import Reply, Talking, assistant
from tests.cli.test_terminal import HOSTILE, obeyed
from tests.running import Running, running
from tests.served import START_S
from tests.storage.calls import end, start
from tests.ui.agents import Agent
from tests.wire import ScriptedUpstream

END = Said(130, "", "")


async def interrupted(command: Started) -> Said:
    """Press Ctrl-C."""
    command.process.send_signal(signal.SIGINT)
    return await command.ended()


async def test_a_call_of_a_real_client_is_a_line_when_it_ends(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    await save(tw, end(start(1, session_id="before")))
    upstream.answers(Reply(assistant("hello")).body())
    async with started("tail", "--since", "0", "--url", tw.url) as command:
        first = await command.line()
        async with openai.AsyncOpenAI(base_url=tw.openai_base, api_key="k") as client:
            await client.chat.completions.create(
                model="gpt-4o",
                messages=[{"role": "user", "content": "hi"}],
                extra_headers={"X-Traceway-Session-Id": "live one"},
            )
        second = await command.line()
        assert await interrupted(command) == END
    span = (await ask_api(tw, "/api/spans?q=session:%22live%20one%22")).body["spans"][0]
    assert first == (
        "22:13:21  completed        15  $0.00000010    500 ms  gpt-5               before"
    )
    assert second.split() == [
        span["ended_at"][11:19],
        *("completed", "1,234", "$0.0033", f"{span['metadata']['duration_ms']:.0f}", "ms"),
        *("gpt-4o-2024-08-06", "live", "one"),
    ]


async def test_failures_say_why_and_what_is_unknown_is_not_nothing(tw: Running) -> None:
    await save(tw, end(start(1), state=FAILED, error="HTTP 500: oh", cost_nusd=None, model=None))
    await save(tw, end(start(2, session_id="s"), state=TRUNCATED, error="cut", tokens=Tokens()))
    await save(tw, end(start(3, session_id="s"), state=CANCELLED, usage_source="estimated"))
    async with started("tail", "--since", "0", "--url", tw.url) as command:
        lines = [await command.line() for _ in range(3)]
    assert [line[10:] for line in lines] == [
        "failed           15          —    500 ms  —                                             "
        "HTTP 500: oh",
        "truncated         —  $0.00000010    500 ms  gpt-5               s                         "
        "cut",
        "cancelled       ~15  ~$0.00000010    500 ms  gpt-5               s",
    ]


async def test_what_is_no_call_of_a_model_is_told_by_its_name(tw: Running) -> None:
    agent = Agent(tw)
    root = await agent.span("chat turn", took_s=2)
    await agent.span("refund", "tool_call", parent=root, state="failed", error="no shop")
    await agent.span("ask", "llm_call", model="gpt-5", tokens=(10, 5), cost_nusd=100)
    await agent.span("ask", "llm_call")
    async with started("tail", "--since", "0", "--url", tw.url) as command:
        lines = [await command.line() for _ in range(4)]
    assert [" ".join(line.split()[1:]) for line in lines] == [
        "completed — — 2.0 s chat turn agent",
        "failed — — 1.0 s refund agent no shop",
        "completed 15 $0.00000010 1.0 s gpt-5 agent",
        "completed — — 1.0 s — agent",
    ]


async def test_a_terminal_is_never_overflowed_and_shows_errors_below(tw: Running) -> None:
    long = end(start(1, session_id="x" * 90), state=FAILED, error="e" * 200, model="m" * 90)
    await save(tw, long)
    async with started("tail", "--since", "0", "--url", tw.url, COLUMNS="80") as command:
        lines = [await command.line(), await command.line()]
    assert [len(line) for line in lines] == [80, 80]
    assert lines[0].endswith("mmm…  xxxxxxxxxxx…")
    assert lines[1] == f"{' ' * 10}{'e' * 69}…"


async def test_with_all_a_call_is_also_a_line_when_it_begins(tw: Running) -> None:
    call = start(1, session_id="s")
    async with started("tail", "--all", "--since", "0", "--url", tw.url) as command:
        await save(tw, call)
        begun = await command.line()
        await save(tw, end(call))
        ended = await command.line()
    assert begun.split() == ["22:13:21", "running", "—", "s"]
    assert ended.split()[1:3] == ["completed", "15"]


async def test_a_query_chooses_the_calls_by_their_traces(tw: Running) -> None:
    await save(
        tw,
        end(start(1, session_id="a"), state=FAILED),
        end(start(2, session_id="a")),
        end(start(3, session_id="b"), state=FAILED),
    )
    at = ("--since", "0", "--url", tw.url)
    async with started("tail", "session:a status:failed", "--json", *at) as command:
        (first,) = [orjson.loads(await command.line())]
        await save(tw, end(start(4, session_id="a")), end(start(5, session_id="a"), state=FAILED))
        second = orjson.loads(await command.line())
        assert await interrupted(command) == END
    assert [event["span"]["name"] for event in (first, second)] == ["call 1", "call 5"]


async def test_as_json_a_line_is_the_event_and_the_span_as_the_api_has_them(tw: Running) -> None:
    await save(tw, end(start(1, session_id="s"), input_preview="hi"))
    async with started("tail", "--json", "--since", "0", "--url", tw.url) as command:
        line = orjson.loads(await command.line())
    (span,) = (await ask_api(tw, "/api/spans")).body["spans"]
    at = line.pop("at")
    number = line.pop("id")
    assert line == {
        "type": "span_completed",
        "trace_id": f"{1:032x}",
        "span_id": f"{1:016x}",
        "session_id": "s",
        "model": "gpt-5",
        "status": "completed",
        "span": span,
    }
    assert at > span["ended_at"]
    async with started("tail", "--json", "--since", str(number), "--url", tw.url) as command:
        await save(tw, end(start(2)))
        assert orjson.loads(await command.line())["span"]["name"] == "call 2"


async def test_a_flood_is_shown_whole_and_in_order(tw: Running) -> None:
    await save(tw, *(end(start(n)) for n in range(1, 351)))
    async with started("tail", "status:completed", "--json", "--since", "0", "--url", tw.url) as t:
        names = [orjson.loads(await t.line())["span"]["name"] for _ in range(350)]
    assert names == [f"call {n}" for n in range(1, 351)]


async def test_a_restart_of_the_server_is_survived_and_nothing_is_missed_or_told_twice(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        tw = await first.enter_async_context(running(tmp_path, upstream.url))
        await save(tw, end(start(1)))
        command = await stack.enter_async_context(
            started("tail", "--json", "--since", "0", "--url", tw.url)
        )
        lines = [await command.line()]
        await first.aclose()
        broken = await command.note()
        port = {"server.port": str(tw.port)}
        tw = await stack.enter_async_context(running(tmp_path, upstream.url, port))
        await save(tw, end(start(2)))
        lines.append(await command.line())
        assert await command.note() == "traceway: connected again"
        assert await interrupted(command) == END
    assert broken == f"traceway: the connection to {tw.url} broke; trying again"
    assert [orjson.loads(line)["span"]["name"] for line in lines] == ["call 1", "call 2"]


async def test_what_ends_while_the_connection_is_broken_is_shown_after_it(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        tw = await first.enter_async_context(running(tmp_path, upstream.url))
        command = await stack.enter_async_context(started("tail", "--json", "--url", tw.url))
        async with asyncio.timeout(START_S):
            while not (await ask_api(tw, "/api/health")).body["event_subscribers"]:
                pass
        await first.aclose()
        assert "broke" in await command.note()
        port = {"server.port": str(tw.port)}
        tw = await stack.enter_async_context(running(tmp_path, upstream.url, port))
        await save(tw, end(start(1)))
        assert orjson.loads(await command.line())["span"]["name"] == "call 1"


async def test_who_comes_back_too_late_is_told_that_calls_are_missing(tw: Running) -> None:
    async with started("tail", "--since", "999", "--url", tw.url) as command:
        assert (await command.note()).startswith("traceway: calls are missing here")
        await save(tw, end(start(1)))
        assert (await command.line()).split()[1] == "completed"


async def test_a_call_that_was_deleted_meanwhile_is_passed_over(tw: Running) -> None:
    await save(tw, end(start(1)), end(start(2)))
    await ask_api(tw, f"/api/traces/{1:032x}", "DELETE")
    async with started("tail", "--json", "--since", "0", "--url", tw.url) as command:
        assert orjson.loads(await command.line())["span"]["name"] == "call 2"


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_texts_of_attackers_do_nothing_to_the_terminal(
    tw: Running, upstream: ScriptedUpstream, form: tuple[str, ...]
) -> None:
    client = Talking(tw, upstream, "s")
    said: list[object] = []
    for text in HOSTILE:
        said.append({"role": "user", "content": text})
        await client.turn(said, Reply(assistant(text), model=text))
        await client.turn(said, Reply({"message": text}, 1, b"400 Bad"))
    async with started("tail", *form, "--since", "0", "--url", tw.url) as command:
        lines = [await command.line() for _ in range(2 * len(HOSTILE))]
        assert await interrupted(command) == END
    assert [obeyed(line) for line in lines] == [set()] * len(lines)


async def test_calls_that_no_one_answer_holds_are_all_shown(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_spans, "ANSWER_BYTES", 1)
    await save(tw, *(end(start(n, session_id=f"s{n}")) for n in (1, 2, 3)))
    async with started("tail", "--since", "0", "--url", tw.url) as command:
        lines = [await command.line() for _ in range(3)]
    assert [line.split()[-1] for line in lines] == ["s1", "s2", "s3"]
