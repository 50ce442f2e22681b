"""The event hub: between the log in the database and those who watch it.

Owns the newest events, rendered, in a ring that all share. Subscribers pull: each has a place in
the log and reads on from there when it is woken, so that one that does not read holds nothing here
and delays nobody. Invariants: events come in the order of the log, each once; a commit is read once
for all who watch, and not at all when nobody does; who watches live and falls behind the ring is
told to start anew (``resync``) and dropped; so is everybody where the log itself lost its newest
numbers, as that of a database that came back without its last commits. What has no place in the
ring any more, a subscriber that comes back reads from the log for itself.
"""

import asyncio
import bisect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from proxy.api.frames import RESYNC, Page, Wants, greeting, heartbeat, pages, render
from proxy.api.live import LiveTexts
from storage import events, queries
from storage.database import Database, StorageError
from storage.events import SESSION_UPDATED, TRACE_CREATED, TRACE_UPDATED

# The log is read and those who watch are woken at most so often: under load a batch of commits for
# each time, up to some 10,000 events/s. Nobody sees the difference, and 200 of them cost a tenth of
# what they would at each commit.
PAUSE_S: Final = 0.050
# While the log cannot be read, so seldom in the end.
MAX_PAUSE_S: Final = 1.0
# What the rings of all projects hold: at 1,000 calls/s some seconds.
RING_BYTES: Final = 16 * 1024 * 1024
HEARTBEAT_S: Final = 15.0


