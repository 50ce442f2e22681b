"""What people do with a session on its pages: star it, name it, delete it.

Invariant: nothing is deleted without a page that says what goes. What is written is proxy/api's;
who may is the routes'. All of it works as forms do, without a script.
"""

from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from proxy.access import project_id
from proxy.api import params
from proxy.api.sessions import SessionChange, Sessions
from proxy.api.views import session_view
from proxy.ui import forms, view
from proxy.ui.frame import Frame
from storage import queries
from storage.database import Database

_FIELDS: Final = {
    "name": "a session's name is one line of up to 200 characters, or nothing",
    "starred": "a session is starred or it is not: true or false",
}


class MarksPage:
    """The handlers of what is done with a session, all of them for admins."""

    def __init__(self, frame: Frame, sessions: Sessions, database: Database) -> None:
        self._frame = frame
        self._sessions = sessions
        self._database = database

    async def mark(self, request: web.Request) -> web.Response:
        """POST /sessions/{id}/mark: give it a name or a star, and go back to where that was."""
        fields = await forms.read(request)
        given: dict[str, object] = {name: fields[name] for name in _FIELDS if name in fields}
        if "name" in given:
            given["name"] = fields["name"].strip() or None
        asked = forms.fill(SessionChange, given, _FIELDS)
        session_id = params.session_id(request)
        if not await self._sessions.change(project_id(request), session_id, asked):
            raise web.HTTPNotFound
        return forms.go(_came_from(request) or view.session_path(session_id))

    async def ask_to_delete(self, request: web.Request) -> web.Response:
        """GET /sessions/{id}/delete: what goes with it."""
        page = await self._deletion(request, is_going=False)
        if page is None:
            raise web.HTTPNotFound
        return page

    async def _deletion(self, request: web.Request, *, is_going: bool) -> web.Response | None:
        session = await queries.get_session(
            self._database, project_id(request), params.session_id(request)
        )
        if session is None:
            return None
        return self._frame.render(
            request, "session_delete.html", session=session_view(session), is_going=is_going
        )

    async def delete(self, request: web.Request) -> web.Response:
        """POST /sessions/{id}/delete: delete it; a page says so where that takes a while."""
        await forms.read(request)
        answer = await self._sessions.delete(request)
        if answer.status == 404:
            raise web.HTTPNotFound
        page = await self._deletion(request, is_going=True) if answer.status == 202 else None
        return page or forms.go(forms.HOME)


def _came_from(request: web.Request) -> str | None:
    """Give the page with the form: our pages tell it to us alone (see frame.py's headers).

    Whatever it says, `forms.go` leads to pages of ours only.
    """
    came = urlsplit(request.headers.get("Referer", ""))
    return (f"{came.path}?{came.query}" if came.query else came.path) or None
