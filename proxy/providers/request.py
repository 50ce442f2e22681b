"""The meaning of a request's body: what was asked of which model, and in which words.

Invariant: a body that cannot be read gives facts that are None, never a guess. Only text counts
as text: images, sound and files are not looked into. ``read_request`` does not look at messages
(``messages`` reads each once); the other two do, for calls that have none, or no usage. Runs in
the writer's thread.

Source: request types of openai-python 3.54.0 (November 2026).
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import orjson

from proxy.providers.facts import Operation, RequestFacts
from proxy.providers.lenient import clean, decode, items, mapping, name, preview
from proxy.providers.multipart import form_fields
from proxy.providers.output import content_text, message_text

# A session id longer than this is an error of the sender; OpenAI's metadata has 16 pairs, and
# values of 512 characters.
_NAMED_CHARS: Final = 4096
_METADATA_KEYS: Final = 64


class _Head(msgspec.Struct):
    """Fields that any operation may have, beside its input; Any, because strangers write it."""

    model: Any = None
    stream: Any = None
    stream_format: Any = None
    stream_options: Any = None
    service_tier: Any = None
    user: Any = None
    background: Any = None
    previous_response_id: Any = None
    metadata: Any = None
    conversation: Any = None
    session_id: Any = None
    conversation_id: Any = None
    thread_id: Any = None
    chat_id: Any = None
    litellm_session_id: Any = None
    litellm_trace_id: Any = None


class _Input(msgspec.Struct):
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


_HEAD: Final = msgspec.json.Decoder(_Head)
_INPUT: Final = msgspec.json.Decoder(_Input)
_FORM_TRUE: Final = frozenset({"true", "True", "1"})


def read_request(operation: Operation, body: bytes, content_type: str) -> RequestFacts:
    """Read what a request says beside its messages, JSON or a form; a form may have been cut."""
    if _is_form(content_type):
        fields = form_fields(body, content_type)
        return RequestFacts(
            model=name(fields.get("model")),
            stream=fields.get("stream") in _FORM_TRUE,
            user=name(fields.get("user")),
        )
    request = decode(_HEAD, body)
    if request is None:
        return RequestFacts()
    chained = operation.name == "responses"  # elsewhere these names are somebody's own
    return RequestFacts(
        model=name(request.model),
        stream=request.stream is True or request.stream_format == "sse",
        service_tier=name(request.service_tier),
        user=name(request.user),
        background=request.background is True,
        include_usage=mapping(request.stream_options).get("include_usage") is True,
        previous_response_id=name(request.previous_response_id) if chained else None,
        keeps_state=chained and isinstance(request.conversation, str | dict),
        named=dict(_named(request)),
    )


def input_preview(body: bytes, content_type: str) -> str | None:
    """Give the beginning of what was asked last, at most 240 characters."""
    if _is_form(content_type):
        return preview(clean(form_fields(body, content_type).get("prompt", "")))
    request = decode(_INPUT, body)
    return preview(clean(_asked(request))) if request is not None else None


def input_text(body: bytes, content_type: str) -> str:
    """Give all text that the model is to read, for an estimate of its tokens."""
    if _is_form(content_type):
        return clean(form_fields(body, content_type).get("prompt", ""))
    request = decode(_INPUT, body)
    if request is None:
        return ""
    pieces = (*_texts(request), *_schemas(request))
    return clean("\n".join(piece for piece in pieces if piece))


def _is_form(content_type: str) -> bool:
    return content_type.lower().startswith("multipart/")


def _named(request: _Head) -> Iterator[tuple[str, str]]:
    """List the strings that may name a session, each with its place in the body."""
    conversation = request.conversation
    for place, value in (
        ("conversation", mapping(conversation).get("id", conversation)),
        ("session_id", request.session_id),
        ("conversation_id", request.conversation_id),
        ("thread_id", request.thread_id),
        ("chat_id", request.chat_id),
        ("litellm_session_id", request.litellm_session_id),
        ("litellm_trace_id", request.litellm_trace_id),
    ):
        if isinstance(value, str) and len(value) <= _NAMED_CHARS:
            yield place, clean(value)
    if request.metadata is not None:
        for key, value in list(mapping(request.metadata).items())[:_METADATA_KEYS]:
            if isinstance(value, str) and len(value) <= _NAMED_CHARS:
                yield f"metadata.{clean(key)}", clean(value)


def _messages(request: _Input) -> list[object]:
    """Return the conversation, whatever the operation calls it."""
    return [
        *items(request.messages),
        *items(request.input),
        *items(mapping(request.thread).get("messages")),
        *items(request.additional_messages),
    ]


def _asked(request: _Input) -> str:
    """Return what was asked last: the newest user message, else the newest text at all."""
    for message in reversed(_messages(request)):
        fields = mapping(message)
        if fields.get("role") == "user" and (text := content_text(fields.get("content"))):
            return text
    return next((piece for piece in reversed(_texts(request)) if piece.strip()), "")


def _texts(request: _Input) -> list[str]:
    """Return all text that the model is to read, in the order in which it reads it."""
    pieces = [content_text(request.instructions)]
    pieces += map(message_text, _messages(request))
    pieces.append(request.input if isinstance(request.input, str) else "")
    pieces.append(content_text(request.prompt))
    return pieces


def _schemas(request: _Input) -> list[str]:
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
