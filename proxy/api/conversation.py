"""A session's conversation over HTTP: page by page, and each message's whole JSON."""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import orjson
from aiohttp import web

from proxy.api import params
from proxy.api.answers import json_answer, not_found
from proxy.api.transcript import Sources, needed_contents, show_page
from storage import queries, rebuild, transcript
from storage.database import Database
from storage.lines import Line, lines
from storage.records import DEFAULT_PROJECT, Span
from storage.threads import Tree, Turn

# Messages of a page.
DEFAULT_LIMIT: Final = 100
# Contents read for one page; four times what is kept of one body by default.
PAGE_BYTES: Final = 32 * 1024 * 1024
# Unfinished answers of a page whose text is shown; rarely does more than one call run at once.
UNFINISHED: Final = 20
# Operations of which each call is a turn, also where it left nothing but its failure.
ANSWERING: Final = frozenset({"chat.completions", "completions", "responses"})
_MESSAGE_ID: Final = re.compile(r"([0-9a-f]{16})-(\d{1,9})")


class Conversations:
    """The handlers of /api/sessions/{id}/conversation and /api/messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/sessions/{id}/conversation?from=&limit=&branch=: its messages, in order."""
        session_id = params.session_id(request)
        limit = params.limit(request, DEFAULT_LIMIT)
        start = params.place(request, "from")
        branches = [
            name for text in request.query.getall("branch", []) for name in text.split(",") if name
        ]
        db = self._database
        if await queries.get_session(db, DEFAULT_PROJECT, session_id) is None:
            return not_found("session")
        turns = await transcript.session_turns(db, DEFAULT_PROJECT, session_id, ANSWERING)
        found = await asyncio.to_thread(_lines, turns, branches)
        page = range(min(start, len(found)), min(start + limit, len(found)))
        sources = await self._sources(turns, found, page)
        body = await asyncio.to_thread(_answer, session_id, found, page, sources)
        return json_answer(orjson.Fragment(body))

    async def message(self, request: web.Request) -> web.Response:
        """GET /api/messages/{id}: the JSON of one message, as it was sent."""
        found = _MESSAGE_ID.fullmatch(request.match_info["id"])
        if found is None:
            return not_found("message")
        data = await transcript.message(
            self._database, DEFAULT_PROJECT, bytes.fromhex(found[1]), int(found[2])
        )
        return not_found("message") if data is None else json_answer(orjson.Fragment(data))

    async def _sources(self, turns: Sequence[Turn], found: Sequence[Line], page: range) -> Sources:
        db = self._database
        shown = [found[position] for position in page]
        seqs = {line.turn.seq for line in shown}
        seqs |= {line.entry.outcome.seq for line in shown if line.entry and line.entry.outcome}
        spans = await transcript.turn_spans(db, DEFAULT_PROJECT, sorted(seqs))
        return Sources(
            contents=await transcript.message_contents(
                db, DEFAULT_PROJECT, needed_contents(found, page), PAGE_BYTES
            ),
            spans=spans,
            unfinished=await self._unfinished(shown, spans),
            starts_us=[turn.started_at_us for turn in turns],
        )

    async def _unfinished(self, shown: Sequence[Line], spans: dict[int, Span]) -> dict[int, bytes]:
        """Read what came of answers that have no messages: of calls that run, or were cut."""
        ends = [line.turn for line in shown if line.entry and line.entry.said is None]
        found = {}
        for turn in ends[-UNFINISHED:]:
            span = spans.get(turn.seq)
            if span is None or span.response is None or not span.response.stored:
                continue
            body = await rebuild.response_body(self._database, DEFAULT_PROJECT, turn.span_id)
            if body is not None:
                found[turn.seq] = body.data
        return found


def _lines(turns: Sequence[Turn], branches: Sequence[str]) -> list[Line]:
    tree = Tree(turns)
    try:
        return lines(tree, tree.through(branches) if branches else {})
    except KeyError as error:
        raise params.BadParameter(
            f"branch names no message here: {error.args[0][:40]!r}", "branch"
        ) from None


def _answer(session_id: str, found: Sequence[Line], page: range, sources: Sources) -> bytes:
    threads, messages = show_page(found, page, sources)
    answer: dict[str, object] = {
        "session_id": session_id,
        "total": len(found),
        "count": len(messages),
        "threads": threads,
        "messages": messages,
    }
    if page.stop < len(found):
        answer["next"] = page.stop
    return orjson.dumps(answer)
