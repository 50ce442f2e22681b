"""Reads an ended call for its meaning: state, model, tokens, cost, previews, and what is stored.

Owns the rules by which a finished call becomes a row. Runs in the recorder's thread, before a
transaction begins; does no I/O. Invariants: unknown is None; a number that nobody reported is
marked as estimated; no credential of the call is in anything that leaves here.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

from proxy import headers
from proxy.call import CLIENT_LEFT, SERVER_STOPPED, CallEnd, CallProgress, Ending, Message
from proxy.config import CapturePolicy
from proxy.decode import decode
from proxy.estimate import tokens_of
from proxy.pricing import Prices
from proxy.providers.facts import AnswerFacts, RequestFacts
from proxy.providers.openai import read_answer, read_request, stream_text
from proxy.sse import events_of
from storage import records
from storage.records import Body, Content, Settlement, SpanCheckpoint, SpanEnd, Tokens

# Decoded bytes of a compressed body that are read: four times what is kept of one by default.
READ_BYTES: Final = 32 * 1024 * 1024
PREVIEW_CHARACTERS: Final = 500
# The least that is recognised of a secret at the end of a body that was cut.
SECRET_PART_BYTES: Final = 8
# Operations whose tokens are those of the text that goes in and comes out.
_TEXT_OPERATIONS: Final = frozenset({"chat.completions", "completions", "responses", "embeddings"})


@dataclass(frozen=True, slots=True)
class _Cost:
    nusd: int | None
    status: str | None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class _Usage:
    source: str | None
    tokens: Tokens = field(default_factory=Tokens)


_FREE: Final = _Cost(0, "free")
_UNPRICED: Final = _Cost(None, "unpriced")


class Settler:
    """Turns records of calls into changes of the database. Not thread-safe."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    def progress(self, record: CallProgress) -> SpanCheckpoint:
        """Give the checkpoint of a running stream."""
        read = _Read(record.response, record.secrets)
        return SpanCheckpoint(
            project_id=record.start.project_id,
            trace_id=record.start.trace_id,
            span_id=record.start.span_id,
            response=read.body(record.capture),
            elapsed_us=record.elapsed_us,
            first_byte_us=record.first_byte_us,
            first_token_us=record.first_token_us,
        )

    def end(self, call: CallEnd) -> SpanEnd:
        """Give the final row of a call."""
        request = _Read(call.request, call.secrets)
        response = _Read(call.response, call.secrets)
        asked = read_request(call.operation, request.data, call.request.content_type)
        facts = _answer_facts(call, response)
        state, error = _state(call, facts)
        usage = _usage(call, asked, facts, state)
        model = facts.model or asked.model
        tier = facts.service_tier
        cost = self._cost(call, facts, model, usage)
        return SpanEnd(
            start=call.start,
            state=state,
            duration_us=call.duration_us,
            name=model,
            user_id=asked.user,
            http_status=call.status,
            error=error,
            ended_by=call.ending.ended_by,
            phase=call.ending.phase,
            first_byte_us=call.first_byte_us,
            first_token_us=call.first_token_us,
            model_requested=asked.model,
            model=facts.model,
            service_tier=tier,
            response_id=facts.response_id,
            settles=self._settlement(call, facts),
            tokens=usage.tokens,
            usage_source=usage.source,
            cost_nusd=cost.nusd,
            cost_status=cost.status,
            price_version=cost.version,
            input_preview=_shown(asked.preview, call.capture),
            output_preview=_shown(facts.preview, call.capture),
            request=request.body(call.capture),
            response=response.body(call.capture) if call.status is not None else None,
            request_headers=call.request.headers,
            response_headers=call.response.headers,
            notes=facts.notes,
        )

    def bare(self, call: CallEnd) -> SpanEnd:
        """Give a row for a call that could not be read: that it was made, and how it ended."""
        state, error = _state(call, call.stream or AnswerFacts())
        return SpanEnd(
            start=call.start,
            state=state,
            duration_us=call.duration_us,
            http_status=call.status,
            error=_redacted(error, call.secrets),
            ended_by=call.ending.ended_by,
            phase=call.ending.phase,
            usage_source="missing",
            cost_status="unpriced",
            notes=("the record of this call could not be read",),
        )

    def _cost(
        self,
        call: CallEnd,
        facts: AnswerFacts,
        model: str | None,
        usage: _Usage,
    ) -> _Cost:
        if usage.source in ("provider", "injected"):
            return self._price(call, model, facts)
        if usage.source == "estimated":
            return self._price(call, model, replace(facts, main=usage.tokens, apart=()))
        if call.operation.bills == "nothing" or call.ending.phase in ("request", "connect"):
            return _FREE
        if call.status is not None and not 200 <= call.status < 300:
            return _FREE  # an error answer is not billed
        return _UNPRICED

    def _price(self, call: CallEnd, model: str | None, facts: AnswerFacts) -> _Cost:
        total_nusd, version, free = 0, None, True
        parts = [(model, facts.main), *((bill.model, bill.tokens) for bill in facts.apart)]
        for part_model, tokens in parts:
            price = self._prices.price(
                provider=call.start.provider or "",
                model=part_model,
                service_tier=facts.service_tier,
                tokens=tokens,
                at_us=call.start.started_at_us,
            )
            if price.nusd is None:
                return replace(_UNPRICED, version=price.version)
            total_nusd += price.nusd
            version = version or price.version
            free = free and price.status == "free"
        return _Cost(total_nusd, "free" if free else "priced", version)

    def _settlement(self, call: CallEnd, facts: AnswerFacts) -> Settlement | None:
        if facts.settles_id is None or not facts.reported:
            return None
        cost = self._price(call, facts.model, facts)
        return Settlement(
            response_id=facts.settles_id,
            model=facts.model,
            service_tier=facts.service_tier,
            tokens=facts.tokens,
            cost_nusd=cost.nusd,
            cost_status=cost.status,
            price_version=cost.version,
        )


