"""Taking deleted words out of SQLite's index, one part of it after the other.

Owns what is cleaned when. Invariants: it is over when all that was deleted before it was asked for
has left its parts; what is still to leave is counted with the rows, so whoever asks after a restart
has it done. A part that is damaged keeps neither another from it nor space from being given back.
"""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from storage.database import DatabaseCorrupt, Transaction
from storage.fts5_merge import WholeMerge
from storage.fts5_parts import clear, table

TO_CLEAN: Final = """
SELECT number, removed FROM text_parts
WHERE first_id IS NOT NULL AND removed > 0 ORDER BY first_id
"""
# FTS5's own table of the texts that it has.
LEFT: Final = "SELECT COUNT(*) FROM {0}_docsize"
CLEANED: Final = "UPDATE text_parts SET removed = removed - :removed WHERE number = :number"


class CleanUp:
    """A clean-up of all parts that have deleted words, a bounded step at a time.

    Both the connection and its ``transaction`` are the writer's.
    """

    def __init__(
        self,
        writer: sqlite3.Connection,
        transaction: Callable[[], AbstractContextManager[Transaction]],
    ) -> None:
        self._writer = writer
        self._transaction = transaction
        self._asked = False
        # What is to be cleaned, and how many messages had been removed from it.
        self._parts: dict[int, int] = {}
        self._merge: WholeMerge | None = None
        self._damage: Exception | None = None

    @property
    def is_due(self) -> bool:
        """Whether there is more to do."""
        return self._asked or bool(self._parts)

    @property
    def has_left(self) -> bool:
        """Whether a part has deleted words."""
        return self._writer.execute(TO_CLEAN).fetchone() is not None

    def begin(self) -> None:
        """Have all words leave that are deleted by now: behind those that are about to, if any."""
        self._asked = True

    def step(self) -> None:
        """Do a bounded step; a damaged part is passed over.

        Raises what sqlite3 does, or a StorageError.
        """
        if self._asked and not self._parts:
            self._parts = dict(self._writer.execute(TO_CLEAN).fetchall())
            self._asked = False
        if self._parts:
            number = next(iter(self._parts))
            try:
                self._clean(number)
            except (DatabaseCorrupt, sqlite3.DatabaseError) as error:
                if not _is_damage(error):
                    raise
                self._damage = error
                self._next(number)

    def complain(self) -> None:
        """Raise what a part raised that was passed over, once."""
        damage, self._damage = self._damage, None
        if damage is not None:
            raise damage

    def _clean(self, number: int) -> None:
        removed = self._parts[number]
        if self._merge is None:
            ((left,),) = self._writer.execute(LEFT.format(table(number))).fetchall()
            if left:
                self._merge = WholeMerge(self._writer, table(number), left / (left + removed))
        if self._merge is not None:
            self._merge.step()
            if self._merge.is_due:
                return
        with self._transaction() as tx:
            tx.execute(CLEANED, {"number": number, "removed": removed})
            clear(tx, number)
        self._next(number)

    def _next(self, number: int) -> None:
        self._merge = None
        del self._parts[number]


def _is_damage(error: Exception) -> bool:
    # Of sqlite3, DatabaseError itself is that of a damaged file; those of a full disk and of a lock
    # are made from it.
    return isinstance(error, DatabaseCorrupt) or type(error) is sqlite3.DatabaseError
