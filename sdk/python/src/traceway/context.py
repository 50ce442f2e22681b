"""Which trace or span the running code is in: one context variable.

Each thread and each asyncio task has its own value; a task begins with that of who made it.
Invariant: what is given is not over: a block that ends in another order than it began leaves no
ended span behind.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Optional, TypeAlias

if TYPE_CHECKING:
    from traceway.spans import Span, Trace

    Place: TypeAlias = Trace | Span

_PLACE: Final[ContextVar[Optional["Place"]]] = ContextVar("traceway", default=None)

swap = _PLACE.set


def here() -> Optional["Place"]:
    """Give the innermost trace or span that is not over."""
    place = _PLACE.get()
    while place is not None and place.is_over:
        place = place.outer
    return place


def current_span() -> Optional["Span"]:
    """Give the span that the running code is in."""
    place = here()
    return None if place is None or place.trace is place else place  # type: ignore[return-value]


def current_trace() -> Optional["Trace"]:
    """Give the trace that the running code is in."""
    place = here()
    return None if place is None else place.trace
