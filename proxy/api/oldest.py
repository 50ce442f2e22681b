"""What goes next where the database is above its cap: the oldest, of whatever project it is.

Invariants: sessions by their last activity, and traces without one by their start, come in one
order, each once; of each project only a page is held. What is old is storage.retention's.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from proxy.api.pace import Pace
from storage import retention
from storage.database import Database
from storage.retention import BEGINNING, Kind, Old, Place

KINDS: Final[tuple[Kind, ...]] = ("sessions", "lone traces")


@dataclass(slots=True)
class _Pages:
    """What is old of one kind in a project: found, and from where on it is looked for."""

    kind: Kind
    project_id: int
    found: deque[Old] = field(default_factory=deque)
    place: Place | None = BEGINNING


class Oldest:
    """Gives, one after the other, what was last active before a moment."""

    def __init__(self, database: Database, pace: Pace, before_us: int) -> None:
        self._database = database
        self._pace = pace
        self._before_us = before_us
        self._pages: list[_Pages] | None = None
        self._heads: list[tuple[int, int]] = []  # when each was active, and the number of its pages

    async def next(self) -> Old | None:
        """Give the oldest that was not given yet; None where there is none.

        Raises StorageError.
        """
        if self._pages is None:
            projects = await retention.projects(self._database)
            self._pages = [_Pages(kind, project_id) for project_id in projects for kind in KINDS]
            for number in range(len(self._pages)):
                await self._look(self._pages, number)
        if not self._heads:
            return None
        _, number = heapq.heappop(self._heads)
        old = self._pages[number].found.popleft()
        await self._look(self._pages, number)
        return old

    async def _look(self, of: list[_Pages], number: int) -> None:
        """Have the first of these pages among the heads, if there is any."""
        pages = of[number]
        while not pages.found and pages.place is not None:
            read = partial(
                retention.old,
                self._database,
                pages.kind,
                pages.project_id,
                self._before_us,
                pages.place,
            )
            found, pages.place = await self._pace.look(read)
            pages.found.extend(found)
        if pages.found:
            heapq.heappush(self._heads, (pages.found[0].at_us, number))
