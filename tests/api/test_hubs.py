"""The hubs of all projects: who watches one hears of no other, and so many may watch in all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy.api import hubs as hubs_module
from proxy.api.frames import Wants
from proxy.api.hubs import Hubs, TooManySubscribers
from proxy.tasks import spawn
from storage import events
from storage.database import Database, DatabaseLocked
from tests.calling import Gate
from tests.databases import opened
from tests.recorders import Begin
from tests.storage.calls import start, write

EVERYTHING = Wants()


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = opened(tmp_path / "traceway.db")
    yield database
    await database.close()


@pytest.fixture
async def hubs(db: Database) -> AsyncIterator[Hubs]:
    made = Hubs(db, set())
    yield made
    made.close()


async def test_who_watches_a_project_is_told_of_no_other(db: Database, hubs: Hubs) -> None:
    async with (
        hubs.subscribe(1, None, EVERYTHING) as first,
        hubs.subscribe(2, None, EVERYTHING) as second,
    ):
        await anext(first)
        await anext(second)
        write(db, [start(1, session_id="theirs", project_id=2)])
        write(db, [start(2, session_id="ours")])
        hubs.told()
        async with asyncio.timeout(10):
            assert b"theirs" not in await anext(first)
            assert b"ours" not in await anext(second)


async def test_the_bound_on_subscribers_is_over_all_projects(
    hubs: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs_module, "MAX_SUBSCRIBERS", 1)
    async with hubs.subscribe(1, None, EVERYTHING):
        with pytest.raises(TooManySubscribers):
            async with hubs.subscribe(2, None, EVERYTHING):
                pass


async def test_the_bound_on_subscribers_holds_and_those_who_leave_make_room(
    hubs: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs_module, "MAX_SUBSCRIBERS", 1)
    async with hubs.subscribe(1, None, EVERYTHING):
        with pytest.raises(TooManySubscribers):
            async with hubs.subscribe(1, None, EVERYTHING):
                pass
    async with hubs.subscribe(1, None, EVERYTHING):
        assert hubs.subscribers == 1


async def test_the_writer_prunes_the_log_from_time_to_time(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs_module, "PRUNE_S", 0.001)
    monkeypatch.setattr(events, "MAX_EVENTS", 2)
    monkeypatch.setattr(events, "PRUNED_ROWS", 2)
    recording = await begin()
    assert isinstance(recording.gate, Gate)
    pruning = Hubs(recording.database, set())
    recording.gate.failures.append(DatabaseLocked("traceway.db", None))
    task = spawn(pruning.prune_forever(recording.recorder, lambda: True), "pruning under test")
    for n in range(7):
        await recording.recorder.put(start(n))
    async with asyncio.timeout(10):
        while await recording.rows("SELECT MIN(sequence) FROM events") != [(14,)]:
            pass
    task.cancel()


async def test_the_newest_events_of_all_projects_share_one_bound(
    db: Database, hubs: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What those who watch one project held, they hold together: a thousand projects are one."""
    monkeypatch.setattr(hubs_module, "RING_BYTES", 80_000)
    async with AsyncExitStack() as stack:
        watched = range(1, 5)
        frames = [
            await stack.enter_async_context(hubs.subscribe(p, None, EVERYTHING)) for p in watched
        ]
        for one in frames:
            await anext(one)
        for n in range(20):
            write(db, [start(100 * p + n, session_id="s" * 500, project_id=p) for p in watched])
            hubs.told()
            async with asyncio.timeout(10):
                for one in frames:
                    await anext(one)
        held = [hub._ring_bytes for hub in hubs._all]
        newest = max(page.held_bytes for hub in hubs._all for page in hub._ring)
        assert sum(held) <= 80_000
        assert all(0 < one <= max(80_000 / len(watched), newest) for one in held)
    assert [hub._ring_bytes for hub in hubs._all] == [0] * len(watched)


async def test_the_newest_number_is_the_newest_that_anybody_was_given(
    db: Database, hubs: Hubs
) -> None:
    assert hubs.newest == 0
    write(db, [start(1, project_id=2)])
    async with hubs.subscribe(1, None, EVERYTHING) as first:
        await anext(first)
        assert hubs.newest == 2
        async with hubs.subscribe(2, None, EVERYTHING) as second:
            await anext(second)
            write(db, [start(2, project_id=2)])
            hubs.told()
            async with asyncio.timeout(10):
                await anext(second)
            assert hubs.newest == 4
        write(db, [start(3, project_id=2)])
        async with hubs.subscribe(1, None, EVERYTHING):  # greeted with a number of another project
            assert hubs.newest == 6
    hubs.begin_anew(3)
    assert hubs.newest == 3
