"""How spans that applications hand in are read: cost, conversation, preview, text. Pure.

Owns which shapes of input and output are a chat, whose prices hold for whom, and what is shown of
any other JSON. Invariants: nothing here raises for what an application says; unknown is None; what
is given as a message is an exact slice of what was said, or its string as the message that it is.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import orjson

from proxy.pricing import Prices
from proxy.providers.lenient import clean, has_many_values, mapping, preview
from proxy.providers.openai import MessageFacts, read_message
from proxy.slices import MAX_LEAD_BYTES, Slice, elements
from storage.chain import (
    BEGINNING,
    MAX_MESSAGES,
    MAX_POINTS,
    Conversation,
    Message,
    Point,
    extend,
    meanings,
    node_hash,
)
from storage.handed import BILLED, Cost, Said
from storage.records import Tokens

# What an application's own figure has in place of a list of prices.
REPORTED: Final = "reported"
# Characters of a value's text that it is found by, as much as one page of a list of values.
MAX_TEXT_CHARS: Final = 64 * 1024
# Bytes of a value of which the beginning is shown.
_SHOWN_BYTES: Final = 16 * 1024

# Providers by the names that instrumentations have for them (OpenTelemetry's `gen_ai.provider.name`
# and the older `gen_ai.system`, OpenInference's `llm.provider`, the AI SDK's providers), as
# genai-prices names them. November 2026.
_PROVIDERS: Final = {
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure-openai": "azure",
    "azure_openai": "azure",
    "amazon-bedrock": "aws",
    "amazon_bedrock": "aws",
    "aws.bedrock": "aws",
    "bedrock": "aws",
    "gcp": "google",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "vertex": "google",
    "vertex_ai": "google",
    "vertexai": "google",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "togetherai": "together",
    "together_ai": "together",
    "voyage": "voyageai",
    "x_ai": "x-ai",
    "xai": "x-ai",
}
# Whose model it is where no provider was named: only names that one provider alone gives.
_MAKERS: Final = (
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding-3", "openai"),
    ("text-embedding-ada", "openai"),
    ("claude-", "anthropic"),
    ("gemini-", "google"),
    ("mistral-", "mistral"),
    ("deepseek-", "deepseek"),
    ("command-", "cohere"),
    ("grok-", "x-ai"),
)

_INSTRUCTS: Final = frozenset({"system", "developer"})


class _Chat(msgspec.Struct):
    messages: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    choices: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    output: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    role: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    type: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    content: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    tool_calls: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class _Choice(msgspec.Struct):
    message: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    text: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


_CHAT: Final = msgspec.json.Decoder(_Chat)
_CHOICES: Final = msgspec.json.Decoder(list[_Choice])


# A message has one of these keys, and so has whatever has messages in it; with a backslash they may
# be spelled in other ways.
_OF_A_CHAT: Final = re.compile(rb'"(?:role|content|text|type|tool_calls)"[ \t\r\n]*:|\\')


class HandedReader:
    """Reads what applications say of their spans, by the dialect of chats and by our prices.

    Safe to use from several threads.
    """

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    def cost(self, said: Said, *, started_at_us: int) -> Cost:
        """Give the cost of a billed span: the application's figure, else ours by its tokens."""
        if said.cost_nusd is not None:
            return Cost(said.cost_nusd, "priced" if said.cost_nusd else "free", REPORTED)
        if said.kind not in BILLED:
            return Cost(None, None, None)
        if said.tokens == Tokens():
            return Cost(None, "unpriced", None)
        price = self._prices.price(
            provider=provider_of(said.provider, said.model),
            model=said.model,
            service_tier=None,
            tokens=said.tokens,
            at_us=started_at_us,
        )
        return Cost(*price)

    def conversation(self, said: Said) -> Conversation | None:
        """Give the messages of an ``llm_call`` whose input has such; None for anything else.

        An input is a chat where it is a list of messages, an object with one as ``messages``, or a
        string, which the user said. An output is its answer where it is a string, a message, a list
        of such, or a whole answer in OpenAI's dialect.
        """
        if said.kind != "llm_call":
            return None
        asked = asked_messages(said.input)
        answered = answered_messages(said.output)
        return None if asked is None else _conversation(asked, answered)

    def preview(self, value: bytes) -> str | None:
        """Give at most 240 characters of a JSON value's text.

        Of a chat it is what the user asked last, or the answer; of other objects and lists their
        beginning as JSON.
        """
        found = _chat_in(value)
        if not found:
            return preview(_beginning(value))
        facts = [read_message(message.data) for message in found]
        texts = [(one.role, one.text) for one in facts if one.text and not one.text.isspace()]
        asked = [text for role, text in texts if role == "user"]
        return preview((asked or [text for _, text in texts] or [""])[-1])

    def text(self, value: bytes) -> str:
        """Give all text in a JSON value, for full text search: its strings, one a line.

        Of a chat it is the text of its messages.
        """
        messages = _chat_in(value)
        texts = (read_message(message.data).text for message in messages)
        found = []
        left = MAX_TEXT_CHARS
        for text in texts if messages else _strings(_parsed(value)):
            found.append(text[:left])
            left -= len(text) + 1
            if left <= 0:
                break
        return clean("\n".join(found))

    def meaning(self, message: bytes) -> bytes:
        """Give the meaning of a message, as that of a proxied call has it."""
        return read_message(message).meaning


