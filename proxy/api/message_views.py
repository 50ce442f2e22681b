"""The JSON shapes of a conversation: one dataclass each, and how parts of messages fill them. Pure.

Invariants: a text is cut at ``TEXT_CHARS``, unless more is asked for, with its length beside it;
what is unknown is null; no picture, sound or file is here, since a message's ``link`` has it.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from proxy.api.units import iso, iso_or_none, ms, usd
from proxy.providers.reading import Part, ToolCall
from storage.lines import Kind
from storage.records import Span

# Characters of a text in a page: some pages of a book.
TEXT_CHARS: Final = 16 * 1024
# Lines on each side that are compared one by one; comparing takes the square of it.
DIFF_LINES: Final = 200
# Differences that one change lists, and characters of each.
MAX_CHANGES: Final = 1000
CHANGE_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnView:
    """The call that a message came with first. `number` counts the session's turns from 1."""

    number: int
    trace_id: str | None
    span_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartView:
    """A part of a message. `size` is in bytes; `name` is a file's, or what an "other" is."""

    kind: str
    text: str | None
    length: int | None
    truncated: bool
    name: str | None
    mime: str | None
    size: int | None
    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallView:
    """A tool call. `arguments_json` is null where the arguments are no JSON, or were cut.

    `result` is the id of the message with its result, `result_position` that message's position.
    """

    id: str | None
    name: str
    kind: str
    arguments: str
    arguments_json: orjson.Fragment | None
    length: int
    truncated: bool
    result: str | None
    result_position: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResultView:
    """Whose result a message is: the call's own id, and the message with the call."""

    call_id: str
    call: str | None
    call_position: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchView:
    """One of the messages that stand in the same place; `id` is what ?branch= takes."""

    id: str
    current: bool
    turns: int
    last_active_at: str
    preview: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeView:
    """One difference: "added", "removed" or "changed", and the line, or the tool's name."""

    change: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeView:
    """How a turn ended. `repeats` is the number of later turns with the same answer."""

    trace_id: str
    span_id: str
    state: str
    error: str | None
    ended_by: str | None
    phase: str | None
    http_status: int | None
    started_at: str
    ended_at: str | None
    duration_ms: float | None
    ttft_ms: float | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    reasoning_tokens: int | None
    usage_source: str | None
    cost: float | None
    cost_status: str | None
    handed_in: bool
    repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """One line of a conversation. Which fields say something depends on `kind`."""

    id: str
    position: int
    thread: str
    parent: str | None
    kind: Kind
    role: str | None
    turn: TurnView
    at: str
    link: str
    text: str | None = None
    length: int | None = None
    truncated: bool = False
    parts: Sequence[PartView] = ()
    tool_calls: Sequence[ToolCallView] = ()
    tool_result: ToolResultView | None = None
    outcome: OutcomeView | None = None
    branches: Sequence[BranchView] = ()
    tools: Sequence[str] = ()
    changes: Sequence[ChangeView] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadView:
    """Messages that hang together. `kind` is "conversation", "window" or "compaction"."""

    id: str
    kind: str
    replaces: str | None
    started_at: str
    last_active_at: str
    turns: int


def part_view(part: Part, most_chars: int = TEXT_CHARS) -> PartView:
    """Show a part of a message."""
    return PartView(
        kind=part.kind,
        text=None if part.text is None else part.text[:most_chars],
        length=None if part.text is None else len(part.text),
        truncated=part.text is not None and len(part.text) > most_chars,
        name=part.name,
        mime=part.mime,
        size=part.size,
        url=part.url,
    )


def tool_call_view(
    call: ToolCall, result: str | None, position: int | None, most_chars: int = TEXT_CHARS
) -> ToolCallView:
    """Show a tool call, with the id and position of the message that has its result."""
    truncated = len(call.arguments) > most_chars
    return ToolCallView(
        id=call.id,
        name=call.name,
        kind=call.kind,
        arguments=call.arguments[:most_chars],
        arguments_json=None if truncated else _json(call.arguments),
        length=len(call.arguments),
        truncated=truncated,
        result=result,
        result_position=position,
    )


def outcome_view(span: Span, repeats: int) -> OutcomeView:
    """Show how a call ended."""
    return OutcomeView(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        state=span.state,
        error=span.error,
        ended_by=span.ended_by,
        phase=span.phase,
        http_status=span.http_status,
        started_at=iso(span.started_at_us),
        ended_at=iso_or_none(span.ended_at_us),
        duration_ms=ms(span.duration_us),
        ttft_ms=ms(span.first_token_us),
        model=span.model or span.model_requested,
        input_tokens=span.tokens.input,
        output_tokens=span.tokens.output,
        cached_input_tokens=span.tokens.cached_input,
        reasoning_tokens=span.tokens.reasoning,
        usage_source=span.usage_source,
        cost=usd(span.cost_nusd),
        cost_status=span.cost_status,
        handed_in=span.handed_in,
        repeats=repeats,
    )


def changed_lines(old: str, new: str) -> list[ChangeView]:
    """List the lines that differ, in the order of the texts.

    Where there are too many to compare one by one, all between the first and the last are listed.
    """
    a, b = old.splitlines(), new.splitlines()
    start = _common(a, b)
    a, b = a[start:], b[start:]
    if end := _common(a[::-1], b[::-1]):
        a, b = a[:-end], b[:-end]
    found: Iterator[ChangeView]
    if max(len(a), len(b)) > DIFF_LINES:
        found = _changes(a, b)
    else:
        matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
        found = (
            change
            for tag, i, j, k, m in matcher.get_opcodes()
            if tag != "equal"
            for change in _changes(a[i:j], b[k:m])
        )
    return [change for change, _ in zip(found, range(MAX_CHANGES), strict=False)]


def changed_tools(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> list[ChangeView]:
    """List the tools that came, went, or are not what they were, by name."""
    found = [ChangeView(change="added", text=name) for name in new if name not in old]
    found += [ChangeView(change="removed", text=name) for name in old if name not in new]
    found += [
        ChangeView(change="changed", text=name)
        for name in new
        if name in old and old[name] != new[name]
    ]
    return found[:MAX_CHANGES]


def _changes(removed: Sequence[str], added: Sequence[str]) -> Iterator[ChangeView]:
    for change, lines in (("removed", removed), ("added", added)):
        for line in lines:
            yield ChangeView(change=change, text=line[:CHANGE_CHARS])


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Count the lines at the beginning that are the same."""
    for n, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return n
    return min(len(a), len(b))


def _json(text: str) -> orjson.Fragment | None:
    """Give text as the JSON that it is: as it was written, so that no number loses digits."""
    try:
        orjson.loads(text)
    except ValueError:
        return None
    return orjson.Fragment(text)
