"""Reads a session as turns for the tree of its threads, and the messages of a page.

Invariant: two or three statements give all turns of a session without a byte of their messages,
however often these were sent again; only what a page shows is unpacked, up to a number of bytes.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec

from storage.contents import unpack
from storage.conversation import MESSAGES, unpack_envelope
from storage.database import Database, Row, Value
from storage.parameters import clean_text
from storage.queries import IDS, OUTLINE_FIELDS, batches, read_outlines
from storage.records import COMPLETED, Span
from storage.threads import Said, Setting, Stored, Turn

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# The newest of a session that are read: as many as an answer gives of its traces.
MAX_TURNS: Final = 10_000
# Messages of all turns together: ten times those of an agent's longest day. What is beyond is the
# beginning of the longest chains, which came with many turns.
MAX_MESSAGES: Final = 200_000

# A turn is a call of a model, once: not what saw it as well, and no other step of an agent. CROSS:
# SQLite would begin with all spans of the project, by the index of their ids.
_OF_SESSION: Final = """
FROM traces t CROSS JOIN spans s
WHERE s.project_id = t.project_id AND s.trace_id = t.trace_id
  AND t.project_id = :project_id AND t.session_id = :session_id
  AND s.kind = 'llm_call' AND s.same_call IS NULL
ORDER BY s.started_at_us DESC, s.seq DESC LIMIT :turns
"""
TURNS: Final = f"""
SELECT s.seq, s.span_id, s.started_at_us, s.state, s.operation, s.input_node_id, s.output_node_id,
s.prelude_node_id, s.base_meaning, s.input_meaning, s.output_meaning, s.request_envelope
{_OF_SESSION}"""

# The parts of a turn, each walked from its last message up to a depth.
_INPUTS: Final = 0
_ANSWERS: Final = 1
_PRELUDE: Final = 2  # told by its node, since many turns have the same
_DEPTH: Final = 4
_WALK: Final = """
walk(seq, part, parent_id, content_id, depth, above) AS (
  SELECT h.seq, h.part, n.parent_id, n.content_id, n.depth, n.depth - h.length
  FROM heads h JOIN nodes n ON n.id = h.node_id WHERE h.length > 0
  UNION ALL
  SELECT w.seq, w.part, n.parent_id, n.content_id, n.depth, w.above
  FROM walk w JOIN nodes n ON n.id = w.parent_id WHERE w.depth > w.above + 1
)
SELECT w.seq, w.part, w.parent_id, w.content_id, w.depth, m.role, m.meaning
FROM (SELECT * FROM walk LIMIT :messages) w JOIN messages m ON m.content_id = w.content_id
"""
NEW_MESSAGES: Final = f"""
WITH RECURSIVE turns AS (
  SELECT s.seq, s.input_node_id, s.output_node_id, s.prelude_node_id, s.fresh_count {_OF_SESSION}
),
heads(seq, part, node_id, length) AS (
  SELECT seq, {_INPUTS}, input_node_id, fresh_count FROM turns
  UNION ALL
  SELECT t.seq, {_ANSWERS}, t.output_node_id, o.depth - COALESCE(i.depth, 0)
  FROM turns t JOIN nodes o ON o.id = t.output_node_id LEFT JOIN nodes i ON i.id = t.input_node_id
  UNION ALL
  SELECT n.id, {_PRELUDE}, n.id, n.depth
  FROM nodes n WHERE n.id IN (SELECT prelude_node_id FROM turns)
),
{_WALK}"""
ALL_MESSAGES: Final = f"""
WITH RECURSIVE heads(seq, part, node_id, length) AS (
  SELECT s.seq, {_INPUTS}, i.id, i.depth - COALESCE(p.depth, 0)
  FROM spans s JOIN nodes i ON i.id = s.input_node_id LEFT JOIN nodes p ON p.id = s.prelude_node_id
  WHERE s.seq IN ({IDS}) AND s.project_id + 0 = :project_id
),
{_WALK}"""


async def session_turns(
    db: Database, project_id: int, session_id: str, operations: frozenset[str]
) -> list[Turn]:
    """Read the calls of a session that are turns of a conversation, oldest first.

    ``operations`` are those that answer. A call without messages is a turn where it is one of them
    and did not complete: it runs, or failed before its request was stored.
    """
    key: dict[str, Value] = {
        "project_id": project_id,
        "session_id": clean_text(session_id),
        "turns": MAX_TURNS,
        "messages": MAX_MESSAGES,
    }
    rows = [
        row
        for row in map(_TurnRow._make, reversed(await db.read(TURNS, key)))
        if row.is_recorded or (row.state != COMPLETED and row.operation in operations)
    ]
    found = await db.read(NEW_MESSAGES, key)
    if orphans := list(_without_base(rows)):
        whole = set(orphans)
        found = [row for row in found if row[1] != _INPUTS or row[0] not in whole]
        for some in batches(orphans):
            found += await db.read(ALL_MESSAGES, {**key, **some})
    return await asyncio.to_thread(_turns, rows, found, operations)


class _TurnRow(NamedTuple):
    """A row of ``TURNS``."""

    seq: int
    span_id: bytes
    started_at_us: int
    state: str
    operation: str | None
    input_id: int | None
    output_id: int | None
    prelude_id: int | None
    base: bytes | None
    input_meaning: bytes | None
    output_meaning: bytes | None
    envelope: bytes | None

    @property
    def is_recorded(self) -> bool:
        """Whether the messages of the call are known."""
        return self.input_id is not None or self.output_id is not None


def _without_base(rows: Iterable[_TurnRow]) -> Iterator[int]:
    """Give the turns that go on from a place which no turn before them has: it was deleted."""
    places: set[bytes | None] = {None}
    for row in rows:
        if row.base not in places:
            yield row.seq
        places |= {row.input_meaning, row.output_meaning}


def _turns(
    turn_rows: Iterable[_TurnRow], found: Iterable[Row], operations: frozenset[str]
) -> list[Turn]:
    walked: defaultdict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in found:
        walked[row[:2]].append(row)
    for rows in walked.values():
        rows.sort(key=itemgetter(_DEPTH), reverse=True)
    # The last message is first now, so that the last parent is that of the first message.
    parents = {key: rows[-1][2] for key, rows in walked.items()}
    chains = {key: [Said._make(row[3:]) for row in rows[::-1]] for key, rows in walked.items()}
    settings: dict[bytes | None, Setting | None] = {None: None}
    turns = []
    for number, row in enumerate(turn_rows, 1):
        if row.envelope is not None and row.envelope not in settings:
            settings[row.envelope] = _setting(row.envelope)
        turn = Turn(
            number=number,
            seq=row.seq,
            span_id=row.span_id,
            started_at_us=row.started_at_us,
            state=row.state,
            base=row.base,
            inputs=chains.get((row.seq, _INPUTS), ()),
            answers=chains.get((row.seq, _ANSWERS), ()),
            prelude=chains.get((row.prelude_id or 0, _PRELUDE), ()),
            input_meaning=row.input_meaning,
            output_meaning=row.output_meaning,
            setting=settings[row.envelope],
            held=row.base is not None and parents.get((row.seq, _INPUTS), 0) == row.prelude_id,
            answers_due=row.operation in operations,
            recorded=row.is_recorded,
        )
        turns.append(turn)
    return turns


class _Request(msgspec.Struct):
    """The values of a request that are shown beside its messages."""

    instructions: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()


# Values that say nothing.
_NOTHING: Final = frozenset({b"", b"null", b"[]", b'""'})
_REQUEST: Final = msgspec.json.Decoder(_Request)


def _setting(envelope: bytes) -> Setting | None:
    """Read an envelope; None where it cannot be.

    With the id of each hole's content in its place it is JSON again. A number that is none of these
    ids is what the client sent.
    """
    try:
        pieces, holes = unpack_envelope(envelope)
        ids = [b"%d" % hole for hole in holes]
        text = b"".join(part for pair in zip(pieces, [*ids, b""], strict=True) for part in pair)
        request = _REQUEST.decode(text)
    except (ValueError, RecursionError):
        return None
    known = {*ids} - {b"%d" % MESSAGES}
    values = (request.instructions, request.tools, request.functions)
    return Setting(*(_stored(value, known) for value in values))


def _stored(value: msgspec.Raw, ids: Collection[bytes]) -> Stored:
    data = bytes(value)
    if data in _NOTHING:
        return None
    return int(data) if data in ids else data


PAGE_SPANS: Final = f"""
SELECT {OUTLINE_FIELDS} FROM spans s WHERE s.project_id + 0 = :project_id AND s.seq IN ({IDS})
"""


async def turn_spans(db: Database, project_id: int, seqs: Sequence[int]) -> dict[int, Span]:
    """Read the spans of these turns in outline, by ``seq``."""
    found: dict[int, Span] = {}
    for some in batches(seqs):
        rows = await db.read(PAGE_SPANS, {"project_id": project_id, **some})
        found.update({span.seq: span for span in await read_outlines(rows)})
    return found


# Of more, the newest are the turns that there may be.
TURN_IDS: Final = """
SELECT s.span_id FROM spans s
WHERE s.project_id = :project_id AND s.trace_id = :trace_id
  AND s.kind = 'llm_call' AND s.same_call IS NULL
