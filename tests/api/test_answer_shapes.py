"""What handlers answer is what is described: every field of it, and no other."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.asking import Reply, ask
from tests.api.described import faults
from tests.running import Running
from tests.ui.agents import Agent
from tests.ui.demo import demo, talks
from tests.ui.rich import rich

FIRST = 8


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Running]:
    """A server with conversations of all kinds, among them one that runs."""
    now_us = time.time_ns() // 1000
    async with demo(tmp_path, talks()[:FIRST], now_us) as tw:
        await rich(tw, at_us=now_us - 3600_000_000)
        await Agent(tw, at_us=now_us - 1800_000_000).every_kind()
        await tw.saved()
        yield tw


async def asked(tw: Running, path: str, method: str = "GET") -> Reply:
    """Make a request whose answer must be as it is described."""
    reply = await ask(tw, path, method)
    assert faults(method, path, reply.status, reply.headers, reply.body) == [], path
    return reply


async def rows(tw: Running, path: str, name: str) -> list[Any]:
    found = (await asked(tw, path)).body[name]
    assert found
    return list(found)


async def test_lists_and_what_they_lead_to_are_as_described(told: Running) -> None:
    for session in await rows(told, "/api/sessions?limit=1000", "sessions"):
        path = f"/api/sessions/{quote(session['id'], safe='')}"
        assert (await asked(told, path)).status == 200
        for message in await rows(told, f"{path}/conversation", "messages"):
            assert (await asked(told, message["link"])).status in (200, 404)
    for trace in await rows(told, "/api/traces?limit=1000", "traces"):
        for span in await rows(told, f"/api/traces/{trace['id']}", "spans"):
            assert (await asked(told, f"/api/spans/{span['id']}")).status == 200


async def test_what_is_left_out_where_it_says_nothing_is_described_too(told: Running) -> None:
    traces = await rows(told, "/api/traces?limit=1000", "traces")
    for path in (
        "/api/sessions?limit=1",
        "/api/spans?limit=1",
        "/api/traces?limit=1",
        "/api/sessions/support-bot%3Auser_42?limit=1",
        f"/api/traces/{next(one['id'] for one in traces if one['span_count'] > 1)}?limit=1",
    ):
        assert "cursor" in (await asked(told, path)).body
    found = await asked(told, "/api/sessions/support-bot%3Auser_42/conversation?limit=1")
    assert found.body["next"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "/api/sessions/totals",
        "/api/traces/totals?q=status:failed",
        "/api/search/suggest?q=mod",
        "/api/stats",
        "/api/live",
        "/api/ready",
        "/api/openapi.json",
    ],
)
async def test_sums_and_the_servers_own_answers_are_as_described(told: Running, path: str) -> None:
    assert (await asked(told, path)).status == 200


async def test_the_servers_health_is_as_described(tw: Running) -> None:
    assert (await asked(tw, "/api/health")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/sessions?limit=0", 400),
        ("GET", "/api/sessions?q=%22", 400),
        ("GET", "/api/traces?sort_by=name", 400),
        ("GET", "/api/spans?id=x", 400),
        ("GET", "/api/sessions/nobody", 404),
        ("GET", "/api/sessions/by-id", 400),
        ("GET", "/api/sessions/nobody/conversation", 404),
        ("GET", "/api/messages/x", 404),
        ("GET", "/api/traces/x", 404),
        ("GET", "/api/spans/x/request", 404),
        ("GET", "/api/events?kind=x", 400),
        ("DELETE", "/api/sessions/nobody", 404),
        ("DELETE", "/api/traces/x", 404),
        ("GET", "/api/proxy/nobody/v1/models", 404),
    ],
)
async def test_errors_are_as_described(tw: Running, method: str, path: str, status: int) -> None:
    assert (await asked(tw, path, method)).status == status


async def test_deletions_are_as_described(told: Running) -> None:
    trace = (await rows(told, "/api/traces", "traces"))[-1]["id"]
    session = (await rows(told, "/api/sessions", "sessions"))[-1]["id"]
    for path in (f"/api/traces/{trace}", f"/api/sessions/by-id?id={quote(session)}"):
        assert (await asked(told, path, "DELETE")).status == 200


async def test_every_state_and_every_source_that_the_demo_has_is_a_described_one(
    told: Running,
) -> None:
    found = await asked(told, "/api/spans?limit=1000")
    states = {
        next(iter(span["status"])) if isinstance(span["status"], dict) else span["status"]
        for span in found.body["spans"]
    }
    assert states >= {"running", "completed", "failed", "truncated", "cancelled"}
