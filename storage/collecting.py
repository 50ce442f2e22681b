"""Finds what an order to erase is of: the sessions and traces of a user, or those of a query.

Invariant: each look reads a bounded part and says where the next goes on, until all has been looked
at, and a last look at all of it finds nothing new. What came after the asking is not found, or it
would not end while calls come; what is relative in a query (``since:24h``) counts from then. Of a
user go the sessions in which no other user is named, whole, and of others the traces with a call of
the user; behind the erasing all is looked at once more, until nothing more goes, for calls move:
into the trace of a span that saw them, or into a session that an application names. Not so of a
query: it would find what fulfils it only since. Sessions with a star are kept and counted, unless
they are asked for. One that has a word is never taken for one without it. It only reads; what an
order has already is order_targets.py's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from storage import fulltext
from storage.clauses import Alone, Query
from storage.database import Database, Params, Row
from storage.erasures import Erasure, Reason, State, target_of
from storage.listing import NEWEST, Order, list_hits
from storage.order_targets import Target
from storage.search import SearchError, parse

# ruff: noqa: S608 (the SQL below is put together from constants of this file, never from values)

# Calls, or traces, that are looked at for a user at a time, each in a session of its own at worst;
# and found rows of a query.
LOOKED_AT: Final = 2_000
PAGE: Final = 200

# A session that somebody goes on with meanwhile moves forward, where it is found again.
ORDER: Final = Order("last_active", descending=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a search goes on. ``where`` names what is looked at; "found": all was; "end": in vain.

    ``cut``: a word was too common for all to be found. ``spans`` are those that the order had
    erased when it began to look, and ``targets`` what it had found when this pass began.
    """

    where: str
    after: tuple[int, int] = (0, 0)
    behind: str = ""
    cut: bool = False
    spans: int = -1
    targets: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """A part of what an order is of, and how the order goes on; ``reason``: why no further."""

    targets: Sequence[Target]
    kept_starred: Sequence[str]
    state: State
    place: str | None
    reason: Reason | None = None


_encode: Final = msgspec.json.encode
_decode: Final = msgspec.json.Decoder(Place).decode


def is_by_words(erasure: Erasure) -> bool:
    """Tell whether full text is to have what was said by now before an order's next look.

    Once, to find all that has a word; before each look where a word is excluded, since a call that
    ended meanwhile may have said it.
    """
    if erasure.kind != "query":
        return False
    try:
        words = parse(erasure.given or "", "sessions").words
    except SearchError:  # as of `_of_query`
        return False
    return any(one.negated or erasure.place is None for one in words)


async def collect(db: Database, erasure: Erasure) -> Found:
    """Look at the next part of what may be meant."""
    given = erasure.given or ""
    if (target := target_of(erasure.kind, given)) is not None:
        return Found([target], (), "erasing", None)
    first = "spans" if erasure.kind == "user" else "sessions"
    place = Place(first) if erasure.place is None else _decode(erasure.place)
    if place.where == "end":
        return Found((), (), "incomplete", None, "too_common")
    if place.where == "found":
        return _decided(erasure, replace(place, where=first))
    if erasure.kind == "user":
        return await _of_user(db, erasure, given, place)
    return await _of_query(db, erasure, given, place)


def _decided(erasure: Erasure, place: Place) -> Found:
    """Say how an order goes on of which all was looked at."""
    count = erasure.target_count
    if erasure.kind == "query" and count != place.targets:
        # What moved meanwhile may have been passed by.
        return _on((), (), replace(place, targets=count))
    again: Place | None = None
    # Of a user whose content alone is forgotten, all would be found again.
    if place.cut or (erasure.kind == "user" and erasure.extent == "all"):
        again = replace(place, spans=erasure.span_count, targets=count, cut=False)
        if erasure.span_count <= place.spans:
            # Nothing went since the last look began. Where it could not see all, there may be more.
            again = Place("end") if place.cut else None
    return Found((), (), "erasing", None if again is None else _encode(again).decode())


def _on(found: Sequence[Target], kept: Sequence[str], place: Place) -> Found:
    return Found(found, kept, "collecting", _encode(place).decode())


_WITH_STARS: Final = """
LEFT JOIN sessions x ON x.project_id = t.project_id AND x.session_id = t.session_id
"""
# The order has it already, or keeps it.
_IS_FOUND: Final = """
EXISTS (SELECT 1 FROM erasure_targets e WHERE e.project_id = t.project_id AND e.erasure_id = :id
  AND e.session_id = t.session_id)
"""
# By number, of whatever project: SQLite takes few rows for the project's.
CALLS_OF_USER: Final = f"""
SELECT DISTINCT t.trace_id, t.session_id, x.starred FROM spans s
JOIN traces t ON t.project_id = s.project_id AND t.trace_id = s.trace_id {_WITH_STARS}
WHERE s.seq > :after AND s.seq <= :until AND s.project_id + 0 = :project_id
  AND s.user_id = :user_id AND NOT {_IS_FOUND}
"""
EDGE: Final = """
SELECT trace_id FROM traces WHERE project_id = :project_id AND trace_id > :after
ORDER BY trace_id LIMIT 1 OFFSET :looked_at
"""
# Those of which an application said whose they are.
TRACES_OF_USER: Final = f"""
SELECT t.trace_id, t.session_id, x.starred FROM traces t {_WITH_STARS}
WHERE t.project_id = :project_id AND t.trace_id > :after AND t.opened_user_id = :user_id
  AND NOT {_IS_FOUND}
"""


