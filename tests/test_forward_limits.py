"""Calls per minute of a key, end to end: who calls faster is told when to call again."""

from typing import Any

import orjson

from tests.conftest import Serve
from tests.running import Running
from tests.wire import Received, ScriptedUpstream

OWN_KEY = b"Authorization: Bearer sk-theirs\r\n"


async def made(tw: Running, key: str | None = None, **fields: Any) -> str:
    """Make a key, with the key of an admin once there are any."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"name": "n", "scope": "write", **fields}
    async with tw.client.post(f"{tw.url}/api/keys", json=body, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        return str((await answer.json())["key"])


async def call(tw: Running, key: str) -> Received:
    ours = b"X-Traceway-Api-Key: %b\r\n" % key.encode()
    return await tw.raw(headers=OWN_KEY + ours, body=b"{}")


async def health(tw: Running, key: str) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    async with tw.client.get(f"{tw.url}/api/health", headers=headers) as answer:
        return await answer.json()


async def test_a_key_that_calls_too_fast_is_told_when_to_call_again_and_goes_nowhere(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    admin = await made(tw, scope="admin")
    slow = await made(tw, admin, calls_per_minute=2)
    assert [(await call(tw, slow)).status for _ in range(2)] == [200, 200]
    got = await call(tw, slow)
    assert got.status == 429
    assert got.get(b"X-Traceway-Error") == b"rate_limited"
    wait_s = got.get(b"Retry-After")
    assert wait_s is not None
    assert 25 <= int(wait_s) <= 30
    assert got.get(b"x-should-retry") is None  # it may be made again then
    error = orjson.loads(got.body)["error"]
    assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limited", None)
    assert "2 calls a minute" in error["message"]
    assert (await call(tw, admin)).status == 200  # another key has its own allowance
    assert len(upstream.requests) == 3
    await tw.saved()
    headers = {"Authorization": f"Bearer {admin}"}
    async with tw.client.get(f"{tw.url}/api/stats", headers=headers) as answer:
        assert (await answer.json())["span_count"] == 3  # and no row of what was refused
    assert (await health(tw, admin))["refused_calls"] == 1


async def test_the_configured_limit_is_that_of_keys_without_one_and_of_calls_alone(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    tw = await serve({"limits.calls_per_minute": "1"})
    admin = await made(tw, scope="admin")
    for _ in range(5):
        assert (await health(tw, admin))["refused_calls"] == 0
    assert [(await call(tw, admin)).status for _ in range(2)] == [200, 429]
    fast = await made(tw, admin, calls_per_minute=3)
    assert [(await call(tw, fast)).status for _ in range(4)] == [200, 200, 200, 429]


async def test_without_keys_nobody_is_limited(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.answers(b"{}")
    tw = await serve({"limits.calls_per_minute": "1"})
    assert [(await tw.raw(body=b"{}")).status for _ in range(3)] == [200] * 3
