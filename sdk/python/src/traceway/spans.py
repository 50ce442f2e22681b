"""Traces and spans as the application holds them.

Invariants: nothing here waits or does I/O, and nothing raises for what it is given; the first end
counts, and what is said after it is not sent. Inputs and outputs are made JSON of at once, in the
thread of the application, so that what is sent is what they were then; metadata and kind when it
ends.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from traceway import context, values
from traceway.entries import Closing, Ended, Opening
from traceway.handles import Handle, Kind
from traceway.ids import new_span_id, new_trace_id

if TYPE_CHECKING:
    from traceway.client import Traceway

    Origin: TypeAlias = "Traceway | Handle"

KINDS: Final = frozenset(
    ("llm_call", "custom", "tool_call", "retrieval", "embedding", "fs_read", "fs_write")
)
_WRITTEN: Final = {kind: b'{"type":"%b"}' % kind.encode() for kind in KINDS}
# A kind's fields and metadata are shown whole in lists; input and output have the limit of values.
_MAX_FIELDS_BYTES: Final = 64 << 10
_WORDS: Final = frozenset(("model", "provider", "response_id"))
# A header and a row of the write API refuse them.
_CONTROL: Final = frozenset((*map(chr, range(32)), *map(chr, range(0x7F, 0xA0))))


class Trace(Handle):
    """One trace: a turn of a conversation, a job, whatever the application does as one."""

    __slots__ = ("_id", "_said", "_thrown_id", "name", "session_id", "tags", "unknown", "user_id")

    def __init__(
        self,
        client: "Traceway",
        name: object,
        session_id: object = None,
        user_id: object = None,
        tags: object = None,
    ) -> None:
        self._begin(client)
        self._id = new_trace_id()
        self.trace = self
        self.name = values.text_of(name)
        self.session_id = _session(client, session_id)
        self.user_id = None if user_id is None else values.text_of(user_id)
        self.tags = values.tags_of(tags)
        self.unknown = False  # to the server: its opening was lost
        self._said = False
        # Of the exception that failed a span of it last: the exception would hold its frames.
        self._thrown_id: int | None = None
        client.remember(self)

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self._id:032x}"

    def identify(
        self, *, session_id: object = None, user_id: object = None, tags: object = None
    ) -> None:
        """Say whose the trace is, where that is only known inside of it; what is known stays."""
        self.session_id = self.session_id or _session(self.client, session_id)
        if user_id is not None:
            self.user_id = self.user_id or values.text_of(user_id)
        self.tags = self.tags or values.tags_of(tags)
        if self._said and not self.is_over:
            self._said = False
            self.open()

    def open(self) -> None:
        """Queue its opening, which goes before all its spans; does nothing the second time."""
        if not self._said:
            self._said = True
            self.client.forget(self)
            fields = {"name": self.name, "session_id": self.session_id, "user_id": self.user_id}
            if not self.client.put(Opening(self, {**fields, "tags": self.tags})):
                self.unknown = True

    def end(self) -> None:
        """End it, now."""
        if not self.is_over:
            self.open()
            self.is_over = True
            lasted_ns = time.perf_counter_ns() - self._began_ns
            self.client.put(Closing(self, self.started_ns + lasted_ns))

    def fail(self, error: object) -> None:
        """Mark it failed; inside its block the block's end ends it, else this does.

        A trace has the state of its spans, so a span of the whole time says the error.
        """
        if self.is_over:
            return
        if self._thrown_id != id(error):
            said = Span(self, self, 0, self.name, "custom", None, None)
            said.started_ns, said._began_ns = self.started_ns, self._began_ns
            said.fail(error)
        if not self._within:
            self.end()

    def thrown(self, error: object) -> None:
        """Note what a span of it failed with, so that it is said once on its way out."""
        if isinstance(error, BaseException):
            self._thrown_id = id(error)

    def parent_for_spans(self) -> int:
        place = context.here()
        return place.parent_for_spans() if isinstance(place, Span) and place.trace is self else 0

    def _again(self) -> "Trace":
        return Trace(self.client, self.name, self.session_id, self.user_id, self.tags)


class Span(Handle):
    """One step of a trace."""

    __slots__ = (
        *("_details", "_id", "_kind", "_metadata", "_origin", "duration_ns"),
        *("error", "input", "name", "output", "owns_trace", "parent_id", "told"),
    )

    def __init__(
        self,
        origin: "Origin",
        trace: Trace,
        parent_id: int,
        name: object,
        kind: Kind,
        input: Any,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        self._begin(trace.client)
        self._id = new_span_id()
        self._origin = origin
        self.trace = trace
        self.parent_id = parent_id
        self.name = values.text_of(name)
        self._details: dict[str, Any] | None = None
        if isinstance(kind, str):
            self._kind = kind
            if kind not in KINDS:
                self._kind, self._details = "custom", {"kind": values.text_of(kind)}
        else:
            self._kind, self._details = _described(kind)
        self.input = None if input is None else values.encode(input, self.client.max_value_bytes)
        self.output: bytes | None = None
        self._metadata = values.fields_of(metadata) if metadata else None
        self.error: str | None = None
        self.duration_ns: int | None = None
        self.told = False  # the server was told of it while it ran; the sender's
        self.owns_trace = False
        self.client.remember(self)

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        return f"{self._id:016x}"

    @property
    def values_bytes(self) -> int:
        """What its values hold of memory."""
        return len(self.input or b"") + len(self.output or b"") + len(self.error or "")

    def set_input(self, value: Any) -> None:
        """Say what went in, where that is not known when it begins."""
        if not self.is_over:
            self.input = values.encode(value, self.client.max_value_bytes)

    def set_output(self, value: Any) -> None:
        """Say what came out: anything; what JSON cannot hold is converted."""
        if not self.is_over:
            self.output = values.encode(value, self.client.max_value_bytes)

    def set_metadata(self, **fields: Any) -> None:
        """Add to the metadata."""
        self._metadata = {**(self._metadata or {}), **fields}

    def set_usage(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_input_tokens: int | None = None,
        cache_write_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        cost: float | None = None,
        model: str | None = None,
        provider: str | None = None,
        response_id: str | None = None,
    ) -> None:
        """Say what a model call used: inclusive totals, and parts of them; the cost in USD.

        Without a cost the server prices it. `response_id` is the provider's: by it a call that the
        proxy saw as well counts once.
        """
        numbers = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_input_tokens": cached_input_tokens,
            "cache_write_tokens": cache_write_tokens,
            "reasoning_tokens": reasoning_tokens,
            "cost": cost,
        }
        words = {"model": model, "provider": provider, "response_id": response_id}
        said: dict[str, Any] = dict(self._details or {})
        for name, number in numbers.items():
            if (read := values.number_of(number)) is not None:
                said[name] = read
        for name, word in words.items():
            if word is not None:
                said[name] = values.text_of(word)
        self._details = said

    def end(self, *, output: Any = None) -> None:
        """End it, now."""
        if self.is_over:
            return
        if output is not None:
            self.set_output(output)
        self.duration_ns = time.perf_counter_ns() - self._began_ns
        self.is_over = True
        self.client.forget(self)
        self.trace.open()
        self.client.put(Ended(self, *self.described()))
        if self.owns_trace:
            self.trace.end()

    def fail(self, error: object) -> None:
        """Mark it failed with an exception or a text; inside its block the block's end ends it."""
        if self.is_over:
            return
        self.error = values.error_of(error)
        self.trace.thrown(error)
        if not self._within:
            self.end()

    def described(self) -> tuple[bytes, bytes | None]:
        """Give its kind and its metadata as JSON."""
        kind, details, metadata = self._kind, self._details, self._metadata
        return (
            values.encode_fields({**details, "type": kind}, _MAX_FIELDS_BYTES)
            if details
            else _WRITTEN[kind],
            None if metadata is None else values.encode_fields(metadata, _MAX_FIELDS_BYTES),
        )

    def parent_for_spans(self) -> int:
        return self._id

    def _unmake(self) -> None:
        super()._unmake()
        if self.owns_trace:
            self.trace._unmake()

    def _again(self) -> "Span":
        kind = {**(self._details or {}), "type": self._kind}
        span = self._origin.span(self.name, kind=kind, metadata=self._metadata)
        span.input = self.input
        return span


def _described(kind: object) -> tuple[str, dict[str, Any] | None]:
    fields = values.fields_of(kind)
    name = fields.pop("type", "custom")
    details = {
        key: values.text_of(value) if key in _WORDS else value
        for key, value in fields.items()
        if value is not None
    }
    if name not in KINDS:
        return "custom", {"kind": values.text_of(name), **details}
    return str(name), details or None


def _session(client: "Traceway", session_id: object) -> str | None:
    if session_id is None:
        return None
    text = values.text_of(session_id, 8 << 10)
    if _CONTROL.isdisjoint(text):
        return text or None
    client.complain("a session id with control characters was left out")
    return None
