"""Keys and projects over HTTP."""

from typing import Any

import orjson
import pytest

from tests.api.asking import Reply, ask
from tests.keyed import Keyed
from tests.running import CHAT, Running
from tests.table import USE, stored
from tests.wire import ScriptedUpstream


async def send(tw: Running, method: str, path: str, body: object) -> Reply:
    async with tw.client.request(method, tw.url + path, data=orjson.dumps(body)) as answer:
        data = await answer.read()
        return Reply(answer.status, dict(answer.headers), orjson.loads(data) if data else None)


async def test_a_key_is_shown_once_and_stored_as_its_hash(team: Keyed) -> None:
    tw = await team.by("alpha", "admin")
    made = await send(tw, "POST", "/api/keys", {"name": "ci", "scope": "read"})
    assert made.status == 201
    assert made.headers["Cache-Control"] == "no-store"
    key = made.body.pop("key")
    assert (key[:6], len(key), key[-4:]) == ("tw_sk_", 49, made.body["last_four"])
    (listed,) = [one for one in (await tw.api("/api/keys"))["keys"] if one["name"] == "ci"]
    assert listed == {**made.body, "last_used_at": None, "revoked_at": None}
    assert (listed["project"], listed["scope"], listed["calls_per_minute"]) == (
        "alpha",
        "read",
        None,
    )
    assert key not in str(await tw.api("/api/keys"))
    assert key not in str(await stored(tw))
    own = await ask(await team.with_headers({"X-Traceway-Api-Key": key}), "/api/self")
    assert (own.body["project"], own.body["scope"]) == ("alpha", "read")
    assert own.body["key"]["last_used_at"] is not None


async def test_a_key_may_be_made_for_another_project(team: Keyed) -> None:
    tw = await team.by("alpha", "admin")
    body = {"name": "k", "scope": "write", "project": "beta", "calls_per_minute": 5}
    made = await send(tw, "POST", "/api/keys", body)
    assert (made.body["project"], made.body["calls_per_minute"]) == ("beta", 5)
    there = await team.with_headers(
        {"X-Traceway-Api-Key": team["alpha", "admin"].key, "X-Traceway-Project": "beta"}
    )
    made = await send(there, "POST", "/api/keys", {"name": "l", "scope": "admin"})
    assert made.body["project"] == "beta"
    reply = await send(tw, "POST", "/api/keys", {**body, "project": "nobody"})
    assert reply.error == (404, "not_found")


async def test_the_list_has_all_keys_newest_first(team: Keyed) -> None:
    found = await (await team.by("beta", "admin")).api("/api/keys")
    assert found["count"] == len(found["keys"]) == len(team.holders)
    assert [one["id"] for one in found["keys"]] == sorted(
        (one.key_id for one in team.holders.values()), reverse=True
    )
    assert {one["project"] for one in found["keys"]} == {"alpha", "beta"}


async def test_a_key_is_revoked_once(team: Keyed, upstream: ScriptedUpstream) -> None:
    tw = await team.by("alpha", "admin")
    one = team["beta", "write"]
    upstream.answers(b"{}")
    assert (await team.tw.raw(CHAT.encode(), headers=one.header)).status == 200
    first = await ask(tw, f"/api/keys/{one.key_id}", "DELETE")
    assert (first.status, first.body["id"]) == (200, one.key_id)
    assert first.body["revoked_at"] is not None
    again = await ask(tw, f"/api/keys/{one.key_id}", "DELETE")
    assert again.body == first.body
    assert (await team.tw.raw(CHAT.encode(), headers=one.header)).status == 401
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "key_id", ["0", "99", "-1", "x", "1.0", "%31x", "9" * 30, "%D9%A3", "1%00", "%20"]
)
async def test_a_key_that_is_none_cannot_be_revoked(team: Keyed, key_id: str) -> None:
    tw = await team.by("alpha", "admin")
    before = await stored(tw, USE)
    assert (await ask(tw, f"/api/keys/{key_id}", "DELETE")).error == (404, "not_found")
    assert await stored(tw, USE) == before


async def test_who_revokes_their_own_key_is_out(team: Keyed) -> None:
    tw, one = await team.by("alpha", "admin"), team["alpha", "admin"]
    assert (await ask(tw, f"/api/keys/{one.key_id}", "DELETE")).status == 200
    assert (await ask(tw, "/api/keys")).status == 401


