"""What a list shows: the answer of the API, as it was asked for, and the addresses around it.

The seam to `proxy.api`: what its lists take and give is named here and nowhere else in the pages.
A query that it refuses is shown with the reason. Invariant: all state of a list is in its address.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from proxy.api.params import BadParameter

_POSITION: Final = re.compile(r"\bcharacter (\d+)")

Find = Callable[[web.Request], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A list: its path, the key of its rows in the API's answer, and how it is sorted unasked."""

    path: str
    rows: str
    sort_by: str


SESSIONS: Final = Kind("/sessions", "sessions", "last_active")
TRACES: Final = Kind("/traces", "traces", "started")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a query was refused; `position` counts its characters from 1."""

    message: str
    position: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A page of a list. `cursor` leads to the next one; None at the end."""

    kind: Kind
    rows: Sequence[Any]
    q: str
    sort_by: str
    descending: bool
    first: bool
    cursor: str | None = None
    truncated: bool = False
    problem: Problem | None = None

    @property
    def takes_new(self) -> bool:
        """Say whether what is new belongs at the top of this page."""
        return self.first and self.sort_by == self.kind.sort_by and self.descending

    @property
    def next(self) -> str:
        """Give the address of the next page."""
        return self._address(self.sort_by, self.descending, self.cursor)

    @property
    def start(self) -> str:
        """Give the address of the first page."""
        return self._address(self.sort_by, self.descending)

    def sorted_by(self, key: str) -> str:
        """Give the address of this list sorted by a column, the other way round the second time."""
        return self._address(key, not (key == self.sort_by and self.descending))

    def _address(self, sort_by: str, descending: bool, cursor: str | None = None) -> str:
        usual = sort_by == self.kind.sort_by and descending
        state = {
            "q": self.q,
            "sort_by": "" if usual else sort_by,
            "sort_order": "" if descending else "asc",
            "cursor": cursor or "",
        }
        query = urlencode({name: value for name, value in state.items() if value})
        return f"{self.kind.path}?{query}" if query else self.kind.path


async def read(request: web.Request, kind: Kind, find: Find) -> Listing:
    """Ask the API for the page of a list that a request names."""
    asked = request.query
    answer: dict[str, Any] = {}
    problem = None
    try:
        answer = await find(request)
    except BadParameter as error:
        found = _POSITION.search(str(error))
        problem = Problem(str(error), int(found[1]) if found else None)
    return Listing(
        kind=kind,
        rows=answer.get(kind.rows, ()),
        q=asked.get("q", "").strip(),
        sort_by=asked.get("sort_by") or kind.sort_by,
        descending=asked.get("sort_order") != "asc",
        first=not asked.get("cursor"),
        cursor=answer.get("cursor"),
        truncated=bool(answer.get("truncated")),
        problem=problem,
    )
