"""A demo database, made by real calls: a client, the proxy, an upstream that speaks by a script.

Only the clock is ours, so that the calls lie hours and days apart and take as long as they are said
to. It shows what the pages must cope with: failures, a cut stream, a client that left, tokens that
are estimated, models without a price, tools, a branch, calls without a session, one that runs.
"""

# ruff: noqa: RUF001 (people speak in all scripts)

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import orjson
from aiohttp import web

from tests.running import CHAT, Running, running

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 24 * HOUR_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What the user says, what the model answers after how long, and how that may go wrong.

    `end` is one of ok, cut (the stream stops), left (the client goes), or an HTTP status.
    """

    say: str
    answer: str = ""
    tools: Sequence[tuple[str, dict[str, Any]]] = ()
    results: Sequence[str] = ()
    latency_s: float = 1.8
    model: str = "gpt-4o-mini-2024-07-18"
    tokens: tuple[int, int] | None = None
    cached: int = 0
    stream: bool = False
    end: str = "ok"
    forget: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """A conversation that began `ago_s` seconds ago; None is no session id."""

    session: str | None
    ago_s: float
    turns: Sequence[Turn]
    system: str | None = None
    pause_s: float = 35.0


class Clock:
    """The time of calls, as proxy/call.py reads it."""

    def __init__(self, now_us: int) -> None:
        self.now_ns = now_us * 1000

    def time_ns(self) -> int:
        return self.now_ns

    monotonic_ns = time_ns

    def pass_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


@dataclass
class Upstream:
    """Answers each call with the turn that was put here before it."""

    clock: Clock
    turn: Turn = field(default_factory=lambda: Turn(say=""))
    holds: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        turn = self.turn
        asked = await request.read()
        self.clock.pass_s(turn.latency_s * (0.2 if turn.stream else 1))
        if turn.end.isdigit():
            return _refusal(int(turn.end))
        usage = _usage(turn, len(asked) // 4)
        if not turn.stream:
            message = {"role": "assistant", "content": turn.answer or None, **_tools(turn)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response(_chunk(turn, "chat.completion", [choice], usage))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        words = turn.answer.split(" ")
        said = words[: len(words) * 2 // 3] if turn.end != "ok" else words
        for n, word in enumerate(said):
            delta = {"content": word if n == 0 else f" {word}"}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            await response.write(_event(_chunk(turn, "chat.completion.chunk", [choice], None)))
        self.clock.pass_s(turn.latency_s * 0.8)
        if turn.end == "left":
            await self.holds.wait()
        if turn.end != "ok":
            request.transport and request.transport.abort()
            return response
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await response.write(_event(_chunk(turn, "chat.completion.chunk", [last], None)))
        if turn.tokens:
            await response.write(_event(_chunk(turn, "chat.completion.chunk", [], usage)))
        await response.write(b"data: [DONE]\n\n")
        return response


def _refusal(status: int) -> web.Response:
    texts = {
        429: "Rate limit reached for gpt-4o in organization org-demo on tokens per min (TPM).",
        400: "This model's maximum context length is 128000 tokens. However, your messages"
        " resulted in 131204 tokens.",
        500: "The server had an error while processing your request. Sorry about that!",
    }
    error = {"message": texts[status], "type": "error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


def _usage(turn: Turn, guess: int) -> dict[str, Any]:
    asked, answered = turn.tokens or (guess, max(1, len(turn.answer) // 4))
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": turn.cached},
    }


def _tools(turn: Turn) -> dict[str, Any]:
    if not turn.tools:
        return {}
    calls = [
        {
            "id": f"call_{name}_{n}",
            "type": "function",
            "function": {"name": name, "arguments": orjson.dumps(given).decode()},
        }
        for n, (name, given) in enumerate(turn.tools)
    ]
    return {"tool_calls": calls}


def _chunk(turn: Turn, kind: str, choices: list[Any], usage: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-demo",
        "object": kind,
        "created": 1,
        "model": turn.model,
        "choices": choices,
        "usage": usage,
    }


def _event(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


@asynccontextmanager
async def demo(
    folder: Path, talks: Sequence[Talk], now_us: int, settings: dict[str, str] | None = None
) -> AsyncIterator[Running]:
    """Serve a database with these conversations, as if it were `now_us`."""
    clock = Clock(now_us)
    upstream = Upstream(clock)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", upstream.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        tw = await stack.enter_async_context(running(folder, url, settings))
        with patch("proxy.call.time", clock):
            for talk in sorted(talks, key=lambda talk: -talk.ago_s):
                clock.now_ns = now_us * 1000 - round(talk.ago_s * 1e9)
                await _hold(tw, upstream, talk)
            await tw.server.idle()
            await tw.saved()
        yield tw


async def _hold(tw: Running, upstream: Upstream, talk: Talk) -> None:
    messages: list[dict[str, Any]] = []
    if talk.system:
        messages.append({"role": "system", "content": talk.system})
    for n, turn in enumerate(talk.turns):
        if n:
            upstream.clock.pass_s(talk.pause_s)
        if turn.forget:
            del messages[-turn.forget :]
        messages += [
            {"role": "tool", "tool_call_id": tool["id"], "content": result}
            for tool, result in zip(
                messages[-1].get("tool_calls", []) if messages else [], turn.results, strict=False
            )
        ]
        if turn.say:
            messages.append({"role": "user", "content": turn.say})
        upstream.turn = turn
        await _call(tw, upstream, talk, turn, messages)
        messages.append({"role": "assistant", "content": turn.answer or None, **_tools(turn)})


async def _call(
    tw: Running, upstream: Upstream, talk: Talk, turn: Turn, messages: Sequence[Any]
) -> None:
    body = {"model": turn.model, "messages": messages, "stream": turn.stream}
    if turn.tools or turn.results:
        body["tools"] = TOOLS
    headers = {"Authorization": "Bearer sk-demo", "Content-Type": "application/json"}
    if talk.session is not None:
        headers["X-Traceway-Session-Id"] = talk.session
    async with tw.client.post(tw.url + CHAT, data=orjson.dumps(body), headers=headers) as answer:
        if turn.end == "left":
            await answer.content.readany()
            answer.close()
            await tw.server.idle()
            upstream.holds.set()
            return
        try:
            await answer.read()
        except aiohttp.ClientPayloadError:
            assert turn.end == "cut"
    await tw.server.idle()


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": text,
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
        },
    }
    for name, text in (("search_orders", "Find orders"), ("refund", "Give the money back"))
]


@contextmanager
def numbers(seed: int) -> Iterator[random.Random]:
    """Give random numbers that are the same every time."""
    yield random.Random(seed)  # noqa: S311 (a demo, no secret)


def talks() -> list[Talk]:
    """Give the conversations of the demo."""
    found = [
        Talk(
            session="user_123:conv_456",
            ago_s=9 * MINUTE_S,
            system="You are the support agent of a shop. Be brief and kind.",
            turns=[
                Turn(
                    say="Hi, my order 88213 never arrived. Where is it?",
                    tools=[("search_orders", {"query": "88213"})],
                    tokens=(612, 18),
                ),
                Turn(
                    say="",
                    results=['{"order":"88213","state":"lost in transit","carrier":"DHL"}'],
                    answer="I'm sorry: the carrier lost it between Leipzig and your town. I can"
                    " send it again today, or refund the 49.90 €. Which would you like?",
                    tokens=(688, 52),
                ),
                Turn(
                    say="A refund please.",
                    tools=[("refund", {"order": "88213", "amount": "49.90"})],
                    tokens=(758, 24),
                    cached=640,
                ),
                Turn(
                    say="",
                    results=['{"ok":true}'],
                    answer="Done. The 49.90 € will be on your account within three days.",
                    tokens=(801, 22),
                    cached=640,
                    stream=True,
                ),
            ],
        ),
        Talk(
            session="checkout-refactor",
            ago_s=2.4 * HOUR_S,
            system="You are a senior Python engineer.",
            pause_s=210,
            turns=[
                Turn(
                    say="Split this function, it does three things:\n\n```python\ndef checkout(c):"
                    "\n    total = sum(i.price for i in c.items)\n    if c.coupon:\n        total"
                    " *= 0.9\n    mail(c.user, total)\n    return total\n```",
                    answer="Three functions, one for each reason to change:\n\n```python\ndef"
                    " total(cart):\n    return sum(item.price for item in cart.items)\n\n\ndef"
                    " discounted(cart):\n    return total(cart) * (0.9 if cart.coupon else 1)"
                    "\n```\n\nSend the mail where the order is saved, not where it is counted.",
                    model="gpt-4o-2024-08-06",
                    tokens=(1_480, 320),
                    latency_s=6.4,
                    stream=True,
                ),
                Turn(
                    say="Now add tests.",
                    answer="I would begin with the cases that cost money when they are wrong: an"
                    " empty cart, a coupon, and prices that do not add up in binary.",
                    model="gpt-4o-2024-08-06",
                    tokens=(2_260, 840),
                    cached=1_408,
                    latency_s=11.2,
                    stream=True,
                ),
                Turn(say="And with decimal?", model="gpt-4o-2024-08-06", end="429", latency_s=0.3),
                Turn(
                    say="And with decimal?",
                    answer="Use `Decimal` from the edge inwards: parse prices as strings, and"
                    " round once, at the end.",
                    model="gpt-4o-2024-08-06",
                    tokens=(3_140, 410),
                    cached=2_176,
                    latency_s=7.9,
                    forget=2,
                    stream=True,
                ),
            ],
        ),
        Talk(
            session="nightly-report/2026-11-25",
            ago_s=0.35 * HOUR_S,
            turns=[
                Turn(
                    say="Summarise the 412 tickets below by product, and name the three worst.",
                    model="gpt-4o-2024-08-06",
                    end="400",
                    latency_s=0.9,
                )
            ],
        ),
        Talk(
            session="ταξίδι-στην-αθήνα",
            ago_s=1.2 * HOUR_S,
            turns=[
                Turn(
                    say="Έχω τρεις μέρες στην Αθήνα. Τι να δω πρώτα;",
                    answer="Πρώτα την Ακρόπολη νωρίς το πρωί, μετά την Πλάκα, και το Σούνιο.",
                    tokens=(38, 61),
                ),
            ],
        ),
        Talk(
            session="essay-helper-7f3a9c52-4b1d-4e0e-9a57-2c1d5be0a911",
            ago_s=44 * MINUTE_S,
            turns=[
                Turn(
                    say="Write a long introduction about tides.",
                    answer="Twice a day the sea breathes. " * 12,
                    stream=True,
                    end="cut",
                    latency_s=14.0,
                )
            ],
        ),
        Talk(
            session="browser-tab-closed",
            ago_s=1.9 * HOUR_S,
            turns=[
                Turn(
                    say="Tell me everything about lighthouses.",
                    answer="The first lighthouses were fires on hills. " * 8,
                    stream=True,
                    end="left",
                    latency_s=3.1,
                )
            ],
        ),
        Talk(
            session="local-llama",
            ago_s=3.6 * HOUR_S,
            turns=[
                Turn(
                    say="Which of these names is the friendliest: Ada, Bo, Cleo?",
                    answer="Bo, since it is short and ends openly.",
                    model="llama-3.3-70b-local",
                    tokens=(24, 14),
                ),
                Turn(
                    say="And the most serious?",
                    answer="Ada.",
                    model="llama-3.3-70b-local",
                    stream=True,
                ),
            ],
        ),
        Talk(
            session=None,
            ago_s=5 * HOUR_S,
            turns=[Turn(say="Is this thing on?", answer="It is.", tokens=(11, 4))],
        ),
    ]
    with numbers(4) as r:
        for n, (name, asked, answered) in enumerate(SMALL_TALK):
            turns = [
                Turn(
                    say=asked,
                    answer=answered,
                    latency_s=r.uniform(0.4, 9),
                    tokens=(r.randint(40, 9_000) * (40 if n % 7 == 3 else 1), r.randint(20, 900)),
                    model=r.choice(["gpt-4o-mini-2024-07-18", "gpt-4.1-2025-04-14", "o3-mini"]),
                    stream=r.random() < 0.5,
                )
                for _ in range(r.choice([1, 1, 2, 3, 6]))
            ]
            ago_s = r.uniform(3 * HOUR_S, 6 * DAY_S)
            found.append(Talk(session=name, ago_s=ago_s, turns=turns, pause_s=r.uniform(8, 900)))
    return found


SMALL_TALK = [
    ("onboarding-bot:u_8841", "How do I invite my team?", "Open Settings, Members, Invite."),
    ("translate-7", "Translate to German: the early bird", "Der frühe Vogel."),
    ("sql-copilot/warehouse", "Revenue by month for 2025, please", "SELECT month, sum(amount) ..."),
    ("rag-eval-run-19", "Which clause covers early termination?", "Clause 14.2 (b)."),
    ("u_5512:chat_2", "Is my data used for training?", "No. Nothing of it is."),
    ("legal-summary-44", "Summarise this contract in five points", "1. Both sides may leave ..."),
    ("support:t_9931", "The app crashes when I open the camera", "Please update to 4.2.1."),
    ("docs-assistant", "What does ON CONFLICT do?", "It says what happens when a row exists."),
    ("triage-2026-11-24", "Label: 'refund not received'", "billing/refund"),
    ("interview-practice", "Ask me about system design", "Design a URL shortener. Begin."),
    ("recipe-ideas", "Something with lentils and lemon", "A warm salad with feta and mint."),
    ("tutor:algebra-1", "Why may I not divide by zero?", "Because no number times 0 gives 1."),
    ("standup-writer", "Turn these commits into a standup", "Yesterday: search. Today: pages."),
    ("release-notes", "Write notes for 0.4", "Sessions can be searched and read live."),
    ("travel-bot:u_77", "Train from Vienna to Venice?", "The night train, 21:27, seven hours."),
    ("بحث-عن-كتب", "ما هي أفضل رواية لنجيب محفوظ؟", "يُنصح غالبًا ببداية من «ثلاثية القاهرة»."),
]
