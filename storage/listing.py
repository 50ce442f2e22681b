"""Lists of sessions, traces and spans: filtered, sorted, page by page, and their sums.

Invariants: a page goes on behind the pair (value, seq) at which the last one ended, so that while
rows arrive none comes twice and none is left out, unless its own value changes. The work of one
page is bounded, whatever is asked: by its limit, and where a filter passes over rows by
``LOOKED_AT`` of them; then it may be short, and the next goes on behind them. Conditions are made
by conditions.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from storage import fulltext, packed_spans
from storage.clauses import Query, Rows
from storage.conditions import Where, amount, where
from storage.database import Database, Row, Value
from storage.packed_spans import SAID_BYTES, PackedSpan, pack
from storage.queries import (
    OUTLINE_FIELDS,
    SESSION_FIELDS,
    TRACE_FIELDS,
    WITH_MODELS,
    outline_of,
    sessions_of,
    trace_of,
)
from storage.records import Page, Session, Span, Trace
from storage.totals import Totals

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

T = TypeVar("T")
After = tuple[int, int]

# Rows that a filter looks at for one page: up to 2 us each.
LOOKED_AT: Final = 100_000
# The same where of each session all spans may be looked at: 100 us.
LOOKED_AT_BY_SPANS: Final = 2_000
# Spans that are read at once for an answer, which may be full before.
SPANS_AT_ONCE: Final = 1_000
# Traces or spans that are sorted in an order without an index: 0.3 us each.
SORTED: Final = 500_000


def _known(key: str, rows: Rows) -> str:
    return f"COALESCE({amount(key, rows)}, -1)"


# What each list is sorted by, the default first; what is unknown counts as -1, less than nothing.
ORDERS: Final[dict[Rows, dict[str, str]]] = {
    "sessions": {
        "last_active": "s.last_active_at_us",
        "started": "s.first_started_at_us",
        "cost": "s.cost_order_nusd",
        "tokens": "s.tokens_order",
        **{key: _known(key, "sessions") for key in ("input_tokens", "output_tokens", "duration")},
        "latency": "CASE WHEN s.ended_trace_count > 0"
        " THEN s.ended_duration_us / s.ended_trace_count ELSE -1 END",
        **{key: amount(key, "sessions") for key in ("traces", "spans", "errors")},
    },
    "traces": {
        "started": "s.started_at_us",
        **{key: _known(key, "traces") for key in ("duration", "cost", "tokens")},
    },
    "spans": {
        "started": "s.started_at_us",
        **{key: _known(key, "spans") for key in ("duration", "cost", "tokens")},
    },
}
# Those that an index has.
INDEXED: Final[dict[Rows, frozenset[str]]] = {
    "sessions": frozenset(("last_active", "cost", "tokens")),
    "traces": frozenset(("started",)),
    "spans": frozenset(("started",)),
}


class TooManyRows(ValueError):
    """A list cannot be sorted as asked, since too many rows would have to be read for it."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a list is sorted by: a key of ``ORDERS``, and ties by arrival."""

    by: str
    descending: bool = True


NEWEST_SESSIONS: Final = Order("last_active")
NEWEST: Final = Order("started")

PAGE_OF_SESSIONS: Final = f"""
SELECT s.place, s.seq, {SESSION_FIELDS} FROM (
  SELECT s.*, {{place}} AS place FROM sessions s WHERE {{where}} ORDER BY {{order}} LIMIT :limit
) s {WITH_MODELS} ORDER BY s.place {{direction}}, s.seq {{direction}}, m.model
"""


async def list_sessions(
    db: Database,
    project_id: int,
    limit: int,
    after: After | None = None,
    *,
    query: Query | None = None,
    order: Order = NEWEST_SESSIONS,
    now_us: int = 0,
) -> Page[Session]:
    """List sessions, the most recently active first; ages in a query are counted from now."""
    query = query or Query("sessions")
    plan, found = await _find(db, PAGE_OF_SESSIONS, project_id, limit, after, query, order, now_us)
    return _page(plan, found, sessions_of(row[2:] for row in found), limit)


PAGE_OF_TRACES: Final = f"""
SELECT {{place}}, s.seq, {TRACE_FIELDS} FROM traces s
WHERE {{where}} ORDER BY {{order}} LIMIT :limit
"""


async def list_traces(
    db: Database,
    project_id: int,
    limit: int,
    after: After | None = None,
    *,
    query: Query | None = None,
    order: Order = NEWEST,
    now_us: int = 0,
) -> Page[Trace]:
    """List traces, the newest first.

    Raises:
        TooManyRows: in an order that is not that of time.
    """
    query = query or Query("traces")
    plan, found = await _find(db, PAGE_OF_TRACES, project_id, limit, after, query, order, now_us)
    return _page(plan, found, [trace_of(row[2:]) for row in found], limit)


