"""What a page shows of one body: its messages where it has some, else its text. Pure.

Invariant: what a stranger wrote is text and nothing else. A list counts as messages where every
part of it is one, so that what a search found is not shown as if somebody had said it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from proxy.api.bodies import SHOWN_BYTES, description
from proxy.decode import decode
from proxy.handing import answered_messages, asked_messages
from proxy.providers.lenient import encode, items, mapping
from proxy.providers.reading import Reading, answer_so_far, read
from proxy.slices import Slice
from proxy.ui.conversation import Said, said
from proxy.ui.json_text import indented
from storage.rebuild import StoredBody
from storage.records import Span

# Characters of one body that a page shows; the rest is behind a link.
BODY_CHARS: Final = 100_000
# Messages of one body, the last ones.
MAX_MESSAGES: Final = 20

_Reader = Callable[[bytes], list[Reading]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyText:
    """The beginning of a body as text, and what bytes these are ("exact", ...).

    ``said`` are the last messages in it, after ``earlier`` others; none where it has no messages.
    ``is_plain``: the whole body is one JSON string, and this is what it says.
    """

    text: str
    is_cut: bool
    description: str
    said: Sequence[Said] = ()
    earlier: int = 0
    is_plain: bool = False


def asked_text(stored: StoredBody | None, span: Span, *, raw: bool) -> BodyText | None:
    """Show what went into a span; ``raw``: as it was sent."""
    return _body_text(stored, _reader(span, _asked, asked_messages), raw=raw)


def answered_text(stored: StoredBody | None, span: Span, *, raw: bool) -> BodyText | None:
    """Show what came out of a span; ``raw``: as it came."""
    return _body_text(stored, _reader(span, _answered, answered_messages), raw=raw)


def _reader(
    span: Span, of_call: _Reader, of_told_call: Callable[[bytes], list[Slice] | None]
) -> _Reader:
    """Give how a span's value is read: that of a call that was told of as its conversation is."""
    if not span.handed_in:
        return of_call
    if span.kind != "llm_call":
        return _messages

    def told(data: bytes) -> list[Reading]:
        # A string alone is shown as the text that it is.
        found = [] if data.lstrip()[:1] == b'"' else of_told_call(data)
        return [read(message.data) for message in found or ()]

    return told


def json_text(data: bytes) -> BodyText:
    """Show a JSON value that has no body of its own."""
    text = indented(data.decode("utf-8", "replace"))
    return BodyText(text=text[:BODY_CHARS], is_cut=len(text) > BODY_CHARS, description="")


def _body_text(stored: StoredBody | None, reader: _Reader, *, raw: bool) -> BodyText | None:
    if stored is None:
        return None
    data, _ = decode(stored.data, stored.content_encoding or "", SHOWN_BYTES)
    text = data.decode("utf-8", "replace")
    # As it is where that is asked for, else as a person reads it.
    messages = [] if raw else reader(data)
    plain = None if raw or messages else _plain(data)
    if not raw:
        text = indented(text) if plain is None else plain
    return BodyText(
        text=text[:BODY_CHARS],
        is_cut=len(text) > BODY_CHARS,
        description=description(stored),
        said=[said(message) for message in messages[-MAX_MESSAGES:]],
        earlier=max(0, len(messages) - MAX_MESSAGES),
        is_plain=plain is not None,
    )


def _plain(data: bytes) -> str | None:
    value = _parsed(data) if data.lstrip()[:1] == b'"' else None
    return value if isinstance(value, str) else None


def _parsed(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except ValueError:
        return None


def _asked(data: bytes) -> list[Reading]:
    """Read the messages of a request, in whichever field it has them."""
    request = mapping(_parsed(data))
    found = request.get("messages") or request.get("input") or request.get("prompt")
    values = found if isinstance(found, list) else [found] if found else []
    return [read(encode(value)) for value in values]


def _answered(data: bytes) -> list[Reading]:
    """Read what a model answered; nothing where that is no message."""
    answer = answer_so_far(data)
    return [answer] if answer.text or answer.parts or answer.tool_calls else []


def _messages(data: bytes) -> list[Reading]:
    """Read a value that an application handed in: a message, a list of such, or what holds one."""
    value = _parsed(data)
    found = mapping(value)
    inner = found.get("messages") if isinstance(found.get("messages"), list) else value
    values = inner if isinstance(inner, list) else [inner]
    if not values or not all(map(_is_message, values)):
        return []
    return [read(encode(one)) for one in values]


def _is_message(value: object) -> bool:
    message = mapping(value)
    if not isinstance(message.get("role"), str):
        return False
    content = message.get("content")
    return isinstance(content, str | list) or bool(items(message.get("tool_calls")))
