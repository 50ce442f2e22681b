"""The page of one trace: its spans as a tree with bars, and all that is known of one of them.

Invariant: figures are those of `proxy.api`'s views; a body is shown as text and as nothing else.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from proxy.access import project_id
from proxy.api import params
from proxy.api.bodies import SHOWN_BYTES, description
from proxy.api.span_views import span_view
from proxy.api.views import trace_view
from proxy.decode import decode
from proxy.providers.lenient import encode, mapping
from proxy.providers.reading import Reading, answer_so_far, read
from proxy.ui import timeline
from proxy.ui.conversation import Said, said
from proxy.ui.curl import command
from proxy.ui.frame import Frame, origin
from proxy.ui.json_text import indented
from proxy.ui.session import now_us, stretch
from proxy.ui.spans import tree
from storage import events, queries, rebuild
from storage.database import Database
from storage.moving import where_is
from storage.rebuild import StoredBody
from storage.records import Span

# Characters of one body that a page shows; the rest is behind a link.
BODY_CHARS: Final = 100_000
# Spans of one trace that its tree shows, and messages of one body, the last ones.
MAX_SPANS: Final = 1000
MAX_MESSAGES: Final = 20

MessagesIn = Callable[[bytes], list[Reading]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyText:
    """The beginning of a body as text, and what bytes these are ("exact", ...).

    ``said`` are the last messages in it, after ``earlier`` others; none where it has no messages.
    """

    text: str
    is_cut: bool
    description: str
    said: Sequence[Said] = ()
    earlier: int = 0


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
        spans = await queries.trace_spans(db, project, trace_id, MAX_SPANS)
        span = _chosen(spans, request.query.get("span"))
        bodies = (
            await rebuild.request_body(db, project, span.span_id),
            await rebuild.response_body(db, project, span.span_id),
        )
        raw = request.query.get("view") == "raw"
        asked = await asyncio.to_thread(_body_text, bodies[0], _asked, raw=raw)
        answered = await asyncio.to_thread(_body_text, bodies[1], _answered, raw=raw)
        views = [span_view(one, one.input_preview, one.output_preview) for one in spans]
        return await asyncio.to_thread(
            lambda: self._frame.render(
                request,
                "trace.html",
                since=since,
                trace=trace_view(trace),
                tree=tree(views),
                waterfall=timeline.waterfall([stretch(one) for one in spans], now_us()),
                span=views[spans.index(span)],
                asked=asked,
                answered=answered,
                heads=[
                    ("Request headers", indented(span.request_headers or "")),
                    ("Response headers", indented(span.response_headers or "")),
                ],
                shown="raw" if raw else "span",
            )
        )

    async def curl(self, request: web.Request) -> web.Response:
        """GET /spans/{id}/curl: a command that makes the call again, as text."""
        db, project = self._database, project_id(request)
        span_id = params.hex_id(request.match_info["id"], 16)
        span = await queries.get_span(db, project, span_id) if span_id else None
        if span is None:
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


def _chosen(spans: tuple[Span, ...], wanted: str | None) -> Span:
    """Find the span that is asked for.

    Raises HTTPNotFound where the trace has none such.
    """
    for span in spans:
        if wanted in (None, span.span_id.hex()):
            return span
    raise web.HTTPNotFound


def _body_text(stored: StoredBody | None, messages_in: MessagesIn, *, raw: bool) -> BodyText | None:
    if stored is None:
        return None
    data, _ = decode(stored.data, stored.content_encoding or "", SHOWN_BYTES)
    text = data.decode("utf-8", "replace")
    # As it is where that is asked for, else as a person reads it.
    messages = [] if raw else messages_in(data)
    text = text if raw else indented(text)
    return BodyText(
        text=text[:BODY_CHARS],
        is_cut=len(text) > BODY_CHARS,
        description=description(stored),
        said=[said(message) for message in messages[-MAX_MESSAGES:]],
        earlier=max(0, len(messages) - MAX_MESSAGES),
    )


def _asked(data: bytes) -> list[Reading]:
    """Read the messages of a request, in whichever field it has them."""
    try:
        request = mapping(orjson.loads(data))
    except ValueError:
        return []
    found = request.get("messages") or request.get("input") or request.get("prompt")
    values = found if isinstance(found, list) else [found] if found else []
    return [read(encode(value)) for value in values]


def _answered(data: bytes) -> list[Reading]:
    """Read what a model answered; nothing where that is no message."""
    answer = answer_so_far(data)
    return [answer] if answer.text or answer.parts or answer.tool_calls else []
