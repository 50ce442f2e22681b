"""Taking deleted words out of SQLite's index, part by part, and what becomes of parts then.

Invariant: a part is cleaned when all that was deleted before it was asked for has left it; the
number of what is still to leave goes with the rows, so whoever asks after a restart has it done.
"""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from storage.database import Transaction
from storage.fts5_merge import WholeMerge
from storage.fts5_parts import leave, table

TO_CLEAN: Final = """
SELECT number, removed FROM text_parts
WHERE first_id IS NOT NULL AND removed > 0 ORDER BY first_id
"""
CLEANED: Final = "UPDATE text_parts SET removed = removed - :removed WHERE number = :number"


class CleanUp:
    """A clean-up of all parts that have deleted words, a bounded step at a time."""

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

    @property
    def is_due(self) -> bool:
        """Whether there is more to do."""
        return self._asked or bool(self._parts)

    def begin(self) -> None:
        """Have all words leave that are deleted by now."""
        self._asked = True

    def step(self) -> None:
        """Merge a bounded part. Raises what sqlite3 does, or a StorageError."""
        if self._merge is None and self._asked:
            self._parts = dict(self._writer.execute(TO_CLEAN).fetchall())
            self._asked = False
        if not self._parts:
            return
        number = next(iter(self._parts))
        if self._merge is None:
            self._merge = WholeMerge(self._writer, table(number))
            self._merge.begin()
        self._merge.step()
        if not self._merge.is_due:
            with self._transaction() as tx:
                tx.execute(CLEANED, {"number": number, "removed": self._parts[number]})
                leave(tx, number)
            self._merge = None
            del self._parts[number]
