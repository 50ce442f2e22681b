"""Conversations end to end: what clients sent through the proxy, read as what was said."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.calling import DONE, delta
from tests.running import CHAT, Running
from tests.wire import Peer, ScriptedUpstream

RESPONSES = "/api/proxy/openai/v1/responses"
Message = dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def chat_answer(message: Message) -> bytes:
    """Give a whole answer of chat completions."""
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return orjson.dumps({"id": "c", "model": "gpt-4o-mini", "choices": choices, "usage": usage})


def streamed(message: Message) -> bytes:
    """Give an answer as a stream, in two pieces."""
    text = message["content"]
    return delta(text[:2]) + delta(text[2:]) + DONE


class Provider:
    """Answers each call with the next of `says`, as the call wants it."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.says: list[Message] = []
        self.wrap: Callable[[Message], bytes] = chat_answer
        self.requests: list[Message] = []
        upstream.script = self._script

    async def _script(self, peer: Peer) -> None:
        request = orjson.loads((await peer.request()).body)
        self.requests.append(request)
        message = self.says.pop(0)
        if request.get("stream"):
            await peer.respond(streamed(message), content_type=b"text/event-stream")
        else:
            await peer.respond(self.wrap(message), content_type=b"application/json")


@pytest.fixture
def provider(upstream: ScriptedUpstream) -> Provider:
    return Provider(upstream)


async def post(tw: Running, path: str, body: Message) -> None:
    headers = b"Content-Type: application/json\r\nX-Traceway-Session-Id: s\r\n"
    reply = await tw.raw(path.encode(), headers=headers, body=orjson.dumps(body))
    assert reply.status == 200, reply.body


async def ask(
    tw: Running, provider: Provider, messages: list[Message], answer: Message, **more: Any
) -> None:
    """Make a call of chat completions that sends these messages and gets this answer."""
    provider.says.append(answer)
    await post(tw, CHAT, {"model": "gpt-4o-mini", "messages": messages, **more})


async def talk(tw: Running, provider: Provider, turns: int, **more: Any) -> list[Message]:
    messages: list[Message] = []
    for n in range(turns):
        messages.append(user(f"question {n}"))
        await ask(tw, provider, messages, assistant(f"answer {n}"), **more)
        messages.append(assistant(f"answer {n}"))
    return messages


async def read(tw: Running, query: str = "") -> list[Message]:
    page = await tw.api(f"/api/sessions/s/conversation?limit=1000{query}")
    assert page["count"] == page["total"] == len(page["messages"])
    found: list[Message] = page["messages"]
    return found


def texts(messages: list[Message]) -> list[str]:
    return [message.get("text", message.get("content")) for message in messages]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_of_n_turns_reads_as_2n_messages(
    tw: Running, provider: Provider, stream: bool
) -> None:
    sent = await talk(tw, provider, 6, stream=stream)
    found = await read(tw)
    assert texts(found) == texts(sent)
    assert [m["role"] for m in found] == ["user", "assistant"] * 6
    assert [m["turn"]["number"] for m in found] == [n for n in range(1, 7) for _ in range(2)]
    for answer in found[1::2]:
        assert answer["outcome"]["state"] == "completed"
        assert answer["outcome"]["duration_ms"] > 0
        assert answer["outcome"]["model"].startswith("gpt-4o-mini")
    if not stream:
        assert {m["outcome"]["input_tokens"] for m in found[1::2]} == {9}


def output(message: Message, response_id: str = "r") -> Message:
    text = {"type": "output_text", "text": message["content"], "annotations": []}
    item = {"type": "message", "id": "msg", "role": "assistant", "content": [text]}
    return {"id": response_id, "status": "completed", "model": "gpt-5", "output": [item]}


async def test_a_responses_chat_that_sends_its_items_reads_as_2n_messages(
    tw: Running, provider: Provider
) -> None:
    provider.wrap = lambda message: orjson.dumps(output(message))
    items: list[Message] = []
    for n in range(4):
        items.append(user(f"question {n}"))
        provider.says.append(assistant(f"answer {n}"))
        await post(tw, RESPONSES, {"model": "gpt-5", "input": items, "instructions": "be brief"})
        items += output(assistant(f"answer {n}"))["output"]
    found = await read(tw)
    assert texts(found) == [
        "be brief",
        *(text for n in range(4) for text in (f"question {n}", f"answer {n}")),
    ]
    assert [m["kind"] for m in found] == ["prompt", *["input", "answer"] * 4]


async def test_a_responses_chat_that_the_provider_holds_reads_as_2n_messages(
    tw: Running, provider: Provider
) -> None:
    for n in range(4):
        response_id = f"resp_{n}"
        provider.wrap = lambda message, name=response_id: orjson.dumps(output(message, name))
        provider.says.append(assistant("the same"))
        body: Message = {"model": "gpt-5", "input": "go on"}
        if n:
            body["previous_response_id"] = f"resp_{n - 1}"
        await post(tw, RESPONSES, body)
    found = await read(tw)
    assert texts(found) == ["go on", "the same"] * 4
    assert len({m["id"] for m in found}) == 8


