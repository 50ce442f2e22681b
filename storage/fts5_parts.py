"""The parts of SQLite's index of words: which messages are in which, and how one is filled.

FTS5 writes a word in one go, with all messages that have it, whenever it merges what has the word:
for a million messages that is 0.1 s in which nothing is saved. So the index is many tables, each of
a range of contents and, but for what was there before there were parts, bounded. Invariants: a
content is in the part whose range has its id, and nowhere else, from when it comes until it is
deleted, so that no search misses it; there is always a part with the first range and one that is
the newest; a table of a part is never dropped, since somebody may have begun to search it.
"""

# ruff: noqa: S608 (the SQL below is put together from constants of this file)

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from storage.database import Params, Transaction

# A part is full with so many bytes of texts, of which each has so many more. What stands in all of
# its messages takes up to 10 ms then, as they commonly are; and a search looks into 64 parts for
# each GiB of texts.
FULL_BYTES: Final = 16 * 1024 * 1024
MESSAGE_BYTES: Final = 64

# For so many bytes of texts a page of a part is merged. A text takes half of its bytes there, and
# is merged once in each level of sixteen segments: that is four at most. At least so many pages,
# for small texts, and at most so many, 20 ms, however large the messages are.
MERGED_BYTES: Final = 1024
LEAST_MERGED: Final = 8
MOST_MERGED: Final = 256

# What FTS5 is told by inserting into a table's column of its own name; {0} is that name.
# Merges up to so many pages, where there are sixteen segments of a level or more; a negative number
# takes all segments there are, whatever their level. A deleted word is gone when they are one.
# Source: sqlite.org/fts5.html, "The 'merge' Command".
MERGE: Final = "INSERT INTO {0} ({0}, rank) VALUES ('merge', :pages)"
# How many segments of a level a merge begins with.
USERMERGE: Final = "INSERT INTO {0} ({0}, rank) VALUES ('usermerge', :segments)"
OPTIMIZE: Final = "INSERT INTO {0} ({0}) VALUES ('optimize')"
EMPTY: Final = "INSERT INTO {0} ({0}) VALUES ('delete-all')"
ADD: Final = "INSERT INTO {0} (rowid, scope, text) VALUES (:id, :scope, :text)"
REMOVE: Final = """
INSERT INTO {0} ({0}, rowid, scope, text) VALUES ('delete', :id, :scope, :text)
"""
# As the migrations made the first: the index alone, without the texts; merged by us, never by FTS5
# itself unless it has 128 segments of a level, which no merge of ours leaves.
MAKE: Final = (
    """
CREATE VIRTUAL TABLE {0} USING fts5 (
  scope, text, content = '', tokenize = 'unicode61 remove_diacritics 2'
)
""",
    "INSERT INTO {0} ({0}, rank) VALUES ('automerge', 0)",
    "INSERT INTO {0} ({0}, rank) VALUES ('usermerge', 16)",
    "INSERT INTO {0} ({0}, rank) VALUES ('crisismerge', 128)",
)

PART: Final = """
SELECT number, first_id, bytes, (SELECT MIN(first_id) FROM text_parts WHERE first_id > p.first_id)
FROM text_parts p
"""
NEWEST: Final = f"{PART} WHERE first_id IS NOT NULL ORDER BY first_id DESC LIMIT 1"
PART_OF: Final = f"{PART} WHERE first_id <= :id ORDER BY first_id DESC LIMIT 1"
NUMBERED: Final = f"{PART} WHERE number = :number"
ADDED: Final = "UPDATE text_parts SET bytes = bytes + :bytes WHERE number = :number"
REMOVED: Final = """
UPDATE text_parts SET bytes = MAX(bytes - :bytes, 0), removed = removed + :texts
WHERE number = :number
"""
FREE: Final = "SELECT MIN(number) FROM text_parts WHERE first_id IS NULL"
ONE_MORE: Final = """
INSERT INTO text_parts (number, bytes, removed)
SELECT MAX(number) + 1, 0, 0 FROM text_parts RETURNING number
"""
OPEN: Final = "UPDATE text_parts SET first_id = :first_id WHERE number = :number"
CLEAR: Final = """
UPDATE text_parts SET first_id = NULL, bytes = 0, removed = 0 WHERE number = :number
"""
ALL: Final = "SELECT number FROM text_parts ORDER BY number"
TABLE: Final = "messages_fts_"
PARTS: Final = f"""
SELECT first_id, '{TABLE}' || number FROM text_parts
WHERE first_id IS NOT NULL ORDER BY first_id DESC
"""
# FTS5's own table of the texts that it has.
LAST: Final = "SELECT MAX(id) FROM {0}_docsize"


