"""Orders to erase: what is asked for, what of it is done, and how to go on after a restart.

Owns the table ``erasures``. Invariant: what an order erased, its count and its place are of one
transaction, so an order that is taken up again goes on exactly where it was. What was asked for is
forgotten with the order's end: it may be what was to be forgotten. How an order finds what it is of
is collecting.py's, and what it has found order_targets.py's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

from storage import order_targets
from storage.database import Params, Readable, Transaction, Value
from storage.erase import Extent, Part, erase_session, erase_trace, is_there, with_session
from storage.events import forget_sessions
from storage.fulltext import TextOf
from storage.order_targets import Target

# ruff: noqa: S608 (the SQL below is put together from constants of this file, never from values)

Kind = Literal["session", "trace", "user", "query"]
# An order that was cancelled cleans up behind itself, too, and has ended then; so has one that
# failed, or that cannot find all it is of.
State = Literal["collecting", "erasing", "cleaning", "done", "cancelled", "failed", "incomplete"]
# Why an order did not do all it was asked to; in the table behind its state, "failed:error".
Reason = Literal["error", "excludes_too_common", "too_common", "unknown_query"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An order to erase, and what was erased by it. ``given`` is None once it has ended.

    ``target_count`` are the sessions, and the traces, that were found so far; of them
    ``done_count`` are erased. ``kept_starred_count`` are sessions that were found and kept.
    ``reason``: why not all is erased.
    """

    project_id: int
    id: int
    kind: Kind
    extent: Extent
    given: str | None
    with_starred: bool
    state: State
    before_seq: int
    place: str | None
    asked_at_us: int
    began_at_us: int | None
    ended_at_us: int | None
    target_count: int
    done_count: int
    session_count: int
    trace_count: int
    span_count: int
    content_count: int
    content_bytes: int
    kept_starred_count: int
    reason: Reason | None = None


