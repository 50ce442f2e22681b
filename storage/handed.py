"""What applications hand in, as it crosses into storage: openings and ends of traces and spans.

Invariant: frozen values that were checked at the edge; ``None`` is not given. Times are
microseconds UTC by the application's clock. A trace id has 16 bytes, a span id 8; ids are the
application's, so handing in the same thing twice is one thing. Nothing here does I/O.
"""

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from storage.chain import Conversation
from storage.records import Tokens

Kind = Literal["llm_call", "custom", "tool_call", "retrieval", "embedding", "fs_read", "fs_write"]
# How a span ends of which an application tells.
EndState = Literal["completed", "failed"]
# Kinds that are billed in tokens: what a proxied call may have seen as well.
BILLED: Final = frozenset({"llm_call", "embedding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOpened:
    """A trace that an application opened."""

    project_id: int
    trace_id: bytes
    name: str | None = None
    session_id: str | None = None
    session_source: str | None = None
    user_id: str | None = None
    tags: tuple[str, ...] = ()
    started_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceClosed:
    """The end of a trace."""

    project_id: int
    trace_id: bytes
    ended_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a span says of itself, at its start or at its end; the later word wins, field by field.

    ``input`` and ``output`` are exact JSON values, secrets cut out. ``attributes`` is a JSON object
    in bytes. ``cost_nusd`` is the application's own figure.
    """

    kind: Kind | None = None
    label: str | None = None
    model: str | None = None
    provider: str | None = None
    response_id: str | None = None
    tokens: Tokens = field(default_factory=Tokens)
    cost_nusd: int | None = None
    input: bytes | None = field(default=None, repr=False)
    output: bytes | None = field(default=None, repr=False)
    attributes: bytes | None = field(default=None, repr=False)
    redacted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanClosed:
    """The end of a span.

    It ends at ``ended_at_us``, or ``duration_us`` after its start; with neither, when it arrives.
    ``trace_id`` is None where only the span's id is known.
    """

    project_id: int
    span_id: bytes
    state: EndState
    trace_id: bytes | None = None
    ended_at_us: int | None = None
    duration_us: int | None = None
    error: str | None = None
    said: Said = field(default_factory=Said)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanOpened:
    """A span that began, or, with ``end``, one that has ended already.

    ``session_id`` and ``user_id`` are those that its trace takes where it has none.
    """

    project_id: int
    trace_id: bytes
    span_id: bytes
    name: str
    parent_id: bytes | None = None
    started_at_us: int | None = None
    session_id: str | None = None
    session_source: str | None = None
    user_id: str | None = None
    said: Said = field(default_factory=Said)
    end: SpanClosed | None = None


Item = TraceOpened | TraceClosed | SpanOpened | SpanClosed
# created: it is new. known: it was there, and is as the sender wants it. waiting: an end that came
# before what it ends. The others changed nothing: already_ended; conflict: the id is that of a
# proxied call, or of a span of another trace.
Result = Literal["created", "known", "ended", "waiting", "already_ended", "conflict"]


class Outcome(NamedTuple):
    """What became of an item. ``trace_id`` is None where it is not known yet."""

    result: Result
    trace_id: bytes | None
    span_id: bytes | None = None
    status: str | None = None
    session_id: str | None = None


class Cost(NamedTuple):
    """What a span cost: ``cost_status`` and ``price_version`` as in the span's row."""

    nusd: int | None
    status: str | None
    version: str | None


class Reader(Protocol):
    """How spans are read for what they mean, which is the proxy's to know. Never raises; no I/O."""

    def cost(self, said: Said, *, started_at_us: int) -> Cost:
        """Give the cost of a billed span: the application's figure, else ours by its tokens."""
        ...

    def conversation(self, said: Said) -> Conversation | None:
        """Give the messages of an ``llm_call`` whose input has such; None for anything else."""
        ...

    def preview(self, value: bytes) -> str | None:
        """Give at most 240 characters of a JSON value's text."""
        ...

    def text(self, value: bytes) -> str:
        """Give all text in a JSON value, for full text search."""
        ...

    def meaning(self, message: bytes) -> bytes:
        """Give the meaning of a message in these bytes, as that of a call has it (chain.py)."""
        ...
