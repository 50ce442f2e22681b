"""Sessions over HTTP: the list and its sums, one with its traces, its name and star, deletion."""

import functools

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from proxy.access import project_id
from proxy.api import lists, params, request_body
from proxy.api.answers import json_answer, not_found
from proxy.api.erasing import LARGE_SPANS, LARGE_TRACES, Erasing
from proxy.api.finding import Finder
from proxy.api.views import TotalsView, budget_view, flat, session_view, trace_view
from proxy.providers.messages import text_of
from proxy.recorder import Recorder
from storage import budgets, forget, listing, marks, queries
from storage.clauses import Name, Query
from storage.database import Database, Transaction
from storage.erasures import Order
from storage.listing import Order as SortOrder
from storage.marks import SessionName

# Traces of one session in one answer; more of them go on behind `cursor`.
MAX_TRACES = 10_000


class SessionChange(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of PATCH /api/sessions/{id}; what it leaves out stays, null takes the name away."""

    name: SessionName | UnsetType | None = UNSET
    starred: bool | UnsetType = UNSET


class Sessions:
    """The handlers of /api/sessions."""

    def __init__(self, database: Database, recorder: Recorder, erasing: Erasing) -> None:
        self._erasing = erasing
        self._database = database
        self._recorder = recorder
        self._finder = Finder(database, recorder)

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/sessions?q=&sort_by=&sort_order=&limit=&cursor=: newest activity first."""
        return json_answer(await self.find(request))

    async def find(self, request: web.Request) -> dict[str, object]:
        """Give a page of sessions.

        `truncated` says that a word is so common that only the newest messages with it were looked
        at. A page may be short and have a cursor: so far was looked.
        """
        asked = lists.asked(request, "sessions")
        page = await self._finder.page(project_id(request), listing.list_sessions, asked)
        return asked.answer(page, [session_view(session) for session in page.rows])

    async def totals(self, request: web.Request) -> web.Response:
        """GET /api/sessions/totals?q=: sums over the sessions of a list."""
        return json_answer(await self.sums(request))

    async def sums(self, request: web.Request) -> TotalsView:
        """Give the sums over all pages of a list."""
        return await self._finder.sums(request, "sessions")

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/sessions/{id}: its fields, its budget, and its traces, oldest first."""
        answer = await self.one(request)
        return not_found("session") if answer is None else json_answer(answer)

    async def one(self, request: web.Request) -> dict[str, object] | None:
        """Give a session with its traces; None where there is none."""
        session_id = params.session_id(request)
        asked = lists.page_of(
            request,
            Query("traces", (Name("session", session_id),)),
            SortOrder("started", descending=False),
            params.limit(request, MAX_TRACES, MAX_TRACES),
        )
        session = await queries.get_session(self._database, project_id(request), session_id)
        if session is None:
            return None
        page = await self._finder.page(project_id(request), listing.list_traces, asked)
        answer = flat(session_view(session))
        budget = await budgets.session_budget(self._database, project_id(request), session_id)
        answer["budget"] = budget_view(budget)
        answer["traces"] = [trace_view(trace) for trace in page.rows]
        if (cursor := asked.cursor(page)) is not None:
            answer["cursor"] = cursor
        return answer

    async def mark(self, request: web.Request) -> web.Response:
        """PATCH /api/sessions/{id}: give it a name, or a star, or take them away."""
        asked = await request_body.read(request, SessionChange)
        session_id = params.session_id(request)
        if not await self.change(project_id(request), session_id, asked):
            return not_found("session")
        session = await queries.get_session(self._database, project_id(request), session_id)
        return not_found("session") if session is None else json_answer(session_view(session))

    async def change(self, project: int, session_id: str, asked: SessionChange) -> bool:
        """Change what a session is marked with; tell whether there is such a session."""

        def work(tx: Transaction) -> bool:
            mark = marks.read_mark(tx, project, session_id)
            if mark is None:
                return False
            if asked.name is not UNSET:
                mark = mark._replace(name=asked.name and asked.name.strip())
            if asked.starred is not UNSET:
                mark = mark._replace(is_starred=asked.starred)
            return marks.write_mark(tx, project, session_id, mark)

        return await self._recorder.change(work, (project,))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /api/sessions/{id}: the session, its traces, spans and bodies.

        Of a large one, 202 and the order to erase it.
        """
        project, session_id = project_id(request), params.session_id(request)
        session = await queries.get_session(self._database, project, session_id)
        if session and (session.trace_count > LARGE_TRACES or session.span_count > LARGE_SPANS):
            order = Order(kind="session", given=session.session_id)
            return json_answer(await self._erasing.ask(project, order), status=202)
        deleted = await self._recorder.change(
            functools.partial(
                forget.delete_session,
                project_id=project,
                session_id=session_id,
                text_of=text_of,
            ),
            (project,),
            erases=True,
        )
        return not_found("session") if deleted is None else json_answer(deleted)
