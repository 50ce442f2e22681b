"""No route is there without what it needs."""

import pytest
from aiohttp import web

from proxy.access import ADMIN, OPEN, READ
from proxy.routes import Route, add_routes
from tests.running import Running
from tests.table import access_of, app_of, table


async def one(_: web.Request) -> web.Response:
    return web.Response()


async def other(_: web.Request) -> web.Response:
    return web.Response()


def test_each_handler_needs_what_its_route_says() -> None:
    app = web.Application()
    needs = add_routes(
        app,
        [
            Route("GET", "/a", one, READ),
            Route("POST", "/b", one, READ),
            Route("DELETE", "/a", other, ADMIN),
        ],
    )
    assert needs == {one: READ, other: ADMIN}
    found = sorted((route.method, route.resource.canonical) for route in app.router.routes())  # type: ignore[union-attr]
    assert found == [("DELETE", "/a"), ("GET", "/a"), ("HEAD", "/a"), ("POST", "/b")]


def test_a_handler_cannot_need_two_things() -> None:
    with pytest.raises(ValueError, match="/b needs something else"):
        add_routes(
            web.Application(), [Route("GET", "/a", one, READ), Route("GET", "/b", one, OPEN)]
        )


def test_a_stream_that_never_ends_has_no_head() -> None:
    app = web.Application()
    add_routes(app, [Route("GET", "/api/events", one, READ)])
    assert [route.method for route in app.router.routes()] == ["GET"]


async def test_every_route_of_the_server_says_what_it_needs(tw: Running) -> None:
    needs = access_of(tw).needs
    assert {route.handler for route in app_of(tw).router.routes()} == needs.keys()
    for row in table(tw):
        if row.method in ("DELETE", "PATCH", "PUT") and "/api/proxy/" not in row.path:
            assert row.need == ADMIN, row
