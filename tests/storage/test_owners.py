"""Which servers are held for dead."""

from pathlib import Path

import pytest

from storage import owners
from storage.database import Database
from storage.opening import open_at
from storage.records import INTERRUPTED, RUNNING
from tests.sharing import ask_sql
from tests.storage.calls import spoken, start, state_of, write


@pytest.fixture
def shared(url: str) -> Database:
    return open_at(Path(), url)


async def test_calls_of_servers_that_were_not_heard_of_for_half_a_minute_are_ended_and_no_others(
    shared: Database, url: str
) -> None:
    write(shared, [start(n, owner=bytes([n])) for n in (1, 2, 3)])
    write(shared, [start(4, owner=None)])
    alive = "INSERT INTO owners VALUES ('\\x01', now()), ('\\x02', now() - interval '40 seconds')"
    await ask_sql(url, alive, "SELECT 1")
    assert await owners.are_some_left(shared)
    with shared.transaction() as tx:
        assert owners.interrupt_dead(tx) == 2
    states = [await state_of(shared, n) for n in (1, 2, 3, 4)]
    assert states == [RUNNING, INTERRUPTED, INTERRUPTED, RUNNING]
    assert not await owners.are_some_left(shared)
    await shared.close()


async def test_a_server_that_was_gone_for_a_day_is_forgotten(shared: Database, url: str) -> None:
    gone = "INSERT INTO owners VALUES ('\\x01', now()), ('\\x02', now() - interval '25 hours')"
    await ask_sql(url, gone, "SELECT 1")
    with shared.transaction() as tx:
        assert owners.interrupt_dead(tx) == 0
    assert await ask_sql(url, "SELECT owner FROM owners") == [(b"\x01",)]
    await shared.close()


async def test_the_message_that_has_waited_longest_is_known(shared: Database) -> None:
    assert await owners.oldest_unheard(shared) is None
    write(shared, [spoken(start(1), ["u:0"], ["a:1"])], indexed=False)
    first = await owners.oldest_unheard(shared)
    write(shared, [spoken(start(2), ["u:2"], ["a:3"])], indexed=False)
    assert first is not None
    assert await owners.oldest_unheard(shared) == first
    await shared.close()
