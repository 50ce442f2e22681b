"""The events of a Responses stream, put together to the response that they tell of.

Invariant: what the provider sent whole, a response or an item, keeps its exact bytes; only where
it did not, an item is made of its deltas. Sound and pictures are left out.

Source: openai-python 3.54.0, ``ResponseStreamEvent`` (November 2026).
"""

from collections import defaultdict
from typing import Any, Final

import msgspec

from proxy.providers.lenient import decode, encode, items, key

# Each has the response as it stands then; the last one is the answer.
_RESPONSES: Final = frozenset(
    f"response.{state}"
    for state in ("created", "queued", "in_progress", "completed", "incomplete", "failed")
)
_ADDED: Final = "response.output_item.added"
_DONE: Final = "response.output_item.done"
# Pieces of text: of which item, in which field, and where that is a list of parts, in a part of
# which type, under which key.
_DELTAS: Final = {
    "response.output_text.delta": ("message", "content", "output_text", "text"),
    "response.refusal.delta": ("message", "content", "refusal", "refusal"),
    "response.audio.transcript.delta": ("message", "content", "output_audio", "transcript"),
    "response.reasoning_text.delta": ("reasoning", "content", "reasoning_text", "text"),
    "response.reasoning_summary_text.delta": ("reasoning", "summary", "summary_text", "text"),
    "response.function_call_arguments.delta": ("function_call", "arguments", "", ""),
    "response.custom_tool_call_input.delta": ("custom_tool_call", "input", "", ""),
    "response.mcp_call_arguments.delta": ("mcp_call", "arguments", "", ""),
    "response.code_interpreter_call_code.delta": ("code_interpreter_call", "code", "", ""),
}
RESPONSE_EVENTS: Final = _RESPONSES | _DELTAS.keys() | {_ADDED, _DONE}


class _ResponseEvent(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw(b"")


class _Output(msgspec.Struct):
    output: Any = None


class _ItemEvent(msgspec.Struct):
    item: msgspec.Raw = msgspec.Raw(b"")
    item_id: Any = None
    output_index: Any = None
    content_index: Any = None
    summary_index: Any = None
    delta: Any = None


_RESPONSE_EVENT: Final = msgspec.json.Decoder(_ResponseEvent)
_OUTPUT: Final = msgspec.json.Decoder(_Output)
_ITEM_EVENT: Final = msgspec.json.Decoder(_ItemEvent)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ResponseEvents:
    """The events of one stream, left unread: nearly every stream ends with the whole response."""

    def __init__(self) -> None:
        self._response = b""
        self._pieces: list[tuple[str, bytes]] = []

    def add(self, kind: str, data: bytes) -> None:
        """Take the next event, of one of the types in ``RESPONSE_EVENTS``."""
        if kind in _RESPONSES:
            self._response = data
        else:
            self._pieces.append((kind, data))

    def answer(self) -> tuple[bytes | None, list[object]]:
        """Return the response as JSON, None where nothing came, and its output, parsed."""
        event = decode(_RESPONSE_EVENT, self._response) if self._response else None
        response = bytes(event.response) if event else b""
        output = _output(response)
        if self._pieces and not output:  # it was cut, or failed
            fields = (decode(_FIELDS, response) if response else None) or {}
            response = msgspec.json.encode(fields | {"output": msgspec.Raw(self._items())})
            output = _output(response)
        return response or None, output

    def _items(self) -> bytes:
        found: defaultdict[str, _Item] = defaultdict(_Item)
        for kind, data in self._pieces:
            if event := decode(_ITEM_EVENT, data):
                found[key(event.output_index)].add(kind, event)
        return b"[%b]" % b",".join(item.whole() for item in found.values())


class _Item:
    """One item of the output, as far as it came."""

    __slots__ = ("done", "fields", "texts")

    def __init__(self) -> None:
        self.done = b""
        self.fields: dict[str, object] = {}
        self.texts: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)

    def add(self, kind: str, event: _ItemEvent) -> None:
        if kind == _DONE:
            self.done = bytes(event.item)
        elif kind == _ADDED:
            added = decode(_OBJECT, bytes(event.item)) or {}
            self.fields = {name: value for name, value in added.items() if isinstance(value, str)}
        elif isinstance(event.delta, str):
            item_kind, *place = _DELTAS[kind]
            if not self.fields:
                self.fields = {"type": item_kind}
                if isinstance(event.item_id, str):
                    self.fields["id"] = event.item_id
            part = (key(event.content_index), key(event.summary_index))
            self.texts[(*place, *part)].append(event.delta)

    def whole(self) -> bytes:
        if self.done:
            return self.done
        item = dict(self.fields)
        parts: defaultdict[str, list[object]] = defaultdict(list)
        for (name, part_kind, text_key, *_), pieces in self.texts.items():
            text = "".join(pieces)
            if part_kind:
                parts[name].append({"type": part_kind, text_key: text})
            else:
                item[name] = text
        return encode(item | parts)


def _output(response: bytes) -> list[object]:
    parsed = decode(_OUTPUT, response) if response else None
    return items(parsed.output) if parsed else []
