"""Bodies as they were, put together from what is stored of them.

Invariant: the bytes are those that were stored, exact but for what their flags say; a body that is
deleted meanwhile is none, never a wrong one: everything is found by way of the span's own number,
which no other span ever gets.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from storage.contents import unpack
from storage.conversation import MESSAGES, unpack_envelope
from storage.database import DatabaseCorrupt, Params, Readable, Row
from storage.records import MAX_ENVELOPED_BYTES

# Unpacking this much in messages of a kilobyte takes a millisecond; more would hold up the event
# loop.
UNPACK_INLINE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBody:
    """The bytes that are kept of a body, and what they are.

    ``content_encoding`` is that of ``data``, ``sha256`` that of the whole body as it passed. The
    flags are those of ``records.Body``.
    """

    data: bytes
    content_type: str | None
    content_encoding: str | None
    assembled: bool
    truncated: bool
    redacted: bool
    sha256: bytes | None


FIND_BODY: Final = """
SELECT s.seq, {length}, s.{which}_envelope, c.encoding, c.size, c.data,
s.{which}_type, s.{which}_encoding, {assembled}, s.{which}_truncated, s.{which}_redacted,
s.{which}_sha256
FROM spans s LEFT JOIN contents c ON c.id = s.{which}_content_id
LEFT JOIN nodes i ON i.id = s.input_node_id LEFT JOIN nodes o ON o.id = s.output_node_id
"""
_REQUEST: Final = FIND_BODY.format(which="request", length="COALESCE(i.depth, 0)", assembled="0")
_RESPONSE: Final = FIND_BODY.format(
    which="response",
    length="COALESCE(o.depth - COALESCE(i.depth, 0), 0)",
    assembled="s.response_assembled",
)
# A span's id is unique in its trace only; of two that came with the same, the older one is it.
_BY_ID: Final = """
WHERE s.project_id = :project_id AND s.span_id = :span_id ORDER BY s.started_at_us, s.seq LIMIT 1
"""
FIND_REQUEST: Final = f"{_REQUEST} {_BY_ID}"
FIND_RESPONSE: Final = f"{_RESPONSE} {_BY_ID}"
_BY_SEQ: Final = "WHERE s.seq = :seq"
REQUEST_OF: Final = f"{_REQUEST} {_BY_SEQ}"
RESPONSE_OF: Final = f"{_RESPONSE} {_BY_SEQ}"
# The messages of a body, in order: the whole input, or what stands below it. Of those that are too
# many for the memory their sizes alone.
MESSAGES_OF: Final = """
WITH RECURSIVE up (parent_id, content_id, lead, depth, above) AS (
  SELECT n.parent_id, n.content_id, n.lead, n.depth, {above}
  FROM spans s JOIN nodes n ON n.id = s.{last} LEFT JOIN nodes i ON i.id = s.input_node_id
  WHERE s.seq = :seq
  UNION ALL
  SELECT n.parent_id, n.content_id, n.lead, n.depth, u.above
  FROM up u JOIN nodes n ON n.id = u.parent_id WHERE n.depth > u.above AND n.depth < u.depth
)
SELECT u.lead, c.encoding, c.size,
CASE WHEN (SELECT SUM(d.size) FROM up v JOIN contents d ON d.id = v.content_id) <= {most}
  THEN c.data END
