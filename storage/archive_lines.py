"""The lines of an archive: what each kind of line may hold, and how it becomes bytes and back.

Invariants: one value has one line (keys sorted, no blanks, what is unknown left out), so equal
contents are equal bytes; what does not fit the format is refused, never guessed. Bytes are a JSON
string where they are UTF-8, else {"base64": ...}. docs/export.md describes it for others. Pure.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from storage.aggregates import MAX_DURATION_US
from storage.columns import KEY_TEXT
from storage.handed import EndState
from storage.marks import SessionName
from storage.parameters import MAX_COST_NUSD, MAX_COUNT, MAX_KEY_BYTES, MAX_TIME_US, bounded
from storage.squeeze import MAX_BYTES

VERSION: Final = 1

# Characters. A path or a query is of a line of 64 KiB, and longer where keys were cut out of it.
MAX_TEXT_CHARS: Final = 256 * 1024
# What lists show as it is: of a preview 240 are recorded, of an error 4,000.
MAX_SHOWN_CHARS: Final = 16 * 1024
# An application may give 64 tags of 64 characters.
MAX_TAGS: Final = 1_000
MAX_TAG_CHARS: Final = 1_000

_NO_NUL: Final = r"^[^\x00]*\Z"  # PostgreSQL takes none in a text
Text = Annotated[str, Meta(pattern=_NO_NUL, max_length=MAX_TEXT_CHARS)]
Shown = Annotated[str, Meta(pattern=_NO_NUL, max_length=MAX_SHOWN_CHARS)]
Tag = Annotated[str, Meta(pattern=_NO_NUL, max_length=MAX_TAG_CHARS)]
Tags = Annotated[list[Tag], Meta(max_length=MAX_TAGS)]
# What an end says that waits for its start is cleaned when the two meet: it may have a NUL.
Told = Annotated[str, Meta(max_length=MAX_SHOWN_CHARS)]
# What becomes a header of an answer: a tab may stand within one (RFC 9110 section 5.5).
MediaText = Annotated[
    str, Meta(pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*\Z", max_length=MAX_TEXT_CHARS)
]
# As session.py reads them out of headers, and in how many bytes an index has them whole.
SessionId = Annotated[str, Meta(pattern=r"^(?!\s)[^\x00-\x1f\x7f-\x9f]+(?<!\s)\Z")]
TraceId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
SpanId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
# Ids that came with a header of others are as long as they are.
OtherId = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}){1,64}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
NodeHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Meaning = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}){0,64}\Z")]
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Duration = Annotated[int, Meta(ge=0, le=MAX_DURATION_US)]
Time = Annotated[int, Meta(ge=0, le=MAX_TIME_US)]
Cost = Annotated[int, Meta(ge=0, le=MAX_COST_NUSD)]
# A million USD, as a header may say it.
Limit = Annotated[int, Meta(ge=0, le=10**15)]


class _Line(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What all lines and their parts have in common."""


class Base64(_Line, frozen=True, kw_only=True):
    """Bytes that are no UTF-8."""

    base64: bytes


Data = str | Base64


class Header(_Line, frozen=True, kw_only=True, tag_field="type", tag="traceway"):
    """The first line of a block: of one session, or of traces that have none."""

    format: Literal["session", "traces"]
    version: int


class SessionLine(_Line, frozen=True, kw_only=True, tag_field="type", tag="session"):
    """The session of a block. Its figures are sums of what follows."""

    id: SessionId
    name: SessionName | None = None
    starred: bool = False
    budget_nusd: Limit | None = None


class TraceLine(_Line, frozen=True, kw_only=True, tag_field="type", tag="trace"):
    """A trace, before all that is in it. ``source`` says how its session was found."""

    id: TraceId
    source: Text | None = None
    linked: TraceId | None = None
    forgotten_at_us: Time | None = None


class OpenedLine(_Line, frozen=True, kw_only=True, tag_field="type", tag="opened"):
    """What an application said of a trace, where the first word of it came.

    ``heard_at_us`` is when the last word came, while it is open.
    """

    trace: TraceId
    at_us: Time | None = None
    name: Text | None = None
    user_id: Text | None = None
    closed_at_us: Time | None = None
    heard_at_us: Time | None = None
    tags: Tags | None = None


