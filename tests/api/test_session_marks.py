"""PATCH /api/sessions/{id}: a name and a star, who may give them, and who is told."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.api.asking import Reply, ask, save
from tests.api.test_keys import send
from tests.api.watching import watch
from tests.keyed import Keyed
from tests.running import Running
from tests.storage.calls import end, start


async def change(tw: Running, body: object, session: str = "s") -> Reply:
    return await send(tw, "PATCH", f"/api/sessions/{session}", body)


async def marks(tw: Running, session: str = "s") -> tuple[Any, Any]:
    found = (await ask(tw, f"/api/sessions/{session}")).body
    return found["name"], found["starred"]


async def test_a_session_gets_a_name_and_a_star_and_keeps_what_is_left_out(tw: Running) -> None:
    await save(tw, end(start(1, session_id="s")))
    reply = await change(tw, {"name": "  Lost order ", "starred": True})
    assert reply.status == 200
    whole = (await ask(tw, "/api/sessions/s")).body
    assert reply.body == {k: v for k, v in whole.items() if k not in ("traces", "budget")}
    assert (reply.body["name"], reply.body["starred"]) == ("Lost order", True)
    await change(tw, {"name": None})
    assert await marks(tw) == (None, True)
    await change(tw, {"name": "Found"})
    await change(tw, {"starred": False})
    assert await marks(tw) == ("Found", False)
    assert (await change(tw, {})).status == 200
    assert await marks(tw) == ("Found", False)


@pytest.mark.parametrize("session", ["a/b", "..", "totals", "by-id", "héllo 日本"])
async def test_a_session_of_any_id_is_marked_by_it(tw: Running, session: str) -> None:
    await save(tw, end(start(1, session_id=session)))
    asked = f"by-id?id={quote(session, safe='')}"
    assert (await change(tw, {"starred": True}, asked)).body["id"] == session
    assert (await ask(tw, f"/api/sessions/{asked}")).body["starred"] is True


async def test_what_is_not_there_has_no_name(tw: Running) -> None:
    assert (await change(tw, {"starred": True})).error == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\u2028b"}, "name"),
        ({"name": "a\0"}, "name"),
        ({"name": "a" * 201}, "name"),
        ({"name": 5}, "name"),
        ({"starred": None}, "starred"),
        ({"starred": 1}, "starred"),
        ({"stared": True}, None),
        ([], None),
    ],
)
async def test_a_mistake_is_named_and_changes_nothing(
    tw: Running, body: object, param: str | None
) -> None:
    await save(tw, end(start(1, session_id="s")))
    reply = await change(tw, body)
    assert reply.error == (400, "bad_parameter")
    assert reply.body["error"]["param"] == param
    assert await marks(tw) == (None, False)


async def test_open_pages_are_told_with_the_session_as_it_is_now(tw: Running) -> None:
    await save(tw, end(start(1, session_id="s")))
    async with watch(tw) as watching:
        await change(tw, {"name": "Lost order", "starred": True})
        event = await watching.event()
    assert (event["type"], event["session_id"]) == ("session_updated", "s")
    assert (event["session"]["name"], event["session"]["starred"]) == ("Lost order", True)


async def test_only_admins_of_the_project_mark_its_sessions(team: Keyed) -> None:
    alpha = team["alpha", "admin"]
    tw = await team.by("alpha", "admin")
    await save(tw, end(start(1, session_id="s", project_id=alpha.project_id)))
    for scope in ("read", "write"):
        reply = await change(await team.by("alpha", scope), {"starred": True})
        assert reply.error == (403, "forbidden")
    other = await change(await team.by("beta", "admin"), {"starred": True})
    assert other.error == (404, "not_found")
    assert await marks(tw) == (None, False)
    assert (await change(tw, {"starred": True})).status == 200
