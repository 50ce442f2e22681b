"""The routes that a running server has, as it knows them itself, and all that it stores."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from proxy.access import _ACCESS, OPEN, Access, Need
from tests.databases import columns_of, tables
from tests.running import Running

_PLACE = re.compile(r"\{(\w+)(?::[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")

_FITS = {"target": "openai/v1/models", "number": "1"}


@dataclass(frozen=True)
class Row:
    """A route: `path` is as in app.py, and its method never `*`."""

    method: str
    path: str
    need: Need

    @property
    def is_api(self) -> bool:
        """Whether it is of the API or the proxy, and no page."""
        return self.path.startswith(("/api/", "/metrics", "/v1/", "/mcp"))

    @property
    def places(self) -> tuple[str, ...]:
        """The names of the places in its path."""
        return tuple(_PLACE.findall(self.path))

    def filled(self, values: Mapping[str, str]) -> str:
        """Give the path with values in its places, and something that fits in the others."""
        return _PLACE.sub(lambda place: values.get(place[1], _FITS.get(place[1], "x")), self.path)


def app_of(tw: Running) -> web.Application:
    runner = tw.server._runner
    assert runner is not None
    assert isinstance(runner.app, web.Application)
    return runner.app


def access_of(tw: Running) -> Access:
    return app_of(tw)[_ACCESS]


def table(tw: Running) -> list[Row]:
    """Give every route that the server has; any method is each of several."""
    needs = access_of(tw).needs
    rows = []
    for route in app_of(tw).router.routes():
        assert route.resource is not None
        any_method = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
        methods = any_method if route.method == "*" else (route.method,)
        path, need = route.resource.canonical, needs[route.handler]
        rows += [Row(method, path, need) for method in methods]
    assert len(rows) > 60
    return rows


def closed(tw: Running) -> list[Row]:
    """Give every route that needs a key."""
    return [row for row in table(tw) if row.need is not OPEN]


async def stored(tw: Running, but: frozenset[str] = frozenset()) -> dict[str, list[Any]]:
    """Give every row of every table, but for these columns (`table.column`)."""
    await tw.saved()
    await tw.server.recorder.indexed()  # what a search would have done as well
    names = await tw.database.read(tables(), {})
    found = {}
    for (name,) in sorted(names):
        if name.startswith("messages_fts_") and name.endswith(("_data", "_idx")):
            continue  # how the index has its words, which it may put in order at any time
        columns = await tw.database.read(columns_of(name), {})
        shown = [f'"{c}"' for (c,) in columns if f"{name}.{c}" not in but]
        rows = await tw.database.read(f'SELECT {", ".join(shown)} FROM "{name}"', {})  # noqa: S608
        found[name] = sorted(rows, key=repr)
    assert {"sessions", "traces", "spans", "contents", "events", "api_keys"} <= found.keys()
    return found


# The one thing that a request changes which only reads: when its key was used.
USE = frozenset({"api_keys.last_used_at_us"})