async def test_projects_are_made_and_changed(team: Keyed) -> None:
    tw = await team.by("alpha", "admin")
    made = await send(tw, "POST", "/api/projects", {"name": "new", "session_budget_usd": 1.5})
    assert (made.status, made.body["name"], made.body["session_budget_usd"]) == (201, "new", 1.5)
    plain = await send(tw, "POST", "/api/projects", {"name": "plain"})
    assert plain.body["session_budget_usd"] is None
    listed = await tw.api("/api/projects")
    assert [p["name"] for p in listed["projects"]] == ["default", "alpha", "beta", "new", "plain"]
    assert listed["count"] == 5

    path = "/api/projects/new"
    for change, name, budget in [
        ({}, "new", 1.5),
        ({"session_budget_usd": 0}, "new", 0),
        ({"session_budget_usd": None}, "new", None),
        ({"name": "newer", "session_budget_usd": 0.000000001}, "newer", 1e-9),
        ({"name": "newer"}, "newer", 1e-9),
    ]:
        changed = await send(tw, "PATCH", path, change)
        assert (changed.body["name"], changed.body["session_budget_usd"]) == (name, budget)
        path = f"/api/projects/{name}"
    assert (await send(tw, "PATCH", "/api/projects/new", {})).error == (404, "not_found")


async def test_a_name_that_is_taken_is_a_conflict_and_changes_nothing(team: Keyed) -> None:
    tw = await team.by("alpha", "admin")
    before = await stored(tw, USE)
    before.pop("counters")  # tries are numbered as well
    taken = {"name": "beta", "session_budget_usd": 1}
    assert (await send(tw, "POST", "/api/projects", taken)).error == (409, "conflict")
    assert (await send(tw, "PATCH", "/api/projects/alpha", taken)).error == (409, "conflict")
    after = await stored(tw, USE)
    after.pop("counters")
    assert after == before
    assert (await ask(tw, "/api/health")).body["status"] == "ok"


async def test_a_key_follows_its_project_to_another_name(team: Keyed) -> None:
    tw = await team.by("alpha", "admin")
    assert (await send(tw, "PATCH", "/api/projects/beta", {"name": "gamma"})).status == 200
    assert (await ask(await team.by("beta", "read"), "/api/self")).body["project"] == "gamma"


@pytest.mark.parametrize(
    "name",
    ["", "A", "a b", "-a", "_a", "a" * 65, "a\n", "\na", "a\n\n", "ä", "a.b", "a/b", "a\0", 1],
)
async def test_a_project_has_a_name_that_can_stand_anywhere(team: Keyed, name: Any) -> None:
    tw = await team.by("alpha", "admin")
    for method, path in (("POST", "/api/projects"), ("PATCH", "/api/projects/beta")):
        assert (await send(tw, method, path, {"name": name})).error == (400, "bad_parameter")


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "a" * 64])
async def test_such_names_are_good(team: Keyed, name: str) -> None:
    tw = await team.by("alpha", "admin")
    assert (await send(tw, "POST", "/api/projects", {"name": name})).status == 201


@pytest.mark.parametrize("name", ["", "a" * 101, "a\n", "\ta", "\x7f", "\x85", "a\0b"])
async def test_a_key_has_a_name_of_one_line(team: Keyed, name: str) -> None:
    tw = await team.by("alpha", "admin")
    reply = await send(tw, "POST", "/api/keys", {"name": name, "scope": "read"})
    assert reply.error == (400, "bad_parameter")


@pytest.mark.parametrize("name", ["é", "Jürgen's laptop", "<b>", "a" * 100, "日本"])
async def test_a_key_may_be_called_as_one_likes(team: Keyed, name: str) -> None:
    tw = await team.by("alpha", "admin")
    reply = await send(tw, "POST", "/api/keys", {"name": name, "scope": "read"})
    assert reply.body["name"] == name


@pytest.mark.parametrize("budget", [-0.01, 1_000_001, "1", True, [1]])
async def test_a_budget_is_an_amount(team: Keyed, budget: object) -> None:
    tw = await team.by("alpha", "admin")
    reply = await send(tw, "PATCH", "/api/projects/alpha", {"session_budget_usd": budget})
    assert reply.error == (400, "bad_parameter")


async def test_whoever_asks_is_told_who_they_are(team: Keyed) -> None:
    for (project, scope), one in team.holders.items():
        found = (await ask(await team.by(project, scope), "/api/self")).body
        key = found.pop("key")
        assert found == {"project": project, "scope": scope, "keys_are_on": True}
        assert (key["id"], key["name"], key["scope"]) == (one.key_id, f"{project}'s {scope}", scope)
        assert one.key not in str(key)


async def test_without_keys_one_is_told_so(tw: Running) -> None:
    assert await tw.api("/api/self") == {
        "project": "default",
        "scope": "admin",
        "keys_are_on": False,
        "key": None,
    }
    assert await tw.api("/api/keys") == {"keys": [], "count": 0}
