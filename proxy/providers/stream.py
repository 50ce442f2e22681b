"""A stream watched from the event loop: its usage, its first token, its end.

Invariant: constant memory, no text, and after the first token no JSON is parsed for an ordinary
delta: a search of its bytes says that there is nothing in it. Of a large event only small fields
are parsed. Text is put together elsewhere (``assemble``), off the loop.

Source: openai-python 3.54.0, ``_streaming.py`` and the event types (November 2026).
"""

from typing import Any, Final, Literal

import msgspec

from proxy.providers.answer import Head, answer_facts, object_error, read_head_usage, sentence
from proxy.providers.billing import Usage
from proxy.providers.facts import AnswerFacts, Operation
from proxy.providers.lenient import decode, items, mapping, name
from proxy.sse import Event

_CHOICES: Final = frozenset({"chat.completions", "completions"})
# Streams whose end is announced, so that one without it was cut. An unknown one may just stop.
_TYPED: Final = frozenset(
    {
        "responses",
        "responses.retrieve",
        "images.generations",
        "images.edits",
        "audio.transcriptions",
        "audio.speech",
        "threads.runs",
        "threads.runs.submit_tool_outputs",
    }
)
_ENDS: Final = frozenset(
    {
        "response.completed",
        "response.incomplete",
        "response.failed",
        "image_generation.completed",
        "image_edit.completed",
        "transcript.text.done",
        "speech.audio.done",
        "thread.run.completed",
        "thread.run.incomplete",
        "thread.run.failed",
        "thread.run.cancelled",
        "thread.run.expired",
        "error",
    }
)
# These carry the content itself, which may have had no deltas before.
_WHOLE: Final = frozenset(
    {"image_generation.completed", "image_edit.completed", "transcript.text.done"}
)
# These name the object: its id, and the model where the request named none.
_OPENINGS: Final = frozenset(
    {
        "response.created",
        "response.queued",
        "response.in_progress",
        "thread.run.created",
        "thread.run.queued",
        "thread.run.requires_action",
    }
)
# What the first token may be in a choice's delta (the last two are other providers' names).
_DELTA_KEYS: Final = (
    "content",
    "tool_calls",
    "refusal",
    "audio",
    "function_call",
    "reasoning_content",
    "reasoning",
)


# Bytes of one event of which Python objects are made: 256 KiB of empty arrays take 7 ms and 15 MB
# of memory; to pass over 15 MiB of them takes 25 ms and none.
MAX_PARSED_BYTES: Final = 256 * 1024


class _Frame(Head):
    usage: Any = msgspec.UNSET
    type: Any = None
    response: Head | None = None
    choices: Any = None
    message: Any = None
    code: Any = None


def _unread(struct: type[msgspec.Struct]) -> msgspec.json.Decoder[msgspec.Struct]:
    """Give a decoder of the same fields that leaves the bytes of each as they are."""
    fields = [(field, msgspec.Raw, msgspec.Raw(b"")) for field in struct.__struct_fields__]
    return msgspec.json.Decoder(msgspec.defstruct(f"{struct.__name__}Unread", fields))


_FRAME: Final = msgspec.json.Decoder(_Frame)
_LARGE_FRAME: Final = _unread(_Frame)
_LARGE_HEAD: Final = _unread(Head)
# What stands for values too large to be parsed: they are not nothing.
_UNREAD: Final[dict[str, object]] = {
    "choices": [{"text": "..."}],
    "error": {"message": None},
    "last_error": {"message": None},
}


