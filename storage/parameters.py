"""The door to the database: what the proxy hands over becomes values that SQL can hold.

Invariant: nothing that passes here makes a statement fail. Text has no NUL and no lone surrogate,
numbers fit their columns, and what does not is NULL; a row is never lost to one bad value. Bytes
pass unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.columns import (
    ASSEMBLED,
    BODY_COLUMNS,
    BODY_PARTS,
    CHECKPOINT_TEXT,
    END_TEXT,
    KEY_TEXT,
    SETTLEMENT_TEXT,
    START_TEXT,
)
from storage.database import Value
from storage.keys import SpanKey
from storage.records import (
    RUNNING,
    Body,
    Settlement,
    SpanCheckpoint,
    SpanEnd,
    SpanStart,
    Tokens,
)
from storage.squeeze import squeeze

# Larger counts are mistakes, and sums of nine million such still fit 64 bits.
MAX_COUNT: Final = 10**12
# Of a text that indexes have whole; as much as a session's id may have.
MAX_KEY_BYTES: Final = 1_024
# 10,000 USD for one call: sums of 900,000 such still fit 64 bits.
MAX_COST_NUSD: Final = 10**13
# 9999-12-31: the last day that ISO 8601 writes with four digits.
MAX_TIME_US: Final = 253_402_300_799_999_999
# Set beside the notes of a span of which some text was not storable as it came.
CLEANED_NOTE: Final = "text_cleaned"
# The source of a session that was named by nobody knows whom.
UNKNOWN_SOURCE: Final = "unknown"

Change = SpanStart | SpanCheckpoint | SpanEnd

_NO_BODY: Final = {which: dict.fromkeys(names) for which, names in BODY_COLUMNS.items()}


@dataclass(slots=True)
class SpanWrite:
    """All that one batch says of one span, as parameters of SQL.

    ``own`` is the span's key in the call's own trace, by which the call knows itself; ``key`` is
    the same until placing.py finds it in another, as where it names one that it ``joins``.
    ``start`` and ``end`` have the columns of a whole row, so each can be inserted; ``end`` includes
    its start. ``bodies``, of the end or else of the checkpoint, and what ``ended`` says of the
    conversation get their columns when they are stored.
    """

    own: SpanKey
    key: SpanKey
    start: dict[str, Value] | None = None
    checkpoint: dict[str, Value] | None = None
    end: dict[str, Value] | None = None
    session_id: str | None = None
    session_source: str | None = None
    joins: bytes | None = None
    bodies: dict[str, Body] = field(default_factory=dict)
    ended: SpanEnd | None = None
    settles: dict[str, Value] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes ready to be written. ``late`` counts those that another of the batch made void."""

    spans: tuple[SpanWrite, ...]
    late: int


def prepare(changes: Sequence[Change]) -> Batch:
    """Merge the changes of each span and clean their values."""
    writes: dict[SpanKey, SpanWrite] = {}
    late = 0
    for change in changes:
        first = change.start if isinstance(change, SpanEnd) else change
        key = (first.project_id, first.trace_id, first.span_id)
        write = writes.get(key)
        if write is None:
            write = writes[key] = SpanWrite(key, key)
        if write.end is not None:
            late += 1
        elif isinstance(change, SpanEnd):
            write.start = write.checkpoint = None
            _add_end(write, change)
        elif isinstance(change, SpanCheckpoint):
            _add_checkpoint(write, change)
        elif write.start is not None:
            late += 1
        else:
            write.start = _start_values(change)
            _name_session(write, change)
    return Batch(tuple(writes.values()), late)


def clean_text(text: str) -> str:
    """Replace each NUL and each lone surrogate with U+FFFD.

    PostgreSQL refuses a NUL in text, and neither database takes a surrogate.
    """
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            # By way of UTF-16, which joins a pair of surrogates to the character that it means.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def bounded(text: str) -> str:
    """Cut a clean text to ``MAX_KEY_BYTES`` of UTF-8."""
    if len(text) * 4 <= MAX_KEY_BYTES:
        return text
    return text.encode()[:MAX_KEY_BYTES].decode("utf-8", "ignore")


def clean_key(text: str) -> str:
    """Clean a text that indexes have whole."""
    return bounded(clean_text(text))


def clean_count(value: int | None, limit: int = MAX_COUNT) -> int | None:
    """Return the value if it is an integer from 0 to ``limit``, else None."""
    return value if type(value) is int and 0 <= value <= limit else None


def _add_end(write: SpanWrite, end: SpanEnd) -> None:
    write.end = _end_values(end)
    _name_session(write, end.start)
    write.ended = end
    write.bodies = _kept(request=end.request, response=end.response)
    if end.settles is not None:
        write.settles = _settlement_values(end.settles)


def _add_checkpoint(write: SpanWrite, checkpoint: SpanCheckpoint) -> None:
    values: dict[str, Value] = {
        "checkpoint_us": clean_count(checkpoint.elapsed_us),
        "first_byte_us": clean_count(checkpoint.first_byte_us),
        "first_token_us": clean_count(checkpoint.first_token_us),
    }
    _put_body(values, "response", checkpoint.response)
    _clean(values, CHECKPOINT_TEXT)
    write.checkpoint = values
    write.bodies = _kept(response=checkpoint.response)


def _kept(**bodies: Body | None) -> dict[str, Body]:
    return {which: body for which, body in bodies.items() if body is not None}


