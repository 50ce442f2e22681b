"""What can be asked while it happens: calls through the proxy, events, search, the server itself.

See operations.py.
"""

from typing import Final

from proxy.access import ANY, OPEN, WRITE
from proxy.api.answer_shapes import (
    Alive,
    Unavailable,
)
from proxy.api.described import (
    BYTES,
    EVENTS,
    TEXT,
    Answer,
    Operation,
    Parameter,
    choice,
    number,
    ok,
)
from proxy.api.events import MAX_NUMBER, TicketView
from proxy.api.health import HealthView
from proxy.api.views import StatsView
from storage.clauses import STATUSES
from storage.events import TYPES
from storage.search import MAX_CHARS
from storage.suggest import Suggestions

# What a client tells the proxy about a call; none of these headers goes upstream.
_TRACE: Final = "019ac8f0a1b27c3d8e4f5a6b7c8d9e0f"
_SPAN: Final = "5a6b7c8d9e0f1a2b"
_CALL: Final = (
    "-H 'Content-Type: application/json' -d"
    """ '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}'"""
)

PROXY_HEADERS: Final = (
    Parameter(
        name="X-Traceway-Session-Id",
        place="header",
        meaning="the session of the call: free text without control characters (docs/sessions.md)",
        example="user_123:conv_456",
    ),
    Parameter(
        name="X-Traceway-Trace-Id",
        place="header",
        meaning="the trace of which the call is to be a span, known or not: 32 hexadecimal digits"
        " or a UUID; it has that trace's session (docs/joining.md)",
        schema={
            "type": "string",
            "pattern": r"^([0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})?$",
        },
        example=_TRACE,
    ),
    Parameter(
        name="X-Traceway-Parent-Span-Id",
        place="header",
        meaning="the span of that trace that the call is below; only with `X-Traceway-Trace-Id`",
        schema={"type": "string", "pattern": r"^([0-9A-Fa-f]{16})?$"},
        example=_SPAN,
    ),
    Parameter(
        name="X-Traceway-Capture",
        place="header",
        meaning="how much of the bodies is recorded: `full`, `preview`, `preview(BYTES)` or `off`;"
        " else as `[recording] capture` says",
        schema={"type": "string", "pattern": r"^(full|off|preview(\([0-9]{1,9}\))?)?$"},
        example="preview",
    ),
    Parameter(
        name="X-Traceway-Session-Budget-Usd",
        place="header",
        meaning="what the call's session may cost in all, above 0 (docs/limits.md)",
        schema={"type": "string", "pattern": r"^[0-9]{1,7}(\.[0-9]{1,9})?$"},
        example="5.00",
    ),
)
PROXY_MARKS: Final = {
    "X-Traceway-Trace-Id": "the trace as which the call is recorded, or of which it is a span",
    "X-Traceway-Span-Id": "the span as which it is recorded",
    "X-Traceway-Session-Id": "its session, percent-encoded, if known when the headers leave",
    "X-Traceway-Session-Source": "how the session is known",
}
_PROXY: Final = Operation(
    method="*",
    path="/api/proxy/{upstream}/{path}",
    id="proxy",
    tag="Proxy",
    summary="A call to an upstream",
    description=(
        "Any method. Path, query, headers and body go to the upstream byte for byte, and its answer"
        " comes back in the same way, streams included. `{path}` may have slashes. The call is"
        " recorded as a trace, or as a span of the one that it names. Headers `X-Traceway-*` of"
        " either side do not pass."
    ),
    need=WRITE,
    parameters=(
        Parameter(
            name="upstream",
            place="path",
            meaning="an upstream's name in the configuration",
            example="openai",
        ),
        Parameter(
            name="path",
            place="path",
            meaning="the path at the upstream, of any number of segments",
            example="v1/chat/completions",
        ),
        *PROXY_HEADERS,
    ),
    answers={
        "default": Answer(
            meaning="The upstream's own answer, as it is, with these headers added.",
            media_type=BYTES,
            headers=PROXY_MARKS,
        )
    },
    codes=(
        *("bad_request", "bad_trace", "bad_capture", "bad_budget", "request_body_broken"),
        *("keys_are_off", "misplaced_key", "no_provider_key", "unknown_upstream"),
        *("rate_limited", "session_budget_exceeded", "session_budget_unpriced"),
        *("request_too_large", "budget_request_too_large", "internal", "unsupported"),
        *("upstream_unreachable", "upstream_closed", "upstream_malformed", "upstream_timeout"),
        *("budget_unavailable", "recording_unavailable"),
    ),
    curl=_CALL,
    security=("bearer", "header"),
)

