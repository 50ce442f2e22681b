"""Takes calls out of traces of their own and into those to which they turn out to belong.

Owns what goes with a call: its reservation, what it mentions, its place in the conversation, the
sums and the session. Invariants: a trace that leaves has this one call and nothing that anybody
said of it; it is gone afterwards, and its id is kept with the call. A call that names another
session than that of the trace stays and gets a link. When a call moves is not decided here.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from storage.aggregates import SPAN_FACTS, SpanFacts
from storage.continuation import begin_anew, join, replant
from storage.database import Params, Transaction
from storage.keys import TraceKey
from storage.ledger import Ledger, TraceChange
from storage.mentions import brought_by, mention_again, take_back
from storage.placing import may_join

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)


class Move(NamedTuple):
    """A call's own trace, and the trace that the call belongs to, below ``parent_id``."""

    old: TraceKey
    new: TraceKey
    parent_id: bytes | None


# What anybody else put into the trace, or said of it, makes it more than the call's own.
FIND_SPANS: Final = """
SELECT span_id FROM spans WHERE project_id = :project_id AND trace_id = :trace_id LIMIT 2
"""
IS_OPENED: Final = """
SELECT 1 FROM traces WHERE project_id = :project_id AND trace_id = :trace_id
  AND (opened_seq IS NOT NULL OR opened_at_us IS NOT NULL OR closed_at_us IS NOT NULL)
"""
IS_THERE: Final = """
SELECT 1 FROM spans WHERE project_id = :project_id AND trace_id = :trace_id AND span_id = :span_id
"""
MOVE: Final = f"""
UPDATE spans SET trace_id = :new_id, parent_id = COALESCE(parent_id, :parent_id),
moved_from = COALESCE(moved_from, trace_id),
session_key = CASE WHEN session_key IS NOT NULL THEN CAST(:session_key AS BIGINT) END
WHERE project_id = :project_id AND trace_id = :trace_id AND span_id = :span_id
RETURNING {SPAN_FACTS}
"""
MOVE_RESERVATION: Final = """
UPDATE reservations SET trace_id = :new_id, session_id = COALESCE(:session_id, session_id)
WHERE project_id = :project_id AND trace_id = :trace_id AND span_id = :span_id
"""


def move(ledger: Ledger, moves: Iterable[Move]) -> None:
    """Move calls, each with its whole trace, or link their traces where they must stay."""
    ledger.flush()
    # What they brought, by the session that they leave; who came, by the trace that they come to,
    # since a later one may bring it its session.
    brought: defaultdict[int, set[int]] = defaultdict(set)
    came: defaultdict[TraceKey, list[int]] = defaultdict(list)
    for one in moves:
        old, new = ledger.trace(one.old), ledger.trace(one.new)
        span_id = _only_call(ledger.tx, old, new)
        if span_id is None or not may_join(new, old.session_id, old.session_source):
            ledger.links[one.old] = one.new[1]
            continue
        if new.session_id is None and old.session_id is not None:
            join(ledger, new, old.session_id, old.session_source or "")
        leaves = old.session_key != new.session_key
        if leaves:
            brought[old.session_key] |= brought_by(ledger.tx, one.old)
        span = _take_over(ledger, one, span_id)
        if leaves:
            came[one.new].append(span.seq)
    for key, seqs in came.items():
        begin_anew(ledger.tx, seqs)
        ledger.unheard += mention_again(ledger.tx, ledger.trace(key).session_key, seqs)
    # What they brought they bring where they are now, and more where they left their place: no
    # content is without a mention by this.
    for session_key, contents in brought.items():
        replant(ledger.tx, session_key)
        ledger.unheard += take_back(ledger.tx, session_key, contents)
    ledger.spans = [ledger.went.get(key, key) for key in ledger.spans]


def _only_call(tx: Transaction, old: TraceChange, new: TraceChange) -> bytes | None:
    """Give the only call of a trace that nobody said anything of; None where it is more."""
    key: Params = {"project_id": old.key[0], "trace_id": old.key[1]}
    spans = tx.execute(FIND_SPANS, key)
    if len(spans) != 1 or tx.execute(IS_OPENED, key):
        return None
    span_id: bytes = spans[0][0]
    there: Params = {"project_id": new.key[0], "trace_id": new.key[1], "span_id": span_id}
    return None if tx.execute(IS_THERE, there) else span_id


def _take_over(ledger: Ledger, one: Move, span_id: bytes) -> SpanFacts:
    old, new = ledger.trace(one.old), ledger.trace(one.new)
    params: Params = {
        "project_id": one.old[0],
        "trace_id": one.old[1],
        "span_id": span_id,
        "new_id": one.new[1],
        "parent_id": one.parent_id,
        "session_key": new.session_key,
        "session_id": new.session_id,
    }
    (row,) = ledger.tx.execute(MOVE, params)
    ledger.tx.execute(MOVE_RESERVATION, params)
    span = new.spans[span_id] = SpanFacts.of(row)
    old.spans.pop(span_id, None)
    old.inserted -= 1
    old.lost += 1
    new.inserted += 1
    if span.model is not None:
        new.models[span.model] += 1
    if span_id in old.moved:
        new.moved[span_id] = old.moved.pop(span_id)
    ledger.went[(*one.old, span_id)] = (*one.new, span_id)
    return span