def _name_session(write: SpanWrite, start: SpanStart) -> None:
    write.joins = start.joins
    if write.session_id is None and start.session_id is not None:
        write.session_id = clean_text(start.session_id)
        write.session_source = clean_text(start.session_source or UNKNOWN_SOURCE)


def _start_values(start: SpanStart) -> dict[str, Value]:
    values: dict[str, Value] = {
        "project_id": start.project_id,
        "trace_id": start.trace_id,
        "span_id": start.span_id,
        "owner": start.owner,
        "caller": start.caller,
        "parent_id": start.parent_id,
        "external_trace_id": start.external_trace_id,
        "external_parent_id": start.external_parent_id,
        "moved_from": None,
        "state": RUNNING,
        "kind": start.kind,
        # Never NULL, so a time that is none is the beginning of time.
        "started_at_us": clean_count(start.started_at_us, MAX_TIME_US) or 0,
        "upstream": start.upstream,
        "provider": start.provider,
        "operation": start.operation,
        "name": start.name,
        "user_id": start.user_id,
        "method": start.method,
        "path": start.path,
        "query": start.query,
    }
    if _clean(values, START_TEXT):
        values["notes"] = CLEANED_NOTE
    else:
        values["notes"] = None
    return values


def _end_values(end: SpanEnd) -> dict[str, Value]:
    values = _start_values(end.start)
    cleaned = values["notes"] is not None
    values.update(
        {
            "state": end.state,
            "duration_us": clean_count(end.duration_us) or 0,
            "checkpoint_us": None,
            "first_byte_us": clean_count(end.first_byte_us),
            "first_token_us": clean_count(end.first_token_us),
            "http_status": clean_count(end.http_status),
            "usage_source": end.usage_source,
            "cost_nusd": clean_count(end.cost_nusd, MAX_COST_NUSD),
            "cost_status": end.cost_status,
            "price_version": end.price_version,
            "ended_by": end.ended_by,
            "phase": end.phase,
            "model_requested": end.model_requested,
            "model": end.model,
            "service_tier": end.service_tier,
            "response_id": end.response_id,
            "error": end.error,
            "input_preview": end.input_preview,
            "output_preview": end.output_preview,
            "request_head": _squeezed(end.request_headers),
            "response_head": _squeezed(end.response_headers),
            "notes": "\n".join(end.notes) if end.notes else None,
        }
    )
    if end.name is not None:
        values["name"] = end.name
    if end.user_id is not None:
        values["user_id"] = end.user_id
    _put_tokens(values, end.tokens)
    _put_body(values, "request", end.request)
    _put_body(values, "response", end.response)
    cleaned |= _clean(values, END_TEXT)
    if cleaned:
        values["notes"] = "\n".join((*end.notes, CLEANED_NOTE))
        _clean(values, ("notes",))
    return values


def _settlement_values(settlement: Settlement) -> dict[str, Value]:
    values: dict[str, Value] = {
        "response_id": settlement.response_id,
        "model": settlement.model,
        "service_tier": settlement.service_tier,
        "cost_nusd": clean_count(settlement.cost_nusd, MAX_COST_NUSD),
        "cost_status": settlement.cost_status,
        "price_version": settlement.price_version,
    }
    _put_tokens(values, settlement.tokens)
    _clean(values, SETTLEMENT_TEXT)
    return values


def _put_tokens(values: dict[str, Value], tokens: Tokens) -> None:
    values["input_tokens"] = clean_count(tokens.input)
    values["output_tokens"] = clean_count(tokens.output)
    values["cached_input_tokens"] = clean_count(tokens.cached_input)
    values["cache_write_tokens"] = clean_count(tokens.cache_write)
    values["reasoning_tokens"] = clean_count(tokens.reasoning)
    values["audio_input_tokens"] = clean_count(tokens.audio_input)
    values["audio_output_tokens"] = clean_count(tokens.audio_output)
    values["image_input_tokens"] = clean_count(tokens.image_input)
    values["image_output_tokens"] = clean_count(tokens.image_output)


def _put_body(values: dict[str, Value], which: str, body: Body | None) -> None:
    if body is None:
        values.update(_NO_BODY[which])
        return
    columns = BODY_COLUMNS[which][: len(BODY_PARTS)]
    size, sha256, content_id, envelope, truncated, redacted, content_type, encoding = columns
    values[size] = clean_count(body.size) or 0
    values[sha256] = body.sha256
    values[content_id] = values[envelope] = None
    values[truncated] = int(body.truncated)
    values[redacted] = int(body.redacted)
    values[content_type] = body.content_type
    values[encoding] = body.content_encoding
    if which == "response":
        values[ASSEMBLED] = int(body.assembled)


def _squeezed(text: str | None) -> bytes | None:
    return None if text is None else squeeze(clean_text(text).encode())


def _clean(values: dict[str, Value], names: tuple[str, ...]) -> bool:
    """Clean the texts of these names in place and tell whether any changed."""
    changed = False
    for name in names:
        text = values[name]
        # Nearly all text passes by these tests, which cost nothing.
        if not isinstance(text, str):
            continue
        is_long = len(text) * 4 > MAX_KEY_BYTES and name in KEY_TEXT
        if text.isascii() and "\0" not in text and not is_long:
            continue
        clean = clean_text(text)
        if is_long:
            clean = bounded(clean)
        if clean != text:
            values[name] = clean
            changed = True
    return changed
