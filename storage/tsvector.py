"""PostgreSQL's full text: a column of words with their places, under a GIN index.

Words are cut here, as SQLite's tokenizer unicode61 cuts them with remove_diacritics 2: runs of
letters and digits in lower case, Latin letters without their accents. PostgreSQL's own parser takes
hosts, paths and numbers for words of their own and keeps accents. Invariant: what is stored and
what is looked up are cut alike. A row goes by its id alone.
"""

# ruff: noqa: S608 (the SQL below is put together from constants of this file, never from values)

import unicodedata
from typing import Final

from storage.database import FullText, Params

# Of PostgreSQL: a word has less than 2 KiB and places up to 16,383, 255 of them at most; all words
# and their places have less than 1 MiB. What is beyond is found by nothing, or by no phrase.
MAX_WORD_BYTES: Final = 1_000
MAX_PLACE: Final = 16_383
MAX_PLACES: Final = 255
MAX_BYTES: Final = 800_000
# What each word costs beside its bytes, and each place.
WORD_BYTES: Final = 8
PLACE_BYTES: Final = 2

# SQLite takes combining marks from here to here for a part of the word, and drops them.
_MARKS: Final = range(0x300, 0x332)


class _Cut(dict[int, str]):
    """What becomes of a character: what a word has for it, or the space that ends a word."""

    def __missing__(self, code: int) -> str:
        found = self[code] = _cut(chr(code))
        return found


def _cut(character: str) -> str:
    if ord(character) in _MARKS:
        return ""
    if unicodedata.category(character)[0] not in "LN" and unicodedata.category(character) != "Co":
        return " "
    lower = character.casefold()
    if len(lower) > 1:
        lower = character.lower()[0]
    base = unicodedata.normalize("NFD", lower)[0]
    return base if base.isascii() else lower


_CUT: Final = _Cut()


def words_of(text: str) -> list[str]:
    """Cut a text into its words."""
    return text.translate(_CUT).split(" ")


def _words(project_id: int, text: str) -> Params:
    """Make the literal of a text's words with their places, as `'word':1,5 'other':2`."""
    places: dict[str, list[int]] = {}
    size, place = 0, 0
    for word in words_of(text):
        if not word:
            continue
        place += 1
        known = places.get(word)
        if known is None:
            if size > MAX_BYTES:
                continue
            known = places[word] = []
            size += WORD_BYTES + len(word.encode())
        if place <= MAX_PLACE and len(known) < MAX_PLACES and size <= MAX_BYTES:
            known.append(place)
            size += PLACE_BYTES
    parts = [_scope(project_id)]
    for word, those in places.items():
        at = ":" + ",".join(map(str, those)) if those else ""
        parts.append(f"'{_bounded(word)}'{at}")
    return {"words": " ".join(parts)}


def _bounded(word: str) -> str:
    if len(word) * 4 <= MAX_WORD_BYTES:
        return word
    return word.encode()[:MAX_WORD_BYTES].decode("utf-8", "ignore")


def _scope(project_id: int) -> str:
    """Give the word that stands for a project: no text has it, as there is a space in it."""
    return f"'p {project_id}'"


def search(project_id: int | None, term: str | None) -> str:
    """Make the text that finds a word or a phrase, in one project or all."""
    parts = [] if project_id is None else [_scope(project_id)]
    if term is not None:
        words = [f"'{_bounded(word)}'" for word in words_of(term) if word]
        if not words:
            return ""  # which finds nothing
        parts.append(" <-> ".join(words))
    return " & ".join(parts)


_ADD: Final = """
INSERT INTO messages_fts (content_id, words)
VALUES (:id, CAST(CAST(:words AS TEXT) AS tsvector))
"""
_REMOVE: Final = "DELETE FROM messages_fts WHERE content_id = :id"
_EMPTY: Final = "DELETE FROM messages_fts"
_FINDS: Final = "words @@ CAST(CAST(:{} AS TEXT) AS tsquery)"

TSVECTOR = FullText(
    words=_words,
    add=lambda tx, rows: tx.execute_many(_ADD, rows),
    remove=lambda tx, rows: tx.execute_many(_REMOVE, rows),
    empty=lambda tx: tx.execute_many(_EMPTY, [{}]),
    parts=None,
    search=search,
    hits=f"""
SELECT content_id FROM messages_fts WHERE {_FINDS.format("{term}")} {{order}} LIMIT {{most}}
""",
    newest="ORDER BY content_id DESC",
    held=f"SELECT COUNT(*) FROM messages_fts WHERE {_FINDS.format('term')} AND content_id = :id",
    removes_by_words=False,
    names_project=True,
)
