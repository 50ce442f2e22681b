"""Forgets the content of calls and keeps their metadata: who, when, how long, how much it cost.

Invariant: of a call whose content is forgotten nothing is left that anybody said: no body, no
header, no preview, no query of the URL, no attribute, and no hash by which a guess could be
confirmed; that it failed stays known. Content that another call holds as well stays, for that one.
What is left is summed up as ever.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.aggregates import SPAN_FACTS, SpanFacts
from storage.columns import CONVERSATION_COLUMNS
from storage.database import Transaction, Value
from storage.events import log_changes
from storage.fulltext import TextOf
from storage.keys import TraceKey
from storage.ledger import Ledger, TraceChange
from storage.letting_go import HELD_COLUMNS, Leaving, let_go
from storage.mentions import brought_by_call
from storage.rollup import roll_up

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# What stands for an error whose words are forgotten.
FORGOTTEN: Final = "[forgotten]"
CONTENT_COLUMNS: Final = (
    *("request_content_id", "response_content_id", "request_envelope", "response_envelope"),
    *("request_sha256", "response_sha256", "request_head", "response_head"),
    *("input_preview", "output_preview", "query", "attributes"),
    *CONVERSATION_COLUMNS,
)
# Of a span `s`.
HOLDS: Final = f"""
({" OR ".join(f"s.{column} IS NOT NULL" for column in CONTENT_COLUMNS)}
 OR (s.error IS NOT NULL AND s.error <> '{FORGOTTEN}'))
"""
READ: Final = f"""
SELECT {", ".join(HELD_COLUMNS)}, {SPAN_FACTS} FROM spans s
WHERE project_id = :project_id AND trace_id = :trace_id AND seq <= :before_seq
  AND state <> 'running' AND {HOLDS}
ORDER BY seq DESC LIMIT :limit
"""
FORGET: Final = f"""
UPDATE spans SET {", ".join(f"{column} = NULL" for column in CONTENT_COLUMNS)}, stored_bytes = 0,
error = CASE WHEN error IS NOT NULL THEN '{FORGOTTEN}' END
WHERE seq = :seq RETURNING {SPAN_FACTS}
"""
# An end that waits for its start has what it said.
DROP_EARLY: Final = """
DELETE FROM early_ends WHERE project_id = :project_id AND ended_id = :span_id
"""
# Also of spans that hold nothing: such an end may have said more than its span took of it.
DROP_EARLY_OF_TRACE: Final = """
DELETE FROM early_ends WHERE project_id = :project_id AND ended_id IN (
  SELECT s.span_id FROM spans s WHERE s.project_id = :project_id AND s.trace_id = :trace_id)
"""
HOLDS_STILL: Final = f"""
SELECT 1 FROM spans s WHERE project_id = :project_id AND trace_id = :trace_id
  AND state <> 'running' AND {HOLDS} LIMIT 1
"""
MARK: Final = """
UPDATE traces SET forgotten_at_us = :now_us WHERE project_id = :project_id AND trace_id = :trace_id
"""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What of some traces was forgotten; ``traces`` are those of which nothing is left to forget.

    ``finished``: that is so of all of them, but for calls that run or are not to be forgotten.
    """

    finished: bool
    traces: int
    spans: int
    contents: int
    content_bytes: int


def forget_contents(
    tx: Transaction,
    keys: Sequence[TraceKey],
    text_of: TextOf,
    *,
    now_us: int,
    most_spans: int,
    before_seq: int,
) -> Forgotten:
    """Forget the content of the calls of traces, the newest calls of the first trace first.

    Of ``most_spans`` at a time, which are numbered up to ``before_seq`` and do not run. Calls that
    went on from them begin anew.
    """
    ledger = Ledger(tx)
    leaving: dict[int, Leaving] = {}
    ledger.look_up_traces(keys)
    left, spans, finished = most_spans, 0, True
    done: list[TraceKey] = []
    for key in keys:
        change = ledger.traces[key]
        if change.old is None:
            continue
        if left <= 0:
            finished = False
            break
        number = change.session_key
        found = _forget(tx, change, leaving.setdefault(number, Leaving(number)), left, before_seq)
        if found < left:
            done.append(key)
        else:
            finished = False
        spans += found
        left -= found
    traces, contents, freed_bytes = _settle(ledger, leaving, text_of, now_us, done)
    return Forgotten(finished, traces, spans, contents, freed_bytes)


def _forget(
    tx: Transaction, change: TraceChange, leaving: Leaving, limit: int, before_seq: int
) -> int:
    """Forget the content of some calls of a trace; return of how many."""
    project_id, trace_id = change.key
    key: dict[str, Value] = {
        "project_id": project_id,
        "trace_id": trace_id,
        "before_seq": before_seq,
        "limit": limit,
    }
    rows = tx.execute(READ, key)
    for row in rows:
        seq, span_id = row[:2]
        leaving.spans.append(row[: len(HELD_COLUMNS)])
        leaving.brought |= brought_by_call(tx, seq)
        change.before[span_id] = SpanFacts.of(row[len(HELD_COLUMNS) :])
        (after,) = tx.execute(FORGET, {"seq": seq})
        change.spans[span_id] = SpanFacts.of(after)
        tx.execute(DROP_EARLY, {"project_id": project_id, "span_id": span_id})
    return len(rows)


def _settle(
    ledger: Ledger,
    leaving: dict[int, Leaving],
    text_of: TextOf,
    now_us: int,
    done: Sequence[TraceKey],
) -> tuple[int, int, int]:
    """Drop what was held, sum up anew, and mark the traces that hold nothing any more.

    Return how many those are, and the contents and bytes that were dropped.
    """
    tx = ledger.tx
    freed: Counter[int] = Counter()
    projects = {change.session_key: key[0] for key, change in ledger.traces.items()}
    contents = 0
    for number in sorted(leaving):
        dropped, freed_bytes = let_go(tx, leaving[number], text_of, anew=True)
        contents += dropped
        freed[projects[number]] += freed_bytes
    ledger.additions.stored_bytes.subtract(freed)
    sessions = roll_up(ledger)
    traces = 0
    for project_id, trace_id in done:
        key: dict[str, Value] = {"project_id": project_id, "trace_id": trace_id}
        if not tx.execute(HOLDS_STILL, key):
            tx.execute(DROP_EARLY_OF_TRACE, key)
            tx.execute(MARK, {**key, "now_us": now_us})
            traces += 1
    log_changes(ledger, sessions)  # last, as in writes.apply
    return traces, contents, freed.total()
