"""SQLite's full text: FTS5 with its tokenizer unicode61; its terms are quoted here, nowhere else.

The word of a project is in a column of its own in all its messages, and takes longer to look up
than all others. A row goes by the words that it came with.
"""

from typing import Final

from storage.database import FullText, Params

# Merges up to so many pages, where there are sixteen segments of a level or more; a negative number
# takes all segments there are, whatever their level. A deleted word is gone when they are one.
# Source: sqlite.org/fts5.html, "The 'merge' Command".
MERGE: Final = "INSERT INTO messages_fts (messages_fts, rank) VALUES ('merge', :pages)"
# How many segments of a level a merge begins with, as the migrations say it once for all.
USERMERGE: Final = "INSERT INTO messages_fts (messages_fts, rank) VALUES ('usermerge', :segments)"
OPTIMIZE: Final = "INSERT INTO messages_fts (messages_fts) VALUES ('optimize')"


def _words(project_id: int, text: str) -> Params:
    return {"scope": _scope(project_id), "text": text}


def _scope(project_id: int) -> str:
    return f"p{project_id}"


def search(project_id: int | None, term: str | None) -> str:
    """Make the text that finds a word or a phrase, in one project or all."""
    scope = None if project_id is None else f"scope : {quoted(_scope(project_id))}"
    text = None if term is None else f"text : {quoted(term)}"
    return " AND ".join(part for part in (scope, text) if part is not None)


def quoted(term: str) -> str:
    """Quote a word or a phrase for FTS5, in which it then means nothing but itself.

    Source: sqlite.org/fts5.html, "FTS5 Strings".
    """
    return '"' + term.replace('"', '""') + '"'


FTS5 = FullText(
    add="INSERT INTO messages_fts (rowid, scope, text) VALUES (:id, :scope, :text)",
    remove="""
INSERT INTO messages_fts (messages_fts, rowid, scope, text) VALUES ('delete', :id, :scope, :text)
""",
    empty="INSERT INTO messages_fts (messages_fts) VALUES ('delete-all')",
    hits="""
SELECT rowid AS content_id FROM messages_fts WHERE messages_fts MATCH :{term}
ORDER BY rowid DESC LIMIT {most}
""",
    count="""
SELECT COUNT(*) FROM (
  SELECT rowid FROM messages_fts WHERE messages_fts MATCH :term LIMIT :most) AS found
""",
    held="SELECT COUNT(*) FROM messages_fts WHERE messages_fts MATCH :term AND rowid = :id",
    merge=MERGE,
    words=_words,
    search=search,
    removes_by_words=True,
    names_project=False,
)
