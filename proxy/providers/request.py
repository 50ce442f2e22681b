"""The meaning of a request's body: what was asked of which model.

Invariant: a body that cannot be read gives facts that are None, never a guess. Only text counts
as text: images, sound and files are not looked into. Runs in the writer's thread.

Source: request types of openai-python 3.54.0 (November 2026).
"""

from typing import Any, Final

import msgspec
import orjson

from proxy.providers.facts import Operation, RequestFacts
from proxy.providers.lenient import clean, decode, items, mapping, name, preview
from proxy.providers.multipart import form_fields
from proxy.providers.output import content_text


class _Request(msgspec.Struct):
    """Fields that any operation may have; Any, because strangers write it."""

    model: Any = None
    stream: Any = None
    stream_format: Any = None
    stream_options: Any = None
    service_tier: Any = None
    user: Any = None
    background: Any = None
    messages: Any = None
    input: Any = None
    prompt: Any = None
    instructions: Any = None
    questions: Any = None
    additional_messages: Any = None
    thread: Any = None
    tools: Any = None
    functions: Any = None
    response_format: Any = None
    text: Any = None


_REQUEST: Final = msgspec.json.Decoder(_Request)
_FORM_TRUE: Final = frozenset({"true", "True", "1"})


def read_request(operation: Operation, body: bytes, content_type: str) -> RequestFacts:
    """Read a request's body, JSON or a form; a form may have been cut."""
    if content_type.lower().startswith("multipart/"):
        return _read_form(form_fields(body, content_type))
    request = decode(_REQUEST, body)
    if request is None:
        return RequestFacts()
    pieces = _texts(request)
    options = mapping(request.stream_options)
    return RequestFacts(
        model=name(request.model),
        stream=request.stream is True or request.stream_format == "sse",
        service_tier=name(request.service_tier),
        user=name(request.user),
        background=request.background is True,
        include_usage=options.get("include_usage") is True,
        preview=preview(clean(_asked(request, pieces))),
        text=clean("\n".join(piece for piece in (*pieces, *_schemas(request)) if piece)),
    )


def _read_form(fields: dict[str, str]) -> RequestFacts:
    prompt = clean(fields.get("prompt", ""))
    return RequestFacts(
        model=name(fields.get("model")),
        stream=fields.get("stream") in _FORM_TRUE,
        user=name(fields.get("user")),
        preview=preview(prompt),
        text=prompt,
    )


def _messages(request: _Request) -> list[object]:
    """Return the conversation, whatever the operation calls it."""
    return [
        *items(request.messages),
        *items(request.input),
        *items(mapping(request.thread).get("messages")),
        *items(request.additional_messages),
    ]


def _asked(request: _Request, pieces: list[str]) -> str:
    """Return what was asked last: the newest user message, else the newest text at all."""
    for message in reversed(_messages(request)):
        fields = mapping(message)
        if fields.get("role") == "user" and (text := content_text(fields.get("content"))):
            return text
    return next((piece for piece in reversed(pieces) if piece.strip()), "")


def _texts(request: _Request) -> list[str]:
    """Return all text that the model is to read, in the order in which it reads it."""
    pieces = [content_text(request.instructions)]
    pieces += map(_message_text, _messages(request))
    pieces.append(request.input if isinstance(request.input, str) else "")
    pieces.append(content_text(request.prompt))
    return pieces


def _message_text(value: object) -> str:
    """Return the text of a message, of a call that it makes, of a tool's output, or a string."""
    if isinstance(value, str):
        return value
    message = mapping(value)
    pieces = [
        content_text(message.get(key))
        for key in ("content", "text", "arguments", "input", "output", "summary")
    ]
    for call in map(mapping, items(message.get("tool_calls"))):
        function = mapping(call.get("function")) or mapping(call.get("custom"))
        pieces += [content_text(function.get(key)) for key in ("name", "arguments", "input")]
    return "\n".join(piece for piece in pieces if piece)


def _schemas(request: _Request) -> list[str]:
    """Return tools, schemas and questions as JSON: the model reads them as tokens too."""
    values = (
        request.tools,
        request.functions,
        request.response_format,
        request.text,
        request.questions,
    )
    return [_json(value) for value in values if isinstance(value, list | dict)]


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except (TypeError, RecursionError):  # lone surrogates, integers beyond 64 bits, deep nesting
        return ""
