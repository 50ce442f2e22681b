"""HTTP/1.1 as its strictest reader takes it: what was on a wire, message by message. Pure.

Whatever is not clean by RFC 9112 is a problem, also where most servers would let it pass: a proxy
that sends it on trusts that its neighbour reads it the same way. Knows no case and no oracle.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

End = Literal["open", "closed", "reset"]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Raw bytes above 0x7f stand in no URI (RFC 3986), but no reader takes them for another thing.
_REQUEST = re.compile(rb"(" + _TOKEN + rb") (/[\x21-\x7e\x80-\xff]*|\*) HTTP/1\.[01]")
_ANSWER = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\0\r\n]*)?")
# RFC 9112 section 5: no space before the colon, no folded line, no NUL, CR or LF.
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([^\0\r\n]*)")
# RFC 9112 section 7.1; more than 16 digits do not fit into 64 bits.
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\0\r\n]*)?")


@dataclass
class Message:
    """A message; `whole` says that its framing, or a proper end of the connection, ended it."""

    start: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    whole: bool = False
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def method(self) -> bytes:
        return self.start.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]


@dataclass
class Reading:
    """What stands in a stream: messages, of which the last may not be whole; interim answers apart.

    `problem` says what no strict reader takes; nothing behind it was read.
    """

    messages: list[Message] = field(default_factory=list)
    interim: list[Message] = field(default_factory=list)
    rest: bytes = b""
    problem: str | None = None


class _Unclean(ValueError):
    pass


class _Short(Exception):
    """The bytes end before the message does."""


def read(
    data: bytes, of: Literal["requests", "answers"], end: End, asked: Sequence[bytes] = ()
) -> Reading:
    """Read a stream. `asked` has the methods that its answers are for, as far as known."""
    found = Reading(rest=data)
    try:
        while found.rest:
            methods = asked[len(found.messages) :]
            _take(found, of == "answers", end, methods[0] if methods else b"GET")
    except _Short:
        pass
    except _Unclean as error:
        found.problem = str(error)
    return found


def _take(found: Reading, is_answer: bool, end: End, method: bytes) -> None:
    head, mark, rest = found.rest.partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    shape = _ANSWER if is_answer else _REQUEST
    if (b"\r\n" in found.rest) and shape.fullmatch(start) is None:
        raise _Unclean(f"a first line {_shown(start)}")
    if not mark:
        if b"\n" in head.replace(b"\r\n", b"") or b"\0" in head:
            raise _Unclean(f"a line {_shown(head)}")
        raise _Short
    message = Message(start, _fields(lines))
    if is_answer and message.status < 200 and message.status != 101:
        found.interim.append(message)
        found.rest = rest
        return
    codings, lengths = message.all(b"transfer-encoding"), message.all(b"content-length")
    if not is_answer and len(message.all(b"host")) != 1:
        raise _Unclean("not exactly one Host")
    if codings and (lengths or [coding.lower() for coding in codings] != [b"chunked"]):
        raise _Unclean(f"the framing {codings + lengths}")
    if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,18}", length) for length in lengths):
        raise _Unclean(f"the lengths {lengths}")
    found.messages.append(message)
    found.rest = b""
    if is_answer and (method == b"HEAD" or message.status in (101, 204, 304)):
        message.whole, found.rest = True, rest
    elif codings:
        found.rest = _chunks(message, rest)
    elif is_answer and not lengths:
        message.body, message.whole = rest, end == "closed"
        raise _Short
    else:
        size = int(lengths[0]) if lengths else 0
        message.body, message.whole = rest[:size], len(rest) >= size
        found.rest = rest[size:]
        if not message.whole:
            raise _Short


def _chunks(message: Message, data: bytes) -> bytes:
    """Read a chunked body into the message; give what stands behind it."""
    pieces: list[bytes] = []
    at = 0
    try:
        while True:
            line_end = data.find(b"\r\n", at)
            line = data[at : line_end if line_end >= 0 else len(data)]
            if line_end < 0 and len(line) <= 1000 and re.fullmatch(rb"[^\n]*", line):
                raise _Short
            if (chunk := _CHUNK.fullmatch(line)) is None:
                raise _Unclean(f"a chunk that begins {_shown(line)}")
            at = line_end + 2
            if (size := int(chunk[1], 16)) == 0:
                break
            pieces.append(data[at : at + size])
            if len(data) < at + size + 2:
                raise _Short
            if data[at + size : at + size + 2] != b"\r\n":
                raise _Unclean(f"a chunk that ends {_shown(data[at + size : at + size + 20])}")
            at += size + 2
        while (line_end := data.find(b"\r\n", at)) != at:
            if line_end < 0:
                raise _Short
            message.trailers += _fields([data[at:line_end]])
            at = line_end + 2
        message.whole = True
        return data[at + 2 :]
    finally:
        message.body = b"".join(pieces)


def _fields(lines: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    found = []
    for line in lines:
        if (pair := _FIELD.fullmatch(line)) is None:
            raise _Unclean(f"a header line {_shown(line)}")
        found.append((pair[1], pair[2].strip(b" \t")))
    return found


def _shown(data: bytes) -> str:
    return repr(data[:40])[1:]
