"""Erases sessions and traces of any size, a bounded part at a time.

Invariant: after each part everything fits together, as if nobody meant to go on: sums equal their
folds, and nothing is left of what went. A part is bounded by its calls and their bytes; what is to
go of a session goes newest first, so that a part does not touch what is older. Calls that are
numbered above ``before_seq`` came after somebody asked, and stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from storage import budgets
from storage.database import Row, Transaction, Value
from storage.events import log_changes
from storage.forget import delete_traces, drop_of_spans
from storage.forgetting import HOLDS, forget_contents
from storage.fulltext import TextOf
from storage.keys import TraceKey
from storage.ledger import Ledger
from storage.letting_go import HELD_COLUMNS, Leaving, let_go
from storage.mentions import brought_by_call
from storage.rollup import roll_up
from storage.totals import Deleted

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

Extent = Literal["all", "content"]

# Bytes that the calls of one part have stored, but for those of a single trace.
PART_BYTES: Final = 256 * 1024
# Calls of a trace above which it goes part by part; and of each part at least so many, for each
# reads all that is left of the trace to sum it up anew.
LONG: Final = 100
LEAST_OF_LONG: Final = 25
# Calls above everything that was asked for.
EVERY_CALL: Final = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What of a session, or of a trace, was erased; ``finished``: nothing of it is left to erase.

    ``sessions`` is 1 where the session went, as far as `with_session` was asked. Of content,
    ``traces`` are those of which all is forgotten. ``begun`` is a trace that lost calls, and
    has some still.
    """

    finished: bool = True
    sessions: int = 0
    traces: int = 0
    spans: int = 0
    contents: int = 0
    content_bytes: int = 0
    begun: bytes | None = None


# Of a long trace nobody asks whether younger calls are in it, or another's: it goes by its calls.
_NEXT: Final = f"""
SELECT t.trace_id, t.span_count, t.stored_bytes, CASE WHEN t.span_count > {LONG}
  OR EXISTS (SELECT 1 FROM spans s WHERE s.project_id = t.project_id AND s.trace_id = t.trace_id
    AND s.seq > :before_seq) THEN 1 ELSE 0 END
FROM traces t WHERE t.project_id = :project_id AND {{of}} AND t.seq <= :before_seq AND {{which}}
ORDER BY t.started_at_us DESC, t.seq DESC LIMIT :limit
"""
_OLD: Final = """
SELECT 1 FROM spans s WHERE s.project_id = t.project_id AND s.trace_id = t.trace_id
AND s.seq <= :before_seq
"""
_HOLDS: Final = f"s.state <> 'running' AND {HOLDS}"
_WHICH: Final[dict[Extent, str]] = {
    "all": f"(t.span_count = 0 OR EXISTS ({_OLD}))",
    "content": f"t.forgotten_at_us IS NULL AND EXISTS ({_OLD} AND {_HOLDS})",
}
_OF_SESSION: Final = "t.session_id = :session_id"
_OF_TRACE: Final = "t.trace_id = :trace_id"
NEXT_OF_SESSION: Final = {e: _NEXT.format(of=_OF_SESSION, which=w) for e, w in _WHICH.items()}
NEXT_OF_TRACE: Final = {e: _NEXT.format(of=_OF_TRACE, which=w) for e, w in _WHICH.items()}
# One in which nobody else is named, or that is the user's own, or has a call of the user.
_OF_USER: Final = f"""
(t.opened_user_id = :user_id OR (t.opened_user_id IS NULL AND (t.span_count > {LONG} OR NOT EXISTS (
  SELECT 1 FROM spans s WHERE s.project_id = t.project_id AND s.trace_id = t.trace_id
  AND s.user_id <> :user_id))) OR EXISTS ({_OLD} AND s.user_id = :user_id))
"""
NEXT_OF_USER: Final = {
    e: _NEXT.format(of=_OF_SESSION, which=f"{w} AND {_OF_USER}") for e, w in _WHICH.items()
}


def erase_session(
    tx: Transaction,
    project_id: int,
    session_id: str,
    text_of: TextOf,
    *,
    extent: Extent,
    before_seq: int,
    most_spans: int,
    now_us: int,
    user_id: str | None = None,
) -> Part:
    """Erase a part of a session, or of its content; the session goes with its last trace.

    ``most_spans`` are the calls of the part. With ``user_id`` traces stay in which another user is
    named, unless they are the user's or have a call of the user: a call may say at its end only
    whose it is.
    """
    key: dict[str, Value] = {
        "project_id": project_id,
        "session_id": session_id,
        "before_seq": before_seq,
        "limit": most_spans,
    }
    if user_id is None:
        rows = tx.execute(NEXT_OF_SESSION[extent], key)
    else:
        rows = tx.execute(NEXT_OF_USER[extent], {**key, "user_id": user_id})
    if not rows:
        if extent == "all":  # what was reserved for calls whose records were lost
            budgets.forget(tx, project_id, session_id, ())
        return Part()
    return _erase(tx, project_id, rows, text_of, extent, before_seq, most_spans, now_us)


