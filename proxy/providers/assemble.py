"""A stream's answer, put together from its events: the messages as JSON, and the text in them.

Invariant: what comes out is what the same answer would have been without a stream, as far as its
events came; nothing is made up. Sound and pictures are left out, usage and the state of the answer
are read elsewhere. Runs in the writer's thread, never on the event loop.

Source: openai-python 3.54.0, types of chunks and events (November 2026).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from proxy.providers.facts import Operation
from proxy.providers.lenient import decode, encode, items, key, mapping
from proxy.providers.messages import answer_path
from proxy.providers.output import answer_text, content_text
from proxy.providers.response_events import RESPONSE_EVENTS, ResponseEvents
from proxy.sse import Event


@dataclass(frozen=True, slots=True)
class Assembled:
    """A stream's answer as JSON, and the model's text in it.

    ``path`` is where its messages stand in ``body``: one, or an array of them; () is the body
    itself.
    """

    body: bytes = field(repr=False)
    path: tuple[str | int, ...]
    text: str = field(default="", repr=False)


class _Chunk(msgspec.Struct):
    """A chunk of a chat or a completion, or an event of a transcript or a thread."""

    choices: Any = None
    type: Any = None
    id: Any = None
    delta: Any = None
    text: Any = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
# Choices of one stream. OpenAI gives 128 to each prompt; 8 MiB have room for 4 million.
MAX_CHOICES: Final = 10_000
# What a delta says in pieces of text. The last two are other providers' names.
_TEXTS: Final = ("content", "refusal", "reasoning_content", "reasoning")


def assemble(operation: Operation, events: Iterable[Event]) -> Assembled | None:
    """Put a stream's answer together, wherever it was cut; None where it is of no conversation.

    A chat gives its message, or a list of them where there are several choices; a completion its
    choices with their texts; a response is the one that the provider sent last, in its exact bytes,
    unless that has no output yet: then what came of it is put in.
    """
    path = answer_path(operation)
    if path is None:
        return None
    messages, response, _ = _read(events)
    if not messages:
        body, output = response.answer()
        return Assembled(body, ("output",), answer_text(None, output, None)) if body else None
    text = answer_text([{"message": message} for message in messages], None, None)
    if operation.name == "completions":
        texts = [{"text": message["content"] or ""} for message in messages]
        return Assembled(encode({"choices": texts}), path, text)
    if len(messages) == 1:
        return Assembled(encode(messages[0]), (), text)
    return Assembled(encode(messages), (0,), text)


def stream_text(operation: Operation, events: Iterable[Event]) -> str:
    """Give the text of a stream that is of no conversation: a transcript, a run, or unknown."""
    if operation.name.startswith("images.") or operation.name == "audio.speech":
        return ""  # pictures and sound in base64
    messages, response, spoken = _read(events)
    _, output = response.answer()
    return answer_text([{"message": message} for message in messages], output, spoken)


def _read(events: Iterable[Event]) -> tuple[list[dict[str, object]], ResponseEvents, str]:
    """Read a stream in one pass: the messages of its choices, its response, other text."""
    choices: dict[str, _Choice] = {}
    response = ResponseEvents()
    spoken: dict[str, list[str]] = {}
    for event in events:
        data, kind = event.data, event.name
        if not data.startswith(b"{"):
            continue  # comments, [DONE]
        if kind in RESPONSE_EVENTS:
            response.add(kind, data)
        elif not kind.startswith("response.") and (chunk := decode(_CHUNK, data)):
            if chunk.choices:
                _add_choices(choices, chunk.choices)
            elif isinstance(chunk.type, str) and chunk.type in RESPONSE_EVENTS:
                response.add(chunk.type, data)
            else:
                _add_spoken(spoken, chunk, kind)
    # By their numbers: the first to speak need not be the first.
    indexes = sorted(choices, key=lambda index: (len(index), index))
    texts = "\n".join("".join(pieces) for pieces in spoken.values())
    return [choices[index].message() for index in indexes], response, texts


class _Call:
    """A tool call, as far as it came."""

    __slots__ = ("arguments", "custom", "id", "name")

    def __init__(self, call_id: object, custom: bool) -> None:
        self.id = call_id if isinstance(call_id, str) else None
        self.custom = custom
        self.name: list[str] = []
        self.arguments: list[str] = []

    def add(self, function: Mapping[str, object]) -> None:
        tool_name = content_text(function.get("name"))
        if tool_name not in self.name[:1]:  # some send it again with each piece of the arguments
            self.name.append(tool_name)
        self.arguments.append(content_text(function.get("arguments") or function.get("input")))

    def named(self, arguments: str) -> dict[str, str]:
        return {"name": "".join(self.name), arguments: "".join(self.arguments)}

    def whole(self) -> dict[str, object]:
        call = {"id": self.id} if self.id else {}
        if self.custom:
            return {**call, "type": "custom", "custom": self.named("input")}
        return {**call, "type": "function", "function": self.named("arguments")}


class _Choice:
    """The message, or the text, of one choice."""

    __slots__ = ("audio_id", "calls", "function", "latest", "pieces", "role")

    def __init__(self) -> None:
        self.role = "assistant"
        self.pieces: dict[str, list[str]] = {}
        self.audio_id = ""
        self.function: _Call | None = None
        self.calls: list[_Call] = []
        self.latest: dict[str, _Call] = {}

    def add(self, field_name: str, value: object) -> None:
        if text := content_text(value):
            self.pieces.setdefault(field_name, []).append(text)

    def add_delta(self, delta: Mapping[str, object]) -> None:
        for field_name, value in delta.items():
            if not value:
                continue
            if field_name in _TEXTS:
                self.add(field_name, value)
            elif field_name == "tool_calls":
                for position, call in enumerate(map(mapping, items(value))):
                    self.add_call(position, call)
            elif field_name == "function_call":
                self.function = self.function or _Call(None, custom=False)
                self.function.add(mapping(value))
            elif field_name == "audio":
                audio_id = mapping(value).get("id")
                self.audio_id = audio_id if isinstance(audio_id, str) else self.audio_id
                self.add("audio", mapping(value).get("transcript"))
            elif field_name == "role" and isinstance(value, str):
                self.role = value

    def add_call(self, position: int, piece: Mapping[str, object]) -> None:
        index, call_id = key(piece.get("index")) or str(position), piece.get("id")
        function = mapping(piece.get("function"))
        custom = mapping(piece.get("custom"))
        call = self.latest.get(index)
        # Gateways that know no index give every call the first one, but an id of its own.
        if call is None or (call_id and call.id != call_id and function.get("name")):
            call = self.latest[index] = _Call(call_id, custom=bool(custom))
            self.calls.append(call)
        call.add(function or custom)

    def message(self) -> dict[str, object]:
        """Give the message, its keys in the provider's order."""
        texts = {name: "".join(pieces) for name, pieces in self.pieces.items()}
        message: dict[str, object] = {"role": self.role, "content": texts.pop("content", None)}
        transcript = texts.pop("audio", "")
        message |= texts
        if self.audio_id or transcript:
            audio_id = {"id": self.audio_id} if self.audio_id else {}
            message["audio"] = {**audio_id, "transcript": transcript}
        if self.function:
            message["function_call"] = self.function.named("arguments")
        if self.calls:
            message["tool_calls"] = [call.whole() for call in self.calls]
        return message


def _add_choices(choices: dict[str, _Choice], found: object) -> None:
    for position, choice in enumerate(items(found)):
        choice = mapping(choice)
        index = key(choice.get("index")) or str(position)
        kept = choices.get(index)
        if kept is None:
            if len(choices) >= MAX_CHOICES:
                continue
            kept = choices[index] = _Choice()
        if delta := choice.get("delta"):
            kept.add_delta(mapping(delta))
        elif text := choice.get("text"):  # of a legacy completion
            kept.add("content", text)


def _add_spoken(spoken: dict[str, list[str]], chunk: _Chunk, event_name: str) -> None:
    """Add an event of a transcript or of a run, whose messages are told apart by their ids."""
    kind = chunk.type or event_name
    if kind == "transcript.text.delta":
        spoken.setdefault("", []).append(content_text(chunk.delta))
    elif kind == "transcript.text.done":
        spoken[""] = [content_text(chunk.text)]
    elif kind == "thread.message.delta":
        text = content_text(mapping(chunk.delta).get("content"))
        spoken.setdefault(key(chunk.id), []).append(text)
