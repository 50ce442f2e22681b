"""What a person reads in one message: its text, its parts, the tools that it calls or answers.

Owns the ways in which chat messages, items of a response and prompts spell the same things.
Invariant: nothing here raises, no text holds a NUL or a lone surrogate, and no sound or file leaves
this file, only its kind and size; a picture does as ``picture``, which is for a person's eyes
alone. Nothing is cut here. Pure; not on the event loop.

Source: types of openai-python 3.54.0 (November 2026); ``reasoning_content`` and ``reasoning`` of
chat messages are other providers'.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import orjson

from proxy.providers.lenient import clean, items, mapping
from proxy.providers.output import item_kind

PartKind = Literal["text", "refusal", "reasoning", "image", "audio", "file", "other"]

_TEXTS: Final = frozenset({"text", "input_text", "output_text"})
_THOUGHTS: Final = frozenset({"reasoning", "reasoning_text", "summary_text", "thinking"})
_ARGUMENTS: Final = ("arguments", "input", "code", "action", "operation", "queries", "query")
_RESULTS: Final = ("output", "outputs", "results", "error")
# Characters of an address that is shown: as many as browsers took for long.
_ADDRESS_CHARS: Final = 2048
_DATA_URL: Final = re.compile(r"data:([^;,]{0,127})[^,]{0,127},", re.IGNORECASE)

# How agents begin a conversation that goes on from one that grew too long: Claude Code, Codex,
# the Agents SDKs, and what most prompts for summaries make a model answer.
_SUMMARY: Final = re.compile(
    r"<(?:conversation_|context_)?summary>"
    r"|continued from (?:a|the) previous (?:conversation|session)"
    r"|summary of (?:the|our|this) (?:earlier |previous |prior )?(?:conversation|session|chat)"
    r"|(?:conversation|session|context|chat) (?:so far )?(?:was|has been|have been|is) "
    r"(?:summari[sz]ed|compacted|condensed)"
    r"|(?:conversation|session) summary"
    r"|(?:produced|created) a summary",
    re.IGNORECASE,
)
# Characters in which a summary says that it is one.
_SUMMARY_CHARS: Final = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message that is not plain text, or stands beside one that is not.

    ``name`` is a file's name or id, or the kind of an ``other``. ``size`` is in bytes, of what is
    in the message; ``url`` is where it is instead. ``picture`` is an image's base64.
    """

    kind: PartKind
    text: str | None = None
    name: str | None = None
    mime: str | None = None
    size: int | None = None
    url: str | None = None
    picture: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. Its result is found by ``id``; ``kind`` is "function" or another."""

    id: str | None
    name: str
    kind: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A message as a person reads it.

    ``text`` is all plain text of it. ``parts`` are all its parts in order, and none where it is
    plain text alone. ``result_of`` is the id of the tool call that it answers. ``summary``: it
    stands for messages before it.
    """

    role: str
    text: str
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    result_of: str | None = None
    summary: bool = False


def read(data: bytes) -> Reading:
    """Read a message, an item of a response, or a prompt, from its JSON bytes."""
    value = _parse(data)
    if not isinstance(value, dict):
        text = clean(value) if isinstance(value, str) else clean(data.decode("utf-8", "replace"))
        return _reading("user", [Part("text", text)], [], None)
    kind = item_kind(value)
    return _message(value) if kind is None else _item(kind, value)


def tool_names(data: bytes) -> dict[str, bytes]:
    """Read a request's list of tools or functions: each one's name, with its JSON to compare."""
    found = {}
    for tool in map(mapping, items(_parse(data))):
        inner = mapping(tool.get("function")) or mapping(tool.get("custom")) or tool
        kind, name = _text(tool.get("type")), _text(inner.get("name"))
        label = _text(tool.get("server_label"))
        found[name or (f"{kind}:{label}" if label else kind) or "?"] = _json(tool, sort=True)
    return found


def instruction_text(data: bytes) -> str:
    """Read a request's instructions: a string, or a list of items."""
    value = _parse(data)
    if isinstance(value, list):
        return "\n\n".join(filter(None, (_message(mapping(item)).text for item in value)))
    return _text(value)


def answer_so_far(data: bytes) -> Reading:
    """Read an answer as far as it came: a message, several choices, or a response's output."""
    value = _parse(data)
    found = value[0] if isinstance(value, list) and value else value
    answer = mapping(found)
    if choices := items(answer.get("choices")):
        choice = mapping(choices[0])
        answer = mapping(choice.get("message")) or {"content": choice.get("text")}
    if "output" not in answer:
        return _message(answer) if answer else Reading("assistant", _text(found))
    readings = [
        _item(kind, item) if (kind := item_kind(item)) else _message(item)
        for item in map(mapping, items(answer["output"]))
    ]
    parts = [part for one in readings for part in (one.parts or [Part("text", one.text)])]
    calls = [call for one in readings for call in one.tool_calls]
    return _reading("assistant", parts, calls, None)


def _reading(
    role: str, parts: Iterable[Part], calls: Iterable[ToolCall], result_of: str | None
) -> Reading:
    kept = tuple(part for part in parts if part.kind != "text" or part.text)
    texts = [part.text for part in kept if part.kind == "text" and part.text]
    text = "\n".join(texts)
    return Reading(
        role=role,
        text=text,
        parts=() if len(texts) == len(kept) == 1 else kept,
        tool_calls=tuple(calls),
        result_of=result_of,
        summary=_SUMMARY.search(text, 0, _SUMMARY_CHARS) is not None,
    )


