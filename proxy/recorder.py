"""The recorder: a bounded queue on one side, the database's one writer on the other.

Owns when a record counts as saved; what is kept when not everything can be is backlog.py's, how
long calls wait for it waits.py's, how often a commit is tried commits.py's, and when space is given
back reclaim.py's.
Invariants: `put` never raises and never waits; records are saved in batches, in the order that
backlog.py gives; one bound in bytes covers those that wait.
The thread reads records for their meaning (settle.py) before a transaction begins, and writes them
in it (storage.writes). The budget, the counters and the tickets are touched on the loop only, and a
record that waits is replaced only under the lock under which the thread takes it.
"""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from proxy.backlog import BEHIND_S, Backlog, Item, Key, Record, Ticket, key_of, weight
from proxy.call import CallEnd, CallProgress
from proxy.capture import Budget
from proxy.commits import Commits
from proxy.losses import Losses
from proxy.outcomes import Ended, Outcome, ends
from proxy.providers.messages import text_of
from proxy.reclaim import Reclaim
from proxy.sections import Durability
from proxy.settle import Settler
from proxy.tasks import spawn
from proxy.waits import Waits
from storage import fulltext, parameters, writes
from storage.database import Database, StorageError, Transaction
from storage.probe import probe
from storage.records import SpanStart, Taken

T = TypeVar("T")
Places = Mapping[Key, Taken]

# A start wakes the writer at once. Ends that nobody waits for give others this long to join their
# batch: half the commits at 1,000 calls/s, and far inside the 50 ms that a saved end may take.
LINGER_S: Final = 0.010
# Records of one transaction, and what they weigh: 10 ms of work, so that where the writer is behind
# the oldest wait neither for the newest, nor for a body of megabytes that comes after them.
MAX_BATCH: Final = 25
BATCH_BYTES: Final = 512 * 1024
# An end waits for the batch that has just begun, for others to join its own, and for that. Where
# one took longer than this, these may be more than the 50 ms of `safe`, until so many took less.
SLOW_BATCH_S: Final = 0.017
SLOW_BATCHES: Final = 8
# What waits for a piece of other work waits for little else, and is late by so much later.
SPARE_S: Final = 0.010
# A change that somebody waits for is made within this time, or never. One that is being committed
# just then has its answer in moments.
CHANGE_WAIT_S: Final = 2.0
MOMENT_S: Final = 0.05
# Messages, and their bytes, that come into full text at a time, while nothing else is to be done:
# 10 ms. Under load they wait, up to so many, since the index takes as long as all else of a call.
INDEX_BATCH: Final = 200
INDEX_BYTES: Final = 32 * 1024
IDLE_S: Final = 0.020
MAX_UNINDEXED: Final = 20_000
# A database that is to be tended is looked after this often, also while nothing is to be saved.
TEND_S: Final = 1.0
# For a search: so many bytes of messages at once, 50 ms, and so long a wait until it goes on
# without.
INDEX_NOW: Final = 1_000
INDEX_NOW_BYTES: Final = 256 * 1024
INDEX_WAIT_S: Final = 0.5


