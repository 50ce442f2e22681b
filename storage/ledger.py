"""What one transaction has changed so far, for rollup.py to bring the sums up to date.

Invariant: a trace's row is read once, before anything changes it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from storage.additions import Additions
from storage.aggregates import TRACE_COLUMNS, SpanFacts, TraceFacts
from storage.database import Params, Transaction
from storage.keys import SessionKey, SpanKey, TraceKey, lone_key, session_key
from storage.opened import NOT_OPENED, OPENING_COLUMNS, Opening

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)


@dataclass(slots=True)
class TraceChange:
    """What happened to the spans of one trace, and to its session.

    ``old`` is the trace's row, None for a new one. ``spans`` has those that changed, as they are
    now; ``inserted`` of them are new; ``moved`` has those that began (1) or only ended (0).
    ``models`` counts spans that gained a model less those that lost it; ``lost`` the spans that
    went to another trace, which are among ``inserted`` as less than none. The session is the
    trace's own, or one that it takes now; ``opening`` is what was said of the trace.
    ``before`` has what spans that are not new gave before, where that is known: a long trace
    (long_traces.py) is then summed up by the difference. ``tally`` is what it keeps for that.
    ``folded`` is its row as it was written at last.
    """

    key: TraceKey
    old: TraceFacts | None
    session_id: str | None
    session_source: str | None
    spans: dict[bytes, SpanFacts] = field(default_factory=dict)
    inserted: int = 0
    moved: dict[bytes, int] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)
    opening: Opening = NOT_OPENED
    was_opening: Opening = NOT_OPENED
    before: dict[bytes, SpanFacts] = field(default_factory=dict)
    tally: bytes | None = None
    folded: TraceFacts | None = None
    lost: int = 0

    @property
    def touched(self) -> bool:
        """Whether the trace's row changes at all."""
        was = None if self.old is None else self.old.session_id
        changed = self.session_id != was or self.opening != self.was_opening
        return bool(self.spans or self.lost) or changed

    @property
    def span_count(self) -> int:
        """How many spans it has now."""
        return (0 if self.old is None else self.old.span_count) + self.inserted

    @property
    def emptied(self) -> bool:
        """Whether its last span went to another trace, so that its row goes.

        One of which something was said stays.
        """
        return self.lost > 0 and not self.span_count and self.opening.seq is None

    @property
    def has_ended_spans(self) -> bool:
        """Whether a call of the trace has ended: one that says what belongs to its session."""
        if self.old is not None and self.old.last_ended_at_us is not None:
            return True
        return any(span.ended_at_us is not None for span in self.spans.values())

    @property
    def session_key(self) -> int:
        """The number of its session, or the one that stands for a session where it has none."""
        project_id, trace_id = self.key
        if self.session_id is None:
            return lone_key(project_id, trace_id)
        return session_key(project_id, self.session_id)


READ_TRACES: Final = f"""
SELECT trace_id, tally, {", ".join((*OPENING_COLUMNS, *TRACE_COLUMNS))} FROM traces
WHERE project_id = :project_id AND trace_id IN (:keys)
"""
_SAID: Final = len(OPENING_COLUMNS) + 2


class Ledger:
    """The changes of one transaction.

    ``additions`` are its new contents, nodes and mentions, ``started`` the rows of spans that begin
    and are not inserted yet. ``unheard`` are contents that nobody mentioned before, which full text
    is to have; ``replaced`` those of earlier checkpoints, with their projects. ``late`` counts the
    changes that came too late to change anything.

    ``named`` are traces that calls made known by naming them; ``links`` those that calls named and
    could not join, by the traces that these are in; ``went`` the new keys of spans that moved, by
    the old; ``left`` the sessions that lost a trace.
    """

    def __init__(self, tx: Transaction, *, late: int = 0) -> None:
        self.tx = tx
        self.additions = Additions(tx)
        self.traces: dict[TraceKey, TraceChange] = {}
        self.spans: list[SpanKey] = []
        self.started: list[Params] = []
        self.unheard = self.additions.unheard
        self.replaced: list[tuple[int, int]] = []
        self.named: list[TraceKey] = []
        self.links: dict[TraceKey, bytes] = {}
        self.went: dict[SpanKey, SpanKey] = {}
        self.left: set[SessionKey] = set()
        self.late = late
        self._seqs: Iterator[int] = iter(())
        self._inserts: dict[str, list[Params]] = {}
        self._updates: dict[str, list[Params]] = {}
        self._waiting: set[object] = set()

    def put_end(self, sql: str, values: Params, *, is_new: bool) -> None:
        """Have an end written, by an INSERT or an UPDATE, with others or before they are read."""
        rows = self._inserts if is_new else self._updates
        rows.setdefault(sql, []).append(values)
        session_key = values["session_key"]
        self._waiting.add((values["project_id"], values["response_id"]))
        self._waiting.add(session_key)
        for meaning in (values["input_meaning"], values["output_meaning"]):
            self._waiting |= {meaning, (session_key, meaning)}

    def ends_hold(self, facts: Iterable[object]) -> bool:
        """Tell whether an end that is not written yet has one of these.

        That is a meaning, the number of a session, one with the other, or a response id with its
        project.
        """
        return bool(self._waiting) and not self._waiting.isdisjoint(facts)

    def write_ends(self) -> None:
        """Write the ends that are not written yet."""
        for sql, rows in self._inserts.items():
            self.tx.insert_rows(sql, rows)
        for sql, rows in self._updates.items():
            self.tx.execute_many(sql, rows)
        self._inserts.clear()
        self._updates.clear()
        self._waiting.clear()

    def flush(self) -> None:
        """Write all that is not written yet but for starts."""
        self.write_ends()
        self.additions.flush()

    def look_up_traces(self, keys: Iterable[TraceKey]) -> None:
        """Read the rows of these traces at once."""
        for project_id, trace_ids in by_project(keys).items():
            rows = self.tx.look_up(READ_TRACES, {"project_id": project_id}, trace_ids)
            known = {row[0]: row for row in rows}
            for trace_id in trace_ids:
                key, row = (project_id, trace_id), known.get(trace_id)
                if row is None:
                    self.traces[key] = TraceChange(key, None, None, None)
                    continue
                old, opening = TraceFacts.of(row[_SAID:]), Opening._make(row[2:_SAID])
                self.traces[key] = TraceChange(
                    key,
                    old,
                    old.session_id,
                    old.session_source,
                    opening=opening,
                    was_opening=opening,
                    tally=row[1],
                )

    def trace(self, key: TraceKey) -> TraceChange:
        """Give what happened to a trace; nothing yet where it is the first word of it."""
        if key not in self.traces:
            self.look_up_traces((key,))
        return self.traces[key]

    def take_seqs(self, n: int) -> None:
        """Take so many numbers at once, for ``take_seq`` to give."""
        if n:
            self._seqs = iter(self.tx.take_numbers("seq", n))

    def take_seq(self) -> int:
        """Take the next of the numbers that the batch has for its spans."""
        return next(self._seqs)


def by_project(keys: Iterable[tuple[int, bytes]]) -> dict[int, list[bytes]]:
    """Give the ids of each project, each once."""
    found: dict[int, dict[bytes, None]] = {}
    for project_id, one in keys:
        found.setdefault(project_id, {})[one] = None
    return {project_id: list(ids) for project_id, ids in found.items()}
