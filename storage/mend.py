"""Makes rows that were saved from a damaged database fit together again.

Works on a database of the latest version that holds what recover.py could copy, and has just been
opened: what is damaged goes, what others hold of it is let go and counted, and all that can be
derived is derived anew. Invariant: afterwards the doctor finds nothing. Invents nothing: a body of
which a part is missing is gone, and its call stays.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Final

from storage.api_keys import make_up_for_lost_keys
from storage.continuation import replant
from storage.conversation import drop_nodes, known_holes_of
from storage.database import Params, Readable, Row, Transaction
from storage.doctor import STORED
from storage.fulltext import await_index
from storage.keys import lone_key, session_key
from storage.ledger import Ledger
from storage.mentions import MENTION_BROUGHT, SET_SESSION_KEY
from storage.opened import OPENING_COLUMNS, Opening
from storage.rollup import read_spans, roll_up, write_totals
from storage.wholeness import all_bodies, broken_contents, broken_nodes, each

# ruff: noqa: S608 (the SQL below is put together from constants of this file, never from values)

LOST_CONTENTS: Final = "messages and bodies that are damaged"
LOST_REQUESTS: Final = "calls whose request is lost, in whole"
LOST_ANSWERS: Final = "calls whose answer is lost, in whole"
LOST_SESSIONS: Final = "traces of which nothing says to which session they belong"
LOST_SIGN_INS: Final = "browsers that have to sign in again"
LOST_PROJECTS: Final = "projects whose name is lost"
LOST_RESERVATIONS: Final = "reservations of calls that are lost"


async def mend(tx: Transaction, now_us: int, *, lost_keys: bool = False) -> dict[str, int]:
    """Have everything fit together; return what was lost, and how much of it.

    ``lost_keys``: API keys may be lost.
    """
    db = _Reading(tx)
    lost = {LOST_CONTENTS: await _drop(tx, "contents", broken_contents(db))}
    await _drop_nodes(tx, db)
    lost[LOST_REQUESTS], lost[LOST_ANSWERS] = await _drop_bodies(tx, db)
    await _hold(tx, db)
    lost[LOST_SESSIONS] = await _sum(tx, db)
    _say(tx)
    lost[LOST_SIGN_INS] = make_up_for_lost_keys(tx, now_us, are_lost=lost_keys)
    lost[LOST_PROJECTS] = len(tx.execute(NAME_PROJECTS, {}))
    lost[LOST_RESERVATIONS] = len(tx.execute(DROP_RESERVATIONS, {}))
    for statement in (*FORGET, *FORGET_ORDERS):
        tx.execute(statement, {})
    for statement in COUNT_ON:
        tx.execute(statement, {})
    return {what: n for what, n in lost.items() if n}


class _Reading:
    """Reads what the transaction sees. Fulfils ``Readable``."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.full_text = tx.full_text

    async def damage(self) -> str | None:
        return None

    async def read(self, sql: str, params: Params) -> list[Row]:
        return self._tx.execute(sql, params)


async def _drop(tx: Transaction, table: str, ids: AsyncIterator[int]) -> int:
    found = [{"id": one} async for one in ids]
    tx.execute_many(f"DELETE FROM {table} WHERE id = :id", found)
    return len(found)


# Without its content or its message a node says nothing, and those below one that is gone do not
# say where they stood.
DROP_ROOTLESS: Final = """
WITH RECURSIVE rootless (id) AS (
  SELECT n.id FROM nodes n
  LEFT JOIN contents c ON c.id = n.content_id AND c.project_id = n.project_id
  LEFT JOIN messages m ON m.content_id = n.content_id
  LEFT JOIN nodes p ON p.id = n.parent_id AND p.project_id = n.project_id
  WHERE c.id IS NULL OR m.content_id IS NULL OR n.depth <> COALESCE(p.depth, 0) + 1
  UNION
  SELECT n.id FROM rootless r JOIN nodes n ON n.parent_id = r.id
)
DELETE FROM nodes WHERE id IN (SELECT id FROM rootless)
"""


async def _drop_nodes(tx: Transaction, db: Readable) -> None:
    await _drop(tx, "nodes", broken_nodes(db))
    tx.execute(DROP_ROOTLESS, {})


