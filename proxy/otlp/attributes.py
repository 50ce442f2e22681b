"""What a span says beside what is ours: kept by its own names, within a bound. Pure.

Invariant: a value that is too long is cut, and one for which there is no room is left out and
counted; what the table in names.py tells is not kept twice.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import orjson

from proxy.otlp import names
from proxy.otlp.received import Received
from proxy.providers.lenient import clean, encode

# Bytes of all of a span's attributes as JSON, and characters of one string: a stack trace has some
# thousands.
MAX_BYTES: Final = 64 * 1024
_MAX_CHARS: Final = 8 * 1024
_MAX_EVENTS: Final = 64
_MAX_LINKS: Final = 32
# Room for what surrounds the attributes.
_FRAME_BYTES: Final = 64
# Names of events that are messages, or one piece of an answer each.
_MESSAGES: Final = (
    *("gen_ai.system.message", "gen_ai.user.message", "gen_ai.assistant.message"),
    *("gen_ai.tool.message", "gen_ai.choice", "gen_ai.content.", "llm.content."),
    "gen_ai.client.inference.operation.details",
)
_KINDS: Final = (None, "internal", "server", "client", "producer", "consumer")


def packed(span: Received, told: Mapping[str, object], *, billed: bool) -> bytes | None:
    """Write a span's attributes as JSON: those of its kind, and where it came from."""
    room = _Room(MAX_BYTES - _FRAME_BYTES)
    of_kind = room.fitting(
        {key: value for key, value in told.items() if not names.is_told(key, billed=billed)}
    )
    about: dict[str, object] = {}
    if span.scope:
        about["scope"] = clean(span.scope[:_MAX_CHARS])
    if 0 < span.kind < len(_KINDS):
        about["span_kind"] = _KINDS[span.kind]
    if resource := room.fitting(span.resource):
        about["resource"] = resource
    if events := list(_events(span, room)):
        about["events"] = events
    if span.links:
        about["links"] = [
            {"trace_id": clean(trace[:32]), "span_id": clean(span_id[:16])}
            for trace, span_id in span.links[:_MAX_LINKS]
        ]
    room.left_out += max(len(span.links) - _MAX_LINKS, 0)
    if room.left_out:
        about["left_out"] = room.left_out
    packed_up = {"kind": of_kind, "metadata": {"otel": about}}
    return orjson.dumps(packed_up) if of_kind or about else None


def _events(span: Received, room: "_Room") -> Iterator[dict[str, object]]:
    """Give the events that say something beside messages, which are the input and the output."""
    count = 0
    for event in span.events:
        if event.name.startswith(_MESSAGES):
            continue
        count += 1
        if count > _MAX_EVENTS:
            room.left_out += 1
            continue
        shown: dict[str, object] = {"name": clean(event.name[:_MAX_CHARS])}
        if event.at_ns:
            shown["offset_ms"] = round((event.at_ns - span.start_ns) / 1e6, 3)
        if attributes := room.fitting(event.attributes):
            shown["attributes"] = attributes
        yield shown


class _Room:
    """So many bytes, and what did not fit in."""

    def __init__(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes
        self.left_out = 0

    def fitting(self, told: Mapping[str, object]) -> dict[str, object]:
        """Give the attributes for which there is room."""
        found: dict[str, object] = {}
        for name, value in told.items():
            if value is None:
                continue
            shown = _cut(value)
            size = len(name.encode("utf-8", "replace")) + len(encode(shown)) + 4
            if size > self._left_bytes:
                self.left_out += 1
                continue
            self._left_bytes -= size
            found[clean(name)] = shown
        return found


def _cut(value: object) -> object:
    """Shorten the strings in a value, and make them storable."""
    if isinstance(value, str):
        return clean(value if len(value) <= _MAX_CHARS else value[:_MAX_CHARS] + "…")
    if isinstance(value, list):
        return [_cut(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): _cut(inner) for key, inner in value.items()}
    return value
