"""What the MCP server's tools read: the reads of the API, each answer within its characters.

Invariants: figures and pages are those of the API's own handlers, asked as a request would; an
answer has something new on each page, so that who follows its cursors comes to the end.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

import orjson
from aiohttp import web
from yarl import URL

from proxy.access import project_id
from proxy.api import params
from proxy.api.bodies import json_value
from proxy.api.conversation import Conversations
from proxy.api.mcp_shapes import (
    Row,
    is_cut,
    match_row,
    message_heads,
    message_pieces,
    session_item,
    session_row,
    span_heads,
    turn_row,
)
from proxy.api.mcp_snippets import snippets
from proxy.api.mcp_text import Piece, Place, Room, fitted, laid_out, original, whole_row
from proxy.api.mcp_tools import (
    NOTE,
    Arguments,
    GetConversation,
    GetSession,
    GetSpan,
    ListSessions,
    Search,
)
from proxy.api.message_views import MessageView
from proxy.api.params import BadParameter
from proxy.api.sessions import Sessions
from proxy.api.span_views import SpanView, span_view
from proxy.api.traces import Traces
from proxy.providers.reading import Reading, read
from storage import queries, rebuild
from storage.clauses import Words
from storage.database import Database
from storage.rebuild import StoredBody
from storage.search import parse

# Characters that a cursor takes at most, with its name: its digits are those of lists.py.
_LIST_CURSOR: Final = "x" * 104
_PLACE_CURSOR: Final = "9" * 32
# Bodies that one page of a search looks into for snippets.
SNIPPET_BYTES: Final = 16 * 1024 * 1024
_PLACES: Final = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})")

_List = Callable[[int], Awaitable[Mapping[str, Any]]]


class NotThere(Exception):
    """What is asked for is not there."""


class Reads:
    """The reads of the tools."""

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        traces: Traces,
        conversations: Conversations,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._traces = traces
        self._conversations = conversations

    async def answer(self, request: web.Request, asked: Arguments, room: Room) -> Row:
        """Give what a tool answers, as large as there is room.

        Raises:
            BadParameter: an argument is not what it can be.
            NotThere: nothing has the id that is asked for.
        """
        room.left -= room.weight({"note": NOTE})
        match asked:
            case ListSessions():
                found = await self._list_sessions(request, asked, room)
            case GetSession():
                found = await self._session(request, asked, room)
            case GetConversation():
                found = await self._conversation(request, asked, room)
            case Search():
                found = await self._search(request, asked, room)
            case GetSpan():
                found = await self._span(request, asked, room)
        return {"note": NOTE, **found}

    async def _list_sessions(self, request: web.Request, asked: ListSessions, room: Room) -> Row:
        async def page(limit: int) -> Mapping[str, Any]:
            given = {"q": asked.query, "limit": limit, "cursor": asked.cursor}
            return await self._sessions.find(_as(request, given))

        async def rows(answer: Mapping[str, Any]) -> list[Row]:
            return [session_row(view) for view in answer["sessions"]]

        return await _listed("sessions", asked.limit, page, rows, room)

    async def _session(self, request: web.Request, asked: GetSession, room: Room) -> Row:
        session_id = await self._named(request, asked.session_id)

        async def page(limit: int) -> Mapping[str, Any]:
            given = {"id": session_id, "limit": limit, "cursor": asked.cursor}
            answer = await self._sessions.one(_as(request, given))
            if answer is None:
                raise NotThere("there is no such session")
            return answer

        async def rows(answer: Mapping[str, Any]) -> list[Row]:
            return [turn_row(view) for view in answer["traces"]]

        head: Row = {}
        if not asked.cursor:
            answer = {k: v for k, v in (await page(1)).items() if k not in ("traces", "cursor")}
            # Turns must have some room, whatever the session is.
            third = Room(room.left // 3, room.twice)
            item = fitted(session_item(answer), lambda one: third.fits({"session": one}))
            head = {"session": item}
            room.left -= room.weight(head)
        return {**head, **await _listed("turns", asked.limit, page, rows, room)}

    async def _conversation(self, request: web.Request, asked: GetConversation, room: Room) -> Row:
        session_id = await self._named(request, asked.session_id)
        position, place = _places(asked.cursor) if asked.cursor else (asked.start, Place())
        project = project_id(request)
        if await queries.get_session(self._database, project, session_id) is None:
            raise NotThere("there is no such session")
        branches = [asked.branch] if asked.branch else []
        page = await self._conversations.page(project, session_id, position, asked.limit, branches)
        found: Row = {"total": page.total, "messages": []}
        room.left -= room.weight({**found, "cursor": _PLACE_CURSOR})
        items: list[Row] = []
        after = f"{page.next}.0.0" if page.next is not None else None
        for view in page.messages:
            pieces = message_pieces(view, await self._whole(project, view))
            first = not items
            item, stop = await asyncio.to_thread(_message, view, pieces, place, room, first)
            if not item:
                after = f"{view.position}.0.0"
                break
            items.append(item)
            if stop is not None:
                after = f"{view.position}.{stop.number}.{stop.char}"
                break
            room.takes(item)
            place = Place()
        found["messages"] = items
        return {**found, **({"cursor": after} if after is not None else {})}

    async def _whole(self, project: int, view: MessageView) -> Reading | None:
        """Read a message of which a page has not all; None where the page has what there is."""
        if not is_cut(view) or not view.link.startswith("/api/messages/"):
            return None
        data = await self._conversations.content(project, view.id)
        return None if data is None else await asyncio.to_thread(read, data)

    async def _search(self, request: web.Request, asked: Search, room: Room) -> Row:
        seen: dict[str, Row] = {}

        async def page(limit: int) -> Mapping[str, Any]:
            given = {"q": asked.query, "limit": limit, "cursor": asked.cursor}
            return await self._traces.find_spans(_as(request, given))

        async def rows(answer: Mapping[str, Any]) -> list[Row]:
            new = [span for span in answer["spans"] if span.id not in seen]
            if new:
                of = await self._sessions_of(request, [span.trace_id for span in new])
                words = parse(asked.query, "spans").words
                left = SNIPPET_BYTES
                for span in new:
                    texts, size = await self._snippets(project_id(request), span, words, left)
                    left -= size
                    seen[span.id] = match_row(span, of.get(span.trace_id), texts)
            return [seen[span.id] for span in answer["spans"]]

        return await _listed("matches", asked.limit, page, rows, room)

    async def _sessions_of(
        self, request: web.Request, trace_ids: Sequence[str]
    ) -> dict[str, str | None]:
        names = list(dict.fromkeys(trace_ids))
        given = {"id": ",".join(names), "limit": len(names)}
        answer = await self._traces.find(_as(request, given))
        return {view.id: view.session_id for view in cast(list[Any], answer["traces"])}

    async def _snippets(
        self, project: int, span: SpanView, words: Sequence[Words], most_bytes: int
    ) -> tuple[list[Row], int]:
        """Read where words stand in a call; give the bytes that were read, too."""
        sizes = [body.size for body in (span.metadata.request, span.metadata.response) if body]
        if not words or sum(sizes) > most_bytes:
            return [], 0
        asked, answered = await self._bodies(project, bytes.fromhex(span.id))
        sides = {"output": await json_value(answered), "input": await json_value(asked)}
        return await asyncio.to_thread(snippets, sides, words), sum(sizes)

    async def _bodies(
        self, project: int, span_id: bytes
    ) -> tuple[StoredBody | None, StoredBody | None]:
        return (
            await rebuild.request_body(self._database, project, span_id),
            await rebuild.response_body(self._database, project, span_id),
        )

    async def _span(self, request: web.Request, asked: GetSpan, room: Room) -> Row:
        project, span_id = project_id(request), params.hex_id(asked.span_id, 16)
        place = _places(asked.cursor)[1] if asked.cursor else Place()
        span = None
        if span_id is not None:
            span = await queries.get_span(self._database, project, span_id)
        if span is None or span_id is None:
            raise NotThere("there is no such span")
        asked_body, answered = await self._bodies(project, span_id)
        texts = {
            "input": await asyncio.to_thread(_text, await json_value(asked_body)),
            "output": await asyncio.to_thread(_text, await json_value(answered)),
        }
        view = await asyncio.to_thread(span_view, span, None, None)
        heads = span_heads(view, {k: None if t is None else len(t) for k, t in texts.items()})
        pieces = [Piece(side, text) for side, text in texts.items() if text is not None]
        room.left -= room.weight({"span": "", "cursor": _PLACE_CURSOR})
        item, stop = await asyncio.to_thread(_laid_out, heads, pieces, place, room)
        found: Row = {"span": item}
        if stop is not None:
            found["cursor"] = f"0.{stop.number}.{stop.char}"
        return found

    async def _named(self, request: web.Request, session_id: str) -> str:
        """Give the id of a session; one that was made visible is read back."""
        project, read_back = project_id(request), original(session_id)
        if read_back == session_id:
            return session_id
        exact = await queries.get_session(self._database, project, session_id)
        return read_back if exact is None else session_id


def _as(request: web.Request, given: Mapping[str, object]) -> web.Request:
    """Give a request of the same caller that asks for this, as one of the API would."""
    query = {name: str(value) for name, value in given.items()}
    return request.clone(rel_url=URL.build(path=request.path, query=query))


async def _listed(
    name: str,
    limit: int,
    page: _List,
    rows: Callable[[Mapping[str, Any]], Awaitable[list[Row]]],
    room: Room,
) -> Row:
    """Give as many rows of a page as there is room for, and the cursor that goes on behind them."""
    room.left -= room.weight({name: [], "count": limit, "truncated": True, "cursor": _LIST_CURSOR})
    while True:
        answer = await page(limit)
        found = await rows(answer)
        items = _taken(found, Room(room.left, room.twice))
        if len(items) == len(found) or limit == 1:
            break
        # Only a page that ends where the rows end has the cursor that goes on there.
        limit = max(1, len(items))
    shown: Row = {name: items, "count": len(items)}
    if answer.get("truncated"):
        shown["truncated"] = True
    if (cursor := answer.get("cursor")) is not None:
        shown["cursor"] = cursor
    return shown


def _taken(rows: Sequence[Row], room: Room) -> list[Row]:
    """Give the rows that fit; the first, where it does not, cut until it does."""
    items: list[Row] = []
    for row in rows:
        item = whole_row(row) if items else fitted(row, room.fits)
        if not room.takes(item):
            break
        items.append(item)
    return items


def _message(
    view: MessageView, pieces: Sequence[Piece], place: Place, room: Room, first: bool
) -> tuple[Row, Place | None]:
    """Show a message whole; where it does not fit, nothing, or of the first as much as does."""
    heads = message_heads(view)
    if place == Place():
        whole, _ = laid_out(heads[:1], pieces, place, lambda _: True)
        if room.fits(whole):
            return whole, None
    if not first:
        return {}, None
    return _laid_out(heads if place == Place() else heads[1:], pieces, place, room)


def _laid_out(
    heads: Sequence[Row], pieces: Sequence[Piece], place: Place, room: Room
) -> tuple[Row, Place | None]:
    if place != Place():
        heads = [{key: value for key, value in head.items() if key != "cut"} for head in heads]
    return laid_out(heads, pieces, place, room.fits)


def _places(cursor: str) -> tuple[int, Place]:
    found = _PLACES.fullmatch(cursor)
    if found is None or not cursor.isascii():
        raise BadParameter("cursor must be the one that an earlier answer gave", "cursor")
    position, number, char = map(int, found.groups())
    return position, Place(number, char)


def _text(value: object) -> str | None:
    """Give a body as text: JSON as it was written."""
    if isinstance(value, orjson.Fragment):
        return orjson.dumps(value).decode("utf-8", "replace")
    return value if isinstance(value, str) else None
