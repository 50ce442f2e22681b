"""Spans as exporters send them, whatever the encoding: the values, and what makes one wrong.

Invariant: ids have their size and are not zero; a span of which that cannot be said is given as its
fault, and fails no other. Pure.

Source: opentelemetry-proto 1.45 (trace/v1, common/v1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

# Objects of one request that are built in memory: each takes some 70 bytes. Spans of real exporters
# have 20 attributes, of 3 objects each, in 2 KiB.
MAX_OBJECTS: Final = 500_000
FEW_BYTES: Final = 2 * MAX_OBJECTS  # no room for so many
TOO_MANY: Final = f"the request has more than {MAX_OBJECTS} parts: send smaller batches"
# Levels of lists and maps in one value that are read.
MAX_DEPTH: Final = 32
TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8


class Unreadable(ValueError):
    """The body is no ExportTraceServiceRequest, or one of too many parts."""


class Event(NamedTuple):
    """Something that happened within a span."""

    name: str
    at_ns: int
    attributes: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A span as an exporter sent it. Times are 0 where they were not given; ``links`` are hex ids.

    ``kind`` is the number of a SpanKind. Attributes are JSON: bytes are base64 in them.
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    name: str
    kind: int
    start_ns: int
    end_ns: int
    failed: bool
    status_message: str
    attributes: Mapping[str, object] = field(repr=False)
    events: tuple[Event, ...] = field(repr=False)
    links: tuple[tuple[str, str], ...]
    resource: Mapping[str, object] = field(repr=False)
    scope: str


def id_of(value: bytes, size: int, what: str) -> bytes:
    """Give an id that is one.

    Raises:
        ValueError: it has another size, or is zero.
    """
    if len(value) != size or not any(value):
        raise ValueError(f"a {what} must have {size} bytes, not all zero")
    return value


def parent_of(value: bytes) -> bytes | None:
    """Give a parent's id; none and zero mean a root.

    Raises:
        ValueError: it has another size.
    """
    return id_of(value, SPAN_ID_BYTES, "parent's span id") if any(value) else None


def finite(number: float) -> float | str:
    """Give a number; JSON has no other way than words to say those that are none."""
    return number if math.isfinite(number) else str(number)