class _Read:
    """One body without its content coding and without secrets."""

    def __init__(self, message: Message, secrets: tuple[bytes, ...]) -> None:
        self._message = message
        raw = message.body.head
        # What is said to be encoded may not be, and what cannot be decoded is stored as it came.
        self._raw = _without(secrets, raw)
        plain, self._decoded = decode(raw, message.content_encoding, READ_BYTES)
        self.data = _without(secrets, plain)
        self._redacted = self._raw != raw or self.data != plain

    def body(self, policy: CapturePolicy) -> Body:
        """Give what is kept of it."""
        captured = self._message.body
        encoding: str | None = self._message.content_encoding or None
        data = self._raw
        if self._redacted and self.data:  # what was cut out cannot be compressed again
            data, encoding = self.data, None
        kept: bytes | None = data
        if policy.mode == "preview":
            kept = data[: policy.preview_bytes]
        if policy.mode == "off" or not data:
            kept = None
        sha256 = captured.sha256
        if sha256 is None and captured.whole and not self._redacted:
            sha256 = hashlib.sha256(self._raw).digest()
        whole = captured.whole and kept is not None and len(kept) == len(data)
        whole = whole and (self._decoded or data is self._raw)
        return Body(
            size=captured.size,
            sha256=sha256,
            content=None if kept is None else _content(kept),
            content_type=self._message.content_type or None,
            content_encoding=encoding,
            truncated=captured.size > 0 and not whole,
            redacted=self._redacted,
        )


def _content(data: bytes) -> Content:
    return Content(sha256=hashlib.sha256(data).digest(), data=data)


def _without(secrets: tuple[bytes, ...], data: bytes) -> bytes:
    """Redact a body. One that was cut may end within a secret."""
    data = headers.redact(data, secrets)
    for secret in secrets:
        beginning = secret[:SECRET_PART_BYTES]
        at = data.find(beginning, max(0, len(data) - len(secret) + 1))
        while at >= 0 and not secret.startswith(data[at:]):
            at = data.find(beginning, at + 1)
        if at >= 0:
            return data[:at] + headers.REDACTED
    return data


