"""The nouns that cross from the proxy into storage and back: frozen values and their sums.

Invariant: ``None`` is unknown and 0 is zero; times are integer microseconds UTC (``_us``),
durations are microseconds on the monotonic clock, money is integer nano-USD (``_nusd``).
Nothing here does I/O.
"""

from dataclasses import dataclass, field, fields
from typing import Final, Generic, TypeVar

from storage.chain import Conversation

T = TypeVar("T")

RUNNING: Final = "running"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
TRUNCATED: Final = "truncated"
CANCELLED: Final = "cancelled"
INTERRUPTED: Final = "interrupted"
# These count as failed in every sum; `cancelled` (the client left) does not.
FAILED_STATES: Final = frozenset({FAILED, TRUNCATED, INTERRUPTED})

DEFAULT_PROJECT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of one call as billed, or of many calls as a sum.

    ``input`` and ``output`` are totals; every other bucket is a part of one of them and is never
    added to it.
    """

    input: int | None = None
    output: int | None = None
    cached_input: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    image_output: int | None = None

    @property
    def total(self) -> int | None:
        """Input plus output; None when neither is known."""
        return add(self.input, self.output)


TOKEN_BUCKETS: Final = tuple(f.name for f in fields(Tokens))


def add(a: int | None, b: int | None) -> int | None:
    """Add two counts of which either may be unknown; None only when both are."""
    if a is None:
        return b
    return a if b is None else a + b


# A body that is kept as an envelope and its parts; one that is longer is kept whole.
MAX_ENVELOPED_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes stored once per project under their SHA-256 (32 bytes)."""

    sha256: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A body round its holes: ``pieces[0] holes[0] pieces[1] ...``, one piece more than holes.

    A hole is a large value, or None where the messages of the conversation stood: all of the
    input's in a request, the answer's in a response. There is at most one such.
    """

    pieces: tuple[bytes, ...]
    holes: tuple[Content | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What is kept of one body: its bytes whole (``content``) or round holes (``envelope``).

    Both are None where nothing was kept (capture off, or dropped). ``size`` and ``sha256`` are
    those of the whole body as it passed; ``content_encoding`` is that of the kept bytes.
    ``truncated`` says that only its first part was kept, ``redacted`` that a secret was cut out of
    it, ``assembled`` that it was put together from the events of a stream. A body that is read
    back has neither content nor envelope, but ``stored``.
    """

    size: int
    sha256: bytes | None = None
    content: Content | None = None
    envelope: Envelope | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    truncated: bool = False
    redacted: bool = False
    assembled: bool = False
    stored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanStart:
    """A proxied call that began: enough for its row while it runs. No bodies.

    ``trace_id`` is 16 bytes, ``span_id`` and ``parent_id`` 8. ``owner`` is the boot id of the
    serving process. The ``external_`` ids come from a ``traceparent`` header. ``joins`` is the
    trace that it is to be a span of, below ``parent_id``; where it cannot, and else, ``trace_id``
    is its own. ``caller`` tells the API keys of callers apart: a hash of 8 bytes.
    """

    project_id: int
    trace_id: bytes
    span_id: bytes
    started_at_us: int
    name: str
    owner: bytes | None = None
    caller: bytes | None = None
    parent_id: bytes | None = None
    joins: bytes | None = None
    external_trace_id: bytes | None = None
    external_parent_id: bytes | None = None
    session_id: str | None = None
    session_source: str | None = None
    user_id: str | None = None
    kind: str = "llm_call"
    upstream: str | None = None
    provider: str | None = None
    operation: str | None = None
    method: str | None = None
    path: str | None = None
    query: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The trace, not its own, that a call is in, and what session this has by now."""

    trace_id: bytes
    session_id: str | None
    session_source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanCheckpoint:
    """What a running stream delivered so far, so that a crash keeps it; replaces the last one.

    ``elapsed_us`` counts from the start to the moment it was taken: the end of the span, should no
    other end come.
    """

    project_id: int
    trace_id: bytes
    span_id: bytes
    response: Body
    elapsed_us: int | None = None
    first_byte_us: int | None = None
    first_token_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Usage that one call reports of an object that another call made (a background response).

    It goes to the span that has ``response_id`` and no usage yet, once, and never to the reporter.
    """

    response_id: str
    model: str | None
    service_tier: str | None
    tokens: Tokens
    cost_nusd: int | None
    cost_status: str | None
    price_version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanEnd:
    """A span's final values, with its start: a start and an end that meet are one insert.

    ``error`` is a sentence; ``ended_by`` is one of client, upstream, proxy; ``phase`` one of
    request, connect, headers, body. ``duration_us``, ``first_byte_us`` and ``first_token_us``
    count from the start. ``name`` and ``user_id`` replace the start's where they are not None.

    ``conversation`` is None for calls without messages. The provider may hold the messages before
    those of the input: those up to the answer ``previous_response_id``, or, where ``keeps_state``
    is set, all of the session. ``infer_session``: a call that names no session may join the
    conversation that it extends. ``reserved``: it has a reservation (budgets.py).
    """

    start: SpanStart
    state: str
    duration_us: int
    name: str | None = None
    user_id: str | None = None
    http_status: int | None = None
    error: str | None = None
    ended_by: str | None = None
    phase: str | None = None
    first_byte_us: int | None = None
    first_token_us: int | None = None
    model_requested: str | None = None
    model: str | None = None
    service_tier: str | None = None
    response_id: str | None = None
    settles: Settlement | None = None
    conversation: Conversation | None = None
    previous_response_id: str | None = None
    keeps_state: bool = False
    infer_session: bool = True
    reserved: bool = False
    tokens: Tokens = field(default_factory=Tokens)
    usage_source: str | None = None
    cost_nusd: int | None = None
    cost_status: str | None = None
    price_version: str | None = None
    input_preview: str | None = None
    output_preview: str | None = None
    request: Body | None = None
    response: Body | None = None
    request_headers: str | None = None
    response_headers: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def ended_at_us(self) -> int:
        """Wall-clock end: start plus monotonic duration, so that no clock step reverses it."""
        return self.start.started_at_us + self.duration_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span as read back, without its bodies' bytes.

    ``handed_in``: an application told of it, and it is no call of ours. ``label``, ``attributes``
    (a JSON object) and ``same_call`` (the span of the call that it saw as well, which alone counts)
    are those of such. ``moved_from`` is the trace that a call which joined this one is by itself.
    Of one that was read in outline nobody looked for attributes and headers, which are None.
    """

    project_id: int
    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    seq: int
    kind: str
    name: str
    state: str
    error: str | None
    ended_by: str | None
    phase: str | None
    started_at_us: int
    ended_at_us: int | None
    duration_us: int | None
    first_byte_us: int | None
    first_token_us: int | None
    upstream: str | None
    provider: str | None
    operation: str | None
    method: str | None
    path: str | None
    query: str | None
    http_status: int | None
    model_requested: str | None
    model: str | None
    service_tier: str | None
    response_id: str | None
    settled_by: bytes | None
    tokens: Tokens
    usage_source: str | None
    cost_nusd: int | None
    cost_status: str | None
    price_version: str | None
    input_preview: str | None
    output_preview: str | None
    request: Body | None
    response: Body | None
    request_headers: str | None
    response_headers: str | None
    notes: tuple[str, ...]
    label: str | None = None
    attributes: bytes | None = None
    same_call: bytes | None = None
    moved_from: bytes | None = None
    handed_in: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A trace with the sums over its spans. ``error`` is that of its newest failed span.

    ``tags`` are those with which it was opened; ``linked_trace_id`` the trace that its call named
    and could not join.
    ``received_bytes`` is what the bodies of its ended calls measured as they passed, and
    ``stored_bytes`` what they added to the database when they were stored.
    """

    project_id: int
    trace_id: bytes
    seq: int
    session_id: str | None
    session_source: str | None
    user_id: str | None
    name: str
    status: str
    started_at_us: int
    ended_at_us: int | None
    span_count: int
    tokens: Tokens
    cost_nusd: int | None
    unpriced_count: int
    estimated_count: int
    received_bytes: int
    stored_bytes: int
    input_preview: str | None
    output_preview: str | None
    error: str | None
    tags: tuple[str, ...] = ()
    linked_trace_id: bytes | None = None

    @property
    def duration_us(self) -> int | None:
        """First start to last end; None while it runs."""
        return None if self.ended_at_us is None else self.ended_at_us - self.started_at_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session's row: sums over its traces, maintained in the transaction that writes a trace.

    ``last_active_at_us`` is the start of its newest trace, ``status`` that trace's status;
    ``ended_duration_us`` sums the durations of its ``ended_trace_count`` ended traces.
    """

    project_id: int
    session_id: str
    seq: int
    source: str
    name: str | None
    starred: bool
    user_id: str | None
    status: str
    trace_count: int
    span_count: int
    failed_trace_count: int
    ended_trace_count: int
    ended_duration_us: int
    tokens: Tokens
    cost_nusd: int | None
    unpriced_count: int
    estimated_count: int
    received_bytes: int
    stored_bytes: int
    first_started_at_us: int
    last_ended_at_us: int | None
    last_active_at_us: int
    first_input: str | None
    last_output: str | None
    last_error: str | None
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list, and the (value, seq) after which the next begins; None at the end.

    ``truncated`` says that a search looked at the newest of its hits only.
    """

    rows: tuple[T, ...]
    next_after: tuple[int, int] | None
    truncated: bool = False
