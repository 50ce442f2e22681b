"""What can be asked of what was recorded: sessions, traces and spans. See operations.py."""

from collections.abc import Mapping
from typing import Final

from proxy.access import ADMIN, READ, Need
from proxy.api import params, span_filters
from proxy.api.answer_shapes import (
    Conversation,
    SessionList,
    SessionWithTraces,
    SpanList,
    TraceList,
    TraceWithSpans,
)
from proxy.api.conversation import DEFAULT_LIMIT as MESSAGES
from proxy.api.described import (
    BYTES,
    CURSOR,
    SESSION_PATH,
    SESSION_QUERY,
    Answer,
    Operation,
    Parameter,
    Q,
    hex_id,
    ids,
    limit,
    lists,
    number,
    ok,
)
from proxy.api.erasing import LARGE_SPANS, LARGE_TRACES, ErasureView
from proxy.api.sessions import MAX_TRACES, SessionChange
from proxy.api.span_views import SpanView
from proxy.api.views import SessionView, TotalsView
from storage.packed_spans import ANSWER_BYTES
from storage.queries import MAX_SPANS
from storage.totals import Deleted

_TRACE: Final = "019ac8f0a1b27c3d8e4f5a6b7c8d9e0f"
_SPAN: Final = "5a6b7c8d9e0f1a2b"
_FOUND: Final = ("bad_parameter", "not_found")
_SEVERAL_PAGES: Final = (
    "A page may be short, or empty, and have a cursor: so far was looked. `truncated`: a word of"
    " `q` is so common that only the newest messages with it were looked at."
)
_BOUNDED: Final = (
    "A page ends, with a cursor, before the span with which the texts, attributes and headers of"
    f" its spans would be more than {ANSWER_BYTES:,} bytes, whatever `limit` says."
)
_SORTED: Final = (
    " They are sorted otherwise than by `started` only with `session:ID` or `since:` in `q`,"
    " or a parameter that says the same."
)


def _session(
    method: str,
    below: str,
    id: str,
    summary: str,
    answers: Mapping[str, Answer],
    *more: Parameter,
    need: Need = READ,
    description: str = "",
    body: object = None,
) -> tuple[Operation, Operation]:
    """Give what is done with one session: with its id in the path, and in the query."""
    path, query = (
        Operation(
            method=method,
            path=f"/api/sessions/{place}{below}",
            id=name,
            tag="Sessions",
            summary=summary + end,
            description=description,
            need=need,
            parameters=(own, *more),
            body=body,
            answers=answers,
            codes=_FOUND,
        )
        for place, name, end, own in (
            ("{id}", id, "", SESSION_PATH),
            ("by-id", f"{id}ById", ", for any id", SESSION_QUERY),
        )
    )
    return path, query


