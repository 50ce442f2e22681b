"""What a route is: a method, a path, its handler, and what whoever comes by it needs.

Invariant: no route is added without its need, so none is open because somebody forgot.
"""

from collections.abc import Iterable
from typing import NamedTuple

from aiohttp import web

from proxy.access import Need
from proxy.guard import Handler


class Route(NamedTuple):
    """One row of the lists in app.py. The method `*` is any; GET serves HEAD as well."""

    method: str
    path: str
    handler: Handler
    need: Need


def add_routes(app: web.Application, routes: Iterable[Route]) -> dict[Handler, Need]:
    """Add routes to an application; give what each handler needs.

    Raises:
        ValueError: a handler is in two rows that need different things.
    """
    needs: dict[Handler, Need] = {}
    for route in routes:
        if needs.setdefault(route.handler, route.need) != route.need:
            raise ValueError(f"{route.path} needs something else than its handler elsewhere")
        app.router.add_route(route.method, route.path, route.handler)
        if route.method == "GET" and route.path != "/api/events":
            app.router.add_route("HEAD", route.path, route.handler)
    return needs
