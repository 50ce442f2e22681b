"""A database of PostgreSQL as a whole: no password is told, and nothing waits for ever."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from storage import postgres_address
from storage.database import DatabaseUnwritable, StatementRefused, TookTooLong
from storage.postgres import PostgresDatabase, open_postgres, open_postgres_snapshot
from tests.databases import url_of
from tests.storage.calls import rows

pytestmark = pytest.mark.postgres_only("it is of PostgreSQL")


async def test_no_password_is_told(db: PostgresDatabase, tmp_path: Path) -> None:
    url = url_of(tmp_path / "traceway.db").replace("postgres:@", "nobody:canary-7@")
    assert "canary-7" in url
    with pytest.raises(DatabaseUnwritable) as told:
        open_postgres(url)
    wrong = open_postgres_snapshot(url)
    with pytest.raises(DatabaseUnwritable) as also:
        await wrong.read("SELECT 1", {})
    asked = open_postgres(url.replace("nobody", "postgres"))
    with pytest.raises(StatementRefused) as refused:
        rows(asked, "SELECT nothing")
    said = [repr(asked), repr(asked._address), asked.place, *map(str, (told, also, refused))]
    said += [str(told.value), str(also.value), str(refused.value)]
    await asked.close()
    assert not [one for one in said if "canary" in one]


async def test_an_error_that_is_caught_inside_undoes_the_whole_transaction(
    db: PostgresDatabase,
) -> None:
    def fails() -> None:
        with db.transaction() as tx:
            tx.execute("UPDATE projects SET name = 'other'", {})
            with suppress(StatementRefused):
                tx.execute("SELECT nothing", {})

    with pytest.raises(StatementRefused, match="undone"):
        fails()
    assert rows(db, "SELECT name FROM projects") == [("default",)]
    with pytest.raises(StatementRefused, match="open already"), db.transaction(), db.transaction():
        pass


async def test_an_address_that_does_not_answer_is_told_within_the_time_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_address, "CONNECT_S", 0.1)
    asked: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, peer: asked.append(peer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    with pytest.raises(DatabaseUnwritable, match=r"127\.0\.0\.1"):
        await asyncio.to_thread(open_postgres, f"postgresql://u:secret@127.0.0.1:{port}/a")
    silent.close()
    for peer in asked:
        peer.close()
        with suppress(ConnectionError):
            await peer.wait_closed()
    with pytest.raises(DatabaseUnwritable, match=r"127\.0\.0\.1"):
        await asyncio.to_thread(open_postgres, f"postgresql://u:secret@127.0.0.1:{port}/a")


async def test_a_vacuum_that_fails_leaves_the_limits_as_they_were(
    db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(db, "SHOW statement_timeout")
    monkeypatch.setattr("storage.postgres.OUR_TABLES", "SELECT 'none'")
    with pytest.raises(StatementRefused, match="none"):
        db.vacuum()
    assert rows(db, "SHOW statement_timeout") == before


async def test_a_statement_that_the_server_ends_took_too_long(db: PostgresDatabase) -> None:
    def sleeps() -> None:
        with db.transaction() as tx:
            tx.execute("SET LOCAL statement_timeout = 10", {})
            tx.execute("SELECT 1 FROM pg_sleep(60)", {})

    with pytest.raises(TookTooLong, match="statement timeout"):
        sleeps()


async def test_a_transaction_that_the_server_ends_in_a_pause_took_too_long(
    db: PostgresDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.postgres.IDLE_S", 0.01)
    other = open_postgres(url_of(tmp_path / "traceway.db"))

    def pauses() -> None:
        with db.transaction(()) as tx:
            tx.execute("SET LOCAL idle_in_transaction_session_timeout = 10", {})
            ((pid,),) = tx.execute("SELECT pg_backend_pid()", {})
            while rows(other, f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"):  # noqa: S608
                pass
            tx.execute("SELECT 1", {})

    with pytest.raises(TookTooLong, match="between two statements"):
        pauses()
    assert rows(db, "SELECT 1") == [(1,)]
    await other.close()