def _body_of(which: str, text: str) -> Operation:
    """Give the operation that reads a stored body."""
    kind = (
        "what bytes these are, with commas between: `exact` (those that passed), `assembled` (put"
        " together from a stream), `redacted` (without a secret), `truncated` (only the first of"
        " them), or `decoded` (without their content coding)"
    )
    return Operation(
        method="GET",
        path=f"/api/spans/{{id}}/{which}",
        id=f"getSpan{which.title()}",
        tag="Traces and spans",
        summary=f"The body of a call's {which}",
        description=text,
        parameters=(hex_id("span", 16, _SPAN),),
        answers={
            "200": Answer(
                meaning="The bytes, with the type and coding that they came with.",
                media_type=BYTES,
                headers={"X-Traceway-Body": kind},
            )
        },
        codes=("not_found",),
    )


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        method="GET",
        path="/api/sessions",
        id="listSessions",
        tag="Sessions",
        summary="Sessions, the most recently active first",
        description=_SEVERAL_PAGES,
        parameters=lists("sessions"),
        answers=ok("A page.", SessionList),
        codes=("bad_parameter",),
    ),
    Operation(
        method="GET",
        path="/api/sessions/totals",
        id="sumSessions",
        tag="Sessions",
        summary="Sums over all pages of a list of sessions",
        parameters=(Q,),
        answers=ok("The sums.", TotalsView),
        codes=("bad_parameter",),
    ),
    *_session(
        "GET",
        "",
        "getSession",
        "A session with its traces, oldest first",
        ok("The session.", SessionWithTraces),
        limit(MAX_TRACES, MAX_TRACES),
        CURSOR,
    ),
    *_session(
        "PATCH",
        "",
        "changeSession",
        "Give a session a name or a star, or take them away",
        ok("The session.", SessionView),
        need=ADMIN,
        body=SessionChange,
        description="What the body leaves out stays; null takes the name away. Of a session that"
        " changed, `session_updated` is told. Both stay until the session is deleted.",
    ),
    *_session(
        "DELETE",
        "",
        "deleteSession",
        "Delete a session with its traces, spans and bodies",
        {
            "200": Answer(meaning="What was deleted.", body=Deleted),
            "202": Answer(
                meaning=f"It has more than {LARGE_TRACES} traces or {LARGE_SPANS} spans: the order"
                " to erase it.",
                body=ErasureView,
            ),
        },
        need=ADMIN,
        description="What other calls hold too stays. A call that runs comes back when it ends.",
    ),
    *_session(
        "GET",
        "/conversation",
        "getConversation",
        "The messages of a session, each once, in order",
        ok("A page of its messages.", Conversation),
        Parameter(
            name="from",
            meaning="the position of the page's first message",
            schema=number(0, params.MAX_PLACE, 0),
        ),
        limit(MESSAGES, params.MAX_LIMIT),
        Parameter(
            name="branch",
            meaning="ids of messages that lead the path, where there are branches; several times,"
            " or with commas between",
            schema={"type": "array", "items": {"type": "string"}},
            commas=False,
        ),
        description="docs/conversations.md says how to read it.",
    ),
    Operation(
        method="GET",
        path="/api/messages/{id}",
        id="getMessage",
        tag="Sessions",
        summary="One message, as it was sent",
        parameters=(
            Parameter(
                name="id",
                place="path",
                meaning="the message's id; anything else names nothing",
                schema={"type": "string", "pattern": "^[0-9a-f]{16}-[0-9]{1,9}$"},
                example=f"{_SPAN}-1",
            ),
        ),
        answers=ok(
            "The message's JSON.", object, {"role": "user", "content": "Where is my order?"}
        ),
        codes=("not_found",),
    ),
    Operation(
        method="GET",
        path="/api/traces",
        id="listTraces",
        tag="Traces and spans",
        summary="Traces, newest first",
        description=_SEVERAL_PAGES + _SORTED,
        parameters=(
            *lists("traces"),
            Parameter(name="session_id", meaning="only traces of this session"),
            ids("traces", 32),
        ),
        answers=ok("A page.", TraceList),
        codes=("bad_parameter",),
    ),
    Operation(
        method="GET",
        path="/api/traces/totals",
        id="sumTraces",
        tag="Traces and spans",
        summary="Sums over all pages of a list of traces",
        parameters=(Q,),
        answers=ok("The sums.", TotalsView),
        codes=("bad_parameter",),
    ),
    Operation(
        method="GET",
        path="/api/traces/{id}",
        id="getTrace",
        tag="Traces and spans",
        summary="A trace with its spans, oldest first, without their bodies",
        description=_BOUNDED,
        parameters=(hex_id("trace", 32, _TRACE), limit(MAX_SPANS, MAX_SPANS), CURSOR),
        answers=ok("The trace.", TraceWithSpans),
        codes=_FOUND,
    ),
    Operation(
        method="DELETE",
        path="/api/traces/{id}",
        id="deleteTrace",
        tag="Traces and spans",
        summary="Delete a trace with its spans and bodies",
        need=ADMIN,
        parameters=(hex_id("trace", 32, _TRACE),),
        answers={
            "200": Answer(meaning="What was deleted.", body=Deleted),
            "202": Answer(
                meaning=f"It has more than {LARGE_SPANS} spans: the order to erase it.",
                body=ErasureView,
            ),
        },
        codes=("not_found",),
    ),
    Operation(
        method="GET",
        path="/api/spans",
        id="listSpans",
        tag="Traces and spans",
        summary="Spans, newest first, in brief",
        description=f"All filters and `q` must be fulfilled. {_SEVERAL_PAGES} {_BOUNDED}{_SORTED}",
        parameters=(*lists("spans"), ids("spans", 16), *span_filters.PARAMETERS),
        answers=ok("A page.", SpanList),
        codes=("bad_parameter",),
    ),
    Operation(
        method="GET",
        path="/api/spans/{id}",
        id="getSpan",
        tag="Traces and spans",
        summary="A span with its input and output",
        parameters=(hex_id("span", 16, _SPAN),),
        answers=ok("The span.", SpanView),
        codes=("not_found",),
    ),
    _body_of("request", "As it was sent, up to what is kept of one body."),
    _body_of("response", "As it came; of a stream, what its events add up to."),
)
