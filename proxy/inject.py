"""Usage injection: the one exception to transparent bytes.

A chat stream of OpenAI's dialect reports its tokens only when the request asks for it. This module
asks in the client's stead, and takes out of the answer what that brought in. Invariant: whatever is
edited, every other byte stays as it was; what cannot be edited with certainty is left alone. Places
in JSON are found by walking over its members, never by searching: a message may quote anything.

No I/O. Nothing is sent, retried or stored here; who calls keeps the client's own bytes for the
record. Source: OpenAI API reference, `stream_options.include_usage` (November 2026).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import msgspec

from proxy.sse import Event, SseDecoder

# Bytes. A larger request is not held back to be read whole; 4 MiB hold a million tokens of text.
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
# Bytes. An event is held back until it is whole. A chunk of a chat stream has some 300 bytes; only
# one with media inside comes near this.
MAX_EVENT_BYTES: Final = 1024 * 1024
# Members of one object. To walk over more would hold the event loop: 4 MiB have room for 400,000;
# requests and events have 50 at most.
MAX_MEMBERS: Final = 1_000
# Events of one stream that are looked at (tap.py reads no more of them either).
MAX_EVENTS: Final = 1_000_000
# Models remembered per upstream. OpenAI itself lists about 100.
MAX_MODELS: Final = 1024
# Characters. Longer model names are not remembered; real ones stay below 100.
MAX_MODEL_NAME: Final = 256

_INCLUDE_USAGE: Final = b'"include_usage":true'

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OPEN: Final = re.compile(rb"[ \t\r\n]*\{")
_KEY: Final = re.compile(rb'[ \t\r\n]*,?[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\r\n]*:[ \t\r\n]*')
_CLOSE: Final = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*\Z")
# What msgspec raises: for no JSON, for a text that is not UTF-8, for JSON nested too deep.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_STREAM: Final = b'"stream"'
_TRUE: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*true")
_EMPTY_ARRAY: Final = re.compile(rb"\[[ \t\r\n]*\]")


class _Member(NamedTuple):
    """Where one member stands: its key's first quote, its value's first byte, its end."""

    key: int
    value: int
    end: int


def _members(text: bytes) -> Mapping[str, _Member] | None:
    """Find each member of the one object that ``text`` holds, in order; None where not certain.

    Certain: every value found by the walk is the one that the parser read, byte for byte, and after
    the last one the object closes. Hence a duplicate key (the parser keeps one of them) is None.
    """
    try:
        parsed = _OBJECT.decode(text)
    except _UNREADABLE:
        return None
    if len(parsed) > MAX_MEMBERS:
        return None
    opening = _OPEN.match(text)
    at = opening.end() if opening else 0
    found: dict[str, _Member] = {}
    for name, raw in parsed.items():
        key = _KEY.match(text, at)
        if key is None:
            return None
        value = bytes(raw)
        at = key.end() + len(value)
        if text[key.end() : at] != value:
            return None
        found[name] = _Member(key.start(1), key.end(), at)
    return found if _CLOSE.match(text, at) else None


@dataclass(frozen=True, slots=True)
class Injection:
    """A request that asks for usage: ``original`` with ``put`` in the place of a part of it.

    ``model`` is the one that the client named. The body to send is a copy of the whole, so where
    there are many and large ones it leaves by its ``parts``.
    """

    original: bytes
    start: int
    end: int
    put: bytes
    model: str | None

    @property
    def parts(self) -> tuple[memoryview, memoryview, memoryview]:
        """The body to send, without a copy of it."""
        whole = memoryview(self.original)
        return whole[: self.start], memoryview(self.put), whole[self.end :]

    @property
    def body(self) -> bytes:
        """The body to send."""
        return b"".join(self.parts)

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.start + len(self.put) + len(self.original) - self.end


def wants(
    *,
    method: str,
    path: str,
    content_type: str | None,
    content_encoding: str | None,
    content_length: int | None,
) -> bool:
    """Say by its head whether a request is worth reading whole: a chat or text completion in JSON.

    ``path`` may carry a query; ``content_length`` is None for a body of unknown length, which the
    caller reads up to MAX_BODY_BYTES.
    """
    return (
        method == "POST"
        and path.partition("?")[0].endswith("/completions")  # also .../chat/completions
        and (content_type or "").partition(";")[0].strip().lower() == "application/json"
        and not content_encoding
        and (content_length is None or content_length <= MAX_BODY_BYTES)
    )


def plan(body: bytes) -> Injection | None:
    """Return the request with ``stream_options.include_usage`` set; None to leave it alone.

    It is left alone when it is no stream, when the client has set `include_usage` itself (to false,
    too: that is a choice), and when anything about it is uncertain.
    """
    if len(body) > MAX_BODY_BYTES or not _may_stream(body):
        return None
    members = _members(body)
    stream = members and members.get("stream")
    if not members or not stream or body[stream.value : stream.end] != b"true":
        return None
    options = members.get("stream_options")
    if options is None:
        start = end = stream.end
        put = b',"stream_options":{' + _INCLUDE_USAGE + b"}"
    else:
        start, end = options.value, options.end
        value = _with_include_usage(body[start:end])
        if value is None:
            return None
        put = value
    return Injection(body, start, end, put, _model(body, members))


def _may_stream(body: bytes) -> bool:
    """Tell whether `"stream": true` stands anywhere: to find its place takes five times as long."""
    at = body.find(_STREAM)
    while at >= 0 and not _TRUE.match(body, at + len(_STREAM)):
        at = body.find(_STREAM, at + len(_STREAM))
    return at >= 0


def _with_include_usage(options: bytes) -> bytes | None:
    """Return the value of `stream_options` with `include_usage`; None to leave it alone."""
    if options == b"null":
        return b"{" + _INCLUDE_USAGE + b"}"
    members = _members(options)
    if members is None or "include_usage" in members:
        return None
    if not members:
        return b"{" + _INCLUDE_USAGE + b"}"
    end = list(members.values())[-1].end
    return options[:end] + b"," + _INCLUDE_USAGE + options[end:]


def _model(body: bytes, members: Mapping[str, _Member]) -> str | None:
    member = members.get("model")
    if member is None:
        return None
    try:
        return msgspec.json.decode(body[member.value : member.end], type=str)
    except _UNREADABLE:
        return None


# How OpenAI and most others spell it: `usage` is the last member, or the last but `obfuscation`.
# In valid JSON this match is a member of the outermost object: `,"` opens a key, since inside a
# string a quote has a backslash before it, and a `}` at the very end closes the outermost object.
_LAST_USAGE_NULL: Final = re.compile(rb',"usage":null(?=(?:,"obfuscation":"[^"\\]*")?\}\Z)')
_DATA: Final = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|[\r\n])data:[ ]?([^\r\n]*)")


class _AnyObject(msgspec.Struct):
    """Any JSON object: decoding to it checks the syntax and keeps nothing."""


_ANY_OBJECT: Final = msgspec.json.Decoder(_AnyObject)


class UsageStripper:
    """Takes out of an event stream what an injected `include_usage` brought in.

    That is the member `usage` of each event, with its comma, and the whole event that holds nothing
    else (`choices` empty, usage not null). ``unsure`` becomes True when an event with a usage could
    not be edited with certainty (a duplicate key, several data lines, no JSON, longer than
    MAX_EVENT_BYTES, one of more than MAX_EVENTS) and went through unedited.
    """

    def __init__(self) -> None:
        self.unsure = False
        self._decoder = SseDecoder(MAX_EVENT_BYTES)
        self._events_left = MAX_EVENTS

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the stream; return what of it goes to the client now."""
        if self._events_left < 0:
            return chunk
        events = self._decoder.feed(chunk)
        self._events_left -= len(events)
        if self._events_left < 0:  # no model's: to look at each would take for ever
            self.unsure = True
            rest, self._decoder = self._decoder.pending, SseDecoder(MAX_EVENT_BYTES)
            return b"".join([*(event.raw for event in events), rest])
        if self._decoder.oversized:
            self.unsure = True
        return b"".join([self._strip(event) for event in events])

    def finish(self) -> bytes:
        """Return the rest at the end of the stream: an event that was never ended by a blank line.

        Where it was cut in its middle it goes through as it is, and that is not ``unsure``.
        """
        rest = self._decoder.pending
        lines = list(_DATA.finditer(rest))
        stripped = _stripped(lines[0][1]) if len(lines) == 1 else None
        if stripped is None:
            return rest
        return _replaced(rest, lines[0].start(1), lines[0][1], stripped)

    def _strip(self, event: Event) -> bytes:
        if b'"usage"' not in event.data:
            return event.raw
        stripped = _stripped(event.data)
        line = _DATA.search(event.raw)
        if stripped is None or line is None or line[1] != event.data:  # several lines differ
            self.unsure = True
            return event.raw
        return _replaced(event.raw, line.start(1), event.data, stripped)


