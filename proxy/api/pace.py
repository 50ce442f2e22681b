"""How much is erased at a time, and how long the pauses are: so that no call waits for it.

Invariant: the writer erases for a fifth of its time at most, some milliseconds at a time, and less
while records wait for it; what is to go is looked for in a fifth of the time, too. What is erased
is not decided here.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar

from proxy.reclaim import rest_s
from proxy.recorder import Recorder
from storage.database import DatabaseCorrupt, Transaction

T = TypeVar("T")

# A step takes less than this of the writer, or the next one has half as many calls.
STEP_S: Final = 0.005
FIRST_SPANS: Final = 8
MOST_SPANS: Final = 50
# A pause is so many times as long as the step before it, or the look, and at least so long.
PAUSE_STEPS: Final = 4
PAUSE_S: Final = 0.005
# Behind a look that took long by itself it is not for ever.
MOST_PAUSE_S: Final = 1.0
# What is given back is written once more with the WAL's next checkpoint, of 35 to 55 ms: so that
# these take less than a hundredth of the time, the pause behind a part is longer.
PAUSE_PARTS: Final = 16
# While more than so much waits to be saved, the pause goes on; but not for ever.
QUEUED_BYTES: Final = 64 * 1024
BUSY_PAUSE_S: Final = 0.050
MOST_BUSY_PAUSES: Final = 20


class Stopped(Exception):
    """It is not for this process to go on: another erases now, or nobody."""


class Unreadable(Exception):
    """What is to be erased holds something that cannot be read: the step is undone."""


class Pace:
    """Runs steps of the one writer, with pauses. ``spans`` is how many calls a step is to have.

    It goes on only while it `leads`: of several processes on one database, one does.
    """

    def __init__(self, recorder: Recorder, leads: Callable[[], bool] = lambda: True) -> None:
        self.leads = leads
        self.spans = FIRST_SPANS
        self._recorder = recorder

    async def step(
        self, work: Callable[[Transaction], T], projects: Collection[int], *, adapt: bool = True
    ) -> T:
        """Do a piece of work, then pause; `adapt`: its calls are `spans`, and tell what they take.

        Raises:
            Stopped: it does not lead.
            Unreadable: something is damaged.
            StorageError: it cannot be done now.
        """
        self._check()
        took_s = worked_s = 0.0

        def timed(tx: Transaction) -> T:
            nonlocal took_s, worked_s
            # A machine that is busy with something else does not make the step a larger one.
            began_s, began_working_s = time.perf_counter(), time.thread_time()
            try:
                result = work(tx)
            except DatabaseCorrupt as error:  # waiting heals it no more than a bug of ours
                raise Unreadable(str(error)) from error
            took_s = time.perf_counter() - began_s
            worked_s = time.thread_time() - began_working_s
            return result

        result = await self._recorder.write(timed, projects)
        if adapt:
            self._adapt(worked_s)
        await self._pause(max(took_s * PAUSE_STEPS, rest_s(worked_s)))
        return result

    async def look(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read a part of what may have to go, then pause: what reads keeps calls waiting as well.

        Raises StorageError: it cannot be read now.
        """
        began_s = time.perf_counter()
        found = await read()
        took_s = time.perf_counter() - began_s
        await self._pause(min(took_s * PAUSE_STEPS, MOST_PAUSE_S))
        return found

    async def _pause(self, least_s: float) -> None:
        """Leave the writer to the calls for so long, or longer where they need it."""
        await asyncio.sleep(max(least_s, PAUSE_S))
        for _ in range(MOST_BUSY_PAUSES):
            if self._recorder.queued_bytes <= QUEUED_BYTES:
                return
            await asyncio.sleep(BUSY_PAUSE_S)

    async def give_back(self, *, words: bool = True) -> None:
        """Give back the space of what is deleted by now, step by step; `words`: in full text, too.

        What others delete meanwhile does not keep it from its end.

        Raises:
            Stopped: it does not lead.
            StorageError: it cannot be done now.
        """
        self._check()
        more, until = True, await self._recorder.to_reclaim(words=words)
        while more:
            self._check()
            began_s = time.perf_counter()
            more, rest = await self._recorder.reclaim(until)
            took_s = time.perf_counter() - began_s
            await self._pause(max(more * rest, min(took_s, STEP_S) * PAUSE_PARTS))

    def _check(self) -> None:
        if not self.leads():
            raise Stopped

    def _adapt(self, worked_s: float) -> None:
        if worked_s > STEP_S:
            self.spans = max(1, self.spans // 2)
        elif worked_s < STEP_S / 2:
            self.spans = min(MOST_SPANS, self.spans + 1)
