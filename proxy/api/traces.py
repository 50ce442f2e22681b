"""Traces and spans over HTTP: their lists, one trace with its spans, one span with its bodies."""

import functools

from aiohttp import web

from proxy.access import project_id
from proxy.api import lists, params
from proxy.api.answers import json_answer, not_found
from proxy.api.bodies import json_value
from proxy.api.erasing import LARGE_SPANS, Erasing
from proxy.api.finding import Finder
from proxy.api.span_filters import filters
from proxy.api.span_views import span_view
from proxy.api.views import TotalsView, flat, trace_view
from proxy.providers.messages import text_of
from proxy.recorder import Recorder
from storage import forget, listing, queries, rebuild
from storage.clauses import Condition, Ids, Name
from storage.database import Database
from storage.erasures import Order
from storage.moving import where_is


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
        """GET /api/spans?q=&id=&model=&...&limit=&cursor=: newest first, in brief."""
        return json_answer(await self.find_spans(request))

    async def find_spans(self, request: web.Request) -> dict[str, object]:
        """Give a page of spans; see Sessions.find."""
        ids = params.ids(request, 16)
        more = () if ids is None else (Ids(ids),)
        asked = lists.asked(request, "spans", *more, *filters(request))
        page = await self._finder.page(project_id(request), listing.list_spans, asked)
        return asked.answer(
            page, [span_view(s, s.input_preview, s.output_preview) for s in page.rows]
        )

    async def totals(self, request: web.Request) -> web.Response:
        """GET /api/traces/totals?q=: sums over the traces of a list; of many, over the newest."""
        return json_answer(await self.sums(request))

    async def sums(self, request: web.Request) -> TotalsView:
        """Give the sums over all pages of a list."""
        return await self._finder.sums(request, "traces")

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/traces/{id}: the trace's fields, and its spans without their bodies."""
        answer = await self.one(request)
        return not_found("trace") if answer is None else json_answer(answer)

    async def one(self, request: web.Request) -> dict[str, object] | None:
        """Give a trace with its spans; None where there is none."""
        trace_id = params.hex_id(request.match_info["id"], 32)
        if trace_id is None:
            return None
        trace = await queries.get_trace(self._database, project_id(request), trace_id)
        if trace is None:
            # A client may know a call by the trace that it was in before it joined another.
            moved = await where_is(self._database, project_id(request), trace_id)
            if moved is not None:
                trace = await queries.get_trace(self._database, project_id(request), moved)
        if trace is None:
            return None
        trace_id = trace.trace_id
        spans = await queries.trace_spans(self._database, project_id(request), trace_id)
        answer = flat(trace_view(trace))
        answer["spans"] = [span_view(s, s.input_preview, s.output_preview) for s in spans]
        return answer

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
            order = Order(kind="trace", given=trace_id.hex())
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
        return json_answer(span_view(span, await json_value(asked), await json_value(answered)))
