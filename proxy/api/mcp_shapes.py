"""What the MCP server shows of the API's views: figures as they are, recorded texts by themselves.

Invariants: each figure is the view's own; a text that is no word, id or time of ours stands under
``recorded``, whatever fields a view has. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Final

import orjson

from proxy.api.mcp_text import Piece, capped
from proxy.api.mcp_tools import OWN_TEXTS
from proxy.api.message_views import MessageView, PartView, ToolCallView
from proxy.api.span_views import EndView, SpanView
from proxy.providers.reading import Part, Reading, ToolCall

Row = dict[str, object]

# What a list shows of a session, what matters most first; get_session has all of it.
_OF_SESSION: Final = (
    *("id", "status", "last_active_at", "trace_count", "failed_trace_count", "cost"),
    *("unpriced_count", "total_tokens", "duration_ms", "name", "user_id", "models"),
    *("first_input", "last_output", "last_error"),
)
# What of a turn is left the longest where there is little room.
_OF_TURN: Final = ("id", "status", "started_at", "duration_ms", "cost", "total_tokens", "error")
# The kind of a custom span is its application's word; that of a message is ours.
_OWN_OF_KINDS: Final = OWN_TEXTS - {"kind"}
# Characters of a role, which a request may have made up.
_ROLE_CHARS: Final = 40


def row(values: Mapping[str, object], own: frozenset[str] = OWN_TEXTS) -> Row:
    """Part a view's fields into figures and what was recorded."""
    figures: Row = {}
    recorded: Row = {}
    for name, value in values.items():
        if value is None or isinstance(value, bool | int | float):
            if name in own or not _is_text(name):
                figures[name] = value
        elif isinstance(value, str) and name in own:
            figures[name] = value
        elif isinstance(value, orjson.Fragment):
            recorded[name] = orjson.dumps(value).decode()
        elif isinstance(value, str):
            recorded[name] = value
        elif isinstance(value, list | tuple) and value and isinstance(value[0], str):
            recorded[name] = list(value)
    return {**figures, **({"recorded": recorded} if recorded else {})}


# Fields of views that hold recorded texts: where they are null there is nothing to show.
_TEXTS: Final = frozenset(
    {
        *(
            "name",
            "user_id",
            "first_input",
            "last_output",
            "last_error",
            "input",
            "output",
            "error",
        ),
        *(
            "model",
            "model_requested",
            "provider",
            "service_tier",
            "upstream",
            "operation",
            "method",
        ),
        *("path", "query", "response_id", "request_headers", "response_headers", "label"),
        *("request", "response", "attributes", "custom", "text", "length", "link"),
    }
)


def _is_text(name: str) -> bool:
    return name in _TEXTS


def values(view: object) -> Row:
    """Give the fields of a view by name."""
    assert is_dataclass(view)  # noqa: S101 (a view is one)
    return {one.name: getattr(view, one.name) for one in fields(view)}


def session_row(view: object) -> Row:
    """Show a session in a list."""
    found = values(view)
    return _last(row({name: found[name] for name in _OF_SESSION}))


def session_item(answer: Mapping[str, object]) -> Row:
    """Show a session with all that is known of it, and its budget."""
    known = {name: answer[name] for name in _OF_SESSION} | dict(answer)
    found = row({name: value for name, value in known.items() if name != "budget"})
    budget = answer["budget"]
    found["budget"] = None if budget is None else values(budget)
    return _last(found)


def turn_row(view: object) -> Row:
    """Show a trace of a session."""
    known = values(view)
    found = {name: known[name] for name in _OF_TURN} | known
    del found["session_id"]
    return _last(row(found))


def match_row(span: SpanView, session_id: str | None, snippets: Sequence[Row]) -> Row:
    """Show a span that was found: by what was found, or else by how it begins."""
    kind = row(values(span.kind), _OWN_OF_KINDS)
    status, end = status_of(span)
    said = _recorded(kind)
    recorded: Row = {key: said[key] for key in ("model", "provider") if key in said}
    if snippets:
        recorded["snippets"] = list(snippets)
    else:
        both = {"input": span.input, "output": span.output}
        recorded |= {key: text for key, text in both.items() if isinstance(text, str)}
    return {
        "span_id": span.id,
        "trace_id": span.trace_id,
        "session_id": session_id,
        "status": status,
        "started_at": span.started_at,
        "duration_ms": span.metadata.duration_ms,
        **{key: kind[key] for key in ("type", "cost", "input_tokens", "output_tokens")},
        "recorded": {**recorded, **_recorded(end)},
    }


