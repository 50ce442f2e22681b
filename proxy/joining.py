"""Which trace a call says it belongs to: our two headers, and `traceparent`. Pure.

Invariant: what our headers say is exact or refused, for a call that lands in no tree is not what
was asked for; a `traceparent` was meant for everybody, so a malformed one says nothing. Whether a
call can join what it names is storage's to decide.
"""

import re
from dataclasses import dataclass
from typing import Final

from proxy.headers import Index

TRACE: Final = b"x-traceway-trace-id"
PARENT: Final = b"x-traceway-parent-span-id"

# 32 hexadecimal digits, also as UUIDs are written (RFC 9562 section 4).
_TRACE_ID: Final = re.compile(
    rb"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE
)
_SPAN_ID: Final = re.compile(rb"[0-9a-f]{16}", re.IGNORECASE)
# W3C Trace Context (2021), section 3.2.2: lower case alone, version `ff` forbidden. Of a version
# that we do not know the first fields are read, as long as they end where they should.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)


class BadTrace(ValueError):
    """A header of ours names no trace, or no span of one."""


@dataclass(frozen=True, slots=True)
class Joining:
    """What a call's headers say: the trace that it joins, the span that it is below.

    A trace id has 16 bytes, a span id 8. The `external_` ids are those of `traceparent`.
    """

    trace_id: bytes | None = None
    parent_id: bytes | None = None
    external_trace_id: bytes | None = None
    external_parent_id: bytes | None = None

    @property
    def names_a_trace(self) -> bool:
        """Whether the call may come into a trace, and so a session, that others made."""
        return self.trace_id is not None or self.external_trace_id is not None


NOWHERE: Final = Joining()


def resolve(index: Index) -> Joining:
    """Read what a call's headers say.

    Raises:
        BadTrace: one of ours is malformed, or names a span without its trace.
    """
    if TRACE not in index and PARENT not in index and b"traceparent" not in index:
        return NOWHERE
    trace_id = _id(index, TRACE, _TRACE_ID, "X-Traceway-Trace-Id is 32 hexadecimal digits")
    parent_id = _id(index, PARENT, _SPAN_ID, "X-Traceway-Parent-Span-Id is 16 hexadecimal digits")
    if parent_id is not None and trace_id is None:
        message = "X-Traceway-Parent-Span-Id says nothing without its trace"
        raise BadTrace(f"{message}: send X-Traceway-Trace-Id with it")
    return Joining(trace_id, parent_id, *traceparent(index.get(b"traceparent", b"")))


def traceparent(value: bytes) -> tuple[bytes | None, bytes | None]:
    """Read a `traceparent`: the ids of its trace and its span, or neither."""
    found = _TRACEPARENT.fullmatch(value.strip(b" \t"))
    if found is None or (found[1] == b"00" and found[4] is not None):
        return None, None
    trace_id, parent_id = bytes.fromhex(found[2].decode()), bytes.fromhex(found[3].decode())
    return (trace_id, parent_id) if any(trace_id) and any(parent_id) else (None, None)


def _id(index: Index, name: bytes, form: re.Pattern[bytes], meaning: str) -> bytes | None:
    """Read one id; None where the header is missing or empty."""
    value = index.get(name, b"").strip(b" \t")
    if not value:
        return None
    if form.fullmatch(value) is None or not any(
        found := bytes.fromhex(value.replace(b"-", b"").decode())
    ):
        raise BadTrace(f"{meaning}, not all zero")
    return found
