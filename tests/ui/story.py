"""Calls as clients and providers write them, recorded without a network, at times of our own.

`Story` tells a session turn by turn: it keeps the messages, sends them all again, and puts the
record of each call where the recorder takes them. `await tw.saved()` waits until all are saved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from proxy.call import COMPLETE, Ending
from tests.calling import EVENTS, JSON, a_call, answered, delta
from tests.running import Running

Message = dict[str, Any]
S = 1_000_000
# 2026-11-20 09:00:00 UTC
T0 = 1_795_165_200 * S
MODEL = "gpt-4o-mini-2024-07-18"


def user(text: object) -> Message:
    return {"role": "user", "content": text}


def assistant(text: object, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def tool_call(call_id: str, name: str, arguments: object) -> Message:
    given = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": given}}


def usage(asked: int, said: int, cached: int = 0, reasoning: int = 0) -> Message:
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


@dataclass
class Story:
    """A session that is told; `at_us` is when its next call begins."""

    tw: Running
    session: str = "story"
    model: str = MODEL
    at_us: int = T0
    messages: list[Message] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)

    async def turn(
        self,
        asked: Message | Sequence[Message],
        said: Message | None,
        *,
        pause_s: float = 20,
        latency_s: float = 2,
        ttft_s: float | None = 0.5,
        counts: Message | None = None,
        keep: bool = True,
        **more: Any,
    ) -> str:
        """Make a call that adds these messages and is answered; give its trace's id."""
        fresh = [asked] if isinstance(asked, dict) else list(asked)
        sent = [*self.messages, *fresh]
        choices = [{"index": 0, "message": said, "finish_reason": "stop"}]
        body = {"id": "c", "model": more.pop("model", self.model), "choices": choices}
        answer = orjson.dumps({**body, "usage": counts} if counts else body)
        if keep:
            self.messages = [*sent, said] if said else sent
        request = {"model": body["model"], "messages": sent, **more.pop("request", {})}
        return await self.call(
            request, answer, latency_s=latency_s, ttft_s=ttft_s, pause_s=pause_s, **more
        )

    async def call(
        self,
        request: Message,
        *pieces: bytes,
        status: int = 200,
        ending: Ending = COMPLETE,
        latency_s: float = 2,
        ttft_s: float | None = 0.5,
        pause_s: float = 20,
        stream: bool = False,
    ) -> str:
        """Record a call with this request, answered by these bytes; give its trace's id."""
        call = a_call(request=orjson.dumps(request), session=self.session)
        call.start = replace(call.start, started_at_us=self.at_us)
        end = answered(
            call, *pieces, status=status, ending=ending, headers=EVENTS if stream else JSON
        )
        took_us = round(latency_s * S)
        end = replace(
            end,
            duration_us=took_us,
            first_byte_us=took_us // 4,
            first_token_us=None if ttft_s is None else round(ttft_s * S),
        )
        self.at_us += took_us + round(pause_s * S)
        self.tw.server.recorder.put(end)
        self.traces.append(call.start.trace_id.hex())
        return self.traces[-1]

    async def fails(self, asked: Message, error: str, status: int = 429) -> str:
        """Make a call that the provider refuses; the conversation does not keep it."""
        body = orjson.dumps({"error": {"message": error, "type": "x", "code": None}})
        request = {"model": self.model, "messages": [*self.messages, asked]}
        return await self.call(request, body, status=status, latency_s=0.3, ttft_s=None)

    async def breaks_off(self, asked: Message, text: str, ending: Ending) -> str:
        """Make a call whose stream ends in the middle; the conversation keeps it."""
        request = {"model": self.model, "messages": [*self.messages, asked], "stream": True}
        words = [delta(f"{word} ") for word in text.split()]
        self.messages += [asked, assistant(f"{text} ")]
        return await self.call(request, *words, stream=True, ending=ending)

    async def runs(self, asked: Message, so_far: str) -> tuple[str, str]:
        """Begin a call that stays running; give the ids of its trace and its span."""
        request = {"model": self.model, "messages": [*self.messages, asked], "stream": True}
        call = a_call(request=orjson.dumps(request), session=self.session)
        call.start = replace(call.start, started_at_us=self.at_us)
        await self.tw.server.recorder.put(call.start)
        if so_far:
            call.answered(200, EVENTS, edited=False)
            call.relayed(delta(so_far), delta(so_far))
            if (progress := call.progress()) is not None:
                await self.tw.server.recorder.put(progress)
        self.traces.append(call.start.trace_id.hex())
        return self.traces[-1], call.start.span_id.hex()
