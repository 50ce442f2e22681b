"""What is of its hash and rebuilds, and what does not: contents, nodes, and the bodies of calls.

Owns how one row is told to be damaged; the doctor counts those, and mend.py takes them away.
Invariant: it only reads.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from storage.chain import BEGINNING, node_hash
from storage.contents import unpack
from storage.conversation import known_holes_of
from storage.database import DatabaseCorrupt, Params, Readable, Row
from storage.rebuild import StoredBody, request_of, response_of
from storage.squeeze import expand

# Rows that are read at a time.
ROWS: Final = 1_000
# Bytes of contents that are: as many as one body has that is kept whole unless somebody wants more.
PIECE_BYTES: Final = 8 * 1024 * 1024


async def each(db: Readable, sql: str, after: int = -1) -> AsyncIterator[Row]:
    """Read all rows of a statement that begin with a growing number above ``:after``."""
    while rows := await db.read(f"{sql} LIMIT {ROWS}", {"after": after}):
        for row in rows:
            yield row
        after = rows[-1][0]


class Stored(NamedTuple):
    """A row of contents."""

    id: int
    project_id: int
    sha256: bytes
    encoding: str
    size: int
    data: bytes


SIZES: Final = """
SELECT c.id, length(c.data) FROM contents c WHERE c.id > :after {which} ORDER BY c.id
"""
CONTENTS: Final = """
SELECT c.id, c.project_id, c.sha256, c.encoding, c.size, c.data FROM contents c
WHERE c.id > :after AND c.id <= :last {which} ORDER BY c.id
"""


async def all_contents(db: Readable, which: str = "") -> AsyncIterator[Stored]:
    """Read all contents, or those of a condition on ``c``, by pieces of a few or of one."""
    after = -1
    sizes = f"{SIZES.format(which=which)} LIMIT {ROWS}"
    while rows := await db.read(sizes, {"after": after}):
        for last in _pieces(rows):
            piece: Params = {"after": after, "last": last}
            for row in await db.read(CONTENTS.format(which=which), piece):
                yield Stored._make(row)
            after = last


def _pieces(sizes: Sequence[Row]) -> Iterator[int]:
    """Cut ids with their sizes into pieces of so many bytes; give the last id of each."""
    in_all = 0
    for (content_id, size), (following, more) in pairwise((*sizes, (None, PIECE_BYTES))):
        in_all += size
        if following is None or in_all + more > PIECE_BYTES:
            yield content_id
            in_all = 0


async def broken_contents(db: Readable) -> AsyncIterator[int]:
    """Give the ids of contents that do not unpack to the bytes of their hash."""
    async for content_id, _, sha256, encoding, size, data in all_contents(db):
        try:
            plain = unpack(encoding, size, data)
        except DatabaseCorrupt:
            yield content_id
        else:
            if len(plain) != size or hashlib.sha256(plain).digest() != sha256:
                yield content_id


ALL_NODES: Final = """
SELECT n.id, p.hash, n.hash, n.lead, c.sha256 FROM nodes n
JOIN contents c ON c.id = n.content_id LEFT JOIN nodes p ON p.id = n.parent_id
WHERE n.id > :after ORDER BY n.id
"""


async def broken_nodes(db: Readable) -> AsyncIterator[int]:
    """Give the ids of nodes whose hash is not that of what they stand for."""
    async for node_id, parent, own, lead, sha256 in each(db, ALL_NODES):
        if node_hash(parent or BEGINNING, lead, sha256) != own:
            yield node_id


# What is kept of each, and of the answer its size as it passed, and its headers.
ALL_SPANS: Final = """
SELECT seq, request_content_id IS NOT NULL OR request_envelope IS NOT NULL,
response_content_id IS NOT NULL OR response_envelope IS NOT NULL, response_size,
response_head, request_envelope, response_envelope
FROM spans WHERE seq > :after ORDER BY seq
"""


class Bodies(NamedTuple):
    """What is kept of the bodies of a call: whether they rebuild, and what their holes hold."""

    seq: int
    request_is_whole: bool
    response_is_whole: bool
    holes: set[int]


async def all_bodies(db: Readable) -> AsyncIterator[Bodies]:
    """Give what is kept of the bodies of each call."""
    async for seq, has_request, has_response, size, head, asked, answered in each(db, ALL_SPANS):
        yield Bodies(
            seq,
            await _request_is_whole(db, seq, bool(has_request)),
            await _response_is_whole(db, seq, bool(has_response), size, head),
            {*known_holes_of(asked), *known_holes_of(answered)},
        )


async def _request_is_whole(db: Readable, seq: int, has_request: bool) -> bool:
    try:
        request = await request_of(db, seq)
    except DatabaseCorrupt:
        return False
    return has_request == (request is not None) and _is_whole(request)


async def _response_is_whole(
    db: Readable, seq: int, has_response: bool, size: int | None, head: bytes | None
) -> bool:
    try:
        response = await response_of(db, seq)
    except DatabaseCorrupt:
        return False
    if has_response != (response is not None):
        return False
    if response is None or _is_whole(response):
        return True
    if response.content_encoding:
        return False
    return may_be_decoded(len(response.data), size, _headers(head))


def _is_whole(body: StoredBody | None) -> bool:
    """Tell whether a body is as it passed, where that can be told."""
    if body is None or body.sha256 is None:
        return True
    if body.truncated or body.redacted or body.assembled:
        return True
    return hashlib.sha256(body.data).digest() == body.sha256


def _headers(head: bytes | None) -> bytes | None:
    """Give headers as they are; none where they are damaged."""
    try:
        return None if head is None else expand(head)
    except DatabaseCorrupt:
        return None


_pairs: Final = msgspec.json.Decoder(list[tuple[str, str]]).decode


def may_be_decoded(kept_bytes: int, passed_bytes: int | None, headers: bytes | None) -> bool:
    """Tell whether an answer may be kept without the coding with which it came: no hash tells then.

    It has another size, or by chance the same, and headers (JSON) that name the coding.
    """
    return kept_bytes != passed_bytes or (headers is not None and _names_coding(headers))


def _names_coding(headers: bytes) -> bool:
    try:
        pairs = _pairs(headers)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # none of ours
        return False
    return any(
        name.lower() == "content-encoding" and value.strip().lower() not in ("", "identity")
        for name, value in pairs
    )
