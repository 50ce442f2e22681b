"""The JSON that the write API takes: its fields, and how a body or a batch of them is read. Pure.

Owns what each request may hold. Invariants: what is wrong is said by its place (`started_at`) and
by what was expected there, and is never quoted; of a batch each item is good or bad for itself; an
input or an output stays as it was written, but for keys of ours and for halves of characters.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, field

from proxy import handed_values as values
from proxy.api.params import BadParameter
from proxy.api.request_body import explained
from proxy.providers.lenient import MAX_CONTAINERS

T = TypeVar("T", bound=msgspec.Struct)

MAX_ITEMS: Final = 1_000
MAX_TAGS: Final = 64
TAG_CHARS: Final = 64

Time = Annotated[datetime, Meta(tz=True)]
Word = Annotated[str, Meta(max_length=values.NAME_CHARS)]
Tag = Annotated[str, Meta(max_length=TAG_CHARS)]


class Handed(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, frozen=True):
    """What an application hands in; in a batch, its `type` says what it is."""


class NewTrace(Handed, tag="trace", frozen=True):
    """The body of POST /api/traces."""

    id: str | None = None
    name: str | None = None
    session_id: str | None = None
    user_id: Word | None = None
    tags: Annotated[list[Tag], Meta(max_length=MAX_TAGS)] | None = None
    started_at: Time | None = None


class NewSpan(Handed, tag="span", frozen=True):
    """The body of POST /api/spans: a span that runs, or one that has ended already."""

    id: str | None = None
    trace_id: str | None = None
    parent_id: str | None = None
    name: str | None = None
    kind: Raw = field(default_factory=Raw)
    input: Raw = field(default_factory=Raw)
    output: Raw = field(default_factory=Raw)
    metadata: Raw = field(default_factory=Raw)
    started_at: Time | None = None
    ended_at: Time | None = None
    duration_ms: float | None = None
    status: Literal["running", "completed", "failed"] | None = None
    error: str | None = None
    session_id: str | None = None
    user_id: Word | None = None


class SpanCompletion(Handed, tag="complete", frozen=True):
    """The body of POST /api/spans/{id}/complete."""

    id: str | None = None
    trace_id: str | None = None
    output: Raw = field(default_factory=Raw)
    kind: Raw = field(default_factory=Raw)
    metadata: Raw = field(default_factory=Raw)
    ended_at: Time | None = None
    duration_ms: float | None = None


class SpanFailure(Handed, tag="fail", frozen=True):
    """The body of POST /api/spans/{id}/fail."""

    error: str
    id: str | None = None
    trace_id: str | None = None
    output: Raw = field(default_factory=Raw)
    kind: Raw = field(default_factory=Raw)
    metadata: Raw = field(default_factory=Raw)
    ended_at: Time | None = None
    duration_ms: float | None = None


class TraceEnd(Handed, tag="end", frozen=True):
    """The body of POST /api/traces/{id}/end."""

    id: str | None = None
    ended_at: Time | None = None


class Batch(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of POST /api/batch."""

    items: list[Raw]


class SpanKind(msgspec.Struct, frozen=True):
    """What a span is; a string alone is its type. Any other field is kept in its attributes.

    Those of a model call are read for `llm_call` and `embedding`, `kind` for `custom`.
    """

    type: str | None = None
    kind: Raw = field(default_factory=Raw)
    attributes: Raw = field(default_factory=Raw)
    model: Raw = field(default_factory=Raw)
    provider: Raw = field(default_factory=Raw)
    input_tokens: Raw = field(default_factory=Raw)
    output_tokens: Raw = field(default_factory=Raw)
    cached_input_tokens: Raw = field(default_factory=Raw)
    cache_write_tokens: Raw = field(default_factory=Raw)
    reasoning_tokens: Raw = field(default_factory=Raw)
    cost: Raw = field(default_factory=Raw)
    response_id: Raw = field(default_factory=Raw)


