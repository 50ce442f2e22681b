"""Session budgets: what calls reserve before they are made, and when it is given back.

Invariant: a call that was let through has its reservation until the transaction in which its cost
comes into its session's sum, so that spent and reserved together miss nothing that was let through;
a call whose cost is never known keeps it. All writes are the one writer's, so what ``reserve``
compares cannot change under it. What a call may cost is not decided here.
"""

from collections.abc import Sequence
from typing import Final

from storage.database import Params, Readable, Transaction
from storage.keys import SpanKey
from storage.parameters import clean_text
from storage.spending import Reservation, SessionBudget

SPENT: Final = """
SELECT COALESCE((
  SELECT cost_nusd FROM sessions
  WHERE project_id = :project_id AND session_id = :session_id), 0) AS spent,
CAST(COALESCE((
  SELECT SUM(amount_nusd) FROM reservations
  WHERE project_id = :project_id AND session_id = :session_id), 0) AS BIGINT) AS reserved
"""
BY_OTHERS: Final = f"""
SELECT c.spent, c.reserved - COALESCE((
  SELECT amount_nusd FROM reservations
  WHERE project_id = :project_id AND trace_id = :trace_id AND span_id = :span_id
    AND session_id = :session_id), 0)
FROM ({SPENT}) c
"""  # noqa: S608 (constants)
NOTE_LIMIT: Final = """
INSERT INTO session_budgets AS b (project_id, session_id, limit_nusd)
VALUES (:project_id, :session_id, :limit_nusd)
ON CONFLICT (project_id, session_id) DO UPDATE SET limit_nusd = excluded.limit_nusd
WHERE b.limit_nusd <> excluded.limit_nusd
"""
RESERVE: Final = """
INSERT INTO reservations (project_id, trace_id, span_id, session_id, amount_nusd)
VALUES (:project_id, :trace_id, :span_id, :session_id, :amount_nusd)
ON CONFLICT (project_id, trace_id, span_id) DO NOTHING
"""


def reserve(tx: Transaction, asked: Reservation) -> SessionBudget:
    """Reserve what a call may cost if that fits; return where its session stood before.

    Whether it fitted is ``fits`` of what is returned. Of nothing, nothing is reserved. Run again
    behind a commit whose answer was lost, it leaves out what it reserved itself.
    """
    trace_id, session_id = asked.trace_id, asked.session_id
    if asked.joins:
        found = _place(tx, (asked.project_id, asked.trace_id, asked.span_id))
        trace_id, session_id = found[0], found[1] or session_id
    session: Params = {
        "project_id": asked.project_id,
        "session_id": clean_text(session_id),
        "limit_nusd": asked.limit_nusd,
    }
    call: Params = {
        "trace_id": trace_id,
        "span_id": asked.span_id,
        "amount_nusd": asked.amount_nusd,
    }
    tx.execute(NOTE_LIMIT, session)
    ((spent_nusd, reserved_nusd),) = tx.execute(BY_OTHERS, {**session, **call})
    budget = SessionBudget(
        limit_nusd=asked.limit_nusd, spent_nusd=spent_nusd, reserved_nusd=reserved_nusd
    )
    if not budget.fits(asked.amount_nusd):
        release(tx, (asked.project_id, trace_id, asked.span_id))
    elif asked.amount_nusd:
        tx.execute(RESERVE, {**session, **call})
    return budget


PLACE: Final = """
SELECT s.trace_id, t.session_id FROM spans s
JOIN traces t ON t.project_id = s.project_id AND t.trace_id = s.trace_id
WHERE s.project_id = :project_id AND s.span_id = :span_id
  AND (s.trace_id = :trace_id OR s.moved_from = :trace_id)
"""


def _place(tx: Transaction, key: SpanKey) -> tuple[bytes, str | None]:
    """Give the trace that a call is in, and its session; its own where it has no row."""
    params: Params = {"project_id": key[0], "trace_id": key[1], "span_id": key[2]}
    found = tx.execute(PLACE, params)
    return (found[0][0], found[0][1]) if found else (key[1], None)


def session_of(tx: Transaction, key: SpanKey) -> str | None:
    """Give the session of a call whose start is written, by its own trace; None without one."""
    return _place(tx, key)[1]


RELEASE: Final = """
DELETE FROM reservations
WHERE project_id = :project_id AND trace_id = :trace_id AND span_id = :span_id
"""


def release(tx: Transaction, key: SpanKey) -> None:
    """Give back what a call reserved, if it did: its cost is in its session's sum now."""
    tx.execute(RELEASE, {"project_id": key[0], "trace_id": key[1], "span_id": key[2]})


FORGET_TRACE: Final = """
DELETE FROM reservations WHERE project_id = :project_id AND trace_id = :trace_id
"""
GONE: Final = """
WHERE project_id = :project_id AND session_id = :session_id AND NOT EXISTS (
  SELECT 1 FROM sessions s WHERE s.project_id = :project_id AND s.session_id = :session_id)
"""
# Also what calls reserved whose records were lost: nothing else names their session.
FORGET_RESERVATIONS: Final = f"DELETE FROM reservations {GONE}"  # noqa: S608 (constants)
FORGET_LIMIT: Final = f"DELETE FROM session_budgets {GONE}"  # noqa: S608 (constants)


def forget(tx: Transaction, project_id: int, session_id: str, trace_ids: Sequence[bytes]) -> None:
    """Forget what these traces of a session reserved, and its budget where the session is gone."""
    for trace_id in trace_ids:
        tx.execute(FORGET_TRACE, {"project_id": project_id, "trace_id": trace_id})
    key: Params = {"project_id": project_id, "session_id": session_id}
    tx.execute(FORGET_RESERVATIONS, key)
    tx.execute(FORGET_LIMIT, key)


READ: Final = f"""
SELECT b.limit_nusd, c.spent, c.reserved FROM session_budgets b, ({SPENT}) c
WHERE b.project_id = :project_id AND b.session_id = :session_id
"""  # noqa: S608 (constants)


async def session_budget(db: Readable, project_id: int, session_id: str) -> SessionBudget | None:
    """Read where a session stands; None where no call of it had a budget."""
    key: Params = {"project_id": project_id, "session_id": clean_text(session_id)}
    rows = await db.read(READ, key)
    if not rows:
        return None
    limit_nusd, spent_nusd, reserved_nusd = rows[0]
    return SessionBudget(limit_nusd=limit_nusd, spent_nusd=spent_nusd, reserved_nusd=reserved_nusd)
