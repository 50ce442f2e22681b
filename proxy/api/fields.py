"""What each field of the API's JSON means, with an example: one table, by the field's name.

Invariant: a field has one meaning wherever it stands, unless an entry names the class as well. The
types are the dataclasses' own; here is only what a type does not say. Pure.
"""

from typing import Final, get_args

from proxy.api.about import NULL, About, Schema
from proxy.api.archive_fields import ARCHIVES
from proxy.api.erasing_fields import ERASED
from proxy.api.ingest_fields import HANDED_IN
from proxy.call import EndedBy, Phase
from proxy.pricing import Status
from proxy.providers.reading import PartKind
from proxy.session import REGISTRY
from storage.clauses import STATUSES
from storage.handed import Kind
from storage.records import COMPLETED, RUNNING

_TRACE: Final = "019ac8f0a1b27c3d8e4f5a6b7c8d9e0f"
_SPAN: Final = "5a6b7c8d9e0f1a2b"
_MESSAGE: Final = f"{_SPAN}-1"
_SESSION: Final = "user_123:conv_456"
_SHA256: Final = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
_QUESTION: Final = "Where is my order?"
_ANSWER: Final = "It left the warehouse this morning."


def about(cls: type, name: str) -> About:
    """Say what a field of a dataclass means.

    Raises:
        KeyError: nobody wrote it down.
    """
    for owner in cls.__mro__:
        if (own := f"{owner.__name__.removesuffix('View')}.{name}") in FIELDS:
            return FIELDS[own]
    return FIELDS[name]


def _time(meaning: str, example: str = "2026-11-26T09:00:00.000000Z") -> About:
    return About(meaning, example, {"format": "date-time"})


def _hex(meaning: str, example: str | None, digits: int = 0) -> About:
    digits = len(example) if example else digits
    return About(meaning, example, {"pattern": f"^[0-9a-f]{{{digits}}}$"})


def _one_of(meaning: str, values: tuple[str, ...], example: object = None) -> About:
    return About(meaning, example or values[0], {"enum": list(values)})


def _ended_spans() -> Schema:
    end = {"$ref": "#/components/schemas/End"}
    states = [state for state in STATUSES["spans"] if state not in (RUNNING, COMPLETED)]
    ended = {
        "type": "object",
        "properties": dict.fromkeys(states, end),
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"anyOf": [{"type": "string", "enum": [RUNNING, COMPLETED]}, ended]}


_LATENCY: Final = "milliseconds from the start to the first"
_IN: Final = "what was asked, in brief; null where it was not recorded or has no text"
_OUT: Final = "what was answered, in brief"
_KNOWN: Final = tuple(dict.fromkeys(row.source for row in REGISTRY))
_FULL: Final = "whole; null where it was not recorded or cannot be shown whole"

