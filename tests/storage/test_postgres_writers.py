"""Servers that write to one database of PostgreSQL at once, and connections that are lost."""

import asyncio
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from storage import postgres as module
from storage import postgres_address
from storage.database import DatabaseLocked, DatabaseUnwritable
from storage.doctor import check
from storage.forget import delete_session
from storage.fulltext import index
from storage.parameters import Change, prepare
from storage.postgres import PostgresDatabase, open_postgres
from storage.postgres_errors import Unreachable
from storage.writes import apply
from tests import postgres
from tests.databases import url_of
from tests.storage.calls import end, rows, spoken, start, text_of, write

pytestmark = pytest.mark.postgres_only("only there there is more than one writer")

ASKED = ["s:be brief", "u:hello"]


@pytest.fixture
async def two(tmp_path: Path) -> Any:
    """Give two servers' databases, which are one."""
    url = url_of(tmp_path / "traceway.db")
    both = open_postgres(url), open_postgres(url)
    yield both
    for one in both:
        await one.close()


def put(db: PostgresDatabase, changes: list[Change]) -> None:
    """Write as the recorder does: the projects are locked, and what may pass is tried again."""
    while True:
        batch = prepare(changes)
        try:
            with db.transaction({span.key[0] for span in batch.spans}) as tx:
                apply(tx, batch)
        except DatabaseLocked as error:
            if "deadlock" in str(error):
                raise AssertionError from error
        else:
            return


def calls_of(writer: int) -> list[list[Change]]:
    """Give batches of one writer: in sessions and words that all share, in two projects."""
    rng = random.Random(writer)  # noqa: S311 (no secret)
    batches: list[list[Change]] = []
    for n in range(25):
        first = writer * 1_000 + n * 10
        batch: list[Change] = []
        ends: list[Change] = []
        for k in range(rng.randint(1, 4)):
            begun = start(
                first + k, session_id=f"s{rng.randint(1, 3)}", project_id=rng.choice((1, 2))
            )
            batch.append(begun)
            ends.append(spoken(begun, [*ASKED, f"u:{rng.randint(1, 5)}"], [f"a:{k}"]))
        batches += [batch, ends[::-1]]
    return batches


