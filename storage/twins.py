"""Calls that were seen twice: by an application that handed in a span, and by the proxy.

Invariant: a span of a billed kind that was handed in is marked with a proxied call if and only if
there is one that answered with its response id in the project, or one below it in its trace; the
call's own figures count then, and the marked span's do not. So it is in whatever order they come,
and also after a deletion, or when one of them is imported. A call that is known by its response id
alone moves into the trace of the span, below it, unless it is in a trace already that it names, or
one of them was imported: archives say which trace it is of.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from storage.aggregates import SPAN_FACTS, SpanFacts
from storage.database import Transaction, Value
from storage.events import log_changes
from storage.fulltext import await_index
from storage.keys import SpanKey, TraceKey
from storage.ledger import Ledger, by_project
from storage.rollup import roll_up
from storage.transfer import Move, move

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# Kinds that are billed in tokens (handed.BILLED).
HANDED_IN: Final = "owner IS NULL AND kind IN ('llm_call', 'embedding')"
# What only asked for a response, or is not over, has no usage: it stands for nobody's figures.
CALLS: Final = "owner IS NOT NULL AND usage_source IS NOT NULL"


class Seen(NamedTuple):
    """What a span may have in common with another that saw the same call."""

    key: SpanKey
    parent_id: bytes | None
    response_id: str | None


# A span that was handed in, and the call that it saw.
Pair = tuple[SpanKey, SpanKey]


class Pairs(NamedTuple):
    """What is known of spans that saw a call: by their place in a trace, and by response ids."""

    by_parent: Sequence[Pair]
    by_response: Sequence[Pair]


READ: Final = f"""
SELECT trace_id, span_id, parent_id, response_id,
  CASE WHEN {HANDED_IN} THEN 1 ELSE 0 END, CASE WHEN {CALLS} THEN 1 ELSE 0 END
