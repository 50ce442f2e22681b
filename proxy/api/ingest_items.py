"""From the write API's JSON to the records that cross into storage. Pure.

Owns what a request's values may be and what they come to. Invariant: what leaves here storage can
take; what cannot be is a ``BadParameter`` that names its place, and of a batch its item as well.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, TypeVar, get_args

import msgspec
import orjson
from msgspec import Raw

from proxy import handed_values as values
from proxy.api import ingest_bodies
from proxy.api.ingest_bodies import (
    NewSpan,
    NewTrace,
    SpanCompletion,
    SpanFailure,
    SpanKind,
    TraceEnd,
    Word,
)
from proxy.api.params import BadParameter
from proxy.api.request_body import explained
from proxy.handed_values import BadValue, session_id_of, text_of
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
from storage.records import COMPLETED, FAILED, RUNNING, TOKEN_BUCKETS, Tokens

V = TypeVar("V")
R = TypeVar("R")
S = TypeVar("S", bound=msgspec.Struct)

# How a session is known that an application named here (proxy/session.py).
SOURCE: Final = "api"
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
CUSTOM: Final = "custom"
# What a span failed of that nobody said.
_FAILED: Final = "it failed"


class _Billed(msgspec.Struct, frozen=True):
    model: Word | None = None
    provider: Word | None = None
    response_id: Word | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    cached_input_tokens: float | None = None
    cache_write_tokens: float | None = None
    reasoning_tokens: float | None = None
    cost: float | None = None


class _Labelled(msgspec.Struct, frozen=True):
    kind: Word | None = None


_FIELDS_OF_BILLED: Final = frozenset(one.name for one in msgspec.structs.fields(_Billed))
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_SPAN_KIND: Final = msgspec.json.Decoder(SpanKind)
_BILLED_KIND: Final = msgspec.json.Decoder(_Billed)
_LABELLED: Final = msgspec.json.Decoder(_Labelled)
_UNBILLED: Final = _Billed()
_NO_TOKENS: Final = Tokens()
_BUCKETS: Final = {
    bucket: f"{bucket}_tokens"
    for bucket in TOKEN_BUCKETS
    if f"{bucket}_tokens" in _FIELDS_OF_BILLED
}
_NOTHING: Final = (b"", b"null")


def read_batch(body: bytes, project_id: int) -> list[Item | BadParameter]:
    """Read a batch: each of its items in order, or what is wrong with it.

    Raises:
        BadParameter: it is no batch.
    """
    found: list[Item | BadParameter] = []
    for number, data in enumerate(ingest_bodies.items_of(body)):
        try:
            found.append(_item(data, project_id))
        except BadParameter as mistake:
            at = f"items[{number}]"
            if mistake.name is None:
                found.append(BadParameter(f"{at}: {mistake}", at))
            else:
                found.append(BadParameter(f"{at}.{mistake}", f"{at}.{mistake.name}"))
    return found


def read_trace(body: bytes, project_id: int) -> TraceOpened:
    """Read the body of POST /api/traces.

    Raises:
        BadParameter: it is not what it should be.
    """
    return _trace(ingest_bodies.read_one(body, NewTrace)[0], project_id)


def read_span(body: bytes, project_id: int) -> SpanOpened:
    """Read the body of POST /api/spans. Raises as ``read_trace`` does."""
    asked, redacted = ingest_bodies.read_one(body, NewSpan)
    return _span(asked, project_id, redacted=redacted)


def read_completion(body: bytes, project_id: int, span_id: str) -> SpanClosed:
    """Read the body of POST /api/spans/{id}/complete. Raises as ``read_trace`` does."""
    asked, redacted = ingest_bodies.read_one(body, SpanCompletion, span_id)
    return _span_end(asked, project_id, redacted=redacted)


def read_failure(body: bytes, project_id: int, span_id: str) -> SpanClosed:
    """Read the body of POST /api/spans/{id}/fail. Raises as ``read_trace`` does."""
    asked, redacted = ingest_bodies.read_one(body, SpanFailure, span_id)
    return _span_end(asked, project_id, redacted=redacted)


def read_trace_end(body: bytes, project_id: int, trace_id: str) -> TraceClosed:
    """Read the body of POST /api/traces/{id}/end. Raises as ``read_trace`` does."""
    return _trace_end(ingest_bodies.read_one(body, TraceEnd, trace_id)[0], project_id)


def _item(data: bytes, project_id: int) -> Item:
    asked, redacted = ingest_bodies.read_item(data)
    if isinstance(asked, NewSpan):
        return _span(asked, project_id, redacted=redacted)
    if isinstance(asked, NewTrace):
        return _trace(asked, project_id)
    if isinstance(asked, TraceEnd):
        return _trace_end(asked, project_id)
    return _span_end(asked, project_id, redacted=redacted)


def _trace(asked: NewTrace, project_id: int) -> TraceOpened:
    session_id = _checked(session_id_of, asked.session_id, "session_id")
    tags = (text_of(tag, ingest_bodies.TAG_CHARS) for tag in asked.tags or ())
    return TraceOpened(
        project_id=project_id,
        trace_id=_trace_id(asked.id, "id") or values.new_trace_id(),
        name=text_of(asked.name, values.NAME_CHARS),
        session_id=session_id,
        session_source=None if session_id is None else SOURCE,
        user_id=text_of(asked.user_id, values.NAME_CHARS),
        tags=tuple(dict.fromkeys(tag for tag in tags if tag)),
        started_at_us=_time(asked.started_at, "started_at"),
    )


def _trace_end(asked: TraceEnd, project_id: int) -> TraceClosed:
    return TraceClosed(
        project_id=project_id,
        trace_id=_known(_trace_id(asked.id, "id")),
        ended_at_us=_time(asked.ended_at, "ended_at"),
    )


def _span(asked: NewSpan, project_id: int, *, redacted: bool) -> SpanOpened:
    span_id, trace_id = _span_id(asked.id, "id"), _trace_id(asked.trace_id, "trace_id")
    if trace_id is None:
        # Of a span that has an id, so that sent again it is not in another trace.
        trace_id = (
            values.new_trace_id() if span_id is None else values.trace_of_span(project_id, span_id)
        )
    span_id = span_id or values.new_span_id()
    said = _said(asked, bytes(asked.input), redacted=redacted)
    session_id = _checked(session_id_of, asked.session_id, "session_id")
    name = text_of(asked.name, values.NAME_CHARS)
    return SpanOpened(
        project_id=project_id,
        trace_id=trace_id,
        span_id=span_id,
        name=name or said.model or said.label or said.kind or CUSTOM,
        parent_id=_span_id(asked.parent_id, "parent_id"),
        started_at_us=_time(asked.started_at, "started_at"),
        session_id=session_id,
        session_source=None if session_id is None else SOURCE,
        user_id=text_of(asked.user_id, values.NAME_CHARS),
        said=said,
        end=_own_end(asked, project_id, trace_id, span_id),
    )


def _own_end(asked: NewSpan, project_id: int, trace_id: bytes, span_id: bytes) -> SpanClosed | None:
    """Give the end of a span that is handed in ended: it says so, or when, or what went wrong."""
    ended_at_us = _time(asked.ended_at, "ended_at")
    duration_us = _checked(values.duration_us, asked.duration_ms, "duration_ms")
    has_end = ended_at_us is not None or duration_us is not None
    error = text_of(asked.error, values.ERROR_CHARS)
    if asked.status == RUNNING and (has_end or error):
        raise BadParameter("status: a span that runs has no end and no error", "status")
    if asked.status == COMPLETED and error:
        raise BadParameter("error: a span that completed has none", "error")
    if not has_end and error is None and asked.status in (None, RUNNING):
        return None
    failed = asked.status == FAILED or error is not None
    return SpanClosed(
        project_id=project_id,
        span_id=span_id,
        trace_id=trace_id,
        state="failed" if failed else "completed",
        ended_at_us=ended_at_us,
        duration_us=duration_us,
        error=(error or _FAILED) if failed else None,
    )


def _span_end(
    asked: SpanCompletion | SpanFailure, project_id: int, *, redacted: bool
) -> SpanClosed:
    error = None
    if isinstance(asked, SpanFailure):
        error = text_of(asked.error, values.ERROR_CHARS) or _FAILED
    return SpanClosed(
        project_id=project_id,
        span_id=_known(_span_id(asked.id, "id")),
        trace_id=_trace_id(asked.trace_id, "trace_id"),
        state="completed" if error is None else "failed",
        ended_at_us=_time(asked.ended_at, "ended_at"),
        duration_us=_checked(values.duration_us, asked.duration_ms, "duration_ms"),
        error=error,
        said=_said(asked, b"", redacted=redacted),
    )


def _said(asked: NewSpan | SpanCompletion | SpanFailure, value: bytes, *, redacted: bool) -> Said:
    """Give what a span says of itself; `value` is its input."""
    output, metadata = bytes(asked.output), bytes(asked.metadata)
    if metadata not in _NOTHING and metadata[:1] != b"{":
        raise BadParameter("metadata: expected an object", "metadata")
    kind, label, billed, rest = _kind(bytes(asked.kind))
    return Said(
        kind=kind,
        label=label,
        model=text_of(billed.model, values.NAME_CHARS),
        provider=text_of(billed.provider, values.NAME_CHARS),
        response_id=text_of(billed.response_id, values.NAME_CHARS),
        tokens=_tokens(billed),
        cost_nusd=_checked(values.nusd_of, billed.cost, "kind.cost"),
        input=None if value in _NOTHING else value,
        output=None if output in _NOTHING else output,
        attributes=_attributes(rest, b"" if metadata in _NOTHING else metadata),
        redacted=redacted,
    )


def _tokens(billed: _Billed) -> Tokens:
    if billed is _UNBILLED:
        return _NO_TOKENS
    return values.fitted(
        Tokens(
            **{
                bucket: _checked(values.count_of, getattr(billed, name), f"kind.{name}")
                for bucket, name in _BUCKETS.items()
            }
        )
    )


def _kind(raw: bytes) -> tuple[Kind | None, str | None, _Billed, dict[str, Raw]]:
    """Read a kind: its type, a custom one's label, what a billed one says, and the rest of it."""
    if raw in _NOTHING:
        return None, None, _UNBILLED, {}
    if raw[:1] == b'"':
        return _type_of(msgspec.json.decode(raw, type=str), "kind"), None, _UNBILLED, {}
    if raw[:1] != b"{":
        raise BadParameter("kind: expected an object with a type, or the type alone", "kind")
    fields = _OBJECT.decode(raw)
    head = _read(_SPAN_KIND, raw, SpanKind)
    name = _type_of(CUSTOM if head.type is None else head.type, "kind.type")
    attributes = bytes(head.attributes)
    if attributes not in _NOTHING and attributes[:1] != b"{":
        raise BadParameter("kind.attributes: expected an object", "kind.attributes")
    taken = {"type", "attributes"}
    label, billed = None, _UNBILLED
    if name in BILLED:
        billed = _read(_BILLED_KIND, raw, _Billed)
        taken |= _FIELDS_OF_BILLED
    elif name == CUSTOM:
        label = text_of(_read(_LABELLED, raw, _Labelled).kind, values.NAME_CHARS)
        taken.add("kind")
    rest = {} if attributes in _NOTHING else _OBJECT.decode(attributes)
    rest |= {key: one for key, one in fields.items() if key not in taken}
    return name, label, billed, rest


