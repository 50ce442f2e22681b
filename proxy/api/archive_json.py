"""A session as one JSON document that people and programs read: all that the API knows of it.

Invariants: figures and shapes are those of the API's own views; each body is whole, as JSON or as
text, and null where it is neither. It is one line, whatever was indented. It is written trace by
trace, and a long trace page by page, so that none is too long for it; where something of it goes
meanwhile it has no end.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import orjson

from proxy.api.bodies import json_value
from proxy.api.span_views import span_view
from proxy.api.staying import check_stays
from proxy.api.views import budget_view, flat, session_view, trace_view
from storage import budgets, listing, queries, rebuild
from storage.archive import ArchiveChanged
from storage.clauses import Ids, Name, Query
from storage.database import Database
from storage.listing import After, Order
from storage.packed_spans import PackedSpan
from storage.rebuild import StoredBody
from storage.records import Body, Page, Span

T = TypeVar("T")

MEDIA_TYPE: Final = "application/json"
# Traces, and spans of one trace, that are read at once.
TRACES: Final = 100
SPANS: Final = 1_000


class JsonExport:
    """Writes sessions as documents; `pieces` is what an export of this format is made with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pieces(self, project_id: int, session_id: str) -> AsyncIterator[bytes]:
        """Write a session in one line.

        Raises:
            LookupError: there is no such session; before the first piece.
            ArchiveChanged: it does not stay meanwhile.
        """
        session = await queries.get_session(self._database, project_id, session_id)
        if session is None:
            raise LookupError(session_id)
        shown = flat(session_view(session))
        budget = await budgets.session_budget(self._database, project_id, session_id)
        shown["budget"] = budget_view(budget)
        yield b'{"session":%b,"traces":[' % orjson.dumps(shown)
        comma = b""
        traces = 0
        of_session = Query("traces", (Name("session", session_id),))
        async for trace in self._all(listing.list_traces, project_id, TRACES, of_session):
            traces += 1
            head = orjson.dumps(flat(trace_view(trace)))
            yield b'%b%b,"spans":[' % (comma, head[:-1])
            comma = b""
            spans = 0
            of_trace = Query("spans", (Ids((trace.trace_id,), "trace"),))
            async for span in self._all(listing.list_spans, project_id, SPANS, of_trace):
                spans += 1
                yield comma + await self._span(span)
                comma = b","
            if spans < trace.span_count:
                raise ArchiveChanged("a trace")
            yield b"]}"
            comma = b","
        if traces < session.trace_count:
            raise ArchiveChanged("a trace")
        await check_stays(self._database, session)
        yield b"]}\n"

    async def _all(
        self,
        read: Callable[..., Awaitable[Page[T]]],
        project_id: int,
        at_once: int,
        query: Query,
    ) -> AsyncIterator[T]:
        """Give all rows that one of listing.py's functions finds, the oldest first."""
        order = Order("started", descending=False)
        after: After | None = None
        while True:
            page = await read(self._database, project_id, at_once, after, query=query, order=order)
            for row in page.rows:
                yield row
            after = page.next_after
            if after is None:
                return

    async def _span(self, packed: PackedSpan) -> bytes:
        span = await asyncio.to_thread(packed.unpacked)
        asked = await rebuild.request_of(self._database, span.seq)
        answered = await rebuild.response_of(self._database, span.seq)
        if _is_gone(span.request, asked) or _is_gone(span.response, answered):
            raise ArchiveChanged("a body")
        shown = (await json_value(asked), await json_value(answered))
        return await asyncio.to_thread(_in_one_line, span, *shown)


def _is_gone(known: Body | None, found: StoredBody | None) -> bool:
    """Tell whether a body that was there with its span is not there any more."""
    return known is not None and known.stored and found is None


def _in_one_line(span: Span, input_value: object, output_value: object) -> bytes:
    """Write a span, with blanks for the line feeds of what goes in as it was written.

    They stand between tokens only, since within a string none is valid, so no value changes.
    """
    data = orjson.dumps(span_view(span, input_value, output_value))
    return data.replace(b"\n", b" ").replace(b"\r", b" ")
