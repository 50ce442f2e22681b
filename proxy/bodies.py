"""The two bodies of a call: what they say, and what is kept of them.

Owns how a body loses its content coding and the secrets in it, what is read of it, and whether it
is stored whole, by its messages, or put together from the events of a stream. Invariants: no
credential of the call is in anything that leaves here, but in `readable` and `text`, which are for
estimates, and what a raw stream that was asked for (`keep_raw_streams`) cut in two; ``size`` and
``sha256`` are those of the wire.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

from proxy import headers
from proxy.call import CallEnd, CallProgress
from proxy.call import Message as Half
from proxy.capture import CapturePolicy
from proxy.conversation import Conversations, Question
from proxy.decode import decode
from proxy.prefixes import Owner
from proxy.providers.facts import AnswerFacts, Operation, RequestFacts
from proxy.providers.lenient import PREVIEW_CHARS, has_many_values, preview
from proxy.providers.openai import (
    Assembled,
    answer_path,
    assemble,
    input_preview,
    operation_of,
    read_answer,
    read_request,
    stream_text,
)
from proxy.slices import Path, content_of, split_answer
from proxy.sse import events_of
from storage.chain import Message
from storage.records import Body, Content, Envelope

# Decoded bytes of a compressed body that are read: four times what is kept of one by default.
READ_BYTES: Final = 32 * 1024 * 1024
# The least that is recognised of a secret at the end of a body that was cut.
SECRET_PART_BYTES: Final = 8
# So much of a secret, at such an end, is taken for it, whatever follows: to compare all of a long
# one at each place is quadratic.
_COMPARED_BYTES: Final = 256
_JSON: Final = "application/json"


# These three are changed by nobody. Frozen, each would take three times as long to make.
@dataclass(slots=True, kw_only=True)
class _Plain:
    """One body without its content coding and without secrets.

    ``data`` is for reading, ``kept`` for storing, in the coding ``encoding``. ``decoded``: ``data``
    is all that was captured.
    """

    data: bytes = field(repr=False)
    decoded: bool
    kept: bytes = field(repr=False)
    encoding: str | None
    redacted: bool


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request as it was read. ``preview`` has at most 240 characters of what was asked last.

    ``readable`` is its body, as JSON or a form; ``question`` what of it is a conversation.
    """

    facts: RequestFacts
    preview: str | None
    body: Body
    readable: bytes = field(repr=False)
    question: Question | None = None


@dataclass(slots=True, kw_only=True)
class Answered:
    """An answer as it was read: ``text`` is the model's, ``messages`` are those of a conversation.

    ``complete``: all of its bytes were there, and could be read.
    """

    facts: AnswerFacts
    text: str = field(default="", repr=False)
    preview: str | None = None
    body: Body | None = None
    messages: tuple[Message, ...] = ()
    complete: bool = False


class BodyReader:
    """Reads the bodies of calls, in the order in which the calls ended. Not thread-safe."""

    def __init__(self, *, keep_raw_streams: bool = False) -> None:
        self._keep_raw_streams = keep_raw_streams
        self._conversations = Conversations()

    def forget(self) -> None:
        """Take over nothing from earlier calls."""
        self._conversations.forget()

    def asked(self, call: CallEnd) -> Asked:
        """Read a call's request."""
        message, mode = call.request, call.capture.mode
        if mode == "full" and message.body.whole:
            start = call.start
            owner = Owner(start.project_id, start.caller, start.session_id or "", call.operation)
            question = self._conversations.question(owner, message.body.head, call.secrets)
            if question is not None:
                return Asked(
                    facts=question.facts,
                    preview=question.preview,
                    body=Body(
                        size=message.body.size,
                        sha256=question.sha256,
                        envelope=question.envelope,
                        content_type=message.content_type or None,
                        redacted=question.sha256 is None,
                    ),
                    readable=message.body.head,
                    question=question,
                )
        read = _plain(message, call.secrets)
        content_type = message.content_type
        shown = None if mode == "off" else input_preview(read.data, content_type)
        return Asked(
            facts=read_request(call.operation, read.data, content_type),
            preview=shown and without(shown, call.secrets),
            body=_blob(message, read, call.capture),
            readable=read.data,
        )

    def answered(self, call: CallEnd, question: Question | None) -> Answered:
        """Read a call's answer, which follows this question."""
        if call.status is None:
            return Answered(facts=AnswerFacts())
        message = call.response
        read = _plain(message, call.secrets)
        complete = message.body.whole and read.decoded
        succeeded = 200 <= call.status < 300
        found = None
        if call.stream is not None and succeeded:
            facts = call.stream
            found, read = _assembled(call.operation, read, call.secrets)
            # Of no conversation, or nothing of it came.
            text = found.text if found else stream_text(call.operation, events_of(read.data))
        else:
            complete = complete and not has_many_values(read.data)
            tail = b"" if message.content_encoding else message.body.tail
            facts = read_answer(call.operation, call.status, read.data, tail)
            text = facts.text
            path = answer_path(call.operation)
            if succeeded and complete and path is not None:
                found = Assembled(read.data, path)
        body = None
        messages: tuple[Message, ...] = ()
        if call.capture.mode == "full" and found is not None:
            body, messages = self._taken_apart(call, read, found.body, found.path, question)
        return Answered(
            facts=facts,
            text=text,
            preview=preview(without(text[: 4 * PREVIEW_CHARS], call.secrets)),
            body=body or _blob(message, read, call.capture),
            messages=messages,
            complete=complete,
        )

    def so_far(self, record: CallProgress) -> Body:
        """Give what is kept of a stream that runs."""
        read = _plain(record.response, record.secrets)
        if record.capture.mode == "full" and not self._keep_raw_streams:
            operation = operation_of(record.start.method or "", record.start.path or "")
            found, read = _assembled(operation, read, record.secrets)
            if found is not None:
                return _put_together(record.response, read, found.body, None)
        return _blob(record.response, read, record.capture)

    def _taken_apart(
        self, call: CallEnd, read: _Plain, data: bytes, path: Path, question: Question | None
    ) -> tuple[Body | None, tuple[Message, ...]]:
        """Split an answer at its messages; no body where it is to be kept as it came."""
        message = call.response
        parts = split_answer(data, path)
        slices = parts.slices if parts is not None else []
        messages = self._conversations.answer(call.start.project_id, question, slices, call.secrets)
        envelope = parts.envelope if parts is not None and len(messages) == len(slices) else None
        if call.stream is not None:
            if self._keep_raw_streams:
                return None, messages
            return _put_together(message, read, data, envelope), messages
        if envelope is None:
            return None, messages
        return Body(
            size=message.body.size,
            sha256=_wire_sha256(message, read),
            envelope=envelope,
            content_type=message.content_type or None,
            redacted=read.redacted,
        ), messages


