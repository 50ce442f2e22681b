"""Making keys and projects is described with the bodies that the server reads, and no others."""

import pytest

from tests.api.asking import Reply
from tests.api.described import faults, validator
from tests.running import Running

BODIES: list[tuple[str, object]] = [
    ("NewProject", {"name": "shop"}),
    ("NewProject", {"name": "shop", "session_budget_usd": 1.5}),
    ("NewProject", {"name": "shop", "session_budget_usd": None}),
    ("NewProject", {"name": "shop", "session_budget_usd": -1}),
    ("NewProject", {"name": "Shop"}),
    ("NewProject", {"name": "x" * 64}),
    ("NewProject", {"name": "x" * 65}),
    ("NewProject", {"name": "shop", "more": 1}),
    ("NewProject", {}),
    ("NewProject", []),
    ("NewKey", {"name": "a key", "scope": "read"}),
    ("NewKey", {"name": "a key", "scope": "read", "calls_per_minute": 1}),
    ("NewKey", {"name": "a key", "scope": "read", "calls_per_minute": 0}),
    ("NewKey", {"name": "a key", "scope": "owner"}),
    ("NewKey", {"name": "", "scope": "read"}),
    ("NewKey", {"name": "a\u0000key", "scope": "read"}),
    ("NewKey", {"name": 1, "scope": "read"}),
]
PATHS = {"NewProject": "/api/projects", "NewKey": "/api/keys"}


async def sent(tw: Running, method: str, path: str, body: object, **headers: str) -> Reply:
    """Send JSON; the answer must be as it is described."""
    async with tw.client.request(method, tw.url + path, json=body, headers=headers) as answer:
        reply = Reply(answer.status, dict(answer.headers), await answer.json())
    assert faults(method, path, reply.status, reply.headers, reply.body) == []
    return reply


@pytest.mark.parametrize(("name", "body"), BODIES)
async def test_a_body_is_taken_if_it_is_as_described(tw: Running, name: str, body: object) -> None:
    schema = {"$ref": f"#/components/schemas/{name}"}
    fits = not list(validator(schema).iter_errors(body))
    reply = await sent(tw, "POST", PATHS[name], body)
    assert (reply.status == 201) == fits, reply.body


async def test_a_name_does_not_end_in_a_line_feed(tw: Running) -> None:
    for path, body in (
        ("/api/projects", {"name": "shop\n"}),
        ("/api/keys", {"name": "a key\n", "scope": "read"}),
    ):
        reply = await sent(tw, "POST", path, body)
        assert reply.error == (400, "bad_parameter")


async def test_what_admins_are_answered_is_as_described(tw: Running) -> None:
    project = await sent(tw, "POST", "/api/projects", {"name": "shop", "session_budget_usd": 2})
    assert (await sent(tw, "POST", "/api/projects", {"name": "shop"})).status == 409
    changed = await sent(tw, "PATCH", "/api/projects/shop", {"session_budget_usd": None})
    assert (project.status, changed.status) == (201, 200)
    assert (await sent(tw, "PATCH", "/api/projects/none", {})).status == 404

    made = await sent(tw, "POST", "/api/keys", {"name": "first", "scope": "admin"})
    key = {"Authorization": f"Bearer {made.body['key']}"}
    for path in ("/api/keys", "/api/projects", "/api/self"):
        assert (await sent(tw, "GET", path, None, **key)).status == 200
    for path in ("/api/self", "/metrics", "/api/openapi.json"):
        assert (await sent(tw, "GET", path, None)).error == (401, "unauthorized")
    other = await sent(tw, "POST", "/api/keys", {"name": "other", "scope": "read"}, **key)
    revoked = await sent(tw, "DELETE", f"/api/keys/{other.body['id']}", None, **key)
    assert revoked.body["revoked_at"] is not None
    assert (await sent(tw, "DELETE", "/api/keys/99", None, **key)).status == 404
    assert (await sent(tw, "POST", "/api/events/tickets", None, **key)).status == 201