class ContentLine(_Line, frozen=True, kw_only=True, tag_field="type", tag="content"):
    """Bytes that messages, bodies and holes of bodies name by their hash."""

    sha256: Sha256
    data: Data


class NodeLine(_Line, frozen=True, kw_only=True, tag_field="type", tag="node"):
    """A message in its place: behind ``parent``, or first; ``lead`` stood before it."""

    hash: NodeHash
    parent: NodeHash | None = None
    lead: Data
    content: Sha256
    role: Text
    meaning: Meaning


class EnvelopeLine(_Line, frozen=True, kw_only=True):
    """A body round its holes, one piece more than holes; null is that of the messages."""

    pieces: list[Data]
    holes: list[Sha256 | None]


class BodyLine(_Line, frozen=True, kw_only=True):
    """What is kept of a body: whole in ``content``, or as an ``envelope``, or neither."""

    size: Count | None = None
    sha256: Sha256 | None = None
    content: Sha256 | None = None
    envelope: EnvelopeLine | None = None
    truncated: bool | None = None
    redacted: bool | None = None
    assembled: bool | None = None
    media_type: MediaText | None = None
    encoding: MediaText | None = None


class Chain(_Line, frozen=True, kw_only=True):
    """Where a call stands in its conversation: nodes, and meanings of what is before it."""

    input: NodeHash | None = None
    output: NodeHash | None = None
    prelude: NodeHash | None = None
    base_meaning: Meaning | None = None
    fresh_count: Count | None = None
    input_meaning: Meaning | None = None
    output_meaning: Meaning | None = None


class SaidLine(_Line, frozen=True, kw_only=True):
    """What an end that waits for its start says of the span, as it was said."""

    kind: Told | None = None
    label: Told | None = None
    model: Told | None = None
    provider: Told | None = None
    response_id: Told | None = None
    tokens: dict[str, int] | None = None
    cost_nusd: int | None = None
    input: Data | None = None
    output: Data | None = None
    attributes: Data | None = None
    redacted: bool = False


class EarlyEnd(_Line, frozen=True, kw_only=True):
    """An end that came before the start of its span, which it waits for."""

    arrived_at_us: Time
    state: EndState
    ended_at_us: int | None = None
    duration_us: int | None = None
    error: Told | None = None
    said: SaidLine | None = None


class SpanLine(_Line, frozen=True, kw_only=True, tag_field="type", tag="span"):
    """A span that has ended, with all that is known of it.

    ``handed_in``: an application told of it, and it is no call that passed through the proxy.
    """

    trace: TraceId
    id: SpanId
    parent_id: SpanId | None = None
    handed_in: bool = False
    external_trace_id: OtherId | None = None
    external_parent_id: OtherId | None = None
    moved_from: TraceId | None = None
    same_call: SpanId | None = None
    settled_by: SpanId | None = None
    state: Literal["completed", "failed", "truncated", "cancelled", "interrupted"]
    kind: Text
    label: Text | None = None
    name: Text
    user_id: Text | None = None
    started_at_us: Time
    duration_us: Duration
    first_byte_us: Count | None = None
    first_token_us: Count | None = None
    http_status: Count | None = None
    ended_by: Text | None = None
    phase: Text | None = None
    error: Shown | None = None
    upstream: Text | None = None
    provider: Text | None = None
    operation: Text | None = None
    method: Text | None = None
    path: Text | None = None
    query: Text | None = None
    model_requested: Text | None = None
    model: Text | None = None
    service_tier: Text | None = None
    response_id: Text | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cached_input_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    audio_input_tokens: Count | None = None
    audio_output_tokens: Count | None = None
    image_input_tokens: Count | None = None
    image_output_tokens: Count | None = None
    usage_source: Text | None = None
    cost_nusd: Cost | None = None
    cost_status: Text | None = None
    price_version: Text | None = None
    input_preview: Shown | None = None
    output_preview: Shown | None = None
    notes: Shown | None = None
    attributes: Data | None = None
    request_headers: Data | None = None
    response_headers: Data | None = None
    request: BodyLine | None = None
    response: BodyLine | None = None
    chain: Chain | None = None
    early_end: EarlyEnd | None = None


