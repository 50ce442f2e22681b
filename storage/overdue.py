"""Ends what an application did not say the end of: spans, traces, and ends that wait for a start.

Invariant: what we ended so is told apart from what the application ended, and yields to its own
word when that comes. A time-out counts from the arrival of the last word by our clock, since the
application's may be another: old spans may be handed in, and they are not overdue.
"""

from typing import Final

from storage.aggregates import MAX_DURATION_US, SPAN_FACTS, SpanFacts
from storage.database import Params, Transaction
from storage.events import log_changes
from storage.ledger import Ledger
from storage.rollup import roll_up

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# Another server may have ended one meanwhile, so the outer condition says again what is asked.
# Whose tokens count and whose cost nobody said is unpriced, as where it had ended.
# `checkpoint_us` is when the last word of the span came, from its start on.
INTERRUPT_OVERDUE: Final = f"""
UPDATE spans SET state = 'interrupted', ended_by = 'proxy',
error = 'the application did not say that it ended',
duration_us = CASE WHEN COALESCE(checkpoint_us, 0) > {MAX_DURATION_US} THEN {MAX_DURATION_US}
  ELSE COALESCE(checkpoint_us, 0) END, checkpoint_us = NULL,
cost_status = CASE WHEN usage_source IS NOT NULL AND cost_nusd IS NULL
  AND kind IN ('llm_call', 'embedding') THEN 'unpriced' ELSE cost_status END
WHERE seq IN (
  SELECT seq FROM spans WHERE state = 'running' AND owner IS NULL
  AND started_at_us + COALESCE(checkpoint_us, 0) < :before_us LIMIT :limit)
AND state = 'running' AND owner IS NULL
RETURNING project_id, trace_id, span_id, {SPAN_FACTS}
"""
SILENT_TRACES: Final = """
SELECT project_id, trace_id FROM traces
WHERE heard_at_us IS NOT NULL AND heard_at_us < :before_us ORDER BY heard_at_us LIMIT :limit
"""
DROP_OVERDUE: Final = """
DELETE FROM early_ends WHERE (project_id, ended_id) IN (
  SELECT project_id, ended_id FROM early_ends WHERE at_us < :before_us LIMIT :limit)
RETURNING ended_id
"""


def end_overdue(tx: Transaction, now_us: int, timeout_us: int, limit: int) -> bool:
    """End what nothing was heard of for so long, up to ``limit`` of each; tell whether more is due.

    Spans become ``interrupted``; a trace has the state of its spans then.
    """
    key: Params = {"before_us": now_us - timeout_us, "limit": limit}
    spans = tx.execute(INTERRUPT_OVERDUE, key)
    traces = tx.execute(SILENT_TRACES, key)
    dropped = tx.execute(DROP_OVERDUE, key)
    ledger = Ledger(tx)
    ledger.look_up_traces([*(row[:2] for row in spans), *(row[:2] for row in traces)])
    for project_id, trace_id, span_id, *facts in spans:
        change = ledger.trace((project_id, trace_id))
        change.spans[span_id] = SpanFacts.of(tuple(facts))
        change.moved[span_id] = 0
    for project_id, trace_id in traces:
        change = ledger.trace((project_id, trace_id))
        change.opening = change.opening._replace(heard_at_us=None)
    log_changes(ledger, roll_up(ledger))
    return limit in map(len, (spans, traces, dropped))
