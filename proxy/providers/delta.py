"""The text that one event of a stream adds to the answer, for those who watch it being written.

Invariant: put together, it is what the model says to its reader: content and refusals of the first
choice. Reasoning, tool calls, sound and pictures are none; ``assemble`` reads those in the end.

Source: openai-python 3.54.0, types of chunks and events (November 2026).
"""

from typing import Any, Final

import msgspec

from proxy.providers.lenient import decode, items, key, mapping
from proxy.providers.output import content_text
from proxy.sse import Event

# A longer event is no piece of text, and this runs on the event loop.
MAX_EVENT_BYTES: Final = 256 * 1024
_TEXT_DELTAS: Final = frozenset(
    {"response.output_text.delta", "response.refusal.delta", "transcript.text.delta"}
)
_MESSAGE_DELTA: Final = "thread.message.delta"


class _Piece(msgspec.Struct):
    choices: Any = None
    type: Any = None
    delta: Any = None


_PIECE: Final = msgspec.json.Decoder(_Piece)


def text_delta(event: Event) -> str:
    """Give the text that an event adds; "" for any other event."""
    data, kind = event.data, event.name
    if not data.startswith(b"{") or len(data) > MAX_EVENT_BYTES:
        return ""
    if kind and kind not in _TEXT_DELTAS and kind != _MESSAGE_DELTA:
        return ""
    piece = decode(_PIECE, data)
    if piece is None:
        return ""
    if piece.choices:
        return "".join(_choice_text(choice) for choice in map(mapping, items(piece.choices)))
    kind = kind or key(piece.type)
    if kind == _MESSAGE_DELTA:
        return content_text(mapping(piece.delta).get("content"))
    return content_text(piece.delta) if kind in _TEXT_DELTAS else ""


def _choice_text(choice: Any) -> str:
    if choice.get("index"):
        return ""
    delta = mapping(choice.get("delta"))
    return (
        content_text(delta.get("content"))
        + content_text(delta.get("refusal"))
        + content_text(choice.get("text"))
    )
