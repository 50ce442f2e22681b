"""Orders to erase over HTTP: what is asked for, how far it is, what was erased.

Invariant: an answer says what was asked for only until the order has ended. The work itself is
eraser.py's.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from proxy.access import project_id
from proxy.api import params, request_body
from proxy.api.answers import json_answer, not_found
from proxy.api.params import BadParameter
from proxy.api.units import iso, iso_or_none
from proxy.recorder import Recorder
from proxy.session import ControlCharacter, session_id_of
from storage import erasures, queries
from storage.collecting import excludes_too_common
from storage.database import Database
from storage.erase import Extent
from storage.erasures import Erasure, Kind, Order, Reason, State
from storage.parameters import clean_key, clean_text
from storage.records import Session
from storage.search import SearchError, parse

# A session of more than this, or a trace of more calls, is erased part by part, and the answer to
# its deletion is the order.
LARGE_TRACES: Final = 200
LARGE_SPANS: Final = 1_000

# Without anything of what was asked for.
REASONS: Final[dict[Reason, str]] = {
    "error": "it failed, as the log of the server says; what was erased stays so",
    "excludes_too_common": "the query excludes a word that is too common for all messages with it"
    " to be looked at, so what it finds may hold the word",
    "too_common": "a word of the query is so common that only its newest messages are looked at,"
    " and of those nothing more is to be erased; older ones may be left",
    "unknown_query": "this version of the server does not understand the query, which an older one"
    " took; what was erased stays so, and the rest needs another order",
}

Given = Annotated[str, Meta(min_length=1, max_length=2_000)]


class NewErasure(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of POST /api/erasures: one of `session`, `user` and `query`."""

    session: Given | UnsetType = UNSET
    user: Given | UnsetType = UNSET
    query: Given | UnsetType = UNSET
    extent: Extent = "all"
    include_starred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureView:
    """An order to erase, how far it is, and what was erased by it.

    `found` are the sessions, and the traces without or out of one, that were found so far; of them
    `done` are erased. `given` is null once it has ended. `reason` says why it did not do all of it.
    """

    id: int
    kind: Kind
    given: str | None
    extent: Extent
    include_starred: bool
    state: State
    reason: str | None
    asked_at: str
    began_at: str | None
    ended_at: str | None
    found: int
    done: int
    sessions: int
    traces: int
    spans: int
    contents: int
    content_bytes: int
    kept_starred: int


class Erasing:
    """The handlers of /api/erasures. `wake` tells who carries orders out."""

    def __init__(self, database: Database, recorder: Recorder, wake: Callable[[], None]) -> None:
        self._database = database
        self._recorder = recorder
        self._wake = wake

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/erasures?limit=: the project's orders, the newest first."""
        limit = params.limit(request)
        found = await erasures.orders(self._database, project_id(request), limit)
        views = [erasure_view(erasure) for erasure in found]
        return json_answer({"erasures": views, "count": len(views)})

    async def create(self, request: web.Request) -> web.Response:
        """POST /api/erasures: have the calls of a session, a user or a query erased."""
        order = _order(await request_body.read(request, NewErasure))
        project = project_id(request)
        if order.kind == "session":
            session = await self._session(project, order.given)
            if session is None:
                return not_found("session")
            order = replace(order, given=session.session_id)
        if order.kind == "query" and await excludes_too_common(
            self._database, project, parse(order.given, "sessions")
        ):
            raise BadParameter(REASONS["excludes_too_common"], "query")
        return json_answer(await self.ask(project, order), status=202)

    async def _session(self, project: int, given: str) -> Session | None:
        """Read a session by its id, also as a call may say it."""
        session = await queries.get_session(self._database, project, given)
        if session is None:
            said = _as_said(given)
            session = await queries.get_session(self._database, project, said)
        return session

    async def ask(self, project: int, order: Order) -> ErasureView:
        """Take an order."""
        now_us = time.time_ns() // 1000
        tries: list[int] = []
        erasure = await self._recorder.change(
            lambda tx: erasures.ask(tx, project, order, now_us, tries), (project,)
        )
        self._wake()
        return erasure_view(erasure)

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/erasures/{id}: an order."""
        number = _number(request)
        erasure = await erasures.order_of(self._database, project_id(request), number)
        return not_found("erasure") if erasure is None else json_answer(erasure_view(erasure))

    async def cancel(self, request: web.Request) -> web.Response:
        """DELETE /api/erasures/{id}: erase no more of it; one that has ended stays as it is."""
        number, project = _number(request), project_id(request)
        erasure = await self._recorder.change(
            lambda tx: erasures.cancel(tx, project, number), (project,)
        )
        self._wake()
        return not_found("erasure") if erasure is None else json_answer(erasure_view(erasure))


def _order(asked: NewErasure) -> Order:
    """Read what is asked for.

    Raises BadParameter where it is not one thing, or no query.
    """
    given: dict[Kind, str] = {}
    for kind, value in (
        ("session", asked.session),
        ("user", asked.user),
        ("query", asked.query),
    ):
        if value is not UNSET:
            # As the calls that say this are stored.
            given[kind] = clean_key(value) if kind == "user" else clean_text(value)  # type: ignore[index]
    if len(given) != 1:
        raise BadParameter("the body must name one of session, user and query")
    ((kind, text),) = given.items()
    if kind == "query":
        try:
            query = parse(text, "sessions")
        except SearchError as error:
            raise BadParameter(f"query, {error}", "query") from None
        if not query.conditions:
            raise BadParameter("query must say what is to be erased", "query")
    return Order(kind=kind, given=text, extent=asked.extent, with_starred=asked.include_starred)


def _as_said(session: str) -> str:
    """Give the id by which calls that say this are stored."""
    try:
        return session_id_of(session.encode("utf-8", "replace")) or session
    except ControlCharacter:
        return session


def _number(request: web.Request) -> int:
    text = request.match_info["id"]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def erasure_view(erasure: Erasure) -> ErasureView:
    """Show an order."""
    return ErasureView(
        id=erasure.id,
        kind=erasure.kind,
        given=erasure.given,
        extent=erasure.extent,
        include_starred=erasure.with_starred,
        state=erasure.state,
        reason=None if erasure.reason is None else REASONS[erasure.reason],
        asked_at=iso(erasure.asked_at_us),
        began_at=iso_or_none(erasure.began_at_us),
        ended_at=iso_or_none(erasure.ended_at_us),
        found=erasure.target_count,
        done=erasure.done_count,
        sessions=erasure.session_count,
        traces=erasure.trace_count,
        spans=erasure.span_count,
        contents=erasure.content_count,
        content_bytes=erasure.content_bytes,
        kept_starred=erasure.kept_starred_count,
    )
