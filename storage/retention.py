"""What is too old to be kept: which traces lose their content, which sessions go.

Two clocks: content by the start of its trace, also in a session that goes on; metadata by the last
activity of the session, or of a trace without one, which is now while it runs. A cap of the size
takes the oldest first. Invariant: a session with a star is kept by all of them. What is found is
looked at again in the transaction that erases it: meanwhile somebody may have gone on with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from storage.database import Database, Params, Transaction
from storage.erase import EVERY_CALL, Part, erase_session, erase_trace, with_session
from storage.forgetting import forget_contents
from storage.fulltext import TextOf
from storage.keys import TraceKey
from storage.parameters import MAX_TIME_US

# Rows that are looked at for one page: a few milliseconds of a reader.
PAGE: Final = 500
LONE_PAGE: Final = 500
SESSIONS: Final = 50

Place = tuple[int, int]
BEGINNING: Final = (-1, -1)
Kind = Literal["sessions", "lone traces"]

# ruff: noqa: S608 (the SQL below is put together from constants of this file, never from values)


@dataclass(frozen=True, slots=True)
class Due:
    """Traces of which the content is due, by session, each session's newest first.

    ``place`` is where the next page goes on, None at the end.
    """

    traces: Sequence[Sequence[TraceKey]]
    place: Place | None


class Old(NamedTuple):
    """A session, or a trace without one, and when it was last active: a trace when it began."""

    at_us: int
    project_id: int
    session_id: str | None
    trace_id: bytes | None


_OLD: Final = """
SELECT t.project_id, t.trace_id, t.session_id, t.started_at_us, t.seq, COALESCE(s.starred, 0),
CASE WHEN t.status = 'running' THEN 1 ELSE 0 END, COALESCE(t.last_ended_at_us, 0)
FROM (SELECT project_id, trace_id, session_id, started_at_us, seq, status, last_ended_at_us
  FROM traces
  WHERE forgotten_at_us IS NULL AND started_at_us < :before_us {place}
  ORDER BY started_at_us {order}, seq {order} LIMIT :limit) AS t
LEFT JOIN sessions s ON s.project_id = t.project_id AND s.session_id = t.session_id
ORDER BY t.started_at_us DESC, t.seq DESC
"""
NEWEST_OLD: Final = _OLD.format(place="", order="DESC")
NEXT_OLD: Final = _OLD.format(place="AND (started_at_us, seq) < (:at_us, :seq)", order="DESC")
OLDEST: Final = _OLD.format(place="", order="")
NEXT_OLDEST: Final = _OLD.format(place="AND (started_at_us, seq) > (:at_us, :seq)", order="")


async def old_content(
    db: Database, before_us: int, place: Place | None = None, *, oldest: bool = False
) -> Due:
    """Find traces that began before a moment and have content, the newest first.

    ``oldest``: the oldest first, and only those that went on no later than that.
    """
    key: dict[str, int | str | bytes | None] = {"before_us": before_us, "limit": PAGE}
    if place is None:
        rows = await db.read(OLDEST if oldest else NEWEST_OLD, key)
    else:
        at_us, seq = place
        rows = await db.read(
            NEXT_OLDEST if oldest else NEXT_OLD, {**key, "at_us": at_us, "seq": seq}
        )
    traces: dict[tuple[int, str | bytes], list[TraceKey]] = {}
    for project_id, trace_id, session_id, _, _, starred, runs, ended_at_us in rows:
        if not starred and not runs and not (oldest and ended_at_us >= before_us):
            own = trace_id if session_id is None else session_id
            traces.setdefault((project_id, own), []).append((project_id, trace_id))
    last = None
    if len(rows) == PAGE:
        last = rows[0][3:5] if oldest else rows[-1][3:5]
    return Due(list(traces.values()), last)


KEPT_OF: Final = """
SELECT t.trace_id FROM traces t
LEFT JOIN sessions s ON s.project_id = t.project_id AND s.session_id = t.session_id
WHERE (s.starred = 1 OR t.status = 'running' OR t.last_ended_at_us >= :before_us)
  AND t.project_id = :project_id AND t.trace_id IN (:keys)
