"""The words of messages: an index of texts without the texts, and how a word is looked up in it.

Invariants: each content that mentions.py hands over is either in the index or in the table
``unindexed``, where it waits until the writer has nothing more urgent to do: the index costs as
much as all else that a call stores, and less in larger batches. A row goes by the same text that
it came with, or its words stay behind. What is damaged has no words, and keeps nobody waiting: the
doctor tells of it. What an index is and how it is asked is each database's:
fts5.py's and tsvector.py's.
"""

# ruff: noqa: S608 (the SQL below is put together from what databases say of themselves)

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from storage.contents import unpack
from storage.database import (
    DatabaseCorrupt,
    FullText,
    Params,
    Readable,
    Row,
    Transaction,
    Value,
)
from storage.parameters import clean_text

# The newest messages that are looked at for one word: a quarter of a second of a reader's time.
MAX_HITS: Final = 50_000
# Messages with a word, and sessions that said them, up to which their rows are read and sorted; of
# more, rows are tested in order.
FEW: Final = 5_000

# SQLite takes so many SELECTs for one UNION ALL (SQLITE_MAX_COMPOUND_SELECT is 500).
UNITED: Final = 400

# The text by which a message is found, from its bytes; the same for the same bytes.
TextOf = Callable[[bytes], str]
# Of an index, the newest first: the least content id of each, and its name; none: it is one.
Parts: TypeAlias = Sequence[Row]

AWAIT_INDEX: Final = "INSERT INTO unindexed (content_id) VALUES (:id)"
NEXT_SIZES: Final = """
SELECT u.content_id, c.size FROM unindexed u JOIN contents c ON c.id = u.content_id
WHERE u.content_id <= :last ORDER BY u.content_id LIMIT :limit
"""
NEWEST_WAITING: Final = "SELECT MAX(content_id) FROM unindexed"
EVERY_CONTENT: Final = 2**62
INDEX_NEXT: Final = """
SELECT c.id, c.project_id, c.encoding, c.size, c.data
FROM unindexed u JOIN contents c ON c.id = u.content_id
WHERE u.content_id <= :last ORDER BY u.content_id LIMIT :limit
"""
INDEXED: Final = "DELETE FROM unindexed WHERE content_id IN (:keys) RETURNING content_id"
COUNT: Final = "SELECT COUNT(*) FROM ({}) AS found"
COUNT_SAID: Final = COUNT.format(
    "SELECT 1 FROM ({}) h JOIN mentions n ON n.content_id = h.content_id LIMIT :most"
)
READ_CONTENT: Final = "SELECT id, project_id, encoding, size, data FROM contents WHERE id = :id"


def await_index(tx: Transaction, content_ids: Iterable[int]) -> None:
    """Put contents that are not in the index among those that are to come into it."""
    tx.insert_rows(AWAIT_INDEX, [{"id": content_id} for content_id in content_ids])


async def newest_waiting(db: Readable) -> int | None:
    """Give the youngest content that waits for the index; None: none does."""
    ((content_id,),) = await db.read(NEWEST_WAITING, {})
    return None if content_id is None else int(content_id)


def index(
    tx: Transaction,
    limit: int,
    text_of: TextOf,
    most_bytes: int | None = None,
    up_to: int = EVERY_CONTENT,
) -> int:
    """Bring contents that wait into the index, the oldest first; return how many there were.

    Up to ``limit``, and so many that they have no more than ``most_bytes``, but at least one; none
    that is younger than ``up_to``.
    """
    key: dict[str, Value] = {"limit": limit, "last": up_to}
    last = None
    for content_id, size in tx.execute(NEXT_SIZES, key):
        if most_bytes is not None:
            most_bytes -= size
            if most_bytes < 0 and last is not None:
                break
        last = content_id
    if last is None:
        return 0
    key["last"] = last
    waiting = tx.execute(INDEX_NEXT, key)
    # Another server may have taken some of them meanwhile.
    mine = {row[0] for row in tx.look_up(INDEXED, {}, [row[0] for row in waiting])}
    found = []
    for row in waiting:
        if row[0] in mine:
            with suppress(DatabaseCorrupt):  # it says nothing: the doctor tells of it
                found.append(_row(tx, row, text_of))
    tx.full_text.add(tx, found)
    return len(waiting)


def leave_index(tx: Transaction, content_ids: Sequence[int], text_of: TextOf) -> None:
    """Take contents out of the index, or from among those that wait.

    Raises DatabaseCorrupt for one that was damaged since it came in, where it goes by its words.
    """
    waited = {row[0] for row in tx.look_up(INDEXED, {}, content_ids)}
    left = [content_id for content_id in content_ids if content_id not in waited]
    if not tx.full_text.removes_by_words:
        tx.full_text.remove(tx, [{"id": content_id} for content_id in left])
        return
    found = [row for content_id in left if (row := _leaving(tx, content_id, text_of)) is not None]
    tx.full_text.remove(tx, found)


