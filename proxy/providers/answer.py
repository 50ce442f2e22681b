"""The meaning of an answer that is not a stream, whole or cut.

Owns the fields of OpenAI's answer objects, how their errors read as one sentence, and whose usage
they report. Invariant: usage of a cut body counts only where its place at depth one is proved.
Decompression and the capture of bytes are others' business.
"""

import html
import re
from typing import Any, Final, Literal

import msgspec

from proxy.providers.billing import Usage, read_usage
from proxy.providers.cut import outer_fields
from proxy.providers.facts import AnswerFacts, Operation
from proxy.providers.lenient import (
    ERROR_CHARS,
    clean,
    decode,
    has_many_values,
    mapping,
    name,
    preview,
)
from proxy.providers.output import answer_text

_FAILED: Final = frozenset({"failed", "expired"})
_TERMINAL: Final = _FAILED | {"completed", "incomplete", "cancelled"}
_UNFINISHED: Final = frozenset(
    {"queued", "in_progress", "requires_action", "cancelling", "validating", "finalizing"}
)
# What these answer with need not be JSON: sound, and transcripts as text, srt or vtt.
_TRANSCRIPTS: Final = frozenset({"audio.transcriptions", "audio.translations"})
_NOT_JSON: Final = _TRANSCRIPTS | {"audio.speech"}

# Looked at of the end of an answer of too many values, as capture.py keeps it of one too long.
_TAIL_BYTES: Final = 64 * 1024
# Bytes of an error page that are looked at; its title stands at the beginning.
_PAGE_BYTES: Final = 4096
_TITLE: Final = re.compile(r"<title[^<>]*>([^<]+)", re.IGNORECASE)
_NO_TEXT: Final = re.compile(r"<(script|style)\b[^<>]*>[^<]*|<[^<>]*>", re.IGNORECASE)


class Head(msgspec.Struct):
    """What an answer object says of itself; Any, because strangers write it."""

    id: Any = None
    model: Any = None
    service_tier: Any = None
    status: Any = None
    usage: Any = None
    svg_usage: Any = None
    tool_usage: Any = None
    tools: Any = None
    error: Any = None
    last_error: Any = None


class _Body(Head):
    choices: Any = None
    output: Any = None
    text: Any = None
    message: Any = None
    detail: Any = None


_BODY: Final = msgspec.json.Decoder(_Body)
_HEAD_FIELDS: Final = Head.__struct_fields__


def read_answer(operation: Operation, status: int, body: bytes, tail: bytes = b"") -> AnswerFacts:
    """Read a decompressed answer that is not a stream.

    ``tail`` holds the last bytes of the answer (64 KiB are enough) where ``body`` was cut.
    """
    succeeded = 200 <= status < 300
    parsed = None
    if not tail and has_many_values(body):  # vectors; their usage stands behind them
        tail = body[-_TAIL_BYTES:]
    if not tail:
        parsed = decode(_BODY, body)
    elif succeeded:
        parsed = msgspec.convert(outer_fields(body, tail, _HEAD_FIELDS), _Body)
    if not succeeded:
        return AnswerFacts(state="failed", error=_http_error(status, parsed, body))
    if parsed is None:
        text = ""
        notes: tuple[str, ...] = ()
        if operation.name in _TRANSCRIPTS:
            text = clean(body.decode("utf-8", "replace"))
        elif operation.bills == "tokens" and operation.name not in _NOT_JSON:
            notes = ("answer is not a JSON object",)
        return AnswerFacts(state="completed", text=text, notes=notes)
    error = None
    # A poll that tells of a failed object has itself succeeded.
    if operation.bills != "nothing":
        error = object_error(parsed)
    text = answer_text(parsed.choices, parsed.output, parsed.text)
    return answer_facts(
        operation,
        parsed,
        read_head_usage(parsed),
        state="failed" if error else "completed",
        error=error,
        text=text,
    )


def read_head_usage(head: Head) -> Usage:
    """Read everything that an answer object reports as used."""
    return read_usage(head.usage, head.svg_usage, head.tool_usage, head.tools)


def answer_facts(
    operation: Operation,
    head: Head,
    usage: Usage,
    *,
    state: Literal["completed", "failed"] | None,
    error: str | None,
    text: str = "",
    expects_end: bool = False,
) -> AnswerFacts:
    """Give the facts of an answer object, with the usage that is this call's to report."""
    object_id = name(head.id)
    object_status = name(head.status)
    settles_id = None
    if operation.settles and usage.reported and object_status in _TERMINAL:
        settles_id = object_id
    makes = operation.bills == "tokens"
    if not makes and settles_id is None:
        usage = Usage()  # a repetition of what another call reported
    tier = name(head.service_tier)
    if operation.name.partition(".")[0] == "batches":
        tier = tier or "batch"  # their own, lower price; the object has no field that says so
    return AnswerFacts(
        model=name(head.model),
        main=usage.main,
        apart=usage.apart,
        reported=usage.reported,
        service_tier=tier,
        # Only the maker carries the id, so that a settlement finds it and never the poll.
        response_id=object_id if makes else None,
        settles_id=settles_id,
        state=state,
        expects_end=expects_end,
        error=error,
        text=text,
        seconds=usage.seconds,
        pending=makes and not usage.reported and object_status in _UNFINISHED,
        notes=tuple(dict.fromkeys(usage.notes)),
    )


def object_error(head: Head) -> str | None:
    """Return why an answer object failed as one sentence; None where it did not."""
    if head.error:
        return sentence(head.error)
    status = name(head.status)
    return (sentence(head.last_error) if head.last_error else status) if status in _FAILED else None


def sentence(error: object) -> str:
    """Return an error object (or a bare string) as one sentence of at most 500 characters."""
    fields = mapping(error)
    for value in (error, fields.get("message"), fields.get("code"), fields.get("type")):
        if isinstance(value, str) and (text := preview(clean(value), ERROR_CHARS)):
            return text
    return "error without a message"


def _http_error(status: int, body: _Body | None, raw: bytes) -> str:
    text = None
    if body is None:
        page = raw[:_PAGE_BYTES].decode("utf-8", "replace")
        title = _TITLE.search(page)
        text = preview(
            clean(html.unescape(title[1] if title else _NO_TEXT.sub(" ", page))), ERROR_CHARS
        )
    else:
        # FastAPI and its kin write `detail`, others a bare `message`.
        found = next((e for e in (body.error, body.message, body.detail) if e), None)
        text = sentence(found) if found else None
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"
