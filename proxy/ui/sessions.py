"""The list of sessions: its page, and the rows that the page fetches anew while it is open.

Its figures are those of `proxy.api`; formatting is view.py's and the templates'.
"""

from aiohttp import web

from proxy.api.sessions import Sessions
from proxy.api.views import stats_view
from proxy.ui import listing
from proxy.ui.frame import Frame
from storage import queries
from storage.database import Database
from storage.records import DEFAULT_PROJECT


class SessionPages:
    """The handlers of /sessions."""

    def __init__(self, frame: Frame, sessions: Sessions, database: Database) -> None:
        self._frame = frame
        self._sessions = sessions
        self._database = database

    async def home(self, _: web.Request) -> web.Response:
        """GET /: the sessions."""
        raise web.HTTPFound("/sessions")

    async def list(self, request: web.Request) -> web.Response:
        """GET /sessions?q=&sort_by=&sort_order=&cursor=: a page of the list."""
        found = await listing.read(request, listing.SESSIONS, self._sessions.find)
        stats = stats_view(await queries.stats(self._database, DEFAULT_PROJECT))
        return self._frame.render(
            request,
            "sessions.html",
            status=400 if found.problem else 200,
            list=found,
            stats=stats,
            base_url=f"{request.scheme}://{request.host}/api/proxy/openai/v1",
        )
