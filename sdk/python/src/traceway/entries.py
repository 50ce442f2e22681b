"""What is queued and sent: one entry for each thing that happened, and its form on the wire.

The forms are those of `POST /api/batch`. An entry is made in the application's thread, where it
costs little, and written out in the sender's, where nobody waits for it. `written` gives None where
there is nothing to send after all.
"""

import datetime
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from traceway.spans import Span, Trace

# What an entry holds of memory beside its values: a span with its ids, times and places, measured.
ENTRY_BYTES: Final = 700

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
# json.dumps of a str, without the way to it.
_quoted: Final[Callable[[str], str]] = json.encoder.encode_basestring


class Entry(Protocol):
    """One thing to send."""

    @property
    def size_bytes(self) -> int:
        """About what it holds of memory."""

    def written(self) -> bytes | None:
        """Give its JSON."""

    def lost(self) -> None:
        """Hear that it will never arrive."""


class Opening:
    """A trace begins, or has more to say of itself."""

    __slots__ = ("_fields", "_trace", "size_bytes")

    def __init__(self, trace: "Trace", fields: dict[str, Any]) -> None:
        self._trace = trace
        self._fields = fields
        self.size_bytes = ENTRY_BYTES + sum(len(str(value)) for value in fields.values())

    def written(self) -> bytes | None:
        parts = [f'{{"type":"trace","id":"{self._trace.id}"']
        parts += [
            f',"{name}":{json.dumps(value, ensure_ascii=False)}'
            for name, value in self._fields.items()
            if value
        ]
        parts.append(f',"started_at":"{iso(self._trace.started_ns)}"}}')
        return "".join(parts).encode("utf-8", "replace")

    def lost(self) -> None:
        # Its spans then say themselves whose they are.
        self._trace.unknown = True


class Closing:
    """A trace ends."""

    __slots__ = ("_at_ns", "_trace")

    size_bytes = ENTRY_BYTES

    def __init__(self, trace: "Trace", at_ns: int) -> None:
        self._trace = trace
        self._at_ns = at_ns

    def written(self) -> bytes | None:
        return f'{{"type":"end","id":"{self._trace.id}","ended_at":"{iso(self._at_ns)}"}}'.encode()

    def lost(self) -> None:
        pass


class Running:
    """A span began a while ago and goes on: sent so that it is seen."""

    __slots__ = ("_span",)

    size_bytes = ENTRY_BYTES

    def __init__(self, span: "Span") -> None:
        self._span = span

    def written(self) -> bytes | None:
        if self._span.duration_ns is not None:
            return None  # it ended meanwhile, and goes whole
        self._span.told = True
        return _span(self._span, None)

    def lost(self) -> None:
        self._span.told = False


class Ended:
    """A span ended: sent whole, or, where it was seen running, the rest of it."""

    __slots__ = ("_parts", "_span", "size_bytes")

    def __init__(self, span: "Span", kind: bytes, metadata: bytes | None) -> None:
        self._span = span
        self._parts = (kind, metadata)
        self.size_bytes = ENTRY_BYTES + len(kind) + len(metadata or b"") + span.values_bytes

    def written(self) -> bytes | None:
        span = self._span
        if not span.told:
            return _span(span, self._parts)
        kind, metadata = self._parts
        parts = [
            b'{"type":"%b","id":"%b","trace_id":"%b","kind":%b'
            % (
                b"complete" if span.error is None else b"fail",
                span.id.encode(),
                span.trace.id.encode(),
                kind,
            )
        ]
        _values(parts, (("output", span.output), ("metadata", metadata)))
        parts.append(_end(span))
        return b"".join(parts)

    def lost(self) -> None:
        pass


class Flush:
    """Nothing to send: says when all that was queued before it is done with."""

    __slots__ = ("done",)

    size_bytes = 0

    def __init__(self) -> None:
        self.done = threading.Event()

    def written(self) -> bytes | None:
        return None

    def lost(self) -> None:
        pass


def iso(at_ns: int) -> str:
    """Give a time since 1970 as ISO 8601 with microseconds and Z."""
    return (_EPOCH + datetime.timedelta(microseconds=at_ns // 1_000)).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )


def _span(span: "Span", ended: tuple[bytes, bytes | None] | None) -> bytes:
    kind, metadata = ended or span.described()
    trace = span.trace
    parts = [
        f'{{"type":"span","id":"{span.id}","trace_id":"{trace.id}","name":{_quoted(span.name)}'
        f',"started_at":"{iso(span.started_ns)}"'.encode("utf-8", "replace")
    ]
    if span.parent_id:
        parts.append(b',"parent_id":"%016x"' % span.parent_id)
    if trace.unknown:
        for name, value in (("session_id", trace.session_id), ("user_id", trace.user_id)):
            if value:
                parts.append(f',"{name}":{_quoted(value)}'.encode("utf-8", "replace"))
    parts.append(b',"kind":' + kind)
    _values(parts, (("input", span.input), ("output", span.output), ("metadata", metadata)))
    if ended is None:
        parts.append(b"}")
    else:
        parts.append(b',"status":"completed"' if span.error is None else b',"status":"failed"')
        parts.append(_end(span))
    return b"".join(parts)


def _values(parts: list[bytes], values: tuple[tuple[str, bytes | None], ...]) -> None:
    parts.extend(
        b',"%b":%b' % (name.encode(), value) for name, value in values if value is not None
    )


def _end(span: "Span") -> bytes:
    duration_ms = (span.duration_ns or 0) / 1e6
    error = "" if span.error is None else f',"error":{_quoted(span.error)}'
    return f'{error},"duration_ms":{duration_ms:.3f}}}'.encode("utf-8", "replace")
