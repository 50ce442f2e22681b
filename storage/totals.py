"""Sums over rows, and over what a deletion removed: frozen values, read and never written.

Invariant: ``None`` is unknown and 0 is zero, as in records.py. Nothing here does I/O.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Sums over one project. Tokens and cost are None when no call's are known.

    ``stored_bytes`` is what contents and envelopes take in the database now; ``received_bytes``
    is what the bodies of all ended calls measured as they passed.
    """

    session_count: int
    trace_count: int
    span_count: int
    running_span_count: int
    input_tokens: int | None
    output_tokens: int | None
    cost_nusd: int | None
    unpriced_count: int
    estimated_count: int
    received_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over the rows of a list. ``session_count`` is None where the rows are traces.

    ``truncated``: not over all of them, but over the newest.
    """

    session_count: int | None
    trace_count: int
    span_count: int
    failed_trace_count: int
    unpriced_count: int
    estimated_count: int
    input_tokens: int | None
    output_tokens: int | None
    cost_nusd: int | None
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What one deletion removed; ``content_bytes`` as stored."""

    traces: int
    spans: int
    contents: int
    content_bytes: int
