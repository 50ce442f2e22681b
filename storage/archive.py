"""Reads sessions, and traces that have none, as archives: blocks of lines that stand alone.

Invariants: a block holds everything that is known of its spans that have ended, in the order in
which it came, and before each line what that needs; it is the same for the same calls in whatever
database they are. Spans that run are left out. What is in memory is a page of lines, and a number
for each message and each span of the block. What changes meanwhile under it is an error, so that a
block that has its end is whole.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from storage.archive_lines import (
    VERSION,
    ContentLine,
    EndLine,
    Header,
    Line,
    NodeLine,
    OpenedLine,
    SessionLine,
    TraceLine,
    data_of,
    encoded,
    hex_of,
)
from storage.archive_spans import (
    EARLY_ENDS,
    HASHES,
    NUMBERED_SPANS,
    StoredSpan,
    held_by,
    lines_of,
)
from storage.contents import unpack
from storage.database import Readable, Row, Value
from storage.opened import OPENING_COLUMNS, Opening
from storage.parameters import clean_text

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# Numbers of spans that are read at once, and spans of a page.
ITEMS: Final = 20_000
PAGE: Final = 50
# Bytes of contents that are read at once, but for one that has more.
CONTENT_BYTES: Final = 1024 * 1024
# Values of one list in SQL, which is then the same statement each time.
AT_ONCE: Final = 100
# Traces of one block that have no session: they share what they sent alike.
LONE_TRACES: Final = 100
TRACES_AT_ONCE: Final = 2_000
# Messages that are looked at upwards from each end of a chain, at first.
UPWARDS: Final = 8
MOST_UPWARDS: Final = 512


class ArchiveChanged(Exception):
    """What was being read is not there any more: it was deleted, or is of another session now."""

    def __init__(self, what: str = "something of it") -> None:
        super().__init__(f"{what} was changed, or is not there")


# Of a session, or of some traces by name. SQLite expects few rows of a project: unless it is told
# otherwise (`CROSS JOIN`, `+ 0`), it reads all of them first.
_SESSION: Final = "t.session_id = :session_id"
_TRACES: Final = "t.session_id IS NULL AND t.trace_id IN ({})"
ITEMS_OF: Final = f"""
SELECT s.seq, 1, s.trace_id FROM traces t CROSS JOIN spans s
WHERE t.project_id = :project_id AND {{which}}
  AND s.project_id = t.project_id AND s.trace_id = t.trace_id
  AND s.state <> 'running' AND s.seq > :after
UNION ALL
SELECT t.opened_seq, 0, t.trace_id FROM traces t
WHERE t.project_id = :project_id AND {{which}} AND t.opened_seq > :after
ORDER BY 1 LIMIT {ITEMS}
"""
COUNT_RUNNING: Final = """
SELECT COUNT(*) FROM traces t CROSS JOIN spans s
WHERE t.project_id = :project_id AND t.session_id = :session_id
  AND s.project_id = t.project_id AND s.trace_id = t.trace_id AND s.state = 'running'
"""
# By the index of those that run, of which there are few.
COUNT_RUNNING_ALONE: Final = """
SELECT COUNT(*) FROM spans s CROSS JOIN traces t
WHERE s.state = 'running' AND s.project_id + 0 = :project_id
  AND t.project_id = s.project_id AND t.trace_id = s.trace_id AND t.session_id IS NULL
