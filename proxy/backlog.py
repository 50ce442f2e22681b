"""What waits to be saved: records in their order, but starts first, within one bound of bytes.

Owns what is kept when not everything can be, and when that is late. Invariants: what is lost to the
bound is counted and logged, never silent; the oldest record goes with each batch or the next one;
nothing passes other work, and a start that names a trace passes nothing of its project, since what
stands before it may decide whose that is; the bytes of a record go back to the budget when it
leaves, however it does. Whoever calls holds the recorder's lock wherever the writer's thread may
come in between. Tickets, budget and counters are touched on the event loop only.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from proxy.call import CallEnd, CallProgress
from proxy.capture import Budget
from proxy.losses import Losses
from storage.records import SpanStart, Taken

Record = SpanStart | CallProgress | CallEnd
Key = tuple[int, bytes, bytes]
# What becomes of a record: done when it is saved, with the trace that its call is in where that is
# not the call's own; cancelled if it is lost.
Ticket = asyncio.Future[Taken | None]

# What a queued record weighs beside its bodies.
RECORD_BYTES: Final = 2048
# Where a record has waited for so long, or so much is not saved yet, one that is put now may be
# saved later than `safe` allows. Ends give each other 10 ms to join a batch; of 512 KiB come 5 ms.
BEHIND_S: Final = 0.015
BEHIND_BYTES: Final = 512 * 1024
# Among so many records those of one project are looked for: a tenth of a millisecond.
LOOK_AHEAD: Final = 1_000


@dataclass(slots=True, eq=False)
class Item:
    """A record, or other work of the writer; ``urgent``: somebody waits for its ``ticket``.

    ``projects`` are those that the work writes to, None: maybe all. ``erases``: it deletes, so that
    space is to be given back after it. ``outside``: the work is done with the database itself, in
    no transaction. ``once``: it is given up after its first failure, as nothing depends on it.
    ``withdrawn``: it is not to happen any more; ``sealed``: it is too late for that, for it is
    being committed. ``is_unsure``: a commit of it was begun and nobody knows how that ended.
    """

    record: Record | None
    work: Callable[..., Any] | None
    ticket: asyncio.Future[Any]
    weight: int
    urgent: bool
    projects: Collection[int] | None = None
    erases: bool = False
    outside: bool = False
    once: bool = False
    withdrawn: bool = False
    sealed: bool = False
    is_unsure: bool = False
    put_at_s: float = field(default_factory=time.monotonic)

    def answer(self, result: object, error: Exception | None) -> None:
        """Tell whoever still waits for it what became of it."""
        if self.ticket.done():
            return
        if error is None:
            self.ticket.set_result(result)
        else:
            self.ticket.set_exception(error)


class Withdrawn(Exception):
    """Nobody waits any more for what was to be committed."""


class Backlog:
    """The queue between the calls and the writer. ``bytes`` is what its records weigh."""

    def __init__(self, budget: Budget, losses: Losses) -> None:
        self.bytes = 0
        self._budget = budget
        self._losses = losses
        self._items: OrderedDict[Item, None] = OrderedDict()
        # What can be dropped, oldest first; those that are no longer in the queue do not count.
        self._with_bodies: deque[Item] = deque()
        self._starts: deque[Item] = deque()
        # Starts that may go before what came before them; the same holds for these.
        self._first: deque[Item] = deque()
        self._works = 0
        self._passed_over = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for anything in it."""
        return any(item.urgent for item in self._items)

    def is_late(self, spare_s: float) -> bool:
        """Whether what is added now may be saved late, where it may wait ``spare_s`` longer."""
        if self.bytes > BEHIND_BYTES:
            return True
        oldest = next(iter(self._items), None)
        return oldest is not None and time.monotonic() - oldest.put_at_s > BEHIND_S + spare_s

    def add(self, item: Item) -> None:
        """Put something at the end."""
        self._items[item] = None
        self._works += item.work is not None
        self.bytes += item.weight
        if item.record is not None:
            if item.weight > RECORD_BYTES:
                self._with_bodies.append(item)
            if isinstance(item.record, SpanStart):
                self._starts.append(item)
                if not self._works and not _names_a_trace(item.record):
                    self._first.append(item)

    def take(self, most: int, most_bytes: int, *, apart: bool = False) -> list[Item]:
        """Take up to ``most`` records, or one piece of other work: some starts, then the oldest.

        They weigh ``most_bytes`` together, or there is only one of them. They weigh until they are
        ended. With ``apart`` all are of the project of the oldest: those of others stay where they
        are, as no record says anything of another project's.
        """
        oldest = next(iter(self._items), None)
        project_id = _project_of(oldest) if apart and oldest is not None else None
        # Starts hold up answers and take no time. Where nothing went with them, the next batch has
        # none before the oldest.
        batch = [] if self._passed_over else self._take_first(most // 2, project_id)
        starts = len(batch)
        taken_bytes = starts * RECORD_BYTES
        for item in [*islice(self._items, LOOK_AHEAD if apart else most)]:
            if len(batch) == most:
                break
            if item.work is None and project_id not in (None, _project_of(item)):
                continue
            taken_bytes += item.weight
            if batch and (item.work is not None or taken_bytes > most_bytes):
                break
            batch.append(item)
            del self._items[item]
            if item.work is not None:
                self._works -= 1
                break
        self._passed_over = len(batch) == starts > 0 < len(self._items)
        self._forget_gone()
        return batch

    def _forget_gone(self) -> None:
        for some in (self._with_bodies, self._starts, self._first):
            while some and some[0] not in self._items:
                some.popleft()

    def withdraw(self, item: Item) -> None:
        """Let go of other work that is not to happen any more, unless it was taken."""
        if item in self._items:
            del self._items[item]
            self._works -= 1

    def _take_first(self, most: int, project_id: int | None) -> list[Item]:
        """Take starts that may go first, of one project or, None, of all."""
        there = (
            start
            for start in islice(self._first, LOOK_AHEAD)
            if start in self._items and project_id in (None, _project_of(start))
        )
        taken = [*islice(there, most)]
        for start in taken:
            del self._items[start]
        return taken

    def end(self, item: Item, *, is_saved: bool, result: object = None) -> None:
        """Let go of an item that was taken or dropped; ``result`` is for whoever waits for it."""
        self.bytes -= item.weight
        self._give_back(item.record)
        item.record = None  # it may be named for a while among what can be dropped
        if not is_saved:
            item.ticket.cancel()
        elif not item.ticket.done():
            item.ticket.set_result(result)

    def make_room(self, newest: Item, limit_bytes: int) -> None:
        """Drop what does not fit: the oldest bodies, then whole records."""
        # The oldest bodies go first, for a count is worth more than a text; checkpoints with them,
        # since more will come. Then starts: an end carries its own. At last the newest end: a call
        # whose start was saved before is shown as running until the process ends.
        while self.bytes > limit_bytes and self._with_bodies:
            self._lighten(self._with_bodies.popleft())
        while self.bytes > limit_bytes and self._starts:
            self._drop(self._starts.popleft())
        if self.bytes > limit_bytes and newest in self._items:
            self._drop(newest)
            self._losses.add(records=1)
        self._forget_gone()  # nothing is taken meanwhile
        self._losses.complain(
            "recording falls behind: the oldest bodies, then whole records are dropped"
        )

    def _lighten(self, item: Item) -> None:
        if not isinstance(item.record, CallEnd):
            self._drop(item)
        elif item in self._items:
            self._give_back(item.record)
            item.record = item.record.without_bodies()
            self.bytes -= item.weight - RECORD_BYTES
            item.weight = RECORD_BYTES
            self._losses.add(bodies=1)

    def _drop(self, item: Item) -> None:
        if item in self._items:
            del self._items[item]
            self.end(item, is_saved=False)

    def _give_back(self, record: Record | None) -> None:
        if isinstance(record, CallEnd | CallProgress):
            self._budget.give(record.held_bytes)


def _project_of(item: Item) -> int | None:
    return None if item.record is None else key_of(item.record)[0]


def _names_a_trace(start: SpanStart) -> bool:
    return start.joins is not None or start.external_trace_id is not None


def key_of(record: Record) -> Key:
    """Give the key by which a record's call knows itself: project, its own trace, span."""
    start = record if isinstance(record, SpanStart) else record.start
    return start.project_id, start.trace_id, start.span_id


def weight(record: Record) -> int:
    """Give the bytes that a record takes while it waits."""
    return RECORD_BYTES + (0 if isinstance(record, SpanStart) else record.held_bytes)
