"""The event hubs of all projects: one for each in which somebody watches, or did.

Owns how many may watch, and the pruning of the log that all share. Invariant: who watches a project
is told of no other.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Set
from contextlib import asynccontextmanager
from typing import Final

from proxy.api.frames import Wants
from proxy.api.hub import RING_BYTES, Hub
from proxy.api.live import LiveTexts
from proxy.call import Call
from proxy.recorder import Recorder
from proxy.tasks import spawn
from storage import events
from storage.database import Database, StorageError

# Each is a connection, a task and some KiB.
MAX_SUBSCRIBERS: Final = 1000
# The log is pruned so often; in between it may grow beyond its bound.
PRUNE_S: Final = 60.0


class TooManySubscribers(Exception):
    """Nobody else may watch."""


class Hubs:
    """Hands each project's events on to those who watch it."""

    def __init__(self, database: Database, in_flight: Set[Call]) -> None:
        self._database = database
        self._in_flight = in_flight
        self._hubs: dict[int, Hub] = {}
        self._all: tuple[Hub, ...] = ()  # read by the recorder's thread, so never changed itself
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def subscribers(self) -> int:
        """How many watch, over all projects."""
        return sum(hub.subscribers for hub in self._all)

    @property
    def newest(self) -> int:
        """The newest number that somebody who watches may have been given; 0 where none was."""
        return max((hub.newest for hub in self._all), default=0)

    def told(self) -> None:
        """Take note that something was committed, in any thread."""
        for hub in self._all:
            hub.told()

    def begin_anew(self, newest: int) -> None:
        """Have all who watch begin anew, where the log now ends with ``newest``."""
        for hub in self._all:
            hub.begin_anew(newest)

    @asynccontextmanager
    async def subscribe(
        self, project_id: int, since: int | None, wants: Wants
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give what comes in a project after event ``since``, or from now on.

        Raises:
            TooManySubscribers: there are as many as there may be.
            StorageError: the log cannot be read.
        """
        if self.subscribers >= MAX_SUBSCRIBERS:
            raise TooManySubscribers
        async with self._of(project_id).subscribe(since, wants) as frames:
            yield frames

    async def prune_forever(self, recorder: Recorder, leads: Callable[[], bool]) -> None:
        """Have the log pruned from time to time, piece by piece, between the calls.

        Of those who share the database, by the one that ``leads``.
        """
        while True:
            await asyncio.sleep(PRUNE_S)
            try:
                while leads() and await recorder.write(events.prune, ()):
                    pass
            except StorageError:
                continue  # the next time

    def close(self) -> None:
        """End all subscriptions, and all work for them."""
        for hub in self._all:
            hub.close()
        for task in self._tasks:
            task.cancel()

    def _of(self, project_id: int) -> Hub:
        if (hub := self._hubs.get(project_id)) is None:
            texts = LiveTexts(self._in_flight, project_id)
            hub = Hub(self._database, project_id, texts, self._share_bytes)
            self._hubs[project_id] = hub
            self._all = tuple(self._hubs.values())
            self._tasks.append(spawn(hub.run(), f"events of project {project_id}"))
        return hub

    def _share_bytes(self) -> int:
        """Give what the ring of one project may hold while others are watched as well."""
        return RING_BYTES // max(1, sum(1 for hub in self._all if hub.subscribers))