def _chat_in(value: bytes) -> list[Slice]:
    """Give the messages of a value that is asked or answered; none where it is no chat."""
    if value[:1] != b'"' and _OF_A_CHAT.search(value) is None:
        return []  # most of what tools take and give: to parse it costs ten times as much
    return asked_messages(value) or answered_messages(value)


def provider_of(name: str | None, model: str | None) -> str:
    """Give the provider whose prices hold, as genai-prices names it; "" where nobody knows."""
    if not name:
        lowered = (model or "").lower()
        return next((maker for begin, maker in _MAKERS if lowered.startswith(begin)), "")
    lowered = name.strip().lower()
    if lowered in _PROVIDERS:
        return _PROVIDERS[lowered]
    # The AI SDK adds which of its APIs it is: `openai.chat`, `google.generative-ai`.
    first = lowered.partition(".")[0]
    return _PROVIDERS.get(first, first)


def asked_messages(value: bytes | None) -> list[Slice] | None:
    """Give the messages of an input, each as it stands there; None where it is no chat."""
    if not value or has_many_values(value):
        return None
    try:
        if value[:1] == b'"':
            return [Slice(b"", b'{"role":"user","content":%b}' % value)]
        if value[:1] == b"{":
            value = bytes(_CHAT.decode(value).messages)
        return _messages(value) if value[:1] == b"[" else None
    except (ValueError, RecursionError):
        return None


def answered_messages(value: bytes | None) -> list[Slice]:
    """Give the messages of an output, each as it stands there; none where it has no such."""
    if not value or has_many_values(value):
        return []
    try:
        if value[:1] == b'"':
            return [_said_by_model(value)]
        if value[:1] == b"[":
            return _messages(value) or []
        return _of_object(value) if value[:1] == b"{" else []
    except (ValueError, RecursionError):
        return []


def _of_object(value: bytes) -> list[Slice]:
    found = _CHAT.decode(value)
    if choices := bytes(found.choices):
        first = _CHOICES.decode(choices)[:1]
        message = bytes(first[0].message) if first else b""
        if message[:1] == b"{":
            return [Slice(b"", message)]
        text = bytes(first[0].text) if first else b""
        return [_said_by_model(text)] if text[:1] == b'"' else []
    if bytes(found.role)[:1] == b'"' or bytes(found.content) or bytes(found.tool_calls):
        return [Slice(b"", value)]
    for several in (bytes(found.messages), bytes(found.output)):
        if several[:1] == b"[":
            return _messages(several) or []
    return []


