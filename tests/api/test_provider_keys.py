"""Provider keys over the API: an admin writes them, and nobody reads them."""

import asyncio
import logging
from pathlib import Path

import pytest

from storage.database import StatementRefused, StorageError
from tests.conftest import Serve
from tests.databases import kept
from tests.managed import Keyed, with_keys
from tests.running import Running
from tests.wire import ScriptedUpstream

KEY = "sk-proj-0123456789abcdef"
PATH = "/api/provider-keys/openai"
ENVIRON = "TRACEWAY_PROVIDER_KEY_"


@pytest.fixture
async def keyed(tw: Running) -> Keyed:
    return await with_keys(tw)


def files(tw: Running) -> bytes:
    return kept(tw.config.database.path)


def open_to_all(tw: Running) -> None:
    Path(f"{tw.config.database.path}.key").chmod(0o644)


async def listed(keyed: Keyed, project: str | None = None) -> list[dict[str, object]]:
    reply = await keyed.asks("GET", "/api/provider-keys", project=project)
    assert reply.status == 200
    assert reply.body["count"] == len(reply.body["provider_keys"])
    return list(reply.body["provider_keys"])


async def test_a_key_that_is_stored_is_shown_by_its_last_four_characters(keyed: Keyed) -> None:
    assert await listed(keyed) == []
    put = await keyed.asks("PUT", PATH, {"key": KEY})
    assert put.status == 200
    assert put.headers["Cache-Control"] == "no-store"
    created_at = put.body.pop("created_at")
    assert put.body == {"upstream": "openai", "source": "stored", "last_four": "cdef"}
    assert await listed(keyed) == [{**put.body, "created_at": created_at}]


