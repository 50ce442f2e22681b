"""A session's conversation over HTTP: page by page, and each message's whole JSON."""

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import orjson
from aiohttp import web

from proxy.access import project_id
from proxy.api import params
from proxy.api.answers import json_answer, not_found
from proxy.api.message_views import TEXT_CHARS, MessageView, ThreadView
from proxy.api.transcript import Sources, needed_contents, show_page
from storage import events, queries, rebuild, transcript
from storage.database import Database
from storage.lines import Line, all_lines, lines
from storage.records import Span
from storage.threads import Tree, Turn

# Messages of a page.
DEFAULT_LIMIT: Final = 100
# Contents read for one page; four times what is kept of one body by default.
PAGE_BYTES: Final = 32 * 1024 * 1024
# Unfinished answers of a page whose text is shown; rarely does more than one call run at once.
UNFINISHED: Final = 20
# Operations of which each call is a turn, also where it left nothing but its failure.
ANSWERING: Final = frozenset({"chat.completions", "completions", "responses"})
# Lines of a path that is held: some MB.
HELD_LINES: Final = 20_000
_MESSAGE_ID: Final = re.compile(r"([0-9a-f]{16})-(\d{1,9})")

_Path = tuple[list[Turn], list[Line]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationPage:
    """Some of the ``total`` messages on a path through a session, from position ``start`` on."""

    start: int
    total: int
    threads: Sequence[ThreadView]
    messages: Sequence[MessageView]

    @property
    def next(self) -> int | None:
        """The position at which the next page begins; None at the end."""
        stop = self.start + len(self.messages)
        return stop if stop < self.total else None


class Conversations:
    """The handlers of /api/sessions/{id}/conversation and /api/messages."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: tuple[tuple[int, str, tuple[str, ...], int], _Path] | None = None

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/sessions/{id}/conversation?from=&limit=&branch=: its messages, in order."""
        session_id = params.session_id(request)
        limit = params.limit(request, DEFAULT_LIMIT)
        start = params.place(request, "from")
        chosen = branches(request)
        project = project_id(request)
        if await queries.get_session(self._database, project, session_id) is None:
            return not_found("session")
        page = await self.page(project, session_id, start, limit, chosen)
        return json_answer(orjson.Fragment(await asyncio.to_thread(_answer, session_id, page)))

    async def page(
        self,
        project: int,
        session_id: str,
        start: int,
        limit: int,
        branches: Sequence[str],
        at: Collection[bytes] = (),
    ) -> ConversationPage:
        """Give a page of a conversation; with the ids of spans ``at``, the page with their turn.

        Raises BadParameter where one of ``branches`` names no message.
        """
        turns, found = await self._read(project, session_id, tuple(branches))
        if at:
            start = _place(found, at) // limit * limit
        page = range(min(start, len(found)), min(start + limit, len(found)))
        return await self.lines(project, turns, found, page, PAGE_BYTES, TEXT_CHARS)

    async def lines(
        self,
        project: int,
        turns: Sequence[Turn],
        found: Sequence[Line],
        page: range,
        most_bytes: int,
        most_chars: int,
    ) -> ConversationPage:
        """Give some lines of a path; of those with more than so many bytes the last are not read.

        They are shown as cut, without a length.
        """
        sources = await self._sources(project, turns, found, page, most_bytes)
        sources = replace(sources, most_chars=most_chars)
        threads, messages = await asyncio.to_thread(show_page, found, page, sources)
        return ConversationPage(
            start=page.start, total=len(found), threads=threads, messages=messages
        )

    async def all(self, project: int, session_id: str) -> tuple[list[Turn], list[list[Line]]]:
        """Read a session's turns, and the lines of all branches; see `storage.lines.all_lines`."""
        turns = await transcript.session_turns(self._database, project, session_id, ANSWERING)
        return turns, await asyncio.to_thread(lambda: all_lines(Tree(turns)))

    async def _read(self, project: int, session_id: str, branches: tuple[str, ...]) -> _Path:
        """Read a session's turns, and the lines of a path through them.

        The last path is held, since its pages are read one after the other. Each change of the
        database comes with an event, so that none since then means that it is the same.
        """
        _, newest = await events.bounds(self._database)
        key = (project, session_id, branches, newest)
        if self._held is not None and self._held[0] == key:
            return self._held[1]
        turns = await transcript.session_turns(self._database, project, session_id, ANSWERING)
        path = turns, await asyncio.to_thread(_lines, turns, branches)
        self._held = (key, path) if len(path[1]) <= HELD_LINES else None
        return path

    async def message(self, request: web.Request) -> web.Response:
        """GET /api/messages/{id}: the JSON of one message, as it was sent."""
        data = await self.content(project_id(request), request.match_info["id"])
        return not_found("message") if data is None else json_answer(orjson.Fragment(data))

    async def content(self, project: int, message_id: str) -> bytes | None:
        """Give the JSON of a message; None where there is none."""
        found = _MESSAGE_ID.fullmatch(message_id)
        if found is None:
            return None
        span_id, depth = bytes.fromhex(found[1]), int(found[2])
        return await transcript.message(self._database, project, span_id, depth)

    async def _sources(
        self,
        project: int,
        turns: Sequence[Turn],
        found: Sequence[Line],
        page: range,
        most_bytes: int,
    ) -> Sources:
        db = self._database
        shown = [found[position] for position in page]
        seqs = {line.turn.seq for line in shown}
        seqs |= {line.entry.outcome.seq for line in shown if line.entry and line.entry.outcome}
        spans = await transcript.turn_spans(db, project, sorted(seqs))
        return Sources(
            contents=await transcript.message_contents(
                db, project, needed_contents(found, page), most_bytes
            ),
            spans=spans,
            unfinished=await self._unfinished(project, shown, spans),
            starts_us=[turn.started_at_us for turn in turns],
        )

    async def _unfinished(
        self, project: int, shown: Sequence[Line], spans: dict[int, Span]
    ) -> dict[int, bytes]:
        """Read what came of answers that have no messages: of calls that run, or were cut."""
        ends = [line.turn for line in shown if line.entry and line.entry.said is None]
        found = {}
        for turn in ends[-UNFINISHED:]:
            span = spans.get(turn.seq)
            if span is None or span.response is None or not span.response.stored:
                continue
            body = await rebuild.response_body(self._database, project, turn.span_id)
            if body is not None:
                found[turn.seq] = body.data
        return found


def branches(request: web.Request) -> list[str]:
    """Read the messages that lead the path: `branch`, several times or with commas between."""
    return [name for text in request.query.getall("branch", []) for name in text.split(",") if name]


def _lines(turns: Sequence[Turn], branches: Sequence[str]) -> list[Line]:
    tree = Tree(turns)
    try:
        return lines(tree, tree.through(branches) if branches else {})
    except KeyError as error:
        raise params.BadParameter(
            f"branch names no message here: {error.args[0][:40]!r}", "branch"
        ) from None


def _place(found: Sequence[Line], spans: Collection[bytes]) -> int:
    """Find where the messages of a turn begin, or its answer is; 0 where they are not."""
    for position, line in enumerate(found):
        outcome = line.entry.outcome if line.entry else None
        if line.turn.span_id in spans or (outcome and outcome.span_id in spans):
            return position
    return 0


def _answer(session_id: str, page: ConversationPage) -> bytes:
    answer: dict[str, object] = {
        "session_id": session_id,
        "total": page.total,
        "count": len(page.messages),
        "threads": page.threads,
        "messages": page.messages,
    }
    if page.next is not None:
        answer["next"] = page.next
    return orjson.dumps(answer)