class EndLine(_Line, frozen=True, kw_only=True, tag_field="type", tag="end"):
    """The last line of a block: how many are before it, and the SHA-256 of their bytes."""

    lines: Annotated[int, Meta(ge=0)]
    sha256: Sha256


Line = Header | SessionLine | TraceLine | OpenedLine | ContentLine | NodeLine | SpanLine | EndLine

# Texts that indexes have whole, by the lines that have them.
_KEYS: Final[dict[type[Struct], tuple[str, ...]]] = {
    OpenedLine: ("user_id",),
    SpanLine: tuple(sorted(KEY_TEXT)),
}

_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder(Line).decode
_value: Final = msgspec.json.Decoder().decode
_is_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_is_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class BadArchive(ValueError):
    """Something is no archive, or a damaged one. The text is a sentence."""


def encoded(line: Line) -> bytes:
    """Give a line's bytes, with its end."""
    return bytes(_encode(line)) + b"\n"


def decoded(line: bytes) -> Line:
    """Read a line.

    Raises BadArchive where it is none of the format.
    """
    try:
        found: Line = _decode(line)
        if isinstance(found, SessionLine) and len(found.id.encode()) > MAX_KEY_BYTES:
            raise BadArchive(f"the id of the session has more than {MAX_KEY_BYTES:,} bytes")
        found = _cut(found)
        if isinstance(found, SpanLine):
            _check_json(found)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadArchive(why) from None
    return found


def _cut(line: Line) -> Line:
    """Cut texts that indexes have whole, as the recorder does: older versions did not."""
    texts = {name: getattr(line, name) for name in _KEYS.get(type(line), ())}
    cut = {name: bounded(text) for name, text in texts.items() if text is not None}
    return replace(line, **cut) if cut else line


def _check_json(span: SpanLine) -> None:
    """Refuse headers and attributes that are not the JSON as which they are shown, or too long."""
    end = span.early_end
    held: list[tuple[str, Data | None]] = [
        ("request_headers", span.request_headers),
        ("response_headers", span.response_headers),
        ("attributes", span.attributes),
        ("attributes", None if end is None or end.said is None else end.said.attributes),
    ]
    for name, data in held:
        if data is None:
            continue
        value = plain(data)
        if len(value) > MAX_BYTES:
            raise BadArchive(f"the {name} of the span have more than {MAX_BYTES:,} bytes")
        if name == "attributes":
            # Numbers that no reader of ours takes (1e999) are kept as they were written.
            _is_object(value)
        else:
            _is_list(value)
            _value(value)


def data_of(plain_bytes: bytes) -> Data:
    """Give bytes as they stand in a line."""
    try:
        return plain_bytes.decode()
    except UnicodeDecodeError:
        return Base64(base64=plain_bytes)


def plain(data: Data) -> bytes:
    """Give the bytes that stand in a line."""
    return data.base64 if isinstance(data, Base64) else data.encode()


def hex_of(some: bytes | None) -> str | None:
    """Give an id or a hash as it stands in a line."""
    return None if some is None else some.hex()


def bytes_of(text: str | None) -> bytes | None:
    """Give the id or hash that stands in a line."""
    return None if text is None else bytes.fromhex(text)


def is_the_same(one: SpanLine, other: SpanLine) -> bool:
    """Tell whether two lines are of one span, but for what depends on the calls beside it.

    A call that is in two traces has moved between its lines, and is the same but for where it is.
    """
    if one.trace != other.trace:
        one, other = _by_itself(one), _by_itself(other)
    return _alone(one) == _alone(other)


def _by_itself(span: SpanLine) -> SpanLine:
    """Give a call as it would be in the trace that it is of by itself: below nothing."""
    own = span.moved_from or span.trace
    return msgspec.structs.replace(span, trace=own, parent_id=None, moved_from=None)


def _alone(span: SpanLine) -> SpanLine:
    chain: Any = span.chain
    if chain is not None:
        chain = msgspec.structs.replace(chain, base_meaning=None, fresh_count=None)
    return msgspec.structs.replace(span, same_call=None, early_end=None, chain=chain)
