"""Server-sent events out of the chunks of a stream, as the WHATWG HTML standard frames them.

Owns where one event ends and the next begins, and what its fields say. Invariant: the ``raw`` of
every event plus ``pending`` is, byte for byte, what was fed. Work is linear in the bytes fed and
memory is bounded. It does not interpret data, keep an event id or reconnect.

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream" (November 2026).
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

# The longest event that is read, in bytes. An image of 1536x1024 pixels in base64 is about 4 MiB;
# nothing else in a stream comes near it.
MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
# The most line ends of an event that is read; CR LF counts as two. Lines are split in one go on the
# event loop: 16 MiB have room for 8 million. Models write JSON, which has one line.
MAX_LINE_ENDS: Final = 10_000

_BOM: Final = b"\xef\xbb\xbf"
# A line ends with CRLF, LF or CR. A blank line is two line ends in a row, and those are exactly
# the places where one of these pairs stands (CR LF alone is one line end).
_BLANK_LINE: Final = re.compile(rb"\n[\r\n]|\r\r")
_LINE_ENDS: Final = re.compile(rb"[\r\n]*")
# What may still be the beginning of a blank line: CR LF CR, its last LF not yet here.
_CUT_BYTES: Final = 3
# Bytes of a whole stream that are decoded in one step. The shortest event has three, and some 140
# as an object: all events of a stream at once may be fifty times its size.
_STEP_BYTES: Final = 64 * 1024


class Event(NamedTuple):
    """One event: its exact bytes and what its fields say.

    ``raw`` ends with the event's blank line and begins with what stood before it (comments, blank
    lines, a byte order mark). ``name`` is "" without an ``event`` field. ``data`` joins
    ``data_lines`` lines with LF; no data line at all makes it a comment, which carries nothing.
    """

    raw: bytes
    name: str
    data: bytes
    data_lines: int


class SseDecoder:
    """Incremental decoder of one event stream.

    ``oversized`` counts the events longer than ``max_event_bytes``, or of more lines than
    ``MAX_LINE_ENDS``: those pass in raw pieces with no data lines, and decoding resumes after their
    blank line.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max(max_event_bytes, _CUT_BYTES)
        self._buffer = bytearray()
        self._searched = 0  # no event ends before this offset of the buffer
        self._content = False  # the buffer holds more than blank lines
        self._carriage_returns = False  # one was seen, so LF LF is not the only blank line
        self._first = True  # a byte order mark counts only at the very beginning
        self._passing_over = False  # inside an event that is too long
        self.oversized = 0

    @property
    def pending(self) -> bytes:
        """What came after the last whole event."""
        return bytes(self._buffer)

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes of the stream and return the events that they complete."""
        # Nearly every chunk of a model's answer is one event of one line; this runs on the event
        # loop for each of them. (Inside an event that is passed over the buffer is never empty.)
        size = len(chunk)
        if (
            not self._buffer
            and chunk.startswith(b"data: ")
            and chunk.find(b"\n") == size - 2
            and chunk.endswith(b"\n\n")
            and b"\r" not in chunk
            and size <= self._max_event_bytes
        ):
            self._first = False
            return [Event(chunk, "", chunk[6:-2], 1)]
        return self._feed(chunk)

    def _feed(self, chunk: bytes) -> list[Event]:
        buffer = self._buffer
        buffer += chunk
        self._carriage_returns = self._carriage_returns or b"\r" in chunk
        events: list[Event] = []
        start = 0
        while (end := self._event_end()) is not None:
            raw = bytes(buffer[start:end])
            events.append(self._event(raw))
            start = self._searched = end
            self._content = self._passing_over = False
        if start:
            del buffer[:start]
            self._searched -= start
        if len(buffer) > self._max_event_bytes or (self._passing_over and len(buffer) > _CUT_BYTES):
            events.append(self._piece())
        return events

    def _event_end(self) -> int | None:
        """Find where the event that stands first ends; None while its blank line is not here."""
        buffer = self._buffer
        if not self._content:  # blank lines before an event end nothing
            match = _LINE_ENDS.match(buffer, self._searched)
            self._searched = match.end() if match else self._searched
            if self._searched == len(buffer):
                return None
            self._content = True
        if self._carriage_returns:
            found = _BLANK_LINE.search(buffer, self._searched)
            at = found.start() if found else -1
        else:
            at = buffer.find(b"\n\n", self._searched)
        if at < 0:
            # The last byte may be the first of the pair.
            self._searched = max(self._searched, len(buffer) - 1)
            return None
        end = at + 2
        if buffer[at + 1] == 0x0D:
            if end < len(buffer):
                return end + (buffer[end] == 0x0A)
            if buffer[at - 1 : at + 1] == b"\r\n":
                # A stream of CRLF was cut inside its last one: wait for the LF. Where lines end
                # otherwise the CR is taken as the end, and an LF that follows stands before the
                # next event, since no event may wait for a byte that need not come.
                self._searched = at
                return None
        return end

    def _event(self, raw: bytes) -> Event:
        first, self._first = self._first, False
        if self._passing_over:
            return Event(raw, "", b"", 0)
        if len(raw) > self._max_event_bytes:
            self.oversized += 1
            return Event(raw, "", b"", 0)
        if (
            not self._carriage_returns
            and raw.startswith(b"data: ")
            and raw.find(b"\n") == len(raw) - 2
        ):
            return Event(raw, "", raw[6:-2], 1)  # the usual one, many of them in one chunk
        # Blank lines before an event are no part of it.
        lines = (raw.removeprefix(_BOM) if first else raw).lstrip(b"\r\n")
        if lines.count(b"\n") + lines.count(b"\r") > MAX_LINE_ENDS:
            self.oversized += 1
            return Event(raw, "", b"", 0)
        name = b""
        data: list[bytes] = []
        for line in lines.splitlines():
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ")
        text = data[0] if len(data) == 1 else b"\n".join(data)
        return Event(raw, name.decode("utf-8", "replace") if name else "", text, len(data))

    def _piece(self) -> Event:
        """Give up what is buffered of an event that is too long, but for a cut blank line."""
        if self._content and not self._passing_over:
            self._passing_over = True
            self.oversized += 1
        cut = len(self._buffer) - _CUT_BYTES
        piece = bytes(self._buffer[:cut])
        del self._buffer[:cut]
        self._searched = max(self._searched - cut, 0)
        self._first = False
        return Event(piece, "", b"", 0)


def events_of(stream: bytes) -> Iterator[Event]:
    """Decode a stream that is here as a whole, a part at a time; its end ends the last event."""
    start = 0
    if b"\r" not in stream and len(stream) <= MAX_EVENT_BYTES:
        # The usual events, as far as there are no others before them.
        while (end := stream.find(b"\n", start)) >= 0:
            if not stream.startswith(b"data: ", start) or not stream.startswith(b"\n\n", end):
                break
            yield Event(stream[start : end + 2], "", stream[start + 6 : end], 1)
            start = end + 2
    decoder = SseDecoder()
    decoder._first = not start  # what is not the beginning has no byte order mark
    for at in range(start, len(stream), _STEP_BYTES):
        yield from decoder.feed(stream[at : at + _STEP_BYTES])
    yield from decoder.feed(b"\n\n")
