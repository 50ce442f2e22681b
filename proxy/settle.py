"""Reads an ended call for its meaning: state, model, tokens, cost, previews, and what is stored.

Owns the rules by which a finished call becomes a row. Runs in the recorder's thread, before a
transaction begins; does no I/O. Invariants: unknown is None; a number that nobody reported is
marked as estimated; no credential of the call is in anything that leaves here. What the bodies say
and what is kept of them is others' business (bodies.py).
"""

from dataclasses import replace
from typing import Final, NamedTuple

from proxy import session
from proxy.bodies import Answered, Asked, BodyReader, without
from proxy.call import CLIENT_LEFT, SERVER_STOPPED, CallEnd, CallProgress, Ending
from proxy.capture import CapturePolicy
from proxy.conversation import conversation_of
from proxy.estimate import tokens_of
from proxy.pricing import Prices
from proxy.providers.facts import AnswerFacts, Bill
from proxy.providers.openai import input_text
from storage import records
from storage.records import Settlement, SpanCheckpoint, SpanEnd, Tokens

# Operations whose tokens are those of the text that goes in and comes out.
_TEXT_OPERATIONS: Final = frozenset({"chat.completions", "completions", "responses", "embeddings"})


class _Cost(NamedTuple):
    nusd: int | None
    status: str | None
    version: str | None = None


class _Usage(NamedTuple):
    source: str | None
    tokens: Tokens = Tokens()


_FREE: Final = _Cost(0, "free")
_UNPRICED: Final = _Cost(None, "unpriced")