def _leaving(tx: Transaction, content_id: int, text_of: TextOf) -> Params | None:
    """Give the row with which a content came into the index; None: it never did."""
    (row,) = tx.execute(READ_CONTENT, {"id": content_id})
    try:
        return _row(tx, row, text_of)
    except DatabaseCorrupt:
        full_text = tx.full_text
        parts = tx.execute(full_text.parts, {}) if full_text.parts else []
        held = full_text.held.format(part=_part_of(parts, content_id))
        key: Params = {"term": full_text.search(row[1], None), "id": content_id}
        if tx.execute(held, key) == [(0,)]:
            return None  # it was damaged before
        raise


def _row(tx: Transaction, row: Row, text_of: TextOf) -> Params:
    content_id, project_id, encoding, size, data = row
    text = clean_text(text_of(unpack(encoding, size, data)))
    return {"id": content_id, **tx.full_text.words(project_id, text)}


@dataclass(frozen=True, slots=True)
class Match:
    """A search for a word, or for a phrase that stands in one message; case and accents aside.

    ``search`` is the database's text for it, ``hits`` is how many messages it finds, up to
    ``MAX_HITS`` and one, ``select`` the SQL that finds their contents by the parameter ``{term}``.
    ``is_few``: neither they nor the sessions that said them are more than ``FEW``.
    """

    search: str
    hits: int
    select: str
    is_few: bool

    @property
    def is_truncated(self) -> bool:
        """Whether only the newest of its hits are looked at."""
        return self.hits > MAX_HITS


async def look_up(db: Readable, project_id: int, term: str) -> Match:
    """Make the search that has all hits of a project, and count them.

    Where to name the project costs much, it has those of other projects as well, unless they could
    crowd out the project's own.
    """
    full_text, term, parts = db.full_text, clean_text(term), await parts_of(db)
    search = full_text.search(project_id if full_text.names_project else None, term)
    hits = await _count(db, parts, search, MAX_HITS + 1)
    if hits > MAX_HITS and not full_text.names_project:
        search = full_text.search(project_id, term)
        hits = await _count(db, parts, search, MAX_HITS + 1)
    select = _hits(full_text, parts, "{term}", str(MAX_HITS), full_text.newest)
    is_few = hits <= FEW and await _are_few(db, parts, search)
    return Match(search, hits, select, is_few)


async def _are_few(db: Readable, parts: Parts, search: str) -> bool:
    """Tell whether few sessions said what a search finds: one message may be everybody's."""
    return await _count(db, parts, search, FEW + 1, COUNT_SAID) <= FEW


async def count_texts(db: Readable, project_id: int) -> int:
    """Count the contents of a project that the index has."""
    return await _count(db, await parts_of(db), db.full_text.search(project_id, None), 2**62)


async def holds(db: Readable, parts: Parts, content_id: int, search: str) -> bool:
    """Tell whether a content is among what a search finds."""
    held = db.full_text.held.format(part=_part_of(parts, content_id))
    return await db.read(held, {"term": search, "id": content_id}) != [(0,)]


async def parts_of(db: Readable) -> Parts:
    """Give what the index consists of."""
    return await db.read(db.full_text.parts, {}) if db.full_text.parts else []


def _part_of(parts: Parts, content_id: int) -> str:
    """Give the name of the part that a content is in."""
    return next((name for first_id, name in parts if first_id <= content_id), "")


async def _count(db: Readable, parts: Parts, search: str, most: int, sql: str = COUNT) -> int:
    hits = _hits(db.full_text, parts, "term", ":most", "")
    ((count,),) = await db.read(sql.format(hits), {"term": search, "most": most})
    return int(count)


def _hits(full_text: FullText, parts: Parts, term: str, most: str, order: str) -> str:
    """Make the SELECT of up to so many hits of all parts, those of the newest first."""
    names = [name for _, name in parts] or [""]
    hits = (full_text.hits.format(part=one, term=term, most=most, order=order) for one in names)
    return united([*hits], f"LIMIT {most}")


def united(selects: Sequence[str], bound: str = "") -> str:
    """Make one SELECT of contents from one or many, one behind the other.

    ``bound`` is the LIMIT of all of them, which each has by itself as well.
    """
    while len(selects) > 1:
        arms = [f"SELECT content_id FROM ({select}) AS one" for select in selects]
        groups = (arms[at : at + UNITED] for at in range(0, len(arms), UNITED))
        selects = [
            f"SELECT content_id FROM ({' UNION ALL '.join(group)}) AS united {bound}"
            for group in groups
        ]
    return selects[0]
