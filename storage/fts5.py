"""SQLite's full text: FTS5 with its tokenizer unicode61; its terms are quoted here, nowhere else.

The word of a project is in a column of its own in all its messages, and takes longer to look up
than all others. A row goes by the words that it came with. The index is in parts: fts5_parts.py's.
"""

from storage.database import FullText, Params
from storage.fts5_parts import PARTS, add, empty, remove


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
    words=_words,
    add=add,
    remove=remove,
    empty=empty,
    parts=PARTS,
    search=search,
    hits="SELECT rowid AS content_id FROM {part} WHERE {part} MATCH :{term} {order} LIMIT {most}",
    newest="ORDER BY rowid DESC",
    held="SELECT COUNT(*) FROM {part} WHERE {part} MATCH :term AND rowid = :id",
    removes_by_words=True,
    names_project=False,
)
