"""Spans of OpenTelemetry as what applications hand in. Pure.

Owns which of a span's attributes mean what, by the table in names.py. Invariants: tokens are totals
with all parts in them; what says nothing of ours is kept by its own name, within a bound; unknown
is None; a span that cannot be stored is refused alone, and the reason said.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from proxy import session, usage
from proxy.handed_values import (
    ERROR_CHARS,
    NAME_CHARS,
    BadValue,
    nusd_of,
    plain,
    text_of,
    without_keys,
)
from proxy.handing import provider_of
from proxy.otlp import attributes as kept
from proxy.otlp import messages
from proxy.otlp.names import BY_FIELD, BY_KIND, KindRow
from proxy.otlp.received import Received
from proxy.providers.lenient import clean, encode, items, mapping, name
from storage.handed import (
    BILLED,
    Item,
    Kind,
    Said,
    SpanClosed,
    SpanOpened,
    TraceClosed,
    TraceOpened,
)
from storage.records import Tokens, add

# Characters of a tag, and how many a trace has.
_TAG_CHARS: Final = 64
_MAX_TAGS: Final = 64
_SESSION_CHARS: Final = 4096
_LAST_NS: Final = 7_258_118_400_000_000_000  # 2200-01-01, after which no clock that is set is
# Bytes of the attributes of all spans of a request, each of which keeps those of its resource.
_MOST_KEPT_BYTES: Final = 64 * 1024 * 1024
# Spans of one request, taken as a second's work; exporters send 512 at a time, and send again what
# has no answer after 10 s.
MOST_SPANS: Final = 10_000
_TOO_MUCH: Final = "the request has too many spans, or attributes in all: send smaller batches"
# Reasons for a refusal that are told; they repeat.
_TOLD: Final = 3
_DETAILS: Final = ("gen_ai.client.inference.operation.details",)
_CONTENT_EVENTS: Final = ("gen_ai.content.prompt", "gen_ai.content.completion")
# The Vercel AI SDK before 6 gave these providers' counts as they are: without what was cached.
_COUNTED_APART: Final = ("anthropic", "amazon-bedrock", "vertex.anthropic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What a request hands in; ``message`` says why the others were refused."""

    items: tuple[Item, ...]
    refused: int
    message: str


def mapped(project_id: int, spans: Sequence[Received | str]) -> Mapped:
    """Read the spans of one request; those that began first come first."""
    reasons: dict[str, int] = {}
    taken: list[Received] = []
    for span in spans:
        if not isinstance(span, str) and max(span.start_ns, span.end_ns) >= _LAST_NS:
            span = "a time must be before the year 2200"
        if isinstance(span, str):
            reasons[span] = reasons.get(span, 0) + 1
        else:
            taken.append(span)
    taken.sort(key=lambda span: (span.start_ns, span.parent_id is not None))
    handed: list[Item] = []
    ends: list[Item] = []
    kept_bytes = 0
    for span in taken:
        if kept_bytes > _MOST_KEPT_BYTES or len(handed) >= MOST_SPANS:
            reasons[_TOO_MUCH] = reasons.get(_TOO_MUCH, 0) + 1
            continue
        for item in _items(project_id, span, ends):
            handed.append(item)
            if isinstance(item, SpanOpened):
                kept_bytes += len(item.said.attributes or b"")
    told = [f"{reason} (spans: {count})" for reason, count in list(reasons.items())[:_TOLD]]
    return Mapped(items=(*handed, *ends), refused=sum(reasons.values()), message="; ".join(told))


