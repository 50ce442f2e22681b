"""How servers that share a database hear of each other."""

import asyncio
import os
import signal
from typing import Any

import pytest

from storage.database import StorageError
from storage.opening import open_at, peer_at
from storage.peer import EVENTS, GRANTS
from storage.postgres_address import address_of, connect
from tests.sharing import ask_sql, soon


@pytest.fixture(autouse=True)
async def _made(url: str, tmp_path: object) -> None:
    await open_at(tmp_path, url).close()  # type: ignore[arg-type]


def silent(_: str) -> None:
    pass


async def test_what_one_tells_the_others_hear_and_it_does_not(url: str) -> None:
    one, other = peer_at(url, b"1"), peer_at(url, b"2")
    own: list[str] = []
    heard: asyncio.Queue[str] = asyncio.Queue()
    await one.join(own.append)
    await other.join(heard.put_nowait)
    await one.tell(EVENTS)
    await one.tell(GRANTS)
    async with asyncio.timeout(10):
        assert [await heard.get(), await heard.get()] == [EVENTS, GRANTS]
    await one.look()
    assert own == []
    await one.leave()
    await other.leave()


async def test_one_of_them_leads_until_its_connection_ends(url: str) -> None:
    one, other = peer_at(url, b"1"), peer_at(url, b"2")
    await one.join(silent)
    await other.join(silent)
    assert await one.lead()
    assert not await other.lead()
    await one.leave()
    async with asyncio.timeout(10):
        while not await other.lead():
            pass
    await other.leave()


async def test_one_that_leads_can_make_way_for_another(url: str) -> None:
    one, other = peer_at(url, b"1"), peer_at(url, b"2")
    await one.join(silent)
    assert await one.lead()
    assert not await one.has_others()
    await other.join(silent)
    assert await one.has_others()
    await one.resign()
    assert await other.lead()
    assert not await one.lead()
    await one.leave()
    await other.leave()


async def test_each_gives_signs_of_life_and_takes_its_own_away(url: str) -> None:
    owners = [os.urandom(8), os.urandom(8)]
    peers = [peer_at(url, owner) for owner in owners]
    for peer in peers:
        await peer.join(silent)
    read = "SELECT owner, heard_at FROM owners ORDER BY heard_at"
    before = await ask_sql(url, read)
    assert [row[0] for row in before] == owners
    heard_s = await peers[0].beat()
    after = await ask_sql(url, read)
    assert after[-1][1].timestamp() == heard_s
    assert [row[0] for row in after] == owners[::-1]
    assert after[-1][1] > before[-1][1]
    await peers[0].leave()
    assert [row[0] for row in await ask_sql(url, read)] == [owners[1]]
    await peers[1].leave()


async def test_what_nobody_waits_for_any_more_is_not_cancelled_at_the_server(url: str) -> None:
    """Else that might hit what is asked next: that this one leaves."""
    peer = peer_at(url, b"1")
    await peer.join(silent)
    beside = await connect(address_of(url), {})
    async with beside.transaction():
        await beside.execute("DELETE FROM owners")
        beating = asyncio.create_task(peer.beat())

        async def waits() -> bool:
            return bool(await ask_sql(url, "SELECT 1 FROM pg_locks WHERE NOT granted"))

        await soon(waits)
        beating.cancel()
        await asyncio.wait((beating,))
    await peer.look()
    assert await ask_sql(url, "SELECT owner FROM owners") == [(b"1",)]
    await peer.leave()
    assert await ask_sql(url, "SELECT owner FROM owners") == []
    await beside.close()


async def test_a_lost_connection_is_an_error_until_it_joins_again(url: str) -> None:
    peer = peer_at(url, b"1")
    with pytest.raises(StorageError, match="the connection was lost"):
        await peer.look()
    started = await peer.join(silent)
    await ask_sql(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    for _ in range(2):
        with pytest.raises(StorageError):
            await peer.look()
    assert await peer.join(silent) == started
    assert (await peer.look()).grants == 0
    await peer.leave()


async def test_a_database_that_comes_back_after_a_crash_is_not_what_it_was(url: str) -> None:
    peer = peer_at(url, b"1")
    started = await peer.join(silent)
    assert peer._connection is not None
    os.kill(peer._connection.get_server_pid(), signal.SIGKILL)

    async def is_another() -> bool:
        try:
            return await peer.join(silent) != started
        except StorageError:
            return False

    await soon(is_another)
    await peer.leave()


async def test_an_answer_that_does_not_come_is_not_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = peer_at(url, b"1")
    await peer.join(silent)
    monkeypatch.setattr("storage.peer.ANSWER_S", 0.1)
    monkeypatch.setattr("storage.peer.SIZE", "SELECT 1 FROM pg_sleep(5)")
    with pytest.raises(StorageError):
        await peer.database_bytes()
    with pytest.raises(StorageError, match="the connection was lost"):
        await peer.look()
    await peer.leave()


async def test_a_server_that_hangs_in_the_middle_is_not_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = peer_at(url, b"1")
    await peer.join(silent)
    assert peer._connection is not None
    pid = peer._connection.get_server_pid()
    fetch, asked = peer._fetch, 0

    async def hung_at_the_second(connection: Any, sql: str, *values: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 2:
            os.kill(pid, signal.SIGSTOP)
        return await fetch(connection, sql, *values)

    monkeypatch.setattr("storage.peer.ANSWER_S", 0.1)
    monkeypatch.setattr(peer, "_fetch", hung_at_the_second)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(StorageError):
                await peer.grants()
    finally:
        os.kill(pid, signal.SIGCONT)
    with pytest.raises(StorageError, match="the connection was lost"):
        await peer.look()
    await peer.leave()


async def test_a_server_that_hangs_when_one_begins_to_listen_is_not_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    async def hung(*of: Any) -> Any:
        connection = await connect(*of)
        pids.append(connection.get_server_pid())
        os.kill(pids[0], signal.SIGSTOP)
        return connection

    monkeypatch.setattr("storage.peer.ANSWER_S", 0.1)
    monkeypatch.setattr("storage.peer.connect", hung)
    peer = peer_at(url, b"1")
    try:
        async with asyncio.timeout(10):
            with pytest.raises(StorageError):
                await peer.join(silent)
    finally:
        os.kill(pids[0], signal.SIGCONT)
    await peer.leave()
