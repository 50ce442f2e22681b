"""Messages as each convention writes them, made those of a chat. Pure; nothing here raises.

Owns how GenAI's parts, OpenInference's and OpenLLMetry's numbered attributes, the Vercel AI SDK's
content and the older events of a span spell a message. Invariants: text, tool calls and their
results, pictures and reasoning come out as OpenAI's chat has them, so that a conversation reads
them; a part that is none of these stays what it is.

Source: opentelemetry-util-genai 0.4b0 (types.py), openinference-semantic-conventions 0.1.42,
OpenLLMetry's instrumentation-openai 0.62.4, ai 6.0.326 (ModelMessage), as sent in November 2026.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from proxy.otlp.received import Event
from proxy.providers.lenient import encode, items, mapping

Message = dict[str, object]

# Words of a numbered attribute's name, `message.tool_calls.0.tool_call.function.name` among them.
_MAX_WORDS: Final = 10
_REASONING: Final = ("reasoning", "thinking")
_EVENT_ROLES: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_CHOICE: Final = "gen_ai.choice"
# Azure's libraries have the whole message in this one.
_EVENT_CONTENT: Final = "gen_ai.event.content"


@dataclass(slots=True)
class _Parts:
    """What a message holds, sorted."""

    content: list[object] = field(default_factory=list)
    calls: list[object] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)

    def messages(self, role: str) -> Iterator[Message]:
        """Give the message, and after it each result of a tool as one of its own."""
        if self.content or self.calls or self.reasoning or not self.results:
            message: Message = {"role": role, "content": self._content()}
            if self.reasoning:
                message["reasoning_content"] = "\n".join(self.reasoning)
            if self.calls:
                message["tool_calls"] = self.calls
            yield message
        yield from self.results

    def _content(self) -> object:
        if len(self.content) == 1 and mapping(self.content[0]).get("type") == "text":
            return mapping(self.content[0])["text"]
        if not self.content:
            return None if self.calls else ""
        return self.content


def parsed(value: object) -> object:
    """Give what JSON in a string says; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            return orjson.loads(value)
        except ValueError:
            pass
    return value


def is_chat(value: object) -> bool:
    """Tell whether a value is a list of a chat's messages."""
    return bool(items(value)) and all(
        isinstance(mapping(message).get("role"), str) and "parts" not in mapping(message)
        for message in items(value)
    )


def from_content(value: object) -> list[Message]:
    """Read a list of messages, of GenAI's parts or of the Vercel AI SDK's content."""
    found: list[Message] = []
    value = parsed(value)
    for message in map(mapping, items(value) or [value]):
        role = message.get("role")
        if not isinstance(role, str):
            continue
        if "parts" not in message and not isinstance(message.get("content"), list):
            found.append(_plain(role, message))
            continue
        parts = _Parts()
        for part in items(message.get("parts", message.get("content"))):
            _add(parts, part)
        for call in items(message.get("tool_calls")):
            _add_call(parts, mapping(call))
        named = {key: message[key] for key in ("name", "tool_call_id") if message.get(key)}
        found += ({**one, **named} for one in parts.messages(role))
    return found


def instructions(value: object) -> list[Message]:
    """Read GenAI's system instructions: parts, or text."""
    value = parsed(value)
    if isinstance(value, str):
        return [{"role": "system", "content": value}] if value else []
    parts = _Parts()
    for part in items(value):
        _add(parts, part)
    return list(parts.messages("system")) if parts.content else []


def from_numbered(attributes: Mapping[str, object], prefix: str) -> list[Message]:
    """Read messages out of attributes that begin with ``prefix`` and a number."""
    found: list[Message] = []
    for entry in map(mapping, numbered(attributes, prefix)):
        message = mapping(entry.get("message")) or entry
        role = message.get("role")
        parts = _Parts()
        content = parsed(message.get("content"))
        if isinstance(content, list) and all(mapping(part).get("type") for part in content):
            for part in content:
                _add(parts, part)
        elif (text := message.get("content")) not in (None, ""):
            parts.content.append({"type": "text", "text": text})
        for part in items(message.get("contents")):
            _add(parts, mapping(mapping(part).get("message_content")) or part)
        for call in items(message.get("tool_calls")):
            _add_call(parts, mapping(mapping(call).get("tool_call")) or mapping(call))
        named = {key: message[key] for key in ("name", "tool_call_id") if message.get(key)}
        found += (
            {**one, **named}
            for one in parts.messages(role if isinstance(role, str) and role else "user")
        )
    return found


def numbered(attributes: Mapping[str, object], prefix: str) -> list[object]:
    """Put together what attributes say by their names: `PREFIX0.a.b` is the first one's a's b.

    Numbers may be left out; they give the order and nothing else.
    """
    root: dict[str, object] = {}
    for name, value in attributes.items():
        if not name.startswith(prefix):
            continue
        words = name[len(prefix) :].split(".", _MAX_WORDS)
        place = root
        for word in words[:-1]:
            inner = place.setdefault(word, {})
            if not isinstance(inner, dict):
                break
            place = inner
        else:
            place.setdefault(words[-1], value)
    return items(_listed(root))


def from_events(events: Sequence[Event]) -> tuple[list[Message], list[Message]]:
    """Read the messages that came as events of the span: those asked, and those answered."""
    asked: list[Message] = []
    answered: list[Message] = []
    for event in events:
        if event.name not in _EVENT_ROLES and event.name != _CHOICE:
            continue
        body = mapping(parsed(event.attributes.get(_EVENT_CONTENT))) or event.attributes
        if event.name == _CHOICE:
            said = parsed(body.get("message", body))
            said = said if isinstance(said, dict) else {"content": said}
            answered.append(_plain("assistant", said))
        else:
            asked.append(_plain(_EVENT_ROLES[event.name], body))
    return asked, answered


