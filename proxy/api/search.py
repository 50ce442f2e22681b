"""Completion of a query over HTTP."""

from aiohttp import web

from proxy.access import project_id
from proxy.api.answers import json_answer
from proxy.api.params import BadParameter
from storage import suggest
from storage.clauses import STATUSES
from storage.database import Database
from storage.search import MAX_CHARS


class Search:
    """The handler of /api/search/suggest."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def suggest(self, request: web.Request) -> web.Response:
        """GET /api/search/suggest?q=&at=&rows=: what may stand where the cursor is.

        `at` counts characters from 0, and is the end of `q` unless it is said.
        """
        query = request.query.get("q", "")
        if len(query) > MAX_CHARS:
            raise BadParameter(f"q may have {MAX_CHARS} characters", "q")
        at = request.query.get("at", str(len(query)))
        if not (at.isascii() and at.isdigit() and len(at) <= 6 and int(at) <= len(query)):
            raise BadParameter(f"at must be a place in q, from 0 to {len(query)}", "at")
        for rows in STATUSES:
            if rows == request.query.get("rows", "sessions"):
                found = await suggest.suggest(
                    self._database, project_id(request), query, int(at), rows
                )
                return json_answer(found)
        raise BadParameter(f"rows must be one of {', '.join(STATUSES)}", "rows")
