"""Sessions over HTTP: the list, one with its traces, deletion."""

import functools

from aiohttp import web

from proxy.api import params
from proxy.api.answers import json_answer, not_found
from proxy.api.views import flat, session_view, trace_view
from proxy.providers.messages import text_of
from proxy.recorder import Recorder
from storage import forget, fulltext, queries
from storage.database import Database
from storage.records import DEFAULT_PROJECT

# Traces of one session in one answer; more of them go on behind `cursor`.
MAX_TRACES = 10_000


class Sessions:
    """The handlers of /api/sessions."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/sessions?q=&limit=&cursor=: newest activity first."""
        return json_answer(await self.find(request))

    async def find(self, request: web.Request) -> dict[str, object]:
        """Give a page of sessions.

        With `q`, those in whose messages all its words and "quoted phrases" occur; `truncated` says
        that a word is so common that only the newest messages with it were looked at.
        """
        db, limit, after = self._database, params.limit(request), params.cursor(request)
        if terms := params.search(request):
            await self._recorder.indexed()
            page = await fulltext.sessions_with(db, DEFAULT_PROJECT, terms, limit, after)
        else:
            page = await queries.list_sessions(db, DEFAULT_PROJECT, limit, after)
        answer: dict[str, object] = {
            "sessions": [session_view(session) for session in page.rows],
            "count": len(page.rows),
        }
        if page.truncated:
            answer["truncated"] = True
        if (cursor := params.encode_cursor(page.next_after)) is not None:
            answer["cursor"] = cursor
        return answer

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/sessions/{id}: the session's fields, and its traces, oldest first."""
        answer = await self.one(request)
        return not_found("session") if answer is None else json_answer(answer)

    async def one(self, request: web.Request) -> dict[str, object] | None:
        """Give a session with its traces; None where there is none."""
        session_id = params.session_id(request)
        session = await queries.get_session(self._database, DEFAULT_PROJECT, session_id)
        if session is None:
            return None
        page = await queries.session_traces(
            self._database,
            DEFAULT_PROJECT,
            session_id,
            limit=params.limit(request, MAX_TRACES, MAX_TRACES),
            after=params.cursor(request),
        )
        answer = flat(session_view(session))
        answer["traces"] = [trace_view(trace) for trace in page.rows]
        if (cursor := params.encode_cursor(page.next_after)) is not None:
            answer["cursor"] = cursor
        return answer

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /api/sessions/{id}: the session, its traces, spans and bodies."""
        deleted = await self._recorder.write(
            functools.partial(
                forget.delete_session,
                project_id=DEFAULT_PROJECT,
                session_id=params.session_id(request),
                text_of=text_of,
            ),
            erases=True,
        )
        return not_found("session") if deleted is None else json_answer(deleted)