COLUMNS: Final = tuple(Erasure.__dataclass_fields__)[:-1]
_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM erasures"
_ONE: Final = "project_id = :project_id AND id = :id"
ADD: Final = f"""
INSERT INTO erasures ({", ".join(COLUMNS[:11])})
VALUES ({", ".join(f":{c}" for c in COLUMNS[:11])})
"""
READ_ONE: Final = f"{_SELECT} WHERE {_ONE}"
READ_LIST: Final = f"{_SELECT} WHERE project_id = :project_id ORDER BY id DESC LIMIT :limit"
READ_OPEN: Final = f"{_SELECT} WHERE ended_at_us IS NULL ORDER BY id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be erased: the calls of sessions that ``kind`` and ``given`` name, or of a trace.

    A trace is named in hex digits. ``extent``: all of them, or only their content.
    """

    kind: Kind
    given: str
    extent: Extent = "all"
    with_starred: bool = False


def target_of(kind: Kind, given: str) -> Target | None:
    """Give what an order names itself; None where that has to be looked for."""
    if kind == "session":
        return given, None
    return (None, bytes.fromhex(given)) if kind == "trace" else None


def ask(
    tx: Transaction, project_id: int, order: Order, now_us: int, tries: list[int] | None = None
) -> Erasure:
    """Note an order. What comes after this moment is not touched by it.

    ``tries`` takes the number of each try of one order; one that was committed after all, though
    its answer was lost, is the order.
    """
    tries = [] if tries is None else tries
    for earlier in tries:
        if rows := tx.execute(READ_ONE, {"project_id": project_id, "id": earlier}):
            return _of(rows[0])
    (number,) = tx.take_numbers("erasure", 1)
    tries.append(number)
    (before_seq,) = tx.take_numbers("seq", 1)
    key: Params = {"project_id": project_id, "id": number}
    values: dict[str, Value] = {
        "kind": order.kind,
        "extent": order.extent,
        "given": order.given,
        "with_starred": int(order.with_starred),
        "state": "collecting",
        "before_seq": before_seq,
        "place": None,
        "asked_at_us": now_us,
        "began_at_us": None,
    }
    tx.execute(ADD, {**values, **key})
    if (target := target_of(order.kind, order.given)) is not None:
        add_targets(tx, project_id, number, [target], state="erasing")
    return _of(tx.execute(READ_ONE, key)[0])


async def orders(db: Readable, project_id: int, limit: int) -> list[Erasure]:
    """Give the orders of a project, the newest first."""
    key: Params = {"project_id": project_id, "limit": limit}
    return [_of(row) for row in await db.read(READ_LIST, key)]


async def order_of(db: Readable, project_id: int, number: int) -> Erasure | None:
    """Give an order; None where there is none."""
    rows = await db.read(READ_ONE, {"project_id": project_id, "id": number})
    return _of(rows[0]) if rows else None


async def open_orders(db: Readable) -> list[Erasure]:
    """Give the orders of all projects that have not ended, the oldest first."""
    return [_of(row) for row in await db.read(READ_OPEN, {})]


CANCEL: Final = f"""
UPDATE erasures SET state = 'cancelled', place = NULL
WHERE {_ONE} AND ended_at_us IS NULL AND state IN ('collecting', 'erasing')
"""


def cancel(tx: Transaction, project_id: int, number: int) -> Erasure | None:
    """Have an order erase no more than it has; None where there is none."""
    key: Params = {"project_id": project_id, "id": number}
    tx.execute(CANCEL, key)
    rows = tx.execute(READ_ONE, key)
    return _of(rows[0]) if rows else None


NOTE_FOUND: Final = f"""
UPDATE erasures SET place = :place, state = :state WHERE {_ONE} AND state = 'collecting'
RETURNING target_count, kept_starred_count
"""
COUNT_FOUND: Final = f"""
UPDATE erasures SET target_count = target_count + :targets,
kept_starred_count = kept_starred_count + :kept WHERE {_ONE}
"""


def add_targets(
    tx: Transaction,
    project_id: int,
    number: int,
    targets: Sequence[Target],
    *,
    state: State,
    place: str | None = None,
    kept: Sequence[str] = (),
    reason: Reason | None = None,
) -> None:
    """Add sessions, or traces, to what an order is to erase, and say how it goes on.

    What it has already is not added again; neither is a session that it keeps, for its star.
    """
    key: Params = {"project_id": project_id, "id": number}
    state_and_place: Params = {"state": _noted(state, reason), "place": place}
    rows = tx.execute(NOTE_FOUND, {**key, **state_and_place})
    if not rows:  # it was cancelled
        return
    ((count, kept_count),) = rows
    new = order_targets.add(tx, key, targets, behind=count)
    new_kept = order_targets.keep(tx, key, kept, behind=kept_count)
    if new or new_kept:
        tx.execute(COUNT_FOUND, {**key, "targets": new, "kept": new_kept})


def _noted(state: State, reason: Reason | None) -> str:
    return state if reason is None else f"{state}:{reason}"


COUNT: Final = f"""
UPDATE erasures SET began_at_us = COALESCE(began_at_us, :now_us),
done_count = done_count + :done, session_count = session_count + :sessions,
trace_count = trace_count + :traces, span_count = span_count + :spans,
content_count = content_count + :contents, content_bytes = content_bytes + :content_bytes
WHERE {_ONE}
"""
GO_ON: Final = f"UPDATE erasures SET state = :state WHERE {_ONE}"


def step(
    tx: Transaction, project_id: int, number: int, text_of: TextOf, *, most_spans: int, now_us: int
) -> bool:
    """Erase the next part of an order; tell whether there may be more to erase."""
    key: Params = {"project_id": project_id, "id": number}
    rows = tx.execute(READ_ONE, key)
    if not rows or (erasure := _of(rows[0])).state != "erasing":
        return False
    target = order_targets.first(tx, key)
    if target is None:
        # A search that found only a part is made again.
        tx.execute(GO_ON, {**key, "state": "cleaning" if erasure.place is None else "collecting"})
        return False
    n, session_id, trace_id = target
    by_name = erasure.kind in ("session", "trace")
    if not by_name and not erasure.with_starred and _keep(tx, key, *target[1:]):
        return True
    user_id = erasure.given if erasure.kind == "user" else None
    erase = (
        partial(erase_trace, tx, project_id, trace_id or b"")
        if session_id is None
        else partial(erase_session, tx, project_id, session_id, user_id=user_id)
    )
    part = erase(
        text_of,
        extent=erasure.extent,
        before_seq=erasure.before_seq,
        most_spans=most_spans,
        now_us=now_us,
    )
    if user_id is not None and session_id is not None and part.begun is not None:
        # It is to go to its end, also where what is left of it is another's.
        whole: Target = (None, part.begun)
        if new := order_targets.add(tx, key, [whole], behind=erasure.target_count):
            tx.execute(COUNT_FOUND, {**key, "targets": new, "kept": 0})
    if session_id is not None and erasure.extent == "all":
        part = with_session(tx, project_id, session_id, part)
    elif session_id is not None and part.finished:
        # It stays, and counts when nothing more of it is to be forgotten.
        part = replace(part, sessions=int(is_there(tx, project_id, session_id)))
    _count(tx, key, part, now_us)
    if part.finished:
        order_targets.drop(tx, key, n)
    return True


# What is given to a session while it waits to be erased counts as well.
STARRED: Final = """
SELECT s.session_id FROM sessions s WHERE s.project_id = :project_id AND s.starred = 1
AND s.session_id = COALESCE(CAST(:session_id AS TEXT), (
  SELECT t.session_id FROM traces t WHERE t.project_id = :project_id AND t.trace_id = :trace_id))
