"""The background work that erases: orders, then what is too old, between the calls.

Owns that there is one of it, that it goes on after a restart, and that orders take turns.
Invariants: it never stands in the way of a call; what was erased and that it was is of one
transaction; an order that fails ends, and holds up nothing else. Where several processes share a
database, only one does it (pace.py). What is erased is storage's.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from proxy.api.pace import Pace, Stopped, Unreadable
from proxy.api.retention import Retention
from proxy.providers.messages import text_of
from proxy.recorder import INDEX_BATCH, INDEX_BYTES, Recorder
from storage import erasures, fulltext
from storage.collecting import collect, is_by_words
from storage.database import Database, DatabaseCorrupt, StorageError, Transaction, is_refusal
from storage.erasures import Erasure

# It looks so often for orders that another process took, and for what became too old.
LOOK_S: Final = 5.0
# An order works for so long, or for one step, before it is another's turn.
SLICE_S: Final = 1.0
# What could not go on for so many times one after the other is told of: an order, or all of it.
TELLS_WAITS: Final = 3

_log = logging.getLogger("traceway")


class Eraser:
    """Carries out orders to erase, and the retention, at its ``pace``."""

    def __init__(
        self,
        database: Database,
        recorder: Recorder,
        retention: Retention,
        pace: Pace,
    ) -> None:
        self.retention = retention
        self._database = database
        self._recorder = recorder
        self.pace = pace
        self._asked = asyncio.Event()
        self._failed: str | None = None
        # By order: the youngest content that full text is to have first; and how many times one
        # after the other it could not go on, and why.
        self._to_hear: dict[int, int] = {}
        self._waits: dict[int, tuple[int, str]] = {}
        # The same of the retention, and of the look for orders.
        self._halts: tuple[int, str] = (0, "")
        self._turn_at_s = 0.0
        retention.between = self._take_turns

    def reasons(self) -> list[str]:
        """Say in sentences what failed, until an order, or a run of the retention, went well.

        And what waits, until it goes on.
        """
        waiting = {f"order {number} to erase": one for number, one in self._waits.items()}
        waiting["erasing"] = self._halts
        waits = (
            f"{what} waits: {why}"
            for what, (times, why) in waiting.items()
            if times >= TELLS_WAITS and self.pace.leads()
        )
        return [*filter(None, (self._failed, self.retention.failed)), *waits]

    def wake(self) -> None:
        """Have it look for orders at once."""
        self._asked.set()

    async def run(self) -> None:
        """Erase what is to be erased, for ever."""
        while True:
            self._asked.clear()
            if self.pace.leads():
                try:
                    await self.run_once()
                    self._halts = 0, ""
                except Stopped:
                    pass  # it goes on where it was
                except Exception as error:  # it is not to be the last that is erased
                    if _may_pass(error):
                        self._halts = self._halts[0] + 1, str(error)
                        _log.warning("erasing waits for the database: %s", error)
                    else:
                        what = "what is too old could not be erased: the log says why"
                        self.retention.failed = what
                        _log.exception("erasing failed")
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._asked.wait()
            except TimeoutError:
                pass

    async def run_once(self) -> None:
        """Erase all that is to be erased now; an order that cannot be goes on the next time.

        Raises:
            Stopped, StorageError: it cannot be done now; it goes on where it was.
        """
        more = True
        while more:
            more = await self._round()
            await self.retention.run()

    async def _take_turns(self) -> None:
        """Let the orders go on while the retention runs, after each slice of it."""
        self._halts = 0, ""  # it went on
        if time.monotonic() - self._turn_at_s >= SLICE_S:
            await self._round()

    async def _round(self) -> bool:
        """Carry out a slice of each order; tell whether any can go on at once."""
        more, orders = False, await erasures.open_orders(self._database)
        numbers = {erasure.id for erasure in orders}
        self._waits = {n: one for n, one in self._waits.items() if n in numbers}
        self._to_hear = {n: one for n, one in self._to_hear.items() if n in numbers}
        for erasure in orders:
            try:
                more |= await self._slice(erasure)
            except Stopped:
                raise
            except Exception as error:
                if _may_pass(error):
                    times, _ = self._waits.get(erasure.id, (0, ""))
                    self._waits[erasure.id] = times + 1, str(error)
                    _log.warning("order %d to erase waits: %s", erasure.id, error)
                    continue
                _log.exception("order %d to erase failed", erasure.id)
                self._failed = f"order {erasure.id} to erase failed: the log says why"
                more |= await self._fail(erasure)
        self._turn_at_s = time.monotonic()
        return more

    async def _slice(self, erasure: Erasure) -> bool:
        """Carry out an order for its time; tell whether it can go on."""
        until_s = time.monotonic() + SLICE_S
        now: Erasure | None = erasure
        while now is not None and now.ended_at_us is None:
            await self._carry_out(now, until_s)
            self._waits.pop(now.id, None)
            now = await erasures.order_of(self._database, now.project_id, now.id)
            if time.monotonic() >= until_s:
                break
        return now is not None and now.ended_at_us is None

    async def _carry_out(self, erasure: Erasure, until_s: float) -> None:
        """Do the next of what an order needs: search, erase, or clean up behind it."""
        if erasure.state == "collecting":
            await self._collect(erasure, until_s)
        elif erasure.state == "erasing":
            await self._repeat(partial(self._step, erasure), (erasure.project_id,), until_s)
        else:
            await self._clean(erasure, until_s)

    async def _repeat(
        self,
        work: Callable[[Transaction], object],
        projects: Collection[int],
        until_s: float,
        *,
        adapt: bool = True,
    ) -> bool:
        """Do steps until one finds nothing to do; False where it is another's turn before."""
        while await self.pace.step(work, projects, adapt=adapt):
            if time.monotonic() >= until_s:
                return False
        return True

    async def _fail(self, erasure: Erasure) -> bool:
        """End an order that failed; one that fails again while it cleans up, at once.

        Tell whether that could be noted: else it is the next time, and holds up nothing until then.
        """
        key = erasure.project_id, erasure.id
        now_us = time.time_ns() // 1000
        work = partial(erasures.fail, project_id=key[0], number=key[1], now_us=now_us)
        try:
            await self.pace.step(work, key[:1], adapt=False)
        except (StorageError, Unreadable) as error:
            _log.warning("order %d to erase waits: %s", erasure.id, error)
            return False
        return True

    async def _collect(self, erasure: Erasure, until_s: float) -> None:
        if is_by_words(erasure) and not await self._hear(erasure, until_s):
            return
        found = await self.pace.look(partial(collect, self._database, erasure))
        add = partial(
            erasures.add_targets,
            project_id=erasure.project_id,
            number=erasure.id,
            targets=found.targets,
            state=found.state,
            place=found.place,
            kept=found.kept_starred,
            reason=found.reason,
        )
        await self.pace.step(add, (erasure.project_id,), adapt=False)

    async def _hear(self, erasure: Erasure, until_s: float) -> bool:
        """Have full text hear all that was said by now; False where it is another's turn before."""
        up_to = self._to_hear.get(erasure.id)
        if up_to is None:
            up_to = await fulltext.newest_waiting(self._database)
        if up_to is None:
            return True
        self._to_hear[erasure.id] = up_to
        index = partial(
            fulltext.index,
            limit=INDEX_BATCH,
            text_of=text_of,
            most_bytes=INDEX_BYTES,
            up_to=up_to,
        )
        if not await self._repeat(index, (), until_s, adapt=False):
            return False
        del self._to_hear[erasure.id]
        return True

    def _step(self, erasure: Erasure, tx: Transaction) -> bool:
        return erasures.step(
            tx,
            erasure.project_id,
            erasure.id,
            text_of,
            most_spans=self.pace.spans,
            now_us=time.time_ns() // 1000,
        )

    async def _clean(self, erasure: Erasure, until_s: float) -> None:
        key = erasure.project_id, erasure.id
        clean = partial(erasures.clean, project_id=key[0], number=key[1])
        if not await self._repeat(clean, key[:1], until_s, adapt=False):
            return
        # Also what was asked for is to leave the files, before it is said that all is done.
        forget = partial(erasures.forget_given, project_id=key[0], number=key[1])
        await self.pace.step(forget, key[:1], adapt=False)
        await self.pace.give_back()
        now_us = time.time_ns() // 1000
        end = partial(erasures.end, project_id=key[0], number=key[1], now_us=now_us)
        await self._recorder.write(end, key[:1])
        if erasure.reason != "error":
            self._failed = None


def _may_pass(error: Exception) -> bool:
    """Tell whether to wait may heal it."""
    return not (is_refusal(error) or isinstance(error, DatabaseCorrupt))
