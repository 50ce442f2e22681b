"""`traceway tail [QUERY]`: a line for each span when it ends, for as long as one watches.

A line has the model of a call, and the name of a tool, a retrieval or whatever else an application
tells of. Invariant: a span that ends behind the place where it begins is shown once, also over
breaks of the connection and restarts of the server, as far back as the server's log of events goes.
What a line says is what the API says at that moment.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import msgspec

from proxy.api.params import MAX_IDS, MAX_LIMIT
from proxy.api.span_views import SpanView
from proxy.cli.client import Client, Event, NoAnswer, Refused
from proxy.cli.command import note
from proxy.cli.terminal import Screen, clip, clock, columns, safe, safe_json
from proxy.ui import view

# As long as the server has browsers wait.
RETRY_S: Final = 1.0
BEGUN: Final = "span_created"
ENDED: Final = ("span_completed", "span_failed")
# "12:34:56" and the gap behind it.
TIME_COLUMNS: Final = 10


@dataclass(frozen=True, slots=True)
class _Trace:
    id: str


@dataclass(frozen=True, slots=True)
class _Traces:
    traces: list[_Trace]


@dataclass(frozen=True, slots=True)
class _Spans:
    """A page of spans, each in the very bytes of the API."""

    spans: list[msgspec.Raw]
    cursor: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "query", nargs="?", default="", metavar="QUERY", help='of traces, as "status:failed"'
    )
    parser.add_argument("--all", action="store_true", help="also a line when a call begins")
    parser.add_argument(
        "--since", type=int, metavar="N", help="first those behind event N, as --json numbers them"
    )


async def run(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    """Show calls until somebody ends it."""
    if options.query:  # a mistake in it is said now, and not with the first call
        await client.get("/api/traces", {"q": options.query, "limit": 1})
    await _Tail(client, options, screen).follow()


class _Tail:
    """One watch; `position` is the number of the last event that was dealt with."""

    def __init__(self, client: Client, options: argparse.Namespace, screen: Screen) -> None:
        self._client = client
        self._query = options.query
        self._json = options.json
        self._kinds = (BEGUN, *ENDED) if options.all else ENDED
        self._screen = screen
        self.position: int | None = options.since

    async def follow(self) -> None:
        """Follow the events for ever; the first connection must come about.

        Raises:
            NoAnswer: it does not.
            Refused: the server has a reason that does not pass with time.
        """
        is_broken = was_here = False
        while True:
            try:
                params = {"kind": ",".join(self._kinds)}
                async with aclosing(self._client.follow(self.position, params)) as stream:
                    async for told in stream:
                        if is_broken or not was_here:
                            self._greet(is_broken)
                            is_broken, was_here = False, True
                        await self._take(told.events)
                        self.position = told.position
            except (NoAnswer, Refused) as error:
                if not was_here or (isinstance(error, Refused) and error.status < 500):
                    raise
            if not is_broken:
                note(f"the connection to {self._client.place} broke; trying again")
            is_broken = True
            await asyncio.sleep(RETRY_S)

    def _greet(self, is_broken: bool) -> None:
        if is_broken:
            note("connected again")
        elif sys.stdout.isatty():
            note(f"watching {self._client.place}; Ctrl-C ends it")

    async def _take(self, events: Sequence[Event]) -> None:
        """Show what came together, as many at a time as the API takes ids."""
        # One with a number stands for a session that was erased.
        if any(event.type == "resync" and event.number is None for event in events):
            note("calls are missing here: the server's log no longer has them, or begins anew")
        about_calls = [event for event in events if event.type in self._kinds]
        for at in range(0, len(about_calls), MAX_IDS):
            some = about_calls[at : at + MAX_IDS]
            await self._show(some)
            self.position = some[-1].number

    async def _show(self, events: Sequence[Event]) -> None:
        if self._query:
            traces = {event.trace_id for event in events}
            found = await self._client.read(
                _Traces,
                "/api/traces",
                {"q": self._query, "id": ",".join(sorted(traces)), "limit": MAX_LIMIT},
            )
            fulfilling = {trace.id for trace in found.traces}
            events = [event for event in events if event.trace_id in fulfilling]
        if not events:
            return
        spans = {}
        named = ",".join(event.span_id for event in events)
        cursor: str | None = None
        while True:  # spans of much text do not all fit into one answer
            page = await self._client.read(
                _Spans, "/api/spans", {"id": named, "limit": MAX_LIMIT, "cursor": cursor}
            )
            for row in page.spans:
                span = self._client.decode(SpanView, bytes(row))
                spans[span.trace_id, span.id] = span, bytes(row)
            if (cursor := page.cursor) is None:
                break
        for event in events:
            # What was deleted meanwhile has nothing to show.
            if (known := spans.get((event.trace_id, event.span_id))) is not None:
                span, row_json = known
                print(_as_json(event, row_json) if self._json else self._line(event, span))
        sys.stdout.flush()

    def _line(self, event: Event, span: SpanView) -> str:
        """Write a call; where the width is bounded its error has a line of its own."""
        has_ended = event.type != BEGUN
        at = (span.ended_at if has_ended else None) or span.started_at
        tokens, cost, latency = _figures(span) if has_ended else ("", "", "")
        figures = f"{tokens:>6}  {cost:>9}  {latency:>8}"
        head = f"{event.status:<11}  {figures}  "
        name, session = safe(_name(span)), safe(event.session_id or "")
        error = safe(view.one_line(_error(span))) if has_ended else ""
        if (width := self._screen.width) is None:
            line = f"{head}{_padded(name, 18)}  {_padded(session, 24)}  {error}".rstrip()
            below = ""
        else:
            # What the time and the figures leave is for the two names.
            half = max((width - TIME_COLUMNS - len(head) - 2) // 2, 4)
            names = f"{_padded(clip(name, half), half)}  {session}".rstrip()
            line = clip(f"{head}{names}", width - TIME_COLUMNS)
            below = f"\n{'':{TIME_COLUMNS}}{clip(error, width - TIME_COLUMNS)}" if error else ""
        drawn = self._screen.paint(event.status, event.status)
        below = self._screen.paint(below, event.status)
        return f"{clock(at)}  {drawn}{line[len(event.status) :]}{below}"


def _name(span: SpanView) -> str:
    """Give the model of a call, and of all other work what its application calls it."""
    if span.kind.type == "llm_call":
        return span.kind.model or view.UNKNOWN
    return span.name


def _figures(span: SpanView) -> tuple[str, str, str]:
    """Give the tokens, the cost and the latency of a call."""
    estimated = int(span.kind.usage_source == "estimated")
    return (
        str(view.tokens(span.metadata.total_tokens, estimated=estimated)),
        str(view.money(span.kind.cost, estimated=estimated)),
        str(view.duration(span.metadata.duration_ms)),
    )


def _as_json(event: Event, span: bytes) -> str:
    """Give the event as it came, with its number, and the span as `GET /api/spans` has it."""
    return safe_json(b'{"id":%d,%b,"span":%b}' % (event.number or 0, event.data[1:-1], span))


def _padded(text: str, size: int) -> str:
    return text + " " * (size - columns(text))


def _error(span: SpanView) -> str | None:
    if isinstance(span.status, str):
        return None
    (end,) = span.status.values()
    return end.error
