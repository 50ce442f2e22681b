"""Orders are carried out one after the other, also those of a process that died, by who leads."""

import asyncio
from pathlib import Path

import pytest

from proxy.api import eraser
from storage import erasures
from storage.database import DatabaseLocked
from storage.doctor import check
from storage.erasures import Order
from tests.api.asking import save
from tests.api.test_erasing import ended, names, order, reading
from tests.databases import opened
from tests.running import Running, running
from tests.storage.calls import end, rows, start, text_of, write
from tests.wire import ScriptedUpstream

__all__ = ["reading"]  # a fixture


async def test_orders_of_a_process_that_died_go_on_with_the_next(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    database = opened(tmp_path / "traceway.db")
    write(database, [end(start(n, session_id="s")) for n in range(1, 12)])
    with database.transaction() as tx:
        asked = erasures.ask(tx, 1, Order(kind="session", given="s"), 5)
        erasures.step(tx, 1, asked.id, text_of, most_spans=3, now_us=9)
    await database.close()
    async with running(tmp_path, upstream.url) as tw:
        report = await ended(tw, asked.id)
        assert (report["traces"], report["state"]) == (11, "done")
        assert await check(tw.database, text_of) == []


async def test_nothing_is_erased_by_who_does_not_lead(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    leads = [False]
    monkeypatch.setattr(tw.server.eraser.pace, "leads", lambda: leads[0])
    await save(tw, end(start(1, session_id="s")))
    asked = await order(tw, session="s")
    await tw.saved()
    assert await names(tw) == ["s"]
    leads[0] = True
    tw.server.eraser.wake()
    assert (await ended(tw, asked["id"]))["sessions"] == 1
    assert await names(tw) == []


async def test_it_goes_on_when_the_database_can_be_written_again(
    tw: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([True, False, False, False, False])
    step, failed = erasures.step, asyncio.Event()

    def failing(*arguments: object, **how: object) -> bool:
        if next(failures):
            raise Refusing("the database", None)
        return step(*arguments, **how)  # type: ignore[arg-type]

    class Refusing(DatabaseLocked):
        pass

    monkeypatch.setattr(eraser, "LOOK_S", 0.01)
    monkeypatch.setattr("proxy.commits.RETRY_S", 0.01)
    monkeypatch.setattr(erasures, "step", failing)
    await save(tw, end(start(1, session_id="s")))
    assert not failed.is_set()
    report = await ended(tw, (await order(tw, session="s"))["id"])
    assert report["traces"] == 1


async def test_a_session_that_is_found_twice_is_erased_and_counted_once(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.collecting.LOOKED_AT", 1)
    await save(tw, *(end(start(n, session_id="s", user_id="u")) for n in range(1, 5)))
    await save(tw, *(end(start(n, session_id="kept", user_id="u")) for n in range(5, 8)))
    rows(tw.database, "UPDATE sessions SET starred = 1 WHERE session_id = 'kept'")
    report = await ended(tw, (await order(tw, user="u"))["id"])
    assert (report["found"], report["sessions"], report["kept_starred"]) == (1, 1, 1)
