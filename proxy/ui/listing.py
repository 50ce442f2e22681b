"""What a list shows: the answer of the API, as it was asked for, and the addresses around it.

The seam to `proxy.api`: what its lists take and give is named here and nowhere else in the pages.
A query that it refuses is shown with the reason. Invariant: all state of a list is in its address.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from proxy.api.lists import BadQuery
from proxy.api.params import BadParameter
from storage.clauses import Query, Rows
from storage.search import SearchError, parse

# More parts than anybody reads one by one.
MAX_CLAUSES: Final = 8

_STARRED: Final = "starred:true"

Find = Callable[[web.Request], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A list: its path, the key of its rows in the API's answer, and how it is sorted unasked."""

    path: str
    rows: Rows
    sort_by: str


SESSIONS: Final = Kind("/sessions", "sessions", "last_active")
TRACES: Final = Kind("/traces", "traces", "started")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a list was refused; of a query, `position` is where, in characters from 0."""

    message: str
    position: int | None


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a query that matched nothing; how to go on without.

    ``empty``: alone it matches nothing either; None where not every row was looked at for it.
    """

    text: str
    empty: bool | None
    without: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A page of a list. `cursor` leads to the next one; None at the end."""

    kind: Kind
    rows: Sequence[Any]
    q: str
    sort_by: str
    descending: bool
    first: bool
    limit: str = ""
    narrow: bool = False
    cursor: str | None = None
    truncated: bool = False
    problem: Problem | None = None
    clauses: Sequence[Clause] = ()

    @property
    def takes_new(self) -> bool:
        """Say whether what is new belongs at the top of this page."""
        return self.first and self.sort_by == self.kind.sort_by and self.descending

    @property
    def matches_nothing(self) -> bool:
        """Say whether all was looked at, and nothing fits the query."""
        asks = bool(self.q.strip()) and not self.problem
        return asks and self.first and not self.rows and not self.cursor

    @property
    def next(self) -> str:
        """Give the address of the next page."""
        return self._address(cursor=self.cursor or "")

    @property
    def start(self) -> str:
        """Give the address of the first page."""
        return self._address()

    @property
    def without_q(self) -> str:
        """Give the address of the whole list."""
        return self.asking("")

    @property
    def totals(self) -> str:
        """Give the address of the sums over all that the query finds."""
        return f"{self.kind.path}/totals?{urlencode({'q': self.q})}"

    @property
    def only_starred(self) -> bool:
        """Say whether the query asks for starred sessions."""
        return _STARRED in self.q.split()

    @property
    def starred(self) -> str:
        """Give the address of the starred ones of this list; of all of it where it is of those."""
        words = self.q.split()
        if self.only_starred:
            return self.asking(" ".join(word for word in words if word != _STARRED))
        return self.asking(f"{self.q.strip()} {_STARRED}".strip())

    def asking(self, q: str) -> str:
        """Give the address of the same list with another query; in its usual order if need be."""
        if self._unbounded(self.sort_by, narrow=_parsed(q, self.kind).is_narrow):
            return self._address(q=q, sort_by="", sort_order="")
        return self._address(q=q)

    def sorted_by(self, key: str) -> str:
        """Give the address of this list sorted by a column, the other way round the second time.

        What cannot be sorted so as a whole begins with what is of a day.
        """
        ascending = key == self.sort_by and self.descending
        unbounded = self._unbounded(key, narrow=self.narrow)
        return self._address(
            q=f"{self.q} since:24h".strip() if unbounded else self.q,
            sort_by=key,
            sort_order="asc" if ascending else "desc",
        )

    def _unbounded(self, key: str, *, narrow: bool) -> bool:
        """Say whether it is too much to be sorted so: all traces are by their start only."""
        return self.kind is TRACES and key != TRACES.sort_by and not narrow

    def _address(self, **changes: str) -> str:
        order = "desc" if self.descending else "asc"
        state = {"q": self.q, "sort_by": self.sort_by, "sort_order": order, "limit": self.limit}
        # What is so anyhow is left out, so that addresses stay short.
        usual = {"sort_by": self.kind.sort_by, "sort_order": "desc"}
        query = urlencode(
            {k: text for k, text in {**state, **changes}.items() if text and text != usual.get(k)}
        )
        return f"{self.kind.path}?{query}" if query else self.kind.path


async def read(request: web.Request, kind: Kind, find: Find) -> Listing:
    """Ask the API for the page of a list that a request names."""
    asked = request.query
    answer: dict[str, Any] = {}
    sort_by, sort_order = asked.get("sort_by") or kind.sort_by, asked.get("sort_order")
    problem = None
    try:
        answer = await find(request)
    except BadParameter as error:
        problem = Problem(str(error), error.position if isinstance(error, BadQuery) else None)
        if error.name in ("sort_by", "sort_order"):
            # What is refused must not be asked for again by all that leads on from here.
            sort_by, sort_order = kind.sort_by, None
    q = asked.get("q", "")
    query = _parsed(q, kind)
    return Listing(
        kind=kind,
        rows=answer.get(kind.rows, ()),
        q=q,
        sort_by=sort_by,
        descending=sort_order != "asc",
        first=not asked.get("cursor"),
        limit=asked.get("limit", ""),
        narrow=query.is_narrow,
        cursor=answer.get("cursor"),
        truncated=bool(answer.get("truncated")),
        problem=problem,
    )


async def clauses(request: web.Request, listing: Listing, find: Find) -> list[Clause]:
    """Ask which parts of a query that matched nothing match nothing by themselves."""
    rows = listing.kind.rows
    parts = _parsed(listing.q, listing.kind).conditions
    found = []
    for n, part in enumerate(parts[:MAX_CLAUSES]):
        text = str(Query(rows, (part,)))
        answer = await find(_asking(request, q=text, limit="1"))
        rest = Query(rows, parts[:n] + parts[n + 1 :])
        empty = None if answer.get("cursor") and not answer[rows] else not answer[rows]
        found.append(Clause(text, empty, listing.asking(str(rest))))
    return found


async def newest(request: web.Request, kind: Kind, find: Find, limit: int = 100) -> Sequence[Any]:
    """Ask for the newest rows of the list whose query a request has."""
    answer = await find(_asking(request, q=request.query.get("q", ""), limit=str(limit)))
    return tuple(answer[kind.rows])


def _parsed(q: str, kind: Kind) -> Query:
    """Read a query; what is none has no parts."""
    try:
        return parse(q, kind.rows)
    except SearchError:
        return Query(kind.rows)


def _asking(request: web.Request, **query: str) -> web.Request:
    return request.clone(rel_url=request.rel_url.with_query(query))