def _type_of(text: str, place: str) -> Kind:
    for kind in KINDS:
        if text == kind:
            return kind
    raise BadParameter(f"{place}: expected one of {', '.join(KINDS)}", place)


def _attributes(rest: Mapping[str, Raw], metadata: bytes) -> bytes | None:
    """Put together what is kept beside the columns: both parts as they were written."""
    parts = []
    if rest:
        members = [b"%b:%b" % (orjson.dumps(key), bytes(one)) for key, one in rest.items()]
        parts.append(b'"kind":{%b}' % b",".join(members))
    if metadata:
        parts.append(b'"metadata":%b' % metadata)
    if not parts:
        return None
    found = b"{%b}" % b",".join(parts)
    most = values.MAX_ATTRIBUTES_BYTES
    if len(found) > most:
        raise BadParameter(
            f"metadata: expected at most {most} bytes, with the attributes of the kind", "metadata"
        )
    if values.is_deep(found):
        levels = values.MAX_ATTRIBUTES_DEPTH
        raise BadParameter(f"metadata: expected at most {levels} levels", "metadata")
    return found


def _read(decoder: msgspec.json.Decoder[S], raw: bytes, kind: type[S]) -> S:
    """Read a part of a kind."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        name, what = explained(error, kind)
        place = f"kind.{name}" if name else "kind"
        raise BadParameter(f"{place}: {what}", place) from None


def _trace_id(text: str | None, name: str) -> bytes | None:
    return _checked(values.trace_id_of, text, name)


def _span_id(text: str | None, name: str) -> bytes | None:
    return _checked(values.span_id_of, text, name)


def _time(time: datetime | None, name: str) -> int | None:
    return _checked(values.time_us, time, name)


def _known(found: bytes | None) -> bytes:
    if found is None:
        raise BadParameter("id: expected the id of what ends", "id")
    return found


def _checked(check: Callable[[V], R], value: V | None, name: str) -> R | None:
    """Read a value that may be absent; one that is wrong is named."""
    if value is None:
        return None
    try:
        return check(value)
    except BadValue as error:
        raise BadParameter(f"{name}: {error}", name) from None