AnyItem = NewTrace | NewSpan | SpanCompletion | SpanFailure | TraceEnd
_ITEM: Final = msgspec.json.Decoder(AnyItem)
_BATCH: Final = msgspec.json.Decoder(Batch)
_BY_TYPE: Final[dict[str, type[msgspec.Struct]]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (NewTrace, NewSpan, SpanCompletion, SpanFailure, TraceEnd)
}
TYPES: Final = tuple(_BY_TYPE)
# Where a batch begins, what divides it into its items, and where it ends.
_BEGIN: Final = re.compile(rb'\s*\{\s*"items"\s*:\s*\[')
# A string that does not end takes all the rest, or each quote in it would be tried as a beginning.
_MARK: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
_END: Final = re.compile(rb"\s*\}\s*\Z")


def read_one(body: bytes, kind: type[T], item_id: str | None = None) -> tuple[T, bool]:
    """Read the body of a request for one thing, and tell whether a key of ours was cut out of it.

    `item_id` is the id in its path; none in the body may be another. With one, an empty body is
    `{}`: all is said.

    Raises:
        BadParameter: it is not what it should be.
    """
    body = _utf8(body)
    cut = values.without_keys(body)
    try:
        asked = msgspec.json.decode(b"{}" if item_id and not cut.strip() else cut, type=kind)
    except msgspec.ValidationError as error:
        raise _mistake(error, kind) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise _no_json(error) from None
    if item_id is not None:
        if getattr(asked, "id", None) not in (None, item_id):
            raise BadParameter("id: expected that of the path, or none", "id")
        asked = msgspec.structs.replace(asked, id=item_id)
    return asked, cut is not body


def items_of(body: bytes) -> list[bytes]:
    """Divide a batch into its items, each as its JSON.

    Raises:
        BadParameter: it is no batch, or one of more than ``MAX_ITEMS``.
    """
    body = _utf8(body)
    found: Sequence[bytes | Raw]
    try:
        found = _BATCH.decode(body).items
    except msgspec.ValidationError as error:
        raise _mistake(error, Batch) from None
    except msgspec.DecodeError as error:
        raise _no_json(error) from None
    except RecursionError as error:
        # One item is nested too deep: the others are good, each for itself.
        if (divided := _divided(body)) is None:
            raise _no_json(error) from None
        found = divided
    if len(found) > MAX_ITEMS:
        raise BadParameter(f"items: expected at most {MAX_ITEMS} of them", "items")
    return [bytes(one) for one in found]


def read_item(data: bytes) -> tuple[AnyItem, bool]:
    """Read an item of a batch, and tell whether a key of ours was cut out of it.

    Raises:
        BadParameter: it is not what it should be.
    """
    cut = values.without_keys(data)
    try:
        return _ITEM.decode(cut), cut is not data
    except msgspec.ValidationError as error:
        raise _mistake(error, _kind_of(cut)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise _no_json(error) from None


def _kind_of(data: bytes) -> type[msgspec.Struct] | None:
    """Give what an item that cannot be read would be."""
    for kind in _BY_TYPE.values():
        try:
            msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError as error:
            if not str(error).endswith("`$.type`"):
                return kind
    return None


def _mistake(error: msgspec.ValidationError, kind: type[msgspec.Struct] | None) -> BadParameter:
    name, what = explained(error, kind)
    if name == "type":
        what = f"expected one of {', '.join(TYPES)}"
    return BadParameter(f"{name}: {what}" if name else what, name or None)


def _no_json(error: Exception) -> BadParameter:
    if isinstance(error, RecursionError):
        return BadParameter("expected JSON of fewer levels")
    return BadParameter("expected JSON, an object")


def _utf8(body: bytes) -> bytes:
    """Take a body for JSON that any parser reads.

    Raises:
        BadParameter: it is not in UTF-8.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise BadParameter("expected JSON in UTF-8") from None
    return values.repaired(body)


def _divided(body: bytes) -> list[bytes] | None:
    """Divide a batch into its items without looking into them; None where that cannot be done."""
    begin = _BEGIN.match(body)
    if begin is None or body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:
        return None
    found = []
    start, depth = begin.end(), 1
    for mark in _MARK.finditer(body, start):
        character = mark[0]
        if character in (b"[", b"{"):
            depth += 1
        elif character in (b"]", b"}"):
            depth -= 1
        if depth == 0 or (depth == 1 and character == b","):
            found.append(body[start : mark.start()].strip())
            start = mark.end()
        if depth == 0:
            return found if _END.match(body, start) else None
    return None
