"""The spans of a trace as a tree, in the order in which a person reads it. Pure.

Invariant: every span stands there exactly once, whatever parents the spans name: one that is not
here, itself, or one of their own children.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.api.span_views import SpanView

# Levels that are told apart by their indent; deeper ones stand below each other.
MAX_DEPTH: Final = 12


@dataclass(frozen=True, slots=True)
class Branch:
    """A span, and how many it is in; ``place`` is its number in the order in which spans came."""

    span: SpanView
    depth: int
    place: int


def tree(spans: Sequence[SpanView]) -> list[Branch]:
    """Order spans so that each one's children follow it, in the order in which they came."""
    ids = {span.id for span in spans}
    children: defaultdict[str | None, list[int]] = defaultdict(list)
    for place, span in enumerate(spans):
        children[span.parent_id if span.parent_id in ids else None].append(place)
    found: dict[int, Branch] = {}
    # Those that are left behind the others are in circles, which begin with their oldest span.
    for root in (*children[None], *range(len(spans))):
        waiting = [(root, 0)]
        while waiting:
            place, depth = waiting.pop()
            if place in found:
                continue
            found[place] = Branch(spans[place], min(depth, MAX_DEPTH), place)
            waiting += [(child, depth + 1) for child in reversed(children[spans[place].id])]
    return list(found.values())


def state(span: SpanView) -> str:
    """Give the state of a span, which its status has as a word or as a key."""
    return span.status if isinstance(span.status, str) else next(iter(span.status))