OPERATIONS: Final[tuple[Operation, ...]] = (
    _PROXY,
    Operation(
        method="GET",
        path="/api/events",
        id="watchEvents",
        tag="Events",
        summary="What changes, as it changes",
        description="Server-sent events without an end (docs/events.md). Filters are ANDed.",
        parameters=(
            Parameter(
                name="since",
                meaning="the number of an event: those behind it come first; else it begins now",
                schema=number(0, MAX_NUMBER),
            ),
            Parameter(
                name="Last-Event-ID",
                place="header",
                meaning="the same, as browsers send it when they connect again; it wins",
                schema=number(0, MAX_NUMBER),
            ),
            Parameter(name="session", meaning="only events of this session, by its exact id"),
            Parameter(
                name="kind",
                meaning="only events of these types, with commas between",
                schema={"type": "array", "items": {"type": "string", "enum": list(TYPES)}},
            ),
            Parameter(name="model", meaning="only events about calls of this model"),
            Parameter(
                name="progress",
                meaning="`1`: also what streams say while they run",
                schema={"type": "integer", "enum": [0, 1], "default": 0},
            ),
        ),
        answers={
            "200": Answer(
                meaning="Events, until the client leaves.",
                media_type=EVENTS,
                example=f"""retry: 1000
id: 41

id: 42
data: {{"type":"span_created","trace_id":"{_TRACE}","span_id":"{_SPAN}",...}}
""",
            )
        },
        curl="-N",
        codes=("bad_parameter", "too_many_subscribers"),
        security=("bearer", "header", "cookie", "ticket"),
    ),
    Operation(
        method="POST",
        path="/api/events/tickets",
        id="createTicket",
        tag="Events",
        summary="Let a page watch that can send no key",
        description="An `EventSource` has nothing but its address: `/api/events?token=...`.",
        answers={"201": Answer(meaning="A ticket, good once.", body=TicketView)},
    ),
    Operation(
        method="GET",
        path="/api/search/suggest",
        id="suggest",
        tag="Search",
        summary="What may come next in a query that somebody types",
        parameters=(
            Parameter(
                name="q",
                meaning="the query so far",
                schema={"type": "string", "maxLength": MAX_CHARS},
            ),
            Parameter(
                name="at",
                meaning="the character at which it is typed, from 0; else the end of `q`",
                schema=number(0, MAX_CHARS),
            ),
            Parameter(
                name="rows", meaning="of which list", schema=choice(STATUSES, next(iter(STATUSES)))
            ),
        ),
        answers=ok("What may stand there.", Suggestions),
        codes=("bad_parameter",),
    ),
    Operation(
        method="GET",
        path="/api/stats",
        id="getStats",
        tag="Server",
        summary="Totals of the project",
        answers=ok("The totals.", StatsView),
    ),
    Operation(
        method="GET",
        path="/api/health",
        id="getHealth",
        tag="Server",
        summary="How the server is, and what was lost if anything was",
        answers=ok("Always, so that it can be read; `status` says how it is.", HealthView),
    ),
    Operation(
        method="GET",
        path="/metrics",
        id="getMetrics",
        tag="Server",
        summary="Figures for Prometheus",
        description="In its text format 0.0.4. docs/operating.md lists them.",
        answers={
            "200": Answer(
                meaning="The figures.",
                media_type=TEXT,
                example="# TYPE traceway_calls_in_flight gauge\ntraceway_calls_in_flight 0.0\n",
            )
        },
    ),
    Operation(
        method="GET",
        path="/api/live",
        id="isLive",
        tag="Server",
        summary="Whether the process answers",
        need=OPEN,
        answers=ok("It does.", Alive),
    ),
    Operation(
        method="GET",
        path="/api/ready",
        id="isReady",
        tag="Server",
        summary="Whether calls are taken and can be read",
        need=OPEN,
        answers=ok("They are.", Alive) | {"503": Answer(meaning="They are not.", body=Unavailable)},
    ),
    Operation(
        method="GET",
        path="/api/openapi.json",
        id="getDescription",
        tag="Server",
        summary="This description",
        need=ANY,
        answers=ok(
            "An OpenAPI 3.1 document.", object, {"openapi": "3.1.0", "info": {"title": "Traceway"}}
        ),
    ),
)
