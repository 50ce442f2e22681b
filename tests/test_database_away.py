"""A PostgreSQL server that goes away and comes back: calls go on, and nothing needs a restart."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy.api import replicas
from storage.database import StorageError
from storage.opening import open_at, opened_within
from tests import postgres
from tests.api.asking import ask
from tests.api.watching import watch
from tests.calling import ANSWER
from tests.running import Running
from tests.sharing import Join, ask_sql, new_database, soon, starting, with_key
from tests.wire import ScriptedUpstream

CALL = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}'
SESSION = b"X-Traceway-Session-Id: s\r\n"


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    """A server of the test's own, which it stops and starts."""
    own = postgres.Server()
    yield own
    own.end()


@pytest.fixture
async def join(
    server: postgres.Server, tmp_path: Path, upstream: ScriptedUpstream
) -> AsyncIterator[Join]:
    async with AsyncExitStack() as stack:
        yield starting(stack, new_database(server), tmp_path, upstream)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "RETRY_MAX_S", 0.2)
    monkeypatch.setattr("proxy.commits.RETRY_MAX_S", 0.2)


async def is_away(tw: Running) -> None:
    async def says_so() -> bool:
        health = (await ask(tw, "/api/health")).body
        reasons = " ".join(health["reasons"])
        return health["database_away_since"] is not None and "away since" in reasons

    await soon(says_so)


async def is_back(tw: Running) -> None:
    async def says_so() -> bool:
        health = (await ask(tw, "/api/health")).body
        return health["status"] == "ok" and health["database_away_since"] is None

    await soon(says_so, 20)


async def test_calls_go_on_while_the_database_is_away_and_are_there_when_it_is_back(
    server: postgres.Server, join: Join, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    one, other = await join(), await join()
    assert (await one.raw(headers=SESSION, body=CALL)).status == 200
    await one.saved()
    await asyncio.to_thread(server.stop)
    for tw in (one, other):
        await is_away(tw)
        for _ in range(5):
            assert (await tw.raw(headers=SESSION, body=CALL)).status == 200
        reply = await ask(tw, "/api/sessions")
        assert reply.error == (503, "storage_unavailable")
        assert "it cannot be used (" in reply.body["error"]["message"]
        health = (await ask(tw, "/api/health")).body
        assert health["status"] == "degraded"
        async with tw.client.get(f"{tw.url}/metrics") as answer:
            assert "traceway_database_away_seconds 0.0" not in await answer.text()
        async with tw.client.get(f"{tw.url}/sessions") as answer:
            assert answer.status == 503
    await asyncio.to_thread(server.start)
    for tw in (one, other):
        await is_back(tw)
        await tw.saved()
    session = await other.api("/api/sessions/s")
    assert (session["trace_count"], session["status"]) == (11, "completed")
    counters = (await ask(one, "/api/health")).body["counters"]
    assert (counters["dropped_bodies"], counters["dropped_records"]) == (0, 0)


async def test_what_does_not_fit_into_memory_meanwhile_is_counted(
    server: postgres.Server, join: Join, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    tw = await join({"recording.memory_bytes": "1048576", "recording.body_bytes": "524288"})
    await asyncio.to_thread(server.stop)
    await is_away(tw)
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"%b"}]}'
    for _ in range(8):
        assert (await tw.raw(headers=SESSION, body=body % (b"x" * 300_000))).status == 200
    health = (await ask(tw, "/api/health")).body
    assert health["queued_bytes"] <= 1_048_576
    assert health["counters"]["dropped_bodies"] >= 4
    await asyncio.to_thread(server.start)
    await soon_saved(tw)
    assert (await tw.api("/api/sessions/s"))["trace_count"] == 8


async def soon_saved(tw: Running) -> None:
    async with asyncio.timeout(20):
        await tw.saved()


