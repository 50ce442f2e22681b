"""The words of messages: an index of texts without the texts, and how a word is looked up in it.

Invariants: each content that mentions.py hands over is either in the index or in the table
``unindexed``, where it waits until the writer has nothing more urgent to do: the index costs as
much as all else that a call stores, and less in larger batches. A row goes by the same text that
it came with, or its words stay behind. What is damaged has no words, and keeps nobody waiting: the
doctor tells of it. What an index is and how it is asked is each database's:
fts5.py's and tsvector.py's.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from storage.contents import unpack
from storage.database import Database, DatabaseCorrupt, Params, Row, Transaction, Value
from storage.parameters import clean_text

# The newest messages that are looked at for one word: a quarter of a second of a reader's time.
MAX_HITS: Final = 50_000

# For so many bytes of messages a page of the index is merged. A text takes half of its bytes there,
# and is merged once in each level of sixteen segments: that is four for a gigabyte of texts. At
# least so many pages, for small texts, and at most so many, 20 ms, however large the messages are.
MERGED_BYTES: Final = 1024
LEAST_MERGED: Final = 8
MOST_MERGED: Final = 256

# The text by which a message is found, from its bytes; the same for the same bytes.
TextOf = Callable[[bytes], str]

AWAIT_INDEX: Final = "INSERT INTO unindexed (content_id) VALUES (:id)"
NEXT_SIZES: Final = """
SELECT u.content_id, c.size
FROM unindexed u JOIN contents c ON c.id = u.content_id ORDER BY u.content_id LIMIT :limit
"""
INDEX_NEXT: Final = """
SELECT c.id, c.project_id, c.encoding, c.size, c.data
FROM unindexed u JOIN contents c ON c.id = u.content_id
WHERE u.content_id <= :last ORDER BY u.content_id LIMIT :limit
"""
INDEXED: Final = "DELETE FROM unindexed WHERE content_id IN (:keys) RETURNING content_id"
READ_CONTENT: Final = "SELECT id, project_id, encoding, size, data FROM contents WHERE id = :id"


def await_index(tx: Transaction, content_ids: Iterable[int]) -> None:
    """Put contents that are not in the index among those that are to come into it."""
    tx.insert_rows(AWAIT_INDEX, [{"id": content_id} for content_id in content_ids])


def index(tx: Transaction, limit: int, text_of: TextOf, most_bytes: int | None = None) -> int:
    """Bring contents that wait into the index, the oldest first; return how many there were.

    Up to ``limit``, and so many that they have no more than ``most_bytes``, but at least one.
    """
    key: dict[str, Value] = {"limit": limit}
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
    # Last: FTS5 writes what it has gathered, as a segment that is to be merged later, before each
    # statement on other tables that can fail half way.
    tx.execute_many(tx.full_text.add, found)
    _merge(tx, sum(row[3] for row in waiting))
    return len(waiting)


def leave_index(tx: Transaction, content_ids: Sequence[int], text_of: TextOf) -> None:
    """Take contents out of the index, or from among those that wait.

    Raises DatabaseCorrupt for one that was damaged since it came in, where it goes by its words.
    """
    waited = {row[0] for row in tx.look_up(INDEXED, {}, content_ids)}
    left = [content_id for content_id in content_ids if content_id not in waited]
    left_bytes = sum(_leave(tx, content_id, text_of) for content_id in left)
    if left:
        _merge(tx, left_bytes)


def _leave(tx: Transaction, content_id: int, text_of: TextOf) -> int:
    """Take one content out of the index; give the bytes that it has, where it goes by them."""
    key: Params = {"id": content_id}
    size = 0
    if tx.full_text.removes_by_words:
        (row,) = tx.execute(READ_CONTENT, key)
        size = row[3]
        try:
            key = _row(tx, row, text_of)
        except DatabaseCorrupt:
            any_word = tx.full_text.search(row[1], None)
            if tx.execute(tx.full_text.held, {**key, "term": any_word}) == [(0,)]:
                return 0  # it was damaged before, and never came in
            raise
    tx.execute(tx.full_text.remove, key)
    return size


def _merge(tx: Transaction, changed_bytes: int) -> None:
    """Keep the index in order, as far as messages of so many bytes have put it out of it."""
    if tx.full_text.merge is not None:
        pages = min(max(changed_bytes // MERGED_BYTES, LEAST_MERGED), MOST_MERGED)
        tx.execute(tx.full_text.merge, {"pages": pages})


def _row(tx: Transaction, row: Row, text_of: TextOf) -> Params:
    content_id, project_id, encoding, size, data = row
    text = clean_text(text_of(unpack(encoding, size, data)))
    return {"id": content_id, **tx.full_text.words(project_id, text)}


@dataclass(frozen=True, slots=True)
class Match:
    """A search for a word, or for a phrase that stands in one message; case and accents aside.

    ``search`` is the database's text for it, ``hits`` is how many messages it finds, up to
    ``MAX_HITS`` and one, ``select`` the SQL that finds their contents by the parameter ``{term}``.
    """

    search: str
    hits: int
    select: str

    @property
    def is_truncated(self) -> bool:
        """Whether only the newest of its hits are looked at."""
        return self.hits > MAX_HITS


async def look_up(db: Database, project_id: int, term: str) -> Match:
    """Make the search that has all hits of a project, and count them.

    Where to name the project costs much, it has those of other projects as well, unless they could
    crowd out the project's own.
    """
    full_text, term = db.full_text, clean_text(term)
    search = full_text.search(project_id if full_text.names_project else None, term)
    ((hits,),) = await db.read(full_text.count, {"term": search, "most": MAX_HITS + 1})
    if hits > MAX_HITS and not full_text.names_project:
        search = full_text.search(project_id, term)
        ((hits,),) = await db.read(full_text.count, {"term": search, "most": MAX_HITS + 1})
    return Match(search, hits, full_text.hits.format(term="{term}", most=MAX_HITS))