# A place in a conversation that is gone is none; the prelude goes with the input that holds it.
FORGET_PRELUDE: Final = "UPDATE spans SET prelude_node_id = NULL WHERE input_node_id IS NULL"
FORGET_PLACES: Final = (
    *(
        f"""
UPDATE spans SET {column} = NULL WHERE {column} IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM {table} WHERE id = spans.{column})
"""
        for column, table in (
            ("output_node_id", "nodes"),
            ("input_node_id", "nodes"),
            ("request_content_id", "contents"),
            ("response_content_id", "contents"),
        )
    ),
    FORGET_PRELUDE,
)
HOLE_IS_THERE: Final = """
SELECT 1 FROM contents c JOIN spans s ON s.project_id = c.project_id
WHERE c.id = :content_id AND s.seq = :seq
"""
DROP_REQUEST: Final = """
UPDATE spans SET request_content_id = NULL, request_envelope = NULL WHERE seq = :seq
"""
DROP_RESPONSE: Final = """
UPDATE spans SET response_content_id = NULL, response_envelope = NULL WHERE seq = :seq
"""
EMPTY_HOLES: Final = "DELETE FROM holes"
HOLD: Final = """
INSERT INTO holes (content_id, span_seq) VALUES (:content_id, :seq)
ON CONFLICT (content_id, span_seq) DO NOTHING
"""


async def _drop_bodies(tx: Transaction, db: Readable) -> tuple[int, int]:
    """Take bodies that do not rebuild from their calls; count the requests, and the answers."""
    had = await _kept(db)
    for statement in FORGET_PLACES:
        tx.execute(statement, {})
    tx.execute(EMPTY_HOLES, {})
    async for seq, *envelopes in each(db, ENVELOPES):
        for content_id in {one for packed in envelopes for one in known_holes_of(packed)}:
            row: Params = {"content_id": content_id, "seq": seq}
            if tx.execute(HOLE_IS_THERE, row):
                tx.execute(HOLD, row)
    asked = [{"seq": one.seq} async for one in all_bodies(db) if not one.request_is_whole]
    answered = [{"seq": one.seq} async for one in all_bodies(db) if not one.response_is_whole]
    tx.execute_many(DROP_REQUEST, asked)
    tx.execute_many(DROP_RESPONSE, answered)
    has = await _kept(db)
    return had[0] - has[0], had[1] - has[1]


KEPT: Final = """
SELECT COUNT(CASE WHEN request_envelope IS NOT NULL OR request_content_id IS NOT NULL THEN 1 END),
COUNT(CASE WHEN response_envelope IS NOT NULL OR response_content_id IS NOT NULL THEN 1 END)
FROM spans
"""


async def _kept(db: Readable) -> tuple[int, int]:
    """Count the requests and the answers of which bodies are kept."""
    ((requests, responses),) = await db.read(KEPT, {})
    return requests, responses


ENVELOPES: Final = """
SELECT seq, request_envelope, response_envelope FROM spans WHERE seq > :after ORDER BY seq
"""


UNHELD_NODES: Final = """
SELECT n.id FROM nodes n WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE parent_id = n.id)
  AND NOT EXISTS (SELECT 1 FROM spans WHERE input_node_id = n.id)
  AND NOT EXISTS (SELECT 1 FROM spans WHERE output_node_id = n.id)
"""
DROP_UNHELD: Final = (
    """
DELETE FROM messages AS m WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE content_id = m.content_id)
""",
    """
DELETE FROM contents AS c WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE content_id = c.id)
  AND NOT EXISTS (SELECT 1 FROM holes WHERE content_id = c.id)
  AND NOT EXISTS (SELECT 1 FROM spans WHERE request_content_id = c.id)
  AND NOT EXISTS (SELECT 1 FROM spans WHERE response_content_id = c.id)
""",
)


async def _hold(tx: Transaction, db: Readable) -> None:
    """Hold what the calls that are left need, and drop what nobody holds."""
    tx.execute(EMPTY_HOLES, {})
    async for seq, *envelopes in each(db, ENVELOPES):
        for content_id in {one for packed in envelopes for one in known_holes_of(packed)}:
            tx.execute(HOLD, {"content_id": content_id, "seq": seq})
    for (node_id,) in tx.execute(UNHELD_NODES, {}):
        drop_nodes(tx, node_id)
    for statement in DROP_UNHELD:
        tx.execute(statement, {})


