"""The words of messages: an index of texts without the texts, and the sessions that have a word.

Invariant: a row goes by the same text that it came with, or its words stay behind. Which contents
have a row is mentions.py's business. SQLite's FTS5; its terms are quoted here and nowhere else.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from storage.database import Database, Params, Transaction
from storage.parameters import clean_text
from storage.queries import After, Condition, list_sessions
from storage.records import Page, Session

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# The newest messages that are looked at for one word: a quarter of a second of a reader's time.
MAX_HITS: Final = 50_000
# Terms of one search; Google takes 32 words.
MAX_TERMS: Final = 32

ADD_TEXT: Final = "INSERT INTO messages_fts (rowid, scope, text) VALUES (:id, :scope, :text)"
REMOVE_TEXT: Final = """
INSERT INTO messages_fts (messages_fts, rowid, scope, text) VALUES ('delete', :id, :scope, :text)
"""


def add_texts(tx: Transaction, texts: Iterable[tuple[int, int, str]]) -> None:
    """Index contents by their texts; of each its project, its id and its text.

    At the end of a transaction: FTS5 writes what it has gathered, as a segment that is to be merged
    later, before each statement on other tables that can fail half way.
    """
    tx.execute_many(ADD_TEXT, [_row(*text) for text in texts])


def remove_text(tx: Transaction, project_id: int, content_id: int, text: str) -> None:
    """Take a content out of the index; ``text`` is the one that it came with."""
    tx.execute(REMOVE_TEXT, _row(project_id, content_id, text))


def _row(project_id: int, content_id: int, text: str) -> Params:
    return {"id": content_id, "scope": scope(project_id), "text": clean_text(text)}


def scope(project_id: int) -> str:
    """Give the word that stands for a project in the index."""
    return f"p{project_id}"


def quoted(term: str) -> str:
    """Quote a word or a phrase for FTS5, in which it then means nothing but itself.

    Source: sqlite.org/fts5.html, "FTS5 Strings".
    """
    return '"' + term.replace('"', '""') + '"'


HITS: Final = "SELECT rowid FROM messages_fts WHERE messages_fts MATCH :{term}"
# Newest first, so that the limit leaves out the oldest.
WITH_TERM: Final = f"""
AND session_key IN (SELECT session_key FROM mentions WHERE content_id IN
  ({HITS} ORDER BY rowid DESC LIMIT {MAX_HITS}))
"""
COUNT_HITS: Final = f"SELECT COUNT(*) FROM ({HITS} LIMIT {MAX_HITS + 1})"


async def sessions_with(
    db: Database, project_id: int, terms: Sequence[str], limit: int, after: After | None = None
) -> Page[Session]:
    """List the sessions in which each term occurs in some message, the newest active first.

    A term is a word, or a phrase that stands in one message. Case and accents do not count, and
    terms of neither letters nor digits are passed over; without any other, no session is found.
    """
    matches = {
        f"term_{n}": f"scope : {quoted(scope(project_id))} AND text : {quoted(clean_text(term))}"
        for n, term in enumerate(term for term in terms if any(map(str.isalnum, term)))
    }
    if not matches:
        return Page((), None)
    if len(matches) > MAX_TERMS:
        raise ValueError(f"more than {MAX_TERMS} terms")
    truncated = False
    for name, match in matches.items():
        ((hits,),) = await db.read(COUNT_HITS.format(term=name), {name: match})
        truncated |= hits > MAX_HITS
    sql = "".join(WITH_TERM.format(term=name) for name in matches)
    page = await list_sessions(db, project_id, limit, after, Condition(sql, matches))
    return Page(page.rows, page.next_after, truncated)