class StreamWatch:
    """One answer that comes as a stream of events.

    ``first_token`` is True once an event carried content, reasoning, a tool call, sound or a
    picture; ``ended`` once the provider said that the stream is complete, or failed it;
    ``usage_field`` once an event that was read had a usage, be it null.
    """

    def __init__(self, operation: Operation) -> None:
        self.first_token = False
        self.ended = False
        self.usage_field = False
        self._operation = operation
        self._choices = operation.name in _CHOICES
        self._head = Head()
        self._usage = Usage()
        self._error: str | None = None
        self._unreadable = 0

    def event(self, event: Event) -> None:
        """Take the next event; cheap enough for the event loop."""
        data = event.data
        if self._choices and event.name != "error":
            # Nearly all events of nearly all streams end here. A quotation mark inside a JSON
            # string is escaped, so these bytes are a key (or a value of just that word).
            if self.first_token and data.startswith(b"{") and data.find(b'"error"') < 0:
                at = data.find(b'"usage"')
                # All chunks but the last carry a null where the client asked for usage.
                if at < 0 or (
                    data.startswith(b'"usage":null', at) and data.find(b'"usage"', at + 12) < 0
                ):
                    return
            self._read(data, "")
            return
        kind = event.name or _type_of(data)
        if kind.endswith((".delta", ".partial_image")):
            self.first_token = True
        elif (
            kind in _ENDS
            or not kind
            or b'"error"' in data
            or (kind in _OPENINGS and not (self._head.id and self._head.model))
        ):
            self._read(data, kind)
        elif data.startswith(b"[DONE]"):
            self.ended = True

    def facts(self) -> AnswerFacts:
        """Return what the events so far say; ``state`` is None while the end is missing."""
        if self._error is not None:
            state: Literal["completed", "failed"] | None = "failed"
        else:
            state = "completed" if self.ended else None
        facts = answer_facts(
            self._operation,
            self._head,
            self._usage,
            state=state,
            error=self._error,
            expects_end=self._choices or self._operation.name in _TYPED,
        )
        if self._unreadable:
            note = f"{self._unreadable} unreadable events"
            facts = facts._replace(notes=(*facts.notes, note))
        return facts

    def _read(self, data: bytes, kind: str) -> None:
        if not data.startswith(b"{"):
            # Clients stop at a text that begins so, whatever follows.
            self.ended = self.ended or data.startswith(b"[DONE]")
            return
        large = len(data) > MAX_PARSED_BYTES
        frame = _large_frame(data) if large else decode(_FRAME, data)
        if frame is None:
            self._unreadable += 1
            return
        if frame.usage is msgspec.UNSET:
            frame.usage = None
        else:
            self.usage_field = True
        if isinstance(frame.type, str) and not kind:
            kind = frame.type
        head = frame.response or frame
        # Others have ids and usages of their own (a run's steps), which are parts of this one's.
        if self._choices or not kind or kind in _OPENINGS or kind in _ENDS:
            self._keep(head)
        if kind == "error":
            # Flat in responses, wrapped in threads.
            self._fail(sentence(frame.error or {"message": frame.message, "code": frame.code}))
        elif frame.error:
            self._fail(sentence(frame.error))
        elif kind in _ENDS:
            self.ended = True
            self.first_token = self.first_token or kind in _WHOLE
            if error := object_error(head):
                self._fail(error)
        elif kind.endswith((".delta", ".partial_image")) or _has_token(frame.choices):
            self.first_token = True

    def _keep(self, head: Head) -> None:
        """Take over what this event knows better than those before it."""
        kept = self._head
        kept.id = name(head.id) or kept.id
        kept.model = name(head.model) or kept.model
        kept.service_tier = name(head.service_tier) or kept.service_tier
        kept.status = name(head.status) or kept.status
        # The last usage is the whole one: some send it with each event, growing. Never a sum.
        if head.usage is None and head.svg_usage is None and head.tool_usage is None:
            return
        usage = read_head_usage(head)
        if usage.reported or (usage.notes and not self._usage.reported):
            self._usage = usage

    def _fail(self, error: str) -> None:
        self.ended = True
        self._error = self._error or error


def _large_frame(data: bytes) -> _Frame | None:
    """Read of a large event what is small in it."""
    frame = _Frame()
    if not _fill(frame, _LARGE_FRAME, data):
        return None
    return frame


def _fill(head: Head, unread: msgspec.json.Decoder[msgspec.Struct], data: bytes) -> bool:
    """Set the fields of a large object as far as they are small together; a larger one is None."""
    try:
        found = unread.decode(data)
    except (ValueError, RecursionError):
        return False
    left_bytes = MAX_PARSED_BYTES
    for field in found.__struct_fields__:
        raw = bytes(getattr(found, field))
        if not raw:
            continue
        value: object = None
        if field == "response" and len(raw) > MAX_PARSED_BYTES:
            value = response = Head()
            _fill(response, _LARGE_HEAD, raw)
        elif (cost_bytes := _cost_bytes(raw)) <= left_bytes:
            left_bytes -= cost_bytes
            value = _small(field, raw)
        elif field in _UNREAD:
            value = _UNREAD[field]
        setattr(head, field, value)
    return True


def _cost_bytes(raw: bytes) -> int:
    # A long text is one object and costs next to nothing.
    objects = 1 + raw.count(b",") + raw.count(b"[") + raw.count(b"{")
    return min(len(raw), 64 * objects)


def _small(field: str, raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw, type=Head if field == "response" else Any)
    except (ValueError, RecursionError):
        return None


def _type_of(data: bytes) -> str:
    """Return the type of an event that came without a name; "" where it is not its first field."""
    if not data.startswith(b'{"type":"'):
        return ""
    return data[9 : data.find(b'"', 9)].decode("utf-8", "replace")


def _has_token(choices: object) -> bool:
    for choice in map(mapping, items(choices)):
        delta = mapping(choice.get("delta"))
        if choice.get("text") or any(delta.get(key) for key in _DELTA_KEYS):
            return True
    return False
