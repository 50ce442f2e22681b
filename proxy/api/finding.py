"""How a list is read, whatever its rows are: a page of it, or the sums over all of them.

Invariant: a search by words finds what was saved before it. What is asked for is lists.py's.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web

from proxy.access import project_id
from proxy.api import lists
from proxy.api.params import BadParameter
from proxy.api.views import TotalsView, totals_view
from proxy.recorder import Recorder
from storage import listing
from storage.clauses import Rows
from storage.database import Database
from storage.records import Page

T = TypeVar("T")


class Finder:
    """Reads lists of sessions, traces and spans."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder

    async def page(
        self, project: int, read: Callable[..., Awaitable[Page[T]]], asked: lists.Asked
    ) -> Page[T]:
        """Read a page of a project's rows by one of listing.py's functions.

        Raises:
            BadParameter: there are too many rows for the order that is asked for.
        """
        if asked.query.words:
            await self._recorder.indexed()
        try:
            return await read(
                self._database,
                project,
                asked.limit,
                asked.after,
                query=asked.query,
                order=asked.order,
                now_us=asked.now_us,
            )
        except listing.TooManyRows as error:
            raise BadParameter(str(error), "sort_by") from None

    async def sums(self, request: web.Request, rows: Rows) -> TotalsView:
        """Give the sums over all pages of the list that a request's `q` finds."""
        query = lists.query(request, rows)
        if query.words:
            await self._recorder.indexed()
        sums = await listing.totals(self._database, project_id(request), query, lists.now_us())
        return totals_view(sums)
