"""Input and output of spans that were handed in: kept as they are, and found by their words.

Owns how a JSON value becomes a body and messages. While a span runs its bodies are kept as they
came; when its start and its end are known they are stored for good: an ``llm_call`` whose input is
messages as a conversation, as calls are; of all else the value itself, and beside it its text as a
message, by which it is found. Invariant: a body rebuilds byte for byte.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from storage.chain import BEGINNING, Conversation, Message, node_hash
from storage.columns import BODY_COLUMNS, CONVERSATION_COLUMNS
from storage.contents import unpack
from storage.continuation import place_of
from storage.conversation import brought_in, look_up, store_chain, store_envelope
from storage.database import Value
from storage.handed import Reader
from storage.handed_row import HandedSpan
from storage.ledger import Ledger, TraceChange
from storage.mentions import mention
from storage.parameters import clean_text
from storage.records import COMPLETED, RUNNING, Body, Content, Envelope, SpanEnd, SpanStart

JSON: Final = "application/json"
# By how much of its text a value is found.
MAX_TEXT_CHARS: Final = 64 * 1024
# What stands round the messages is kept in the row up to so many bytes, else as a content.
MAX_PIECE_BYTES: Final = 256

_NO_CONVERSATION: Final[dict[str, Value]] = dict.fromkeys(CONVERSATION_COLUMNS)
# What is handed in goes on from what its input says, and from nothing that a provider holds.
_ENDED: Final = SpanEnd(
    start=SpanStart(project_id=0, trace_id=b"", span_id=b"", started_at_us=0, name=""),
    state=COMPLETED,
    duration_us=0,
)
_encode: Final = msgspec.json.Encoder().encode


def prepare(ledger: Ledger, spans: Sequence[HandedSpan], reader: Reader) -> None:
    """Read what these spans bring, and find out at once what is there of it."""
    contents: dict[int, list[bytes]] = {}
    conversations: dict[int, list[Conversation]] = {}
    for span in spans:
        if span.is_final:
            continue
        _read(ledger, span, reader)
        project_id = span.key[0]
        for body in (span.request, span.response):
            if body is not None:
                holes = () if body.envelope is None else body.envelope.holes
                named = (one.sha256 for one in (body.content, *holes) if one is not None)
                contents.setdefault(project_id, []).extend(named)
        if span.conversation is not None:
            conversations.setdefault(project_id, []).append(span.conversation)
    for project_id, hashes in contents.items():
        ledger.additions.look_up_contents(project_id, hashes)
    for project_id, those in conversations.items():
        look_up(ledger.additions, project_id, those)


def _read(ledger: Ledger, span: HandedSpan, reader: Reader) -> None:
    values = span.values
    if span.has_ended and span.is_opened:
        if span.input is None:
            span.input = _stored(ledger, values["request_content_id"])
        if span.output is None:
            span.output = _stored(ledger, values["response_content_id"])
        _speak(span, reader)
    messages, answer = ((), ()) if not span.is_talk else _parts(span.conversation)
    if span.input is not None:
        values["input_preview"] = _preview(reader, span.input)
        span.request = _body(span.input, messages, redacted=span.redacted)
    if span.output is not None:
        values["output_preview"] = _preview(reader, span.output)
        span.response = _body(span.output, answer, redacted=span.redacted)


READ_CONTENT: Final = "SELECT encoding, size, data FROM contents WHERE id = :id"


def _stored(ledger: Ledger, content_id: Value) -> bytes | None:
    """Read a body that came with an earlier word of the span."""
    if content_id is None:
        return None
    rows = ledger.tx.execute(READ_CONTENT, {"id": content_id})
    return unpack(*rows[0]) if rows else None


def _preview(reader: Reader, value: bytes) -> str | None:
    preview = reader.preview(value)
    return None if preview is None else clean_text(preview)


def _speak(span: HandedSpan, reader: Reader) -> None:
    """Find the messages in a span's input and output, or the texts that stand for them."""
    if span.values["kind"] == "llm_call" and span.input is not None:
        span.conversation = reader.conversation(span.said())
        span.is_talk = span.conversation is not None
    if span.conversation is None:
        asked = _text(reader, span.input, BEGINNING, "user")
        place = asked[-1].node if asked else BEGINNING
        answer = _text(reader, span.output, place, "assistant")
        if asked or answer:
            span.conversation = Conversation(None, asked, answer, (), None, BEGINNING, None)


