"""Keeps what is to be kept, and no more: content and metadata by age, all of it by size.

Owns when it looks, and what it has done since the start of the process. Invariants: sessions with a
star stay; a run that is broken off goes on with the next, since what is left says what is to do.
What is due is storage.retention's.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from proxy.api.oldest import KINDS, Oldest
from proxy.api.pace import Pace, Unreadable
from proxy.providers.messages import text_of
from proxy.sections import RetentionConfig
from storage import retention
from storage.database import Database, DatabaseCorrupt, Transaction
from storage.erase import Part
from storage.events import forget_sessions
from storage.keys import TraceKey
from storage.parameters import MAX_TIME_US
from storage.retention import BEGINNING, Due, Old, Place

# It looks so often for what has become due.
CHECK_S: Final = 300.0
# To take deleted words out of full text writes the parts anew that had them, and to take deleted
# ids out of the log reads all of that: each time where the database is small, else once a day.
SMALL_BYTES: Final = 256 * 1024 * 1024
DEEP_S: Final = 24 * 3600.0
# Above its cap the database is made smaller than that by a twentieth, so that it does not go on
# with each call; what is younger than this is not taken for it.
MARGIN: Final = 0.95
YOUNG_US: Final = 3600 * 1_000_000
_DAY_US: Final = 24 * 3600 * 1_000_000

_log = logging.getLogger("traceway")


@dataclass(slots=True)
class Done:
    """What it has done since the start of the process. ``size_bytes`` is as of the last look."""

    last_ran_at_us: int | None = None
    is_running: bool = False
    forgotten_traces: int = 0
    erased_sessions: int = 0
    erased_traces: int = 0
    erased_spans: int = 0
    freed_content_bytes: int = 0
    size_bytes: int | None = None
    is_above_cap: bool = False


async def _nothing() -> None:
    """Do nothing between the steps."""


class Retention:
    """Erases what is too old, or too much."""

    def __init__(self, config: RetentionConfig, database: Database, pace: Pace) -> None:
        self.done = Done()
        self._config = config
        self._database = database
        self._pace = pace
        self._due_at_s = 0.0
        self._deep_at_s: float | None = None
        # Something was erased, and has not left the files yet: its space, and its words and ids. A
        # process before this one may have ended in between.
        self._to_clean = self._to_clean_deep = True
        self._skipped = 0  # what could not be erased in this run
        self._keeps_words = False  # full text is damaged, and has words that are to leave it
        # What went wrong, in a sentence; and what is to go on after each step.
        self.failed: str | None = None
        self.between: Callable[[], Awaitable[None]] = _nothing

    @property
    def is_on(self) -> bool:
        """Whether anything is ever too old, or too much."""
        config = self._config
        return bool(config.content_days or config.metadata_days or config.max_bytes)

    async def run(self) -> None:
        """Erase what is due, unless it was looked a moment ago.

        Raises StorageError where it cannot be done now.
        """
        now_s = time.monotonic()
        if not self.is_on or now_s < self._due_at_s:
            return
        self._due_at_s = now_s + CHECK_S
        self.done.is_running = True
        self._skipped = 0
        try:
            await self._run(time.time_ns() // 1000)
            self.done.last_ran_at_us = time.time_ns() // 1000
            self.failed = None
            if self._skipped:
                self.failed = (
                    f"{self._skipped} sessions and traces that are too old hold something damaged,"
                    " and stay: traceway doctor looks for it"
                )
            elif self._keeps_words:
                self.failed = (
                    "the index of words is damaged, and keeps words that were erased: traceway"
                    " doctor looks for it"
                )
        except BaseException:
            self._due_at_s = 0.0  # it goes on as soon as it can
            raise
        finally:
            self.done.is_running = False

    async def _run(self, now_us: int) -> None:
        if self._config.metadata_days:
            await self._erase(now_us - self._config.metadata_days * _DAY_US, now_us)
        if self._config.content_days:
            await self._forget(now_us - self._config.content_days * _DAY_US, now_us)
        if self._to_clean or (self._to_clean_deep and self._is_deep_due):
            await self._clean()
        if self._config.max_bytes:
            await self._make_smaller(now_us)

    @property
    def _is_deep_due(self) -> bool:
        return self._deep_at_s is None or time.monotonic() - self._deep_at_s >= DEEP_S

    async def _clean(self, *, deep: bool = False) -> None:
        """Give space back, and now and then also take what was erased out of log and words."""
        size = await self._measure()
        if deep or self._is_deep_due or size <= SMALL_BYTES:
            after: int | None = 0
            while after is not None:
                work = partial(forget_sessions, after=after)
                after = await self._pace.step(work, (), adapt=False)
            try:
                await self._pace.give_back()
                self._keeps_words = False
            except DatabaseCorrupt as error:  # all else was given back
                self._keeps_words = True
                _log.warning("words that were erased stay in the index: %s", error)
            self._deep_at_s, self._to_clean_deep = time.monotonic(), self._keeps_words
        else:
            await self._pace.give_back(words=False)
        self._to_clean = False

    async def _forget(self, before_us: int, now_us: int) -> None:
        due = await self._due(before_us)
        while True:
            for traces in due.traces:
                await self._forget_traces(traces, now_us)
            if due.place is None:
                return
            due = await self._due(before_us, due.place)

    async def _due(self, before_us: int, place: Place | None = None, **how: bool) -> Due:
        """Find a page of content that is due, as of `retention.old_content`."""
        read = partial(retention.old_content, self._database, before_us, place, **how)
        return await self._pace.look(read)

    async def _forget_traces(
        self, traces: Sequence[TraceKey], now_us: int, before_us: int = MAX_TIME_US
    ) -> None:
        """Forget the content of traces of one session that ended before a moment."""
        while traces:

            def work(tx: Transaction, traces: Sequence[TraceKey] = traces) -> tuple[Part, int]:
                return retention.forget_old(
                    tx,
                    traces,
                    text_of,
                    most_spans=self._pace.spans,
                    now_us=now_us,
                    before_us=before_us,
                )

            try:
                part, taken = await self._pace.step(work, (traces[0][0],))
            except Unreadable as error:
                # By a smaller part of it, until only what is damaged is left out.
                if len(traces) > 1:
                    await self._forget_traces(traces[:1], now_us, before_us)
                    traces = traces[1:]
                    continue
                self._skip(error)
                return
            self.done.forgotten_traces += part.traces
            self._count(part)
            await self.between()
            if part.finished:  # else some of them are left
                traces = traces[taken:]

    async def _erase(self, before_us: int, now_us: int) -> None:
        """Erase all that was last active before a moment."""
        for project_id in await retention.projects(self._database):
            for kind in KINDS:
                place: Place | None = BEGINNING
                while place is not None:
                    read = partial(
                        retention.old, self._database, kind, project_id, before_us, place
                    )
                    found, place = await self._pace.look(read)
                    for old in found:
                        await self._erase_one(old, before_us, now_us)

    async def _erase_one(self, old: Old, before_us: int, now_us: int) -> None:
        """Erase a session, or a trace without one, unless it went on meanwhile."""

        def work(tx: Transaction) -> Part:
            return retention.erase_old(
                tx, old, text_of, before_us=before_us, most_spans=self._pace.spans, now_us=now_us
            )

        part = Part(finished=False)
        while not part.finished:
            try:
                part = await self._pace.step(work, (old.project_id,))
            except Unreadable as error:
                self._skip(error)
                return
            self.done.erased_sessions += part.sessions
            self.done.erased_traces += part.traces
            self.done.erased_spans += part.spans
            self._count(part)
            await self.between()

    def _count(self, part: Part) -> None:
        if part.traces or part.spans:
            self._to_clean = self._to_clean_deep = True
        self.done.freed_content_bytes += part.content_bytes

    def _skip(self, error: Unreadable) -> None:
        """Leave something as it is, and go on."""
        self._skipped += 1
        _log.warning("something that is too old cannot be erased, and stays: %s", error)

    async def _make_smaller(self, now_us: int) -> None:
        """Keep the database below its cap."""
        most_bytes, went, skipped = self._config.max_bytes, True, self._skipped
        # At first as much of all content as is too much of the file: full text has a part of it,
        # too, which leaves the file with the clean-up only.
        share_bytes = await retention.stored_bytes(self._database)
        while (size := await self._measure()) > most_bytes and went:
            self._skipped = skipped  # what is damaged is met in each round
            fits_bytes = int(most_bytes * MARGIN)
            least_bytes = (size - fits_bytes) * min(share_bytes, size) // size
            await self._free(least_bytes, fits_bytes, now_us)
            share_bytes = size
            if went := self._to_clean:
                await self._clean(deep=True)
        self.done.is_above_cap = size > most_bytes

    async def _free(self, content_bytes: int, most_bytes: int, now_us: int) -> None:
        """Forget so much of the oldest content, or until the rest fits.

        Where there is none, erase what is oldest until the rest fits.
        """
        before_us = now_us - YOUNG_US
        enough_bytes = self.done.freed_content_bytes + max(content_bytes, 1)

        async def is_enough() -> bool:
            went = self.done.freed_content_bytes >= enough_bytes
            return went or await self._measure() <= most_bytes

        due = await self._due(before_us, oldest=True)
        while not await is_enough():
            for traces in due.traces:
                await self._forget_traces(traces, now_us, before_us)
                if await is_enough():
                    break
            if due.place is None:
                break
            due = await self._due(before_us, due.place, oldest=True)
        if self._to_clean:
            return
        oldest = Oldest(self._database, self._pace, before_us)
        while await self._measure() > most_bytes and (old := await oldest.next()) is not None:
            await self._erase_one(old, before_us, now_us)

    async def _measure(self) -> int:
        """Give the size of the database, in bytes."""
        self.done.size_bytes = await self._database.size_bytes()
        return self.done.size_bytes
