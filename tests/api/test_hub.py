"""The event hub: one read for all who watch, a bounded ring, and who falls behind it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.api import hub as hub_module
from proxy.api.frames import RESYNC, Wants, greeting, heartbeat
from proxy.api.hub import Hub
from proxy.api.live import LiveTexts
from proxy.tasks import spawn
from storage import events
from storage.database import Database, DatabaseLocked
from tests.databases import opened
from tests.storage.calls import end, start, write

EVERYTHING = Wants()


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = opened(tmp_path / "traceway.db")
    yield database
    await database.close()


@pytest.fixture
async def hub(db: Database) -> AsyncIterator[Hub]:
    made = Hub(db, 1, LiveTexts(set(), 1))
    task = spawn(made.run(), "hub under test")
    yield made
    made.close()
    task.cancel()


class Reads:
    """Counts the reads of the log, and makes them fail."""

    def __init__(self, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of_log = self.in_all = self.failures = 0
        self._read = db.read
        monkeypatch.setattr(db, "read", self.read)

    async def read(self, sql: str, params: Any) -> Any:
        self.in_all += 1
        self.of_log += sql == events.READ
        if self.failures and sql == events.READ:
            self.failures -= 1
            raise DatabaseLocked("traceway.db", None)
        return await self._read(sql, params)


async def numbers(frames: AsyncIterator[bytes], count: int) -> list[int]:
    """Read so many events, and give their numbers."""
    found: list[int] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += ids(await anext(frames))
    return found


def ids(data: bytes) -> list[int]:
    blocks = [block.split(b"\n") for block in data.split(b"\n\n")]
    return [int(one[0][4:]) for one in blocks if len(one) == 2 and one[1].startswith(b"data: ")]


def save(hub: Hub, db: Database, *changes: Any) -> None:
    write(db, changes)
    hub.told()


async def test_a_commit_is_read_once_for_all_who_watch(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch() -> list[bytes]:
        async with hub.subscribe(None, EVERYTHING) as frames:
            assert await anext(frames) == greeting(0)
            ready.release()
            return [await anext(frames)]

    ready = asyncio.Semaphore(0)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        tasks = [group.create_task(watch()) for _ in range(50)]
        for _ in tasks:
            await ready.acquire()
        reads = Reads(db, monkeypatch)
        save(hub, db, start(1, session_id="s"))
    assert reads.of_log <= 2  # one that finds the commit, after one that may have begun before it
    first = tasks[0].result()[0]
    assert ids(first) == [1, 2, 3]
    assert all(task.result()[0] is first for task in tasks)  # and rendered once


async def test_nothing_is_read_while_nobody_watches(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(db, monkeypatch)
    save(hub, db, start(1))
    async with hub.subscribe(None, EVERYTHING) as frames:
        assert await anext(frames) == greeting(2)
        save(hub, db, start(2))
        assert await numbers(frames, 2) == [3, 4]
    seen = reads.in_all
    for n in range(3, 6):
        save(hub, db, start(n))
        await asyncio.sleep(0)
    assert (reads.in_all, hub.subscribers) == (seen, 0)
    async with hub.subscribe(None, EVERYTHING) as frames:
        assert await anext(frames) == greeting(10)
        save(hub, db, start(6))
        assert await numbers(frames, 2) == [11, 12]


async def test_what_the_ring_no_longer_has_is_read_from_the_log(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "RING_BYTES", 100_000)
    monkeypatch.setattr(events, "READ", events.READ.replace("500", "10"))
    async with hub.subscribe(None, EVERYTHING) as live:
        await anext(live)
        for n in range(1, 11):
            save(hub, db, *(end(start(10 * n + i, session_id="s")) for i in range(10)))
            assert len(await numbers(live, 31)) == 31
        for since in (0, 17, 200, 309):
            async with hub.subscribe(since, EVERYTHING) as frames:
                await anext(frames)
                assert await numbers(frames, 310 - since) == list(range(since + 1, 311))
                save(hub, db, start(2000 + since))
                assert len(await numbers(frames, 2)) == 2
            await numbers(live, 2)
            async with hub.subscribe(None, EVERYTHING) as frames:
                pass
    assert hub._ring_bytes <= 100_000


async def test_who_watches_live_and_falls_behind_is_told_to_begin_anew(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "RING_BYTES", 10_000)
    async with (
        hub.subscribe(None, EVERYTHING) as slow,
        hub.subscribe(None, EVERYTHING) as fast,
    ):
        await anext(slow)
        await anext(fast)
        waits = asyncio.ensure_future(anext(slow))
        save(hub, db, start(1))
        assert ids(await waits) == [1, 2]
        await numbers(fast, 2)
        for n in range(2, 30):
            save(hub, db, start(n))
            await numbers(fast, 2)
        assert [data async for data in slow] == [RESYNC]


async def test_who_is_overtaken_by_the_pruning_is_told_to_begin_anew(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "READ", events.READ.replace("500", "1"))
    for n in range(5):
        write(db, [start(n)])
    async with hub.subscribe(0, EVERYTHING) as frames:
        assert await anext(frames) == greeting(0)
        assert ids(await anext(frames)) == [1, 2]
        monkeypatch.setattr(events, "MAX_EVENTS", 2)
        with db.transaction() as tx:
            events.prune(tx)
        assert await anext(frames) == RESYNC + greeting(10)
        save(hub, db, start(5))
        assert await numbers(frames, 2) == [11, 12]


async def test_a_database_that_cannot_be_read_for_a_while_delays_events_and_loses_none(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hub.subscribe(None, EVERYTHING) as frames:
        await anext(frames)
        reads = Reads(db, monkeypatch)
        reads.failures = 2
        save(hub, db, start(1))
        assert await numbers(frames, 2) == [1, 2]
        assert reads.failures == 0


async def test_a_database_that_is_away_is_asked_ever_more_seldom(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (hub_module.PAUSE_S, hub_module.MAX_PAUSE_S) == (0.05, 1.0)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async with hub.subscribe(None, EVERYTHING) as frames:
        await anext(frames)
        reads = Reads(db, monkeypatch)
        reads.failures = 6
        monkeypatch.setattr(asyncio, "sleep", pause)
        save(hub, db, start(1))
        assert await numbers(frames, 2) == [1, 2]
        save(hub, db, start(2))
        assert await numbers(frames, 2) == [3, 4]
    longer = [one for one in pauses if one != hub_module.PAUSE_S]
    assert longer == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert pauses[-1] == hub_module.PAUSE_S


async def test_a_subscription_that_cannot_read_back_ends_and_one_that_cannot_begin_raises(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, [start(1)])
    async with hub.subscribe(0, EVERYTHING) as frames:
        await anext(frames)
        monkeypatch.setattr(hub, "_floor", 2)
        reads = Reads(db, monkeypatch)
        reads.failures = 1000
        assert [data async for data in frames] == []

    async def refuse(*_: object) -> None:
        raise DatabaseLocked("traceway.db", None)

    monkeypatch.setattr(db, "read", refuse)
    with pytest.raises(DatabaseLocked):
        async with hub.subscribe(None, EVERYTHING):
            pass
    assert hub.subscribers == 0


async def test_a_heartbeat_says_where_it_stands_also_past_what_was_filtered_out(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "HEARTBEAT_S", 0.01)
    async with hub.subscribe(None, Wants(session_id="none")) as frames:
        assert await anext(frames) == greeting(0)
        assert await anext(frames) == heartbeat(0)
        save(hub, db, start(1))
        async with asyncio.timeout(10):
            while await anext(frames) != heartbeat(2):
                pass


async def test_commits_under_load_are_told_together(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(db, monkeypatch)
    began_s = time.monotonic()
    async with hub.subscribe(None, EVERYTHING) as frames:
        await anext(frames)
        for n in range(50):
            save(hub, db, start(n))
            await db.read("SELECT 1", {})
        assert await numbers(frames, 100) == list(range(1, 101))
    assert reads.of_log <= (time.monotonic() - began_s) / hub_module.PAUSE_S + 1


async def test_who_left_at_once_has_nothing_read(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(db, monkeypatch)
    async with hub.subscribe(None, EVERYTHING):
        save(hub, db, start(1))
    await db.read("SELECT 1", {})
    assert reads.of_log == 0


async def test_what_is_of_other_projects_is_passed_over(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "HEARTBEAT_S", 0.01)
    write(db, [start(1)])
    write(db, [start(n, project_id=2) for n in range(2, 9)])
    async with hub.subscribe(1, EVERYTHING) as frames:
        await anext(frames)
        assert ids(await anext(frames)) == [2]
        assert await anext(frames) == heartbeat(16)
        save(hub, db, start(9, project_id=2))
        save(hub, db, start(10))
        assert await numbers(frames, 2) == [19, 20]


async def test_many_commits_at_once_are_read_piece_by_piece(
    hub: Hub, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "READ", events.READ.replace("500", "1"))
    async with hub.subscribe(None, EVERYTHING) as frames:
        await anext(frames)
        for n in range(5):
            write(db, [start(n)])
        hub.told()
        assert await numbers(frames, 10) == list(range(1, 11))


async def test_a_session_is_shown_as_it_is_when_it_is_told(hub: Hub, db: Database) -> None:
    write(db, [start(1, session_id="s")])
    write(db, [end(start(1, session_id="s"))])
    async with hub.subscribe(0, Wants(kinds=frozenset(["session_updated"]))) as frames:
        await anext(frames)
        told = (await anext(frames)).decode().split("\n\n")[:-1]
    shown = [orjson.loads(block.split("data: ")[1])["session"]["status"] for block in told]
    assert shown == ["completed", "completed"]


async def test_who_watches_begins_anew_where_the_log_has_lost_its_newest_events(
    db: Database, hub: Hub
) -> None:
    write(db, [start(1)])
    async with hub.subscribe(None, EVERYTHING) as frames:
        assert await anext(frames) == greeting(2)
        write(db, [start(2)])
        hub.told()
        await numbers(frames, 2)
        with db.transaction() as tx:  # as a server that came back without its last commits
            tx.execute("UPDATE counters SET value = 2 WHERE name = 'event'", {})
            tx.execute("DELETE FROM events WHERE sequence > 2", {})
        hub.begin_anew(2)
        async with hub.subscribe(None, EVERYTHING) as others:
            assert await anext(others) == greeting(2)
            assert [one async for one in frames] == [RESYNC]
            write(db, [start(3)])
            hub.told()
            assert await numbers(others, 2) == [3, 4]