# A span counts itself where the call that it saw as well is lost.
UNMARK: Final = """
UPDATE spans AS s SET same_call = NULL WHERE s.same_call IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM spans c WHERE c.project_id = s.project_id AND c.span_id = s.same_call
  AND c.owner IS NOT NULL)
"""
# What is a fact of its own in rows that are sums.
SET_ASIDE: Final = (
    f"""
CREATE TEMPORARY TABLE saved_traces AS
SELECT project_id, trace_id, session_id, session_source, linked_trace_id, forgotten_at_us,
{", ".join(OPENING_COLUMNS)} FROM traces
""",
    "CREATE INDEX saved_traces_by_id ON saved_traces (project_id, trace_id)",
    """
CREATE INDEX saved_traces_opened ON saved_traces (project_id, trace_id)
WHERE opened_seq IS NOT NULL
""",
    """
CREATE TEMPORARY TABLE saved_sessions AS
SELECT project_id, session_id, name, starred FROM sessions
""",
    "CREATE INDEX saved_sessions_by_id ON saved_sessions (project_id, session_id)",
    *(f"DELETE FROM {sums}" for sums in ("traces", "sessions", "session_models", "project_totals")),
)
KNOWN_SESSIONS: Final = """
SELECT project_id, session_id FROM saved_sessions
UNION SELECT project_id, session_id FROM saved_traces WHERE session_id IS NOT NULL
"""
# Those with spans, and those of which only was said something.
NEXT_TRACES: Final = f"""
SELECT k.project_id, k.trace_id, (SELECT MAX(session_key) FROM spans
  WHERE project_id = k.project_id AND trace_id = k.trace_id),
t.trace_id IS NOT NULL, t.session_id, t.session_source,
{", ".join(f"t.{c}" for c in OPENING_COLUMNS)}
FROM (
  SELECT project_id, trace_id FROM spans WHERE (project_id, trace_id) > (:project_id, :trace_id)
  UNION
  SELECT project_id, trace_id FROM saved_traces
  WHERE (project_id, trace_id) > (:project_id, :trace_id) AND opened_seq IS NOT NULL
  ORDER BY project_id, trace_id LIMIT 500
) k LEFT JOIN saved_traces t ON t.project_id = k.project_id AND t.trace_id = k.trace_id
ORDER BY k.project_id, k.trace_id
"""
GIVE_LINKS: Final = """
UPDATE traces AS t SET linked_trace_id = (
  SELECT a.linked_trace_id FROM saved_traces a
  WHERE a.project_id = t.project_id AND a.trace_id = t.trace_id)
WHERE EXISTS (SELECT 1 FROM saved_traces a WHERE a.project_id = t.project_id
  AND a.trace_id = t.trace_id AND a.linked_trace_id IS NOT NULL)
"""
GIVE_FORGOTTEN: Final = """
UPDATE traces AS t SET forgotten_at_us = (
  SELECT a.forgotten_at_us FROM saved_traces a
  WHERE a.project_id = t.project_id AND a.trace_id = t.trace_id)
WHERE EXISTS (SELECT 1 FROM saved_traces a WHERE a.project_id = t.project_id
  AND a.trace_id = t.trace_id AND a.forgotten_at_us IS NOT NULL)
"""
GIVE_NAMES: Final = """
UPDATE sessions AS s SET (name, starred) = (
  SELECT a.name, a.starred FROM saved_sessions a
  WHERE a.project_id = s.project_id AND a.session_id = s.session_id)
WHERE EXISTS (SELECT 1 FROM saved_sessions a
  WHERE a.project_id = s.project_id AND a.session_id = s.session_id)
"""
# The source of a session that was found by its number alone.
RECOVERED: Final = "recovered"


async def _sum(tx: Transaction, db: Readable) -> int:
    """Sum up the calls anew; return how many traces are in no session though they were in one."""
    for statement in (UNMARK, *SET_ASIDE):
        tx.execute(statement, {})
    sessions = {session_key(*row): row[1] for row in tx.execute(KNOWN_SESSIONS, {})}
    unknown = 0
    after: Params = {"project_id": -(2**63), "trace_id": b""}
    while rows := tx.execute(NEXT_TRACES, after):
        ledger = Ledger(tx)
        for project_id, trace_id, number, is_known, session_id, source, *said in rows:
            key = (project_id, trace_id)
            change = ledger.trace(key)
            if not is_known and number in sessions:
                session_id, source = sessions[number], RECOVERED
            elif not is_known:
                unknown += number is not None and number != lone_key(*key)
            change.session_id, change.session_source = session_id, source
            change.opening = Opening._make(said)
            change.spans = read_spans(tx, key)
            change.inserted = len(change.spans)
            own: Params = {"project_id": project_id, "trace_id": trace_id}
            tx.execute(SET_SESSION_KEY, {**own, "session_key": change.session_key})
        roll_up(ledger)
        after = {"project_id": rows[-1][0], "trace_id": rows[-1][1]}
    tx.execute(GIVE_NAMES, {})
    tx.execute(GIVE_LINKS, {})
    tx.execute(GIVE_FORGOTTEN, {})
    write_totals(tx, {}, dict(tx.execute(STORED, {})))
    for table in ("saved_traces", "saved_sessions"):
        tx.execute(f"DROP TABLE {table}", {})
    return unknown


