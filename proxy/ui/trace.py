"""The page of one trace: its spans as a tree with bars, and all that is known of one of them.

Invariant: figures are those of `proxy.api`'s views; a body is shown as text and as nothing else.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from proxy.access import project_id
from proxy.api import params
from proxy.api.span_views import SpanView, brief_view
from proxy.api.views import trace_view
from proxy.ui import kinds, timeline
from proxy.ui.body_text import BodyText, answered_text, asked_text, json_text
from proxy.ui.curl import command
from proxy.ui.frame import Frame, origin
from proxy.ui.json_text import indented
from proxy.ui.session import now_us, stretch
from proxy.ui.spans import tree
from storage import events, queries, rebuild, same_call
from storage.database import Database
from storage.moving import where_is
from storage.records import Span, Trace
from storage.same_call import Named

# Spans of one trace that its tree shows.
MAX_SPANS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One span with its bodies, what its application said of it, and who else tells of it.

    ``counted`` is the call that is counted for it, ``told`` are those that it is counted for.
    """

    span: SpanView
    asked: BodyText | None
    answered: BodyText | None
    said: Sequence[tuple[str, BodyText]]
    heads: Sequence[tuple[str, str]]
    counted: Named | None
    told: Sequence[Named]


class TracePage:
    """The handlers of /traces/{id} and /spans/{id}/curl."""

    def __init__(self, frame: Frame, database: Database) -> None:
        self._frame = frame
        self._database = database

    async def show(self, request: web.Request) -> web.Response:
        """GET /traces/{id}?span=&view=raw: the page; without `span` it shows the first one."""
        db, project = self._database, project_id(request)
        _, since = await events.bounds(db)
        trace_id = params.hex_id(request.match_info["id"], 32)
        trace = await queries.get_trace(db, project, trace_id) if trace_id else None
        if trace is None and trace_id is not None:
            trace_id = await where_is(db, project, trace_id)
            trace = await queries.get_trace(db, project, trace_id) if trace_id else None
        if trace_id is None or trace is None:
            raise web.HTTPNotFound
        spans = await queries.trace_outlines(db, project, trace_id, MAX_SPANS)
        raw = request.query.get("view") == "raw"
        one = await self._chosen(spans, trace, request.query.get("span"))
        chosen = None if one is None else await self._read(project, one, raw=raw)
        views = await asyncio.to_thread(lambda: [brief_view(one) for one in spans])
        return await asyncio.to_thread(
            lambda: self._frame.render(
                request,
                "trace.html",
                since=since,
                trace=trace_view(trace),
                tree=tree(views),
                waterfall=timeline.waterfall([stretch(one) for one in spans], now_us()),
                chosen=chosen,
                billed=any(kinds.is_billed(view.kind) for view in views),
                look=kinds.look,
                is_billed=kinds.is_billed,
                shown="raw" if raw else "span",
            )
        )

    async def _chosen(self, spans: Sequence[Span], trace: Trace, wanted: str | None) -> Span | None:
        """Read the span that is asked for, else the first, whole; None where there is none.

        Raises HTTPNotFound where the trace has none such.
        """
        db, project = self._database, trace.project_id
        if wanted is None and not spans:
            return None
        named = [one for one in spans if wanted is None or one.span_id.hex() == wanted]
        if named:
            found = await queries.numbered_span(db, project, named[0].seq)
        else:
            # It may be one of those that the tree does not show.
            span_id = params.hex_id(wanted or "", 16)
            found = await queries.get_span(db, project, span_id) if span_id else None
        if found is None or found.trace_id != trace.trace_id:
            raise web.HTTPNotFound
        return found

    async def _read(self, project: int, span: Span, *, raw: bool) -> Chosen:
        db = self._database
        asked = await rebuild.request_body(db, project, span.span_id)
        answered = await rebuild.response_body(db, project, span.span_id)
        view, said, heads = await asyncio.to_thread(_said, span)
        return Chosen(
            span=view,
            asked=await asyncio.to_thread(asked_text, asked, span, raw=raw),
            answered=await asyncio.to_thread(answered_text, answered, span, raw=raw),
            said=said,
            heads=heads,
            counted=await same_call.counted(db, span),
            told=await same_call.told(db, span),
        )

    async def curl(self, request: web.Request) -> web.Response:
        """GET /spans/{id}/curl: a command that makes the call again, as text."""
        db, project = self._database, project_id(request)
        span_id = params.hex_id(request.match_info["id"], 16)
        span = await queries.get_span(db, project, span_id) if span_id else None
        if span is None or span.handed_in:
            raise web.HTTPNotFound
        body = await rebuild.request_body(db, project, span.span_id)
        home = origin(request)
        query = f"?{span.query}" if span.query else ""
        text = command(
            method=span.method or "POST",
            url=f"{home}/api/proxy/{span.upstream}{span.path}{query}",
            content_type=span.request.content_type if span.request else None,
            body=body.data if body else None,
            body_url=f"{home}/api/spans/{span.span_id.hex()}/request",
            keys_are_on=self._frame.keys_are_on,
        )
        return self._frame.text(text)


def _said(span: Span) -> tuple[SpanView, list[tuple[str, BodyText]], list[tuple[str, str]]]:
    """Show a span, what its application said of it, and its headers: work for a thread."""
    view = brief_view(span)
    said = (("Attributes", view.kind.attributes), ("Metadata", view.metadata.custom))
    return (
        view,
        [
            (name, json_text(orjson.dumps(value)))
            for name, value in said
            if value is not None and orjson.dumps(value) != b"{}"
        ],
        [
            ("Request headers", indented(span.request_headers or "")),
            ("Response headers", indented(span.response_headers or "")),
        ],
    )