ORDER BY s.started_at_us DESC, s.seq DESC LIMIT :turns
"""


async def turn_ids(db: Database, project_id: int, trace_id: bytes) -> frozenset[bytes]:
    """Read the ids of the spans of a trace that may be turns of its session."""
    key: dict[str, Value] = {"project_id": project_id, "trace_id": trace_id, "turns": MAX_TURNS}
    return frozenset(span_id for (span_id,) in await db.read(TURN_IDS, key))


ANSWER_FRAMES: Final = f"""
SELECT seq, response_envelope FROM spans
WHERE seq IN ({IDS}) AND project_id + 0 = :project_id AND response_envelope IS NOT NULL
"""


async def answer_frames(db: Database, project_id: int, seqs: Sequence[int]) -> dict[int, bytes]:
    """Read what stands around the messages of these turns' answers, by ``seq``."""
    found = {}
    for some in batches(seqs):
        for seq, envelope in await db.read(ANSWER_FRAMES, {"project_id": project_id, **some}):
            found[seq] = b"".join(unpack_envelope(envelope)[0])
    return found


SIZES: Final = f"""
SELECT id, size FROM contents WHERE id IN ({IDS}) AND project_id + 0 = :project_id
"""
CONTENTS: Final = f"""
SELECT id, encoding, size, data FROM contents
WHERE id IN ({IDS}) AND project_id + 0 = :project_id
"""


