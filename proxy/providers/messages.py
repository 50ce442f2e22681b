"""What one message of a conversation says, whoever wrote its JSON and however.

Owns the canonical form of a message. Its hash, the message's meaning, is one for an answer as the
provider gave it, as it was put together from a stream, and as a client sends it again; two that
say different things never share one. What does not count: white space, escapes and key order of
the JSON, fields that are null or empty, and what a provider or a client adds or leaves out
(annotations, ids and status of items, log probabilities, names, reasoning). The text that a
message is found by is made here, too. Where the messages stand in a body is told, not sought.

Source: types of openai-python 3.54.0; requests of the Vercel AI SDK 6 (``@ai-sdk/openai`` 3.0.141)
and langchain-openai 1.7.3, as sent (November 2026).
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec
import orjson

from proxy.providers.facts import Operation
from proxy.providers.lenient import clean, items, mapping, name
from proxy.providers.output import item_kind, message_text
from storage.chain import HASH_BYTES

# Rows of the full-text index are taken out by the same text that they were put in by.
TEXT_VERSION: Final = 1
# Characters. PostgreSQL's tsvector holds 1 MiB.
_TEXT_CHARS: Final = 1024 * 1024
# Characters. The longest role that OpenAI names is "discriminator".
_ROLE_CHARS: Final = 64

_MESSAGES_KEYS: Final = {
    "chat.completions": "messages",
    "completions": "prompt",
    "responses": "input",
    "responses.compact": "input",
    "responses.input_tokens": "input",
}
_ANSWER_PATHS: Final[dict[str, tuple[str | int, ...]]] = {
    "chat.completions": ("choices", 0, "message"),
    "completions": ("choices", 0, "text"),
    "responses": ("output",),
}

# What the provider thought or did on the way to its answer: a client may leave it out.
_ASIDES: Final = frozenset(
    {
        *("reasoning", "web_search_call", "file_search_call", "code_interpreter_call"),
        *("mcp_call", "mcp_list_tools"),
    }
)
_ASIDE_PARTS: Final = ("reasoning", "thinking", "redacted_thinking")
_TEXT_PARTS: Final = ("text", "input_text", "output_text", None)
_CALLS: Final = ("function_call", "custom_tool_call")
_CALL_OUTPUTS: Final = ("function_call_output", "custom_tool_call_output")
_BESIDE_CONTENT: Final = ("refusal", "audio", "function_call", "tool_calls", "tool_call_id")
# Fields that say nothing, of items and of parts; ids are those of items only.
_EMPTY: Final[tuple[object, ...]] = (None, "", [], {})
_SILENT: Final = frozenset({"annotations", "logprobs", "detail", "cache_control", "created_by"})
_SILENT_IN_ITEMS: Final = _SILENT | {"id", "status"}

_ESCAPE: Final = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.S)


class MessageFacts(NamedTuple):
    """What a message says.

    ``role`` is as sent, at most 64 characters. ``meaning`` is b"" where it counts for nothing;
    ``text``, at most 1 MiB characters, is what it is found by. ``item_id`` is the id of an item of
    a response. A message that only names another item has that id as ``refers_to``: its meaning is
    that item's, and this one where the item is not known.
    """

    role: str
    meaning: bytes
    text: str
    item_id: str | None = None
    refers_to: str | None = None


def messages_key(operation: Operation) -> str | None:
    """Give the top-level request key that holds the conversation; None where there is none.

    A compaction and a count of tokens send the whole conversation, too. An array of numbers is
    none: a prompt of tokens.
    """
    return _MESSAGES_KEYS.get(operation.name)


def answer_path(operation: Operation) -> tuple[str | int, ...] | None:
    """Give where the answer's messages stand in a whole JSON answer; None where there are none.

    The value there is one message, a string in a completion, or an array of them. What a compaction
    answers with does not go on from its input: it is the beginning of another conversation.
    """
    return _ANSWER_PATHS.get(operation.name)


def read_message(data: bytes) -> MessageFacts:
    """Read one message or item from its exact JSON bytes: an object, or a string of the user's."""
    exact = True
    try:
        value = orjson.loads(data)
    except ValueError:
        value, exact = _repaired(data), False
    fields = mapping(value)
    kind = item_kind(fields)
    role = _role(value, fields, kind)
    item_id = name(fields.get("id"))
    refers_to = None
    if item_id and (kind == "item_reference" or len(fields) == 1):
        item_id, refers_to = None, item_id
    canonical = data
    if exact:  # what had to be repaired means its bytes: as text it could be another's
        with suppress(TypeError):  # deeper than 254 levels
            said = [["item", refers_to]] if refers_to else _said(value, fields, kind)
            canonical = orjson.dumps([role, *said], option=orjson.OPT_SORT_KEYS)
    return MessageFacts(
        role=clean(role[:_ROLE_CHARS]),
        meaning=b"" if kind in _ASIDES else blake2b(canonical, digest_size=HASH_BYTES).digest(),
        text=clean(message_text(value)[:_TEXT_CHARS]),
        item_id=item_id,
        refers_to=refers_to,
    )