def span_heads(span: SpanView, lengths: Mapping[str, int | None]) -> list[Row]:
    """Show a span without its input and output, in full and as little as may be."""
    status, end = status_of(span)
    metadata = {k: v for k, v in values(span.metadata).items() if not k.endswith("_headers")}
    parts: list[Row] = [
        row({"id": span.id, "trace_id": span.trace_id, "parent_id": span.parent_id}),
        {"status": status},
        row(values(span.kind), _OWN_OF_KINDS),
        row({"started_at": span.started_at, "ended_at": span.ended_at, "name": span.name}),
        end,
        row(metadata),
        {f"{side}_length": length for side, length in lengths.items()},
    ]
    full: Row = {}
    recorded: Row = {}
    for part in parts:
        full |= part
        recorded |= _recorded(part)
    few = ("id", "status", "type", "cost", "input_tokens", "output_tokens")
    small = {key: full[key] for key in few}
    return [
        {**full, "recorded": recorded},
        {**full, "recorded": capped(recorded, 200, 5), "cut": True},
        {**small, "recorded": capped(recorded, 60, 1), "cut": True},
        {"id": span.id, "cut": True},
    ]


def status_of(span: SpanView) -> tuple[str, Row]:
    """Give a span's state, and how it ended that did not complete."""
    if isinstance(span.status, str):
        return span.status, {}
    ((state, end),) = span.status.items()
    assert isinstance(end, EndView)  # noqa: S101 (span_views makes no other)
    return state, row(values(end))


def message_heads(view: MessageView) -> list[Row]:
    """Show a message without its texts, in full and as little as may be."""
    role = None if view.role is None else str(capped(view.role, _ROLE_CHARS, 0))
    full: Row = {
        "position": view.position,
        "role": role,
        "kind": view.kind,
        "id": view.id,
        "at": view.at,
        "turn": view.turn.number,
        "trace_id": view.turn.trace_id,
        "span_id": view.turn.span_id,
    }
    recorded: Row = {}
    if view.tool_result is not None:
        full["result_of"] = view.tool_result.call
        recorded["result_of"] = view.tool_result.call_id
    if len(view.branches) > 1:
        full["branches"] = [branch.id for branch in view.branches]
    if view.outcome is not None:
        outcome = row(values(view.outcome))
        del outcome["trace_id"]
        recorded |= _recorded(outcome)
        full["outcome"] = {key: value for key, value in outcome.items() if key != "recorded"}
    return [
        {**full, **({"recorded": recorded} if recorded else {})},
        {"position": view.position, "role": role, "span_id": view.turn.span_id, "cut": True},
        {"position": view.position, "cut": True},
    ]


def message_pieces(view: MessageView, reading: Reading | None) -> list[Piece]:
    """Give a message's texts: those of its view, or whole ones where a reading has them."""
    text = view.text if reading is None else reading.text
    found = [Piece("text", text)] if text else []
    found += _part_pieces(view.parts if reading is None else reading.parts)
    found += _call_pieces(view, reading)
    if view.tools:
        found.append(Piece("tools", ", ".join(view.tools)))
    return found


def _part_pieces(parts: Iterable[Part] | Iterable[PartView]) -> Iterator[Piece]:
    """Give the parts of a message that its text does not have."""
    for part in parts:
        known = {key: getattr(part, key) for key in ("kind", "name", "mime", "size", "url")}
        if known["kind"] != "text":
            text = part.text or ""
            beside = {key: value for key, value in known.items() if value is not None}
            yield Piece("parts", text, "text", dict(beside))


def _call_pieces(view: MessageView, reading: Reading | None) -> Iterator[Piece]:
    results = [call.result for call in view.tool_calls]
    calls: Sequence[ToolCall | ToolCallView] = (
        view.tool_calls if reading is None else reading.tool_calls
    )
    for number, call in enumerate(calls):
        beside: Row = {"name": call.name}
        if call.id is not None:
            beside["id"] = call.id
        if number < len(results) and results[number] is not None:
            beside["result"] = results[number]
        yield Piece("tool_calls", call.arguments, "arguments", beside)


def is_cut(view: MessageView) -> bool:
    """Tell whether a view has not all of its message's texts."""
    some: list[PartView | ToolCallView] = [*view.parts, *view.tool_calls]
    return view.truncated or any(one.truncated for one in some)


def _recorded(found: Row) -> Row:
    recorded = found.get("recorded", {})
    return recorded if isinstance(recorded, dict) else {}


def _last(found: Row) -> Row:
    """Put what is recorded behind the figures."""
    return {
        **{key: value for key, value in found.items() if key != "recorded"},
        **({"recorded": _recorded(found)} if _recorded(found) else {}),
    }
