"""What an order to erase has found: the sessions and traces that are to go, and those it keeps.

Owns the table ``erasure_targets``. Invariant: each is there once, however often it is found and
whichever process finds it. Numbers of what is to go grow from 1, in the order in which it goes;
sessions that are kept for their star have negative ones. Keys name the project and the order.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from storage.database import Params, Row, Transaction, Value

# ruff: noqa: S608 (the SQL below is put together from constants of this file, never from values)

T = TypeVar("T")
# A session, or a trace.
Target = tuple[str | None, bytes | None]

# So many are dropped at a time, behind an order.
DROPPED: Final = 200

_OF_ORDER: Final = "FROM erasure_targets WHERE project_id = :project_id AND erasure_id = :id"
ADD: Final = """
INSERT INTO erasure_targets (project_id, erasure_id, n, session_id, trace_id)
VALUES (:project_id, :id, :n, :session_id, :trace_id)
"""
# A sum, for which there is no index: SQLite would read all that has such a number.
_TO_GO: Final = f"{_OF_ORDER} AND n + 0 > 0"
FOUND_SESSIONS: Final = f"SELECT session_id {_TO_GO} AND session_id IN (:keys)"
FOUND_TRACES: Final = f"SELECT trace_id {_TO_GO} AND session_id IS NULL AND trace_id IN (:keys)"
KEPT_SESSIONS: Final = f"SELECT session_id {_OF_ORDER} AND n + 0 < 0 AND session_id IN (:keys)"


def add(tx: Transaction, key: Params, targets: Sequence[Target], *, behind: int) -> int:
    """Add those that are new, numbered behind the last; return how many they are."""
    sessions = [session_id for session_id, _ in targets if session_id is not None]
    traces = [trace_id for session_id, trace_id in targets if session_id is None]
    new: list[Target] = [
        *((one, None) for one in _others(sessions, tx.look_up(FOUND_SESSIONS, key, sessions))),
        *((None, one) for one in _others(traces, tx.look_up(FOUND_TRACES, key, traces))),
    ]
    tx.insert_rows(ADD, [_row(key, behind + i, *target) for i, target in enumerate(new, 1)])
    return len(new)


def keep(tx: Transaction, key: Params, sessions: Sequence[str], *, behind: int) -> int:
    """Note sessions that stay for their star; return how many were not noted before."""
    new = _others(sessions, tx.look_up(KEPT_SESSIONS, key, sessions))
    tx.insert_rows(ADD, [_row(key, -behind - i, one, None) for i, one in enumerate(new, 1)])
    return len(new)


def _others(found: Sequence[T], rows: Sequence[Row]) -> list[T]:
    """Give what is not in the rows, each once."""
    known = {row[0] for row in rows}
    return [one for one in dict.fromkeys(found) if one not in known]


def _row(key: Params, n: int, session_id: str | None, trace_id: bytes | None) -> dict[str, Value]:
    return {**key, "n": n, "session_id": session_id, "trace_id": trace_id}


FIRST: Final = f"SELECT n, session_id, trace_id {_OF_ORDER} AND n > 0 ORDER BY n LIMIT 1"
DROP: Final = f"DELETE {_OF_ORDER} AND n = :n"
DROP_SESSION: Final = f"DELETE {_TO_GO} AND session_id = :session_id RETURNING n"
DROP_TRACES: Final = f"""
DELETE {_TO_GO} AND session_id IS NULL AND trace_id IN (
  SELECT t.trace_id FROM traces t WHERE t.project_id = :project_id AND t.session_id = :session_id)
RETURNING n
"""
DROP_SOME: Final = f"""
DELETE {_OF_ORDER} AND n IN (SELECT n {_OF_ORDER} ORDER BY n LIMIT {DROPPED}) RETURNING n
"""
DROP_ALL: Final = f"DELETE {_OF_ORDER}"


def first(tx: Transaction, key: Params) -> tuple[int, str | None, bytes | None] | None:
    """Give the number, the session and the trace of what goes next; None where all is gone."""
    rows = tx.execute(FIRST, key)
    return rows[0][:3] if rows else None


def drop(tx: Transaction, key: Params, n: int) -> None:
    """Drop what is done with."""
    tx.execute(DROP, {**key, "n": n})


def drop_of_session(tx: Transaction, key: Params, session_id: str) -> int:
    """Drop a session, and all traces of it, from what is to go; return how many that were."""
    of_session = {**key, "session_id": session_id}
    return sum(len(tx.execute(sql, of_session)) for sql in (DROP_SESSION, DROP_TRACES))


def drop_some(tx: Transaction, key: Params) -> bool:
    """Drop a part of all that is left behind an order; tell whether there was any."""
    return bool(tx.execute(DROP_SOME, key))


def drop_all(tx: Transaction, key: Params) -> None:
    """Drop all that is left behind an order."""
    tx.execute(DROP_ALL, key)
