"""Which session said what: a row for each message of a session, and its words in full text.

Invariant: a session mentions a message if and only if one of its calls brings it in: a call brings
the messages that instruct, those of its input behind the place from which it goes on, and its
answer. Full text has each content that anybody mentions, and no other. A trace without a
session mentions what it brings under a number of its own.
"""

from collections.abc import Iterable
from typing import Final

from storage.database import Params, Transaction
from storage.fulltext import TextOf, await_index, leave_index
from storage.keys import TraceKey
from storage.ledger import Ledger

# Each message that a span brings. A billion is all of a chain. That depths fall ends the walk even
# in a damaged file.
BROUGHT: Final = """
WITH RECURSIVE tips (seq, node_id, n) AS (
  SELECT s.seq, s.prelude_node_id, 1000000000 FROM spans s
  WHERE {which} AND s.prelude_node_id IS NOT NULL
  UNION ALL
  SELECT s.seq, s.input_node_id, s.fresh_count FROM spans s WHERE {which} AND s.fresh_count > 0
  UNION ALL
  SELECT s.seq, o.id, o.depth - COALESCE(i.depth, 0) FROM spans s
  JOIN nodes o ON o.id = s.output_node_id LEFT JOIN nodes i ON i.id = s.input_node_id
  WHERE {which}
), brought (seq, parent_id, content_id, depth, n) AS (
  SELECT t.seq, n.parent_id, n.content_id, n.depth, t.n
  FROM tips t JOIN nodes n ON n.id = t.node_id
  UNION ALL
  SELECT b.seq, n.parent_id, n.content_id, n.depth, b.n - 1
  FROM brought b JOIN nodes n ON n.id = b.parent_id WHERE b.n > 1 AND n.depth < b.depth
)
SELECT {columns} FROM brought b
"""
OF_TRACE: Final = "s.project_id = :project_id AND s.trace_id = :trace_id"
OF_SESSION: Final = "s.session_key = :session_key"
BROUGHT_BY_TRACE: Final = BROUGHT.format(which=OF_TRACE, columns="DISTINCT b.content_id")

ANOTHER_MENTION: Final = """
SELECT 1 FROM mentions WHERE content_id = :content_id AND session_key <> :session_key LIMIT 1
"""


def mention(ledger: Ledger, session_key: int, span_seq: int, brought: Iterable[int]) -> None:
    """Note that a span brings these contents into its session."""
    for content_id in brought:
        ledger.additions.mention(content_id, session_key, span_seq)


MOVE: Final = """
INSERT INTO mentions (content_id, session_key, span_seq)
SELECT content_id, :session_key, span_seq FROM mentions
WHERE content_id = :content_id AND session_key = :old_key
ON CONFLICT (content_id, session_key) DO NOTHING
"""
WITHDRAW: Final = """
DELETE FROM mentions WHERE content_id = :content_id AND session_key = :old_key
"""
SET_SESSION_KEY: Final = """
UPDATE spans SET session_key = :session_key
WHERE project_id = :project_id AND trace_id = :trace_id AND session_key IS NOT NULL
"""


def move(tx: Transaction, trace: TraceKey, old_key: int, session_key: int) -> None:
    """Give what a trace without a session mentions to the session that it joins."""
    key: Params = {"project_id": trace[0], "trace_id": trace[1], "session_key": session_key}
    rows: list[Params] = [
        {"content_id": content_id, "session_key": session_key, "old_key": old_key}
        for (content_id,) in tx.execute(BROUGHT_BY_TRACE, key)
    ]
    tx.execute_many(MOVE, rows)
    tx.execute_many(WITHDRAW, rows)
    tx.execute(SET_SESSION_KEY, key)


def brought_by(tx: Transaction, trace: TraceKey) -> set[int]:
    """Give the contents that the calls of a trace bring into its session."""
    key: Params = {"project_id": trace[0], "trace_id": trace[1]}
    return {content_id for (content_id,) in tx.execute(BROUGHT_BY_TRACE, key)}


_MENTION_BROUGHT: Final = f"""
INSERT INTO mentions (content_id, session_key, span_seq)
{BROUGHT.format(which="{which}", columns="b.content_id, :session_key, MIN(b.seq)")}
WHERE true GROUP BY b.content_id
ON CONFLICT (content_id, session_key) DO NOTHING RETURNING content_id
"""
MENTION_BROUGHT: Final = _MENTION_BROUGHT.format(which=OF_SESSION)
MENTION_BROUGHT_BY_CALL: Final = _MENTION_BROUGHT.format(which="s.seq = :seq")
MENTIONED: Final = "SELECT 1 FROM mentions WHERE content_id = :content_id LIMIT 1"


def withdraw(tx: Transaction, session_key: int, brought: Iterable[int], text_of: TextOf) -> None:
    """Take back what deleted calls brought into a session, but for what its other calls bring."""
    brought = list(brought)
    unheard = take_back(tx, session_key, brought)
    for content_id in brought:
        if not tx.execute(MENTIONED, {"content_id": content_id}):
            leave_index(tx, content_id, text_of)
    await_index(tx, unheard)


def take_back(tx: Transaction, session_key: int, brought: Iterable[int]) -> list[int]:
    """Take back what calls brought into a session that they are no longer in.

    Return the contents that full text is to have now: a call whose place is gone brings more than
    before, and what nobody mentioned in these words.
    """
    brought = list(brought)
    tx.execute_many(WITHDRAW, [{"content_id": one, "old_key": session_key} for one in brought])
    again = {row[0] for row in tx.execute(MENTION_BROUGHT, {"session_key": session_key})}
    return _unheard(tx, session_key, again.difference(brought))


def mention_again(tx: Transaction, session_key: int, seqs: Iterable[int]) -> list[int]:
    """Note what these calls bring into the session that they came to.

    Return the contents that full text is to have now.
    """
    mentioned: set[int] = set()
    for seq in seqs:
        rows = tx.execute(MENTION_BROUGHT_BY_CALL, {"session_key": session_key, "seq": seq})
        mentioned.update(row[0] for row in rows)
    return _unheard(tx, session_key, mentioned)


def _unheard(tx: Transaction, session_key: int, mentioned: Iterable[int]) -> list[int]:
    return [
        content_id
        for content_id in mentioned
        if not tx.execute(ANOTHER_MENTION, {"content_id": content_id, "session_key": session_key})
    ]
