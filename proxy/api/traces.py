"""Traces and spans over HTTP: the list, one trace with its spans, one span with its bodies."""

import asyncio
import functools
from typing import Final

import orjson
from aiohttp import web

from proxy.api import params
from proxy.api.answers import json_answer, not_found
from proxy.api.views import flat, span_view, trace_view
from proxy.decode import decode
from proxy.recorder import Recorder
from storage import forget, queries
from storage.database import Database
from storage.records import DEFAULT_PROJECT, Body

# A decoded body that a span shows; four times what is kept of one by default.
SHOWN_BYTES: Final = 32 * 1024 * 1024
# Checking this much takes a tenth of a millisecond; more, or decoding, would hold up others.
SHOWN_INLINE_BYTES: Final = 64 * 1024


class Traces:
    """The handlers of /api/traces and /api/spans."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/traces?limit=&cursor=&session_id=: newest first."""
        page = await queries.list_traces(
            self._database,
            DEFAULT_PROJECT,
            limit=params.limit(request),
            after=params.cursor(request),
            session_id=request.query.get("session_id"),
        )
        answer: dict[str, object] = {
            "traces": [trace_view(trace) for trace in page.rows],
            "count": len(page.rows),
        }
        if (cursor := params.encode_cursor(page.next_after)) is not None:
            answer["cursor"] = cursor
        return json_answer(answer)

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/traces/{id}: the trace's fields, and its spans without their bodies."""
        trace_id = params.hex_id(request.match_info["id"], 32)
        if trace_id is None:
            return not_found("trace")
        trace = await queries.get_trace(self._database, DEFAULT_PROJECT, trace_id)
        if trace is None:
            return not_found("trace")
        spans = await queries.trace_spans(self._database, DEFAULT_PROJECT, trace_id)
        answer = flat(trace_view(trace))
        answer["spans"] = [span_view(s, s.input_preview, s.output_preview) for s in spans]
        return json_answer(answer)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /api/traces/{id}: the trace, its spans and bodies."""
        trace_id = params.hex_id(request.match_info["id"], 32)
        if trace_id is None:
            return not_found("trace")
        deleted = await self._recorder.write(
            functools.partial(forget.delete_trace, project_id=DEFAULT_PROJECT, trace_id=trace_id)
        )
        return not_found("trace") if deleted is None else json_answer(deleted)

    async def show_span(self, request: web.Request) -> web.Response:
        """GET /api/spans/{id}: the span with its input and output."""
        span_id = params.hex_id(request.match_info["id"], 16)
        if span_id is None:
            return not_found("span")
        span = await queries.get_span(self._database, DEFAULT_PROJECT, span_id)
        if span is None:
            return not_found("span")
        view = span_view(span, await self._value(span.request), await self._value(span.response))
        return json_answer(view)

    async def _value(self, body: Body | None) -> object:
        """Give a stored body as a JSON value: itself where it is JSON, text where it is text."""
        if body is None or body.content_sha256 is None:
            return None
        stored = await queries.get_content(self._database, DEFAULT_PROJECT, body.content_sha256)
        if stored is None:
            return None
        if body.content_encoding or len(stored) > SHOWN_INLINE_BYTES:
            return await asyncio.to_thread(_json_value, stored, body)
        return _json_value(stored, body)


def _json_value(stored: bytes, body: Body) -> object:
    data, _ = decode(stored, body.content_encoding or "", SHOWN_BYTES)
    if "json" in (body.content_type or "").lower():
        try:
            orjson.loads(data)
        except ValueError:
            pass  # not what it says, or more than a parser takes: shown as text
        else:
            # As it was written: no number loses digits, and depth is the reader's business.
            return orjson.Fragment(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