FROM up u JOIN contents c ON c.id = u.content_id
ORDER BY u.depth
"""
INPUT_MESSAGES: Final = MESSAGES_OF.format(
    last="input_node_id", above="0", most=MAX_ENVELOPED_BYTES
)
ANSWER_MESSAGES: Final = MESSAGES_OF.format(
    last="output_node_id", above="COALESCE(i.depth, 0)", most=MAX_ENVELOPED_BYTES
)


async def request_body(db: Readable, project_id: int, span_id: bytes) -> StoredBody | None:
    """Rebuild what is kept of a request's body; None where nothing is.

    Raises DatabaseCorrupt where it does not unpack.
    """
    key: Params = {"project_id": project_id, "span_id": span_id}
    return await _body(db, FIND_REQUEST, key, INPUT_MESSAGES)


async def response_body(db: Readable, project_id: int, span_id: bytes) -> StoredBody | None:
    """Rebuild what is kept of an answer's body; None where nothing is.

    Raises DatabaseCorrupt where it does not unpack.
    """
    key: Params = {"project_id": project_id, "span_id": span_id}
    return await _body(db, FIND_RESPONSE, key, ANSWER_MESSAGES)


async def request_of(db: Readable, seq: int) -> StoredBody | None:
    """Rebuild the request of the span of this number; None where nothing is kept of it.

    Raises DatabaseCorrupt where it does not unpack.
    """
    return await _body(db, REQUEST_OF, {"seq": seq}, INPUT_MESSAGES)


async def response_of(db: Readable, seq: int) -> StoredBody | None:
    """Rebuild the answer of the span of this number; None where nothing is kept of it.

    Raises DatabaseCorrupt where it does not unpack.
    """
    return await _body(db, RESPONSE_OF, {"seq": seq}, ANSWER_MESSAGES)


async def envelope_of(db: Readable, project_id: int, span_id: bytes) -> bytes | None:
    """Rebuild a request's JSON without its messages: [] or "" stands where they stood.

    None where no conversation was found in it.
    """
    rows = await db.read(FIND_REQUEST, {"project_id": project_id, "span_id": span_id})
    if not rows or rows[0][2] is None:
        return None
    seq, _, packed = rows[0][:3]
    return await _fill(db, seq, packed, None, 0)


async def _body(db: Readable, find: str, key: Params, messages_of: str) -> StoredBody | None:
    rows = await db.read(find, key)
    if not rows:
        return None
    seq, length, packed, encoding, size, content, *facts = rows[0]
    data = None
    if packed is not None:
        data = await _fill(db, seq, packed, messages_of, length)
    elif content is not None:
        data = await _joined([(b"", encoding, size, content)])
    if data is None:
        return None
    content_type, content_encoding, assembled, truncated, redacted, sha256 = facts
    return StoredBody(
        data=data,
        content_type=content_type,
        content_encoding=content_encoding,
        assembled=bool(assembled),
        truncated=bool(truncated),
        redacted=bool(redacted),
        sha256=sha256,
    )


HOLE: Final = """
SELECT c.encoding, c.size, c.data FROM holes h JOIN contents c ON c.id = h.content_id
WHERE h.content_id = :content_id AND h.span_seq = :seq
"""


async def _fill(
    db: Readable, seq: int, packed: bytes, messages_of: str | None, length: int
) -> bytes | None:
    """Fill the holes of an envelope; None where what was in them is gone meanwhile.

    Raises DatabaseCorrupt where they hold more than any body that was recorded has.
    """
    pieces, holes = unpack_envelope(packed)
    parts: list[Row] = []
    size = sum(map(len, pieces))
    for piece, content_id in zip(pieces, holes, strict=False):
        parts.append((piece, "", 0, b""))
        if content_id != MESSAGES:
            rows = await db.read(HOLE, {"content_id": content_id, "seq": seq})
            if not rows:
                return None
            size += rows[0][1]
            _check(size)
            parts.append((b"", *rows[0]))
        elif messages_of is not None:
            rows = await db.read(messages_of, {"seq": seq})
            if len(rows) != length:
                return None
            size += sum(len(lead) + length for lead, _, length, _ in rows)
            _check(size)
            parts += rows
        elif not piece.endswith(b"["):
            parts.append((b'""', "", 0, b""))
    parts.append((pieces[-1], "", 0, b""))
    return await _joined(parts)


def _check(size: int) -> None:
    if size > MAX_ENVELOPED_BYTES:
        most = f"{MAX_ENVELOPED_BYTES:,}"
        raise DatabaseCorrupt("spans", f"the parts of a body have more than {most} bytes")


async def _joined(parts: list[Row]) -> bytes:
    if sum(size for _, _, size, _ in parts) > UNPACK_INLINE_BYTES:
        return await asyncio.to_thread(_join, parts)
    return _join(parts)


def _join(parts: list[Row]) -> bytes:
    """Join what stands before each content with its plain bytes."""
    return b"".join([lead + unpack(encoding, size, data) for lead, encoding, size, data in parts])
