"""Exact slices of a JSON body: the messages in it, and the rest as an envelope round holes.

Owns where in a body's bytes a value begins and ends. Invariant: all that is given are adjacent
slices of the body, so that the envelope with its holes filled is the body, byte for byte; what
cannot be split with certainty is None, and stored whole. It does not read what a message says.

How: msgspec gives each value's exact bytes (it keeps white space, escapes, duplicate keys within a
value, any number, and bytes that are no UTF-8), but not where they stand. So the text is walked
forward: a key, then bytes that must equal the value. Of two values that begin at one place neither
can be a part of the other (but for numbers, and then no comma follows), so a walk in which every
value is where it should be, and at whose end the object ends, read the object as it is. A key that
stands twice makes it fail, as msgspec gives only the last of the two.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from proxy.providers.lenient import has_many_values
from storage.chain import MAX_MESSAGES
from storage.records import MAX_ENVELOPED_BYTES, Content, Envelope

Path = tuple[str | int, ...]
# A key or a number, and where its value begins and ends.
_Place = tuple[str | int, int, int]

# A top-level value longer than this is a content of its own: tools, instructions, a schema. In an
# answer the usage is as long, and never the same twice.
LARGE_BYTES: Final = 256
LARGE_IN_ANSWER_BYTES: Final = 1024
# The pieces stand in the span's row. A longer one (other choices, logprobs) is a content, too.
MAX_PIECE_BYTES: Final = 4 * 1024
MAX_PIECES_BYTES: Final = 16 * 1024
# The separator before a message stands in its node: a comma and the deepest indentation.
MAX_LEAD_BYTES: Final = 256
# Members of one object. Requests have 50 at most; 8 MiB have room for 800,000.
MAX_MEMBERS: Final = 10_000

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_OPEN: Final = re.compile(rb"[ \t\r\n]*[{\[]")
_KEY: Final = re.compile(
    rb'[ \t\r\n]*,?[ \t\r\n]*"(?:[^"\\]++|\\.)*+"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL
)
_SEPARATOR: Final = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
# A message is an object, or a string.
_MESSAGE: Final = frozenset({b"{", b'"'})
_CLOSE: Final = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*\Z")


class Slice(NamedTuple):
    """The exact bytes of a message, and of the separator before it."""

    lead: bytes
    data: bytes


class Split(NamedTuple):
    """A body as its messages and what stands round them.

    ``rest`` is the body for reading what is not in its messages: without those of an array, which
    are most of it. Where they stood in one, ``opened`` is the offset behind its bracket and ``end``
    the one behind its last message; otherwise both are 0.
    """

    envelope: Envelope
    slices: list[Slice]
    rest: bytes
    opened: int = 0
    end: int = 0


class Skeleton(NamedTuple):
    """A body without those of its messages that are known, and the comma that followed them."""

    data: bytes
    comma: bytes
    removed_bytes: int


class _Hole(NamedTuple):
    start: int
    end: int
    content: Content | None


def split(body: bytes, path: Path, large_bytes: int = LARGE_BYTES) -> Split | None:
    """Split a body at the messages that stand at `path`, and at its other large values.

    There stands an array of them, or one alone: an object or a string. Where nothing is there the
    body is split all the same. None for what is not JSON, has too many values, or cannot be split
    with certainty.
    """
    try:
        return _split(body, path, large_bytes, known=False)
    except (ValueError, RecursionError):  # nesting deeper than Python's stack
        return None


def split_answer(body: bytes, path: Path) -> Split | None:
    """Split an answer, as `split` does with the large values of answers.

    Nearly always one message is most of it, and its bytes stand in it once: that is its place, and
    nothing else is large, so there is no need to walk. Of a key that stands twice the last counts.
    """
    if len(body) > MAX_ENVELOPED_BYTES or has_many_values(body):
        return None
    data = body
    try:
        for step in path:
            found = _OBJECT.decode(data) if isinstance(step, str) else _ARRAY.decode(data)
            data = bytes(found[step])  # type: ignore[index] # a list by its number
    except (ValueError, LookupError, RecursionError):
        return split(body, path, LARGE_IN_ANSWER_BYTES)
    if data[:1] in _MESSAGE and len(body) - len(data) <= LARGE_IN_ANSWER_BYTES:
        start = body.find(data)
        if body.find(data, start + 1) < 0:
            pieces = (body[:start], body[start + len(data) :])
            return Split(Envelope(pieces, (None,)), [Slice(b"", data)], body)
    return split(body, path, LARGE_IN_ANSWER_BYTES)


def without_known(body: bytes, opened: int, end: int) -> Skeleton | None:
    """Leave messages out of a body that begins, up to `end`, like one that was split.

    `opened` and `end` are those of that split. A parser that has read an array's elements up to
    the end of one is where it was behind the array's bracket, but for the comma: whatever follows
    is read alike in the skeleton, and can be split no other way than in the body. None where the
    last element does not end there (of a number only the beginning is known).
    """
    at = _end(_SPACE, body, end)
    if body.startswith(b",", at):
        at += 1
        return Skeleton(body[:opened] + body[at:], body[end:at], at - opened)
    if body.startswith(b"]", at):
        return Skeleton(body[:opened] + body[end:], b"", end - opened)
    return None


def split_skeleton(skeleton: Skeleton, path: Path) -> Split | None:
    """Split a body of which only the skeleton is at hand; its slices are those that are new."""
    try:
        found = _split(skeleton.data, path, LARGE_BYTES, known=True)
    except (ValueError, RecursionError):
        return None
    if found is None or bool(skeleton.comma) != bool(found.slices):
        return None  # `[1,]` without its 1 would be `[]`
    slices = found.slices
    if slices:
        slices[0] = Slice(skeleton.comma + slices[0].lead, slices[0].data)
        if len(slices[0].lead) > MAX_LEAD_BYTES:
            return None
    return found._replace(end=found.end + skeleton.removed_bytes)


def elements(array: bytes) -> list[Slice]:
    """Give the elements of an array, each with what stands between it and the one before.

    Raises:
        ValueError: it is no array, has too many elements, or cannot be divided with certainty.
        RecursionError: it is nested deeper than Python's stack.
    """
    if has_many_values(array):
        raise ValueError
    found: list[Slice] = []
    last = _end(_OPEN, array, 0)
    for _, start, end in _elements(array):
        found.append(Slice(array[last:start], array[start:end]))
        last = end
    return found


def _split(body: bytes, path: Path, large_bytes: int, *, known: bool) -> Split | None:
    if has_many_values(body):
        return None
    if not path:
        return Split(Envelope((b"", b""), (None,)), [Slice(b"", body)], body)
    members = _members(body) if isinstance(path[0], str) else []
    holes = [
        _Hole(start, end, content_of(body[start:end]))
        for key, start, end in members
        if end - start > large_bytes and key != path[0]
    ]
    slices: list[Slice] = []
    opened = last = 0
    start, end = _find(body, path, members)
    opening = body[start : start + 1] if start < end else b""
    if opening in _MESSAGE:
        slices = [Slice(b"", body[start:end])]
        holes.append(_Hole(start, end, None))
    elif opening == b"[":
        opened = last = start + 1
        for _, first, behind in _elements(memoryview(body)[start:end]):
            lead = body[last : start + first]
            last = start + behind
            data = body[start + first : last]
            # Prompts may be arrays of token numbers.
            if data[:1] not in _MESSAGE or len(lead) > MAX_LEAD_BYTES:
                return None
            slices.append(Slice(lead, data))
        if slices or known:
            holes.append(_Hole(opened, last, None))
        else:
            opened = last = 0
    elif end - start > large_bytes and len(path) == 1:
        holes.append(_Hole(start, end, content_of(body[start:end])))
    envelope = _envelope(body, sorted(holes))
    if envelope is None:
        return None
    rest = body[:opened] + body[last:] if slices and opened else body
    return Split(envelope, slices, rest, opened, last)


def _find(body: bytes, path: Path, members: Sequence[_Place]) -> tuple[int, int]:
    """Give where the value at `path` begins and ends; (0, 0) where there is none."""
    start, end = 0, len(body)
    inner = members
    for depth, step in enumerate(path):
        if depth or isinstance(step, int):
            data = body[start:end]
            inner = _members(data) if isinstance(step, str) else _elements(data)
        for key, first, behind in inner:
            if key == step:
                start, end = start + first, start + behind
                break
        else:
            return 0, 0
    return start, end


def _members(data: bytes) -> list[_Place]:
    """Give each key of an object, and where its value begins and ends."""
    places: list[_Place] = []
    values = _OBJECT.decode(data)
    if len(values) > MAX_MEMBERS:
        raise ValueError
    at = _end(_OPEN, data, 0)
    for key, raw in values.items():
        value = bytes(raw)
        # As in `_end`; the two loops are where the time goes.
        match = _KEY.match(data, at)
        if match is None or not data.startswith(value, start := match.end()):
            raise ValueError
        at = start + len(value)
        places.append((key, start, at))
    _end(_CLOSE, data, at)
    return places


def _elements(data: bytes | memoryview) -> list[_Place]:
    """Give each element's number in an array, and where it begins and ends."""
    places: list[_Place] = []
    values = _ARRAY.decode(data)
    if len(values) > MAX_MESSAGES:  # a place costs more than its value
        raise ValueError
    at = _end(_OPEN, data, 0)
    for number, raw in enumerate(values):
        if (match := _SEPARATOR.match(data, at)) is None:
            raise ValueError
        start = match.end()
        at = start + memoryview(raw).nbytes
        places.append((number, start, at))
    return places


def _end(pattern: re.Pattern[bytes], data: bytes | memoryview, at: int) -> int:
    match = pattern.match(data, at)
    if match is None:
        raise ValueError
    return match.end()


def _envelope(body: bytes, places: list[_Hole]) -> Envelope | None:
    """Cut the holes out of a body; None where what is left is more than a row should hold."""
    pieces: list[bytes] = []
    holes: list[Content | None] = []
    at = size = 0
    for place in (*places, _Hole(len(body), len(body), None)):
        piece = body[at : place.start]
        if len(piece) > MAX_PIECE_BYTES:
            pieces.append(b"")
            holes.append(content_of(piece))
            piece = b""
        pieces.append(piece)
        holes.append(place.content)
        at = place.end
        size += len(piece)
    if size > MAX_PIECES_BYTES:
        return None
    return Envelope(tuple(pieces), tuple(holes[:-1]))


def content_of(data: bytes) -> Content:
    """Name bytes by their hash."""
    return Content(sha256=hashlib.sha256(data).digest(), data=data)
