"""The rows of traces, sessions and projects, kept equal to the folds of aggregates.py.

Invariant: whoever changes a span hands the change to ``roll_up`` in the same transaction. Rows are
written in the order of their keys, so that two writers on PostgreSQL never wait for each other in
a circle. Knows nothing of what a change was.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from storage import budgets
from storage.aggregates import (
    AMOUNTS,
    SPAN_FACTS,
    TOTALS,
    TRACE_COLUMNS,
    SpanFacts,
    TraceFacts,
    added,
    bounded,
    fold_trace,
    totals,
)
from storage.database import Params, Transaction, Value
from storage.keys import SessionKey, TraceKey
from storage.ledger import Ledger, TraceChange
from storage.long_traces import LONG_TRACE, moved, packed, tally_of
from storage.marks import NO_MARK, Mark, inherit
from storage.opened import Opening, write_openings
from storage.session_sums import ALL, DOUBTED, SessionChange

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)


def roll_up(ledger: Ledger) -> tuple[SessionKey, ...]:
    """Bring traces, sessions and totals up to date with their spans; return those sessions."""
    tx = ledger.tx
    sessions: dict[SessionKey, SessionChange] = {}
    projects: dict[int, list[int]] = {}
    traces: list[Params] = []
    openings: list[tuple[TraceKey, Opening]] = []
    tallies: list[Params] = []
    for key in sorted(ledger.traces):
        change = ledger.traces[key]
        if not change.touched:
            continue
        old, session_id = change.old, change.session_id
        if change.emptied:
            if old is not None:
                _delete_trace(ledger, key, old)
                _add_totals(projects.setdefault(key[0], [0] * len(TOTALS)), old, None)
            continue
        new, spans = _fold(tx, change, tallies)
        change.folded = new
        traces.append(_trace_values(key, new))
        if change.opening != change.was_opening:
            openings.append((key, change.opening))
        _add_totals(projects.setdefault(key[0], [0] * len(TOTALS)), old, new)
        was = None if old is None else old.session_id
        if was is not None and was != session_id:
            ledger.left.add((key[0], was))
            ledger.heirs[key[0], was] = key
        if session_id is None:
            continue
        session = sessions.get((key[0], session_id))
        if session is None:
            session = SessionChange.beginning_with(new)
            sessions[key[0], session_id] = session
        if old is not None and was == session_id:
            session.replace(old, new)
            models: Iterable[tuple[str, int]] = change.models.items()
        else:
            session.replace(None, new)
            if len(spans) < new.span_count:
                spans = read_spans(tx, key)
            models = ((span.model, 1) for span in spans.values() if span.model is not None)
        for model, n in models:
            session.models[model] += n
    tx.insert_rows(WRITE_TRACES, traces)
    write_openings(tx, openings)
    tx.execute_many(WRITE_TALLY, tallies)
    tx.execute_many(
        LINK,
        [
            {"project_id": key[0], "trace_id": key[1], "linked_trace_id": linked}
            for key, linked in ledger.links.items()
        ],
    )
    doubts = {key: _doubts(tx, key, sessions[key]) for key in sorted(sessions)}
    stale = ledger.left.union(key for key, doubt in doubts.items() if doubt == ALL)
    _write_sessions(tx, [(key, sessions[key]) for key in sorted(sessions.keys() - stale)])
    orphaned = {key: mark for key in sorted(stale) if (mark := recompute_session(tx, *key))}
    for session_key, mark in orphaned.items():
        heir = ledger.heirs.get(session_key)
        if heir is not None and (heir_id := ledger.traces[heir].session_id) is not None:
            inherit(tx, heir[0], heir_id, mark)
    for session_key in sorted(ledger.left):
        budgets.forget(tx, *session_key, ())
    for session_key in sorted(sessions.keys() - stale):
        for place in sorted(doubts[session_key]):
            tx.execute(FIND_PLACE[place], _session_params(session_key))
    write_totals(tx, projects, ledger.additions.stored_bytes)
    return tuple(sorted(sessions.keys() | ledger.left))


WRITE_TALLY: Final = """
UPDATE traces SET tally = :tally WHERE project_id = :project_id AND trace_id = :trace_id
"""


def _fold(
    tx: Transaction, change: TraceChange, tallies: list[Params]
) -> tuple[TraceFacts, dict[bytes, SpanFacts]]:
    """Sum up a trace; return its row, and those of its spans that were needed for it."""
    spans, count = change.spans, change.span_count
    tally: bytes | None = None
    if count > LONG_TRACE and (found := moved(change)) is not None:
        new, tally = found[0], packed(found[1])
    else:
        if count != len(spans):
            spans = read_spans(tx, change.key)
        new = fold_trace(spans.values(), change.session_id, change.session_source, change.opening)
        if len(spans) > LONG_TRACE:
            tally = packed(tally_of(spans.values()))
    if tally != change.tally:
        project_id, trace_id = change.key
        tallies.append({"project_id": project_id, "trace_id": trace_id, "tally": tally})
    return new, spans


READ_DOUBTED: Final = f"""
SELECT {", ".join(DOUBTED)} FROM sessions
WHERE project_id = :project_id AND session_id = :session_id
"""


def _doubts(tx: Transaction, key: SessionKey, change: SessionChange) -> frozenset[str]:
    """Find out what of a session's row the difference does not tell: nearly always nothing."""
    if not change.unsure:
        return frozenset()
    rows = tx.execute(READ_DOUBTED, _session_params(key))
    return change.doubts(dict(zip(DOUBTED, rows[0], strict=True))) if rows else ALL