FROM spans WHERE project_id = :project_id AND span_id IN (:keys)
"""


def match(ledger: Ledger, spans: Iterable[SpanKey]) -> None:
    """Mark those of these spans that a proxied call is known for, and those that these tell of.

    Their rows are written. Every other change of a marked span leaves its mark as it is.
    """
    handed_in, calls = _read(ledger.tx, spans)
    match_calls(ledger, calls)
    if handed_in:
        by_parent, by_response = _of_handed_in(ledger.tx, handed_in)
        _mark(ledger, [*by_response, *by_parent])
        _follow(ledger, by_response)


UNMARKED: Final = """
SELECT trace_id, span_id FROM spans
WHERE project_id = :project_id AND same_call IS NULL AND span_id IN (:keys)
"""


def to_mark(tx: Transaction, spans: Iterable[SpanKey]) -> list[tuple[SpanKey, bytes]]:
    """Find what `match` would mark, each with the id of its call; of several the first counts."""
    handed_in, calls = _read(tx, spans)
    told, made = _of_calls(tx, calls), _of_handed_in(tx, handed_in)
    found = [*told.by_parent, *told.by_response, *made.by_response, *made.by_parent]
    unmarked: set[SpanKey] = set()
    for project_id, span_ids in by_project((key[0], key[2]) for key, _ in found).items():
        rows = tx.look_up(UNMARKED, {"project_id": project_id}, span_ids)
        unmarked.update((project_id, trace_id, span_id) for trace_id, span_id in rows)
    return [(key, call[2]) for key, call in found if key in unmarked]


def _read(tx: Transaction, spans: Iterable[SpanKey]) -> tuple[list[Seen], list[Seen]]:
    """Read those of these spans that were handed in, and those that are calls with their usage."""
    wanted = set(spans)
    handed_in: list[Seen] = []
    calls: list[Seen] = []
    for project_id, span_ids in by_project((key[0], key[2]) for key in sorted(wanted)).items():
        rows = tx.look_up(READ, {"project_id": project_id}, span_ids)
        for trace_id, span_id, parent_id, response_id, is_handed_in, is_call in rows:
            if (key := (project_id, trace_id, span_id)) in wanted:
                seen = Seen(key, parent_id, response_id)
                (handed_in if is_handed_in else calls if is_call else []).append(seen)
    return handed_in, calls


FIND_HANDED_IN: Final = f"""
SELECT response_id, trace_id, span_id, started_at_us, seq FROM spans
WHERE project_id = :project_id AND {HANDED_IN} AND response_id IN (:keys)
"""
FIND_PARENTS: Final = f"""
SELECT trace_id, span_id FROM spans
WHERE project_id = :project_id AND {HANDED_IN} AND span_id IN (:keys)
"""


def match_calls(ledger: Ledger, calls: Sequence[Seen]) -> None:
    """Mark what was handed in of these calls: proxied ones that ended, with their usage."""
    by_parent, by_response = _of_calls(ledger.tx, calls)
    _mark(ledger, [*by_parent, *by_response])
    _follow(ledger, by_response)


def _of_calls(tx: Transaction, calls: Sequence[Seen]) -> Pairs:
    """Find what was handed in of these calls."""
    found: list[Pair] = []
    parents = {(*call.key[:2], call.parent_id): call.key for call in calls if call.parent_id}
    for project_id, span_ids in by_project((key[0], key[2]) for key in parents).items():
        rows = tx.look_up(FIND_PARENTS, {"project_id": project_id}, span_ids)
        keys = [(project_id, trace_id, span_id) for trace_id, span_id in rows]
        found += [(key, parents[key]) for key in keys if key in parents]
    answered = {(c.key[0], c.response_id.encode()): c for c in calls if c.response_id is not None}
    by_response: list[Pair] = []
    for project_id, names in by_project(answered).items():
        ids = [name.decode() for name in names]
        rows = tx.look_up(FIND_HANDED_IN, {"project_id": project_id}, ids)
        for response_id, trace_id, span_id, *_ in sorted(rows, key=lambda row: row[3:]):
            call = answered[project_id, response_id.encode()]
            by_response.append(((project_id, trace_id, span_id), call.key))
    return Pairs(found, by_response)


FIND_ANSWERED: Final = f"""
SELECT response_id, trace_id, span_id, started_at_us, seq FROM spans
WHERE project_id = :project_id AND {CALLS} AND response_id IN (:keys)
"""
FIND_CHILDREN: Final = f"""
SELECT parent_id, span_id, started_at_us, seq FROM spans
WHERE project_id = :project_id AND trace_id = :trace_id AND {CALLS} AND parent_id IN (:keys)
"""


def _of_handed_in(tx: Transaction, handed_in: Sequence[Seen]) -> Pairs:
    """Find the proxied calls of these spans: that of their response id, and children."""
    by_response: list[Pair] = []
    for project_id, names in by_project(
        (one.key[0], one.response_id.encode()) for one in handed_in if one.response_id is not None
    ).items():
        keys = [name.decode() for name in names]
        rows = tx.look_up(FIND_ANSWERED, {"project_id": project_id}, keys)
        # The oldest is the call that made it.
        rows.sort(key=lambda row: row[3:], reverse=True)
        made = {row[0]: (project_id, row[1], row[2]) for row in rows}
        by_response += [
            (one.key, made[one.response_id])
            for one in handed_in
            if one.key[0] == project_id and one.response_id in made
        ]
    found: list[Pair] = []
    traces: dict[TraceKey, list[Value]] = {}
    for one in handed_in:
        traces.setdefault(one.key[:2], []).append(one.key[2])
    for (project_id, trace_id), span_ids in traces.items():
        key: dict[str, Value] = {"project_id": project_id, "trace_id": trace_id}
        rows = tx.look_up(FIND_CHILDREN, key, span_ids)
        # Of several tries below one span it is marked by the oldest.
        for parent_id, span_id, *_ in sorted(rows, key=lambda row: row[2:]):
            found.append(((project_id, trace_id, parent_id), (project_id, trace_id, span_id)))
    return Pairs(found, by_response)


ONE_SPAN: Final = "project_id = :project_id AND trace_id = :trace_id AND span_id = :span_id"
MARK: Final = f"""
UPDATE spans SET same_call = :same_call
WHERE {ONE_SPAN} AND same_call IS NULL RETURNING {SPAN_FACTS}
"""


def _mark(ledger: Ledger, found: Iterable[Pair]) -> None:
    for key, call in found:
        for row in ledger.tx.execute(MARK, {**_params(key), "same_call": call[2]}):
            _changed(ledger, key, SpanFacts.of(row))


HAS_JOINED: Final = f"SELECT 1 FROM spans WHERE {ONE_SPAN} AND moved_from IS NOT NULL"


def _follow(ledger: Ledger, found: Iterable[Pair]) -> None:
    """Move calls into the traces of the spans that saw them, but those that are in another."""
    moves: dict[TraceKey, Move] = {}
    for key, call in found:
        call = ledger.went.get(call, call)
        if call[:2] == key[:2] or call[:2] in moves:
            continue
        if not ledger.tx.execute(HAS_JOINED, _params(call)):
            moves[call[:2]] = Move(call[:2], key[:2], key[2])
    if moves:
        move(ledger, moves.values())


FIND_MARKED: Final = """
SELECT trace_id, span_id FROM spans WHERE project_id = :project_id AND same_call IN (:keys)
"""
UNMARK: Final = f"UPDATE spans SET same_call = NULL WHERE {ONE_SPAN} RETURNING {SPAN_FACTS}"


def unmark(tx: Transaction, project_id: int, calls: Sequence[bytes]) -> None:
    """Have spans count again whose call was deleted, by the ids of the deleted spans."""
    marked = tx.look_up(FIND_MARKED, {"project_id": project_id}, calls)
    if not marked:
        return
    ledger = Ledger(tx)
    for trace_id, span_id in marked:
        key = (project_id, trace_id, span_id)
        (row,) = tx.execute(UNMARK, _params(key))
        _changed(ledger, key, SpanFacts.of(row))
    match(ledger, tuple(ledger.spans))
    sessions = roll_up(ledger)
    await_index(tx, ledger.unheard)
    log_changes(ledger, sessions)


def _changed(ledger: Ledger, key: SpanKey, span: SpanFacts) -> None:
    ledger.trace(key[:2]).spans[key[2]] = span
    if key not in ledger.spans:
        ledger.spans.append(key)


def _params(key: SpanKey) -> dict[str, Value]:
    return {"project_id": key[0], "trace_id": key[1], "span_id": key[2]}