def text_of(data: bytes) -> str:
    """Give the text that a message is found by: the same for the same bytes, always."""
    return read_message(data).text


def _repaired(data: bytes) -> object:
    """Parse JSON with invalid UTF-8 and lone surrogates as U+FFFD; what is none gives None."""
    text = data.decode("utf-8", "replace").encode()
    try:
        return orjson.loads(_ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], text))
    except ValueError:
        return None


def _role(value: object, fields: Mapping[str, object], kind: str | None) -> str:
    role = fields.get("role")
    if isinstance(role, str):
        return role
    if kind is None:
        # A prompt or an input is a string. Only in a gateway's answer has a message no role.
        return "assistant" if isinstance(value, dict) else "user"
    return "tool" if kind.endswith(("_output", "_response")) else "assistant"


def _said(value: object, fields: Mapping[str, object], kind: str | None) -> list[object]:
    """Give what a message says, as JSON: runs of text as strings, all else as lists."""
    if kind is None:
        return _content(value) if not fields else _message(fields)
    if kind in _CALLS:
        arguments = fields.get("arguments") or fields.get("input")
        return [_call(fields.get("call_id"), fields.get("name"), arguments)]
    if kind in _CALL_OUTPUTS:
        return [*_content(fields.get("output")), ["result", fields.get("call_id")]]
    if kind == "image_generation_call" and fields.get("id"):
        return [[kind, fields["id"]]]  # its picture is a megabyte that few clients send again
    return [[_pruned(fields, _SILENT_IN_ITEMS)]]


def _message(fields: Mapping[str, object]) -> list[object]:
    said = _content(fields.get("content"))
    if not any(map(fields.get, _BESIDE_CONTENT)) and fields.get("role") != "function":
        return said  # nearly every message, in a third of the time
    refusal = fields.get("refusal")
    if isinstance(refusal, str) and refusal:
        said.append(["refusal", refusal.strip()])
    if audio := mapping(fields.get("audio")):
        # Clients send the id alone, or all of it.
        said.append(["audio", audio.get("id") or audio.get("transcript")])
    if call := mapping(fields.get("function_call")):
        said.append(["function_call", *_call(None, call.get("name"), call.get("arguments"))])
    for call in map(mapping, items(fields.get("tool_calls"))):
        function = mapping(call.get("function")) or mapping(call.get("custom"))
        arguments = function.get("arguments") or function.get("input")
        said.append(_call(call.get("id"), function.get("name"), arguments))
    if call_id := fields.get("tool_call_id"):
        said.append(["result", call_id])
    elif fields.get("role") == "function":  # deprecated: the name is all that ties it to its call
        said.append(["result", fields.get("name")])
    return said


def _content(content: object) -> list[object]:
    """Give a content as runs of text, white space off their ends, and what stands between."""
    if isinstance(content, str):
        return [said_text] if (said_text := content.strip()) else []
    said: list[object] = []
    run = ""
    for part in content if isinstance(content, list) else [content]:
        fields = mapping(part)
        kind, text = fields.get("type"), fields.get("text")
        if isinstance(part, str):
            run += part
        elif isinstance(text, str) and kind in _TEXT_PARTS:
            run += text
        elif part not in _EMPTY and kind not in _ASIDE_PARTS:
            said += filter(None, [run.strip()])
            run = ""
            refusal = fields.get("refusal")
            if kind == "refusal" and isinstance(refusal, str):
                said.append(["refusal", refusal.strip()])
            else:
                said.append([_pruned(fields, _SILENT) or part])
    return [*said, *filter(None, [run.strip()])]


def _call(call_id: object, tool_name: object, arguments: object) -> list[object]:
    """Give a tool call; arguments that are a JSON object are told from those that are text."""
    return ["call", call_id, tool_name, _arguments(arguments)]


def _arguments(arguments: object) -> object:
    text = arguments.strip() if isinstance(arguments, str) else ""
    try:
        parsed = _ARGUMENTS.decode(text) if text else arguments or {}
        if isinstance(parsed, dict):
            return [orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS).decode()]
    except (ValueError, TypeError, RecursionError):  # no JSON, or numbers and depths beyond it
        pass
    return text


def _number(text: str) -> int | float:
    """Read 1.0 as 1: clients in JavaScript cannot tell them apart."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


_ARGUMENTS: Final = msgspec.json.Decoder(float_hook=_number)


def _pruned(fields: Mapping[str, object], silent: frozenset[str], levels: int = 2) -> object:
    """Leave out what says nothing, here and in the objects right below."""
    return {
        key: _pruned(value, silent, levels - 1) if levels > 1 and isinstance(value, dict) else value
        for key, value in fields.items()
        if value not in _EMPTY and key not in silent
    }