def _session_params(key: SessionKey) -> dict[str, Value]:
    return {"project_id": key[0], "session_id": key[1]}


DELETE_TRACE: Final = """
DELETE FROM traces WHERE project_id = :project_id AND trace_id = :trace_id
"""
LINK: Final = """
UPDATE traces SET linked_trace_id = :linked_trace_id
WHERE project_id = :project_id AND trace_id = :trace_id
"""


def _delete_trace(ledger: Ledger, key: TraceKey, old: TraceFacts) -> None:
    """Take away the row of a trace whose last span went to another."""
    ledger.tx.execute(DELETE_TRACE, {"project_id": key[0], "trace_id": key[1]})
    if old.session_id is not None:
        ledger.left.add((key[0], old.session_id))


READ_SESSION_TRACES: Final = f"""
SELECT {", ".join(TRACE_COLUMNS)} FROM traces
WHERE project_id = :project_id AND session_id = :session_id
"""
# CROSS: SQLite would begin with all spans of the project.
READ_SESSION_MODELS: Final = """
SELECT COALESCE(s.model, s.model_requested), COUNT(*) FROM traces t CROSS JOIN spans s
WHERE s.project_id = t.project_id AND s.trace_id = t.trace_id
  AND t.project_id = :project_id AND t.session_id = :session_id
  AND COALESCE(s.model, s.model_requested) IS NOT NULL
GROUP BY 1
"""
DELETE_SESSION: Final = """
DELETE FROM sessions WHERE project_id = :project_id AND session_id = :session_id
RETURNING name, starred
"""
DELETE_SESSION_MODELS: Final = """
DELETE FROM session_models WHERE project_id = :project_id AND session_id = :session_id
"""


def recompute_session(tx: Transaction, project_id: int, session_id: str) -> Mark | None:
    """Fold a session anew from its traces. Its name and star stay.

    Without any trace it goes; returned is then what it was marked with, if it was.
    """
    key: dict[str, Value] = {"project_id": project_id, "session_id": session_id}
    kept = tx.execute(DELETE_SESSION, key)
    mark = Mark(kept[0][0], bool(kept[0][1])) if kept else NO_MARK
    tx.execute(DELETE_SESSION_MODELS, key)
    traces = [TraceFacts.of(row) for row in tx.execute(READ_SESSION_TRACES, key)]
    if not traces:
        return mark if mark != NO_MARK else None
    session = SessionChange.beginning_with(traces[0])
    for trace in traces:
        session.replace(None, trace)
    session.models.update(dict(tx.execute(READ_SESSION_MODELS, key)))
    _write_sessions(tx, [((project_id, session_id), session)], mark)
    return None


READ_SPANS: Final = f"""
SELECT span_id, {SPAN_FACTS} FROM spans WHERE project_id = :project_id AND trace_id = :trace_id
"""


