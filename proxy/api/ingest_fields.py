"""What the fields of the write API mean: its part of the table of fields.py. Pure.

`Handed.` names a field of all that applications hand in (ingest_bodies.py).
"""

from typing import Final, get_args

from proxy.api.about import About, Schema
from proxy.api.ingest_bodies import MAX_ITEMS, TYPES
from proxy.handed_values import ERROR_CHARS, MAX_COST_USD, MAX_DURATION_MS, NAME_CHARS
from proxy.usage import MAX_COUNT
from storage.handed import Kind
from storage.search import STATUSES

_TRACE: Final = "019ac8f0a1b27c3d8e4f5a6b7c8d9e0f"
_SPAN: Final = "5a6b7c8d9e0f1a2b"
_TRACE_ID: Final[Schema] = {
    "type": "string",
    "pattern": "^([0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$",
}
_SPAN_ID: Final[Schema] = {"type": "string", "pattern": "^[0-9a-fA-F]{16}$"}
_ANY_ID: Final = "hex digits in either case, not all zeros"
_WORD: Final[Schema] = {"type": "string", "maxLength": NAME_CHARS}
_COUNT: Final[Schema] = {"type": "number", "minimum": 0, "maximum": MAX_COUNT}
_OBJECT: Final[Schema] = {"type": "object"}
_KIND: Final[Schema] = {"anyOf": [{"$ref": "#/components/schemas/SpanKind"}, {"type": "string"}]}


def _maybe(meaning: str, schema: Schema, example: object = None) -> About:
    return About(meaning, example, {"anyOf": [schema, {"type": "null"}]})


HANDED_IN: Final[dict[str, About]] = {
    "NewTrace.id": _maybe(
        f"the trace's id, or a UUID, {_ANY_ID}; else one is made", _TRACE_ID, _TRACE
    ),
    "NewSpan.id": _maybe(f"the span's id: {_ANY_ID}; else one is made", _SPAN_ID, _SPAN),
    "Handed.trace_id": _maybe("the trace; else one for this span alone", _TRACE_ID, _TRACE),
    "Handed.parent_id": _maybe("the span that it is part of", _SPAN_ID),
    "Handed.id": _maybe("in a batch: the id of what ends", {"type": "string"}),
    "SpanCompletion.trace_id": _maybe("its trace, where it may end before it came", _TRACE_ID),
    "SpanFailure.trace_id": _maybe("its trace, where it may end before it came", _TRACE_ID),
    "NewTrace.name": About(f"its name; {NAME_CHARS} characters are kept", "chat-turn"),
    "Handed.name": About(
        f"its name, else its model or kind; {NAME_CHARS} characters are kept", "search"
    ),
    "Handed.session_id": About(
        "the session of the trace; the first one that is named stays", "user_123:conv_456"
    ),
    "Handed.user_id": About("the user of the trace", "user_123"),
    "tags": About("words to find it by", ["shop"]),
    "Handed.kind": _maybe(
        "what it is: a SpanKind, or its type alone; else `custom`",
        _KIND,
        {"type": "retrieval", "index": "orders"},
    ),
    "Handed.input": About(
        "any JSON; of an `llm_call` best its messages", {"query": "Where is my order?"}
    ),
    "Handed.output": About("any JSON; of an `llm_call` best its message", ["order 88213"]),
    "Handed.metadata": _maybe("an object of your own", _OBJECT, {"host": "a1"}),
    "Handed.started_at": About(
        "ISO 8601 with its zone; else when it came", "2026-11-26T09:00:00Z", {"format": "date-time"}
    ),
    "Handed.ended_at": About("ISO 8601 with its zone; else when it came", None),
    "Handed.duration_ms": _maybe(
        "instead of `ended_at`", {"type": "number", "minimum": 0, "maximum": MAX_DURATION_MS}, 12.5
    ),
    "NewSpan.status": About("`completed` and `failed` hand it in ended, as an end does"),
    "NewSpan.error": About(f"what went wrong; {ERROR_CHARS:,} characters are kept"),
    "SpanFailure.error": About(
        f"what went wrong; {ERROR_CHARS:,} characters are kept", "index not found"
    ),
    "items": About(
        f"up to {MAX_ITEMS:,}: the fields of the requests above, `type`"
        f" ({', '.join(f'`{one}`' for one in TYPES)}), and `id` where it is in their path",
        [{"type": "end", "id": _TRACE}],
        # Of one that is not as it should be the answer speaks, and takes all others.
        {"type": "array", "maxItems": MAX_ITEMS, "items": {}},
    ),
    "SpanKind.type": _maybe(
        "its type; else `custom`", {"type": "string", "enum": [*get_args(Kind)]}, "llm_call"
    ),
    "SpanKind.kind": _maybe("of `custom`: what you call it", _WORD),
    "SpanKind.attributes": _maybe("an object with more", _OBJECT),
    "SpanKind.model": _maybe("the model", _WORD, "gpt-4o-mini"),
    "SpanKind.provider": _maybe("whose prices hold", _WORD, "openai"),
    "SpanKind.response_id": _maybe(
        "the id of the answer, by which a call that was proxied as well is known",
        _WORD,
    ),
    "SpanKind.input_tokens": _maybe("all tokens sent", _COUNT, 612),
    "SpanKind.output_tokens": _maybe("all tokens answered", _COUNT, 52),
    **{
        f"SpanKind.{name}": _maybe(meaning, _COUNT)
        for name, meaning in {
            "cached_input_tokens": "of the input: read from a cache",
            "cache_write_tokens": "of the input: written to a cache",
            "reasoning_tokens": "of the output: reasoning",
        }.items()
    },
    "SpanKind.cost": _maybe(
        "USD; else ours, by the tokens", {"type": "number", "minimum": 0, "maximum": MAX_COST_USD}
    ),
    "created": About("whether it is new; false where it was there", True),
    "TakenTrace.status": About("its state", "running", {"enum": [*STATUSES["traces"]]}),
    "TakenSpan.status": About("its state", "running", {"enum": [*STATUSES["spans"]]}),
    "EndedSpan.status": About("its state", "completed", {"enum": [*STATUSES["spans"], "waiting"]}),
    "EndedTrace.status": About(
        "its state", "completed", {"enum": [*STATUSES["traces"], "waiting"]}
    ),
    **dict.fromkeys(("TakenTrace.id", "EndedTrace.id"), About("the trace's id", _TRACE)),
    **dict.fromkeys(("TakenSpan.id", "EndedSpan.id"), About("the span's id", _SPAN)),
    "results": About("one for each item, in their order"),
    "accepted": About("items that are stored, by this request or by an earlier one", 1),
    "refused": About("items that are not", 0),
    "TakenItem.status": About("what it would have been answered alone: 200 to 202, 400, 409", 201),
    "TakenItem.id": About("its id; absent where it is no item", _TRACE),
    "TakenItem.error": About("what is wrong with it"),
}