async def _of_user(db: Database, erasure: Erasure, user_id: str, place: Place) -> Found:
    key: dict[str, int | str | bytes | None] = {
        "project_id": erasure.project_id,
        "user_id": user_id,
        "id": erasure.id,
    }
    if place.where == "spans":
        after = place.after[0]
        until = min(after + LOOKED_AT, erasure.before_seq)
        rows = await db.read(CALLS_OF_USER, {**key, "after": after, "until": until})
        found, kept = await _by_session(db, erasure, user_id, rows)
        if until < erasure.before_seq:
            return _on(found, kept, replace(place, after=(until, 0)))
        return _on(found, kept, replace(place, where="traces"))
    key["after"] = bytes.fromhex(place.behind)
    edge = await db.read(EDGE, {**key, "looked_at": LOOKED_AT})
    bound = " AND t.trace_id <= :edge" if edge else ""
    rows = await db.read(TRACES_OF_USER + bound, key | ({"edge": edge[0][0]} if edge else {}))
    found, kept = await _by_session(db, erasure, user_id, rows)
    if edge:
        return _on(found, kept, replace(place, behind=edge[0][0].hex()))
    return _on(found, kept, replace(place, where="found", after=(0, 0), behind=""))


OF_ANOTHER: Final = """
SELECT 1 FROM traces t WHERE t.project_id = :project_id AND t.session_id = :session_id
  AND (t.opened_user_id <> :user_id OR EXISTS (
    SELECT 1 FROM spans s WHERE s.project_id = t.project_id AND s.trace_id = t.trace_id
    AND s.user_id <> :user_id)) LIMIT 1
"""


async def _by_session(
    db: Database, erasure: Erasure, user_id: str, rows: Sequence[Row]
) -> tuple[list[Target], list[str]]:
    """Take whole sessions in place of the traces of those that are the user's alone."""
    found: list[Target] = []
    kept: list[str] = []
    by_session: dict[str | None, list[bytes]] = {}
    for trace_id, session_id, _ in rows:
        by_session.setdefault(session_id, []).append(trace_id)
    starred = {session_id for _, session_id, is_starred in rows if is_starred}
    for session_id, trace_ids in by_session.items():
        key: Params = {
            "project_id": erasure.project_id,
            "session_id": session_id,
            "user_id": user_id,
        }
        if session_id is None:
            found += [(None, trace_id) for trace_id in trace_ids]
        elif session_id in starred and not erasure.with_starred:
            kept.append(session_id)
        elif await db.read(OF_ANOTHER, key):
            found += [(None, trace_id) for trace_id in trace_ids]
        else:
            found.append((session_id, None))
    return found, kept


async def _of_query(db: Database, erasure: Erasure, given: str, place: Place) -> Found:
    after = place.after if place.after != (0, 0) else None
    kept: list[str] = []
    found: list[Target] = []
    project_id, now_us = erasure.project_id, erasure.asked_at_us
    try:
        query = parse(given, "sessions")
        of_traces = query if place.where == "sessions" else parse(given, "traces")
    except SearchError:  # it was one when it was asked for, in an older version of the language
        return Found((), (), "failed", None, "unknown_query")
    if place.where == "sessions":
        page = await list_hits(db, project_id, PAGE, after, query=query, order=ORDER, now_us=now_us)
        for seq, session_id, starred in page.rows:
            if seq > erasure.before_seq and not await _has_older(db, erasure, session_id):
                continue  # all of it came after the order: of those there is no end
            if starred and not erasure.with_starred:
                kept.append(session_id)
            else:
                found.append((session_id, None))
    else:
        alone = replace(of_traces, conditions=(*of_traces.conditions, Alone()))
        page = await list_hits(
            db, project_id, PAGE, after, query=alone, order=NEWEST, now_us=now_us
        )
        found = [(None, trace_id) for seq, trace_id in page.rows if seq <= erasure.before_seq]
    next_after, cut = page.next_after, place.cut or page.truncated
    # After the page, so that what made a word too common meanwhile is seen.
    if await excludes_too_common(db, project_id, query):
        return Found((), (), "failed", None, "excludes_too_common")
    if next_after is not None:
        return _on(found, kept, replace(place, after=next_after, cut=cut))
    if place.where == "sessions" and _of_traces(given) is not None:
        return _on(found, kept, replace(place, where="traces", after=(0, 0), cut=cut))
    return _on(found, kept, replace(place, where="found", after=(0, 0), cut=cut))


HAS_OLDER: Final = """
SELECT 1 FROM traces
WHERE project_id = :project_id AND session_id = :session_id AND seq <= :before_seq LIMIT 1
"""


async def _has_older(db: Database, erasure: Erasure, session_id: str) -> bool:
    key: Params = {
        "project_id": erasure.project_id,
        "session_id": session_id,
        "before_seq": erasure.before_seq,
    }
    return bool(await db.read(HAS_OLDER, key))


async def excludes_too_common(db: Database, project_id: int, query: Query) -> bool:
    """Tell whether a query excludes a word of which not all messages are looked at.

    What it finds then may hold the word.
    """
    for words in query.words:
        if words.negated and (await fulltext.look_up(db, project_id, words.text)).is_truncated:
            return True
    return False


def _of_traces(given: str) -> Query | None:
    """Read a query for traces; None where it asks for what only sessions have."""
    try:
        return parse(given, "traces")
    except SearchError:
        return None
