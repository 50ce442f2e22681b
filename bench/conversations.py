"""`make bench`: what conversations cost in the database, and the writer's time, turn by turn.

Each scenario is one session of so many turns in which the client sends earlier messages again, as
chat clients do. The calls go the recorder's way, but one by one: settled, prepared and written,
start and end in transactions of their own, then indexed. A database is measured without its free
pages, full text included; the bound is three times the text that is new, 2 KB a call, and, but for
the plain scenario, 200 bytes for each message that is sent again.
"""

import argparse
import hashlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from proxy.call import COMPLETE, Call, CallEnd
from proxy.capture import Budget, CapturePolicy
from proxy.headers import index
from proxy.pricing import Prices
from proxy.providers.messages import text_of
from proxy.session import SessionRef
from proxy.settle import Settler
from proxy.target import proxied
from storage import fulltext, parameters, writes
from storage.sqlite import SqliteDatabase, open_database

TEXT_BYTES = 1000  # of a question and of an answer
TARGET = proxied(b"/api/proxy/openai/v1/chat/completions")
# As the `openai` package and OpenAI send them.
ASKED = (
    (b"Host", b"127.0.0.1:3000"),
    (b"Accept-Encoding", b"gzip, deflate"),
    (b"Connection", b"keep-alive"),
    (b"Accept", b"application/json"),
    (b"Content-Type", b"application/json"),
    (b"User-Agent", b"OpenAI/Python 3.54.0"),
    (b"X-Stainless-Lang", b"python"),
    (b"X-Stainless-Package-Version", b"3.54.0"),
    (b"X-Stainless-OS", b"Linux"),
    (b"X-Stainless-Arch", b"x64"),
    (b"X-Stainless-Runtime", b"CPython"),
    (b"X-Stainless-Runtime-Version", b"3.11.7"),
    (b"X-Stainless-Retry-Count", b"0"),
    (b"X-Stainless-Read-Timeout", b"600"),
    (b"Authorization", b"Bearer sk-bench-0123456789abcdef"),
    (b"X-Traceway-Session-Id", b"bench"),
)
ANSWERED = (
    (b"Date", b"Sun, 22 Nov 2026 12:00:00 GMT"),
    (b"Content-Type", b"application/json"),
    (b"openai-organization", b"an-organization"),
    (b"openai-processing-ms", b"1213"),
    (b"openai-version", b"2020-10-01"),
    (b"x-ratelimit-limit-requests", b"10000"),
    (b"x-ratelimit-limit-tokens", b"30000000"),
    (b"x-ratelimit-remaining-requests", b"9999"),
    (b"x-ratelimit-remaining-tokens", b"29999000"),
    (b"x-ratelimit-reset-requests", b"6ms"),
    (b"x-ratelimit-reset-tokens", b"0s"),
    (b"x-request-id", b"req_0123456789abcdef0123456789abcdef"),
)


@dataclass
class Words:
    """Text of 5,000 words, the n-th with a frequency of 1/n, as in English; counts what it gave."""

    source: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311
    given_bytes: int = 0

    def text(self, size: int = TEXT_BYTES) -> str:
        """Give so many characters that nobody was given before."""
        text = ""
        while len(text) < size:
            rank = int(5000 ** self.source.random())
            text += f"{hashlib.md5(b'%d' % rank).hexdigest()[: 2 + rank.bit_length() // 2]} "  # noqa: S324
        self.given_bytes += size
        return text[:size]


@dataclass
class Turn:
    """One call: its bodies, and how many of its messages were sent before."""

    request: bytes
    answer: bytes
    resent: int


Scenario = Callable[[Words, int], Iterator[Turn]]


def full(words: Words, turns: int) -> Iterator[Turn]:
    """Send all earlier messages with every turn."""
    return _chat(words, turns)


def window(words: Words, turns: int) -> Iterator[Turn]:
    """Send the last 20 messages."""
    return _chat(words, turns, window=20)


def prompts(words: Words, turns: int) -> Iterator[Turn]:
    """Send all, after a system prompt with the time in it."""
    instructions = words.text()
    times = (_message("system", f"It is {12 + n / 60:.2f}. {instructions}") for n in range(turns))
    return _chat(words, turns, before=times)


def tools(words: Words, turns: int) -> Iterator[Turn]:
    """Send all, and 30 KB of tools."""
    functions = [
        {"name": f"tool_{n}", "description": words.text(), "parameters": {"type": "object"}}
        for n in range(30)
    ]
    given = orjson.dumps([{"type": "function", "function": f} for f in functions])
    return _chat(words, turns, after=b',"tools":' + given)


def loop(words: Words, turns: int) -> Iterator[Turn]:
    """Send all, and all of them are the same."""
    return _chat(words, turns, same=words.text())