PAGE_OF_SPANS: Final = f"""
SELECT {{place}}, s.seq, {SAID_BYTES}, {OUTLINE_FIELDS} FROM spans s
WHERE {{where}} ORDER BY {{order}} LIMIT :limit
"""


async def list_outlines(
    db: Database,
    project_id: int,
    limit: int,
    after: After | None = None,
    *,
    query: Query | None = None,
    order: Order = NEWEST,
    now_us: int = 0,
) -> Page[Span]:
    """List spans in outline, the newest first.

    Raises:
        TooManyRows: in an order that is not that of time.
    """
    query = query or Query("spans")
    plan, found = await _find(db, PAGE_OF_SPANS, project_id, limit, after, query, order, now_us)
    return _page(plan, found, [outline_of(row[3:]) for row in found], limit)


async def list_spans(
    db: Database,
    project_id: int,
    limit: int,
    after: After | None = None,
    *,
    query: Query | None = None,
    order: Order = NEWEST,
    now_us: int = 0,
) -> Page[PackedSpan]:
    """List spans with all that was said of them, the newest first, as many as one answer holds.

    Raises:
        DatabaseCorrupt: something that was said is larger than any that was stored.
        TooManyRows: in an order that is not that of time.
    """
    query = query or Query("spans")
    taken: list[PackedSpan] = []
    left = packed_spans.ANSWER_BYTES
    while True:
        most, least = min(limit - len(taken), SPANS_AT_ONCE), 0 if taken else 1
        plan, found = await _find(db, PAGE_OF_SPANS, project_id, most, after, query, order, now_us)
        rows = [row[1:] for row in found[:most]]
        packed, left = await pack(db, project_id, rows, left, least=least)
        if packed or not rows:
            # It goes on behind those that there was room for.
            after = _page(plan, found, found, len(packed)).next_after
        taken += packed
        if after is None or len(packed) < most or len(taken) == limit:
            return Page(tuple(taken), after, plan.truncated)


SESSION_HITS: Final = "s.session_id, s.starred FROM sessions"
TRACE_HITS: Final = "s.trace_id FROM traces"
PAGE_OF_HITS: Final = """
SELECT {{place}}, s.seq, {hits} s WHERE {{where}} ORDER BY {{order}} LIMIT :limit
"""


async def list_hits(
    db: Database,
    project_id: int,
    limit: int,
    after: After | None,
    *,
    query: Query,
    order: Order,
    now_us: int,
) -> Page[Row]:
    """List what is found by a query in an order that has an index, without what it is.

    Rows are (seq, session id, starred) or (seq, trace id).
    """
    hits = SESSION_HITS if query.rows == "sessions" else TRACE_HITS
    page = PAGE_OF_HITS.format(hits=hits)
    plan, found = await _find(db, page, project_id, limit, after, query, order, now_us)
    return _page(plan, found, [row[1:] for row in found], limit)


def _sums(*values: str) -> str:
    # In 64 bits; PostgreSQL's sums have more.
    return ", ".join(f"CAST(SUM({value}) AS BIGINT)" for value in values)


_COUNTS: Final[dict[Rows, str]] = {
    "sessions": f"COUNT(*), {_sums('s.trace_count', 's.span_count', 's.failed_trace_count')}",
    "traces": f"NULL, COUNT(*), {_sums('s.span_count', amount('errors', 'traces'))}",
}
_AMOUNTS: Final = _sums(
    *("s.unpriced_count", "s.estimated_count", "s.input_tokens", "s.output_tokens", "s.cost_nusd")
)
TOTALS: Final = f"SELECT {{counts}}, {_AMOUNTS} FROM {{rows}} s WHERE {{where}}"


async def totals(db: Database, project_id: int, query: Query, now_us: int = 0) -> Totals:
    """Sum up the sessions or traces that a query finds; of too many, the newest."""
    order = NEWEST_SESSIONS if query.rows == "sessions" else NEWEST
    plan = await _plan(db, project_id, None, query, order, now_us, bounded=True)
    sql = TOTALS.format(counts=_COUNTS[query.rows], rows=query.rows, where=plan.where)
    (row,) = await db.read(sql, plan.params)
    sessions, traces, *counts = row
    spans, failed, unpriced, estimated = (n or 0 for n in counts[:4])
    return Totals(
        session_count=sessions,
        trace_count=traces or 0,
        span_count=spans,
        failed_trace_count=failed,
        unpriced_count=unpriced,
        estimated_count=estimated,
        input_tokens=counts[4],
        output_tokens=counts[5],
        cost_nusd=counts[6],
        truncated=plan.truncated or plan.edge is not None,
    )


@dataclass(slots=True)
class _Plan:
    """Which rows are read, in which order.

    Rows behind ``edge`` are not looked at; None: all are. ``truncated``: nor all hits of a word.
    """

    where: str
    place: str
    direction: str
    params: dict[str, Value]
    edge: After | None = None
    truncated: bool = False

    @property
    def order(self) -> str:
        """What the rows are sorted by."""
        return f"{self.place} {self.direction}, s.seq {self.direction}"


