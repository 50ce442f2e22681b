"""Which session a call belongs to where nobody named one, and where in it the call goes on.

Rules, the first that holds: a trace keeps the session that it has; what the call names; the session
of the answer that it names as the one before (``previous_response_id``); the session of the one
conversation that it extends by meaning, from an answer that we recorded whole, in the same project
and for the same caller. What could go on from two conversations belongs to none: it is ambiguous,
and so is what goes on from it. An earlier call that had no session takes one with its second call.

Invariant: of the calls of a session that go on from the same place, at least one holds that place
without going on from it itself; so the messages before a place are always brought in by some call.
"""

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from storage.chain import BEGINNING, MAX_POINTS, Conversation, Point, extend, meanings
from storage.database import Params, Row, Transaction, Value
from storage.keys import TraceKey
from storage.ledger import Ledger, TraceChange
from storage.mentions import move
from storage.parameters import clean_key
from storage.records import SpanEnd

PREVIOUS_RESPONSE: Final = "previous_response"
CONTINUATION: Final = "continuation"
# The source of a session that our own header named: the only one that keeps a call out of a trace.
NAMED: Final = "header"
# The source of a trace that is in no session because it could be in two.
AMBIGUOUS: Final = "ambiguous"
# Calls with the same answer to the same conversation that are looked at: more are no conversation
# of one client, but a test or a template that many send.
MAX_CANDIDATES: Final = 100


def join(ledger: Ledger, change: TraceChange, session_id: str, source: str) -> None:
    """Put a trace into a session, with all that its calls have brought, unless it has one."""
    if change.session_id is not None:
        return
    old_key = change.session_key
    change.session_id, change.session_source = session_id, source
    if change.has_ended_spans:
        ledger.flush()
        move(ledger.tx, change.key, old_key, change.session_key)


@dataclass(frozen=True, slots=True)
class Answer:
    """The recorded answer that a call names as the one before it."""

    trace: TraceKey
    output_meaning: bytes | None


FIND_ANSWER: Final = """
SELECT trace_id, output_meaning FROM spans
WHERE project_id = :project_id AND response_id = :response_id AND seq <> :seq
  AND owner IS NOT NULL
ORDER BY started_at_us, seq LIMIT 1
"""


def answer_before(tx: Transaction, project_id: int, seq: int, ended: SpanEnd) -> Answer | None:
    """Find the answer that a call goes on from by its id: of those with that id, the oldest."""
    if ended.previous_response_id is None:
        return None
    response_id = clean_key(ended.previous_response_id)
    found = tx.execute(
        FIND_ANSWER, {"project_id": project_id, "response_id": response_id, "seq": seq}
    )
    return Answer((project_id, found[0][0]), found[0][1]) if found else None


def find_session(
    ledger: Ledger, change: TraceChange, ended: SpanEnd, previous: Answer | None
) -> None:
    """Find the session of a call that names none, in a trace that has none."""
    if previous is not None:
        _join_other(ledger, change, previous.trace, PREVIOUS_RESPONSE)
        return
    # Where an answer is named that we do not know, nobody knows what stands before the input.
    if not ended.infer_session or ended.previous_response_id or change.session_source == AMBIGUOUS:
        return
    found = _extended(ledger.tx, change.key[0], ended)
    if not found:
        return
    others = [ledger.trace((change.key[0], trace_id)) for trace_id in found]
    sessions = {other.session_id for other in others}
    known = len(found) <= MAX_CANDIDATES and not any(
        other.session_id is None and other.session_source == AMBIGUOUS for other in others
    )
    # One session, or one trace that has none.
    if known and len(sessions) == 1 and (None not in sessions or len(others) == 1):
        _join_other(ledger, change, others[0].key, CONTINUATION)
    else:
        change.session_source = AMBIGUOUS


def _join_other(ledger: Ledger, change: TraceChange, key: TraceKey, source: str) -> None:
    other = ledger.trace(key)
    if other.session_id is None:
        join(ledger, other, f"auto_{key[1].hex()}", source)
    if other.session_id is not None:
        join(ledger, change, other.session_id, source)


# Of the column itself SQLite would read all the project's spans, which its key has in that order.
FIND_EXTENDED: Final = """
SELECT DISTINCT COALESCE(trace_id, trace_id) FROM spans
WHERE project_id = :project_id AND output_meaning = :meaning
  AND caller IS NOT DISTINCT FROM :caller AND state = 'completed' AND owner IS NOT NULL
LIMIT :limit
"""


