"""Servers that share a database: what one does is known to the others, and what is done once."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from proxy.api import replicas
from proxy.api.granting import Granting
from proxy.keyring import KEY_PREFIX, hashed, new_secret
from storage import api_keys
from storage.database import StorageError
from storage.grants import Grants, Project
from storage.opening import open_at
from storage.peer import Seen
from storage.records import INTERRUPTED, RUNNING
from tests.api.asking import ask, save
from tests.api.watching import watch
from tests.calling import ANSWER
from tests.running import CHAT, Running
from tests.sharing import Join, ask_sql, soon, with_key
from tests.storage.calls import end, start, state_of, write
from tests.wire import Peer, ScriptedUpstream

CALL = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}'
SESSION = b"X-Traceway-Session-Id: s\r\n"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the servers look after each other without long pauses."""
    monkeypatch.setattr(replicas, "BEAT_S", 0.05)
    monkeypatch.setattr(replicas, "DEAD_S", 0.2)


async def first_key(tw: Running, scope: str = "admin") -> Any:
    asked = {"name": "n", "scope": scope}
    async with tw.client.post(f"{tw.url}/api/keys", json=asked) as answer:
        assert answer.status == 201, await answer.text()
        return await answer.json()


async def status_with(tw: Running, key: str, path: str = "/api/sessions") -> int:
    async with with_key(key) as client, client.get(tw.url + path) as answer:
        return answer.status


async def keys_are_on(tw: Running) -> None:
    """Wait until a server has heard that there is a key."""

    async def is_refused() -> bool:
        async with tw.client.get(f"{tw.url}/api/sessions") as answer:
            return answer.status == 401

    await soon(is_refused)


async def test_a_call_of_one_server_is_read_and_searched_at_the_other(
    join: Join,
    upstream: ScriptedUpstream,
) -> None:
    upstream.answers(ANSWER)
    one, other = await join(), await join()
    for tw in (one, other):
        assert (await tw.raw(headers=SESSION, body=CALL)).status == 200
        await tw.saved()
    for tw in (one, other):
        assert (await tw.api("/api/sessions/s"))["trace_count"] == 2
        assert (await tw.api("/api/sessions?q=hello"))["count"] == 1


async def test_who_watches_one_server_sees_what_passes_the_other(
    join: Join,
    upstream: ScriptedUpstream,
) -> None:
    upstream.answers(ANSWER)
    one, other = await join(), await join()
    async with watch(one) as watching:
        for _ in range(3):
            began_s = time.monotonic()
            await other.raw(headers=SESSION, body=CALL)
            await watching.until("span_completed")
            assert time.monotonic() - began_s < 10


