"""Which database an address opens, and what is said of it."""

import asyncio
import sys
from pathlib import Path

import pytest

from storage.database import DatabaseForeign, StorageError
from storage.opening import check_client, open_at, opened_within, shown
from storage.postgres import PostgresDatabase
from storage.sqlite import SqliteDatabase
from tests.sharing import ask_sql


async def test_an_address_stands_before_a_path(url: str, tmp_path: Path) -> None:
    database = open_at(tmp_path / "a.db", url)
    assert isinstance(database, PostgresDatabase)
    await database.close()
    assert not (tmp_path / "a.db").exists()
    database = open_at(tmp_path / "a.db", "")
    assert isinstance(database, SqliteDatabase)
    await database.close()


@pytest.mark.parametrize(
    ("durability", "value"), [("safe", "on"), ("strict", "on"), ("fast", "off")]
)
async def test_what_is_committed_is_flushed_unless_nothing_is_to_wait(
    url: str, durability: str, value: str
) -> None:
    database = open_at(Path(), url, durability=durability)  # type: ignore[arg-type]
    with database.transaction(()) as tx:
        assert tx.execute("SHOW synchronous_commit", {}) == [(value,)]
    await database.close()


def test_what_is_said_of_a_database_has_no_password(tmp_path: Path) -> None:
    assert shown(tmp_path / "a.db", "") == str(tmp_path / "a.db")
    for address in (
        "postgresql://u:hidden@host/name",
        "postgresql://u@host/name?password=hidden",
        "postgresql://u:hidden@host/name?sslmode=require&password=hidden",
    ):
        said = shown(tmp_path, address)
        assert "hidden" not in said
        assert said.startswith("postgresql://u")
        assert "@host/name" in said


def test_without_its_client_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(StorageError) as caught:
        open_at(tmp_path, "postgresql://u:hidden@host/name")
    assert str(caught.value) == (
        "PostgreSQL: its client is not installed; pip install 'asyncpg>=0.32,<0.33'"
    )
    with pytest.raises(StorageError):
        check_client()


async def test_a_database_of_another_program_is_not_waited_for(url: str, tmp_path: Path) -> None:
    await ask_sql(url, "CREATE TABLE theirs (a INT)", "SELECT 1")
    with pytest.raises(DatabaseForeign):
        await opened_within(30, lambda: open_at(tmp_path, url), lambda _: None, asyncio.Event())


async def test_a_start_that_is_stopped_while_it_waits_ends(tmp_path: Path) -> None:
    stop = asyncio.Event()
    at = "postgresql://u@127.0.0.1:9/name"
    opened = opened_within(30, lambda: open_at(tmp_path, at), lambda _: stop.set(), stop)
    assert await opened is None
