"""Giving back the space of what was deleted, a part at a time, in the writer's thread.

Owns when the next part may come, and which deletions it is of: it goes round by round, each of what
was deleted before it began. Invariants: a round ends, however much is deleted meanwhile, and what
somebody deletes is of one that begins later; of the calls that end meanwhile, fewer than one in a
hundred is held because of it.
"""

import logging
import time
from contextlib import suppress
from typing import Final

from storage.database import Database, DatabaseCorrupt, StorageError

# So long it is given back behind a deletion, before anything else, but for one that comes so soon
# after another; the rest when there is time, or when there was none for so long.
AT_ONCE_S: Final = 0.030
AT_ONCE_EACH_S: Final = 1.0
OVERDUE_S: Final = 1.0
# What a part of SQLite's full text has of a word is written in one go: 10 ms, but 0.1 s where it
# stands in a million messages, in what was there before there were parts. After so long, ends of
# calls wait for it; then there is a rest, so many times as long as they did.
LONG_S: Final = 0.025
RESTS: Final = 200
MOST_REST_S: Final = 30.0
# What a process before this one left waits until a start and the first calls are over; then for a
# pause of the calls, or until it is overdue, as all else does.
AFTER_START_S: Final = 5.0
# What failed is tried again after so long.
AGAIN_S: Final = 1.0

_log = logging.getLogger("traceway")


class Reclaim:
    """Gives back space; ``is_due`` while deletions have left more. For the writer's thread only."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # How many rounds are over, whether one is on, and whether the next takes words as well.
        self._ended = 0
        self._is_on = self._words = False
        self._damage: DatabaseCorrupt | None = None  # that the last one met
        self._due = 0  # the round of the last deletion for which nobody waits
        self._gave_at_s = self._rests_until_s = 0.0
        self._at_once_at_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether deletions, for which nobody waits, have left more."""
        return self._ended < self._due

    @property
    def is_overdue(self) -> bool:
        """Whether there is more, and nothing was given back for a while."""
        return self.is_due and time.monotonic() >= self._gave_at_s + OVERDUE_S

    def note(self) -> None:
        """Have what deletions left given back when there is time."""
        self._due = self.ask()

    def look(self) -> None:
        """Have given back what a process before this one deleted, where it may have left some.

        Not at once: the log of one that was killed takes long to empty, and the first calls come.
        """
        with suppress(StorageError):  # nobody waits for it, and whoever deletes meets that too
            if self._database.has_left:
                self.note()
                self._gave_at_s = self._rests_until_s = time.monotonic() + AFTER_START_S

    def begin(self) -> None:
        """Give back what a deletion left, for a moment. Raises StorageError."""
        self.note()
        if (now_s := time.monotonic()) < self._at_once_at_s:
            return
        self._at_once_at_s = now_s + AT_ONCE_EACH_S
        until_s = now_s + AT_ONCE_S
        while self.is_due and max(time.monotonic(), self._rests_until_s) < until_s:
            self._next()

    def go_on(self) -> None:
        """Give back a part of what deletions left, unless it is to rest. Raises StorageError."""
        if self.is_due and time.monotonic() >= self._rests_until_s:
            self._rests_until_s = time.monotonic() + AGAIN_S
            self._next()

    def _next(self) -> None:
        try:
            self.part(self._due)
        except DatabaseCorrupt as error:
            _log.warning("something that was deleted stays in the files: %s", error)

    def ask(self, *, words: bool = True) -> int:
        """Tell with which round all is given back that is deleted by now.

        `words`: those in full text as well, which leave it with one that has not begun.
        """
        self._words |= words
        return self._ended + (2 if words and self._is_on else 1)

    def part(self, until: int) -> tuple[bool, float]:
        """Give back a part, unless this round is over, whoever went on with it.

        Tell whether there is more of it, and how long there is to be a rest. Raises StorageError;
        DatabaseCorrupt where the round is over but for what is damaged.
        """
        rest = 0.0
        if self._ended < until:
            # A machine that is busy with something else does not make the part a larger one.
            began_s = time.thread_time()
            self._go_round()
            rest = rest_s(time.thread_time() - began_s)
            self._gave_at_s = time.monotonic()
            self._rests_until_s = self._gave_at_s + rest
        if self._ended < until:
            return True, rest
        if self._damage is not None:
            raise self._damage
        return False, rest

    def _go_round(self) -> None:
        """Give back a part of the round that is on, or the first of the next."""
        begin = self._words and not self._is_on
        damage: DatabaseCorrupt | None = None
        try:
            self._is_on = self._database.reclaim(begin=begin)
        except DatabaseCorrupt as error:  # no time heals that
            self._is_on, damage = False, error
        if begin:
            self._words = False
        if not self._is_on:
            self._ended += 1
            self._damage = damage


def rest_s(took_s: float) -> float:
    """Give how long nothing more is to be erased, or given back, behind what took so long."""
    return min(max(took_s - LONG_S, 0.0) * RESTS, MOST_REST_S)