def read_spans(tx: Transaction, key: TraceKey) -> dict[bytes, SpanFacts]:
    """Read what all spans of a trace give to the sums."""
    rows = tx.execute(READ_SPANS, {"project_id": key[0], "trace_id": key[1]})
    return {row[0]: SpanFacts.of(row[1:]) for row in rows}


ADD_TOTALS: Final = f"""
INSERT INTO project_totals AS p (project_id, stored_bytes, {", ".join(TOTALS)})
VALUES (:project_id, :stored_bytes, {", ".join(f":{c}" for c in TOTALS)})
ON CONFLICT (project_id) DO UPDATE SET
{", ".join(f"{c} = {added(f'p.{c}', f'excluded.{c}')}" for c in ("stored_bytes", *TOTALS))}
"""


def write_totals(
    tx: Transaction, projects: Mapping[int, list[int]], stored_bytes: Mapping[int, int]
) -> None:
    """Add to the totals of projects: lists in the order of ``TOTALS``, and stored bytes."""
    rows: list[Params] = []
    for project_id in sorted(projects.keys() | stored_bytes.keys()):
        differences = map(bounded, projects.get(project_id, [0] * len(TOTALS)))
        values: dict[str, Value] = dict(zip(TOTALS, differences, strict=True))
        values["project_id"] = project_id
        values["stored_bytes"] = stored_bytes.get(project_id, 0)
        rows.append(values)
    tx.insert_rows(ADD_TOTALS, rows)


def _add_totals(sums: list[int], old: TraceFacts | None, new: TraceFacts | None) -> None:
    if new is not None:
        for i, n in enumerate(totals(new)):
            sums[i] += n
    if old is not None:
        for i, n in enumerate(totals(old)):
            sums[i] -= n


WRITE_TRACES: Final = f"""
INSERT INTO traces (project_id, trace_id, {", ".join(TRACE_COLUMNS)})
VALUES (:project_id, :trace_id, {", ".join(f":{c}" for c in TRACE_COLUMNS)})
ON CONFLICT (project_id, trace_id) DO UPDATE SET forgotten_at_us = NULL,
{", ".join(f"{c} = excluded.{c}" for c in TRACE_COLUMNS)}
"""


def _trace_values(key: TraceKey, trace: TraceFacts) -> Params:
    values: dict[str, Value] = dict(zip(TRACE_COLUMNS, (*trace[:-1], *trace.amounts), strict=True))
    values["project_id"], values["trace_id"] = key
    return values


COUNTS: Final = (
    "trace_count",
    "span_count",
    "failed_trace_count",
    "ended_trace_count",
    "ended_duration_us",
    "unpriced_count",
    "estimated_count",
    "received_bytes",
    "stored_bytes",
)


# A text and the place (start, seq) of the trace that gave it.
FROM_FIRST: Final = ("first_started_at_us", "first_seq", "source", "first_input")
FROM_NEWEST: Final = ("last_active_at_us", "last_seq", "status")
USER: Final = ("user_at_us", "user_seq", "user_id")
OUTPUT: Final = ("output_at_us", "output_seq", "last_output")
ERROR: Final = ("error_at_us", "error_seq", "last_error")

INSERTED: Final = (
    *("project_id", "session_id", "session_key", "seq", "name", "starred", "last_ended_at_us"),
    *COUNTS,
    *AMOUNTS,
    *FROM_FIRST,
    *FROM_NEWEST,
    *USER,
    *OUTPUT,
    *ERROR,
)


# The columns of a session that one of its traces gives, from that trace's; which trace it is.
_PLACED: Final = {
    "first": (FROM_FIRST, "started_at_us, seq, session_source, input_preview", "", ""),
    "newest": (FROM_NEWEST, "started_at_us, seq, status", "", "DESC"),
    "user": (USER, "started_at_us, seq, user_id", "user_id", ""),
    "output": (OUTPUT, "started_at_us, seq, output_preview", "output_preview", "DESC"),
    "error": (ERROR, "started_at_us, seq, error", "error", "DESC"),
}