async def test_who_watches_sees_it_also_where_nobody_tells(
    join: Join,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = await join()
    async with watch(one) as watching:
        other = await join()
        monkeypatch.setattr(other.server.recorder.commits, "after_commit", lambda: None)
        await save(other, end(start(1)))
        await watching.until("span_completed")


async def test_the_first_key_of_one_server_turns_keys_on_at_the_other_and_a_revoked_one_is_no_more(
    join: Join,
) -> None:
    one, other = await join(), await join()
    assert (await ask(other, "/api/sessions")).status == 200
    admin = (await first_key(one))["key"]

    began_s = time.monotonic()
    await keys_are_on(other)
    assert time.monotonic() - began_s < 5
    assert await status_with(other, admin) == 200
    async with with_key(admin) as client:
        asked = {"name": "m", "scope": "read"}
        async with client.post(f"{other.url}/api/keys", json=asked) as answer:
            made = await answer.json()

        async def is_known() -> bool:
            return await status_with(one, made["key"]) == 200

        await soon(is_known)
        async with client.delete(f"{one.url}/api/keys/{made['id']}") as answer:
            assert answer.status == 200
    assert await status_with(one, made["key"]) == 401

    async def is_refused() -> bool:
        return await status_with(other, made["key"]) == 401

    began_s = time.monotonic()
    await soon(is_refused)
    assert time.monotonic() - began_s < 5


async def test_who_was_let_in_at_one_server_is_let_in_at_the_other_with_the_next_request(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "LOOK_S", 60.0)
    monkeypatch.setattr("storage.peer.Peer.tell", silent)
    one, other = await join({"auth.mode": "keys"}), await join({"auth.mode": "keys"})
    secret = new_secret(KEY_PREFIX)
    await let_in(one, secret)
    assert await status_with(other, new_secret(KEY_PREFIX)) == 401
    assert await status_with(other, secret) == 200
    async with with_key(secret) as client:
        asked = {"name": "m", "scope": "read"}
        async with client.post(f"{one.url}/api/keys", json=asked) as answer:
            made = await answer.json()
    assert await status_with(other, made["key"]) == 200


async def let_in(tw: Running, secret: str) -> None:
    """Make a key of an admin at a server."""
    granting = Granting(tw.server.keyring, tw.server.recorder)
    await granting.change(
        lambda tx, now_us: api_keys.create_key(
            tx,
            project_id=1,
            name="n",
            scope="admin",
            sha256=hashed(secret),
            last_four=secret[-4:],
            now_us=now_us,
        )
    )


async def silent(*_: object) -> None:
    """Tell nobody."""


async def test_a_revoked_key_is_refused_within_a_second_also_where_nobody_tells(
    join: Join,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("storage.peer.Peer.tell", silent)
    one, other = await join(), await join()
    made = await first_key(one)
    await keys_are_on(other)
    assert await status_with(other, made["key"]) == 200
    path = f"{one.url}/api/keys/{made['id']}"
    async with with_key(made["key"]) as client, client.delete(path) as answer:
        assert answer.status == 200
    began_s = time.monotonic()

    async def is_refused() -> bool:
        return await status_with(other, made["key"]) == 401

    await soon(is_refused)
    assert time.monotonic() - began_s < 5


async def test_a_provider_key_that_one_server_stored_is_used_by_the_other(
    join: Join,
    upstream: ScriptedUpstream,
    tmp_path: Any,
) -> None:
    upstream.answers(ANSWER)
    settings = {"auth.key_file": str(tmp_path / "shared.key")}
    one, other = await join(settings), await join(settings)
    key = (await first_key(one))["key"]
    async with with_key(key) as client:
        sealed = {"key": "sk-provider-0123456789"}
        async with client.put(f"{one.url}/api/provider-keys/openai", json=sealed) as answer:
            assert answer.status == 200, await answer.text()

        async def is_used() -> bool:
            async with client.post(other.url + CHAT, data=CALL) as answer:
                await answer.read()
            return any(
                request.get(b"Authorization") == b"Bearer sk-provider-0123456789"
                for request in upstream.requests
            )

        await soon(is_used)
        async with client.delete(f"{other.url}/api/provider-keys/openai") as answer:
            assert answer.status == 200

        async def is_gone() -> bool:
            async with client.get(f"{one.url}/api/provider-keys") as answer:
                return (await answer.json())["count"] == 0

        await soon(is_gone)


async def test_a_provider_key_needs_a_named_key_file_and_the_same_one(
    join: Join,
    tmp_path: Any,
) -> None:
    one = await join()
    sealed = {"key": "sk-provider-0123456789"}
    async with one.client.put(f"{one.url}/api/provider-keys/openai", json=sealed) as answer:
        assert answer.status == 503
        assert "[auth] key_file: it is not set" in await answer.text()
    named = await join({"auth.key_file": str(tmp_path / "a.key")})
    async with named.client.put(f"{named.url}/api/provider-keys/openai", json=sealed) as answer:
        assert answer.status == 200

    async def says_so() -> bool:
        health = (await ask(one, "/api/health")).body
        return health["status"] == "degraded" and "key_file" in health["reasons"][0]

    await soon(says_so)


async def test_a_ticket_of_one_server_opens_the_stream_of_the_other_once(
    join: Join,
) -> None:
    one, other = await join(), await join()
    key = (await first_key(one))["key"]
    await keys_are_on(other)
    async with with_key(key) as client, client.post(f"{one.url}/api/events/tickets") as answer:
        token = (await answer.json())["token"]
    async with other.client.get(f"{other.url}/api/events?token={token}") as answer:
        assert answer.status == 200
    for tw in (one, other):
        async with tw.client.get(f"{tw.url}/api/events?token={token}") as answer:
            assert answer.status == 401


async def test_a_ticket_of_a_key_that_was_made_a_moment_ago_opens_the_stream_of_the_other(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "LOOK_S", 60.0)
    monkeypatch.setattr("storage.peer.Peer.tell", silent)
    one, other = await join({"auth.mode": "keys"}), await join({"auth.mode": "keys"})
    assert await status_with(other, new_secret(KEY_PREFIX)) == 401
    secret = new_secret(KEY_PREFIX)
    await let_in(one, secret)
    async with with_key(secret) as client, client.post(f"{one.url}/api/events/tickets") as answer:
        token = (await answer.json())["token"]
    async with other.client.get(f"{other.url}/api/events?token={token}") as answer:
        assert answer.status == 200


@pytest.mark.usefixtures("often")
async def test_one_server_leads_and_another_follows_when_it_is_gone(
    url: str,
    join: Join,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    led: list[Any] = []

    def noted(self: Any) -> bool:
        if self._leads and self not in led:
            led.append(self)
        return bool(self._leads)

    monkeypatch.setattr(replicas.Replicas, "leads", noted)
    monkeypatch.setattr("proxy.api.hubs.PRUNE_S", 0.01)
    one, _ = await join(), await join()

    async def first_leads() -> bool:
        await ask_sql(url, "SELECT 1")
        return len(led) == 1

    await soon(first_leads)
    await one.server.stop(0, asyncio.Event())

    async def second_leads() -> bool:
        await ask_sql(url, "SELECT 1")
        return len(led) == 2

    await soon(second_leads)
    assert len(await ask_sql(url, "SELECT owner FROM owners")) == 1


@pytest.mark.usefixtures("often")
async def test_a_call_that_is_wrongly_held_for_dead_has_its_own_end(
    url: str,
    join: Join,
    upstream: ScriptedUpstream,
) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        await peer.respond(ANSWER)

    upstream.script = script
    one, other = await join(), await join()
    calling = asyncio.create_task(other.raw(headers=SESSION, body=CALL))

    async def runs() -> bool:
        rows = await ask_sql(url, "SELECT owner FROM spans WHERE state = 'running'")
        return len(rows) == 1

    await soon(runs)
    # As if it had hung for a minute: its signs of life are of a time before.
    ((owner,),) = await ask_sql(url, "SELECT owner FROM spans")
    await ask_sql(
        url,
        "CREATE FUNCTION stale() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.owner = '\\x{owner.hex()}'::bytea THEN"
        " NEW.heard_at := now() - interval '60 seconds'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER stale BEFORE INSERT OR UPDATE ON owners"
        " FOR EACH ROW EXECUTE FUNCTION stale()",
        "SELECT 1",
    )

    async def is_given_up() -> bool:
        return (await one.api("/api/sessions/s"))["status"] == "failed"

    await soon(is_given_up)
    go_on.set()
    assert (await calling).status == 200
    await other.saved()
    session = await one.api("/api/sessions/s")
    assert (session["status"], session["failed_trace_count"]) == ("completed", 0)
    assert session["output_tokens"] == 2


async def test_health_has_the_size_and_no_address_of_the_database_has_its_password(
    join: Join,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tw = await join()

    async def is_known() -> bool:
        async with tw.client.get(f"{tw.url}/metrics") as answer:
            text = await answer.text()
        assert "traceway_wal_bytes" not in text
        assert "traceway_database_away_seconds 0.0" in text
        return "traceway_database_bytes" in text

    await soon(is_known)
    assert (await ask(tw, "/api/health")).body["database_away_since"] is None


@pytest.mark.usefixtures("often")
async def test_of_servers_that_export_one_sends_each_call_once(
    join: Join,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.api.exporting.PAUSE_S", 0.01)
    sent: list[int] = []

    async def deliver(_self: object, _body: bytes, count: int) -> None:
        sent.append(count)

    monkeypatch.setattr("proxy.api.exporting.Exporter._deliver", deliver)
    upstream.answers(ANSWER)
    async with asyncio.timeout(30):
        settings = {"export.otlp_url": "http://127.0.0.1:9/v1/traces"}
        one, other = await join(settings), await join(settings)
        begun = "SELECT 1 FROM counters WHERE name = 'exported_event'"
        await soon(lambda: ask_sql(one.config.database.url, begun))
        for tw in (one, other, other, one):
            assert (await tw.raw(body=CALL)).status == 200
            await tw.saved()

        async def are_sent() -> bool:
            await ask_sql(one.config.database.url, "SELECT 1")
            return sum(sent) >= 4

        await soon(are_sent)
        assert sum(sent) == 4


class Scripted:
    """A peer whose database is away while `is_away`; the numbers are what it sees."""

    def __init__(self) -> None:
        self.is_away = False
        self.seen = Seen(5, 0)
        self.started = "monday"
        self.ahead_s = 1e9  # the database's clock, of the test's
        self.others = False
        self.resigned = 0

    async def join(self, _: object) -> str:
        await self.beat()
        return self.started

    async def beat(self) -> float:
        if self.is_away:
            raise StorageError("x", "away", "wait")
        return time.monotonic() + self.ahead_s

    async def look(self) -> Seen:
        await self.beat()
        return self.seen

    async def lead(self) -> bool:
        return True

    async def has_others(self) -> bool:
        return self.others

    async def resign(self) -> None:
        self.resigned += 1

    async def grants(self) -> tuple[Grants, list[Any]]:
        return Grants(number=self.seen.grants, projects=(PROJECT,)), []


PROJECT = Project(id=1, name="default", created_at_us=0)


class Noted:
    """What stands for all that a server's part in it speaks to; it notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.number = self.newest = 0

    def told(self) -> None:
        pass

    def begin_anew(self, newest: int) -> None:
        self.heard.append(newest)

    def hold(self, grants: Grants) -> None:
        self.number = grants.number

    def load(self, _: object, number: int) -> None:
        self.number = number

    async def read(self, sql: str, _: object) -> list[Any]:
        return [(None,)] if "unindexed" in sql else [(1,)]

    async def write(self, work: Any) -> int:
        self.heard.append(work)
        return 1


def scripted(*, is_command: bool = False) -> tuple[replicas.Replicas, Scripted, Noted]:
    peer, noted = Scripted(), Noted()
    one: Any = noted
    at: Any = peer
    return replicas.Replicas(at, one, one, one, one, one, is_command=is_command), peer, noted


async def test_nobody_is_held_for_dead_by_a_server_that_was_itself_without_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, peer, noted = scripted()
    await shared.join()
    await shared._tidy()
    assert noted.heard == []
    monkeypatch.setattr(replicas, "DEAD_S", 0)
    await shared._tidy()
    assert noted.heard == [shared._interrupt]
    peer.is_away = True
    shared._lost(StorageError("x", "away", "wait"))
    assert not shared.leads()
    peer.is_away = False
    monkeypatch.setattr(replicas, "DEAD_S", 30)
    await shared.join()
    assert shared.leads()
    await shared._tidy()
    assert noted.heard == [shared._interrupt]


async def test_who_was_to_be_ended_when_the_database_went_away_is_judged_anew_behind_that(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_at(Path(), url)
    write(database, [start(1, owner=b"of nobody")])
    shared, _, noted = scripted()
    await shared.join()
    monkeypatch.setattr(replicas, "DEAD_S", 0)
    await shared._tidy()
    (work,) = noted.heard
    monkeypatch.setattr(replicas, "DEAD_S", 30)

    async def done() -> Any:
        with database.transaction() as tx:
            count = work(tx)
        return count, await state_of(database, 1)

    shared._lost(StorageError("x", "away", "wait"))
    assert await done() == (0, RUNNING)
    await shared.join()
    assert await done() == (0, RUNNING)
    shared._lives_since_s = time.monotonic() - 600
    assert await done() == (1, INTERRUPTED)
    await database.close()


async def test_a_command_leads_only_while_no_server_runs() -> None:
    shared, peer, _ = scripted(is_command=True)
    peer.others = True
    await shared.join()
    assert not shared.leads()
    for _ in range(2):
        peer.others = False
        await shared._beat(time.monotonic())
        assert shared.leads()
        peer.others = True
        await shared._beat(time.monotonic())
        assert not shared.leads()
    assert peer.resigned == 2


async def test_a_clock_that_jumped_holds_nobody_for_dead() -> None:
    shared, peer, noted = scripted()
    await shared.join()
    await shared._beat(time.monotonic())
    shared._lives_since_s = time.monotonic() - 600
    peer.ahead_s += 40
    await shared._tidy()
    assert noted.heard == []
    shared._lives_since_s = time.monotonic() - 600
    await shared._tidy()
    assert noted.heard == [shared._interrupt]


async def test_pages_begin_anew_where_numbers_went_back_or_the_database_was_started_anew() -> None:
    shared, peer, noted = scripted()
    await shared.join()
    await shared._look()
    peer.seen = Seen(3, 0)
    await shared._look()
    assert noted.heard == [3]
    shared._lost(StorageError("x", "away", "wait"))
    peer.started = "tuesday"
    monday = shared.away_since_us
    shared._lost(StorageError("x", "away", "wait"))
    assert shared.away_since_us == monday
    await shared.join()
    assert noted.heard == [3, 3]
    assert shared.away_since_us is None


async def test_pages_begin_anew_where_what_they_were_given_is_not_there_when_it_is_back() -> None:
    shared, peer, noted = scripted()
    await shared.join()
    noted.newest = 7
    for newest, heard in ((6, [6]), (7, [6]), (9, [6])):
        shared._lost(StorageError("x", "away", "wait"))
        peer.seen = Seen(newest, 0)
        await shared.join()
        assert noted.heard == heard


async def test_what_the_database_lost_of_who_may_come_in_is_lost_here_too() -> None:
    shared, peer, noted = scripted()
    peer.seen = Seen(5, 9)
    await shared.join()
    await shared._look()
    assert noted.number == 9
    peer.seen = Seen(5, 8)
    await shared._look()
    assert noted.number == 8


async def test_health_says_so_where_a_bug_ended_what_hears_of_others() -> None:
    shared, peer, _ = scripted()
    await shared.join()
    peer.look = None  # type: ignore[assignment,method-assign]
    run, tidy = shared.begin()
    await asyncio.wait([run])
    assert shared.reasons() == ["nothing is heard of other servers, for a bug: restart this one"]
    tidy.cancel()