"""


def forget_old(
    tx: Transaction,
    keys: Sequence[TraceKey],
    text_of: TextOf,
    *,
    most_spans: int,
    now_us: int,
    before_us: int = MAX_TIME_US,
) -> tuple[Part, int]:
    """Forget the content of the first of these traces, which are of one session.

    But of those that run, have a star by now, or ended since ``before_us``. Return what was
    forgotten, and how many of the traces are done with.
    """
    some = keys[:most_spans]
    asked: Params = {"project_id": some[0][0], "before_us": before_us}
    kept = {row[0] for row in tx.look_up(KEPT_OF, asked, [key[1] for key in some])}
    done = forget_contents(
        tx,
        [key for key in some if key[1] not in kept],
        text_of,
        now_us=now_us,
        most_spans=most_spans,
        before_seq=EVERY_CALL,
    )
    part = Part(
        finished=done.finished,
        traces=done.traces,
        spans=done.spans,
        contents=done.contents,
        content_bytes=done.content_bytes,
    )
    # One that was cut is found again by whoever looks for what has content.
    return part, len(some)


STORED: Final = "SELECT CAST(COALESCE(SUM(stored_bytes), 0) AS BIGINT) FROM project_totals"
PROJECTS: Final = "SELECT id FROM projects ORDER BY id"
# `last_active_at_us` is the start of the newest trace, which may go on for long, as may others.
_IS_OLD: Final = """
s.last_active_at_us < :before_us AND s.starred = 0 AND s.status <> 'running'
AND COALESCE(s.last_ended_at_us, 0) < :before_us AND NOT EXISTS (
  SELECT 1 FROM traces t WHERE t.project_id = s.project_id AND t.session_id = s.session_id
  AND t.status = 'running')
"""
OLD_SESSIONS: Final = f"""
SELECT s.last_active_at_us, s.seq, s.session_id, NULL FROM sessions s
WHERE s.project_id = :project_id AND {_IS_OLD}
  AND (s.last_active_at_us, s.seq) > (:at_us, :seq)
ORDER BY s.last_active_at_us, s.seq LIMIT :limit
"""
_IS_OLD_TRACE: Final = """
session_id IS NULL AND status <> 'running' AND COALESCE(last_ended_at_us, 0) < :before_us
"""
OLD_LONE_TRACES: Final = f"""
SELECT started_at_us, seq, NULL, CASE WHEN {_IS_OLD_TRACE} THEN trace_id END
FROM traces WHERE project_id = :project_id AND started_at_us < :before_us
  AND (started_at_us, seq) > (:at_us, :seq)
ORDER BY started_at_us, seq LIMIT :limit
"""


async def projects(db: Database) -> list[int]:
    """Give the ids of all projects."""
    return [row[0] for row in await db.read(PROJECTS, {})]


async def stored_bytes(db: Database) -> int:
    """Give what all contents take, in bytes."""
    ((found,),) = await db.read(STORED, {})
    return int(found)


async def old(
    db: Database, kind: Kind, project_id: int, before_us: int, place: Place = BEGINNING
) -> tuple[list[Old], Place | None]:
    """Give what of a project was last active before a moment, the oldest first, behind a place.

    The second is where the next page goes on, None at the end.
    """
    sql, limit = (OLD_SESSIONS, SESSIONS) if kind == "sessions" else (OLD_LONE_TRACES, LONE_PAGE)
    key: Params = {"project_id": project_id, "before_us": before_us, "limit": limit}
    rows = await db.read(sql, {**key, "at_us": place[0], "seq": place[1]})
    found = [
        Old(at_us, project_id, session_id, trace_id)
        for at_us, _, session_id, trace_id in rows
        if session_id is not None or trace_id is not None
    ]
    return found, rows[-1][:2] if len(rows) == limit else None


IS_OLD: Final = f"""
SELECT 1 FROM sessions s
WHERE s.project_id = :project_id AND s.session_id = :session_id AND {_IS_OLD}
"""


IS_ALONE: Final = f"""
SELECT 1 FROM traces
WHERE project_id = :project_id AND trace_id = :trace_id AND {_IS_OLD_TRACE}
"""


def erase_old(
    tx: Transaction, old: Old, text_of: TextOf, *, before_us: int, most_spans: int, now_us: int
) -> Part:
    """Erase a part of it, unless it went on meanwhile, got a star, or came into a session."""
    project_id, session_id, trace_id = old.project_id, old.session_id, old.trace_id
    key: Params = {"project_id": project_id, "before_us": before_us}
    if session_id is not None and tx.execute(IS_OLD, {**key, "session_id": session_id}):
        part = erase_session(
            tx,
            project_id,
            session_id,
            text_of,
            extent="all",
            before_seq=EVERY_CALL,
            most_spans=most_spans,
            now_us=now_us,
        )
        return with_session(tx, project_id, session_id, part)
    if trace_id is not None and tx.execute(IS_ALONE, {**key, "trace_id": trace_id}):
        return erase_trace(
            tx,
            project_id,
            trace_id,
            text_of,
            extent="all",
            before_seq=EVERY_CALL,
            most_spans=most_spans,
            now_us=now_us,
        )
    return Part()
