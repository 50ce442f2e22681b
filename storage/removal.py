"""Takes traces out of the sums of their session, by the difference that they make.

Invariant: after it a session's row equals what a fold over the rows of its other traces gives, and
without any it is gone. A session may have thousands of traces: what of its row the difference does
not tell (a place, the last end, a sum that may have become unknown) is found by itself.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from storage.aggregates import AMOUNTS, MAX_SUM, TraceFacts, bounded_amounts
from storage.database import Params, Transaction, Value
from storage.keys import SessionKey
from storage.rollup import (
    COUNTS,
    DELETE_SESSION,
    DELETE_SESSION_MODELS,
    DELETE_UNUSED_MODELS,
    FIND_PLACE,
    recompute_session,
)
from storage.session_sums import DOUBTED, PLACES, SessionChange

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)


def _taken_out(c: str) -> str:
    """Take from what may be unknown; of a sum that ended where sums end, no more than it is."""
    return f"CASE WHEN {c} + :{c} < 0 THEN 0 ELSE COALESCE({c} + :{c}, {c}) END"


_ONE: Final = "project_id = :project_id AND session_id = :session_id"
READ: Final = f"SELECT trace_count, {', '.join(DOUBTED)} FROM sessions WHERE {_ONE}"
TAKE_OUT: Final = f"""
UPDATE sessions SET {", ".join(f"{c} = {c} + :{c}" for c in COUNTS)},
{", ".join(f"{c} = {_taken_out(c)}" for c in AMOUNTS)}
WHERE {_ONE}
"""
# A sum of 0 may be that of nothing known.
IS_KNOWN: Final = {
    amount: f"""
UPDATE sessions SET {amount} = NULL WHERE {_ONE} AND NOT EXISTS (
  SELECT 1 FROM traces WHERE {_ONE} AND {amount} IS NOT NULL)
"""
    for amount in AMOUNTS
}
FIND_LAST_END: Final = f"""
UPDATE sessions SET last_ended_at_us = (
  SELECT MAX(last_ended_at_us) FROM traces WHERE {_ONE}) WHERE {_ONE}
"""
TAKE_MODEL: Final = f"UPDATE session_models SET n = n - :n WHERE {_ONE} AND model = :model"


def remove_traces(
    tx: Transaction, session: SessionKey, traces: Sequence[TraceFacts], models: Mapping[str, int]
) -> bool:
    """Take traces whose rows are gone out of their session; tell whether the session went.

    ``models`` counts their spans by model.
    """
    key: dict[str, Value] = {"project_id": session[0], "session_id": session[1]}
    rows = tx.execute(READ, key)
    if not rows:
        return True
    count, *doubted = rows[0]
    if count == len(traces):
        tx.execute(DELETE_SESSION, key)
        tx.execute(DELETE_SESSION_MODELS, key)
        return True
    row = dict(zip(DOUBTED, doubted, strict=True))
    if any(
        (row[amount] or 0) >= MAX_SUM for amount in AMOUNTS
    ):  # nobody knows how much more it was
        recompute_session(tx, *session)
        return False
    change = SessionChange.beginning_with(traces[0])
    for trace in traces:
        change.remove(trace)
    amounts = dict(zip(AMOUNTS, bounded_amounts(change.amounts), strict=True))
    counts = {name: getattr(change, name) for name in COUNTS}
    tx.execute(TAKE_OUT, {**key, **counts, **amounts})
    for amount, taken in amounts.items():
        if taken is not None and (row[amount] or 0) + taken == 0:
            tx.execute(IS_KNOWN[amount], key)
    orders = {trace.order for trace in traces}
    for place, at in PLACES.items():
        if (row[at[0]], row[at[1]]) in orders:
            tx.execute(FIND_PLACE[place], key)
    if any(trace.seq == row["seq"] for trace in traces):
        tx.execute(FIND_PLACE["seq"], key)
    last = row["last_ended_at_us"]
    if last is not None and any(trace.last_ended_at_us == last for trace in traces):
        tx.execute(FIND_LAST_END, key)
    _take_models(tx, key, models)
    return False


def _take_models(tx: Transaction, key: Params, models: Mapping[str, int]) -> None:
    taken = Counter(models)
    tx.execute_many(TAKE_MODEL, [{**key, "model": model, "n": n} for model, n in taken.items()])
    if taken:
        tx.execute(DELETE_UNUSED_MODELS, key)