def _replaced(raw: bytes, at: int, data: bytes, stripped: bytes) -> bytes:
    """Put ``stripped`` where ``data`` stands in an event; no data left is no event left."""
    return raw[:at] + stripped + raw[at + len(data) :] if stripped else b""


def _stripped(data: bytes) -> bytes | None:
    """Return an event's data without its usage, b"" to drop the event, None where not certain."""
    if data.count(b'"usage"') == 1 and (null := _LAST_USAGE_NULL.search(data)):
        try:
            _ANY_OBJECT.decode(data)
        except _UNREADABLE:
            return None
        return data[: null.start()] + data[null.end() :]
    members = _members(data)
    if members is None:
        return None
    usage = members.get("usage")
    if usage is None:
        return data
    if data[usage.value : usage.end] != b"null":
        choices = members.get("choices")
        if choices is None:
            return None  # not a chunk of a completion: who knows what its usage is
        if _EMPTY_ARRAY.fullmatch(data, choices.value, choices.end):
            return b""
    # Its comma goes with it: the one before it, or for the first member the one after it.
    order = list(members.values())
    place = order.index(usage)
    if place:
        return data[: order[place - 1].end] + data[usage.end :]
    return data[: usage.key] + data[order[1].key if len(order) > 1 else usage.end :]


