"""A stored ticket is good once and for a moment, whoever takes it."""

from pathlib import Path

from storage.opening import open_at
from storage.tickets import Ticket, is_stored, issue, take
from tests.sharing import ask_sql

ONE = Ticket(sha256=b"a" * 32, project_id=1, key_id=2, sign_in=b"s" * 32, expires_at_us=30)
OTHER = Ticket(sha256=b"b" * 32, project_id=1, key_id=3, expires_at_us=50)


async def test_a_ticket_is_taken_once_within_its_time_and_forgotten_after_it(url: str) -> None:
    database = open_at(Path(), url)
    with database.transaction(()) as tx:
        issue(tx, ONE, 0)
        issue(tx, ONE, 0)  # where the answer to the first was lost
        issue(tx, OTHER, 20)
        assert take(tx, b"c" * 32, 20) is None
        assert take(tx, ONE.sha256, 20) == ONE
        assert take(tx, ONE.sha256, 20) is None
        assert take(tx, OTHER.sha256, 50) is None
        issue(tx, ONE, 0)
        issue(tx, OTHER, 30)
    assert await ask_sql(url, "SELECT sha256 FROM tickets") == [(OTHER.sha256,)]
    await database.close()


async def test_a_ticket_is_seen_without_being_taken(url: str) -> None:
    database = open_at(Path(), url)
    with database.transaction(()) as tx:
        issue(tx, ONE, 0)
    assert await is_stored(database, ONE.sha256)
    assert await is_stored(database, ONE.sha256)
    assert not await is_stored(database, OTHER.sha256)
    await database.close()