class Settler:
    """Turns records of calls into changes of the database. Not thread-safe.

    `infer`: a call that names no session may join the conversation that it extends.
    """

    def __init__(
        self, prices: Prices, *, infer: bool = True, keep_raw_streams: bool = False
    ) -> None:
        self._prices = prices
        self._infer = infer
        self._bodies = BodyReader(keep_raw_streams=keep_raw_streams)

    def forget(self) -> None:
        """Take over nothing from earlier calls: what they gave is not in the database, or gone."""
        self._bodies.forget()

    def progress(self, record: CallProgress) -> SpanCheckpoint:
        """Give the checkpoint of a running stream."""
        return SpanCheckpoint(
            project_id=record.start.project_id,
            trace_id=record.start.trace_id,
            span_id=record.start.span_id,
            response=self._bodies.so_far(record),
            elapsed_us=record.elapsed_us,
            first_byte_us=record.first_byte_us,
            first_token_us=record.first_token_us,
        )

    def end(self, call: CallEnd) -> SpanEnd:
        """Give the final row of a call."""
        asked = self._bodies.asked(call)
        answered = self._bodies.answered(call, asked.question)
        facts = _shown_facts(call, answered.facts)
        state, error = _state(call, facts)
        usage = _usage(call, asked, answered, facts, state)
        model = facts.model or asked.facts.model
        cost = self._cost(call, facts, model, usage)
        start = call.start
        if start.session_id is None and (named := session.from_body(asked.facts.named)):
            start = replace(start, session_id=named.session_id, session_source=named.source)
        return SpanEnd(
            start=start,
            state=state,
            duration_us=call.duration_us,
            name=model,
            user_id=asked.facts.user,
            http_status=call.status,
            error=error,
            ended_by=call.ending.ended_by,
            phase=call.ending.phase,
            first_byte_us=call.first_byte_us,
            first_token_us=call.first_token_us,
            model_requested=asked.facts.model,
            model=facts.model,
            service_tier=facts.service_tier,
            response_id=facts.response_id,
            settles=self._settlement(call, facts),
            conversation=conversation_of(
                asked.question,
                answered.messages,
                is_whole=answered.complete and state == records.COMPLETED,
            ),
            previous_response_id=asked.facts.previous_response_id,
            keeps_state=asked.facts.keeps_state,
            infer_session=self._infer,
            reserved=call.reserved,
            tokens=usage.tokens,
            usage_source=usage.source,
            cost_nusd=cost.nusd,
            cost_status=cost.status,
            price_version=cost.version,
            input_preview=_shown(asked.preview, call.capture),
            output_preview=_shown(answered.preview, call.capture),
            request=asked.body,
            response=answered.body,
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
            return self._price(call, model, facts.service_tier, facts.main, facts.apart)
        if usage.source == "estimated":
            return self._price(call, model, facts.service_tier, usage.tokens, ())
        if call.ending.phase in ("request", "connect"):
            return _FREE
        if call.status is not None and not 200 <= call.status < 300:
            return _FREE  # an error answer is not billed
        # What we do not know, and what names a model, is more likely to be billed than not.
        is_strange = not call.operation.name and call.start.method == "POST" and model is not None
        return _FREE if call.operation.bills == "nothing" and not is_strange else _UNPRICED

    def _price(
        self,
        call: CallEnd,
        model: str | None,
        tier: str | None,
        main: Tokens,
        apart: tuple[Bill, ...],
    ) -> _Cost:
        total_nusd, version, free = 0, None, True
        for bill in (Bill(model, main), *apart):
            price = self._prices.price(
                provider=call.start.provider or "",
                model=bill.model,
                service_tier=tier,
                tokens=bill.tokens,
                at_us=call.start.started_at_us,
            )
            if price.nusd is None:
                return _UNPRICED._replace(version=price.version)
            total_nusd += price.nusd
            version = version or price.version
            free = free and price.status == "free"
        return _Cost(total_nusd, "free" if free else "priced", version)

    def _settlement(self, call: CallEnd, facts: AnswerFacts) -> Settlement | None:
        if facts.settles_id is None or not facts.reported:
            return None
        cost = self._price(call, facts.model, facts.service_tier, facts.main, facts.apart)
        return Settlement(
            response_id=facts.settles_id,
            model=facts.model,
            service_tier=facts.service_tier,
            tokens=facts.tokens,
            cost_nusd=cost.nusd,
            cost_status=cost.status,
            price_version=cost.version,
        )


def _redacted(text: str | None, secrets: tuple[bytes, ...]) -> str | None:
    return None if text is None else without(text, secrets)


def _shown(text: str | None, policy: CapturePolicy) -> str | None:
    """Give as much of a preview as may be kept of the body that it is from."""
    if text is None or policy.mode == "full":
        return text
    kept_bytes = policy.preview_bytes if policy.mode == "preview" else 0
    return text.encode(errors="replace")[:kept_bytes].decode(errors="ignore") or None


def _shown_facts(call: CallEnd, facts: AnswerFacts) -> AnswerFacts:
    """Cut out of an answer's facts what must not be stored."""
    error = facts.error if call.capture.mode != "off" else None  # it may quote what was asked
    shown = (error, facts.model, facts.response_id, facts.service_tier)
    words = "\n".join([word for word in shown if word])
    # What JSON escapes is found in the text only, and not in the error alone: an upstream may name
    # its model after the key that it got.
    if error is facts.error and _redacted(words, call.secrets) == words:
        return facts
    return facts._replace(
        error=_redacted(error, call.secrets),
        model=_redacted(facts.model, call.secrets),
        response_id=_redacted(facts.response_id, call.secrets),
        service_tier=_redacted(facts.service_tier, call.secrets),
    )


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


def _usage(
    call: CallEnd, asked: Asked, answered: Answered, facts: AnswerFacts, state: str
) -> _Usage:
    """Give the tokens that this call is billed for, and how they are known."""
    if facts.settles_id is not None or call.operation.bills == "nothing":
        return _Usage(None)
    if facts.reported:
        return _Usage("injected" if call.injected else "provider", facts.tokens)
    if call.ending.phase in ("request", "connect") and call.status is None:
        return _Usage("missing", Tokens(input=0, output=0))  # nothing was sent to be billed
    succeeded = call.status is not None and 200 <= call.status < 300
    if facts.pending or not (succeeded or state == records.CANCELLED):
        return _Usage("missing")
    if call.operation.name not in _TEXT_OPERATIONS:
        return _Usage("missing")
    text = input_text(asked.readable, call.request.content_type)
    if not text:
        return _Usage("missing")
    model = facts.model or asked.facts.model
    output: int | None = 0
    if call.operation.name != "embeddings" and call.status is not None:
        # Of a copy that was cut nobody knows how much is missing.
        output = tokens_of(answered.text, model) if answered.complete else None
    return _Usage("estimated", Tokens(input=tokens_of(text, model), output=output))
