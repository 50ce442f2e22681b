"""Spans that applications hand in, for the tests of the proxied calls beside them."""

from dataclasses import dataclass
from typing import Any

from storage.aggregates import SPAN_FACTS, SpanFacts
from storage.continuation import join
from storage.database import Database, Transaction
from storage.events import log_changes
from storage.fulltext import await_index
from storage.keys import TraceKey
from storage.ledger import Ledger
from storage.moving import adopt
from storage.rollup import roll_up
from storage.twins import match
from tests.storage.calls import T0, rows, span_id, trace_id


@dataclass(frozen=True, kw_only=True)
class Handed:
    """A span that ended, with usage of 1,000 and 100 tokens for 5,000 nUSD."""

    n: int
    trace: int
    project: int = 1
    parent: int | None = None
    kind: str = "llm_call"
    response_id: str | None = None
    session: str | None = None


INSERT = f"""
INSERT INTO spans (project_id, trace_id, span_id, seq, parent_id, state, kind, started_at_us,
  duration_us, name, response_id, model, input_tokens, output_tokens, cost_nusd, cost_status,
  usage_source)
VALUES (:project_id, :trace_id, :span_id, :seq, :parent_id, 'completed', :kind, :started_at_us,
  5, 'handed in', :response_id, 'handed', 1000, 100, 5000, 'priced', 'reported')
RETURNING {SPAN_FACTS}
"""  # noqa: S608 (a constant of storage)


def hand_in(db: Database, *spans: Handed) -> None:
    """Write them as intake does: in one transaction, but for those that are there."""
    with db.transaction() as tx:
        take(tx, *spans)


def take(tx: Transaction, *spans: Handed) -> None:
    """Do that in a transaction."""
    ledger = Ledger(tx)
    ledger.take_seqs(len(spans))
    ledger.look_up_traces((one.project, trace_id(one.trace)) for one in spans)
    fresh: list[TraceKey] = []
    for one in spans:
        values: dict[str, Any] = {
            "project_id": one.project,
            "trace_id": trace_id(one.trace),
            "span_id": span_id(one.n),
        }
        there = "SELECT 1 FROM spans WHERE project_id = :project_id AND span_id = :span_id"
        if tx.execute(there, values):
            continue
        change = ledger.trace((one.project, trace_id(one.trace)))
        if change.old is None and not change.inserted:
            fresh.append(change.key)
        if one.session is not None:
            join(ledger, change, one.session, "api")
        (row,) = tx.execute(
            INSERT,
            {
                **values,
                "seq": ledger.take_seq(),
                "parent_id": None if one.parent is None else span_id(one.parent),
                "kind": one.kind,
                "started_at_us": T0 + one.n,
                "response_id": one.response_id,
            },
        )
        change.spans[span_id(one.n)] = SpanFacts.of(row)
        change.inserted += 1
        change.moved[span_id(one.n)] = 1
        change.models["handed"] += 1
        ledger.spans.append((*change.key, span_id(one.n)))
    match(ledger, tuple(ledger.spans))
    adopt(ledger, fresh)
    log_changes(ledger, roll_up(ledger))
    await_index(tx, ledger.unheard)


def marks(db: Database, project: int = 1) -> dict[int, int | None]:
    """Give the call that each handed-in span is marked with, by their numbers."""
    found = rows(
        db,
        "SELECT span_id, same_call FROM spans WHERE owner IS NULL AND project_id = :project",
        project=project,
    )
    return {_n(span): None if call is None else _n(call) for span, call in found}


def traces_of_calls(db: Database, project: int = 1) -> dict[int, tuple[int, int | None]]:
    """Give the trace, and the parent, of each proxied call, by their numbers."""
    found = rows(
        db,
        "SELECT span_id, trace_id, parent_id FROM spans"
        " WHERE owner IS NOT NULL AND project_id = :project",
        project=project,
    )
    assert len({span for span, *_ in found}) == len(found)
    return {
        _n(span): (_n(trace), None if parent is None else _n(parent))
        for span, trace, parent in found
    }


def links(db: Database) -> dict[int, int]:
    """Give the traces that are linked, each with the one that its call named."""
    found = rows(
        db,
        "SELECT trace_id, linked_trace_id FROM traces WHERE linked_trace_id IS NOT NULL",
    )
    return {_n(trace): _n(linked) for trace, linked in found}


def _n(identity: bytes) -> int:
    return int.from_bytes(identity, "big")
