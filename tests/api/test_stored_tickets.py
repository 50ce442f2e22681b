"""A ticket is good at every server, for what its owner still may do."""

import functools
import time
from collections.abc import Awaitable, Callable

import pytest

from proxy.access import Denied, Principal
from proxy.api.stored_tickets import StoredTickets
from proxy.keyring import Keyring, hashed, new_secret
from storage import api_keys
from storage.database import DatabaseLocked, Transaction
from storage.grants import SignIn
from tests.running import Running
from tests.sharing import Join

NOW_US = time.time_ns() // 1000


@pytest.fixture
async def tw(join: Join) -> Running:
    return await join()


async def keyed(tw: Running, name: str) -> Principal:
    """Make a key, and a browser that it signed in; give who comes with either."""
    secret, cookie = new_secret("tw_sk_"), new_secret("tw_si_")
    create = functools.partial(
        api_keys.create_key, project_id=1, name=name, scope="read", now_us=1, last_four="abcd"
    )
    made = await tw.server.recorder.write(lambda tx: create(tx, sha256=hashed(secret)))
    one = SignIn(sha256=hashed(cookie), key_id=made, project_id=1, expires_at_us=NOW_US + 10**9)

    def sign_in(tx: Transaction) -> None:
        api_keys.begin_change(tx)  # or what the server reads meanwhile counts as no older
        api_keys.sign_in(tx, one, NOW_US)

    await tw.server.recorder.write(sign_in)
    tw.server.keyring.hold(await tw.server.recorder.write(api_keys.grants))
    key = tw.server.keyring.key(secret)
    assert key is not None
    project = tw.server.keyring.default_project
    return Principal(project=project, scope="read", key=key, way="cookie", sign_in=one)


async def nobody_new() -> None:
    """Look whom others have let in, and find nobody."""


def tickets_of(
    tw: Running,
    keyring: Keyring | None = None,
    look_again: Callable[[], Awaitable[None]] = nobody_new,
) -> StoredTickets:
    recorder = tw.server.recorder
    return StoredTickets(tw.database, recorder, keyring or tw.server.keyring, look_again)


async def test_a_ticket_brings_back_who_had_it_made_once(tw: Running) -> None:
    owner = await keyed(tw, "n")
    tickets = tickets_of(tw)
    issued = await tickets.issue(owner, 0)
    assert issued.startswith("tw_st_")
    assert await tickets.take(issued, 0) == owner
    assert await tickets.take(issued, 0) is None
    assert await tickets.take("", 0) is None


async def test_a_ticket_of_a_browser_that_signed_out_is_nobodys(tw: Running) -> None:
    owner = await keyed(tw, "n")
    tickets = tickets_of(tw)
    issued = await tickets.issue(owner, 0)
    assert owner.sign_in is not None
    sha256 = owner.sign_in.sha256
    await tw.server.recorder.write(lambda tx: api_keys.sign_out(tx, sha256))
    tw.server.keyring.hold(await tw.server.recorder.write(api_keys.grants))
    assert await tickets.take(issued, 0) is None


async def test_a_ticket_of_whom_another_server_let_in_a_moment_ago_is_not_lost(tw: Running) -> None:
    grants = functools.partial(tw.server.recorder.write, api_keys.grants)
    behind = Keyring("keys", await grants())
    owner = await keyed(tw, "n")
    looks: list[bool] = []

    async def look_again() -> None:
        looks.append(True)
        if len(looks) > 1:
            behind.hold(await grants())

    of_others, here = tickets_of(tw), tickets_of(tw, behind, look_again)
    unknown, known, again = [await of_others.issue(owner, 0) for _ in range(3)]
    assert await here.take(unknown, 0) is None
    assert await here.take(known, 0) == owner
    assert await here.take(again, 0) == owner
    assert len(looks) == 2


async def test_whoever_needs_no_key_has_no_ticket_stored(tw: Running) -> None:
    project = tw.server.keyring.default_project
    nobody = Principal(project=project, scope="admin", key=None, way="open")
    tickets = tickets_of(tw)
    assert await tickets.take(await tickets.issue(nobody, 0), 0) is None
    assert await tw.database.read("SELECT COUNT(*) FROM tickets", {}) == [(0,)]


async def test_what_is_no_ticket_is_nothing_to_the_writer(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets = tickets_of(tw)
    issued = await tickets.issue(await keyed(tw, "n"), 0)
    assert await tickets.take(issued, 0) is not None

    def asked(*_: object) -> None:
        raise AssertionError("the writer was asked")

    monkeypatch.setattr(tw.server.recorder, "change", asked)
    for token in ("", "anything", new_secret("tw_st_"), issued):
        assert await tickets.take(token, 0) is None


async def test_while_the_database_is_away_nobody_is_let_in_and_told_so(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets = tickets_of(tw)
    issued = await tickets.issue(await keyed(tw, "n"), 0)

    async def away(*_: object) -> None:
        raise DatabaseLocked("db", None)

    with monkeypatch.context() as broken:
        broken.setattr(tw.database, "read", away)
        with pytest.raises(Denied) as denied:
            await tickets.take(issued, 0)
    assert (denied.value.status, denied.value.code) == (503, "storage_unavailable")
    assert await tickets.take(issued, 0) is not None