def _said_by_model(string: bytes) -> Slice:
    # As clients send an answer again, so that it is recognised in the next call's input.
    return Slice(b"", b'{"role":"assistant","content":%b}' % string)


def _messages(array: bytes) -> list[Slice] | None:
    """Give the elements of an array, if there are some and all of them are messages or items."""
    found = elements(array)
    if not found or len(found) > MAX_MESSAGES:
        return None
    for lead, message in found:
        if message[:1] != b"{" or len(lead) > MAX_LEAD_BYTES:
            return None
        fields = _CHAT.decode(message)
        if bytes(fields.role)[:1] != b'"' and not _is_item(bytes(fields.type)):
            return None
    return found


def _is_item(kind: bytes) -> bool:
    # Items of OpenAI's responses; a part of a content has a type as well.
    return kind in (b'"message"', b'"reasoning"') or kind.endswith((b'_call"', b'_output"'))


def _conversation(asked: Sequence[Slice], answered: Sequence[Slice]) -> Conversation:
    """Make a chain of messages as a proxied call's are (proxy/conversation.py)."""
    node = meaning = BEGINNING
    prelude, leading = None, True
    messages: list[Message] = []
    points: list[Point] = []
    for number, piece in enumerate(asked):
        facts, message = _message(node, piece, leading=leading)
        node, leading = message.node, message.instructs
        if leading:
            prelude = node
        elif message.meaning:
            meaning = extend(meaning, message.meaning)
            points.append(Point(meaning, len(asked) - number - 1, facts.role == "assistant"))
        messages.append(message)
    answer: list[Message] = []
    for piece in answered:
        _, message = _message(node, piece, leading=False)
        node = message.node
        answer.append(message)
    output_meaning = meanings(meaning, answer)
    return Conversation(
        known=None,
        messages=tuple(messages),
        answer=tuple(answer),
        points=tuple(points[: -MAX_POINTS - 1 : -1]),
        prelude=prelude,
        input_meaning=meaning,
        output_meaning=output_meaning if output_meaning != meaning else None,
    )


def _message(parent: bytes, piece: Slice, *, leading: bool) -> tuple[MessageFacts, Message]:
    facts = read_message(piece.data)
    sha256 = hashlib.sha256(piece.data).digest()
    return facts, Message(
        lead=piece.lead,
        data=piece.data,
        sha256=sha256,
        node=node_hash(parent, piece.lead, sha256),
        role=facts.role,
        meaning=facts.meaning,
        instructs=leading and facts.role in _INSTRUCTS,
    )


def _parsed(value: bytes) -> object:
    """Parse JSON as far as there are strings in it; None where there is nothing to be read."""
    if has_many_values(value):
        return None
    try:
        return orjson.loads(value)
    except ValueError:
        pass
    try:
        return json.loads(value, parse_int=len)  # it takes numbers beyond what a double holds
    except (ValueError, RecursionError):
        return None


def _beginning(value: bytes) -> str:
    """Give the beginning of a JSON value as JSON, without the escapes that nobody needs."""
    if b"\\u" in value and len(value) <= _SHOWN_BYTES:
        with suppress(ValueError, TypeError):  # numbers and depths beyond it
            value = orjson.dumps(orjson.loads(value))
    return clean(value[:_SHOWN_BYTES].decode("utf-8", "ignore"))


def _strings(value: object) -> Iterator[str]:
    """Yield the strings in a JSON value, in their order, however deep they are."""
    stack: list[object] = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            if one and not one.startswith("data:"):  # a picture
                yield one
        elif isinstance(one, list):
            stack += reversed(one)
        elif fields := mapping(one):
            stack += _reversed(fields.values())


def _reversed(values: Iterable[object]) -> list[object]:
    return list(values)[::-1]