def _items(project_id: int, span: Received, ends: list[Item]) -> Iterator[Item]:
    """Give a span as what is handed in; a root names its trace, and ends it at the end."""
    reading = _Reading(span)
    session_id, source = reading.session()
    user_id = reading.text("user")
    started_at_us = span.start_ns // 1000 or None
    title = text_of(span.name, NAME_CHARS) or reading.label or reading.kind
    if span.parent_id is None:
        yield TraceOpened(
            project_id=project_id,
            trace_id=span.trace_id,
            name=text_of(reading.text("trace_name"), NAME_CHARS) or title,
            session_id=session_id,
            session_source=source,
            user_id=user_id,
            tags=reading.tags(),
            started_at_us=started_at_us,
        )
    end = None
    if span.end_ns:
        ended_at_us = max(span.end_ns // 1000, started_at_us or 0)
        end = SpanClosed(
            project_id=project_id,
            trace_id=span.trace_id,
            span_id=span.span_id,
            state="failed" if span.failed else "completed",
            ended_at_us=ended_at_us,
            error=reading.error() if span.failed else None,
        )
        if span.parent_id is None:
            ends.append(
                TraceClosed(project_id=project_id, trace_id=span.trace_id, ended_at_us=ended_at_us)
            )
    yield SpanOpened(
        project_id=project_id,
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=title,
        started_at_us=started_at_us,
        session_id=session_id,
        session_source=source,
        user_id=user_id,
        said=reading.said(),
        end=end,
    )


class _Reading:
    """One span as it is read. ``kind`` and ``label`` are what it is."""

    def __init__(self, span: Received) -> None:
        self._span = span
        self._told = {**messages.merged(span.events, _DETAILS), **span.attributes}
        row = _kind(self._told)
        self.kind: Kind = row.kind if row else self._guess()
        self.label = row.label if row else None

    def _guess(self) -> Kind:
        """Take a span that names a model and counts tokens for a call."""
        has_model = self._first("model") or self._first("asked_model")
        has_tokens = self._first("input_tokens") is not None
        return "llm_call" if has_model and has_tokens else "custom"

    def _first(self, field: str) -> object:
        told = map(self._told.get, BY_FIELD[field])
        return next((value for value in told if value not in (None, "")), None)

    def text(self, field: str) -> str | None:
        """Give the first text of a field, of the span and then of its resource."""
        for told in (self._told, self._span.resource):
            for key in BY_FIELD[field]:
                value = told.get(key)
                if key.startswith("mlflow."):  # each of its attributes is JSON
                    value = messages.parsed(value)
                elif key.endswith(".invocation_parameters"):
                    value = mapping(messages.parsed(value)).get("model")
                if found := name(value):
                    return plain(found)
        return None

    def session(self) -> tuple[str | None, str | None]:
        """Give the session that the span names, and which attribute does; else its resource."""
        for told in (self._told, self._span.resource):
            for key in BY_FIELD["session"]:
                value = told.get(key)
                if isinstance(value, int) and not isinstance(value, bool):
                    value = str(value)
                if key.startswith("mlflow."):
                    value = messages.parsed(value)
                if not isinstance(value, str) or not 0 < len(value) <= _SESSION_CHARS:
                    continue
                found = session.adopted(without_keys(clean(value).encode()))
                if found is not None:
                    return found, key
        return None, None

    def tags(self) -> tuple[str, ...]:
        """Give what the trace is tagged with."""
        found = items(messages.parsed(self._first("tags")))
        texts = (text_of(tag, _TAG_CHARS) for tag in found if isinstance(tag, str))
        return tuple(dict.fromkeys(tag for tag in texts if tag))[:_MAX_TAGS]

    def error(self) -> str | None:
        """Give what went wrong, in the span's words."""
        found = self._span.status_message
        for event in self._span.events if not found else ():
            if event.name == "exception":
                parts = (
                    event.attributes.get("exception.type"),
                    event.attributes.get("exception.message"),
                )
                found = ": ".join(part for part in parts if isinstance(part, str) and part)
        if not found:
            first = self._first("error")
            found = first if isinstance(first, str) else ""
        return text_of(without_keys(clean(found).encode()).decode(), ERROR_CHARS)

    def said(self) -> Said:
        """Give what the span says of itself."""
        billed = self.kind in BILLED
        asked, answered = self._asked(), self._answered()
        rest = kept.packed(self._span, self._told, billed=billed)
        redacted = [without_keys(value) if value else value for value in (asked, answered, rest)]
        provider = self.text("provider")
        return Said(
            kind=self.kind,
            label=self.label,
            model=(self.text("model") or self.text("asked_model")) if billed else None,
            provider=(provider_of(provider, None) or provider) if billed and provider else None,
            response_id=(self.text("response_id") or self._answered_id()) if billed else None,
            tokens=self._tokens() if billed else Tokens(),
            cost_nusd=self._cost() if billed else None,
            input=redacted[0],
            output=redacted[1],
            attributes=redacted[2],
            redacted=redacted != [asked, answered, rest],
        )

    def _tokens(self) -> Tokens:
        def count(field: str) -> int | None:
            counts = (usage.count(_number(self._told.get(key))) for key in BY_FIELD[field])
            return next((found for found in counts if found is not None), None)

        whole, cached = count("input_tokens"), count("cached_input_tokens")
        write = count("cache_write_tokens")
        if self._is_counted_apart():
            vercel = mapping(messages.parsed(self._told.get("ai.response.providerMetadata")))
            told = mapping(vercel.get("anthropic")).get("cacheCreationInputTokens")
            write = usage.count(told) if write is None else write
            whole = usage.count(add(add(whole, cached), write))
        elif whole is not None and (cached or 0) + (write or 0) > whole:
            whole = usage.count(whole + (cached or 0) + (write or 0))  # a part is never the larger
        return usage.fit(
            Tokens(
                input=whole,
                output=count("output_tokens"),
                cached_input=cached,
                cache_write=write,
                reasoning=count("reasoning_tokens"),
                audio_input=count("audio_input_tokens"),
                audio_output=count("audio_output_tokens"),
            ),
            [],
        )

    def _is_counted_apart(self) -> bool:
        provider = self._told.get("ai.model.provider")
        return (
            isinstance(provider, str)
            and provider.startswith(_COUNTED_APART)
            and not any(key.startswith("ai.usage.inputTokenDetails.") for key in self._told)
        )

    def _cost(self) -> int | None:
        for key in BY_FIELD["cost"]:
            cost = self._told.get(key)
            if isinstance(cost, int | float) and not isinstance(cost, bool):
                try:
                    return nusd_of(cost)
                except BadValue:
                    continue
        return None

    def _asked(self) -> bytes | None:
        """Give the input as JSON: a chat's request where there are messages."""
        whole = self._told.get("input.value")
        if self.kind == "llm_call" and (request := _exact(whole, "messages")):
            return request
        asked: Sequence[object] = ()
        if self.kind in BILLED or self._first("input") is None:
            asked = [
                *messages.instructions(self._told.get("gen_ai.system_instructions")),
                *(self._messages("input_messages") or messages.from_events(self._span.events)[0]),
            ]
        if not asked:
            told = messages.merged(self._span.events, _CONTENT_EVENTS)
            found = self._value("input")
            found = told.get("gen_ai.prompt") if found is None else found
            if not messages.is_chat(chat := messages.parsed(found)):
                return _json(found)
            asked = items(chat)
        request_fields: dict[str, object] = {"messages": asked}
        if offered := self._tools():
            request_fields["tools"] = offered
        return encode(request_fields)

    def _answered(self) -> bytes | None:
        """Give the output as JSON: a message, where the model's answer is known as such."""
        if self.kind not in BILLED and self._first("output") is not None:
            return _json(self._value("output"))
        whole = _exact(self._told.get("output.value"), "choices")
        if self.kind == "llm_call" and whole and _exact(self._told.get("input.value"), "messages"):
            return whole
        found = self._messages("output_messages")
        is_in_a_row = any(key.startswith("llm.output_messages.") for key in self._told)
        if not found and self.kind == "llm_call":
            found = messages.vercel_answer(self._told)
        found = found or messages.from_events(self._span.events)[1]
        if found:
            return encode(messages.answer(found, are_choices=not is_in_a_row))
        told = messages.merged(self._span.events, _CONTENT_EVENTS)
        value = self._value("output")
        return _json(told.get("gen_ai.completion") if value is None else value)

    def _messages(self, field: str) -> list[messages.Message]:
        for key in BY_FIELD[field]:
            if key.endswith(".*"):
                found = messages.from_numbered(self._told, key[:-1])
            else:
                found = messages.from_content(self._told.get(key))
            if found:
                return found
        return []

    def _tools(self) -> list[object]:
        for key in BY_FIELD["tools"]:
            told = key[:-1] if key.endswith(".*") else self._told.get(key)
            if found := messages.tools(told, self._told):
                return found
        return []

    def _value(self, field: str) -> object:
        for key in BY_FIELD[field]:
            if key.endswith(".*"):
                value: object = messages.numbered(self._told, key[:-1]) or None
            else:
                value = self._told.get(key)
            if value is not None:
                return value
        return None

    def _answered_id(self) -> str | None:
        """Find the answer's id in the answer itself, where an exporter has it nowhere else."""
        answer = mapping(messages.parsed(self._told.get("output.value")))
        found = name(answer.get("id")) if "choices" in answer or "output" in answer else None
        return None if found is None else plain(found)


def _kind(told: Mapping[str, object]) -> KindRow | None:
    for key, values in BY_KIND.items():
        value = told.get(key)
        if isinstance(value, str) and (row := values.get(value.strip('"'))) is not None:
            return row
    return None


def _number(value: object) -> object:
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        return int(value)
    return value


def _exact(value: object, has: str) -> bytes | None:
    """Give a whole request or answer of a chat as it is; None where a string is none."""
    found = mapping(messages.parsed(value)) if isinstance(value, str) else {}
    several = found.get(has)
    if has == "messages" and not messages.is_chat(several):
        return None
    return str(value).encode("utf-8", "replace") if items(several) else None


def _json(value: object) -> bytes | None:
    """Write a value as JSON: as it is where it is JSON already, else what it is, as a string."""
    if value is None:
        return None
    if isinstance(value, str):
        text = clean(value)
        found = messages.parsed(text)
        return orjson.dumps(text) if found is text else text.strip().encode()
    if isinstance(value, list):
        return encode([messages.parsed(item) for item in value])
    return encode(value)
