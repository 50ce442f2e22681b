"""Clients that name no session, through a real proxy: their conversations are recognised, or left.

The clients are the `openai` package, and resend answers in their own form; the upstream answers
every call with words of its own, unless it is told to repeat itself.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

import openai
import orjson
import pytest

from tests.conftest import Serve
from tests.running import Running
from tests.wire import Peer, ScriptedUpstream

Json = dict[str, Any]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


class Model:
    """Answers chats and responses, whole or streamed; `alike`: always with the same words.

    A question that comes with tools is answered by a call of one, its result by text.
    """

    def __init__(self, *, alike: bool = False) -> None:
        self._numbers = itertools.repeat(1) if alike else itertools.count(1)

    async def script(self, peer: Peer) -> None:
        while True:
            asked = orjson.loads((await peer.request()).body)
            n = next(self._numbers)
            answer = _response(n) if "input" in asked else _chat(n, asked)
            if not asked.get("stream"):
                await peer.respond(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
                continue
            events = _response_events(answer) if "input" in asked else _chat_events(answer)
            data = b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in events)
            end = b"" if "input" in asked else b"data: [DONE]\n\n"
            await peer.respond(data + end, content_type=b"text/event-stream")


def _chat(n: int, asked: Json) -> Json:
    message: Json = {
        "role": "assistant",
        "content": f" Answer {n}:\n“Zürich” \\o/ ",
        "refusal": None,
    }
    message["annotations"] = []
    if "tools" in asked and asked["messages"][-1]["role"] == "user":
        arguments = f'{{"city": "Zürich",\n "day": {n}, "exact": 1.50}}'
        function = {"name": "weather", "arguments": arguments}
        calls = [{"id": f"call_{n}", "type": "function", "function": function}]
        message |= {"content": None, "tool_calls": calls}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    head = {"id": f"chatcmpl-{n}", "object": "chat.completion", "created": 1, "model": "gpt-5"}
    return {**head, "choices": [choice], "usage": usage}


def _chat_events(answer: Json) -> Iterable[Json]:
    message = answer["choices"][0]["message"]
    deltas: list[Json] = [{"role": "assistant", "content": "" if message["content"] else None}]
    deltas += [{"content": part} for part in _parts(message["content"] or "")]
    for call in message.get("tool_calls", ()):
        function = {**call["function"], "arguments": ""}
        deltas.append({"tool_calls": [{**call, "index": 0, "function": function}]})
        for part in _parts(call["function"]["arguments"]):
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
    head = {**answer, "object": "chat.completion.chunk", "usage": None}
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield {**head, "choices": [], "usage": answer["usage"]}


def _response(n: int) -> Json:
    content = {"type": "output_text", "text": f"Answer {n}: “Zürich”", "annotations": []}
    message = {"id": f"msg_{n}", "type": "message", "role": "assistant", "status": "completed"}
    thought = {"id": f"rs_{n}", "type": "reasoning", "summary": []}
    head = {"id": f"resp_{n}", "object": "response", "created_at": 1, "model": "gpt-5"}
    head |= {"status": "completed", "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return {**head, "output": [thought, {**message, "content": [content]}]}


def _response_events(answer: Json) -> Iterable[Json]:
    begun = {**answer, "status": "in_progress", "output": []}
    yield {"type": "response.created", "sequence_number": 0, "response": begun}
    yield {"type": "response.completed", "sequence_number": 1, "response": answer}


def _parts(text: str) -> list[str]:
    return [text[at : at + 5] for at in range(0, len(text), 5)]


# How clients resend an answer of a chat.


def dumped(message: Any) -> Json:
    """As `message.model_dump()`: every field that the package knows, most of them null."""
    return dict(message.model_dump())


def dumped_without_nulls(message: Any) -> Json:
    return dict(message.model_dump(exclude_none=True))


def made_by_hand(message: Any) -> Json:
    made: Json = {"content": message.content, "role": "assistant"}
    if message.tool_calls:
        made["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    return made


def as_the_vercel_ai_sdk(message: Any) -> Json:
    """Its arguments are parsed and written anew; text is "" where there is none."""
    calls = [
        {
            "type": "function",
            "function": {
                "arguments": json.dumps(
                    json.loads(call.function.arguments), ensure_ascii=False, separators=(",", ":")
                ),
                "name": call.function.name,
            },
            "id": call.id,
        }
        for call in message.tool_calls or ()
    ]
    made: Json = {"role": "assistant", "content": message.content or ""}
    return {**made, "tool_calls": calls} if calls else made


def as_parts(message: Any) -> Json:
    made = as_the_vercel_ai_sdk(message)
    return {
        **made,
        "content": [{"type": "text", "text": made["content"]}] if made["content"] else [],
    }


FORMS = [dumped, dumped_without_nulls, made_by_hand, as_the_vercel_ai_sdk, as_parts]


class Chat:
    """A conversation that a client holds; `traces` are those of its calls."""

    def __init__(
        self,
        tw: Running,
        form: Callable[[Any], Json] = made_by_hand,
        *,
        streams: bool = False,
        tools: bool = False,
    ) -> None:
        self.traces: list[str] = []
        self._base = tw.openai_base
        self._form = form
        self._options: Json = {"stream": streams, **({"tools": [TOOL]} if tools else {})}
        self._messages: list[Any] = [{"role": "user", "content": "What is the weather?"}]

    async def turn(self, client: openai.AsyncOpenAI, **headers: str) -> None:
        """Make one call, and take up its answer as this client does."""
        # Programs put the time into their system prompt: it changes with every call.
        system: Any = {"role": "system", "content": f"It is {len(self.traces)} past noon."}
        raw: Any = await client.chat.completions.with_raw_response.create(
            model="gpt-5",
            messages=[system, *self._messages],
            extra_headers=headers,
            **self._options,
        )
        self.traces.append(raw.headers["X-Traceway-Trace-Id"])
        if self._options["stream"]:
            state: Any = openai.lib.streaming.chat.ChatCompletionStreamState()
            async for chunk in raw.parse():
                state.handle_chunk(chunk)
            message: Any = state.get_final_completion().choices[0].message
        else:
            message = raw.parse().choices[0].message
        self._messages.append(self._form(message))
        self._messages += [
            {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}
            for call in message.tool_calls or ()
        ] or [{"role": "user", "content": "And tomorrow?"}]


def client_of(tw: Running, key: str = "sk-one-0123456789abcdef") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, base_url=tw.openai_base, max_retries=0)


async def interleaved(tw: Running, chats: list[Chat], turns: int) -> None:
    """Hold all conversations at once, turn by turn, a few calls at a time."""
    places = asyncio.Semaphore(16)

    async def one(chat: Chat, client: openai.AsyncOpenAI) -> None:
        async with places:
            await chat.turn(client)

    async with client_of(tw) as client:
        for _ in range(turns):
            await asyncio.gather(*(one(chat, client) for chat in chats))


async def sessions_by_trace(tw: Running) -> dict[str, str | None]:
    traces = (await tw.api("/api/traces?limit=1000"))["traces"]
    return {trace["id"]: trace["session_id"] for trace in traces}


async def sources(tw: Running) -> list[str | None]:
    """Give the source of every trace's session, oldest first."""
    traces = (await tw.api("/api/traces?limit=1000"))["traces"]
    return [trace["session_source"] for trace in reversed(traces)]


