"""The page of one session: its figures, and its conversation, traces or timeline.

Invariant: every figure is that of `proxy.api`'s views, and the parts of a sum add up to it. What
is live is one fragment, the same that the page was made of. Formatting is view.py's.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from proxy.access import project_id
from proxy.api import params
from proxy.api.conversation import Conversations, branches
from proxy.api.span_views import SpanView, span_view
from proxy.api.units import ms, usd
from proxy.api.views import SessionView, TraceView, budget_view, session_view, trace_view
from proxy.ui import kinds, timeline, view
from proxy.ui.conversation import Section, sections
from proxy.ui.frame import Frame
from storage import breakdown, budgets, events, queries, transcript
from storage.breakdown import ModelShare
from storage.database import Database
from storage.records import Span

# Messages, and traces, of one page: what a person scrolls through, and a browser lays out at once.
MESSAGES: Final = 50
TRACES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """What the calls to one model took, in the units of the API."""

    model: str | None
    calls: int
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    unpriced: int
    estimated: int
    avg_latency_ms: float | None
    avg_ttft_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """A page of the view Traces."""

    traces: Sequence[TraceView]
    page: view.Pages


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A page of the view Conversation; ``instead`` is what a session without messages has."""

    sections: Sequence[Section]
    page: view.Pages
    branches: Sequence[str]
    instead: Traces | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A page of the view Timeline; the waterfall's bars are in the order of the spans.

    ``total`` is how many spans its traces have: more than these only where it is one trace.
    """

    spans: Sequence[SpanView]
    total: int
    waterfall: timeline.Waterfall
    page: view.Pages


class SessionPage:
    """The handlers of /sessions/{id}."""

    def __init__(self, frame: Frame, conversations: Conversations, database: Database) -> None:
        self._frame = frame
        self._conversations = conversations
        self._database = database

    async def show(self, request: web.Request) -> web.Response:
        """GET /sessions/{id}?view=&from=&limit=&branch=&at=: the page."""
        return await self._answer(request, "session.html")

    async def live(self, request: web.Request) -> web.Response:
        """GET /sessions/{id}/live?...: what of the same page changes while calls come."""
        return await self._answer(request, "session_live.html")

    async def _answer(self, request: web.Request, template: str) -> web.Response:
        db, project, session_id = self._database, project_id(request), params.session_id(request)
        # Read first: what comes meanwhile comes twice, rather than not at all.
        _, since = await events.bounds(db)
        session = await queries.get_session(db, project, session_id)
        if session is None:
            raise web.HTTPNotFound
        shown = request.query.get("view", "conversation")
        views = {
            "conversation": self._conversation,
            "traces": self._traces,
            "timeline": self._timeline,
        }
        if shown not in views:
            raise params.BadParameter(f"view must be one of {', '.join(views)}")
        seen = session_view(session)
        body = await views[shown](request, seen)
        models = await breakdown.model_shares(db, project, seen.id)
        states = await breakdown.trace_states(db, project, seen.id)
        turns = await breakdown.turn_sums(db, project, seen.id)
        budget = await budgets.session_budget(db, project, seen.id)
        # A page of long messages takes long enough to hold up calls that pass.
        return await asyncio.to_thread(
            lambda: self._frame.render(
                request,
                template,
                since=since,
                session=seen,
                shown=shown,
                body=body,
                budget=budget_view(budget),
                models=[model_view(share) for share in models],
                states=states,
                columns=timeline.columns(turns),
                look=kinds.look,
                is_billed=kinds.is_billed,
            )
        )

    async def _conversation(self, request: web.Request, session: SessionView) -> Conversation:
        start, limit = params.place(request, "from"), params.limit(request, MESSAGES)
        chosen = branches(request)
        at: frozenset[bytes] = frozenset()
        if trace_id := params.hex_id(request.query.get("at", ""), 32):
            at = await transcript.turn_ids(self._database, project_id(request), trace_id)
        page = await self._conversations.page(
            project_id(request), session.id, start, limit, chosen, at
        )
        return Conversation(
            sections=await asyncio.to_thread(sections, page),
            # What its links lead to is as long as any page, also where it grew while it was open.
            page=view.Pages(page.start, len(page.messages), page.total, MESSAGES),
            branches=chosen,
            instead=None if page.total else await self._some_traces(request, session, 0, TRACES),
        )

    async def _traces(self, request: web.Request, session: SessionView) -> Traces:
        start, limit = params.place(request, "from"), params.limit(request, TRACES)
        return await self._some_traces(request, session, start, limit)

    async def _some_traces(
        self, request: web.Request, session: SessionView, start: int, limit: int
    ) -> Traces:
        traces = await breakdown.page_traces(
            self._database, project_id(request), session.id, start, limit
        )
        return Traces(
            traces=[trace_view(trace) for trace in traces],
            page=view.Pages(start, len(traces), session.trace_count, limit),
        )

    async def _timeline(self, request: web.Request, session: SessionView) -> Timeline:
        start, limit = params.place(request, "from"), params.limit(request, TRACES)
        db, project = self._database, project_id(request)
        spans = await breakdown.page_spans(db, project, session.id, start, limit)
        # A trace may have none.
        traces, total = max(0, min(limit, session.trace_count - start)), len(spans)
        if total > breakdown.MAX_SPANS:
            # The next page begins behind these traces, so they are to be whole.
            traces, total = await breakdown.whole_traces(db, project, session.id, start, limit)
            spans = await breakdown.page_spans(db, project, session.id, start, traces)
            spans = spans[: breakdown.MAX_SPANS]
        page = view.Pages(start, traces, session.trace_count, limit)
        return await asyncio.to_thread(_laid_out, spans, total, page)


def _laid_out(spans: Sequence[Span], total: int, page: view.Pages) -> Timeline:
    return Timeline(
        spans=[span_view(span, None, None) for span in spans],
        total=total,
        waterfall=timeline.waterfall([stretch(span) for span in spans], now_us()),
        page=page,
    )


def now_us() -> int:
    """Give the time of the wall clock."""
    return time.time_ns() // 1000


def stretch(span: Span) -> timeline.Stretch:
    """Give the time that a span took."""
    first_us = span.first_token_us
    return timeline.Stretch(
        start_us=span.started_at_us,
        end_us=span.ended_at_us,
        first_us=None if first_us is None else span.started_at_us + first_us,
    )


def model_view(share: ModelShare) -> ModelView:
    """Show what the calls to a model took."""
    return ModelView(
        model=share.model,
        calls=share.calls,
        input_tokens=share.input_tokens,
        output_tokens=share.output_tokens,
        cost=usd(share.cost_nusd),
        unpriced=share.unpriced,
        estimated=share.estimated,
        avg_latency_ms=ms(share.mean_duration_us),
        avg_ttft_ms=ms(share.mean_first_token_us),
    )
