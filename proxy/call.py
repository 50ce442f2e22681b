"""One call in flight, and the frozen record that it leaves.

Owns a call's clock and what is known of it so far. Invariant: a call ends once; the wall clock is
read once, every duration is monotonic; what `finish` gives holds bytes and numbers only, so that
it could cross a process border.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import uuid_utils

from proxy import headers, session
from proxy.capture import Budget, Capture, Captured, CapturePolicy
from proxy.headers import Index, RawHeaders
from proxy.joining import NOWHERE, Joining
from proxy.mask import Mask, spellings
from proxy.providers.facts import AnswerFacts, Operation
from proxy.providers.openai import operation_of
from proxy.tap import Tap
from proxy.target import Target
from storage.records import SpanStart, Taken

EndedBy = Literal["client", "upstream", "proxy"]
Phase = Literal["request", "connect", "headers", "body"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the transport of a call ended. `code` is None where the upstream's answer came whole."""

    ended_by: EndedBy
    phase: Phase
    code: str | None = None
    error: str | None = None


COMPLETE = Ending(ended_by="upstream", phase="body")
CLIENT_LEFT = "client_left"
SERVER_STOPPED = "server_stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One direction of a call: redacted headers as JSON, and what was held of the body."""

    headers: str | None = None
    content_type: str = ""
    content_encoding: str = ""
    body: Captured = field(default_factory=Captured)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallProgress:
    """A running stream's answer so far."""

    start: SpanStart
    capture: CapturePolicy
    secrets: tuple[bytes, ...] = field(repr=False)
    response: Message
    elapsed_us: int
    first_byte_us: int | None
    first_token_us: int | None

    @property
    def held_bytes(self) -> int:
        """Bytes of the answer that this record keeps from the recording budget."""
        return self.response.body.held_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    """Everything that is known of an ended call, not yet read for its meaning (settle.py).

    `status` is the upstream's; `stream` what the tap saw of an event stream; `injected` says that
    the usage was asked for by us, `reserved` that the call may have a reservation.
    """

    start: SpanStart
    operation: Operation
    ending: Ending
    capture: CapturePolicy
    secrets: tuple[bytes, ...] = field(repr=False)
    duration_us: int
    first_byte_us: int | None
    first_token_us: int | None
    status: int | None
    request: Message
    response: Message
    stream: AnswerFacts | None
    injected: bool
    added_us: int | None = None
    reserved: bool = False

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that this record keeps from the recording budget."""
        return self.request.body.held_bytes + self.response.body.held_bytes

    def without_bodies(self) -> "CallEnd":
        """Give the record with the sizes and hashes of its bodies alone."""
        return replace(self, request=_bare(self.request), response=_bare(self.response))


@dataclass(frozen=True, slots=True)
class Overheard:
    """What the text of a running stream is read from: the copy of what the client received."""

    content_encoding: str
    secrets: tuple[bytes, ...] = field(repr=False)
    capture: Capture


class Call:
    """One call from its head to its end. Not thread-safe; lives on the event loop.

    `checkpoint` is the ticket of its last checkpoint, `media_type` the answer's. `outgoing` are the
    headers that it goes upstream with, before what is the relay's own is taken from them; `mask`
    hides the provider's key in the answer to a caller who did not send it. `lacks_key` says that
    there is no key for it to go with. `limit_nusd` is what its session may cost; `reserved`: it may
    have a reservation. `place` is where it is recorded, and the session there, as far as that is
    known before its start is saved; `joins_others`: that may be a trace that others made. `sent`:
    its request may have begun to leave. `body_wait_us` is how long its client took to send its body
    where that had to be there first, `held_s` how long its answer waited for the recorder.
    """

    def __init__(
        self,
        *,
        project_id: int,
        owner: bytes,
        method: str,
        target: Target,
        provider: str | None,
        request_headers: RawHeaders,
        request_index: Index,
        session_ref: session.SessionRef | None,
        capture: CapturePolicy,
        body_bytes: int,
        budget: Budget,
        limit_nusd: int | None = None,
        joining: Joining = NOWHERE,
        provider_key: bytes | None = None,
    ) -> None:
        """Begin it. `provider_key` is for a caller who sent a key of ours alone, b"" for none."""
        self._began_ns = time.monotonic_ns()
        self._budget = budget
        self._body_bytes = body_bytes
        self._capture = capture
        query = target.query or b""
        self._secrets = headers.credentials(request_headers, query, target.path)
        self._request_headers = request_headers
        self._request_index = request_index
        self.outgoing = request_headers
        self.lacks_key = provider_key == b""
        self.mask: Mask | None = None
        if provider_key:
            self._goes_with(provider_key)
        path = headers.redact_path(target.path, self._secrets).decode("utf-8", "replace")
        self.operation = operation_of(method, path)
        self.request = Capture(body_bytes, budget)
        self.limit_nusd = limit_nusd
        self.reserved = False
        self.sent = False
        self.body_wait_us = 0
        self.held_s = 0.0
        self._added_us: int | None = None
        self._heard_us = 0
        self.injected = False
        self.status: int | None = None
        self.tap: Tap | None = None
        self.finished = False
        self._checkpointed_bytes = self._checkpointed_us = 0
        self.checkpoint: asyncio.Future[Taken | None] | None = None
        self.media_type = ""
        self._answer_headers: RawHeaders = ()
        self._answer_index: Index = {}
        self._edited = False
        self._first_byte_us: int | None = None
        self._first_token_us: int | None = None
        redacted_query = headers.redact_query(query, self._secrets)
        session_id = session_ref.session_id if session_ref else None
        if session_id is not None:  # some take the key itself for a name of its user's session
            session_id = headers.redact(session_id.encode(), self._secrets).decode()
        session_source = session_ref.source if session_ref else None
        trace_id = uuid_utils.uuid7().bytes
        # Who names a session as well may stay out of the trace that has another. Its own trace's id
        # leads to wherever it is.
        joins = joining.trace_id if session_source != session.OURS.source else None
        self.joins_others = joining.names_a_trace
        self.place = Taken(joins or trace_id, session_id, session_source)
        self.start = SpanStart(
            project_id=project_id,
            trace_id=trace_id,
            # The clock's lower half, so that new ids come at the end of an index, and the only bits
            # that are random for each call: those between them count in one millisecond.
            span_id=trace_id[2:6] + trace_id[12:],
            started_at_us=time.time_ns() // 1000,
            name=self.operation.name or f"{method} {path}",
            owner=owner,
            caller=headers.caller(request_index),
            parent_id=joining.parent_id,
            joins=joining.trace_id,
            external_trace_id=joining.external_trace_id,
            external_parent_id=joining.external_parent_id,
            session_id=session_id,
            session_source=session_source,
            upstream=headers.redact_any(target.upstream.encode(), self._secrets).decode(),
            provider=provider,
            operation=self.operation.name or None,
            method=method,
            path=path,
            query=redacted_query.decode("utf-8", "replace") or None,
        )

    def recorded(self, ticket: asyncio.Future[Taken | None]) -> None:
        """Learn from the ticket of one of its records where it is, if that is saved."""
        if ticket.done() and not ticket.cancelled():
            start = self.start
            self.place = ticket.result() or Taken(
                start.trace_id, start.session_id, start.session_source
            )

    def leaves(self) -> None:
        """Note that its request is handed to the connection."""
        self.sent = True
        self._added_us = self._elapsed_us() - self.body_wait_us

    def heard(self) -> None:
        """Note that the head of its answer is here."""
        self._heard_us = self._elapsed_us()

    def handed_on(self) -> None:
        """Note that its client has the head of the answer."""
        if self._added_us is not None:
            self._added_us += self._elapsed_us() - self._heard_us
            self._heard_us = self._elapsed_us()

    def answered(self, status: int, answer_headers: RawHeaders, *, edited: bool) -> None:
        """Note the answer's head, as the upstream sent it; `edited`: the client gets it plain."""
        self._edited = edited
        self._first_byte_us = self._elapsed_us()
        self.status = status
        self._answer_headers = answer_headers
        self._answer_index = headers.index(answer_headers)
        self.media_type = headers.media_type(self._answer_index)
        self._secrets += headers.credentials(answer_headers, b"")  # a cookie that it sets
        self.tap = Tap(
            self.operation,
            self.media_type,
            headers.text(self._answer_index, b"content-encoding"),
            Capture(self._body_bytes, self._budget),
        )

    def relayed(self, sent: bytes, received: bytes) -> None:
        """Show the tap what the upstream sent, and what the client received of it."""
        for _ in self._watching(sent, received):
            pass

    async def watched(self, sent: bytes, received: bytes) -> None:
        """Do what `relayed` does, and let others run where it takes long."""
        for _ in self._watching(sent, received):
            await asyncio.sleep(0)

    def _watching(self, sent: bytes, received: bytes) -> Iterator[None]:
        if self.tap is None or self.finished:
            return
        yield from self.tap.steps(sent, received)
        if self._first_token_us is None and self.tap.first_token:
            self._first_token_us = self._elapsed_us()

    @property
    def at_its_end(self) -> bool:
        """Whether the answer's own end has passed; a client acts on it at once."""
        return self.tap is not None and self.tap.ended

    def overheard(self) -> Overheard | None:
        """Let others listen to the stream as it comes; None where it may not, or is none."""
        if self.tap is None or not self.tap.is_stream or self._capture.mode != "full":
            return None
        return Overheard(self._received_encoding(), self._secrets, self.tap.capture)

    def progress(self, after_s: float = 0.0) -> CallProgress | None:
        """Give the stream so far if it grew since the last time, and there is room for a copy.

        Not before so much time has passed since then, or since its first byte.
        """
        if self.tap is None or not self.tap.is_stream or self.finished:
            return None
        elapsed_us = self._elapsed_us()
        if elapsed_us - max(self._checkpointed_us, self._first_byte_us or 0) < after_s * 1e6:
            return None
        if self.checkpoint is not None and not self.checkpoint.done():
            return None  # the last one still waits: two would only take each other's room
        if self.tap.capture.head_bytes == self._checkpointed_bytes:
            return None
        if (so_far := self.tap.capture.so_far()) is None:
            return None
        self._checkpointed_bytes = so_far.held_bytes
        self._checkpointed_us = elapsed_us
        return CallProgress(
            start=self.start,
            capture=self._capture,
            secrets=self._secrets,
            response=self._response(so_far),
            elapsed_us=elapsed_us,
            first_byte_us=self._first_byte_us,
            first_token_us=self._first_token_us,
        )

    def finish(self, ending: Ending) -> CallEnd:
        """End the call and give its record. The bytes held stay on the budget until it is saved."""
        self.finished = True
        return CallEnd(
            start=self.start,
            operation=self.operation,
            ending=ending,
            capture=self._capture,
            secrets=self._secrets,
            duration_us=self._elapsed_us(),
            first_byte_us=self._first_byte_us,
            first_token_us=self._first_token_us,
            status=self.status,
            request=Message(
                headers=headers.redacted_json(self._request_headers, self._secrets),
                content_type=headers.text(self._request_index, b"content-type"),
                content_encoding=headers.text(self._request_index, b"content-encoding"),
                body=self.request.captured(),
            ),
            response=self._response(self.tap.capture.captured()) if self.tap else Message(),
            stream=self.tap.facts() if self.tap is not None else None,
            injected=self.injected,
            added_us=self._added_us if self.status is not None else None,
            reserved=self.reserved,
        )

    def _goes_with(self, provider_key: bytes) -> None:
        outgoing = headers.with_provider_key(self._request_headers, provider_key)
        # A key that comes back compressed cannot be seen.
        self.outgoing = headers.with_plain_answer(outgoing)
        spelled = spellings(provider_key)
        self._secrets += spelled
        self.mask = Mask(spelled)

    def _response(self, body: Captured) -> Message:
        return Message(
            headers=headers.redacted_json(self._answer_headers, self._secrets),
            content_type=headers.text(self._answer_index, b"content-type"),
            content_encoding=self._received_encoding(),
            body=body,
        )

    def _received_encoding(self) -> str:
        return "" if self._edited else headers.text(self._answer_index, b"content-encoding")

    def _elapsed_us(self) -> int:
        return (time.monotonic_ns() - self._began_ns) // 1000


def _bare(message: Message) -> Message:
    return replace(message, body=Captured(size=message.body.size, sha256=message.body.sha256))
