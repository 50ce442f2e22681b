"""The recorder: a bounded queue on one side, the database's one writer on the other.

Owns what is kept when not everything can be, and when a record counts as saved. Invariants: `put`
never raises and never waits; records are saved in the order in which they came, in batches; one
bound in bytes covers the queue, and what is lost to it is counted and logged, never silent.
The thread reads records for their meaning (settle.py) before a transaction begins, and writes them
in it (storage.writes).
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

from proxy.call import CallEnd, CallProgress, Message
from proxy.capture import Budget, Captured
from proxy.settle import Settler
from storage import parameters, writes
from storage.database import Database, StatementRefused, StorageError, Transaction
from storage.records import SpanStart

T = TypeVar("T")
Outcome = Literal["saved", "refused", "given up"]
Record = SpanStart | CallProgress | CallEnd

# A start wakes the writer at once. Ends that nobody waits for give others this long to join their
# batch: half the commits at 1,000 calls/s, and far inside the 50 ms that a saved end may take.
LINGER_S: Final = 0.010
# One transaction; small enough that those who wait for its commit do not wait long.
MAX_BATCH: Final = 500
# What a queued record weighs beside its bodies.
RECORD_BYTES: Final = 2048
# An answer's first byte waits at most this long for the commit of its start.
START_WAIT_S: Final = 0.040
# So many waits in vain in a row, and calls stop waiting until a commit succeeds.
MAX_VAIN_WAITS: Final = 3
STRICT_WAIT_S: Final = 2.0
# A failing commit is tried again after this long, doubling up to the second figure.
RETRY_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
# At the end of the process, a commit that fails is tried for this long.
LAST_TRY_S: Final = 5.0
LOG_EVERY_S: Final = 60.0
# So long after a loss, health still says `degraded`; the counters say it for ever.
DEGRADED_S: Final = 300.0

_log = logging.getLogger("traceway")


@dataclass(slots=True)
class Counters:
    """What went wrong since the start of the process; shown by /api/health."""

    dropped_bodies: int = 0
    dropped_records: int = 0
    unreadable_records: int = 0
    late_starts: int = 0
    failed_commits: int = 0


@dataclass(slots=True, eq=False)
class _Item:
    record: Record | None
    work: Callable[[Transaction], Any] | None
    ticket: asyncio.Future[Any]
    weight: int
    urgent: bool
    taken: bool = False


class Recorder:
    """Takes records on the event loop and saves them in a thread of its own."""

    def __init__(
        self,
        database: Database,
        settler: Settler,
        budget: Budget,
        durability: Literal["safe", "strict", "fast"],
    ) -> None:
        self.counters = Counters()
        self.durability = durability
        self.queued_bytes = 0
        self.error: str | None = None
        self._database = database
        self._settler = settler
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Item] = deque()
        self._with_bodies: deque[_Item] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._vain_waits = 0
        self._last_log_s = -LOG_EVERY_S
        self._last_loss_s = 0.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    # On the event loop.

    def put(self, record: Record) -> asyncio.Future[None]:
        """Queue a record; the ticket is done when it is committed."""
        urgent = isinstance(record, SpanStart) or self.durability == "strict"
        weight = RECORD_BYTES + (record.held_bytes if isinstance(record, CallEnd) else 0)
        ticket = self._loop.create_future()
        item = _Item(record, None, ticket, weight, urgent)
        self.queued_bytes += weight
        with self._wake:
            self._queue.append(item)
            if weight > RECORD_BYTES:
                self._with_bodies.append(item)
            if self.queued_bytes > self._budget.limit_bytes:
                self._make_room()
            self._wake.notify()
        return ticket

    def write(self, work: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Run other work of the one writer, in a transaction of its own, in order with the rest."""
        ticket = self._loop.create_future()
        with self._wake:
            self._queue.append(_Item(None, work, ticket, 0, urgent=True))
            self._wake.notify()
        return ticket

    async def started(self, ticket: asyncio.Future[None]) -> None:
        """Hold an answer's first byte until its start is saved, a short while at most (`safe`)."""
        if self.durability == "fast" or ticket.done() or self._vain_waits >= MAX_VAIN_WAITS:
            return
        await asyncio.wait((ticket,), timeout=START_WAIT_S)
        if not ticket.done():
            self._vain_waits += 1
            self.counters.late_starts += 1

    async def committed(self, ticket: asyncio.Future[None]) -> bool:
        """Wait until a record is saved (`strict`); False when it is not in time."""
        if not ticket.done():
            await asyncio.wait((ticket,), timeout=STRICT_WAIT_S)
        return ticket.done()

    def reasons(self) -> list[str]:
        """Say in sentences why recording is not as it should be; empty when it is."""
        found = []
        if self.error is not None:
            found.append(f"the last commit failed: {self.error}")
        if self._vain_waits >= MAX_VAIN_WAITS:
            found.append("commits take longer than answers may wait for them")
        lost = self.counters.dropped_bodies + self.counters.dropped_records
        if lost and time.monotonic() - self._last_loss_s < DEGRADED_S:
            found.append("records were dropped, see the counters")
        return found

    async def close(self) -> None:
        """Save what is queued and stop the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _make_room(self) -> None:
        # The oldest bodies go first, then whole records: a count is worth more than a text.
        while self.queued_bytes > self._budget.limit_bytes and self._with_bodies:
            item = self._with_bodies.popleft()
            if isinstance(item.record, CallEnd) and not item.taken:
                self.counters.dropped_bodies += 1
                self._budget.give(item.record.held_bytes)
                item.record = _without_bodies(item.record)
                self.queued_bytes -= item.weight - RECORD_BYTES
                item.weight = RECORD_BYTES
        while self.queued_bytes > self._budget.limit_bytes and self._queue:
            item = self._queue.popleft()
            if item.work is not None:
                self._queue.appendleft(item)
                break
            self.counters.dropped_records += 1
            self.queued_bytes -= item.weight
        self._last_loss_s = time.monotonic()
        self._complain("recording falls behind: the oldest bodies and records are dropped")

    def _saved(self, items: Iterable[_Item]) -> None:
        self._vain_waits = 0
        for item in items:
            self.queued_bytes -= item.weight
            if isinstance(item.record, CallEnd):
                self._budget.give(item.record.held_bytes)
            _resolve(item.ticket, None, None)

    # In the thread.

    def _run(self) -> None:
        while batch := self._take():
            if batch[0].work is not None:
                self._do_work(batch[0])
            else:
                self._save(batch)

    def _take(self) -> list[_Item]:
        with self._wake:
            while not self._queue:
                if self._closing:
                    return []
                self._wake.wait()
            if not self._closing and not any(item.urgent for item in self._queue):
                self._wake.wait(LINGER_S)
            batch: list[_Item] = []
            while self._queue and len(batch) < MAX_BATCH:
                if self._queue[0].work is not None and batch:
                    break
                batch.append(self._queue.popleft())
                if batch[0].work is not None:
                    break
            for item in batch:
                item.taken = True
            while self._with_bodies and self._with_bodies[0].taken:
                self._with_bodies.popleft()
            return batch

    def _save(self, batch: list[_Item]) -> None:
        changes = [change for item in batch if (change := self._settle(item)) is not None]
        prepared = parameters.prepare(changes)
        outcome = self._commit(lambda transaction: writes.apply(transaction, prepared))
        if outcome == "refused" and len(batch) > 1:
            for item in batch:  # one of them is poison: the others must not die of it
                self._save([item])
            return
        if outcome == "refused":
            self.counters.unreadable_records += 1
            self._complain(f"a record could not be saved: {self.error}")
        elif outcome == "given up":
            self.counters.dropped_records += len(batch)
        self._tell(self._saved, batch)

    def _settle(self, item: _Item) -> parameters.Change | None:
        record = item.record
        if record is None or isinstance(record, SpanStart):
            return record
        try:
            if isinstance(record, CallProgress):
                return self._settler.progress(record)
            return self._settler.end(record)
        except Exception as error:
            # A bug in a reader must cost the meaning of one call, not the row nor the batch.
            _log.exception("a record could not be read")
            self.counters.unreadable_records += 1
            self.error = repr(error)
            return self._settler.bare(record) if isinstance(record, CallEnd) else None

    def _commit(self, work: Callable[[Transaction], object]) -> Outcome:
        """Run `work` in a transaction, again and again while the database cannot take it."""
        pause_s, first_try_s = RETRY_S, time.monotonic()
        while True:
            try:
                with self._database.transaction() as transaction:
                    work(transaction)
            except Exception as error:
                self.counters.failed_commits += 1
                self.error = str(error) or repr(error)
                if isinstance(error, StatementRefused) or not isinstance(error, StorageError):
                    _log.exception("a transaction was refused")
                    return "refused"
                self._complain(f"recording waits for the database: {self.error}")
                if self._closing and time.monotonic() - first_try_s > LAST_TRY_S:
                    return "given up"
                with self._wake:
                    self._wake.wait_for(lambda: self._closing, timeout=pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                self.error = None
                return "saved"

    def _do_work(self, item: _Item) -> None:
        results: list[object] = []
        work = item.work or (lambda _: None)
        if self._commit(lambda transaction: results.append(work(transaction))) == "saved":
            self._tell(_resolve, item.ticket, results[-1], None)
        else:
            self._tell(_resolve, item.ticket, None, RuntimeError(self.error))

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(callback, *arguments)

    def _complain(self, message: str) -> None:
        now_s = time.monotonic()
        if now_s - self._last_log_s >= LOG_EVERY_S:
            self._last_log_s = now_s
            _log.error("%s (%s)", message, self.counters)


def _without_bodies(end: CallEnd) -> CallEnd:
    return replace(end, request=_bare(end.request), response=_bare(end.response))


def _bare(message: Message) -> Message:
    return replace(message, body=Captured(size=message.body.size, sha256=message.body.sha256))


def _resolve(ticket: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if ticket.done():
        return
    if error is None:
        ticket.set_result(result)
    else:
        ticket.set_exception(error)
