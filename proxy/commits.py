"""Runs work in transactions: again and again while the database cannot take it.

Owns when a failure may pass and when it is final, how long the tries go on, since when the database
takes nothing, and whether another server writes to it just now. Invariants: work that is refused is
not tried again; what somebody withdrew does not happen, and what is being committed cannot be
withdrawn. It lives in the writer's thread; `close_by` is called from the event loop.
"""

import math
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from proxy.backlog import Item, Withdrawn
from proxy.outcomes import Outcome
from storage.database import (
    CommitUnknown,
    Database,
    DatabaseCorrupt,
    TookTooLong,
    Transaction,
    is_refusal,
)

# A failing commit is tried again after this long, doubling up to the second figure.
RETRY_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
# At the end of the process, failing commits are tried for this long, all together.
LAST_TRY_S: Final = 5.0
# Other work than records that the database ends so often, as it takes too long, is refused.
TOO_LONG_ENDS: Final = 3
# What failed last, with nothing behind it, is found to have passed at the earliest so much later.
LOOK_AGAIN_S: Final = 0.5
# Behind a wait for another server projects are written apart for so long.
APART_S: Final = 5.0


class Commits:
    """The tries of one writer, which sleeps between them on ``wake``.

    ``failed`` is told of each failure, and whether it is final, in the thread. ``error`` is the
    last, None since a success; ``away_since_us`` is since when the database takes nothing.
    """

    def __init__(
        self,
        database: Database,
        wake: threading.Condition,
        failed: Callable[[Exception, bool], None],
    ) -> None:
        self.error: str | None = None
        self.away_since_us: int | None = None
        # In the thread; they never raise.
        self.after_commit: Callable[[], None] = lambda: None
        self.after_seconds: Callable[[float], None] = lambda _: None
        self._database = database
        self._wake = wake
        self._failed = failed
        self._last_try_at_s: float | None = None
        self._given_up = False
        self._waited_at_s = self._failed_at_s = -math.inf

    @property
    def are_apart(self) -> bool:
        """Whether projects are to be written apart, as another server was waited for a moment ago.

        Else all of a batch wait with the project that is written elsewhere, and whoever writes to
        these waits as well.
        """
        return time.monotonic() - self._waited_at_s < APART_S

    def close_by(self) -> None:
        """Give up what cannot be committed from now on in time. Under the lock of ``wake``."""
        self._last_try_at_s = time.monotonic() + LAST_TRY_S

    def run(
        self,
        work: Callable[[Transaction], object],
        projects: Collection[int] | None,
        item: Item | None = None,
        *,
        once: bool = False,
    ) -> tuple[Outcome, Exception | None]:
        """Run work in a transaction of these projects, until it is committed, refused or given up.

        Work of an `item` that is withdrawn is given up; what is to be tried but `once`, after its
        first failure.
        """
        pause_s = RETRY_S
        too_long = 0
        while not (self._given_up or (item and item.withdrawn)):
            try:
                began_s = time.monotonic()
                with self._database.transaction(projects) as transaction:
                    work(transaction)
                    if item is not None:
                        self._seal(item)
            except Withdrawn:
                break
            except Exception as error:
                if item is not None:
                    item.sealed = False
                    item.is_unsure |= isinstance(error, CommitUnknown)
                self.error = str(error) or repr(error)
                self._failed_at_s = time.monotonic()
                too_long += item is not None and isinstance(error, TookTooLong)
                # A record waits until its file is whole again. Other work may have met the one
                # message that is damaged, and all records would wait behind it.
                is_damage = item is not None and isinstance(error, DatabaseCorrupt)
                is_final = is_damage or is_refusal(error) or too_long == TOO_LONG_ENDS
                self._failed(error, is_final)
                if is_final:
                    return "refused", error
                if once:
                    return "given up", error
                self.away_since_us = self.away_since_us or time.time_ns() // 1000
                self._pause(pause_s, item)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                self.error = self.away_since_us = None
                self.after_seconds(time.monotonic() - began_s)
                self.after_commit()
                return "saved", None
            finally:
                if self._database.has_waited:
                    self._waited_at_s = time.monotonic()
        return "given up", None

    def look_again(self, probe: Callable[[Transaction], object]) -> None:
        """Find out whether commits still fail, where nothing is to be committed that would tell."""
        if self.error is not None and time.monotonic() - self._failed_at_s >= LOOK_AGAIN_S:
            self.run(probe, (), once=True)

    def _seal(self, item: Item) -> None:
        """Have an item happen, unless it was withdrawn: there is no way back from here."""
        with self._wake:
            if item.withdrawn:
                raise Withdrawn
            item.sealed = True

    def _pause(self, pause_s: float, item: Item | None) -> None:
        with self._wake:
            end_s = self._last_try_at_s
            self._given_up = end_s is not None and time.monotonic() >= end_s
            if not self._given_up:
                self._wake.wait_for(
                    lambda: self._last_try_at_s != end_s or (item and item.withdrawn),
                    timeout=pause_s if end_s is None else RETRY_S,
                )