class Recorder:
    """Takes records on the event loop and saves them in a thread of its own."""

    def __init__(
        self,
        database: Database,
        settler: Settler,
        budget: Budget,
        durability: Durability,
    ) -> None:
        self.losses = Losses()
        self.durability = durability
        self.after_ends: Callable[[Sequence[Ended]], None] = lambda _: None  # in the thread
        self._database = database
        self._settler = settler
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._backlog = Backlog(budget, self.losses)
        self.waits = Waits(self.losses, durability)
        self._wake = threading.Condition()
        self.commits = Commits(
            database, self._wake, lambda *told: self._tell(self.losses.failed, *told)
        )
        self._closing = False
        self._closed = False
        self._busy_since_s = math.inf  # the thread, with what it took last, or behind that
        self._spare_s = 0.0
        self._since_slow = SLOW_BATCHES  # batches behind one that was slow
        self._unindexed = 0
        self._to_tend = False
        self._reclaim = Reclaim(database)
        self._indexing: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    # On the event loop.

    def put(self, record: Record, *, urgent: bool = False) -> Ticket:
        """Queue a record; its ticket is done when it is committed, cancelled if it is lost.

        `urgent`: somebody waits for that.
        """
        urgent = urgent or isinstance(record, SpanStart) or self.durability == "strict"
        item = Item(record, None, self._loop.create_future(), weight(record), urgent)
        with self._wake:
            self._backlog.add(item)
            self._wake.notify()
            limit_bytes = 0 if self._closed else self._budget.limit_bytes
            if self._backlog.bytes > limit_bytes:
                self._backlog.make_room(item, limit_bytes)
        return item.ticket

    @property
    def is_behind(self) -> bool:
        """Whether a call that ends now may be saved later than `safe` allows, so that it waits."""
        if self.durability != "safe":
            return False
        with self._wake:
            busy_s = time.monotonic() - self._busy_since_s
            if self._backlog.is_late(self._spare_s) or busy_s > BEHIND_S + self._spare_s:
                return True
        return self._since_slow < SLOW_BATCHES

    def write(
        self,
        work: Callable[[Transaction], T],
        projects: Collection[int] | None = None,
        *,
        erases: bool = False,
    ) -> asyncio.Future[T]:
        """Run other work of the one writer, in a transaction of its own, in order with the rest.

        `projects`: those that it writes to, as of `Database.transaction`. `erases`: it deletes, so
        that space is to be given back after it.
        """
        return self._order(work, projects, erases=erases).ticket

    def change(
        self,
        work: Callable[[Transaction], T],
        projects: Collection[int] | None = None,
        *,
        erases: bool = False,
    ) -> asyncio.Future[T]:
        """Have other work done within `CHANGE_WAIT_S`, or never; its ticket then has an error."""
        item = self._order(work, projects, erases=erases)
        self._loop.call_later(CHANGE_WAIT_S, self._withdraw, item)
        return item.ticket

    def to_reclaim(self, *, words: bool) -> asyncio.Future[int]:
        """Tell until when to `reclaim` for all that is deleted by now, as of `Reclaim.ask`."""

        def work(_: Database) -> int:
            self._settler.forget()  # the messages that were deleted
            return self._reclaim.ask(words=words)

        return self._order(work, (), outside=True).ticket

    def reclaim(self, until: int) -> asyncio.Future[tuple[bool, float]]:
        """Have a part of the space of deleted rows given back, as of `Reclaim.part`."""
        return self._order(lambda _: self._reclaim.part(until), (), outside=True).ticket

    def reclaim_left(self) -> None:
        """Have given back, when there is time, what a process before this one deleted."""
        self._order(lambda _: self._reclaim.look(), (), outside=True)

    def _order(
        self, work: Callable[..., object], projects: Collection[int] | None, **how: bool
    ) -> Item:
        item = Item(None, work, self._loop.create_future(), 0, True, projects, **how)
        with self._wake:
            if self._closed:
                item.ticket.cancel()
            else:
                self._backlog.add(item)
                self._wake.notify()
        return item

    def _withdraw(self, item: Item) -> None:
        with self._wake:
            item.withdrawn = not item.sealed
            if item.withdrawn:
                self._backlog.withdraw(item)
                self._wake.notify()
        if item.withdrawn:
            reason = f"it does not take changes now ({self.commits.error or 'it is busy'})"
            remedy = "nothing was changed: try again when /api/health says ok"
            if item.is_unsure:
                remedy = "it may have been changed: look when /api/health says ok"
            item.answer(None, StorageError("the database", reason, remedy))
        elif not item.ticket.done():
            self._loop.call_later(MOMENT_S, self._withdraw, item)

    async def indexed(self) -> None:
        """Have a search find what was saved before it, unless that takes longer than a moment."""
        if self._indexing is None or self._indexing.done():
            self._indexing = spawn(self._index_now(), "full text for a search")
        await asyncio.wait((self._indexing,), timeout=INDEX_WAIT_S)

    async def _index_now(self) -> None:
        """Index what waits as long as a search does; what others write comes in between."""
        until_s = self._loop.time() + INDEX_WAIT_S
        index = partial(
            fulltext.index, limit=INDEX_NOW, text_of=text_of, most_bytes=INDEX_NOW_BYTES
        )
        # What cannot be done now is done later; at the end of the process, at the next start.
        with contextlib.suppress(StorageError, RuntimeError):
            while await self._order(index, (), once=True).ticket and self._loop.time() < until_s:
                pass

    @property
    def queued_bytes(self) -> int:
        """What the records weigh that wait."""
        return self._backlog.bytes

    def reasons(self) -> list[str]:
        """Say in sentences why recording is not as it should be; empty when it is."""
        found = []
        if self.commits.error is not None:
            found.append(f"the last commit failed: {self.commits.error}")
        if self.waits.are_vain:
            found.append("commits take longer than answers may wait for them")
        if self.losses.are_recent:
            found.append("records were lost, in part or whole: see the counters")
        if not self._thread.is_alive() and not self._closing:
            found.append("the recorder died of a bug: nothing is saved until a restart")
        return found

    async def close(self) -> None:
        """Save what is queued and stop the thread; give up what cannot be saved in time."""
        with self._wake:
            self._closing = True
            self.commits.close_by()
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _ended(self, items: Iterable[Item], outcome: Outcome, taken: Places) -> None:
        for item in items:
            place = taken.get(key_of(item.record)) if taken and item.record else None
            self._backlog.end(item, is_saved=outcome == "saved", result=place)
            if outcome == "given up":
                self.losses.add(records=1)
        if outcome == "saved":
            self.waits.saved()

    # In the thread.

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            is_records = bool(batch) and batch[0].work is None
            self._spare_s = 0.0 if is_records else SPARE_S
            if self._unindexed > (MAX_UNINDEXED if batch else 0):
                # At least as much as this batch may bring.
                self._index(max(INDEX_BYTES, sum(item.weight for item in batch)))
            if is_records:
                self._save(batch)
                was_slow = time.monotonic() - self._busy_since_s > SLOW_BATCH_S
                self._since_slow = 0 if was_slow else self._since_slow + 1
            elif batch:
                self._do_work(batch[0])
            else:
                self.commits.look_again(probe)
            self._busy_since_s = time.monotonic()
            with contextlib.suppress(StorageError):  # what cannot be done now is done later
                self._to_tend = self._database.tend(idle=not self._backlog)
                if not batch or self._reclaim.is_overdue:
                    self._reclaim.go_on()

    def _take(self) -> list[Item] | None:
        """Wait for the next batch: records, or one piece of other work; None at the very end.

        It is empty where nothing else is to be done than full text, or tending the database.
        """
        with self._wake:
            self._busy_since_s = math.inf
            while not self._backlog:
                if self._closing:
                    self._closed = True
                    return None
                # Calls in flight have pauses of milliseconds: a longer one is time for the index.
                has_more = self._unindexed or self._reclaim.is_due
                to_tend = self._to_tend or self.commits.error is not None
                pause_s = IDLE_S if has_more else TEND_S if to_tend else None
                idle = not self._wake.wait(pause_s)
                if idle and not self._backlog and not self._closing:
                    self._busy_since_s = time.monotonic()
                    return []
            lonely = len(self._backlog) < MAX_BATCH and not self._backlog.is_urgent
            if lonely and not self._closing:
                self._wake.wait(LINGER_S)
            self._busy_since_s = time.monotonic()
            return self._backlog.take(MAX_BATCH, BATCH_BYTES, apart=self.commits.are_apart)

    def _save(self, batch: list[Item]) -> None:
        changes = [self._settle(item) for item in batch]
        outcome, refusal, taken = self._write(changes)
        if refusal is not None:
            # It may rest on messages of earlier calls that are not, or no longer, stored.
            self._settler.forget()
            if len(batch) > 1:
                # One of them is poison, and the others must not die of it.
                for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    self._save(part)
                return
            changes = [self._settle(item) for item in batch]
            outcome, refusal, taken = self._write(changes)
        if refusal is not None:
            self._settler.forget()
            self._tell(self.losses.unreadable, refusal)
            if isinstance(end := batch[0].record, CallEnd):
                # Whatever it is in it that is refused: the call was made, and ended.
                changes = [self._settler.bare(end)]
                outcome, _, taken = self._write(changes)
        if outcome == "saved":
            self.after_ends(ends(batch, changes))
        self._tell(self._ended, batch, outcome, taken)

    def _settle(self, item: Item) -> parameters.Change | None:
        record = item.record
        try:
            if isinstance(record, CallProgress):
                return self._settler.progress(record)
            return self._settler.end(record) if isinstance(record, CallEnd) else record
        except Exception as error:
            # A bug in a reader must cost the meaning of one call, not the row nor the batch.
            self._tell(self.losses.unreadable, error)
            return self._settler.bare(record) if isinstance(record, CallEnd) else None

    def _write(
        self, changes: Iterable[parameters.Change | None]
    ) -> tuple[Outcome, Exception | None, Places]:
        kept = [change for change in changes if change is not None]
        try:
            batches = [parameters.prepare(kept)]
        except Exception as error:
            return "refused", error, {}
        written: list[writes.Written] = []
        projects = {span.key[0] for span in batches[0].spans}

        def work(tx: Transaction) -> None:
            # An attempt leaves in its batch where it put the calls, which may not hold in the next.
            batch = batches.pop() if batches else parameters.prepare(kept)
            written.append(writes.apply(tx, batch))

        outcome = self.commits.run(work, projects)
        self._unindexed += sum(one.unindexed for one in written)
        return *outcome, written[-1].taken if written else {}

    def _index(self, most_bytes: int) -> None:
        done: list[int] = []
        outcome, _ = self.commits.run(
            lambda tx: done.append(fulltext.index(tx, INDEX_BATCH, text_of, most_bytes)),
            (),
            once=True,
        )
        # Until there are none; where it failed, the next call's try again.
        is_done = outcome != "saved" or not done[-1]
        self._unindexed = 0 if is_done else max(self._unindexed - done[-1], 1)

    def _do_work(self, item: Item) -> None:
        results: list[object] = []
        work = item.work or (lambda _: None)
        if item.outside:
            try:
                self._tell(item.answer, work(self._database), None)
            except StorageError as error:
                self._tell(item.answer, None, error)
            return
        outcome, refusal = self.commits.run(
            lambda tx: results.append(work(tx)), item.projects, item, once=item.once
        )
        if outcome == "saved":
            self._unindexed = max(self._unindexed, 1)
        if item.erases:
            self._settler.forget()  # the messages that it deleted
            with contextlib.suppress(StorageError):  # what is not given back now is later
                self._reclaim.begin()
        if outcome == "saved":
            self._tell(item.answer, results[-1], None)
        else:
            self._tell(item.answer, None, refusal or RuntimeError(self.commits.error))

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(callback, *arguments)