@dataclass(frozen=True, slots=True)
class Part:
    """A part that has a range: from ``first_id`` up to the next part's; None: it is the newest."""

    number: int
    first_id: int
    bytes: int
    next_id: int | None

    @property
    def table(self) -> str:
        """Its table of FTS5."""
        return table(self.number)


def table(number: int) -> str:
    """Give the name of a part's table."""
    return f"{TABLE}{number:d}"


def add(tx: Transaction, rows: Sequence[Params]) -> None:
    """Bring texts into the index: rows of ``id``, ``scope`` and ``text``."""
    if rows:
        _open_next(tx, max(map(_id, rows)))
        _change(tx, rows, ADDED, ADD)


def remove(tx: Transaction, rows: Sequence[Params]) -> None:
    """Take texts out of the index, by the rows that they came with."""
    _change(tx, rows, REMOVED, REMOVE)


def empty(tx: Transaction) -> None:
    """Take all out."""
    parts = [number for (number,) in tx.execute(ALL, {})]
    for number in parts:
        tx.execute(EMPTY.format(table(number)), {})
        tx.execute(CLEAR, {"number": number})
    tx.execute(OPEN, {"number": parts[0], "first_id": 0})


def part_of(tx: Transaction, content_id: int) -> Part:
    """Give the part whose range has a content."""
    return _part(tx, PART_OF, {"id": content_id})


def clear(tx: Transaction, number: int) -> None:
    """Take all words out of a part without texts; it is free, unless it is the newest.

    Up to 40 ms for a part that was full: to merge them away takes ten times as long.
    """
    part = _part(tx, NUMBERED, {"number": number})
    if _last(tx, part) is not None:
        return
    tx.execute(EMPTY.format(part.table), {})
    if part.next_id is None:
        return
    # Its range goes to a neighbour.
    tx.execute(CLEAR, {"number": number})
    if not part.first_id:
        tx.execute(OPEN, {"number": part_of(tx, part.next_id).number, "first_id": 0})


def _open_next(tx: Transaction, content_id: int) -> None:
    """Open a part for a content where the newest is full, and has none that is younger."""
    newest = _part(tx, NEWEST, {})
    if newest.bytes < FULL_BYTES:
        return
    last_id = _last(tx, newest)
    if last_id is None or content_id <= last_id:
        return
    ((number,),) = tx.execute(FREE, {})
    if number is None:
        ((number,),) = tx.execute(ONE_MORE, {})
        for statement in MAKE:
            tx.execute(statement.format(table(number)), {})
    tx.execute(OPEN, {"number": number, "first_id": last_id + 1})


def _change(tx: Transaction, rows: Sequence[Params], counted: str, statement: str) -> None:
    """Run a statement for rows in their parts, count them there, and keep these in order."""
    places = [(part, here, _bytes(here)) for part, here in _in_parts(tx, rows)]
    for part, here, size in places:
        weight = size + MESSAGE_BYTES * len(here)
        tx.execute(counted, {"number": part.number, "bytes": weight, "texts": len(here)})
    # Last: FTS5 writes what it has gathered, as a segment that is to be merged later, before each
    # statement on other tables that can fail half way.
    for part, here, _ in places:
        tx.execute_many(statement.format(part.table), here)
    for part, _, size in places:
        pages = min(max(size // MERGED_BYTES, LEAST_MERGED), MOST_MERGED)
        tx.execute(MERGE.format(part.table), {"pages": pages})


def _in_parts(tx: Transaction, rows: Sequence[Params]) -> Iterator[tuple[Part, list[Params]]]:
    """Tell which of these rows are of which part, the oldest first."""
    left = sorted(rows, key=_id)
    while left:
        part = part_of(tx, _id(left[0]))
        here = [row for row in left if part.next_id is None or _id(row) < part.next_id]
        yield part, here
        left = left[len(here) :]


def _part(tx: Transaction, sql: str, params: Params) -> Part:
    (row,) = tx.execute(sql, params)
    return Part(*row)


def _last(tx: Transaction, part: Part) -> int | None:
    """Give the youngest content of a part; None where it has none."""
    ((last_id,),) = tx.execute(LAST.format(part.table), {})
    return None if last_id is None else int(last_id)


def _id(row: Params) -> Any:
    return row["id"]


def _bytes(rows: Sequence[Params]) -> int:
    return sum(len(str(row["text"]).encode()) for row in rows)