def at_once(works: Iterable[Any]) -> None:
    failed: list[BaseException] = []

    def kept(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [Thread(target=kept, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


async def test_two_servers_write_at_once_and_every_sum_is_right(
    two: tuple[PostgresDatabase, PostgresDatabase],
) -> None:
    gaps: list[Any] = []
    done: list[int] = []

    def writing(n: int) -> None:
        for batch in calls_of(n):
            put(two[n], batch)
            with two[n].transaction(()) as tx:
                index(tx, 3, text_of)
        done.append(n)

    def watching() -> None:
        # What is seen at any moment has every number up to the highest.
        with open_watch(two[0]) as seen:
            while len(done) < 2:
                ((newest, count),) = seen()
                if newest != count:
                    gaps.append((newest, count))

    at_once([lambda: writing(0), lambda: writing(1), watching])
    assert gaps == []
    with two[0].transaction(()) as tx:
        index(tx, 10_000, text_of)
    assert await check(two[0], text_of) == []
    for session in ("s1", "s2", "s3"):
        at_once(
            [
                lambda s=session, p=project, db=db: deleted(db, p, s)
                for project, db in ((1, two[0]), (2, two[1]))
            ]
        )
    assert await check(two[1], text_of) == []
    assert rows(two[0], "SELECT COUNT(*) FROM contents") == [(0,)]


def deleted(db: PostgresDatabase, project_id: int, session_id: str) -> None:
    with db.transaction((project_id,)) as tx:
        delete_session(tx, project_id, session_id, text_of)


@contextmanager
def open_watch(db: PostgresDatabase) -> Iterator[Any]:
    other = open_postgres(db._address.url)
    text = "SELECT COALESCE(MAX(sequence), 0), CAST(COALESCE(SUM(event_count), 0) AS BIGINT) FROM "
    try:
        yield lambda: rows_beside(other, f"{text} events")
    finally:
        postgres.run(other.close())


def rows_beside(db: PostgresDatabase, sql: str) -> list[Any]:
    with db.transaction(()) as tx:
        return tx.execute(sql, {})


async def test_locks_keep_apart_those_who_write_to_one_project_or_to_all(
    two: tuple[PostgresDatabase, PostgresDatabase], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(postgres_address._SETTINGS, "lock_timeout", "50")
    other = open_postgres(url_of(tmp_path / "traceway.db"))
    for held, waits, passes in (
        ((1, 2), [(1,), (2, 3), None], [(3,), ()]),
        ((), [None], [(1,), ()]),
        (None, [(1,), (), None], []),
    ):
        with two[0].transaction(held):
            for projects in waits:
                with pytest.raises(DatabaseLocked, match="lock"), other.transaction(projects):
                    pass
                assert other.has_waited
            for projects in passes:
                with other.transaction(projects):
                    pass
    await other.close()


async def test_a_transaction_says_whether_it_waited_for_another_servers(
    two: tuple[PostgresDatabase, PostgresDatabase], tmp_path: Path
) -> None:
    one, other = two

    def begins(project_id: int) -> bool:
        with other.transaction((project_id,)):
            return other.has_waited

    waited: list[bool] = []
    waiting = Thread(target=lambda: waited.append(begins(1)))
    with one.transaction((1,)):
        waiting.start()
        async with asyncio.timeout(10):
            while not await postgres.execute(url_of(tmp_path / "traceway.db"), postgres.WAITING):
                pass  # which asks the database
    waiting.join()
    assert waited == [True]
    # A machine that is busy with something else may make one wait, but not each.
    assert not all(begins(2) for _ in range(20))


async def test_servers_in_two_schemas_of_one_database_do_not_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(postgres_address._SETTINGS, "lock_timeout", "50")
    url = url_of(tmp_path / "traceway.db")
    await postgres.execute(url, "CREATE SCHEMA team_b", "SELECT 1")
    one, other = open_postgres(url), open_postgres(postgres.in_schema(url, "team_b"))
    try:
        for held in ((1, 2), (), None):
            for projects in ((1,), (), None):
                with one.transaction(held), other.transaction(projects):
                    pass
    finally:
        await one.close()
        await other.close()
        await postgres.execute(url, "DROP SCHEMA team_b CASCADE", "SELECT 1")


async def test_a_server_that_hangs_in_a_transaction_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of(tmp_path / "traceway.db")
    monkeypatch.setitem(postgres_address._SETTINGS, "idle_in_transaction_session_timeout", "50")
    hangs = open_postgres(url)
    other = open_postgres(url)
    with pytest.raises(DatabaseUnwritable), hangs.transaction((1,)), other.transaction((1,)):
        pass
    write(hangs, [start(1)])
    await hangs.close()
    await other.close()


async def test_a_statement_that_hangs_is_given_up(
    db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REARM_S", 0.0)
    monkeypatch.setattr(module, "GIVE_UP_S", 0.05)
    with pytest.raises(DatabaseUnwritable):
        rows(db, "SELECT CAST(pg_sleep(1) AS TEXT)")  # for as long, the server has its locks
    monkeypatch.undo()
    assert rows(db, "SELECT CAST(1 AS BIGINT)") == [(1,)]


async def test_the_server_ends_a_statement_that_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATEMENT_S", 0.05)
    db = open_postgres(url_of(tmp_path / "traceway.db"))
    with pytest.raises(DatabaseLocked, match="statement timeout"):
        rows(db, "SELECT CAST(pg_sleep(600) AS TEXT)")
    assert rows(db, "SELECT CAST(1 AS BIGINT)") == [(1,)]
    await db.close()


class Killing:
    """A transaction whose connection is ended before one of its steps."""

    def __init__(self, tx: Any, url: str, step: int) -> None:
        self._tx, self._url, self.left = tx, url, step
        self.full_text = tx.full_text
        ((self._pid,),) = tx.execute("SELECT pg_backend_pid()", {})

    def __getattr__(self, name: str) -> Any:
        does = getattr(self._tx, name)

        def step(*given: Any) -> Any:
            self.kill()
            return does(*given)

        return step

    def kill(self) -> None:
        self.left -= 1
        if self.left == -1:
            postgres.run(postgres.execute(self._url, f"SELECT pg_terminate_backend({self._pid})"))


async def test_a_connection_that_is_lost_at_any_step_costs_nothing(tmp_path: Path) -> None:
    url = url_of(tmp_path / "traceway.db")
    db = open_postgres(url)
    write(db, [spoken(start(1, session_id="s"), ASKED, ["a:hi"])])
    asked = [*ASKED, "a:hi", "u:more"]
    for step in range(60):
        batch = prepare([spoken(start(step + 2, session_id="s"), [*asked, f"u:{step}"], ["a:ok"])])
        before = rows(db, "SELECT COUNT(*) FROM spans")
        try:
            with db.transaction((1,)) as tx:
                killing = Killing(tx, url, step)
                apply(killing, batch)
                killing.kill()  # in place of the end of the transaction
        except DatabaseUnwritable:
            assert rows(db, "SELECT COUNT(*) FROM spans") == before
            write(db, [end(start(step + 2, session_id="s"))], indexed=False)
        else:
            assert killing.left >= 0
            break
    else:
        pytest.fail("a batch has fewer steps")
    with db.transaction(()) as tx:
        index(tx, 1_000, text_of)
    assert step > 10
    assert await check(db, text_of) == []
    await db.close()


async def test_a_batch_whose_commit_was_not_answered_is_written_again_and_counts_once(
    db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[Change] = [spoken(start(1, session_id="s"), ASKED, ["a:hi"])]
    commit = db._commit

    def lost() -> None:
        commit()
        raise Unreachable(db.place, "connection reset")

    monkeypatch.setattr(db, "_commit", lost)
    with pytest.raises(DatabaseUnwritable):
        write(db, changes, indexed=False)
    monkeypatch.undo()
    assert write(db, changes).late == 1
    assert rows(db, "SELECT span_count, cost_nusd FROM sessions") == [(1, 100)]
    assert await check(db, text_of) == []


async def test_a_connection_that_is_lost_while_nobody_uses_it_is_replaced(
    db: PostgresDatabase, tmp_path: Path
) -> None:
    assert await db.read("SELECT CAST(1 AS BIGINT)", {}) == [(1,)]
    others = "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity {others}"  # noqa: S608
    assert len(await postgres.execute(url_of(tmp_path / "traceway.db"), ended)) == 2
    write(db, [start(1)])
    assert await db.read("SELECT COUNT(*) FROM spans", {}) == [(1,)]


async def test_what_fails_on_the_connection_that_replaces_one_leaves_no_transaction_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_address._SETTINGS, "lock_timeout", "50")
    url = url_of(tmp_path / "traceway.db")
    db, other = open_postgres(url), open_postgres(url)
    ((pid,),) = rows(db, "SELECT pg_backend_pid()")
    with other.transaction((1,)):
        await postgres.execute(url, f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(DatabaseLocked, match="lock"), db.transaction((1,)):
            pass
    ((new,),) = rows(db, "SELECT pg_backend_pid()")
    assert new != pid
    await db.close()
    await other.close()


async def test_a_server_that_is_stopped_and_started_is_written_to_again() -> None:
    server = postgres.Server()
    try:
        db = open_postgres(server.url())
        write(db, [end(start(1, session_id="s"))])
        await db.read("SELECT 1", {})
        server.stop()
        with pytest.raises(DatabaseUnwritable):
            write(db, [start(2)])
        with pytest.raises(DatabaseUnwritable):
            await db.read("SELECT 1", {})
        server.start()
        write(db, [end(start(2, session_id="s"))])
        assert await db.read("SELECT span_count FROM sessions", {}) == [(2,)]
        assert await check(db, text_of) == []
        await db.close()
    finally:
        server.end()


async def test_a_server_that_writes_no_more_is_left_for_the_one_at_its_address(
    two: tuple[PostgresDatabase, PostgresDatabase],
) -> None:
    db = two[0]
    ((reader,),) = await db.read("SELECT pg_backend_pid()", {})
    standby = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    db.run(db._connection.execute(standby))
    with pytest.raises(Unreachable, match="read-only"):
        rows(db, "UPDATE counters SET value = value + 1")
    rows(db, "UPDATE counters SET value = value + 1")
    assert await db.read("SELECT pg_backend_pid()", {}) != [(reader,)]
