"""Marks of imported spans with the call that they saw as well, where that came after them.

Invariant: a span is marked once its call is there, so that what both saw counts once; when the
content of its trace was forgotten stays as it was. What marks spans that are handed in is twins.py.
"""

from collections.abc import Iterable
from typing import Final

from storage.aggregates import SpanFacts
from storage.database import Params, Transaction
from storage.events import log_changes
from storage.keys import SpanKey
from storage.ledger import Ledger, by_project
from storage.rollup import roll_up
from storage.twins import MARK

# A span, and the id of the call that it saw.
Mark = tuple[SpanKey, bytes]

KNOWN_CALLS: Final = """
SELECT span_id FROM spans
WHERE project_id = :project_id AND owner IS NOT NULL AND span_id IN (:keys)
"""
FORGOTTEN: Final = """
SELECT trace_id, forgotten_at_us FROM traces
WHERE project_id = :project_id AND forgotten_at_us IS NOT NULL AND trace_id IN (:keys)
"""
FORGET: Final = """
UPDATE traces SET forgotten_at_us = :forgotten_at_us
WHERE project_id = :project_id AND trace_id = :trace_id
"""


def mark(tx: Transaction, marks: Iterable[Mark]) -> list[Mark]:
    """Mark spans that saw a call which is there by now; return those whose call is still not."""
    ledger = Ledger(tx)
    left: list[Mark] = []
    for key, call in marks:
        project: Params = {"project_id": key[0]}
        if not tx.look_up(KNOWN_CALLS, project, [call]):
            left.append((key, call))
            continue
        named: Params = {**project, "trace_id": key[1], "span_id": key[2], "same_call": call}
        for row in tx.execute(MARK, named):
            ledger.trace(key[:2]).spans[key[2]] = SpanFacts.of(row)
    # Sums that change say that a trace has content again; a mark brings none.
    forgotten: list[Params] = [
        {"project_id": project_id, "trace_id": trace_id, "forgotten_at_us": at_us}
        for project_id, trace_ids in by_project(ledger.traces).items()
        for trace_id, at_us in tx.look_up(FORGOTTEN, {"project_id": project_id}, trace_ids)
    ]
    log_changes(ledger, roll_up(ledger))
    tx.execute_many(FORGET, forgotten)
    return left
