"""Changing who may come in: written first, then known to the keyring, then said.

Invariant: when a change is answered, the next request already meets it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from proxy.keyring import Keyring
from proxy.recorder import Recorder
from proxy.tasks import spawn
from storage import api_keys
from storage.database import Transaction
from storage.grants import ApiKey, Grants

T = TypeVar("T")


class Granting:
    """Writes projects, keys and sign-ins: one after the other, as the recorder's thread does.

    ``changed`` is told of each change, for those who share the database.
    """

    def __init__(self, keyring: Keyring, recorder: Recorder) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.keyring = keyring
        self._recorder = recorder

    async def change(self, work: Callable[[Transaction, int], T]) -> T:
        """Run a function of storage.api_keys, of a transaction and the time in microseconds.

        Raises:
            StorageError: the database does not take it in time; then it never happens.
        """

        def both(tx: Transaction) -> tuple[T, Grants]:
            api_keys.begin_change(tx)
            result = work(tx, time.time_ns() // 1000)
            return result, api_keys.grants(tx)

        # To its end, also when who asked for it leaves: what is written must be known here.
        return await asyncio.shield(spawn(self._apply(both), "change of keys"))

    async def _apply(self, both: Callable[[Transaction], tuple[T, Grants]]) -> T:
        # Those that are made at once are answered in the order in which they were committed.
        result, grants = await self._recorder.change(both, ())
        self.keyring.hold(grants)
        self.changed()
        return result

    def note_use(self, key: ApiKey, now_us: int) -> None:
        """Write down that a key was used, soon or never, without waiting for it."""
        noted = self._recorder.change(lambda tx: api_keys.note_use(tx, key.id, now_us), ())
        noted.add_done_callback(lambda done: done.cancelled() or done.exception())