def _find_place(columns: tuple[str, ...], given: str, has: str, order: str) -> str:
    """Find a place of a session anew, from its beginning or its end: the next ones are near it."""
    found = ", ".join(columns)
    given_only = f"AND {has} IS NOT NULL" if has else ""
    return f"""
UPDATE sessions AS s SET ({found}) = (
  SELECT {given} FROM traces
  WHERE project_id = :project_id AND session_id = :session_id {given_only}
  ORDER BY started_at_us {order}, seq {order} LIMIT 1)
WHERE project_id = :project_id AND session_id = :session_id
"""


FIND_SEQ: Final = """
UPDATE sessions SET seq = (
  SELECT MIN(seq) FROM traces WHERE project_id = :project_id AND session_id = :session_id)
WHERE project_id = :project_id AND session_id = :session_id
"""
FIND_PLACE: Final = {
    **{place: _find_place(*given) for place, given in _PLACED.items()},
    "seq": FIND_SEQ,
}


def _taken(columns: tuple[str, ...], wins: str) -> str:
    """Take these columns from the side whose trace comes first (``<=``) or last (``>=``).

    A place is NULL where no trace has given the value; the comparison is then not true.
    """
    at, seq = columns[:2]
    taken = f"s.{at} IS NULL OR (excluded.{at}, excluded.{seq}) {wins} (s.{at}, s.{seq})"
    return ", ".join(f"{c} = CASE WHEN {taken} THEN excluded.{c} ELSE s.{c} END" for c in columns)


def _added_amount(c: str) -> str:
    """Add what may be unknown: with neither side it stays so."""
    both = added(f"s.{c}", f"excluded.{c}")
    return (
        f"CASE WHEN s.{c} IS NULL THEN excluded.{c} WHEN excluded.{c} IS NULL THEN s.{c}"
        f" ELSE {both} END"
    )


# CASE instead of min() and max() of two values, which PostgreSQL calls LEAST and GREATEST.
WRITE_SESSIONS: Final = f"""
INSERT INTO sessions AS s ({", ".join(INSERTED)})
VALUES ({", ".join(f":{c}" for c in INSERTED)})
ON CONFLICT (project_id, session_id) DO UPDATE SET session_key = excluded.session_key,
seq = CASE WHEN excluded.seq < s.seq THEN excluded.seq ELSE s.seq END,
last_ended_at_us = CASE
  WHEN s.last_ended_at_us IS NULL OR excluded.last_ended_at_us > s.last_ended_at_us
  THEN excluded.last_ended_at_us ELSE s.last_ended_at_us END,
{", ".join(f"{c} = {added(f's.{c}', f'excluded.{c}')}" for c in COUNTS)},
{", ".join(f"{c} = {_added_amount(c)}" for c in AMOUNTS)},
{_taken(FROM_FIRST, "<=")},
{_taken(FROM_NEWEST, ">=")},
{_taken(USER, "<=")},
{_taken(OUTPUT, ">=")},
{_taken(ERROR, ">=")}
"""
ADD_MODELS: Final = """
INSERT INTO session_models AS m (project_id, session_id, model, n)
VALUES (:project_id, :session_id, :model, :n)
ON CONFLICT (project_id, session_id, model) DO UPDATE SET n = m.n + excluded.n
"""
DELETE_UNUSED_MODELS: Final = """
DELETE FROM session_models WHERE project_id = :project_id AND session_id = :session_id AND n = 0
"""


def _write_sessions(
    tx: Transaction,
    changes: Sequence[tuple[SessionKey, SessionChange]],
    mark: Mark = NO_MARK,
) -> None:
    rows: list[Params] = []
    models: list[Params] = []
    for key, change in changes:
        rows.append({**change.values(key), "name": mark.name, "starred": int(mark.is_starred)})
        models += [
            {"project_id": key[0], "session_id": key[1], "model": model, "n": n}
            for model, n in change.models.items()
            if n
        ]
    tx.insert_rows(WRITE_SESSIONS, rows)
    tx.insert_rows(ADD_MODELS, models)
    for key, change in changes:
        if any(n < 0 for n in change.models.values()):
            tx.execute(DELETE_UNUSED_MODELS, {"project_id": key[0], "session_id": key[1]})