def tools(value: object, attributes: Mapping[str, object]) -> list[object]:
    """Read the tools that a model was told of, as a chat's request has them."""
    found = []
    value = numbered(attributes, value) if isinstance(value, str) and value[-1:] == "." else value
    for tool in items(parsed(value)):
        fields = mapping(parsed(tool))
        fields = mapping(parsed(mapping(fields.get("tool")).get("json_schema"))) or fields
        if "function" in fields or not isinstance(fields.get("name"), str):
            found.append(dict(fields))
            continue
        function = {
            "name": fields["name"],
            "description": fields.get("description"),
            "parameters": fields.get("parameters", fields.get("inputSchema")),
        }
        function = {key: told for key, told in function.items() if told is not None}
        found.append({"type": "function", "function": function})
    return [tool for tool in found if tool]


def answer(messages: Sequence[Message], *, are_choices: bool) -> object:
    """Give the answer that messages are: one, several in a row, or choices of which one counts."""
    if len(messages) == 1:
        return messages[0]
    if not are_choices:
        return list(messages)
    return {"choices": [{"index": at, "message": one} for at, one in enumerate(messages)]}


def vercel_answer(attributes: Mapping[str, object]) -> list[Message]:
    """Read what the Vercel AI SDK says of an answer: text, an object as JSON, tool calls."""
    parts = _Parts()
    for name in ("ai.response.text", "ai.response.object"):
        text = attributes.get(name)
        if isinstance(text, str) and text:
            parts.content.append({"type": "text", "text": text})
            break
    if isinstance(thought := attributes.get("ai.response.reasoning"), str) and thought:
        parts.reasoning.append(thought)
    for call in items(parsed(attributes.get("ai.response.toolCalls"))):
        _add_call(parts, mapping(call))
    return list(parts.messages("assistant")) if parts.content or parts.calls else []


def _plain(role: str, message: Mapping[str, object]) -> Message:
    """Read a message whose content is text, in a chat's fields or in those of an event."""
    said = message.get("role")
    kept: Message = {"role": said if isinstance(said, str) and said else role}
    kept["content"] = message.get("content")
    parts = _Parts()
    for call in items(parsed(message.get("tool_calls"))):
        _add_call(parts, mapping(call))
    if parts.calls:
        kept["tool_calls"] = parts.calls
    elif kept["content"] is None:
        kept["content"] = ""
    if kept["role"] == "tool" and (call_id := message.get("tool_call_id") or message.get("id")):
        kept["tool_call_id"] = call_id
    if name := message.get("name"):
        kept["name"] = name
    return kept


def _add(parts: _Parts, part: object) -> None:
    """Sort one part of a message in, whoever wrote it."""
    fields = mapping(part)
    kind = fields.get("type")
    text = fields.get("content", fields.get("text"))
    if isinstance(part, str):
        text, kind = part, "text"
    if kind in ("text", "input_text", "output_text") and isinstance(text, str):
        if text:
            parts.content.append({"type": "text", "text": text})
    elif kind in _REASONING and isinstance(text, str):
        parts.reasoning.append(text)
    elif kind in ("tool_call", "tool-call"):
        _add_call(parts, fields)
    elif kind in ("tool_call_response", "tool-result"):
        parts.results.append(_result(fields))
    elif url := _picture(kind, fields):
        parts.content.append({"type": "image_url", "image_url": {"url": url}})
    elif part:
        parts.content.append(part)


def _add_call(parts: _Parts, call: Mapping[str, object]) -> None:
    function = mapping(call.get("function")) or call
    arguments = next(
        (function[key] for key in ("arguments", "input", "args") if function.get(key) is not None),
        "",
    )
    parts.calls.append(
        {
            "id": call.get("id", call.get("toolCallId")),
            "type": "function",
            "function": {
                "name": function.get("name", call.get("toolName")),
                "arguments": _text(arguments),
            },
        }
    )


def _result(fields: Mapping[str, object]) -> Message:
    told = next(
        (fields[key] for key in ("response", "result", "output") if fields.get(key) is not None), ""
    )
    if {"type", "value"} <= set(mapping(told)):  # Vercel says what kind of value it is
        told = mapping(told)["value"]
    return {
        "role": "tool",
        "tool_call_id": fields.get("id", fields.get("toolCallId")),
        "content": _text(told),
    }


def _picture(kind: object, fields: Mapping[str, object]) -> str | None:
    """Give the address of a picture; None for anything else."""
    mime = fields.get("mime_type") or fields.get("mediaType") or "image/png"
    if kind == "image":
        inner = mapping(mapping(fields.get("image")).get("image")) or mapping(fields.get("image"))
        url = inner.get("url") or fields.get("image") or fields.get("url")
    elif fields.get("modality") == "image" or (
        kind == "file" and isinstance(mime, str) and mime.startswith("image/")
    ):
        url = fields.get("uri") or fields.get("content") or fields.get("data")
    else:
        return None
    if not isinstance(url, str) or not url:
        return None
    return url if url.startswith(("http:", "https:", "data:")) else f"data:{mime};base64,{url}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else encode(value).decode("utf-8", "replace")


def _listed(value: object) -> object:
    """Make lists of the objects whose keys are all numbers."""
    if not isinstance(value, dict):
        return value
    if value and all(key.isdecimal() and len(key) < 10 for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    return {key: _listed(inner) for key, inner in value.items()}


def merged(events: Iterable[Event], names: Sequence[str]) -> dict[str, object]:
    """Give the attributes of events with one of these names, which say more of their span."""
    found: dict[str, object] = {}
    for event in events:
        if event.name in names:
            found.update(event.attributes)
    return found
