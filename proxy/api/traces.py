"""Traces and spans over HTTP: their lists, one trace with its spans, one span with its bodies."""

import functools

from aiohttp import web

from proxy.access import project_id
from proxy.api import lists, params
from proxy.api.answers import json_answer, made_answer, not_found
from proxy.api.bodies import json_value
from proxy.api.erasing import LARGE_SPANS, Erasing
from proxy.api.finding import Finder
from proxy.api.span_filters import filters
from proxy.api.span_views import SpanView, brief_view, span_view
from proxy.api.views import TotalsView, flat, trace_view
from proxy.providers.messages import text_of
from proxy.recorder import Recorder
from storage import erasures, forget, listing, queries, rebuild
from storage.clauses import Condition, Ids, Name, Query
from storage.database import Database
from storage.listing import Order
from storage.moving import where_is
from storage.packed_spans import PackedSpan
from storage.queries import MAX_SPANS
from storage.records import Page, Trace


class Traces:
    """The handlers of /api/traces and /api/spans."""

    def __init__(self, database: Database, recorder: Recorder, erasing: Erasing) -> None:
        self._erasing = erasing
        self._database = database
        self._recorder = recorder
        self._finder = Finder(database, recorder)

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/traces?q=&session_id=&id=&sort_by=&sort_order=&limit=&cursor=: newest first."""
        return json_answer(await self.find(request))

    async def find(self, request: web.Request) -> dict[str, object]:
        """Give a page of traces; see Sessions.find."""
        more: list[Condition] = []
        if (session := request.query.get("session_id")) is not None:
            more.append(Name("session", session))
        if (ids := params.ids(request, 32)) is not None:
            more.append(Ids(ids))
        asked = lists.asked(request, "traces", *more)
        page = await self._finder.page(project_id(request), listing.list_traces, asked)
        return asked.answer(page, [trace_view(trace) for trace in page.rows])

    async def list_spans(self, request: web.Request) -> web.Response:
        """GET /api/spans?q=&id=&model=&...&limit=&cursor=: newest first, in brief.

        A page of large ones is short, and has a cursor: it is what one answer holds.
        """
        asked = _asked_spans(request)
        page = await self._finder.page(project_id(request), listing.list_spans, asked)
        return await made_answer(lambda: asked.answer(page, _whole_views(page)))

    async def find_spans(self, request: web.Request) -> dict[str, object]:
        """Give a page of spans in outline, without attributes and headers; see Sessions.find."""
        asked = _asked_spans(request)
        page = await self._finder.page(project_id(request), listing.list_outlines, asked)
        return asked.answer(page, [brief_view(span) for span in page.rows])

    async def totals(self, request: web.Request) -> web.Response:
        """GET /api/traces/totals?q=: sums over the traces of a list; of many, over the newest."""
        return json_answer(await self.sums(request))

    async def sums(self, request: web.Request) -> TotalsView:
        """Give the sums over all pages of a list."""
        return await self._finder.sums(request, "traces")

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/traces/{id}?limit=&cursor=: its fields, and its spans without their bodies.

        Spans come oldest first, as many as one answer holds; the cursor goes on behind them.
        """
        limit = params.limit(request, MAX_SPANS, MAX_SPANS)
        trace = await self._trace(request)
        if trace is None:
            return not_found("trace")
        of_trace = Query("spans", (Ids((trace.trace_id,), "trace"),))
        asked = lists.page_of(request, of_trace, Order("started", descending=False), limit)
        page = await self._finder.page(project_id(request), listing.list_spans, asked)
        cursor = asked.cursor(page)
        return await made_answer(lambda: _with_spans(trace, page, cursor))

    async def _trace(self, request: web.Request) -> Trace | None:
        """Read the trace that the path names; None where there is none."""
        trace_id = params.hex_id(request.match_info["id"], 32)
        if trace_id is None:
            return None
        trace = await queries.get_trace(self._database, project_id(request), trace_id)
        if trace is not None:
            return trace
        # A client may know a call by the trace that it was in before it joined another.
        moved = await where_is(self._database, project_id(request), trace_id)
        if moved is None:
            return None
        return await queries.get_trace(self._database, project_id(request), moved)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /api/traces/{id}: the trace, its spans and bodies.

        Of a large one, 202 and the order to erase it: else it would be withdrawn, and never go.
        """
        project = project_id(request)
        trace_id = params.hex_id(request.match_info["id"], 32)
        if trace_id is None:
            return not_found("trace")
        trace = await queries.get_trace(self._database, project, trace_id)
        if trace and trace.span_count > LARGE_SPANS:
            order = erasures.Order(kind="trace", given=trace_id.hex())
            return json_answer(await self._erasing.ask(project, order), status=202)
        deleted = await self._recorder.change(
            functools.partial(
                forget.delete_trace,
                project_id=project,
                trace_id=trace_id,
                text_of=text_of,
            ),
            (project,),
            erases=True,
        )
        return not_found("trace") if deleted is None else json_answer(deleted)

    async def show_span(self, request: web.Request) -> web.Response:
        """GET /api/spans/{id}: the span with its input and output."""
        span_id = params.hex_id(request.match_info["id"], 16)
        if span_id is None:
            return not_found("span")
        span = await queries.get_span(self._database, project_id(request), span_id)
        if span is None:
            return not_found("span")
        asked = await rebuild.request_body(self._database, project_id(request), span_id)
        answered = await rebuild.response_body(self._database, project_id(request), span_id)
        shown = (await json_value(asked), await json_value(answered))
        return await made_answer(lambda: span_view(span, *shown))


def _asked_spans(request: web.Request) -> lists.Asked:
    ids = params.ids(request, 16)
    more = () if ids is None else (Ids(ids),)
    return lists.asked(request, "spans", *more, *filters(request))


def _with_spans(trace: Trace, page: Page[PackedSpan], cursor: str | None) -> dict[str, object]:
    answer = flat(trace_view(trace))
    answer["spans"] = _whole_views(page)
    if cursor is not None:
        answer["cursor"] = cursor
    return answer


def _whole_views(page: Page[PackedSpan]) -> list[SpanView]:
    """Show spans with all that was said of them: work for a thread.

    Raises DatabaseCorrupt where that does not expand.
    """
    return [brief_view(span.unpacked()) for span in page.rows]
