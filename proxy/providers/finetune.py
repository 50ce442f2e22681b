"""Writes conversations as lines for fine-tuning: OpenAI's format for chat models (supervised).

Owns what of a recorded message can be said in it. Invariants: a line has what the model saw and
nothing else, in order, texts exactly as they were; nothing is made up. What cannot be said raises
``NotExpressible`` with its reason and place, and never becomes something similar. What the model
thought is left out: it is no part of the format. Pure.

Source: the reference of the fine-tuning API (``FineTuneChatRequestInput``, November 2026): messages
of system, user, assistant (with ``weight`` 0 or 1) and tool, and ``tools`` that are functions.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from proxy.providers.lenient import encode, items, mapping
from proxy.providers.output import item_kind

Reason = Literal[
    "audio",
    "built_in_tool",
    "custom_tool",
    "file",
    "image",
    "item_reference",
    "legacy_function",
    "other",
    "refusal",
    "unpaired_tool_call",
    "unreadable",
]
# Items of a response that say what the model thought; they are not part of what it said.
_THOUGHTS: Final = frozenset({"reasoning"})
_THOUGHT_PARTS: Final = frozenset({"reasoning", "reasoning_text", "thinking", "redacted_thinking"})
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})
# Not within a text, where a quote has a backslash before it.
_CUT_SHORT: Final = re.compile(
    rb'(?<!\\)"(?:finish_reason"\s*:\s*"(?:length|content_filter)|status"\s*:\s*"incomplete)"'
)
_ROLES: Final = {
    "system": "system",
    # Of newer models; in a line it is the same.
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


class NotExpressible(Exception):
    """Something has no place in a line: why, and at which message; -1 for what is before all."""

    def __init__(self, reason: Reason, index: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.index = index


@dataclass(frozen=True, slots=True)
class Message:
    """A message, or an item of a response, as it was sent; ``turn`` is the one that it answers.

    It is None where the model did not write it in a call that is known.
    """

    data: bytes
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says beside the conversation: JSON each, `null` for nothing."""

    instructions: bytes = b"null"
    prelude: Sequence[bytes] = ()
    tools: bytes = b"null"
    functions: bytes = b"null"


@dataclass(slots=True)
class _Said:
    """A message of a line, and those messages that it was made of, by index."""

    value: dict[str, Any]
    first: int
    last: int
    turn: int | None = None
    calls: list[str] = field(default_factory=list)


def write_line(head: Head, messages: Sequence[Message], trained: Collection[int]) -> bytes:
    """Write a line of which the answers of these turns are trained; the last message is one.

    Raises:
        NotExpressible: something of it cannot be said in a line; all before its index can.
    """
    said = [*_instructions(head)]
    for index, message in enumerate(messages):
        value = _converted(message.data, index)
        if value is not None:
            _add(
                said, _Said(value, index, index, message.turn, _ids(value)), _is_call(message.data)
            )
    _check_pairs(said)
    for one in said:
        if one.value["role"] == "assistant":
            one.value["weight"] = int(one.turn is not None and one.turn in trained)
    line: dict[str, Any] = {"messages": [one.value for one in said]}
    if tools := _tools(head):
        line["tools"] = tools
    return encode(line)


def is_cut_short(frame: bytes) -> bool:
    """Tell whether an answer was ended before its end, by what stands around its messages."""
    return _CUT_SHORT.search(frame) is not None


def goes_on(request: bytes) -> bool:
    """Tell whether a request goes on with what the provider holds, and does not say itself."""
    try:
        value = mapping(_parsed(request, -1))
    except NotExpressible:
        return True  # for all that can be known
    return any(value.get(key) for key in ("previous_response_id", "conversation", "prompt"))


def _instructions(head: Head) -> Iterable[_Said]:
    value = _parsed(head.instructions, -1)
    if isinstance(value, str):
        yield _Said({"role": "system", "content": value}, -1, -1)
    given = [encode(one) for one in items(value)]
    for data in (*given, *head.prelude):
        if (converted := _converted(data, -1)) is not None:
            yield _Said(converted, -1, -1)


def _ids(value: Mapping[str, Any]) -> list[str]:
    return [call["id"] for call in value.get("tool_calls", ())]


def _add(said: list[_Said], one: _Said, is_call: bool) -> None:
    """Add a message; the calls of one answer that are items of their own are one message."""
    last = said[-1] if said else None
    if is_call and last is not None and last.value["role"] == "assistant" and last.turn == one.turn:
        last.value.setdefault("tool_calls", []).extend(one.value["tool_calls"])
        last.calls += one.calls
        last.last = one.last
        return
    said.append(one)


def _check_pairs(said: Sequence[_Said]) -> None:
    """See that each tool call has its result right behind it; those of the last message need none.

    Raises:
        NotExpressible: one has none, or a result has no call.
    """
    open_calls: set[str] = set()
    before = -1
    for one in said:
        if one.value["role"] == "tool":
            if one.value["tool_call_id"] not in open_calls:
                raise NotExpressible("unpaired_tool_call", one.first)
            open_calls.discard(one.value["tool_call_id"])
        elif open_calls:
            # What was called is the end of what can be said.
            raise NotExpressible("unpaired_tool_call", before + 1)
        if one.calls:
            open_calls = set(one.calls)
            before = one.last
            if len(open_calls) < len(one.calls):
                raise NotExpressible("unpaired_tool_call", one.first)
    if open_calls and said[-1].value["role"] != "assistant":
        raise NotExpressible("unpaired_tool_call", before + 1)


