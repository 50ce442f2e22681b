"""A conversation made by real calls, of which only the clock is ours: the same in every run."""

from collections.abc import Sequence
from dataclasses import dataclass
from unittest.mock import patch

import orjson

from tests.running import CHAT, Running
from tests.wire import Peer, ScriptedUpstream

# 2023-11-14T22:13:20Z: more than thirty days ago, so that a list says the date.
BEGIN_S = 1_700_000_000


@dataclass
class Clock:
    """The time of calls, as proxy/call.py reads it."""

    now_ns: int = BEGIN_S * 10**9

    def time_ns(self) -> int:
        return self.now_ns

    monotonic_ns = time_ns


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answers, after how long: a message, or an error with its status."""

    message: dict[str, object]
    seconds: float = 1.5
    status: bytes = b"200 OK"
    model: str = "gpt-4o-2024-08-06"

    def body(self) -> bytes:
        if self.status != b"200 OK":
            return orjson.dumps({"error": self.message})
        choice = {"index": 0, "message": self.message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1200, "completion_tokens": 34, "total_tokens": 1234}
        answer = {"id": "x", "object": "chat.completion", "model": self.model}
        return orjson.dumps({**answer, "choices": [choice], "usage": usage})


def assistant(content: str | None, **fields: object) -> dict[str, object]:
    return {"role": "assistant", "content": content, **fields}


class Talking:
    """A client that talks through the proxy to an upstream that answers as it is told."""

    def __init__(self, tw: Running, upstream: ScriptedUpstream, session: str) -> None:
        self._tw = tw
        self._session = session
        self._clock = Clock()
        self._reply = Reply({})
        upstream.script = self._answer

    async def _answer(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self._clock.now_ns += round(self._reply.seconds * 1e9)
            await peer.respond(self._reply.body(), status=self._reply.status)

    async def turn(self, messages: Sequence[object], reply: Reply, **fields: object) -> None:
        """Make one call, five seconds after the last."""
        self._reply = reply
        asked = orjson.dumps({"model": reply.model, "messages": messages, **fields})
        headers = {"X-Traceway-Session-Id": self._session, "Content-Type": "application/json"}
        with patch("proxy.call.time", self._clock):
            at = self._tw.url + CHAT
            async with self._tw.client.post(at, data=asked, headers=headers) as answer:
                await answer.read()
            await self._tw.server.idle()
        await self._tw.saved()
        self._clock.now_ns += 5 * 10**9


async def conversation(tw: Running, upstream: ScriptedUpstream, session: str) -> None:
    """Make four turns: a tool is called, its result used, a call fails, a picture is seen."""
    client = Talking(tw, upstream, session)
    tools = [{"type": "function", "function": {"name": "read_file"}}]
    function = {"name": "read_file", "arguments": '{"path":"notes.txt"}'}
    called = assistant(None, tool_calls=[{"id": "c1", "type": "function", "function": function}])
    said: list[object] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What do my notes say about the proxy, in one sentence?"},
    ]
    await client.turn(said, Reply(called), tools=tools)
    said += [called, {"role": "tool", "tool_call_id": "c1", "content": "It records.\nIt is fast."}]
    told = assistant("They say:\n\n    It records, and is fast.")
    await client.turn(said, Reply(told, 0.25), tools=tools)
    said += [told, {"role": "user", "content": [{"type": "text", "text": "And this?"}, PICTURE]}]
    refusal = Reply({"message": "Rate limit reached"}, 0.1, b"429 Too Many Requests")
    await client.turn(said, refusal, tools=tools)
    seen = Reply(assistant("A picture of 漢字."), 2, model="unheard-of")
    await client.turn(said, seen, tools=tools)


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