async def _find(
    db: Database,
    statement: str,
    project_id: int,
    limit: int,
    after: After | None,
    query: Query,
    order: Order,
    now_us: int,
) -> tuple[_Plan, list[Row]]:
    plan = await _plan(db, project_id, after, query, order, now_us)
    sql = statement.format(
        place=plan.place, where=plan.where, order=plan.order, direction=plan.direction
    )
    # One row more than asked tells whether there is another page.
    return plan, await db.read(sql, {**plan.params, "limit": limit + 1})


def _page(plan: _Plan, rows: Sequence[Row], records: Sequence[T], limit: int) -> Page[T]:
    """Make a page of the records that these rows are of; they begin with their place."""
    if len(records) <= limit:
        return Page(tuple(records), plan.edge, plan.truncated)
    # A session comes once for each of its models.
    places = list(dict.fromkeys((row[0], row[1]) for row in rows))
    return Page(tuple(records[:limit]), places[limit - 1], plan.truncated)


async def _plan(
    db: Database,
    project_id: int,
    after: After | None,
    query: Query,
    order: Order,
    now_us: int,
    *,
    bounded: bool = False,
) -> _Plan:
    """Decide how rows are found; ``bounded``: all are to be read, not only a page of them."""
    matches = {
        words.text: await fulltext.look_up(db, project_id, words.text) for words in query.words
    }
    found = where(query, now_us, matches)
    of_project = f"{_project(query.rows, found)} = :project_id"
    plan = _Plan(
        of_project,
        ORDERS[query.rows][order.by],
        "DESC" if order.descending else "ASC",
        {**found.params, "project_id": project_id},
        truncated=any(match.is_truncated for match in matches.values()),
    )
    if after is not None:
        sign = "<" if order.descending else ">"
        plan.where += f" AND ({plan.place}, s.seq) {sign} (:after_value, :after_seq)"
        plan.params["after_value"], plan.params["after_seq"] = after
    if order.by not in INDEXED[query.rows]:
        if query.rows != "sessions":
            bounds = found.sql if found.selects else found.bounds
            await _check_sorted(db, plan, query, of_project + bounds)
    elif found.selects:
        plan.place += " + 0"
    elif found.rest or bounded:
        await _set_edge(db, plan, query.rows, found, order)
    plan.where += found.sql
    return plan


def _project(rows: Rows, found: Where) -> str:
    """Give the column of the project, or where it must not be looked up by an index a sum of it.

    SQLite expects few rows of a project, and would read all of them before those of few words, or
    before those in the order of an index that does not begin with it.
    """
    by_session = found.selects and not found.by_words
    if (rows == "spans" and not by_session) or (rows == "sessions" and found.by_words):
        return "s.project_id + 0"
    return "s.project_id"


COUNT_SORTED: Final = f"""
SELECT COUNT(*) FROM (SELECT 1 FROM {{rows}} s WHERE {{where}} LIMIT {SORTED + 1}) AS found
"""


async def _check_sorted(db: Database, plan: _Plan, query: Query, where: str) -> None:
    by_time = f"{query.rows} are sorted by started; in another order only"
    if not query.is_narrow:
        raise TooManyRows(f"{by_time} those of a session (session:ID) or of a time (since:24h)")
    ((count,),) = await db.read(COUNT_SORTED.format(rows=query.rows, where=where), plan.params)
    if count > SORTED:
        raise TooManyRows(f"{by_time} up to {SORTED} of them, so let since: be shorter")


FIND_EDGE: Final = """
SELECT {place}, s.seq FROM {rows} s WHERE {where} ORDER BY {order} LIMIT 1 OFFSET :looked_at
"""


async def _set_edge(db: Database, plan: _Plan, rows: Rows, found: Where, order: Order) -> None:
    """Bound what is looked at: find the first row that is not, where there is one."""
    # Only in the order of time are the bounds those of the index.
    bounds = found.bounds if order.by in ("last_active", "started") else ""
    sql = FIND_EDGE.format(place=plan.place, rows=rows, where=plan.where + bounds, order=plan.order)
    looked_at = LOOKED_AT_BY_SPANS if found.by_spans else LOOKED_AT
    behind = await db.read(sql, {**plan.params, "looked_at": looked_at})
    if behind:
        # Between it and the row before: the next page goes on with it.
        ((value, seq),) = behind
        plan.edge = value, seq + (1 if order.descending else -1)
        sign = ">=" if order.descending else "<="
        plan.where += f" AND ({plan.place}, s.seq) {sign} (:edge_value, :edge_seq)"
        plan.params["edge_value"], plan.params["edge_seq"] = plan.edge
