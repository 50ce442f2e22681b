"""The words of messages: an index of texts without the texts, and how a word is looked up in it.

Invariants: each content that mentions.py hands over is either in the index or in the table
``unindexed``, where it waits until the writer has nothing more urgent to do: the index costs as
much as all else that a call stores, and less in larger batches. A row goes by the same text that
it came with, or its words stay behind. SQLite's FTS5; its terms are quoted here and nowhere else.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from storage.contents import unpack
from storage.database import Database, Params, Row, Transaction, Value
from storage.parameters import clean_text

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# The newest messages that are looked at for one word: a quarter of a second of a reader's time.
MAX_HITS: Final = 50_000

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
INDEXED: Final = "DELETE FROM unindexed WHERE content_id = :id RETURNING content_id"
READ_CONTENT: Final = "SELECT id, project_id, encoding, size, data FROM contents WHERE id = :id"
ADD_TEXT: Final = "INSERT INTO messages_fts (rowid, scope, text) VALUES (:id, :scope, :text)"
REMOVE_TEXT: Final = """
INSERT INTO messages_fts (messages_fts, rowid, scope, text) VALUES ('delete', :id, :scope, :text)
"""


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
    found = [_row(row, text_of) for row in tx.execute(INDEX_NEXT, key)]
    for row in found:
        tx.execute(INDEXED, row)
    # Last: FTS5 writes what it has gathered, as a segment that is to be merged later, before each
    # statement on other tables that can fail half way.
    tx.execute_many(ADD_TEXT, found)
    return len(found)


def leave_index(tx: Transaction, content_id: int, text_of: TextOf) -> None:
    """Take a content out of the index, or from among those that wait."""
    if tx.execute(INDEXED, {"id": content_id}):
        return
    (row,) = tx.execute(READ_CONTENT, {"id": content_id})
    tx.execute(REMOVE_TEXT, _row(row, text_of))


def _row(row: Row, text_of: TextOf) -> Params:
    content_id, project_id, encoding, size, data = row
    text = clean_text(text_of(unpack(encoding, size, data)))
    return {"id": content_id, "scope": scope(project_id), "text": text}


def scope(project_id: int) -> str:
    """Give the word that stands for a project in the index."""
    return f"p{project_id}"


def quoted(term: str) -> str:
    """Quote a word or a phrase for FTS5, in which it then means nothing but itself.

    Source: sqlite.org/fts5.html, "FTS5 Strings".
    """
    return '"' + term.replace('"', '""') + '"'


# Newest first, so that the limit leaves out the oldest.
HITS: Final = f"""
SELECT rowid FROM messages_fts WHERE messages_fts MATCH :{{term}}
ORDER BY rowid DESC LIMIT {MAX_HITS}
"""
COUNT_HITS: Final = f"""
SELECT COUNT(*) FROM (
  SELECT rowid FROM messages_fts WHERE messages_fts MATCH :term LIMIT {MAX_HITS + 1})
"""


@dataclass(frozen=True, slots=True)
class Match:
    """A search for a word, or for a phrase that stands in one message; case and accents aside.

    ``search`` is FTS5's text, ``hits`` is how many messages it finds, up to ``MAX_HITS`` and one.
    """

    search: str
    hits: int

    @property
    def is_truncated(self) -> bool:
        """Whether only the newest of its hits are looked at."""
        return self.hits > MAX_HITS


async def look_up(db: Database, project_id: int, term: str) -> Match:
    """Make the search that has all hits of a project, and count them.

    It has those of other projects as well, unless they could crowd out the project's own: the word
    of a project is in all its messages, and takes longer to look up than all others.
    """
    search = f"text : {quoted(clean_text(term))}"
    ((hits,),) = await db.read(COUNT_HITS, {"term": search})
    if hits > MAX_HITS:
        search = f"scope : {quoted(scope(project_id))} AND {search}"
        ((hits,),) = await db.read(COUNT_HITS, {"term": search})
    return Match(search, hits)
