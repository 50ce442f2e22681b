"""How the figures of a session divide: by model, by state, turn by turn, call by call.

Invariant: the parts are read from the same rows of which the session's sums are made, so that they
add up to them. Reads only; the sums themselves are aggregates.py's.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from storage.database import Database, Value
from storage.parameters import clean_text
from storage.queries import SELECT_OUTLINES, SELECT_TRACES, read_outlines, trace_of
from storage.records import Span, Trace

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# Turns of one session that are read: as many traces as an answer gives of it.
MAX_TURNS: Final = 10_000
# Spans of one page of traces: more than these are of a trace that is read by itself.
MAX_SPANS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShare:
    """What the calls of a session to one model took; sums and means are None where unknown.

    ``model`` is None for calls that named none. The means are over the calls that have the value.
    """

    model: str | None
    calls: int
    input_tokens: int | None
    output_tokens: int | None
    cost_nusd: int | None
    unpriced: int
    estimated: int
    mean_duration_us: int | None
    mean_first_token_us: int | None


# Means are cut to a whole number; AVG would be rounded by one database and cut by the other.
# What is billed, once: neither steps of an agent that took nothing, nor what saw a call as well.
# CROSS: SQLite would begin with all spans of the project.
MODEL_SHARES: Final = """
SELECT COALESCE(s.model, s.model_requested), COUNT(*), CAST(SUM(s.input_tokens) AS BIGINT),
CAST(SUM(s.output_tokens) AS BIGINT), CAST(SUM(s.cost_nusd) AS BIGINT),
SUM(CASE WHEN s.cost_status = 'unpriced' THEN 1 ELSE 0 END),
SUM(CASE WHEN s.usage_source = 'estimated' THEN 1 ELSE 0 END),
CAST(SUM(s.duration_us) AS BIGINT) / COUNT(s.duration_us),
CAST(SUM(s.first_token_us) AS BIGINT) / COUNT(s.first_token_us)
FROM traces t CROSS JOIN spans s
WHERE s.project_id = t.project_id AND s.trace_id = t.trace_id
  AND t.project_id = :project_id AND t.session_id = :session_id AND s.same_call IS NULL
  AND (s.kind IN ('llm_call', 'embedding')
    OR COALESCE(s.input_tokens, s.output_tokens, s.cost_nusd) IS NOT NULL)
GROUP BY COALESCE(s.model, s.model_requested)
"""


async def model_shares(db: Database, project_id: int, session_id: str) -> list[ModelShare]:
    """Sum up a session's calls by model, the dearest first."""
    rows = await db.read(MODEL_SHARES, _key(project_id, session_id))
    names = list(ModelShare.__dataclass_fields__)
    shares = [ModelShare(**dict(zip(names, row, strict=True))) for row in rows]
    return sorted(shares, key=lambda one: (-(one.cost_nusd or 0), -one.calls, one.model or ""))


TRACE_STATES: Final = """
SELECT status, COUNT(*) FROM traces WHERE project_id = :project_id AND session_id = :session_id
GROUP BY status
"""


async def trace_states(db: Database, project_id: int, session_id: str) -> dict[str, int]:
    """Count a session's traces by status."""
    return dict(await db.read(TRACE_STATES, _key(project_id, session_id)))


class TurnSum(NamedTuple):
    """What one trace of a session took; None is unknown."""

    trace_id: bytes
    status: str
    cost_nusd: int | None
    total_tokens: int | None


TURN_SUMS: Final = """
SELECT trace_id, status, cost_nusd, CASE WHEN input_tokens IS NULL THEN output_tokens
  WHEN output_tokens IS NULL THEN input_tokens ELSE input_tokens + output_tokens END
FROM traces WHERE project_id = :project_id AND session_id = :session_id
ORDER BY started_at_us DESC, seq DESC LIMIT :limit
"""


async def turn_sums(db: Database, project_id: int, session_id: str) -> list[TurnSum]:
    """Read what each of a session's newest ``MAX_TURNS`` traces took, oldest first."""
    rows = await db.read(TURN_SUMS, {**_key(project_id, session_id), "limit": MAX_TURNS})
    return [TurnSum._make(row) for row in reversed(rows)]


PAGE_TRACES: Final = f"""
{SELECT_TRACES} AND s.session_id = :session_id
ORDER BY s.started_at_us, s.seq LIMIT :limit OFFSET :start
"""


async def page_traces(
    db: Database, project_id: int, session_id: str, start: int, limit: int
) -> list[Trace]:
    """Read so many traces of a session, oldest first, from the one at ``start`` on."""
    key = {**_key(project_id, session_id), "start": start, "limit": limit}
    return [trace_of(row) for row in await db.read(PAGE_TRACES, key)]


# A span inside of another is read where it is a call that counts: what else an agent does stands in
# its trace.
_SHOWN: Final = """(
  s.parent_id IS NULL OR (s.kind = 'llm_call' AND s.same_call IS NULL) OR NOT EXISTS (
    SELECT 1 FROM spans p WHERE p.project_id = s.project_id AND p.trace_id = s.trace_id
    AND p.span_id = s.parent_id AND p.span_id <> s.span_id
  )
)"""
# The traces of a page first, so that no other row is read.
PAGE_SPANS: Final = f"""
{SELECT_OUTLINES} AND s.trace_id IN (
  SELECT trace_id FROM traces WHERE project_id = :project_id AND session_id = :session_id
  ORDER BY started_at_us, seq LIMIT :limit OFFSET :start
) AND {_SHOWN} ORDER BY s.started_at_us, s.seq LIMIT :spans
"""


async def page_spans(
    db: Database, project_id: int, session_id: str, start: int, limit: int
) -> list[Span]:
    """Read the calls and the outermost spans of so many traces of a session in outline, by time.

    One more than ``MAX_SPANS`` says that there are more, of any of these traces.
    """
    key = {**_key(project_id, session_id), "start": start, "limit": limit, "spans": MAX_SPANS + 1}
    return list(await read_outlines(await db.read(PAGE_SPANS, key)))


COUNT_SPANS: Final = f"""
SELECT (
  SELECT COUNT(*) FROM spans s
  WHERE s.project_id = t.project_id AND s.trace_id = t.trace_id AND {_SHOWN}
) FROM traces t WHERE t.project_id = :project_id AND t.session_id = :session_id
ORDER BY t.started_at_us, t.seq LIMIT :limit OFFSET :start
"""


async def whole_traces(
    db: Database, project_id: int, session_id: str, start: int, limit: int
) -> tuple[int, int]:
    """Count how many of these traces ``page_spans`` reads whole, and the spans that they have.

    At least the first is counted, however many it has.
    """
    key = {**_key(project_id, session_id), "start": start, "limit": limit}
    traces = spans = 0
    for (count,) in await db.read(COUNT_SPANS, key):
        if traces and spans + count > MAX_SPANS:
            break
        traces, spans = traces + 1, spans + count
    return traces, spans


def _key(project_id: int, session_id: str) -> dict[str, Value]:
    return {"project_id": project_id, "session_id": clean_text(session_id)}