async def test_a_retry_and_an_edit_are_branches(tw: Running, provider: Provider) -> None:
    sent = await talk(tw, provider, 3)
    await ask(tw, provider, sent[:3], assistant("again"))
    await ask(tw, provider, [*sent[:4], user("edited")], assistant("so"))
    found = await read(tw)
    assert texts(found) == [*texts(sent[:4]), "edited", "so"]
    assert [b["preview"] for b in found[3]["branches"]] == ["answer 1", "again"]
    assert [b["preview"] for b in found[4]["branches"]] == ["edited", "question 2"]
    again = found[3]["branches"][1]["id"]
    assert texts(await read(tw, f"&branch={again}")) == [*texts(sent[:3]), "again"]
    old = found[4]["branches"][1]["id"]
    assert texts(await read(tw, f"&branch={old}")) == texts(sent)


async def test_a_changed_prompt_and_changed_tools_stand_once_where_they_changed(
    tw: Running, provider: Provider
) -> None:
    def tools(*names: str) -> list[Message]:
        return [
            {"type": "function", "function": {"name": name, "description": "x" * 300}}
            for name in names
        ]

    said: list[Message] = []
    for n in range(4):
        said.append(user(f"q{n}"))
        prompt = "be brief\nbe kind" if n < 2 else "be brief\nbe rude"
        messages = [{"role": "system", "content": prompt}, *said]
        offered = tools("a", "b") if n < 3 else tools("b", "c")
        await ask(tw, provider, messages, assistant(f"a{n}"), tools=offered)
        said.append(assistant(f"a{n}"))
    found = await read(tw)
    assert [m["kind"] if m["kind"] in ("prompt", "tools") else m["text"] for m in found] == [
        *("prompt", "tools", "q0", "a0", "q1", "a1"),
        *("prompt", "q2", "a2"),
        *("tools", "q3", "a3"),
    ]
    assert (found[0]["text"], found[0]["changes"]) == ("be brief\nbe kind", [])
    assert found[6]["changes"] == [
        {"change": "removed", "text": "be kind"},
        {"change": "added", "text": "be rude"},
    ]
    assert (found[1]["tools"], found[9]["tools"]) == (["a", "b"], ["b", "c"])
    assert found[9]["changes"] == [
        {"change": "added", "text": "c"},
        {"change": "removed", "text": "a"},
    ]


async def test_tool_calls_and_their_results_name_each_other(
    tw: Running, provider: Provider
) -> None:
    function = {"name": "weather", "arguments": '{"city": "Bonn"}'}
    asking = {"role": "assistant", "content": None,
              "tool_calls": [{"id": "c1", "type": "function", "function": function}]}  # fmt: skip
    answered = {"role": "tool", "tool_call_id": "c1", "content": "rain"}
    await ask(tw, provider, [user("weather?")], asking)
    await ask(tw, provider, [user("weather?"), asking, answered], assistant("it rains"))
    found = await read(tw)
    assert [m["role"] for m in found] == ["user", "assistant", "tool", "assistant"]
    (call,) = found[1]["tool_calls"]
    assert (call["name"], call["arguments_json"]) == ("weather", {"city": "Bonn"})
    assert (call["result"], call["result_position"]) == (found[2]["id"], 2)
    assert found[2]["tool_result"] == {
        "call_id": "c1",
        "call": found[1]["id"],
        "call_position": 1,
    }


async def test_a_window_that_slides_reads_as_one_thread(tw: Running, provider: Provider) -> None:
    said: list[Message] = []
    for n in range(8):
        said.append(user(f"question {n}"))
        await ask(tw, provider, said[-5:], assistant(f"answer {n}"))
        said.append(assistant(f"answer {n}"))
    assert texts(await read(tw)) == texts(said)
    (thread,) = (await tw.api("/api/sessions/s/conversation"))["threads"]
    assert (thread["kind"], thread["turns"]) == ("window", 8)


async def test_a_conversation_that_goes_on_from_a_summary_is_a_compaction(
    tw: Running, provider: Provider
) -> None:
    said = await talk(tw, provider, 3)
    summary = user("This session is being continued from a previous conversation. It was about x.")
    await ask(tw, provider, [summary], assistant("ok"))
    assert texts(await read(tw)) == [*texts(said), summary["content"], "ok"]
    old, new = (await tw.api("/api/sessions/s/conversation"))["threads"]
    assert (new["kind"], new["replaces"]) == ("compaction", old["id"])


async def test_a_deleted_turn_in_the_middle_takes_nothing_that_was_sent_again(
    tw: Running, provider: Provider
) -> None:
    said = await talk(tw, provider, 4)
    found = await read(tw)
    trace = found[2]["turn"]["trace_id"]
    async with tw.client.delete(f"{tw.url}/api/traces/{trace}") as reply:
        assert reply.status == 200
    found = await read(tw)
    assert texts(found) == texts(said)
    assert trace not in {m["turn"]["trace_id"] for m in found}


async def test_each_messages_link_gives_its_json(tw: Running, provider: Provider) -> None:
    said = await talk(tw, provider, 3)
    found = [await tw.api(message["link"]) for message in await read(tw)]
    assert [(m["role"], m["content"]) for m in found] == [(m["role"], m["content"]) for m in said]


async def test_a_picture_is_shown_by_its_kind_and_size_alone(
    tw: Running, provider: Provider
) -> None:
    url = "data:image/png;base64," + "A" * 4000
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]
    await ask(tw, provider, [{"role": "user", "content": parts}], assistant("nice"))
    first, _ = await read(tw)
    assert first["text"] == "look"
    assert [(p["kind"], p["mime"], p["size"]) for p in first["parts"]] == [
        *(("text", None, None), ("image", "image/png", 3000)),
    ]
