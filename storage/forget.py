"""What takes rows away: deleting sessions and traces; and what ends calls that died with us.

Invariant: after a deletion nothing of the deleted calls is left in any table, contents that other
calls hold stay, and every sum equals its fold. Giving the space back is ``Database.reclaim``.
"""

from collections.abc import Iterable
from typing import Final

from storage.aggregates import SPAN_FACTS, TRACE_COLUMNS, SpanFacts, TraceFacts, TraceKey, totals
from storage.database import Row, Transaction, Value
from storage.parameters import clean_text
from storage.records import Deleted
from storage.rollup import TraceChange, recompute_session, roll_up, write_totals

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

DELETE_TRACE: Final = f"""
DELETE FROM traces WHERE project_id = :project_id AND trace_id = :trace_id
RETURNING {", ".join(TRACE_COLUMNS)}
"""
DELETE_TRACE_SPANS: Final = """
DELETE FROM spans WHERE project_id = :project_id AND trace_id = :trace_id
RETURNING request_content_id, response_content_id
"""


def delete_trace(tx: Transaction, project_id: int, trace_id: bytes) -> Deleted | None:
    """Delete a trace with its spans and what only they hold; None where there is no such trace.

    Its session goes with its last trace. A call of it that is in flight comes back when it ends.
    """
    key: dict[str, Value] = {"project_id": project_id, "trace_id": trace_id}
    spans = tx.execute(DELETE_TRACE_SPANS, key)
    traces = [TraceFacts.of(row) for row in tx.execute(DELETE_TRACE, key)]
    if not traces:
        return None
    session_id = traces[0].session_id
    if session_id is not None:
        recompute_session(tx, project_id, session_id)
    return _forget(tx, project_id, traces, spans)


DELETE_SESSION_SPANS: Final = """
DELETE FROM spans WHERE project_id = :project_id AND trace_id IN
  (SELECT trace_id FROM traces WHERE project_id = :project_id AND session_id = :session_id)
RETURNING request_content_id, response_content_id
"""
DELETE_SESSION_TRACES: Final = f"""
DELETE FROM traces WHERE project_id = :project_id AND session_id = :session_id
RETURNING {", ".join(TRACE_COLUMNS)}
"""


def delete_session(tx: Transaction, project_id: int, session_id: str) -> Deleted | None:
    """Delete a session with its traces and what only they hold; None where there is none.

    A call of it that is in flight comes back, and the session with it, when it ends.
    """
    session_id = clean_text(session_id)
    key: dict[str, Value] = {"project_id": project_id, "session_id": session_id}
    spans = tx.execute(DELETE_SESSION_SPANS, key)
    traces = [TraceFacts.of(row) for row in tx.execute(DELETE_SESSION_TRACES, key)]
    if not traces:
        return None
    recompute_session(tx, project_id, session_id)
    return _forget(tx, project_id, traces, spans)


def _forget(
    tx: Transaction, project_id: int, traces: list[TraceFacts], spans: list[Row]
) -> Deleted:
    ids = {content_id for row in spans for content_id in row if content_id is not None}
    contents, freed_bytes = drop_contents(tx, sorted(ids))
    lost = [-sum(column) for column in zip(*map(totals, traces), strict=True)]
    write_totals(tx, {project_id: lost}, {project_id: -freed_bytes})
    return Deleted(
        traces=len(traces), spans=len(spans), contents=contents, content_bytes=freed_bytes
    )


DROP_CONTENT: Final = """
DELETE FROM contents WHERE id = :id
AND NOT EXISTS (SELECT 1 FROM spans WHERE request_content_id = :id)
AND NOT EXISTS (SELECT 1 FROM spans WHERE response_content_id = :id)
RETURNING length(data)
"""


def drop_contents(tx: Transaction, ids: Iterable[int]) -> tuple[int, int]:
    """Delete those contents that no span holds; return their number and the bytes they took."""
    contents = freed_bytes = 0
    for content_id in ids:
        for (length,) in tx.execute(DROP_CONTENT, {"id": content_id}):
            contents += 1
            freed_bytes += length
    return contents, freed_bytes


# Its last known moment is its end: that of the last checkpoint, or else of the last thing seen.
INTERRUPT: Final = """
UPDATE spans SET state = 'interrupted', ended_by = 'proxy',
error = 'the recording process ended before the call did',
duration_us = COALESCE(checkpoint_us, first_token_us, first_byte_us, 0), checkpoint_us = NULL
WHERE state = 'running' AND owner IS NOT NULL
"""
NOT_OURS: Final = "AND owner <> :keep_owner"
INTERRUPTED: Final = f"RETURNING project_id, trace_id, span_id, {SPAN_FACTS}"


def interrupt_running(tx: Transaction, keep_owner: bytes | None) -> int:
    """End the calls of processes that are gone, at start-up; return how many there were.

    Those of ``keep_owner`` run on, and so do spans without an owner, which no process serves.
    """
    if keep_owner is None:
        rows = tx.execute(f"{INTERRUPT} {INTERRUPTED}", {})
    else:
        rows = tx.execute(f"{INTERRUPT} {NOT_OURS} {INTERRUPTED}", {"keep_owner": keep_owner})
    changes: dict[TraceKey, TraceChange] = {}
    for project_id, trace_id, span_id, *facts in rows:
        change = changes.setdefault((project_id, trace_id), TraceChange())
        change.spans[span_id] = SpanFacts.of(tuple(facts))
    roll_up(tx, changes, {})
    return len(rows)