def _message(message: Mapping[str, object]) -> Reading:
    thought = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    parts = [Part("reasoning", thought)] if thought else []
    parts += _parts(message.get("content"))
    if refusal := _text(message.get("refusal")):
        parts.append(Part("refusal", refusal))
    if audio := mapping(message.get("audio")):
        parts.append(_audio(audio, _text(audio.get("transcript"))))
    calls = []
    for call in map(mapping, items(message.get("tool_calls"))):
        kind = "function" if mapping(call.get("function")) else "custom"
        inner = mapping(call.get(kind))
        calls.append(
            ToolCall(_text(call.get("id")) or None, _text(inner.get("name")), kind, _asked(inner))
        )
    if call := mapping(message.get("function_call")):
        # Deprecated: its result names the function, and there is no other id.
        name = _text(call.get("name"))
        calls.append(ToolCall(name or None, name, "function", _asked(call)))
    role = _text(message.get("role")) or "assistant"
    result_of = _text(message.get("tool_call_id")) or (
        _text(message.get("name")) if role == "function" else ""
    )
    return _reading(role, parts, calls, result_of or None)


def _item(kind: str, item: Mapping[str, object]) -> Reading:
    """Read an item of a response that is no message."""
    call_id = _text(item.get("call_id")) or _text(item.get("id")) or None
    if kind == "reasoning":
        thoughts = [*items(item.get("summary")), *items(item.get("content"))]
        text = "\n".join(_text(mapping(thought).get("text")) for thought in thoughts)
        return _reading("assistant", [Part("reasoning", text or None)], [], None)
    if kind == "image_generation_call":
        picture = _text(item.get("result"))
        mime = f"image/{_text(item.get('output_format')) or 'png'}"
        call = ToolCall(call_id, "image_generation", kind, _text(item.get("revised_prompt")))
        image = Part("image", mime=mime, size=_size(picture), picture=picture)
        parts = [image] if picture else []
        return _reading("assistant", parts, [call], None)
    if kind.endswith("_call"):
        name = _text(item.get("name")) or kind.removesuffix("_call")
        # What the provider runs itself has its result beside it.
        results = [part for key in _RESULTS for part in _result(item.get(key))]
        called = "function" if kind == "function_call" else kind.removesuffix("_tool_call")
        return _reading("assistant", results, [ToolCall(call_id, name, called, _asked(item))], None)
    if kind.endswith("_output"):
        return _reading("tool", _result(item.get("output")), [], _text(item.get("call_id")) or None)
    role = _text(item.get("role")) or "assistant"
    found = _reading(role, [Part("other", name=kind), *_parts(item.get("content"))], [], None)
    if kind not in ("compaction", "compaction_summary", "context_compaction"):
        return found
    return Reading(role, found.text, found.parts, summary=True)


def _parts(content: object) -> list[Part]:
    """Read a content: a string, a part, or a list of them."""
    if content is None:
        return []
    values = content if isinstance(content, list) else [content]
    return [_part(value) for value in values]


def _part(value: object) -> Part:
    part = mapping(value)
    if not part:
        return Part("text", _text(value) if isinstance(value, str) else _dumped(value))
    kind, text = _text(part.get("type")), part.get("text")
    if kind in _THOUGHTS:
        return Part("reasoning", _text(text) or _text(part.get("thinking")))
    if isinstance(text, str) and (kind in _TEXTS or not kind):
        return Part("text", clean(text))
    if kind == "refusal":
        return Part("refusal", _text(part.get("refusal")))
    if kind in ("image_url", "input_image", "computer_screenshot", "image"):
        image = part.get("image_url")
        return _address("image", image.get("url") if isinstance(image, dict) else image, part)
    if kind in ("input_audio", "audio"):
        return _audio(mapping(part.get(kind)) or part, "")
    if kind in ("file", "input_file"):
        file = mapping(part.get("file")) or part
        return _address("file", file.get("file_data") or file.get("file_url"), file)
    return Part("other", _text(text) or None, name=kind or None)


def _address(kind: PartKind, value: object, part: Mapping[str, object]) -> Part:
    """Read a picture or a file: in a data URL, in bare base64, at an address, or known by an id."""
    address = _text(value)
    name = _text(part.get("filename")) or _text(part.get("file_id")) or None
    if found := _DATA_URL.match(address):
        data = address[found.end() :]
        picture = data if kind == "image" else None
        return Part(kind, name=name, mime=found[1] or None, size=_size(data), picture=picture)
    if address.lower().startswith(("http://", "https://")):
        return Part(kind, name=name, url=address if len(address) <= _ADDRESS_CHARS else None)
    return Part(kind, name=name, size=_size(address) if address else None)


def _audio(audio: Mapping[str, object], transcript: str) -> Part:
    data, form = _text(audio.get("data")), _text(audio.get("format"))
    return Part(
        "audio",
        transcript or None,
        name=_text(audio.get("id")) or None,
        mime=f"audio/{form}" if form else None,
        size=_size(data) if data else None,
    )


def _result(value: object) -> Iterator[Part]:
    """Read what a tool gave: text, parts, or whatever JSON it is."""
    for part in _parts(value):
        yield Part("text", _dumped(value)) if part.kind == "other" and not part.text else part


def _asked(call: Mapping[str, object]) -> str:
    for key in _ARGUMENTS:
        if value := call.get(key):
            return clean(value) if isinstance(value, str) else _dumped(value)
    return ""


def _size(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")


def _text(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


def _dumped(value: object) -> str:
    return clean(_json(value).decode("utf-8", "replace"))


def _json(value: object, *, sort: bool = False) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort else None)
    except TypeError:  # lone surrogates, depth or numbers beyond orjson's
        pass
    try:
        return json.dumps(value, sort_keys=sort).encode()
    except (TypeError, ValueError, RecursionError):
        return b""


def _parse(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