def _extended(tx: Transaction, project_id: int, ended: SpanEnd) -> list[bytes]:
    """Find the traces with an answer that the call's input goes on from, the furthest there is."""
    conversation = ended.conversation
    params: dict[str, Value] = {
        "project_id": project_id,
        "caller": ended.start.caller,
        "limit": MAX_CANDIDATES + 1,
    }
    for point in () if conversation is None else conversation.points:
        if point.answered:
            params["meaning"] = point.meaning
            if found := tx.execute(FIND_EXTENDED, params):
                return [trace_id for (trace_id,) in found]
    return []


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call goes on from, and what its conversation means.

    ``after`` is the number of its input messages behind that place, None where all are.
    ``prelude_id`` is what instructs the call that holds the place, where that began before it.
    """

    input_meaning: bytes | None
    output_meaning: bytes | None
    base_meaning: bytes | None = None
    after: int | None = None
    prelude_id: int | None = None


NEWEST_MEANING: Final = """
SELECT output_meaning FROM spans
WHERE session_key = :session_key AND output_meaning IS NOT NULL AND seq <> :seq
ORDER BY seq DESC LIMIT 1
"""


def place_of(
    ledger: Ledger,
    change: TraceChange,
    seq: int,
    ended: SpanEnd,
    conversation: Conversation,
    previous: Answer | None,
) -> Place:
    """Find where a call goes on from in its session."""
    session_key = change.session_key
    start, is_here = None, True
    if ended.previous_response_id is not None:
        if previous is None or previous.output_meaning is None:
            return Place(None, None)  # what stands before the input is not known
        start = previous.output_meaning
        is_here = ledger.trace(previous.trace).session_key == session_key
    elif ended.keeps_state:
        newest = ledger.tx.execute(NEWEST_MEANING, {"session_key": session_key, "seq": seq})
        start = newest[0][0] if newest else None
    if start is None:
        key: Params = {"project_id": change.key[0], "session_key": session_key, "seq": seq}
        alone = change.session_id is None and not change.has_ended_spans
        found = None if alone else _furthest(ledger.tx, key, conversation.points)
        own = conversation.input_meaning, conversation.output_meaning
        if found is None:
            return Place(*own)
        point, prelude_id, holder = found
        # A mention names the oldest call that brings a message: what instructs it, too.
        is_older = holder < seq
        return Place(*own, point.meaning, point.after, prelude_id if is_older else None)
    input_meaning = meanings(start, conversation.messages)
    output_meaning = None
    if conversation.output_meaning is not None:
        output_meaning = meanings(input_meaning, conversation.answer)
    return Place(input_meaning, output_meaning, start if is_here else None)


# Places that are asked for at once, which is the same text each time.
AT_ONCE: Final = 8
# Who holds a place and does not go on from it itself.
_HOLDING: Final = """
SELECT {n} AS n, prelude_node_id, seq FROM spans
WHERE project_id = :project_id AND {column} = :{column}{n} AND session_key = :session_key
  AND base_meaning IS DISTINCT FROM :{column}{n} AND seq <> :seq
LIMIT 1
"""
_COLUMNS: Final = {True: "output_meaning", False: "input_meaning"}
HOLDING_ANSWER: Final = _HOLDING.format(column=_COLUMNS[True], n=0)
HOLDING_INPUT: Final = _HOLDING.format(column=_COLUMNS[False], n=0)
HOLDING_SOME: Final = "UNION ALL".join(
    f"\nSELECT * FROM ({_HOLDING.format(column=column, n=n)}) AS {column}{n}\n"
    for column in _COLUMNS.values()
    for n in range(AT_ONCE)
)
_NO_PLACES: Final = {f"{column}{n}": b"" for column in _COLUMNS.values() for n in range(AT_ONCE)}


def _furthest(
    tx: Transaction, key: Params, points: Sequence[Point]
) -> tuple[Point, int | None, int] | None:
    """Find the first of these places that a call holds; also what instructs it, and its number."""
    # Nearly all go on from the newest place, so that is asked for by itself.
    for point in points[:1]:
        sql = HOLDING_ANSWER if point.answered else HOLDING_INPUT
        if found := tx.execute(sql, {**key, f"{_COLUMNS[point.answered]}0": point.meaning}):
            return point, found[0][1], found[0][2]
    for first in range(1, len(points), AT_ONCE):
        some = points[first : first + AT_ONCE]
        wanted = {f"{_COLUMNS[one.answered]}{n}": one.meaning for n, one in enumerate(some)}
        if found := tx.execute(HOLDING_SOME, {**key, **_NO_PLACES, **wanted}):
            n, prelude_id, seq = min(found, key=itemgetter(0))
            return some[n], prelude_id, seq
    return None


GONE: Final = """
NOT EXISTS (SELECT 1 FROM spans t
  WHERE t.project_id = s.project_id AND t.{column} = s.base_meaning
    AND t.session_key = s.session_key AND t.base_meaning IS DISTINCT FROM s.base_meaning
    AND t.seq <> s.seq)