async def test_no_answer_and_no_file_holds_a_key(
    keyed: Keyed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    replies = [
        await keyed.asks("PUT", PATH, {"key": KEY}),
        await keyed.asks("PUT", PATH, {"key": KEY, "note": KEY}),
        await keyed.asks("PUT", PATH, {"key": [KEY]}),
        await keyed.asks("PUT", PATH, {KEY: KEY}),
        await keyed.asks("PUT", PATH, {"key": f" {KEY}"}),
        await keyed.asks("PUT", PATH, KEY.encode()),
        await keyed.asks("PUT", PATH, {"key": KEY + "tw_sk_x"}),
        await keyed.asks("PUT", "/api/provider-keys/other", {"key": KEY}),
        await keyed.asks("GET", "/api/provider-keys"),
        await keyed.asks("GET", PATH),
        await keyed.asks("POST", PATH, {"key": KEY}),
        await keyed.asks("DELETE", PATH),
    ]
    assert [reply.status for reply in replies] == [200, *[400] * 6, 404, 200, 405, 405, 200]
    assert KEY[:12] not in repr(replies)
    assert KEY.encode() not in files(keyed.tw)
    assert KEY not in caplog.text


async def test_what_is_wrong_with_a_body_is_said(keyed: Keyed) -> None:
    for body in ({}, {"key": 1}, {"key": KEY, "x": 1}, [], b"{", b"\xff", b"x" * 70_000, None):
        reply = await keyed.asks("PUT", PATH, body)
        assert reply.error[0] == 400
        assert "the body" in reply.body["error"]["message"]
    reply = await keyed.asks("PUT", PATH, {"key": 1})
    assert reply.body["error"]["message"].endswith("key: Expected str, got int")
    reply = await keyed.asks("PUT", PATH, {"key": "short"})
    assert reply.error[0] == 400
    assert reply.body["error"]["param"] == "key"
    assert "8 to 4096 printable characters" in reply.body["error"]["message"]
    assert await listed(keyed) == []


async def test_an_upstream_that_is_not_configured_has_no_key(keyed: Keyed) -> None:
    reply = await keyed.asks("PUT", "/api/provider-keys/other", {"key": KEY})
    assert reply.error == (404, "unknown_upstream")
    assert "openai" in reply.body["error"]["message"]
    assert (await keyed.asks("DELETE", "/api/provider-keys/other")).error == (404, "not_found")


async def test_a_key_is_deleted_once(keyed: Keyed) -> None:
    await keyed.sets_provider_key(KEY)
    reply = await keyed.asks("DELETE", PATH)
    assert (reply.status, reply.body["last_four"]) == (200, "cdef")
    assert (await keyed.asks("DELETE", PATH)).error == (404, "not_found")
    assert await listed(keyed) == []


async def test_each_project_has_its_own(keyed: Keyed) -> None:
    await keyed.makes_project("team-b")
    await keyed.sets_provider_key(KEY)
    assert await listed(keyed, "team-b") == []
    assert (await keyed.asks("DELETE", PATH, project="team-b")).error == (404, "not_found")
    await keyed.sets_provider_key("sk-proj-of-team-b-1234", project="team-b")
    assert [one["last_four"] for one in await listed(keyed)] == ["cdef"]
    assert [one["last_four"] for one in await listed(keyed, "team-b")] == ["1234"]


@pytest.mark.parametrize("scope", ["read", "write"])
async def test_only_an_admin_sees_or_changes_them(keyed: Keyed, scope: str) -> None:
    key = await keyed.makes_key(scope)
    for method, path in (("GET", "/api/provider-keys"), ("PUT", PATH), ("DELETE", PATH)):
        reply = await keyed.asks(method, path, {"key": KEY}, key=key)
        assert reply.error == (403, "forbidden")
        wrong = await keyed.asks(method, path, {"key": KEY}, key="tw_sk_wrong")
        assert wrong.error == (401, "unauthorized")
    assert await listed(keyed) == []


async def test_the_keys_of_the_environment_are_listed_and_stay(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRON + "OPENAI", "sk-environment-12345678")
    monkeypatch.setenv(ENVIRON + "OPENAI__TEAM_B", "sk-team-b-abcdefgh")
    keyed = await with_keys(await serve())
    await keyed.makes_project("team-b")
    of_environment = {"upstream": "openai", "source": "environment", "created_at": None}
    assert await listed(keyed) == [{**of_environment, "last_four": "5678"}]
    assert await listed(keyed, "team-b") == [{**of_environment, "last_four": "efgh"}]
    assert (await keyed.asks("DELETE", PATH)).error == (404, "not_found")
    await keyed.sets_provider_key(KEY)
    assert [one["source"] for one in await listed(keyed)] == ["stored"]


async def test_a_key_file_that_others_can_read_takes_no_key(keyed: Keyed) -> None:
    await keyed.sets_provider_key(KEY)
    open_to_all(keyed.tw)
    reply = await keyed.asks("PUT", PATH, {"key": "sk-another-one-1234"})
    assert reply.error == (503, "key_file_unusable")
    assert "chmod 600" in reply.body["error"]["message"]
    assert [one["last_four"] for one in await listed(keyed)] == ["cdef"]


async def test_a_key_that_the_database_does_not_take_is_not_used(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StatementRefused("a.db", "it is so")

    monkeypatch.setattr("storage.provider_keys.put", refuse)
    reply = await keyed.asks("PUT", PATH, {"key": KEY})
    assert reply.error == (503, "storage_unavailable")
    assert issubclass(StatementRefused, StorageError)
    assert await listed(keyed) == []


async def test_a_key_is_used_that_was_stored_for_somebody_who_left(
    keyed: Keyed, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is stored and what is used would differ until the next start."""
    recorder = keyed.tw.server.recorder
    change, asked, go_on = recorder.change, asyncio.Event(), asyncio.Event()

    def later(work: object, **how: object) -> "asyncio.Future[object]":
        async def written() -> object:
            asked.set()
            await go_on.wait()
            return await change(work, **how)  # type: ignore[arg-type]

        return asyncio.ensure_future(written())

    caller = await keyed.makes_key()
    monkeypatch.setattr(recorder, "change", later)
    leaving = asyncio.ensure_future(keyed.asks("PUT", PATH, {"key": KEY}))
    await asyncio.wait_for(asked.wait(), 10)
    leaving.cancel()
    await asyncio.wait([leaving])
    monkeypatch.setattr(recorder, "change", change)
    go_on.set()
    async with asyncio.timeout(10):
        while not await listed(keyed):
            await keyed.tw.saved()
    upstream.answers(b"{}")
    assert (await keyed.calls(caller)).status == 200
    assert upstream.requests[0].get(b"Authorization") == b"Bearer " + KEY.encode()


async def test_parallel_changes_leave_what_is_stored_and_used_the_same(keyed: Keyed) -> None:
    keys = [f"sk-proj-parallel-{number:04}" for number in range(12)]
    await asyncio.gather(*(keyed.sets_provider_key(key) for key in keys))
    (shown,) = await listed(keyed)
    ((last_four,),) = await keyed.tw.database.read("SELECT last_four FROM provider_keys", {})
    assert shown["last_four"] == last_four
