"""What a list is asked for: filter, order, page; and the cursor that goes on with it. Pure.

Invariant: a cursor goes on with the list that gave it and with no other; ages in a query are
counted from the moment of the first page in all that follow.
"""

import base64
import binascii
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from aiohttp import web

from proxy.api import params
from proxy.api.params import BadParameter
from storage.clauses import Condition, Query, Rows
from storage.listing import ORDERS, After, Order
from storage.records import Page
from storage.search import SearchError, parse

T = TypeVar("T")

_CURSOR: Final = re.compile(r"(-?[0-9]{1,19}):([0-9]{1,19}):([0-9]{1,19}):([0-9a-f]{16})")


class BadQuery(BadParameter):
    """`q` is no query; `position` is where, in characters from 0."""

    def __init__(self, error: SearchError) -> None:
        super().__init__(f"q, {error}", "q")
        self.position = error.position


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A page of a list, as a request asks for it. `now_us` is what ages are counted from."""

    query: Query
    order: Order
    limit: int
    after: After | None
    now_us: int

    def cursor(self, page: Page[T]) -> str | None:
        """Write the cursor that goes on behind a page of this list; None at the end."""
        if page.next_after is None:
            return None
        value, seq = page.next_after
        text = f"{value}:{seq}:{self.now_us}:{_digest(self.query, self.order)}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def answer(self, page: Page[T], views: Sequence[object]) -> dict[str, object]:
        """Give the answer that holds a page."""
        answer: dict[str, object] = {self.query.rows: views, "count": len(views)}
        if page.truncated:
            answer["truncated"] = True
        if (cursor := self.cursor(page)) is not None:
            answer["cursor"] = cursor
        return answer


def asked(request: web.Request, rows: Rows, *more: Condition) -> Asked:
    """Read `q`, `sort_by`, `sort_order`, `limit` and `cursor`; rows fulfil `more` as well.

    Raises:
        BadParameter: one of them is not what it can be.
    """
    by = request.query.get("sort_by", next(iter(ORDERS[rows])))
    if by not in ORDERS[rows]:
        choices = ", ".join(ORDERS[rows])
        raise BadParameter(f"sort_by must be one of {choices}, not {by[:40]!r}", "sort_by")
    direction = request.query.get("sort_order", "desc")
    if direction not in ("asc", "desc"):
        raise BadParameter(f"sort_order must be asc or desc, not {direction[:40]!r}", "sort_order")
    found = query(request, rows)
    return page_of(
        request,
        Query(rows, (*found.conditions, *more)),
        Order(by, descending=direction == "desc"),
        params.limit(request),
    )


def query(request: web.Request, rows: Rows) -> Query:
    """Read `q`.

    Raises:
        BadQuery: it is none.
    """
    try:
        return parse(request.query.get("q", ""), rows)
    except SearchError as error:
        raise BadQuery(error) from None


def page_of(request: web.Request, query: Query, order: Order, limit: int) -> Asked:
    """Read `cursor` of a list of which all else is known.

    Raises:
        BadParameter: an earlier page of this list did not give it.
    """
    after, now_us = _read_cursor(request.query.get("cursor", ""), _digest(query, order))
    return Asked(query=query, order=order, limit=limit, after=after, now_us=now_us)


def now_us() -> int:
    """Give the time in microseconds UTC."""
    return time.time_ns() // 1000


def _read_cursor(text: str, digest: str) -> tuple[After | None, int]:
    if not text:
        return None, now_us()
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        found = _CURSOR.fullmatch(data.decode("ascii"))
    except (binascii.Error, ValueError):
        found = None
    numbers = [] if found is None else [int(n) for n in found.groups()[:3]]
    if found is None or any(abs(n) >= 2**62 for n in numbers):
        raise BadParameter("cursor must be the one that an earlier page gave", "cursor")
    if found[4] != digest:
        raise BadParameter(
            "cursor is of a list with another q, filter, sort_by or sort_order", "cursor"
        )
    value, seq, now = numbers
    return (value, seq), now


def _digest(query: Query, order: Order) -> str:
    text = f"{query.rows} {order.by} {order.descending} {query}"
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