async def test_200_conversations_that_begin_alike_are_200_sessions_of_5_calls(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.script = Model().script
    ways = list(itertools.product(FORMS, (False, True), (False, True))) * 10
    chats = [Chat(tw, form, streams=streams, tools=tools) for form, streams, tools in ways]
    assert len(chats) == 200

    await interleaved(tw, chats, 5)

    sessions = (await tw.api("/api/sessions?limit=1000"))["sessions"]
    assert [session["trace_count"] for session in sessions] == [5] * 200
    assert {session["source"] for session in sessions} == {"continuation"}
    found = await sessions_by_trace(tw)
    for chat in chats:  # each has the calls of one conversation, and is named after the first
        assert {found[trace] for trace in chat.traces} == {f"auto_{chat.traces[0]}"}


async def test_conversations_with_the_same_answers_have_no_session_and_are_not_put_together(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.script = Model(alike=True).script
    await interleaved(tw, [Chat(tw, form) for form in FORMS], 3)

    assert (await tw.api("/api/sessions"))["sessions"] == []
    assert await sources(tw) == [None] * 5 + ["ambiguous"] * 10
    for trace in (await tw.api("/api/traces"))["traces"]:
        assert (trace["session_id"], trace["session_confidence"]) == (None, None)


async def test_an_inferred_session_begins_with_the_second_call_and_says_how_it_is_known(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.script = Model().script
    chat = Chat(tw)
    async with client_of(tw) as client:
        await chat.turn(client)
        assert await sources(tw) == [None]
        await chat.turn(client)
    for trace in (await tw.api("/api/traces"))["traces"]:
        assert trace["session_id"] == f"auto_{chat.traces[0]}"
        assert (trace["session_source"], trace["session_confidence"]) == (
            "continuation",
            "inferred",
        )


async def test_nothing_is_inferred_where_that_is_turned_off(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    tw = await serve({"sessions.infer": "false"})
    upstream.script = Model().script
    await interleaved(tw, [Chat(tw)], 3)
    assert await sources(tw) == [None] * 3


async def test_a_conversation_that_goes_on_with_another_key_is_not_continued(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.script = Model().script
    chat = Chat(tw)
    for key in ("sk-one-0123456789abcdef", "sk-two-0123456789abcdef"):
        async with client_of(tw, key) as client:
            await chat.turn(client)
    assert await sources(tw) == [None, None]


async def test_a_call_that_names_a_session_goes_there_and_those_before_it_stay(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.script = Model().script
    chat = Chat(tw)
    async with client_of(tw) as client:
        await chat.turn(client)
        await chat.turn(client)
        await chat.turn(client, **{"X-Traceway-Session-Id": "mine"})
        await chat.turn(client)
    found = await sessions_by_trace(tw)
    auto = f"auto_{chat.traces[0]}"
    # The last one goes on from the call that was named.
    assert [found[trace] for trace in chat.traces] == [auto, auto, "mine", "mine"]
    assert await sources(tw) == ["continuation", "continuation", "header", "continuation"]


@pytest.mark.parametrize("streams", [False, True])
async def test_a_chain_of_responses_is_one_session(
    tw: Running, upstream: ScriptedUpstream, streams: bool
) -> None:
    upstream.script = Model().script
    last: dict[int, str] = {}
    traces: dict[int, list[str]] = {0: [], 1: [], 2: []}
    async with client_of(tw) as client:
        for _ in range(3):
            for chain, own in traces.items():
                raw: Any = await client.responses.with_raw_response.create(
                    model="gpt-5",
                    input="And then?",
                    previous_response_id=last.get(chain, openai.omit),
                    stream=streams,
                )
                own.append(raw.headers["X-Traceway-Trace-Id"])
                last[chain] = await _finished(raw.parse())
    found = await sessions_by_trace(tw)
    for own in traces.values():
        assert {found[trace] for trace in own} == {f"auto_{own[0]}"}
    assert set(await sources(tw)) == {"previous_response"}


async def _finished(answer: Any) -> str:
    if not isinstance(answer, openai.AsyncStream):
        return str(answer.id)
    return str([event.response.id async for event in answer][-1])


def items_dumped(output: list[Any]) -> list[Json]:
    return [item.model_dump() for item in output]


def items_without_nulls(output: list[Any]) -> list[Json]:
    return [item.model_dump(exclude_none=True) for item in output]


def items_as_a_chat(output: list[Any]) -> list[Json]:
    texts = [item.content[0].text for item in output if item.type == "message"]
    return [{"role": "assistant", "content": text} for text in texts]


def items_as_the_vercel_ai_sdk(output: list[Any]) -> list[Json]:
    return [{"type": "item_reference", "id": item.id} for item in output]


def items_as_the_vercel_ai_sdk_without_a_store(output: list[Any]) -> list[Json]:
    content = [
        [{"type": "output_text", "text": part.text} for part in item.content]
        for item in output
        if item.type == "message"
    ]
    return [{"role": "assistant", "content": parts} for parts in content]


@pytest.mark.parametrize(
    "form",
    [
        items_dumped,
        items_without_nulls,
        items_as_a_chat,
        items_as_the_vercel_ai_sdk,
        items_as_the_vercel_ai_sdk_without_a_store,
    ],
)
async def test_responses_that_resend_their_items_are_one_session_per_conversation(
    tw: Running, upstream: ScriptedUpstream, form: Callable[[list[Any]], list[Json]]
) -> None:
    upstream.script = Model().script
    inputs: list[list[Any]] = [[{"role": "user", "content": "Hello"}] for _ in range(3)]
    traces: list[list[str]] = [[] for _ in inputs]
    async with client_of(tw) as client:
        for _ in range(3):
            for items, own in zip(inputs, traces, strict=True):
                raw = await client.responses.with_raw_response.create(model="gpt-5", input=items)
                own.append(raw.headers["X-Traceway-Trace-Id"])
                items += form(raw.parse().output)
                items.append({"role": "user", "content": "And then?"})
    found = await sessions_by_trace(tw)
    for own in traces:
        assert {found[trace] for trace in own} == {f"auto_{own[0]}"}
    assert set(await sources(tw)) == {"continuation"}
