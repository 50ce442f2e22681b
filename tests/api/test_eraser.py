"""Orders are carried out one after the other, also those of a process that died, by who leads."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from proxy.api import eraser
from proxy.api.eraser import Eraser
from proxy.api.pace import Pace
from storage import erasures
from storage.database import DatabaseCorrupt, DatabaseLocked, QueryTimeout, Transaction
from storage.erasures import Order
from storage.forget import delete_session
from storage.fulltext import index
from tests.api.asking import ask, save
from tests.api.test_erasing import CANARY, ended, names, order, reading
from tests.databases import holding, opened
from tests.running import Running, running
from tests.storage.calls import end, rows, spoken, start, text_of, write
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
        assert await tw.findings(text_of) == []


@pytest.mark.sqlite_only("PostgreSQL gives space back by itself")
async def test_words_that_a_process_deleted_before_it_died_leave_with_the_next(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.reclaim.AFTER_START_S", 0.0)
    database = opened(tmp_path / "traceway.db")
    write(database, [spoken(start(1, session_id="s"), [f"u:{CANARY}"], ["a:x"])])
    with database.transaction() as tx:
        index(tx, 10, text_of)
        delete_session(tx, 1, "s", text_of)
    await database.close()
    assert holding(tmp_path / "traceway.db", CANARY.encode()) != []
    async with running(tmp_path, upstream.url) as tw:
        while holding(tw.config.database.path, CANARY.encode()):
            await tw.database.read("SELECT 1", {})


@pytest.mark.sqlite_only("PostgreSQL gives space back by itself")
async def test_what_a_process_deleted_before_it_was_killed_leaves_with_the_next(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.reclaim.AFTER_START_S", 0.0)
    (folder := tmp_path / "killed").mkdir()
    path = tmp_path / "traceway.db"
    database = opened(folder / path.name)
    # In the file, and in the log; never in the index of words.
    write(database, [spoken(start(1, session_id="s"), [f"u:{CANARY} 1"], ["a:x"])], indexed=False)
    database._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    write(database, [spoken(start(2, session_id="s"), [f"u:{CANARY} 2"], ["a:x"])], indexed=False)
    with database.transaction() as tx:
        delete_session(tx, 1, "s", text_of)
    for name in (path.name, f"{path.name}-wal"):  # which is what a kill leaves
        shutil.copy(folder / name, tmp_path / name)
    await database.close()
    assert holding(path, CANARY.encode()) == [path.name, f"{path.name}-wal"]
    async with running(tmp_path, upstream.url) as tw, asyncio.timeout(10):
        while holding(path, CANARY.encode()):
            await tw.database.read("SELECT 1", {})


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


async def test_an_order_that_fails_ends_and_says_so_and_the_others_go_on(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = erasures.step
    bad: list[int] = []

    def failing(tx: Transaction, project_id: int, number: int, *others: Any, **how: Any) -> bool:
        if not bad or number == bad[0]:
            bad.append(number)
            raise ValueError("a bug")
        return step(tx, project_id, number, *others, **how)

    monkeypatch.setattr(erasures, "step", failing)
    await save(tw, end(start(1, session_id="s")), end(start(2, session_id="t")))
    first = await ended(tw, (await order(tw, session="s"))["id"])
    assert (first["state"], first["given"]) == ("failed", None)
    assert first["reason"].startswith("it failed")
    told = f"order {first['id']} to erase failed: the log says why"
    assert told in (await ask(tw, "/api/health")).body["reasons"]
    assert (await ended(tw, (await order(tw, session="t"))["id"]))["state"] == "done"
    assert await names(tw) == ["s"]
    assert tw.server.eraser.reasons() == []
    assert await tw.findings(text_of) == []


async def test_an_order_of_which_not_even_the_failure_can_be_noted_holds_up_nothing(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, fail, ran = erasures.step, erasures.fail, asyncio.Event()
    tries: list[int] = []

    def failing(tx: Transaction, project_id: int, number: int, *others: Any, **how: Any) -> bool:
        if number == 1:
            raise ValueError("a bug")
        return step(tx, project_id, number, *others, **how)

    def damaged(*_: object, **__: object) -> None:
        tries.append(1)
        raise DatabaseCorrupt("erasures", "it cannot be read")

    async def run() -> None:
        ran.set()

    await save(tw, end(start(1, session_id="s")), end(start(2, session_id="t")))
    with monkeypatch.context() as broken:
        broken.setattr(erasures, "step", failing)
        broken.setattr(erasures, "fail", damaged)
        broken.setattr(tw.server.eraser.retention, "run", run)
        first = await order(tw, session="s")
        assert first["id"] == 1
        assert (await ended(tw, (await order(tw, session="t"))["id"]))["state"] == "done"
        ran.clear()
        tw.server.eraser.wake()
        await ran.wait()
        known = len(tries)
        for _ in range(50):
            await ask(tw, "/api/health")
        assert len(tries) <= known + 1  # it is tried again after a pause
        broken.setattr(erasures, "fail", fail)
        tw.server.eraser.wake()
        assert (await ended(tw, 1))["state"] == "failed"
    assert await names(tw) == ["s"]


async def test_an_order_that_cannot_go_on_is_told_until_it_does(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_long(*_: object) -> None:
        raise QueryTimeout("the database", 5.0)

    monkeypatch.setattr(eraser, "LOOK_S", 0.01)
    await save(tw, end(start(1, session_id="s", user_id="u")))
    with monkeypatch.context() as broken:
        broken.setattr(eraser, "collect", too_long)
        asked = await order(tw, user="u")
        while not (reasons := (await ask(tw, "/api/health")).body["reasons"]):
            pass
        assert reasons[0].startswith(f"order {asked['id']} to erase waits: ")
    assert (await ended(tw, asked["id"]))["state"] == "done"
    assert tw.server.eraser.reasons() == []


async def test_a_retention_that_cannot_go_on_is_told_until_it_does(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    async def too_long() -> None:
        tries.append(1)
        raise QueryTimeout("the database", 5.0)

    monkeypatch.setattr(eraser, "LOOK_S", 0.01)
    with monkeypatch.context() as broken:
        broken.setattr(tw.server.eraser.retention, "run", too_long)
        tw.server.eraser.wake()
        while not (reasons := (await ask(tw, "/api/health")).body["reasons"]):
            pass
        assert len(tries) >= eraser.TELLS_WAITS
        assert reasons == [f"erasing waits: {QueryTimeout('the database', 5.0)}"]
    while tw.server.eraser.reasons():
        await ask(tw, "/api/health")


async def test_a_retention_that_goes_on_between_its_failures_is_not_told(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tw.server.eraser.retention
    tries: list[int] = []

    async def slowly() -> None:
        tries.append(1)
        await kept.between()
        raise QueryTimeout("the database", 5.0)

    monkeypatch.setattr(eraser, "LOOK_S", 0.01)
    monkeypatch.setattr(kept, "run", slowly)
    tw.server.eraser.wake()
    while len(tries) < 2 * eraser.TELLS_WAITS:
        assert (await ask(tw, "/api/health")).body["reasons"] == []


async def test_an_order_by_words_waits_for_what_was_said_before_it_alone(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.recorder.IDLE_S", 3600.0)
    monkeypatch.setattr(eraser, "INDEX_BATCH", 1)
    tw.server.eraser.pace.leads = lambda: False
    own = Eraser(
        tw.database, tw.server.recorder, tw.server.eraser.retention, Pace(tw.server.recorder)
    )
    for n in (1, 2):
        await save(tw, spoken(start(n, session_id="s"), [f"u:w{n}"], []))
    asked = await tw.server.recorder.write(
        lambda tx: erasures.ask(tx, 1, Order(kind="query", given="w1"), 5), (1,)
    )
    assert not await own._hear(asked, 0.0)
    await save(tw, spoken(start(3, session_id="s"), ["u:w3"], []))
    while not await own._hear(asked, 0.0):
        pass
    assert await tw.database.read("SELECT COUNT(*) FROM unindexed", {}) == [(1,)]


async def test_a_retention_that_fails_is_told_and_orders_go_on(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eraser, "LOOK_S", 0.01)

    async def failing() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(tw.server.eraser.retention, "run", failing)
    await save(tw, end(start(1, session_id="s")))
    assert (await ended(tw, (await order(tw, session="s"))["id"]))["state"] == "done"
    while not (reasons := (await ask(tw, "/api/health")).body["reasons"]):
        tw.server.eraser.wake()
    assert "what is too old could not be erased: the log says why" in reasons


async def test_orders_take_turns_and_so_does_the_retention(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eraser, "SLICE_S", 0.0)
    monkeypatch.setattr("proxy.api.pace.MOST_SPANS", 1)
    tw.server.eraser.pace.spans = 1
    turns: list[int] = []
    step, run = erasures.step, tw.server.eraser.retention.run

    def noting(tx: Transaction, project_id: int, number: int, *others: Any, **how: Any) -> bool:
        turns.append(number)
        return step(tx, project_id, number, *others, **how)

    async def running_too() -> None:
        turns.append(0)
        await run()

    leads = [False]
    monkeypatch.setattr(tw.server.eraser.pace, "leads", lambda: leads[0])
    monkeypatch.setattr(erasures, "step", noting)
    monkeypatch.setattr(tw.server.eraser.retention, "run", running_too)
    await save(tw, *(end(start(n, session_id=f"s{n % 2}")) for n in range(1, 21)))
    first, second = [(await order(tw, session=f"s{n}"))["id"] for n in (0, 1)]
    leads[0] = True
    tw.server.eraser.wake()
    await ended(tw, first)
    await ended(tw, second)
    last_of_first = len(turns) - turns[::-1].index(first)
    assert {second, 0} <= {*turns[turns.index(first) : last_of_first]}


async def test_a_session_that_is_found_twice_is_erased_and_counted_once(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.collecting.LOOKED_AT", 1)
    await save(tw, *(end(start(n, session_id="s", user_id="u")) for n in range(1, 5)))
    await save(tw, *(end(start(n, session_id="kept", user_id="u")) for n in range(5, 8)))
    rows(tw.database, "UPDATE sessions SET starred = 1 WHERE session_id = 'kept'")
    report = await ended(tw, (await order(tw, user="u"))["id"])
    assert (report["found"], report["sessions"], report["kept_starred"]) == (1, 1, 1)


async def test_what_is_found_while_another_takes_over_is_found_again(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace, leads, lost = tw.server.eraser.pace, [True], asyncio.Event()
    look = pace.look

    async def losing(read: Any) -> Any:
        found = await look(read)
        monkeypatch.setattr(pace, "look", look)
        leads[0] = False
        lost.set()
        return found

    monkeypatch.setattr(pace, "leads", lambda: leads[0])
    monkeypatch.setattr(pace, "look", losing)
    await save(tw, *(end(start(n, session_id=f"s{n}")) for n in range(1, 4)))
    asked = await order(tw, query="cost:>=0")
    await lost.wait()
    leads[0] = True
    tw.server.eraser.wake()
    report = await ended(tw, asked["id"])
    assert (report["found"], report["sessions"]) == (3, 3)
    assert await names(tw) == []


async def test_an_order_that_no_time_heals_ends(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(tw, end(start(1, session_id="s")))

    def damaged(*, begin: bool = False) -> bool:
        raise DatabaseCorrupt("messages_fts", "it cannot be read")

    monkeypatch.setattr(tw.database, "reclaim", damaged)
    asked = await order(tw, session="s")
    report = await ended(tw, asked["id"])
    assert (report["state"], report["sessions"]) == ("failed", 1)
    assert (await ask(tw, "/api/health")).body["reasons"] == [
        f"order {asked['id']} to erase failed: the log says why"
    ]
