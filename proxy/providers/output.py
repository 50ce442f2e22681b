"""The text in what was said: of a message, of an item of a response, of a whole answer.

Invariant: text is what a person reads: content, refusal, transcript, tool calls as
``name(arguments)``, results, then reasoning, one a line. Sound, pictures, files, ids and what is
encrypted are none. Nothing is cut here, and nothing made fit to store.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from proxy.providers.lenient import clean, items, mapping

# Fields of items and their parts that nobody reads: what they are, whose, and bytes in base64.
_NO_TEXT: Final = frozenset(
    {
        *("type", "id", "call_id", "status", "role", "created_by", "annotations", "logprobs"),
        *("encrypted_content", "fingerprint", "image_url", "file_data", "file_id", "data"),
    }
)
# What a message says beside its content. The last two are not OpenAI's own names; gateways send
# the one or the other.
_BESIDE_CONTENT: Final = (
    *("refusal", "audio", "tool_calls", "function_call"),
    *("reasoning_content", "reasoning"),
)
_CALL: Final = ("name", "arguments", "input", "code")


def item_kind(message: Mapping[str, object]) -> str | None:
    """Return the type of an item of a response that is no message; None for messages."""
    kind = message.get("type")
    if not isinstance(kind, str) or kind == "message":
        return None
    return None if "role" in message and "content" in message else kind


def message_text(value: object) -> str:
    """Return the text of a message, of an item of a response, or of a string that is one."""
    if isinstance(value, str):
        return value
    message = mapping(value)
    if kind := item_kind(message):
        return _item_text(kind, message)
    content = content_text(message.get("content"))
    if not any(map(message.get, _BESIDE_CONTENT)):
        return content
    lines = [
        content,
        content_text(message.get("refusal")),
        content_text(mapping(message.get("audio")).get("transcript")),
    ]
    for call in map(mapping, items(message.get("tool_calls"))):
        function = mapping(call.get("function")) or mapping(call.get("custom"))
        lines.append(_call_text(function))
    lines.append(_call_text(mapping(message.get("function_call"))))
    lines.append(content_text(message.get("reasoning_content") or message.get("reasoning")))
    return _joined(lines)


def content_text(value: object) -> str:
    """Return the text of a message's content: a string, or the text parts of a list."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return _joined(part if isinstance(part, str) else _part_text(part) for part in value)
    return ""


def answer_text(choices: object, output: object, text: object) -> str:
    """Return the model's text of a whole answer: chat or completions, responses, transcript."""
    texts = [
        message_text(choice.get("message")) or content_text(choice.get("text"))
        for choice in map(mapping, items(choices))
    ]
    texts += map(message_text, items(output))
    return clean(_joined(texts) or content_text(text))


def _part_text(value: object) -> str:
    part = mapping(value)
    text = part.get("text") or part.get("refusal") or part.get("transcript")
    if isinstance(text, dict):  # threads: {"text": {"value": ...}}
        text = text.get("value")
    return text if isinstance(text, str) else ""


def _item_text(kind: str, item: Mapping[str, object]) -> str:
    """Return the call that an item is, then every other string in it that is text."""
    picture = kind == "image_generation_call"  # its result is the picture, all others' is text
    rest = [
        value
        for key, value in item.items()
        if key not in _NO_TEXT and key not in _CALL and not (picture and key == "result")
    ]
    return _joined([_call_text(item), *_strings(rest)])


def _call_text(call: Mapping[str, object]) -> str:
    if not call:
        return ""
    arguments = call.get("arguments") or call.get("input") or call.get("code")
    text = arguments if isinstance(arguments, str) else _joined(_strings([arguments]))
    tool_name = call.get("name")
    return f"{tool_name}({text})" if tool_name and isinstance(tool_name, str) else text


def _strings(values: list[object]) -> Iterator[str]:
    """Yield the strings in JSON values, in their order, however deep they are."""
    stack = values[::-1]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            if not value.startswith("data:"):
                yield value
        elif isinstance(value, list):
            stack += reversed(value)
        elif isinstance(value, dict):
            stack += [value[key] for key in reversed(value) if key not in _NO_TEXT]


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text)
