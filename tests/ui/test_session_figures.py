"""The figures of pages, of the API and of a recompute are the same, on sessions of every kind."""

import html
import random
import re
from collections.abc import Sequence
from itertools import count

import pytest

from storage.parameters import Change
from storage.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    FAILED_STATES,
    INTERRUPTED,
    TRUNCATED,
    SpanEnd,
    SpanStart,
    Tokens,
)
from tests.api.asking import save
from tests.running import Running
from tests.storage.calls import end, start

pytestmark = pytest.mark.asyncio(loop_scope="session")

STATES = (COMPLETED, COMPLETED, COMPLETED, FAILED, TRUNCATED, INTERRUPTED, CANCELLED)
SOURCES = ("provider", "injected", "estimated", "missing")


def generated(seed: int) -> dict[str, list[Change]]:
    """Make sessions of calls that succeed, fail, run, cost, are estimated, or are not known."""
    chance = random.Random(seed)  # noqa: S311
    numbers = count(1)
    return {
        f"s{n}": [_call(chance, f"s{n}", next(numbers)) for _ in range(chance.randint(1, 15))]
        for n in range(12)
    }


def _call(chance: random.Random, session: str, number: int) -> Change:
    began = start(number, session_id=session)
    if chance.random() < 0.1:
        return began
    known = chance.random() < 0.8
    priced = known and chance.random() < 0.8
    tokens = Tokens(
        input=chance.choice([0, 3, 12_345, 2_000_000]),
        output=chance.choice([None, 0, 77, 40_000]),
        cached_input=chance.choice([None, 0, 2]),
        reasoning=chance.choice([None, 5]),
    )
    return end(
        began,
        state=chance.choice(STATES),
        duration_us=chance.choice([0, 1, 999, 1_500_000, 86_400_000_000]),
        tokens=tokens if known else Tokens(),
        usage_source=chance.choice(SOURCES[:3]) if known else "missing",
        cost_nusd=chance.choice([0, 1, 41_000, 1_234_567_890]) if priced else None,
        cost_status="priced" if priced else "unpriced",
        model=chance.choice(["a", "b", None]),
        error="no",
    )


def total(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def recomputed(calls: Sequence[Change]) -> dict[str, object]:
    """Fold calls, each of which is a trace, into what a session's figures must be."""
    ended = [call for call in calls if isinstance(call, SpanEnd)]
    starts = [call for call in calls if isinstance(call, SpanStart)]
    starts += [call.start for call in ended]
    failed = sum(call.state in FAILED_STATES for call in ended)
    tokens = total([total([call.tokens.input, call.tokens.output]) for call in ended])
    cost = total([call.cost_nusd for call in ended])
    last = max((call.ended_at_us for call in ended), default=None)
    first = min(began.started_at_us for began in starts)
    spent = [call.duration_us for call in ended]
    return {
        "cost": None if cost is None else cost / 1e9,
        "total_tokens": tokens,
        "duration_ms": None if last is None else (last - first) / 1000,
        "avg_latency_ms": sum(spent) / len(spent) / 1000 if spent else None,
        "trace_count": len(calls),
        "error_rate": failed / len(calls),
        "unpriced_count": sum(call.cost_status == "unpriced" for call in ended),
        "estimated_count": sum(call.usage_source == "estimated" for call in ended),
    }


def tile(page: str, metric: str) -> tuple[str, str]:
    """Give what a tile shows, and what exactly that is."""
    found = re.search(
        rf'data-metric="{metric}".*?class="big[^>]*>(?:<span title="(.*?)">)?(.*?)<',
        page,
        re.DOTALL,
    )
    assert found is not None
    return html.unescape(found[2]), html.unescape(found[1] or "")


def number(exact: str) -> float | None:
    """Read the exact figure, which comes first; None where it says that there is none."""
    found = re.match(r"\$?([\d.,]+)", exact)
    return float(found[1].replace(",", "")) if found else None


@pytest.mark.parametrize("seed", range(3))
async def test_pages_api_and_recompute_agree(tw: Running, seed: int) -> None:
    sessions = generated(seed)
    await save(tw, *(call for calls in sessions.values() for call in calls))
    for name, calls in sessions.items():
        expected = recomputed(calls)
        given = await tw.api(f"/api/sessions/{name}")
        assert {key: given[key] for key in expected} == pytest.approx(expected)
        async with tw.client.get(f"{tw.url}/sessions/{name}") as answer:
            page = await answer.text()
        shown = {
            "cost": number(tile(page, "cost")[1]),
            "total_tokens": number(tile(page, "tokens")[1]),
            "duration_ms": number(tile(page, "duration")[1]),
            "avg_latency_ms": number(tile(page, "latency")[1]),
            "trace_count": int(tile(page, "traces")[0].replace(",", "")),
            "error_rate": number(tile(page, "errors")[1]),
        }
        wanted = {key: given[key] for key in shown} | {"error_rate": given["error_rate"] * 100}
        assert shown == pytest.approx(wanted, abs=1e-3)
        assert shown["cost"] == pytest.approx(given["cost"], abs=1e-9)
        text, exact = tile(page, "cost")
        assert ("+" in text) == (given["cost"] is not None and given["unpriced_count"] > 0)
        assert ("~" in text) == (given["cost"] is not None and given["estimated_count"] > 0)
        assert (f"{given['unpriced_count']} call" in exact) == (given["unpriced_count"] > 0)
        traces = (await tw.api(f"/api/traces?session_id={name}&limit=100"))["traces"]
        assert total([trace["total_tokens"] for trace in traces]) == given["total_tokens"]