"""
KEEP: Final = f"""
UPDATE erasures SET done_count = done_count + :dropped,
kept_starred_count = kept_starred_count + :kept WHERE {_ONE}
"""


KEPT_COUNT: Final = f"SELECT kept_starred_count FROM erasures WHERE {_ONE}"


def _keep(tx: Transaction, key: Params, session_id: str | None, trace_id: bytes | None) -> bool:
    """Have a session stay that got a star since it was found; tell whether it did."""
    of = {"project_id": key["project_id"]}
    starred = tx.execute(STARRED, {**of, "session_id": session_id, "trace_id": trace_id})
    if not starred:
        return False
    session_id = starred[0][0]
    dropped = order_targets.drop_of_session(tx, key, session_id)
    ((kept_count,),) = tx.execute(KEPT_COUNT, key)
    kept = order_targets.keep(tx, key, [session_id], behind=kept_count)
    tx.execute(KEEP, {**key, "dropped": dropped, "kept": kept})
    return True


def _count(tx: Transaction, key: Params, part: Part, now_us: int) -> None:
    tx.execute(
        COUNT,
        {
            **key,
            "now_us": now_us,
            "done": int(part.finished),
            "sessions": part.sessions,
            "traces": part.traces,
            "spans": part.spans,
            "contents": part.contents,
            "content_bytes": part.content_bytes,
        },
    )


NOTE_PLACE: Final = f"UPDATE erasures SET place = :place WHERE {_ONE}"
FORGET_GIVEN: Final = f"UPDATE erasures SET given = NULL, place = NULL WHERE {_ONE}"
END: Final = f"""
UPDATE erasures SET given = NULL, place = NULL, ended_at_us = :now_us,
state = CASE WHEN state IN ('collecting', 'erasing', 'cleaning') THEN 'done' ELSE state END
WHERE {_ONE} AND ended_at_us IS NULL
"""


def clean(tx: Transaction, project_id: int, number: int) -> bool:
    """Take what an order erased out of the log of events, and its targets away; part by part.

    Tell whether there is more to do.
    """
    key: Params = {"project_id": project_id, "id": number}
    rows = tx.execute(READ_ONE, key)
    if not rows or (erasure := _of(rows[0])).state in ("collecting", "erasing", "done"):
        return False
    if order_targets.drop_some(tx, key):
        return True
    after = forget_sessions(tx, int(erasure.place or 0), project_id)
    if after is None:
        return False
    tx.execute(NOTE_PLACE, {**key, "place": str(after)})
    return True


FAIL: Final = f"""
UPDATE erasures SET state = :state, place = NULL
WHERE {_ONE} AND ended_at_us IS NULL AND state <> :state RETURNING id
"""


def fail(tx: Transaction, project_id: int, number: int, now_us: int) -> None:
    """Have an order that failed erase no more and clean up; where that failed as well, end it."""
    key: Params = {"project_id": project_id, "id": number}
    if not tx.execute(FAIL, {**key, "state": _noted("failed", "error")}):
        order_targets.drop_all(tx, key)
        end(tx, project_id, number, now_us)


def forget_given(tx: Transaction, project_id: int, number: int) -> None:
    """Forget what an order was asked for, when all of it is erased."""
    tx.execute(FORGET_GIVEN, {"project_id": project_id, "id": number})


def end(tx: Transaction, project_id: int, number: int, now_us: int) -> None:
    """End an order of which nothing is left in any file."""
    tx.execute(END, {"project_id": project_id, "id": number, "now_us": now_us})


def _of(row: Sequence[object]) -> Erasure:
    values = dict(zip(COLUMNS, row, strict=True))
    values["with_starred"] = bool(values["with_starred"])
    state, _, reason = str(values["state"]).partition(":")
    return Erasure(**values | {"state": state, "reason": reason or None})  # type: ignore[arg-type]