class Hub:
    """Hands the events of one project on. ``subscribers`` is how many watch.

    ``ring_bytes`` says how much its ring may hold; the newest page it always may.
    """

    def __init__(
        self,
        database: Database,
        project_id: int,
        texts: LiveTexts,
        ring_bytes: Callable[[], int] = lambda: RING_BYTES,
    ) -> None:
        self.subscribers = 0
        self._database = database
        self._project_id = project_id
        self._texts = texts
        self._bound_bytes = ring_bytes
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._news = asyncio.Event()
        self._grown = asyncio.Event()
        # Pages that follow each other, from the number `_floor` up to `_last`.
        self._ring: list[Page] = []
        self._ring_bytes = 0
        self._floor = self._last = self._greeted = 0
        self._beginning = 0

    @property
    def newest(self) -> int:
        """The newest number that somebody who watches may have been given; 0 where none was."""
        return max(self._last, self._greeted)

    def told(self) -> None:
        """Take note that something was committed, in any thread; nothing where nobody watches."""
        if self.subscribers:
            self._loop.call_soon_threadsafe(self._news.set)

    def begin_anew(self, newest: int) -> None:
        """Have all who watch begin anew, where the log now ends with ``newest``."""
        self._beginning += 1
        self._ring.clear()
        self._ring_bytes = 0
        self._floor = self._last = self._greeted = newest
        self._wake()

    async def run(self) -> None:
        """Read what is committed and wake those who watch, for ever."""
        pause_s = PAUSE_S
        while True:
            if not self._texts.busy:
                await self._news.wait()
            # Texts come after their call's beginning: its start is committed before its answer
            # begins, so the log that is read now has those of all that are seen here.
            fresh = self._texts.unfollowed()
            if self._news.is_set():
                self._news.clear()
                try:
                    if self.subscribers:
                        await self._read_on()
                    pause_s = PAUSE_S
                except StorageError:
                    self._news.set()  # it may pass with time; who watches waits
                    pause_s = min(2 * pause_s, MAX_PAUSE_S)
            elif self._texts.read_on():
                self._wake()
            self._texts.follow(fresh)
            await asyncio.sleep(pause_s)

    def close(self) -> None:
        """End all subscriptions."""
        self._closing = True
        self._wake()

    @asynccontextmanager
    async def subscribe(
        self, since: int | None, wants: Wants
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give what comes after event ``since``, or from now on, as bytes to write.

        Raises:
            StorageError: the log cannot be read.
        """
        pruned, newest = await events.bounds(self._database)
        if not self.subscribers:  # nobody has kept the ring up
            self._ring.clear()
            self._ring_bytes = 0
            self._floor = self._last = self._greeted = newest
        self._greeted = max(self._greeted, newest)
        self.subscribers += 1
        async with AsyncExitStack() as stack:
            stack.callback(self._leave)
            if wants.progress:
                stack.enter_context(self._texts.watched(wants.session_id))
            self._news.set()
            missed = since is not None and not pruned <= since <= newest
            yield self._follow(newest if since is None or missed else since, missed, wants)

    def _leave(self) -> None:
        self.subscribers -= 1
        if not self.subscribers:  # nobody needs it, and nobody keeps it up
            self._ring.clear()
            self._ring_bytes = 0
            self._floor = self._last

    async def _follow(self, position: int, missed: bool, wants: Wants) -> AsyncIterator[bytes]:
        if missed:
            yield RESYNC
        yield greeting(position)
        texts = self._texts.reader(wants.session_id) if wants.progress else None
        is_live = False
        beginning = self._beginning
        due_s = self._loop.time() + HEARTBEAT_S
        while not self._closing:
            grown = self._grown
            if beginning != self._beginning or (is_live and position < self._floor):
                yield RESYNC
                return
            try:
                found = await self._behind(position)
            except StorageError:
                return  # a client connects again
            if found is None:
                position = self._last
                yield RESYNC + greeting(position)
                continue
            is_silent = True
            if texts is not None and (data := texts.read()):
                yield data
                is_silent = False
            for page in found:
                if data := wants.of(page, position):
                    yield data
                    is_silent = False
                position = page.last
            if not is_silent:
                due_s = self._loop.time() + HEARTBEAT_S
            elif not found:
                is_live = True
                try:
                    async with asyncio.timeout_at(due_s):
                        await grown.wait()
                except TimeoutError:
                    yield heartbeat(position)
                    due_s = self._loop.time() + HEARTBEAT_S

    async def _behind(self, position: int) -> Sequence[Page] | None:
        """Give the next pages behind a place; none at the end, None where they were pruned."""
        if position >= self._floor:
            at = bisect.bisect_right(self._ring, position, key=_last_of)
            return self._ring[at : at + 1]
        floor = self._floor
        found = await self._pages(position)
        pruned, _ = await events.bounds(self._database)
        # Where the log has nothing up to the ring, all that happened was of other projects.
        return None if pruned > position else found or [Page(position, floor, (), b"")]

    async def _read_on(self) -> None:
        """Put into the ring what was committed since it was last read, a bounded part of it."""
        after = self._last
        found = await self._pages(after)
        if after != self._last:
            return  # the ring began anew meanwhile
        has_grown = self._texts.read_on()  # what a call said comes before its end
        for page in found:
            self._ring.append(page)
            self._ring_bytes += page.held_bytes
            self._last = page.last
        self._drop_oldest()
        if found:
            self._news.set()  # there may be more: the next time
        if found or has_grown:
            self._wake()

    def _drop_oldest(self) -> None:
        dropped = 0
        bound_bytes = self._bound_bytes()
        while self._ring_bytes > bound_bytes and dropped < len(self._ring) - 1:
            self._floor = self._ring[dropped].last
            self._ring_bytes -= self._ring[dropped].held_bytes
            dropped += 1
        del self._ring[:dropped]

    async def _pages(self, after: int) -> list[Page]:
        """Read on in the log, with the rows that the events name."""
        told = await events.read_after(self._database, self._project_id, after)
        changed = {one.event.session_id for one in told if one.event.type == SESSION_UPDATED}
        sessions = {one for one in changed if one is not None}
        traces = {
            one.event.trace_id
            for one in told
            if one.event.trace_id is not None and one.event.type in (TRACE_CREATED, TRACE_UPDATED)
        }
        return list(
            pages(
                after,
                render(
                    told,
                    await queries.get_sessions(self._database, self._project_id, sessions),
                    await queries.get_traces(self._database, self._project_id, traces),
                ),
            )
        )

    def _wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


def _last_of(page: Page) -> int:
    return page.last