async def message_contents(
    db: Database, project_id: int, ids: Iterable[int], most_bytes: int
) -> dict[int, bytes]:
    """Read contents in this order, but for those with which they would be more than these bytes."""
    unique = list(dict.fromkeys(ids))
    sizes = await _sizes(db, project_id, unique)
    wanted = []
    for content_id in unique:
        size = sizes.get(content_id)
        if size is not None and size <= most_bytes:
            most_bytes -= size
            wanted.append(content_id)
    rows: list[Row] = []
    for some in batches(wanted):
        rows += await db.read(CONTENTS, {"project_id": project_id, **some})
    return await asyncio.to_thread(lambda: {row[0]: unpack(*row[1:]) for row in rows})


async def are_there(db: Database, project_id: int, ids: Iterable[int]) -> bool:
    """Tell whether all of these contents are there."""
    unique = list(dict.fromkeys(ids))
    return len(await _sizes(db, project_id, unique)) == len(unique)


async def _sizes(db: Database, project_id: int, ids: Sequence[int]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for some in batches(ids):
        sizes.update(await db.read(SIZES, {"project_id": project_id, **some}))
    return sizes


GET_MESSAGE: Final = """
WITH RECURSIVE walk(parent_id, content_id, depth) AS (
  SELECT n.parent_id, n.content_id, n.depth FROM nodes n WHERE n.id = (
    SELECT COALESCE(output_node_id, input_node_id) FROM spans
    WHERE project_id = :project_id AND span_id = :span_id ORDER BY started_at_us, seq LIMIT 1)
  UNION ALL
  SELECT n.parent_id, n.content_id, n.depth
  FROM walk w JOIN nodes n ON n.id = w.parent_id WHERE w.depth > :depth
)
SELECT c.encoding, c.size, c.data FROM walk w JOIN contents c ON c.id = w.content_id
WHERE w.depth = :depth
"""


async def message(db: Database, project_id: int, span_id: bytes, depth: int) -> bytes | None:
    """Read the JSON of the message at a depth of a span's chain; None where there is none."""
    key: dict[str, Value] = {"project_id": project_id, "span_id": span_id, "depth": depth}
    rows = await db.read(GET_MESSAGE, key)
    return await asyncio.to_thread(unpack, *rows[0]) if rows else None