SESSION_KEYS: Final = """
SELECT DISTINCT session_key FROM spans WHERE session_key IS NOT NULL ORDER BY session_key
"""
EMPTY_INDEX: Final = (
    "DELETE FROM mentions",
    "DELETE FROM unindexed",
)
MENTIONED: Final = "SELECT DISTINCT content_id FROM mentions"


def _say(tx: Transaction) -> None:
    """Find anew from where calls go on and what they say; full text is made when a server runs."""
    for statement in EMPTY_INDEX:
        tx.execute(statement, {})
    tx.full_text.empty(tx)
    for (number,) in tx.execute(SESSION_KEYS, {}):
        replant(tx, number)
        tx.execute(MENTION_BROUGHT, {"session_key": number})
    await_index(tx, _ids(tx.execute(MENTIONED, {})))


def _ids(rows: Iterable[Row]) -> list[int]:
    return [row[0] for row in rows]


# What says nothing of what it is of, or is of no order any more. An order that was at work looks
# anew for what it is of: of what it had found a part may be lost.
FORGET_ORDERS: Final = (
    "UPDATE erasures SET given = NULL WHERE ended_at_us IS NOT NULL",
    """
DELETE FROM erasure_targets AS t WHERE EXISTS (
  SELECT 1 FROM erasures e WHERE e.project_id = t.project_id AND e.id = t.erasure_id
  AND e.state IN ('collecting', 'erasing'))
""",
    """
UPDATE erasures SET state = 'collecting', place = NULL, target_count = done_count,
kept_starred_count = 0 WHERE ended_at_us IS NULL AND state IN ('collecting', 'erasing')
""",
    """
DELETE FROM erasure_targets AS t WHERE NOT EXISTS (
  SELECT 1 FROM erasures e WHERE e.project_id = t.project_id AND e.id = t.erasure_id
  AND e.ended_at_us IS NULL)
""",
)
# The first is always there. What another left behind must not be a new one's of the same id.
_IN_PROJECTS: Final = "SELECT 1 AS project_id" + "".join(
    f" UNION SELECT project_id FROM {table}"
    for table in ("spans", "traces", "api_keys", "provider_keys", "session_budgets", "erasures")
)
NAME_PROJECTS: Final = f"""
INSERT INTO projects (id, name) SELECT project_id, 'recovered-' || project_id
FROM ({_IN_PROJECTS}) AS found WHERE project_id NOT IN (SELECT id FROM projects) RETURNING id
"""
DROP_RESERVATIONS: Final = """
DELETE FROM reservations AS r WHERE NOT EXISTS (
  SELECT 1 FROM spans s WHERE s.project_id = r.project_id
  AND s.trace_id = r.trace_id AND s.span_id = r.span_id) RETURNING session_id
"""
FORGET: Final = (
    """
DELETE FROM reservations AS r WHERE EXISTS (
  SELECT 1 FROM spans s WHERE s.project_id = r.project_id AND s.trace_id = r.trace_id
  AND s.span_id = r.span_id AND s.cost_nusd IS NOT NULL)
""",
    """
DELETE FROM session_budgets AS b WHERE NOT EXISTS (
  SELECT 1 FROM sessions s WHERE s.project_id = b.project_id AND s.session_id = b.session_id)
""",
)
SEQS: Final = """
SELECT seq AS n FROM spans UNION SELECT opened_seq FROM traces UNION SELECT before_seq FROM erasures
"""
IDS: Final = "SELECT id FROM contents UNION ALL SELECT id FROM nodes"
# Numbers are never given twice, so they go on behind the highest there is.
COUNT_ON: Final = tuple(
    f"""
INSERT INTO counters (name, value) VALUES ('{name}', COALESCE(({highest}), 0))
ON CONFLICT (name) DO UPDATE SET value = CASE
  WHEN excluded.value > counters.value THEN excluded.value ELSE counters.value END
"""
    for name, highest in (
        ("seq", f"SELECT MAX(n) FROM ({SEQS}) AS seqs"),
        ("id", f"SELECT MAX(id) FROM ({IDS}) AS ids"),
        ("erasure", "SELECT MAX(id) FROM erasures"),
        ("grants", "SELECT 0"),
        ("event", "SELECT MAX(sequence) FROM events"),
        ("pruned_event", "SELECT MIN(sequence - event_count) FROM events"),
    )
)
