"""Who may do what, over all routes that the server has."""

from tests.api.asking import ask
from tests.keyed import Keyed


async def test_a_key_is_known_by_its_project_and_scope(team: Keyed) -> None:
    for project, scope in team.holders:
        for tw in (await team.by(project, scope), await team.by_cookie(project, scope)):
            reply = await ask(tw, "/api/self")
            assert (reply.status, reply.body["project"], reply.body["scope"]) == (
                200,
                project,
                scope,
            )