IS_THERE: Final = """
SELECT 1 FROM sessions WHERE project_id = :project_id AND session_id = :session_id
"""


def is_there(tx: Transaction, project_id: int, session_id: str) -> bool:
    """Tell whether there is a session of this id."""
    return bool(tx.execute(IS_THERE, {"project_id": project_id, "session_id": session_id}))


def with_session(tx: Transaction, project_id: int, session_id: str, part: Part) -> Part:
    """Say of a part of all of a session whether that went with it."""
    is_gone = not part.finished and not is_there(tx, project_id, session_id)
    return replace(part, sessions=int(is_gone))


def erase_trace(
    tx: Transaction,
    project_id: int,
    trace_id: bytes,
    text_of: TextOf,
    *,
    extent: Extent,
    before_seq: int,
    most_spans: int,
    now_us: int,
) -> Part:
    """Erase a part of a trace, or of its content."""
    key: dict[str, Value] = {
        "project_id": project_id,
        "trace_id": trace_id,
        "before_seq": before_seq,
        "limit": 1,
    }
    rows = tx.execute(NEXT_OF_TRACE[extent], key)
    if not rows:
        return Part()
    return _erase(tx, project_id, rows, text_of, extent, before_seq, most_spans, now_us)


def _erase(
    tx: Transaction,
    project_id: int,
    rows: Sequence[Row],
    text_of: TextOf,
    extent: Extent,
    before_seq: int,
    most_spans: int,
    now_us: int,
) -> Part:
    whole, by_calls = _chosen(rows, most_spans)
    if by_calls:
        most_spans = max(most_spans, LEAST_OF_LONG)
    if extent == "content":
        traces = [(project_id, trace_id) for trace_id in (*whole, *by_calls)]
        done = forget_contents(
            tx, traces, text_of, now_us=now_us, most_spans=most_spans, before_seq=before_seq
        )
        return Part(
            finished=False,
            traces=done.traces,
            spans=done.spans,
            contents=done.contents,
            content_bytes=done.content_bytes,
        )
    if by_calls:
        return _delete_calls(tx, (project_id, by_calls[0]), text_of, before_seq, most_spans)
    deleted = delete_traces(tx, project_id, whole, text_of, anew=True)
    return _part(deleted or Deleted(traces=0, spans=0, contents=0, content_bytes=0))


def _part(deleted: Deleted) -> Part:
    return Part(
        finished=False,
        traces=deleted.traces,
        spans=deleted.spans,
        contents=deleted.contents,
        content_bytes=deleted.content_bytes,
    )


def _chosen(rows: Sequence[Row], most_spans: int) -> tuple[list[bytes], list[bytes]]:
    """Choose traces that go whole, or the first alone, where it goes by its calls."""
    if rows[0][3]:
        return [], [rows[0][0]]
    chosen: list[bytes] = []
    spans = stored = 0
    for trace_id, span_count, stored_bytes, by_calls in rows:
        spans += span_count
        stored += stored_bytes
        if by_calls or (chosen and (spans > most_spans or stored > PART_BYTES)):
            break
        chosen.append(trace_id)
    return chosen, []


NEWEST_CALLS: Final = """
SELECT seq FROM spans WHERE project_id = :project_id AND trace_id = :trace_id
  AND seq <= :before_seq ORDER BY seq DESC LIMIT :limit
"""
DELETE_CALL: Final = f"""
DELETE FROM spans WHERE seq = :seq
RETURNING {", ".join(HELD_COLUMNS)}, COALESCE(model, model_requested)
"""


def _delete_calls(
    tx: Transaction, key: TraceKey, text_of: TextOf, before_seq: int, most_spans: int
) -> Part:
    """Delete the newest calls of a trace, and the trace with its last."""
    project_id, trace_id = key
    asked: dict[str, Value] = {"project_id": project_id, "trace_id": trace_id}
    ledger = Ledger(tx)
    change = ledger.trace(key)
    leaving = Leaving(change.session_key)
    for (seq,) in tx.execute(
        NEWEST_CALLS, {**asked, "before_seq": before_seq, "limit": most_spans}
    ):
        leaving.brought |= brought_by_call(tx, seq)
        ((*held, model),) = tx.execute(DELETE_CALL, {"seq": seq})
        leaving.spans.append(tuple(held))
        budgets.release(tx, (project_id, trace_id, held[1]))
        change.inserted -= 1
        change.lost += 1
        if model is not None:
            change.models[model] -= 1
    contents, freed_bytes = let_go(tx, leaving, text_of, anew=True)
    ledger.additions.stored_bytes[project_id] -= freed_bytes
    sessions = roll_up(ledger)
    drop_of_spans(tx, project_id, leaving.spans)
    log_changes(ledger, sessions)  # last, as in writes.apply
    return Part(
        finished=False,
        traces=int(change.emptied),
        spans=len(leaving.spans),
        contents=contents,
        content_bytes=freed_bytes,
        begun=None if change.emptied else trace_id,
    )