"""
# No other call of the session holds the place from which this one, ``s``, goes on.
UPROOTED: Final = (
    f"{GONE.format(column='output_meaning')} AND {GONE.format(column='input_meaning')}"
)
FIND_UPROOTED: Final = f"""
SELECT s.project_id, s.seq, s.input_meaning, s.input_node_id, COALESCE(p.depth, 0), s.fresh_count
FROM spans s LEFT JOIN nodes p ON p.id = s.prelude_node_id
WHERE {{which}} AND s.base_meaning IS NOT NULL AND {UPROOTED}
"""
FIND_UPROOTED_OF_SESSION: Final = FIND_UPROOTED.format(which="s.session_key = :session_key")
# Not in order: SQLite would read all the session's spans, which an index has in that order.
FIND_UPROOTED_CALL: Final = FIND_UPROOTED.format(which="s.seq = :seq")
FIND_UPROOTED_AT: Final = FIND_UPROOTED.format(
    which="s.session_key = :session_key AND s.base_meaning = :place"
)
REPLANT: Final = """
UPDATE spans SET base_meaning = :base_meaning, fresh_count = :fresh_count WHERE seq = :seq
"""


@dataclass(slots=True)
class Replanted:
    """Calls that go on from another place, and what of their input they no longer bring by that."""

    seqs: list[int] = field(default_factory=list)
    left: set[int] = field(default_factory=set)


def replant(tx: Transaction, session_key: int) -> Replanted:
    """Find a place anew for those calls of a session whose place went with another call."""
    rows = tx.execute(FIND_UPROOTED_OF_SESSION, {"session_key": session_key})
    return _replant(tx, session_key, rows, anew=False)


def replant_at(
    tx: Transaction, session_key: int, places: Iterable[bytes], *, anew: bool = False
) -> Replanted:
    """Find a place anew for those calls that went on from these places, which calls have left.

    With ``anew`` they have none any more, and bring all of their input.
    """
    rows = [
        row
        for place in sorted(places)
        for row in tx.execute(FIND_UPROOTED_AT, {"session_key": session_key, "place": place})
    ]
    return _replant(tx, session_key, rows, anew=anew)


def _replant(tx: Transaction, session_key: int, rows: list[Row], *, anew: bool) -> Replanted:
    replanted = Replanted()
    ordered = sorted(rows, key=itemgetter(1))
    for project_id, seq, input_meaning, input_node_id, instructing, fresh_count in ordered:
        said = tx.execute(READ_CHAIN, {"id": input_node_id})[instructing:]
        found = None
        if not anew:
            key: Params = {"project_id": project_id, "session_key": session_key, "seq": seq}
            found = _furthest(tx, key, _points(said, input_meaning))
        base, after = (None, len(said)) if found is None else (found[0].meaning, found[0].after)
        tx.execute(REPLANT, {"seq": seq, "base_meaning": base, "fresh_count": after})
        replanted.seqs.append(seq)
        # It may go on from further behind than before: from a place that was held later.
        replanted.left.update(row[2] for row in said[len(said) - fresh_count : len(said) - after])
    return replanted


def begin_anew(tx: Transaction, seqs: Iterable[int]) -> None:
    """Have calls bring all of their input that came into a session without their place."""
    for seq in seqs:
        for _, _, _, input_node_id, instructing, _ in tx.execute(FIND_UPROOTED_CALL, {"seq": seq}):
            length = sum(depth for (depth,) in tx.execute(DEPTH, {"id": input_node_id}))
            after = length - instructing
            tx.execute(REPLANT, {"seq": seq, "base_meaning": None, "fresh_count": after})


DEPTH: Final = "SELECT depth FROM nodes WHERE id = :id"
READ_CHAIN: Final = """
WITH RECURSIVE up (parent_id, content_id, depth) AS (
  SELECT parent_id, content_id, depth FROM nodes WHERE id = :id
  UNION ALL
  SELECT n.parent_id, n.content_id, n.depth FROM up JOIN nodes n ON n.id = up.parent_id
  WHERE n.depth < up.depth
)
SELECT m.role, m.meaning, m.content_id
FROM up JOIN messages m ON m.content_id = up.content_id ORDER BY up.depth
"""


def _points(said: list[Row], input_meaning: bytes) -> list[Point]:
    """Give the places in an input anew; none where it does not begin at the beginning."""
    points = []
    place = BEGINNING
    for n, (role, meaning, _) in enumerate(said, 1):
        place = extend(place, meaning)
        if meaning:
            points.append(Point(place, len(said) - n, role == "assistant"))
    return points[: -MAX_POINTS - 1 : -1] if place == input_meaning else []
