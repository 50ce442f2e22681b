"""The kinds of spans on the pages: a word and a glyph for each. Pure.

Invariant: a kind that nobody here knows is shown by its own name, and looks like `custom`; so what
a stranger calls a span is never a class or a path.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from proxy.api.span_views import KindView
from proxy.ui.view import one_line


@dataclass(frozen=True, slots=True)
class Look:
    """How a kind looks: `name` of its style, `word` for people, `path` of its glyph in 16 x 16."""

    name: str
    word: str
    path: str


_LOOKS: Final[Mapping[str, Look]] = MappingProxyType(
    {
        look.name: look
        for look in (
            Look("llm_call", "model call", "M2.5 3.5h11v7.5H8L5 13.5V11H2.5z"),
            Look("custom", "span", "M5.5 4L2 8l3.5 4M10.5 4L14 8l-3.5 4"),
            Look(
                "tool_call",
                "tool call",
                "M13 4.5a3.2 3.2 0 0 1-4.3 3.7l-4.1 4.3-1.6-1.6 4.3-4.1A3.2 3.2 0 0 1 11 2.5"
                "L9.3 4.4l1.9 1.8z",
            ),
            Look("retrieval", "retrieval", "M11 7a4 4 0 1 1-8 0a4 4 0 0 1 8 0zM10 10l3.5 3.5"),
            Look("embedding", "embedding", "M3 3v10h10M5.5 10.5l3-4 2 2 3-4.5"),
            Look("fs_read", "file read", "M4 2.5h5l3 3v8H4zM6 8h4M6 10.5h4"),
            Look("fs_write", "file write", "M3 13l.8-3L10.500 3.300l2.200 2.200L6 12.200z"),
        )
    }
)


def look(kind: KindView) -> Look:
    """Give how a span looks; its word is what its application calls it, if anything."""
    known = _LOOKS.get(kind.type)
    word = known.word if known else one_line(kind.type, 24)
    shape = known or _LOOKS["custom"]
    return Look(shape.name, one_line(kind.kind, 24) or word, shape.path)


def is_billed(kind: KindView) -> bool:
    """Say whether a span is one of those that tokens and money go to."""
    return kind.type in ("llm_call", "embedding") or kind.cost is not None