def _converted(data: bytes, index: int) -> dict[str, Any] | None:
    """Give a message as it stands in a line; None for what has no place there and is not missed."""
    value = _parsed(data, index)
    if isinstance(value, str):  # a response's input that is text alone
        return {"role": "user", "content": value}
    message = mapping(value)
    if not message:
        raise NotExpressible("unreadable", index)
    kind = item_kind(message)
    if kind in _THOUGHTS:
        return None
    return _item(kind, message, index) if kind else _message(message, index)


def _message(message: Mapping[str, object], index: int) -> dict[str, Any]:
    role = _ROLES.get(str(message.get("role")))
    if message.get("role") == "function" or message.get("function_call"):
        raise NotExpressible("legacy_function", index)
    if role is None:
        raise NotExpressible("other", index)
    if message.get("refusal"):
        raise NotExpressible("refusal", index)
    if message.get("audio"):
        raise NotExpressible("audio", index)
    content = _content(message.get("content"), role, index)
    said: dict[str, Any] = {"role": role, "content": content}
    if role == "tool":
        said["tool_call_id"] = _name(message.get("tool_call_id"), index)
    elif isinstance(message.get("name"), str):
        said["name"] = message["name"]
    if role == "assistant" and (calls := items(message.get("tool_calls"))):
        said["tool_calls"] = [_call(mapping(call), index) for call in calls]
    elif content is None:
        raise NotExpressible("unreadable", index)
    return said


def _item(kind: str, item: Mapping[str, object], index: int) -> dict[str, Any]:
    """Give an item of a response that is no message."""
    if kind == "function_call":
        call = _function(item.get("call_id"), item, index)
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        content = _content(item.get("output"), "tool", index)
        call_id = _name(item.get("call_id"), index)
        return {"role": "tool", "content": content or "", "tool_call_id": call_id}
    if kind.startswith("custom_tool_call"):
        raise NotExpressible("custom_tool", index)
    if kind == "item_reference":
        raise NotExpressible("item_reference", index)
    if kind.endswith(("_call", "_call_output", "_list_tools", "_approval_request")):
        raise NotExpressible("built_in_tool", index)
    raise NotExpressible("other", index)


def _call(call: Mapping[str, object], index: int) -> dict[str, Any]:
    if not mapping(call.get("function")):
        raise NotExpressible("custom_tool", index)
    return _function(call.get("id"), mapping(call["function"]), index)


def _function(call_id: object, call: Mapping[str, object], index: int) -> dict[str, Any]:
    arguments = call.get("arguments")
    if not isinstance(arguments, str):
        raise NotExpressible("unreadable", index)
    function = {"name": _name(call.get("name"), index), "arguments": arguments}
    return {"id": _name(call_id, index), "type": "function", "function": function}


def _content(content: object, role: str, index: int) -> str | list[dict[str, Any]] | None:
    """Give a content: a text where it is one, and else its parts."""
    if content is None or isinstance(content, str):
        return content
    parts = [_part(mapping(part), role, index) for part in items(content)]
    kept = [part for part in parts if part is not None]
    if not kept:
        return None
    return kept[0]["text"] if len(kept) == 1 and "text" in kept[0] else kept


def _part(part: Mapping[str, object], role: str, index: int) -> dict[str, Any] | None:
    kind, text = part.get("type"), part.get("text")
    if kind in _THOUGHT_PARTS:
        return None
    if kind in _TEXT_PARTS and isinstance(text, str):
        return {"type": "text", "text": text}
    if kind == "refusal":
        raise NotExpressible("refusal", index)
    if kind in ("input_audio", "audio"):
        raise NotExpressible("audio", index)
    if kind in ("file", "input_file"):
        raise NotExpressible("file", index)
    if kind in ("image_url", "input_image"):
        return {"type": "image_url", "image_url": _image(part, role, index)}
    raise NotExpressible("other", index)


def _image(part: Mapping[str, object], role: str, index: int) -> dict[str, Any]:
    """Give a picture of a user's: in the address itself, or where everybody may read it."""
    given = part.get("image_url")
    inner = given if isinstance(given, dict) else {"url": given, "detail": part.get("detail")}
    url, detail = inner.get("url"), inner.get("detail")
    if role != "user" or not isinstance(url, str):
        raise NotExpressible("image", index)
    if not url.lower().startswith(("data:image/", "https://", "http://")):
        raise NotExpressible("image", index)
    return {"url": url, "detail": detail} if isinstance(detail, str) else {"url": url}


def _tools(head: Head) -> list[dict[str, Any]]:
    """Give the functions that the model could call; what it had else has no place in a line."""
    tools = list(map(mapping, items(_parsed(head.tools, -1))))
    given = [mapping(tool.get("function")) or tool for tool in tools if _is_function(tool)]
    given += map(mapping, items(_parsed(head.functions, -1)))
    return [
        {"type": "function", "function": _signature(function)}
        for function in given
        if isinstance(function.get("name"), str)
    ]


def _is_function(tool: Mapping[str, object]) -> bool:
    return tool.get("type") == "function"


def _signature(function: Mapping[str, object]) -> dict[str, object]:
    names = ("name", "description", "parameters", "strict")
    return {name: function[name] for name in names if function.get(name) is not None}


def _name(value: object, index: int) -> str:
    if not isinstance(value, str) or not value:
        raise NotExpressible("unreadable", index)
    return value


def _is_call(data: bytes) -> bool:
    """Tell whether this is a call as an item of its own, which a message of the chat is not."""
    return item_kind(mapping(_parsed(data, -1))) == "function_call"


def _parsed(data: bytes, index: int) -> object:
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    try:
        # Lone halves of characters, and numbers that are too long for the other one.
        return json.loads(data)
    except (ValueError, RecursionError):
        raise NotExpressible("unreadable", index) from None