"""
READ_SESSION: Final = """
SELECT s.name, s.starred, b.limit_nusd FROM sessions s
LEFT JOIN session_budgets b ON b.project_id = s.project_id AND b.session_id = s.session_id
WHERE s.project_id = :project_id AND s.session_id = :session_id
"""
READ_TRACES: Final = f"""
SELECT trace_id, session_id, session_source, linked_trace_id, forgotten_at_us,
{", ".join(OPENING_COLUMNS)} FROM traces WHERE project_id = :project_id
"""
# Nodes upwards from some, each with what its line needs.
WALK_UP: Final = """
WITH RECURSIVE up (id, parent_id, content_id, depth, hash, lead, n) AS (
  SELECT n.id, n.parent_id, n.content_id, n.depth, n.hash, n.lead, 1 FROM nodes n
  WHERE n.project_id + 0 = :project_id AND n.id IN ({})
  UNION
  SELECT n.id, n.parent_id, n.content_id, n.depth, n.hash, n.lead, u.n + 1
  FROM up u JOIN nodes n ON n.id = u.parent_id WHERE u.n < :most AND n.depth < u.depth
)
SELECT u.id, u.parent_id, u.content_id, u.hash, p.hash, u.lead, c.sha256, m.role, m.meaning
FROM up u JOIN contents c ON c.id = u.content_id JOIN messages m ON m.content_id = u.content_id
LEFT JOIN nodes p ON p.id = u.parent_id
"""
SIZES: Final = "SELECT id, size FROM contents WHERE project_id + 0 = :project_id"
CONTENTS: Final = """
SELECT id, sha256, encoding, size, data FROM contents WHERE project_id + 0 = :project_id
"""
# In the order of their ids, which is no other in another database.
NEXT_TRACES: Final = f"""
SELECT trace_id, session_id IS NULL AND (last_ended_at_us IS NOT NULL OR opened_seq IS NOT NULL)
FROM traces WHERE project_id = :project_id AND trace_id > :after
ORDER BY trace_id LIMIT {TRACES_AT_ONCE}
"""


async def running_in(db: Readable, project_id: int, session_id: str | None) -> int:
    """Count the spans that run, and so are in no archive: of a session, or of what has none."""
    if session_id is None:
        rows = await db.read(COUNT_RUNNING_ALONE, {"project_id": project_id})
    else:
        rows = await db.read(COUNT_RUNNING, _session(project_id, session_id))
    return int(rows[0][0])


async def session_block(db: Readable, project_id: int, session_id: str) -> AsyncIterator[bytes]:
    """Give the lines of a session's block, some at a time; nothing where there is no session.

    Raises ArchiveChanged where it does not stay meanwhile.
    """
    key = _session(project_id, session_id)
    rows = await db.read(READ_SESSION, key)
    if not rows:
        return
    name, starred, budget_nusd = rows[0]
    session = SessionLine(
        id=str(key["session_id"]), name=name, starred=bool(starred), budget_nusd=budget_nusd
    )
    block = _Block(db, project_id, str(key["session_id"]))
    async for lines in block.lines(ITEMS_OF.format(which=_SESSION), key, session):
        yield lines


async def lone_blocks(db: Readable, project_id: int) -> AsyncIterator[bytes]:
    """Give the blocks of all traces that have no session, some lines at a time.

    Raises ArchiveChanged where one does not stay meanwhile.
    """
    found: list[bytes] = []
    after: bytes = b""
    while rows := await db.read(NEXT_TRACES, {"project_id": project_id, "after": after}):
        after = rows[-1][0]
        found += [trace_id for trace_id, is_alone in rows if is_alone]
        while len(found) >= LONE_TRACES or (found and len(rows) < TRACES_AT_ONCE):
            some, found = found[:LONE_TRACES], found[LONE_TRACES:]
            async for lines in _traces_block(db, project_id, some):
                yield lines
    if found:
        async for lines in _traces_block(db, project_id, found):
            yield lines


async def _traces_block(
    db: Readable, project_id: int, trace_ids: Sequence[bytes]
) -> AsyncIterator[bytes]:
    names, params = _named(trace_ids)
    block = _Block(db, project_id, None)
    sql = ITEMS_OF.format(which=_TRACES.format(names))
    async for lines in block.lines(sql, {**params, "project_id": project_id}, None):
        yield lines


def _session(project_id: int, session_id: str) -> dict[str, Value]:
    return {"project_id": project_id, "session_id": clean_text(session_id)}


def _named(ids: Iterable[Value]) -> tuple[str, dict[str, Value]]:
    """Give each value a name: their list for SQL, and the parameters; the last one fills it up."""
    values = [*ids]
    values += values[-1:] * (AT_ONCE - len(values))
    params: dict[str, Value] = {f"v{n}": value for n, value in enumerate(values)}
    return ", ".join(f":{name}" for name in params), params


class _Block:
    """One block on its way out."""

    def __init__(self, db: Readable, project_id: int, session_id: str | None) -> None:
        self._db = db
        self._project_id = project_id
        self._session_id = session_id
        # What was given already: contents and nodes by their ids.
        self._contents: set[int] = set()
        self._nodes: set[int] = set()
        # With when their contents were forgotten, as their lines say it.
        self._traces: dict[bytes, int | None] = {}
        self._hash = hashlib.sha256()
        self._lines = 0

    async def lines(
        self, items_of: str, key: Mapping[str, Value], session: SessionLine | None
    ) -> AsyncIterator[bytes]:
        """Give all lines."""
        kind: Literal["session", "traces"] = "traces" if session is None else "session"
        head: list[Line] = [Header(format=kind, version=VERSION)]
        yield self._told([*head, session] if session else head)
        after = 0
        while items := await self._db.read(items_of, {**key, "after": after}):
            after = items[-1][0]
            for start in range(0, len(items), PAGE):
                async for lines in self._page(items[start : start + PAGE]):
                    yield lines
            if len(items) < ITEMS:
                break
        end = EndLine(lines=self._lines, sha256=self._hash.hexdigest())
        yield encoded(end)

    def _told(self, lines: Iterable[Line]) -> bytes:
        told = [encoded(line) for line in lines]
        self._lines += len(told)
        data = b"".join(told)
        self._hash.update(data)
        return data

    async def _page(self, items: Sequence[Row]) -> AsyncIterator[bytes]:
        numbers = [seq for seq, is_span, _ in items if is_span]
        found = await self._read_in(NUMBERED_SPANS, "s.seq", numbers)
        spans = {span.values["seq"]: span for span in map(StoredSpan, found)}
        for seq in numbers:
            if seq not in spans or spans[seq].values["session_id"] != self._session_id:
                raise ArchiveChanged("a span")
        traces = {
            row[0]: row[1:]
            for row in await self._read_in(READ_TRACES, "trace_id", {row[2] for row in items})
        }
        rows = [*spans.values()]
        nodes = await self._walk([head for span in rows for head in span.heads])
        # To unpack and to expand is work for a thread: calls wait for the event loop.
        held = await asyncio.to_thread(held_by, rows)
        hashes: dict[int, bytes] = dict(await self._read_in(HASHES, "id", held))
        if len(hashes) < len(held):
            raise ArchiveChanged("a part of a body")
        handed = [s.values["span_id"] for s in rows if s.values["owner"] is None]
        early = await self._read_in(EARLY_ENDS, "ended_id", handed)

        def needed() -> list[int | Line]:
            lines = dict(zip(spans, lines_of(rows, hashes, early), strict=True))
            return [*self._in_order(items, spans, lines, traces, nodes)]

        async for told in self._with_contents(await asyncio.to_thread(needed)):
            yield told

    def _in_order(
        self,
        items: Sequence[Row],
        spans: Mapping[int, StoredSpan],
        lines: Mapping[int, Line],
        traces: Mapping[bytes, Row],
        nodes: Mapping[int, Row],
    ) -> Iterator[int | Line]:
        """Give the lines of items, each behind what it needs; for lines of contents their ids."""
        for seq, is_span, trace_id in items:
            if trace_id not in traces or traces[trace_id][0] != self._session_id:
                raise ArchiveChanged("a trace")
            _, source, linked, forgotten_at_us, *opening = traces[trace_id]
            if is_span:  # of the same moment as what the span has
                forgotten_at_us = spans[seq].values["forgotten_at_us"]
            if trace_id not in self._traces:
                self._traces[trace_id] = forgotten_at_us
                yield TraceLine(
                    id=trace_id.hex(),
                    source=source,
                    linked=hex_of(linked),
                    forgotten_at_us=forgotten_at_us,
                )
            elif forgotten_at_us is None and self._traces[trace_id] is not None:
                raise ArchiveChanged("a trace whose contents were forgotten")
            if is_span:
                yield from self._needs(spans[seq], nodes)
                yield lines[seq]
            else:
                yield _opened(trace_id, Opening._make(opening))

    def _needs(self, span: StoredSpan, nodes: Mapping[int, Row]) -> Iterator[int | Line]:
        """Give the contents, by id, and the nodes that a span needs and that were not given yet."""
        for head in span.heads:
            chain: list[Row] = []
            one: int | None = head
            while one is not None and one not in self._nodes:
                if one not in nodes:
                    raise ArchiveChanged("a message")
                chain.append(nodes[one])
                self._nodes.add(one)
                one = nodes[one][1]
            for _, _, content_id, own, parent, lead, sha256, role, meaning in reversed(chain):
                yield from self._once(content_id)
                yield NodeLine(
                    hash=own.hex(),
                    parent=hex_of(parent),
                    lead=data_of(lead),
                    content=sha256.hex(),
                    role=role,
                    meaning=meaning.hex(),
                )
        for content_id in span.held:
            yield from self._once(content_id)

    def _once(self, content_id: int) -> Iterator[int]:
        if content_id not in self._contents:
            self._contents.add(content_id)
            yield content_id

    async def _walk(self, heads: Iterable[int]) -> dict[int, Row]:
        """Read the nodes upwards from these to those that were given already."""
        found: dict[int, Row] = {}
        wanted = {head for head in heads if head not in self._nodes}
        most = UPWARDS
        while wanted:
            ids = sorted(wanted)
            for start in range(0, len(ids), AT_ONCE):
                names, params = _named(ids[start : start + AT_ONCE])
                params |= {"project_id": self._project_id, "most": most}
                rows = await self._db.read(WALK_UP.format(names), params)
                found.update((row[0], row) for row in rows)
            if not wanted <= found.keys():
                raise ArchiveChanged("a message")
            parents = {row[1] for row in found.values() if row[1] is not None}
            wanted = parents - found.keys() - self._nodes
            most = min(most * 4, MOST_UPWARDS)
        return found

    async def _with_contents(self, needed: Sequence[int | Line]) -> AsyncIterator[bytes]:
        """Give lines, and those of contents in the place of their ids, a bounded part at a time."""
        sizes: dict[int, int] = dict(
            await self._read_in(SIZES, "id", [one for one in needed if isinstance(one, int)])
        )
        some: list[int | Line] = []
        weight = 0
        for one in needed:
            if isinstance(one, int):
                if one not in sizes:
                    raise ArchiveChanged("a content")
                if weight and weight + sizes[one] > CONTENT_BYTES:
                    yield await self._filled(some)
                    some, weight = [], 0
                weight += sizes[one]
            some.append(one)
        yield await self._filled(some)

    async def _filled(self, some: Sequence[int | Line]) -> bytes:
        ids = [one for one in some if isinstance(one, int)]
        contents = {row[0]: row[1:] for row in await self._read_in(CONTENTS, "id", ids)}
        if len(contents) != len(ids):
            raise ArchiveChanged("a content")

        def told() -> bytes:
            return self._told(
                _content(contents[one]) if isinstance(one, int) else one for one in some
            )

        return await asyncio.to_thread(told)

    async def _read_in(self, sql: str, column: str, values: Iterable[Value]) -> list[Row]:
        """Read the rows of a statement in which a column has one of these values."""
        rows: list[Row] = []
        wanted = [*values]
        for start in range(0, len(wanted), AT_ONCE):
            names, params = _named(wanted[start : start + AT_ONCE])
            params["project_id"] = self._project_id
            rows += await self._db.read(f"{sql} AND {column} IN ({names})", params)
        return rows


def _content(row: Row) -> ContentLine:
    sha256, *packed = row
    return ContentLine(sha256=sha256.hex(), data=data_of(unpack(*packed)))


def _opened(trace_id: bytes, opening: Opening) -> OpenedLine:
    return OpenedLine(
        trace=trace_id.hex(),
        at_us=opening.at_us,
        name=opening.name,
        user_id=opening.user_id,
        closed_at_us=opening.closed_at_us,
        heard_at_us=opening.heard_at_us,
        tags=None if opening.tags is None else msgspec.json.decode(opening.tags, type=list[str]),
    )