def _redacted(text: str | None, secrets: tuple[bytes, ...]) -> str | None:
    if text is None:
        return None
    return headers.redact(text.encode(errors="replace"), secrets).decode(errors="replace")


def _shown(text: str | None, policy: CapturePolicy) -> str | None:
    """Give as much of a preview as may be kept of the body that it is from."""
    if text is None or policy.mode == "full":
        return text
    kept_bytes = policy.preview_bytes if policy.mode == "preview" else 0
    return text.encode(errors="replace")[:kept_bytes].decode(errors="ignore") or None


def _answer_facts(call: CallEnd, response: _Read) -> AnswerFacts:
    if call.status is None:
        return AnswerFacts()
    if call.stream is not None and 200 <= call.status < 300:
        text = stream_text(call.operation, events_of(response.data))
        preview = " ".join(text[: 4 * PREVIEW_CHARACTERS].split())
        facts = replace(call.stream, text=text, preview=preview)
    else:
        tail = b"" if call.response.content_encoding else call.response.body.tail
        facts = read_answer(call.operation, call.status, response.data, tail)
    if call.secrets:
        # What JSON escapes or a stream cuts in two is found in the text only. In all else as well:
        # an upstream may name its model after the key that it got.
        facts = replace(
            facts,
            preview=_redacted(facts.preview, call.secrets),
            error=_redacted(facts.error, call.secrets),
            model=_redacted(facts.model, call.secrets),
            response_id=_redacted(facts.response_id, call.secrets),
            service_tier=_redacted(facts.service_tier, call.secrets),
        )
    preview = (facts.preview or "")[:PREVIEW_CHARACTERS]
    error = facts.error if call.capture.mode != "off" else None  # it may quote what was asked
    return replace(facts, preview=preview or None, error=error)


def _state(call: CallEnd, facts: AnswerFacts) -> tuple[str, str | None]:
    """Give the state and the error: the provider's word first, then how the transport ended."""
    ending: Ending = call.ending
    if call.status is not None and not 200 <= call.status < 300:
        return records.FAILED, facts.error or f"HTTP {call.status}"
    if facts.state == "failed":
        return records.FAILED, facts.error or "the provider reported an error"
    if call.stream is not None and facts.state == "completed":
        return records.COMPLETED, None  # clients may leave at the stream's own end
    if ending.code is None:
        if call.stream is not None and facts.expects_end:
            return records.TRUNCATED, "the stream stopped before its end"
        return records.COMPLETED, None
    if ending.code == CLIENT_LEFT:
        return records.CANCELLED, ending.error
    if ending.code == SERVER_STOPPED:
        return records.INTERRUPTED, ending.error
    if call.status is not None:
        return records.TRUNCATED, ending.error
    return records.FAILED, ending.error


def _usage(call: CallEnd, asked: RequestFacts, facts: AnswerFacts, state: str) -> _Usage:
    """Give the tokens that this call is billed for, and how they are known."""
    if facts.settles_id is not None or call.operation.bills == "nothing":
        return _Usage(None)
    if facts.reported:
        return _Usage("injected" if call.injected else "provider", facts.tokens)
    if call.ending.phase in ("request", "connect") and call.status is None:
        return _Usage("missing", Tokens(input=0, output=0))  # nothing was sent to be billed
    answered = call.status is not None and 200 <= call.status < 300
    if facts.pending or not (answered or state == records.CANCELLED):
        return _Usage("missing")
    if call.operation.name not in _TEXT_OPERATIONS or not asked.text:
        return _Usage("missing")
    model = facts.model or asked.model
    output = 0 if call.operation.name == "embeddings" else tokens_of(facts.text, model)
    return _Usage("estimated", Tokens(input=tokens_of(asked.text, model), output=output))