class InjectionMemory:
    """What one upstream has taught about injection: whether the next request may ask for usage.

    Mode "always" injects, "never" does not, and "auto" does for a model only after a stream of it,
    left as it was, came to its end without a usage. Two lessons hold for the whole upstream and
    until the process ends: it refused `stream_options`, or a stream of it could not be edited.
    """

    def __init__(self, mode: Literal["always", "auto", "never"]) -> None:
        self._mode: Final = mode
        self._stopped = False
        self._without_usage: dict[str | None, None] = {}  # models, the oldest first

    @property
    def active(self) -> bool:
        """Whether any request may ask for usage, now or after more was learned."""
        return not self._stopped and self._mode != "never"

    def should_inject(self, model: str | None) -> bool:
        """Say whether a request for ``model`` may ask for usage."""
        if self._stopped or self._mode == "never":
            return False
        return self._mode == "always" or model in self._without_usage

    def saw_stream(self, model: str | None, *, had_usage_field: bool) -> None:
        """Learn from a stream that was not injected and came to its end.

        One that was cut short says nothing: a usage would have been in its last event.
        """
        self._without_usage.pop(model, None)
        if had_usage_field or len(model or "") > MAX_MODEL_NAME:
            return
        if len(self._without_usage) >= MAX_MODELS:
            del self._without_usage[next(iter(self._without_usage))]
        self._without_usage[model] = None

    def refused(self) -> None:
        """Learn that the upstream answered an injected request with a refusal of the option."""
        self._stopped = True

    def unsure(self) -> None:
        """Learn that a stream of the upstream could not be edited with certainty."""
        self._stopped = True


def names_stream_options(status: int, body: bytes) -> bool:
    """Say whether an answer refuses `stream_options`: a 4xx whose (decoded) body names it.

    An error may also name it because it quotes the whole request, so this is a reason to try the
    client's own bytes, and only when those fare better a reason to call ``refused``.
    """
    return 400 <= status < 500 and b"stream_options" in body