FIELDS: Final[dict[str, About]] = {
    # What names things.
    "id": About("its id", _SESSION),
    "Session.id": About("the session's id, as it was sent", _SESSION),
    "Trace.id": _hex("the trace's id", _TRACE),
    "Span.id": _hex("the span's id", _SPAN),
    "Message.id": About("the span with which the message came first, and its depth", _MESSAGE),
    "Thread.id": About("the id of the thread's first message", f"{_SPAN}-0"),
    "Branch.id": About("what `branch` takes", _MESSAGE),
    "ToolCall.id": About("the call's id, as the provider gave it", "call_1"),
    "session_id": About("the session; null where there is none", _SESSION),
    "trace_id": _hex("the trace", _TRACE),
    "span_id": _hex("the span", _SPAN),
    "parent_id": _hex("the span that this one is part of", None, 16),
    "user_id": About("the user that the call named", "user_123"),
    "response_id": About("the id that the provider gave its answer", "chatcmpl-123"),
    "settled_by": _hex("the span that told this one's usage", None, 16),
    "name": About("its name", "get_order"),
    "Session.name": About("the name that somebody gave it", "Lost order"),
    "SessionChange.name": About("its name from now on; null takes it away", "Lost order"),
    "SessionChange.starred": About("whether it is marked from now on", True),
    "Trace.name": About("its application's word; else the model, or what the call does", "chat"),
    "Span.name": About("its application's word; else the model, or what the call does", "gpt-5"),
    "Part.name": About("a file's name, or what an `other` is", "invoice.pdf"),
    # States and sources.
    "starred": About("whether somebody marked it", False),
    "status": _one_of("the state of its newest trace", STATUSES["traces"], "completed"),
    "Trace.status": _one_of("`running`, or how it ended", STATUSES["traces"], "completed"),
    "Span.status": About(
        '`"running"`, `"completed"`, or an object with the state as its only key',
        "completed",
        _ended_spans(),
    ),
    "Outcome.state": _one_of("the call's state", STATUSES["spans"], "completed"),
    "source": _one_of("how the session is known (docs/sessions.md)", (*_KNOWN, "auto"), "header"),
    "session_source": _one_of("how its session is known (docs/sessions.md)", _KNOWN, "header"),
    "session_confidence": About("what that is worth; null where it is `ambiguous`", "named"),
    "usage_source": _one_of(
        "how the tokens are known; `reported`: an application told them",
        ("provider", "injected", "estimated", "missing", "reported"),
    ),
    "cost_status": _one_of("whether the model has a price", get_args(Status)),
    "price_version": About("which list of prices", "genai-prices 0.2.3"),
    "error": About("what went wrong, one sentence; null where nothing did"),
    "ended_by": _one_of("who ended it", get_args(EndedBy), NULL),
    "phase": _one_of("in which phase of the call it ended", get_args(Phase), NULL),
    "http_status": About("the answer's HTTP status", 200),
    "tags": About("those with which an application opened it", ["beta"]),
    "linked_trace_id": _hex("the trace that its call named, which is of another session", None, 32),
    "handed_in": About("whether an application told of it, and it is no call that passed", False),
    "same_call": _hex("the span of the call that this one saw too; that alone counts", None, 16),
    "moved_from": _hex("the trace that a call which joined this one is by itself", None, 32),
    "custom": About("what its application said of it, in words of its own", {"tenant": "a"}),
    "notes": About("what could not be read as it should", []),
    # Times.
    "started_at": _time("when the first call began"),
    "ended_at": _time("when the last call ended; else null", "2026-11-26T09:00:01.840500Z"),
    "last_active_at": _time("when the newest trace began"),
    "Thread.last_active_at": _time("when its newest call began"),
    "Branch.last_active_at": _time("when the newest call with it began"),
    "at": _time("when the call began; for what ends a call, when it ended"),
    "duration_ms": About("milliseconds from the first start to the last end", 1840.5),
    "avg_latency_ms": About("milliseconds: the mean of its ended traces", 1840.5),
    "first_byte_ms": About(f"{_LATENCY} byte of the answer", 402.1),
    "ttft_ms": About(f"{_LATENCY} token; of a stream", 410.9),
    # Counts and money.
    "session_count": About("sessions; null where the rows are traces", 1),
    "trace_count": About("traces", 1),
    "span_count": About("spans", 1),
    "running_span_count": About("spans that run", 0),
    "failed_trace_count": About("traces that failed", 0),
    "error_rate": About("failed traces / traces", 0.0),
    "input_tokens": About("tokens sent, as billed; null where unknown", 612),
    "output_tokens": About("tokens answered, as billed; null where unknown", 52),
    "total_tokens": About("input and output", 664),
    "cached_input_tokens": About("of the input: read from the provider's cache", 0),
    "cache_write_tokens": About("of the input: written to the provider's cache", 0),
    "reasoning_tokens": About("of the output: reasoning", 0),
    "audio_input_tokens": About("of the input: audio", 0),
    "audio_output_tokens": About("of the output: audio", 0),
    "image_input_tokens": About("of the input: images", 0),
    "image_output_tokens": About("of the output: images", 0),
    "cost": About("USD; null where no part is known", 0.000123),
    "unpriced_count": About("calls whose cost is unknown, and in no sum", 0),
    "estimated_count": About("calls whose tokens are estimated", 0),
    "sent_bytes": About("bytes of all bodies as they passed", 2950),
    "stored_bytes": About("bytes that they added to the database", 1210),
    "Stats.stored_bytes": About("bytes of bodies in the database now", 1210),
    "truncated": About("whether it was cut", False),
    "Totals.truncated": About("whether the sums are over the newest rows only", False),
    # Text of sessions, traces and spans.
    "models": About("the models that answered", ["gpt-4o-mini-2024-07-18"]),
    "first_input": About(f"of the first call, {_IN}", _QUESTION),
    "last_output": About(f"of the newest call, {_OUT}", _ANSWER),
    "last_error": About("the newest error of a call"),
    "input": About(_IN, _QUESTION),
    "output": About(_OUT, _ANSWER),
    "Span.input": About(f"the request: in a list {_IN}; else its JSON or text, {_FULL}", _QUESTION),
    "Span.output": About(f"the answer, in the same way: in a list in brief, else {_FULL}", _ANSWER),
    "kind": About("what it is", "function"),
    "Span.kind": About("what the span is; of a model call its model, tokens and cost"),
    "Kind.type": _one_of("what kind of work it is", get_args(Kind)),
    "Kind.kind": About("of a `custom` one: what its application calls it", "reranker"),
    "attributes": About("what else its application said of its kind", {"top_k": 5}),
    "model": About("the model that answered, else the one that was asked for", "gpt-4o-mini"),
    "model_requested": About("the model that was asked for", "gpt-4o-mini"),
    "provider": About("the dialect of the call", "openai"),
    "service_tier": About("the tier that it was billed by", "default"),
    "metadata": About("the rest of what is known"),
    "upstream": About("the upstream's name in the configuration", "openai"),
    "operation": About("which operation of the provider's API", "chat.completions"),
    "method": About("the call's HTTP method", "POST"),
    "path": About("its path at the upstream", "/v1/chat/completions"),
    "query": About("its query, without secrets"),
    "request": About("what is known of the request's body"),
    "response": About("what is known of the answer's body"),
    "request_headers": About(
        "names and values in their order, without secrets", [["content-type", "application/json"]]
    ),
    "response_headers": About("the same of the answer", [["content-type", "application/json"]]),
    "size": About("bytes", 312),
    "sha256": _hex("of the whole body as it passed", _SHA256),
    "content_type": About("its media type", "application/json"),
    "content_encoding": About("the content coding of what is stored"),
    "stored": About("whether its bytes are here", True),
    "assembled": About("whether it was put together from the events of a stream", False),
    "redacted": About("whether a secret was cut out of it", False),
    # Conversations.
    "total": About("messages on the path through the session", 2),
    "next": About("the `from` of the next page; absent at the end"),
    "messages": About("the page's messages, in order"),
    "threads": About("the threads that the page's messages are of"),
    "position": About("its place on the path, from 0", 1),
    "thread": About("the id of its thread", f"{_SPAN}-0"),
    "parent": About("the id of the message before it in the conversation", f"{_SPAN}-0"),
    "Message.kind": About("what the line is", "answer"),
    "role": About("as it was sent", "assistant"),
    "turn": About("the call with which it came first"),
    "number": About("which turn of the session, from 1", 1),
    "turns": About("calls that it is part of", 1),
    "link": About("where all of it is", f"/api/messages/{_MESSAGE}"),
    "text": About("its text, cut at 16,384 characters; null where there is none", _ANSWER),
    "length": About("characters of all of it", len(_ANSWER)),
    "parts": About("all its parts, where one is not plain text", []),
    "Part.kind": _one_of("what the part is", get_args(PartKind)),
    "mime": About("its media type", "application/pdf"),
    "url": About("where it is, if it is not in the message"),
    "tool_calls": About("the tools that it calls", []),
    "tool_result": About("whose result it is", NULL),
    "arguments": About("as text, cut like any", '{"order": 88213}'),
    "arguments_json": About("the same where it is JSON", {"order": 88213}),
    "result": About("the id of the message with its result", f"{_SPAN}-2"),
    "result_position": About("that message's position", 2),
    "call_id": About("the id of the tool call", "call_1"),
    "call": About("the id of the message with the call", _MESSAGE),
    "call_position": About("that message's position", 1),
    "outcome": About("on what ends a call: how it ended"),
    "repeats": About("later calls with the same answer", 0),
    "branches": About("the messages that stand in its place, newest first", []),
    "current": About("whether the path goes through it", True),
    "preview": About("its beginning", _ANSWER),
    "tools": About("of `tools`: their names", []),
    "changes": About("of `prompt` and `tools`: what is different from before", []),
    "change": _one_of("what happened to it", ("added", "removed", "changed")),
    "Change.text": About("the line, or the tool's name", "Answer briefly."),
    "Thread.kind": _one_of(
        "whether calls sent all of it, or left its beginning out, or it begins with a summary",
        ("conversation", "window", "compaction"),
    ),
    "replaces": About("the id of the thread that it is a summary of"),
    # Answers.
    "sessions": About("the page's sessions"),
    "traces": About("traces"),
    "spans": About("spans"),
    **dict.fromkeys(
        ("SessionList.truncated", "TraceList.truncated", "SpanList.truncated"),
        About("true where a word of `q` is so common that only the newest were looked at"),
    ),
    "count": About("rows of this page", 1),
    "cursor": About("goes on behind this page; absent at the end"),
    "Deleted.traces": About("traces that were deleted", 1),
    "Deleted.spans": About("spans that were deleted", 1),
    "contents": About("messages and bodies that nothing else holds", 2),
    "content_bytes": About("bytes of them, as they were stored", 1210),
    "start": About("the first character that is replaced, from 0", 0),
    "end": About("the character behind the last", 3),
    "suggestions": About("what may stand there"),
    "Suggestion.text": About("the text", "model:"),
    "meaning": About("what it means, where that is not plain", "a model that answered"),
    # Budgets.
    "budget": About("what the session may cost; null where no call had a budget"),
    "limit_usd": About("what it may cost in all", 5.0),
    "spent_usd": About("what it has cost"),
    "reserved_usd": About("what calls may still cost whose cost is not known"),
    "Budget.spent_usd": About("what it has cost", 0.00012),
    "Budget.reserved_usd": About("what calls may still cost whose cost is not known", 0.0),
    # Keys and projects.
    "NewProviderKey.key": About("the provider's key", "sk-..."),
    "ProviderKey.upstream": About("the upstream that is called with it", "openai"),
    "ProviderKey.source": About("where it is; the stored one wins", "stored"),
    "ProviderKey.last_four": About("its last four characters; null for a short one", "9dXz"),
    "ProviderKey.created_at": _time("when it was stored; null for one of the environment"),
    "provider_keys": About("the project's provider keys"),
    "Project.name": About("its name", "shop"),
    "NewProject.name": About("its name", "shop"),
    "ProjectChange.name": About("its new name", "shop-2"),
    "NewKey.name": About("what it is for", "checkout service"),
    "Key.name": About("what it is for", "checkout service"),
    "MadeKey.name": About("what it is for", "checkout service"),
    "Key.id": About("its number", 1),
    "MadeKey.id": About("its number", 1),
    "MadeKey.key": About("the key itself, here and nowhere else", "tw_sk_..."),
    "session_budget_usd": About("what a session may cost; null: what it likes", 5.0),
    "created_at": _time("when it was made"),
    "last_used_at": _time("when it was last used, to the minute; null: never"),
    "revoked_at": _time("when it was revoked; null: it is good"),
    "scope": About("what it may do", "write"),
    "project": About("the project", "shop"),
    "NewKey.project": About("the project; else that of the request", "shop"),
    "last_four": About("the last four characters of the key", "x7Qa"),
    "calls_per_minute": About("the most calls a minute; null: `[limits] calls_per_minute`", 60),
    "keys_are_on": About("whether requests need a key", True),
    "Self.key": About("the caller's key; null where none is needed"),
    "keys": About("all keys"),
    "projects": About("all projects"),
    "token": About("what `/api/events?token=` takes, once", "tw_st_..."),
    "expires_in_s": About("seconds until it is no longer good", 30.0),
    **HANDED_IN,
    **ARCHIVES,
    **ERASED,
    # Errors.
    "Error.error": About("what is wrong"),
    "resourceSpans": About(
        "the spans, by resource and scope (opentelemetry-proto)",
        schema={"items": {"type": "object"}},
    ),
    "partialSuccess": About("what was refused"),
    "rejectedSpans": About("how many", "1"),
    "errorMessage": About("why", "a span id must have 8 bytes, not all zero (spans: 1)"),
    "RpcStatus.code": About("google.rpc.Code", 3),
    "message": About("what is wrong, and what to do", "limit must be an integer from 1 to 1000"),
    "Problem.type": _one_of(
        "whose fault it is, or of which limit",
        ("invalid_request_error", "api_error", "requests", "insufficient_quota"),
    ),
    "Problem.session_id": About("the session"),
    "budget_usd": About("what the session may cost"),
    "needed_usd": About("what the call may cost at most"),
    "param": About("the parameter that is wrong", "limit"),
    "code": About("what is wrong, for programs", "bad_parameter"),
    # Health.
    "Health.status": About(
        "`degraded`: calls go on, and not all are recorded as they should", "ok"
    ),
    "Alive.status": _one_of("that it answers", ("ok",)),
    "Unavailable.status": _one_of("that calls are not taken", ("unavailable",)),
    "reasons": About("why it is not `ok`", []),
    "durability": _one_of("`[recording] durability`", ("safe", "strict", "fast")),
    "calls_in_flight": About("calls that run", 0),
    "queued_bytes": About("bytes that wait to be saved", 0),
    "database_away_since": About(
        "since when the database takes nothing, as it cannot be reached or written", None
    ),
    "held_bytes": About("bytes of memory that recording holds", 0),
    "limit_bytes": About("bytes of memory that it may hold", 67_108_864),
    "event_subscribers": About("who watches `/api/events`", 0),
    "refused_calls": About("calls that were over their key's calls per minute", 0),
    "counters": About("what went wrong since the start"),
    "dropped_bodies": About("bodies that were not kept", 0),
    "dropped_records": About("calls that were not recorded", 0),
    "unreadable_records": About("calls of which at most the bare fact was saved", 0),
    "late_starts": About("answers that went out before the start of their call was saved", 0),
    "late_ends": About("answers that ended before that was saved, as recording was behind", 0),
    "failed_commits": About("commits that failed", 0),
    "dropped_log_lines": About("lines of the log that nobody took in time", 0),
    # MCP.
    "jsonrpc": About("the version of JSON-RPC", "2.0"),
    "params": About("what the method takes", {}),
    "McpReply.result": About("what the method gives", {}),
    "McpMessage.id": About("what its answer is known by; without it there is none", 1),
    "McpMessage.method": About("what is asked for: `tools/list`, `tools/call`, ...", "tools/list"),
    "McpReply.id": About("that of the call; null where it could not be read", 1),
    "McpReply.error": About("why the call came to nothing: `code` and `message`"),
}