def _text(reader: Reader, value: bytes | None, parent: bytes, role: str) -> tuple[Message, ...]:
    """Make a message of a value's text: a JSON string, which is the value itself if it is one."""
    if value is None:
        return ()
    data = value
    if not value.startswith(b'"') or len(value) > MAX_TEXT_CHARS:
        text = reader.text(value)[:MAX_TEXT_CHARS]
        data = _encode(clean_text(text)) if text and not text.isspace() else b'""'
    if data == b'""':
        return ()
    sha256 = hashlib.sha256(data).digest()
    node = node_hash(parent, b"", sha256)
    return (Message(b"", data, sha256, node, role, reader.meaning(data)),)


def _parts(conversation: Conversation | None) -> tuple[Sequence[Message], Sequence[Message]]:
    return ((), ()) if conversation is None else (conversation.messages, conversation.answer)


def _body(value: bytes, messages: Sequence[Message], *, redacted: bool) -> Body:
    envelope = _envelope(value, messages)
    sha256 = hashlib.sha256(value).digest()
    return Body(
        size=len(value),
        sha256=None if redacted else sha256,
        content=None if envelope is not None else Content(sha256=sha256, data=value),
        envelope=envelope,
        content_type=JSON,
        redacted=redacted,
    )


def _envelope(value: bytes, messages: Sequence[Message]) -> Envelope | None:
    """Put what stands round the messages of a value round a hole; None where they stand nowhere."""
    said = b"".join([message.lead + message.data for message in messages])
    at = value.find(said) if said else -1
    if at < 0:
        return None
    pieces: list[bytes] = []
    holes: list[Content | None] = []
    for piece in (value[:at], value[at + len(said) :]):
        if pieces:
            holes.append(None)
        if len(piece) > MAX_PIECE_BYTES:
            pieces += (b"", b"")
            holes.append(Content(sha256=hashlib.sha256(piece).digest(), data=piece))
        else:
            pieces.append(piece)
    return Envelope(tuple(pieces), tuple(holes))


def store(ledger: Ledger, change: TraceChange, span: HandedSpan) -> None:
    """Store what ``prepare`` read, and put what names it into the row."""
    values, project_id = span.values, span.key[0]
    stored = ledger.additions.stored_bytes
    before = stored[project_id]
    for which, body in (("request", span.request), ("response", span.response)):
        if body is not None:
            _put_body(ledger, values, which, body)
    kept = {values["request_content_id"], values["response_content_id"]}
    gone = [one for one in span.old_contents if one not in kept]
    ledger.replaced += [(project_id, one) for one in gone]
    if values["state"] != RUNNING:
        values["session_key"] = change.session_key
    if span.conversation is not None:
        _say(ledger, change, span, span.conversation)
    carried = 0 if gone else int(values["stored_bytes"] or 0)
    values["stored_bytes"] = stored[project_id] - before + carried


def _put_body(ledger: Ledger, values: dict[str, Value], which: str, body: Body) -> None:
    additions, project_id, seq = ledger.additions, int(values["project_id"] or 0), values["seq"]
    values.update(dict.fromkeys(BODY_COLUMNS[which]))
    values[f"{which}_size"] = body.size
    values[f"{which}_sha256"] = body.sha256
    values[f"{which}_truncated"] = 0
    values[f"{which}_redacted"] = int(body.redacted)
    values[f"{which}_type"] = body.content_type
    if which == "response":
        values["response_assembled"] = 0
    if body.envelope is not None:
        packed = store_envelope(additions, project_id, int(seq or 0), body.envelope)
        values[f"{which}_envelope"] = packed
    elif body.content is not None:
        content_id = additions.content(project_id, body.content.sha256, body.content.data)
        values[f"{which}_content_id"] = content_id


def _say(ledger: Ledger, change: TraceChange, span: HandedSpan, conversation: Conversation) -> None:
    values, seq = span.values, int(span.values["seq"] or 0)
    values.update(_NO_CONVERSATION)
    chain = store_chain(ledger.additions, span.key[0], conversation)
    fresh_count, instructs = chain.length, True
    if span.is_talk:
        place = place_of(ledger, change, seq, _ENDED, conversation, None)
        fresh_count = chain.length if place.after is None else place.after
        instructs = place.prelude_id is None or place.prelude_id != chain.prelude_id
        values["base_meaning"] = place.base_meaning
        values["input_meaning"] = place.input_meaning
        values["output_meaning"] = place.output_meaning
    brought = brought_in(ledger, chain, fresh_count, instructs=instructs)
    mention(ledger, change.session_key, seq, brought)
    values["input_node_id"] = chain.input_id
    values["output_node_id"] = chain.output_id
    values["prelude_node_id"] = chain.prelude_id
    values["fresh_count"] = fresh_count