SCENARIOS: tuple[Scenario, ...] = (full, window, prompts, tools, loop)


def _chat(
    words: Words,
    turns: int,
    *,
    window: int | None = None,
    before: Iterator[bytes] | None = None,
    after: bytes = b"",
    same: str | None = None,
) -> Iterator[Turn]:
    history: list[bytes] = []
    for turn in range(turns):
        history.append(_message("user", same or words.text()))
        sent = history if window is None else history[-window:]
        messages = [*([next(before)] if before is not None else ()), *sent]
        request = b'{"messages":[' + b",".join(messages) + b'],"model":"gpt-4o"' + after + b"}"
        answer = same or words.text()
        yield Turn(request, _answer(turn, answer), len(sent) - 1)
        history.append(_message("assistant", answer))


def _message(role: str, content: str) -> bytes:
    return orjson.dumps({"role": role, "content": content})


def _answer(turn: int, content: str) -> bytes:
    message = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {
        "prompt_tokens": 1000 + turn,
        "completion_tokens": 200,
        "total_tokens": 1200 + turn,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    return orjson.dumps(
        {
            "id": f"chatcmpl-{turn:029d}",
            "object": "chat.completion",
            "created": 1_760_000_000 + turn,
            "model": "gpt-4o-2024-08-06",
            "choices": [choice],
            "usage": usage,
            "service_tier": "default",
            "system_fingerprint": "fp_0123456789",
        }
    )


def main() -> None:
    """Play every scenario and print its sizes and its curve."""
    parser = argparse.ArgumentParser(prog="python -m bench.conversations", description=__doc__)
    parser.add_argument("--turns", type=int, default=1000, help="of each conversation (1000)")
    turns = parser.parse_args().turns
    prices = Prices()
    prices.warm()
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            database = open_database(Path(folder) / "bench.db")
            _play(scenario, turns, Settler(prices), database)


def _play(scenario: Scenario, turns: int, settler: Settler, database: SqliteDatabase) -> None:
    words = Words()
    sent_bytes = resent = 0
    cpu_us: list[float] = []
    kilobytes: list[float] = []
    print(f"\n{scenario.__name__}: {scenario.__doc__} {turns} turns.")
    print(f"  {'turn':>6}{'request KB':>12}{'CPU us':>9}{'us per KB':>11}{'database KB':>13}")
    for number, turn in enumerate(scenario(words, turns), 1):
        ended = call_of(turn)
        before_s = time.thread_time()
        _write(database, [ended.start])
        _write(database, [settler.end(ended)])
        cpu_us.append((time.thread_time() - before_s) * 1e6)
        kilobytes.append(len(turn.request) / 1024)
        sent_bytes += len(turn.request) + len(turn.answer)
        resent += turn.resent
        if number in (10, 50, 100, 200, 500, turns):
            cost = _mean(cpu_us) / _mean(kilobytes)
            row = f"  {number:6}{kilobytes[-1]:12,.0f}{_mean(cpu_us):9,.0f}{cost:11.2f}"
            print(f"{row}{_size(database) / 1024:13,.0f}")
    size = _size(database)
    bound = 3 * words.given_bytes + 2048 * turns + (200 * resent if scenario is not full else 0)
    print(
        f"  sent {sent_bytes / 1e6:,.1f} MB, text {words.given_bytes / 1e6:.2f} MB,"
        f" database {size / 1e6:.2f} MB: {size / bound:.2f} of the bound, {bound / 1e6:.2f} MB"
    )


def call_of(turn: Turn, session: str = "bench") -> CallEnd:
    """Give the call as it ends."""
    call = Call(
        project_id=1,
        owner=b"bench---",
        method="POST",
        target=TARGET,
        provider="openai",
        request_headers=ASKED,
        request_index=index(ASKED),
        session_ref=SessionRef(session, "header"),
        capture=CapturePolicy(),
        body_bytes=8 << 20,
        budget=Budget(1 << 30),
    )
    call.request.add(turn.request)
    call.answered(200, ANSWERED, edited=False)
    call.relayed(turn.answer, turn.answer)
    return call.finish(COMPLETE)


def _write(database: SqliteDatabase, changes: list[parameters.Change]) -> None:
    batch = parameters.prepare(changes)
    with database.transaction() as transaction:
        writes.apply(transaction, batch)
    with database.transaction() as transaction:
        fulltext.index(transaction, 1000, text_of)


def _mean(figures: list[float]) -> float:
    newest = figures[-10:]
    return sum(newest) / len(newest)


def _size(database: SqliteDatabase) -> int:
    with database.transaction() as transaction:
        ((pages,),) = transaction.execute("PRAGMA page_count", {})
        ((free,),) = transaction.execute("PRAGMA freelist_count", {})
    return int(pages - free) * 4096


if __name__ == "__main__":
    main()