async def test_strict_refuses_calls_rather_than_lose_them_until_it_is_back(
    server: postgres.Server, join: Join, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    tw = await join({"recording.durability": "strict"})
    assert (await tw.raw(headers=SESSION, body=CALL)).status == 200
    await asyncio.to_thread(server.stop)
    await is_away(tw)
    refused = await tw.raw(headers=SESSION, body=CALL)
    assert refused.status == 503
    assert b"recording_unavailable" in refused.body
    await asyncio.to_thread(server.start)
    await is_back(tw)
    assert (await tw.raw(headers=SESSION, body=CALL)).status == 200
    assert upstream.connections == 1


async def test_keys_that_are_known_go_on_being_good_while_the_database_is_away(
    server: postgres.Server, join: Join, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    tw = await join()
    async with tw.client.post(f"{tw.url}/api/keys", json={"name": "n", "scope": "admin"}) as answer:
        key = (await answer.json())["key"]
    await asyncio.to_thread(server.stop)
    good = b"X-Traceway-Api-Key: %b\r\n" % key.encode()

    async def is_known() -> bool:
        async with with_key(key) as client, client.get(f"{tw.url}/api/health") as answer:
            return (await answer.json())["database_away_since"] is not None

    await soon(is_known)
    assert (await tw.raw(headers=good, body=CALL)).status == 200
    assert (await tw.raw(headers=b"X-Traceway-Api-Key: tw_sk_no\r\n", body=CALL)).status == 401
    async with with_key(key) as client:
        asked = {"name": "m", "scope": "read"}
        async with client.post(f"{tw.url}/api/keys", json=asked) as answer:
            assert answer.status == 503
            assert "nothing was changed" in await answer.text()
    await asyncio.to_thread(server.start)
    await soon_saved(tw)


async def test_who_watches_is_told_to_begin_anew_when_the_database_was_started_anew(
    server: postgres.Server, join: Join, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    tw = await join()
    async with watch(tw) as watching:
        await asyncio.to_thread(server.stop)
        await is_away(tw)
        await asyncio.to_thread(server.start)
        assert (await watching.ended())[-1] == {"type": "resync"}
    await is_back(tw)
    async with watch(tw) as watching:
        await tw.raw(headers=SESSION, body=CALL)
        await watching.until("span_completed")


async def test_who_watches_is_told_to_begin_anew_when_the_database_recovered_from_a_crash(
    join: Join,
) -> None:
    tw = await join()
    async with watch(tw) as watching:
        others = "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        pids = await ask_sql(
            tw.config.database.url,
            f"SELECT pid FROM pg_stat_activity {others}",  # noqa: S608
        )
        os.kill(pids[0][0], signal.SIGKILL)
        assert (await watching.ended())[-1] == {"type": "resync"}
    await is_back(tw)


async def test_after_an_outage_nobody_is_held_for_dead_at_once(
    server: postgres.Server, join: Join, upstream: ScriptedUpstream
) -> None:
    tw = await join()
    await asyncio.to_thread(server.stop)
    await is_away(tw)
    await asyncio.to_thread(server.start)
    await is_back(tw)
    assert tw.server.recorder.reasons() == []


async def test_a_start_waits_for_the_database_says_so_once_and_goes_on(
    server: postgres.Server, tmp_path: Path
) -> None:
    url = new_database(server)
    server.stop()
    said: list[str] = []
    opening = asyncio.create_task(
        opened_within(30, lambda: open_at(tmp_path / "x", url), said.append, asyncio.Event())
    )

    async def is_said() -> bool:
        await asyncio.to_thread(os.getpid)
        return bool(said)

    await soon(is_said)
    await asyncio.to_thread(server.start)
    database = await opening
    assert database is not None
    await database.close()
    assert len(said) == 1
    assert said[0].startswith("waiting up to 30 s for the database: postgresql://")


async def test_a_start_ends_with_the_reason_when_the_database_does_not_come(
    tmp_path: Path,
) -> None:
    url = "postgresql://u:secret@127.0.0.1:9/name"
    said: list[str] = []
    with pytest.raises(StorageError) as caught:
        await opened_within(2, lambda: open_at(tmp_path / "x", url), said.append, asyncio.Event())
    assert len(said) == 1
    assert "secret" not in said[0] + str(caught.value)
    assert "postgresql://u@127.0.0.1:9/name: it cannot be used" in str(caught.value)
