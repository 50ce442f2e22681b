"""The lists of sessions and of traces: their pages, and the parts that an open page fetches anew.

Invariant: every figure is the API's. Formatting is view.py's, what is shown where the templates'.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from aiohttp import web

from proxy.access import project_id
from proxy.api import params
from proxy.api.sessions import Sessions
from proxy.api.traces import Traces
from proxy.api.views import StatsView, TotalsView, session_view, stats_view, trace_view
from proxy.ui import listing
from proxy.ui.frame import Frame, origin
from proxy.ui.listing import SESSIONS, TRACES, Find, Kind
from proxy.ui.snippets import ways
from storage import events, queries
from storage.database import Database

# Rows that an open page asks for at once: those that it shows, twice over.
MAX_IDS: Final = 100


class Lists:
    """The handlers of /sessions and /traces."""

    def __init__(
        self, frame: Frame, sessions: Sessions, traces: Traces, database: Database
    ) -> None:
        self._frame = frame
        self._sessions = sessions
        self._traces = traces
        self._database = database

    async def home(self, _: web.Request) -> web.Response:
        """GET /: the sessions."""
        raise web.HTTPFound(SESSIONS.path)

    async def sessions(self, request: web.Request) -> web.Response:
        """GET /sessions?q=&sort_by=&sort_order=&cursor=: a page of sessions."""
        return await self._page(request, SESSIONS, self._sessions.find)

    async def traces(self, request: web.Request) -> web.Response:
        """GET /traces?q=&sort_by=&sort_order=&cursor=: a page of traces."""
        return await self._page(request, TRACES, self._traces.find)

    async def _page(self, request: web.Request, kind: Kind, find: Find) -> web.Response:
        # Read first: what comes meanwhile comes twice, rather than not at all.
        _, since = await events.bounds(self._database)
        found = await listing.read(request, kind, find)
        if found.matches_nothing:
            found = replace(found, clauses=await listing.clauses(request, found, find))
        stats = await self._stats(request)
        base_url = f"{origin(request)}/api/proxy/openai/v1"
        return self._frame.render(
            request,
            f"{kind.rows}.html",
            status=400 if found.problem else 200,
            since=since,
            list=found,
            stats=stats,
            # Of a query they may take longer than the page does, and come after it.
            totals=None if found.q.strip() else _all(stats, kind),
            base_url=base_url,
            ways=ways(base_url, keys_are_on=self._frame.keys_are_on),
        )

    async def session_rows(self, request: web.Request) -> web.Response:
        """GET /sessions/rows?id=&new=&q=: rows to show anew, and of `new` those that `q` finds."""
        asked = request.query.getall("id", [])[:MAX_IDS]
        found = await queries.get_sessions(self._database, project_id(request), asked)
        rows = [session_view(session) for session in found.values()]
        rows += await self._new(request, SESSIONS, self._sessions.find)
        return self._frame.render(request, "session_rows.html", rows=rows)

    async def trace_rows(self, request: web.Request) -> web.Response:
        """GET /traces/rows?id=&new=&q=: the same for traces."""
        asked = [params.hex_id(text, 32) for text in request.query.getall("id", [])[:MAX_IDS]]
        known = [trace_id for trace_id in asked if trace_id is not None]
        found = await queries.get_traces(self._database, project_id(request), known)
        rows = [trace_view(trace) for trace in found.values()]
        rows += await self._new(request, TRACES, self._traces.find)
        return self._frame.render(request, "trace_rows.html", rows=rows)

    async def _new(self, request: web.Request, kind: Kind, find: Find) -> Sequence[Any]:
        """Give those of the newest rows that are new to the page."""
        new = set(request.query.getall("new", []))
        if not new:
            return ()
        return [row for row in await listing.newest(request, kind, find) if row.id in new]

    async def session_totals(self, request: web.Request) -> web.Response:
        """GET /sessions/totals?q=: the sums over the sessions that `q` finds."""
        return await self._totals(request, SESSIONS, self._sessions.sums)

    async def trace_totals(self, request: web.Request) -> web.Response:
        """GET /traces/totals?q=: the sums over the traces that `q` finds."""
        return await self._totals(request, TRACES, self._traces.sums)

    async def _totals(
        self,
        request: web.Request,
        kind: Kind,
        sums: Callable[[web.Request], Awaitable[TotalsView]],
    ) -> web.Response:
        asks = request.query.get("q", "").strip()
        totals = await sums(request) if asks else _all(await self._stats(request), kind)
        return self._frame.render(request, "totals.html", totals=totals)

    async def _stats(self, request: web.Request) -> StatsView:
        return stats_view(await queries.stats(self._database, project_id(request)))


@dataclass(frozen=True, slots=True)
class _All:
    """The sums over everything, which are kept and need not be counted."""

    session_count: int | None
    trace_count: int
    total_tokens: int | None
    cost: float | None
    unpriced_count: int
    estimated_count: int
    truncated: bool = False


def _all(stats: StatsView, kind: Kind) -> _All:
    return _All(
        stats.session_count if kind is SESSIONS else None,
        stats.trace_count,
        stats.total_tokens,
        stats.cost,
        stats.unpriced_count,
        stats.estimated_count,
    )