def _plain(message: Half, secrets: tuple[bytes, ...]) -> _Plain:
    """Take the content coding and the secrets out of a body, as far as it was captured."""
    raw = message.body.head
    encoding = message.content_encoding or None
    # What is said to be encoded may not be, and what cannot be decoded is stored as it came.
    kept = _without(secrets, raw)
    if encoding is None:
        return _Plain(data=kept, decoded=True, kept=kept, encoding=None, redacted=kept is not raw)
    unpacked, decoded = decode(raw, encoding, READ_BYTES)
    data = _without(secrets, unpacked)
    redacted = kept is not raw or data is not unpacked
    if redacted and data:  # what was cut out cannot be compressed again
        kept, encoding = data, None
    return _Plain(data=data, decoded=decoded, kept=kept, encoding=encoding, redacted=redacted)


def _blob(message: Half, read: _Plain, policy: CapturePolicy) -> Body:
    """Give a body of which the bytes are kept as they were, or a part of them, or none."""
    captured = message.body
    kept = read.kept
    if policy.mode == "preview":
        kept = kept[: policy.preview_bytes]
    content = content_of(kept) if kept and policy.mode != "off" else None
    whole = captured.whole and (read.decoded or read.encoding is not None)
    whole = whole and content is not None and len(kept) == len(read.kept)
    sha256 = _wire_sha256(message, read, content if kept is captured.head else None)
    return Body(
        size=captured.size,
        sha256=sha256,
        content=content,
        content_type=message.content_type or None,
        content_encoding=read.encoding,
        truncated=captured.size > 0 and not whole,
        redacted=read.redacted,
    )


def _wire_sha256(message: Half, read: _Plain, same: Content | None = None) -> bytes | None:
    """Give the SHA-256 of a body as it passed, if it is known and no secret was in it.

    `same`: a content that is the body, hashed already.
    """
    captured = message.body
    if captured.sha256 is not None or not captured.whole or read.redacted:
        return captured.sha256
    return same.sha256 if same is not None else hashlib.sha256(captured.head).digest()


def _without(secrets: tuple[bytes, ...], data: bytes) -> bytes:
    """Redact a body. One that was cut may end within a secret."""
    data = headers.redact(data, secrets)
    for secret in secrets:
        beginning = secret[:SECRET_PART_BYTES]
        at = data.find(beginning, max(0, len(data) - len(secret) + 1))
        while at >= 0 and not secret.startswith(data[at : at + _COMPARED_BYTES]):
            at = data.find(beginning, at + 1)
        if at >= 0:
            return data[:at] + headers.REDACTED
    return data


def without(text: str, secrets: tuple[bytes, ...]) -> str:
    """Redact text, in which a secret may stand that bytes of JSON or of a stream did not show."""
    data = text.encode(errors="replace")
    shown = headers.redact(data, secrets)
    return text if shown is data else shown.decode(errors="replace")


def _put_together(message: Half, read: _Plain, data: bytes, envelope: Envelope | None) -> Body:
    return Body(
        size=message.body.size,
        sha256=_wire_sha256(message, read),
        content=content_of(data) if envelope is None else None,
        envelope=envelope,
        content_type=_JSON,
        truncated=not (message.body.whole and read.decoded),
        redacted=read.redacted,
        assembled=True,
    )


def _assembled(
    operation: Operation, read: _Plain, secrets: tuple[bytes, ...]
) -> tuple[Assembled | None, _Plain]:
    """Put a stream together; what its events cut in two of a secret is cut out of the whole."""
    found = assemble(operation, events_of(read.data))
    if found is None or (body := headers.redact(found.body, secrets)) is found.body:
        return found, read
    return replace(found, body=body), replace(read, redacted=True)
