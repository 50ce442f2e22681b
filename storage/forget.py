"""What takes rows away: deleting sessions and traces; and what ends calls that died with us.

Invariant: after a deletion nothing of the deleted calls is left in any table, what other calls hold
stays, and every sum equals its fold. Giving the space back is ``Database.reclaim``.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from storage import budgets
from storage.aggregates import SPAN_FACTS, TRACE_COLUMNS, SpanFacts, TraceFacts, totals
from storage.database import Params, Row, Transaction
from storage.events import log_changes, log_deletion
from storage.fulltext import TextOf
from storage.keys import lone_key, session_key
from storage.ledger import Ledger
from storage.letting_go import HELD_COLUMNS, Leaving, let_go
from storage.mentions import brought_by
from storage.parameters import clean_text
from storage.removal import remove_traces
from storage.rollup import roll_up, write_totals
from storage.totals import Deleted
from storage.twins import unmark

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

_HELD: Final = len(HELD_COLUMNS)
DELETE_TRACE: Final = f"""
DELETE FROM traces WHERE project_id = :project_id AND trace_id = :trace_id
RETURNING {", ".join(TRACE_COLUMNS)}
"""
DELETE_SPANS: Final = f"""
DELETE FROM spans WHERE project_id = :project_id AND trace_id = :trace_id
RETURNING {", ".join(HELD_COLUMNS)}, COALESCE(model, model_requested)
"""


def delete_trace(
    tx: Transaction, project_id: int, trace_id: bytes, text_of: TextOf
) -> Deleted | None:
    """Delete a trace with its spans and what only they hold; None where there is no such trace.

    Its session goes with its last trace. A call of it that is in flight comes back when it ends.
    """
    return delete_traces(tx, project_id, [trace_id], text_of)


SESSION_TRACES: Final = """
SELECT trace_id FROM traces WHERE project_id = :project_id AND session_id = :session_id
"""


def delete_session(
    tx: Transaction, project_id: int, session_id: str, text_of: TextOf
) -> Deleted | None:
    """Delete a session with its traces and what only they hold; None where there is none.

    A call of it that is in flight comes back, and the session with it, when it ends.
    """
    session_id = clean_text(session_id)
    key: Params = {"project_id": project_id, "session_id": session_id}
    trace_ids = [row[0] for row in tx.execute(SESSION_TRACES, key)]
    if not trace_ids:
        # The records of its calls may have been lost, and what they reserved not.
        budgets.forget(tx, project_id, session_id, ())
    return delete_traces(tx, project_id, trace_ids, text_of)


def delete_traces(
    tx: Transaction,
    project_id: int,
    trace_ids: Sequence[bytes],
    text_of: TextOf,
    *,
    anew: bool = False,
) -> Deleted | None:
    """Delete traces that are of one session, or one of none; None where there are none of them.

    With ``anew``, calls that went on from them begin anew: what went before them is to go as well.
    """
    leaving = Leaving(0)
    traces: list[TraceFacts] = []
    models: Counter[str] = Counter()
    for trace_id in trace_ids:
        key: Params = {"project_id": project_id, "trace_id": trace_id}
        leaving.brought |= brought_by(tx, (project_id, trace_id))
        spans = tx.execute(DELETE_SPANS, key)
        leaving.spans += [span[:_HELD] for span in spans]
        models.update(span[_HELD] for span in spans if span[_HELD] is not None)
        traces += [TraceFacts.of(row) for row in tx.execute(DELETE_TRACE, key)]
    if not traces:
        return None
    session_id = traces[0].session_id
    if session_id is None:
        leaving.session_key = lone_key(project_id, trace_ids[0])
    else:
        leaving.session_key = session_key(project_id, session_id)
        remove_traces(tx, (project_id, session_id), traces, models)
        budgets.forget(tx, project_id, session_id, trace_ids)
    contents, freed_bytes = let_go(tx, leaving, text_of, anew=anew)
    lost = [-sum(column) for column in zip(*map(totals, traces), strict=True)]
    write_totals(tx, {project_id: lost}, {project_id: -freed_bytes})
    drop_of_spans(tx, project_id, leaving.spans)
    log_deletion(tx, project_id, session_id, trace_ids)  # last, as in writes.apply
    return Deleted(
        traces=len(traces), spans=len(leaving.spans), contents=contents, content_bytes=freed_bytes
    )


# An end that waits for its start says what the span's row says.
DROP_EARLY: Final = """
DELETE FROM early_ends WHERE project_id = :project_id AND ended_id = :ended_id
"""


def drop_of_spans(tx: Transaction, project_id: int, spans: Sequence[Row]) -> None:
    """Drop what else names deleted spans, rows of ``HELD_COLUMNS``."""
    span_ids = [span[1] for span in spans]
    tx.execute_many(DROP_EARLY, [{"project_id": project_id, "ended_id": one} for one in span_ids])
    unmark(tx, project_id, span_ids)


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
        return interrupt(tx, "", {})
    return interrupt(tx, NOT_OURS, {"keep_owner": keep_owner})


def interrupt(tx: Transaction, those: str, params: Params) -> int:
    """End the calls that run and of which a condition is true; return how many there were."""
    rows = tx.execute(f"{INTERRUPT} {those} {INTERRUPTED}", params)
    ledger = Ledger(tx)
    for project_id, trace_id, span_id, *facts in rows:
        change = ledger.trace((project_id, trace_id))
        change.spans[span_id] = SpanFacts.of(tuple(facts))
        change.moved[span_id] = 0
    log_changes(ledger, roll_up(ledger))
    return len(rows)
