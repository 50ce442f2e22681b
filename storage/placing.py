"""Which trace a call is in: its own, or that which it names.

Owns the decision, which is made once, with a call's first row; later words of the call find the row
wherever it is by then, for its own trace's id is kept in ``moved_from``. Rules: a call joins the
trace that our header names, known or not, and that of its ``traceparent`` where it is known. A
trace has one session: a call that names another keeps a trace of its own, and a link; so does one
that finds no room. A trace without a session takes the call's.

Invariant: a call has one row, whatever its records say and in whatever order they come.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from storage.continuation import NAMED
from storage.database import Transaction, Value
from storage.keys import SpanKey, TraceKey
from storage.ledger import Ledger, TraceChange, by_project
from storage.parameters import SpanWrite

# Spans of one trace, as many as are ever read of one: what a client names in all its calls is none.
MAX_SPANS: Final = 10_000

# Of a call that was held for dead (forget.py), and that alone, an end says no phase.
FIND_CALLS: Final = """
SELECT trace_id, span_id, moved_from, parent_id,
  CASE WHEN state = 'interrupted' AND ended_by = 'proxy' AND phase IS NULL AND owner IS NOT NULL
    THEN 1 ELSE 0 END,
  state, seq, started_at_us, response_content_id, stored_bytes FROM spans
WHERE project_id = :project_id AND span_id IN (:keys)
"""


class Found(NamedTuple):
    """A span's row as a batch finds it. The content is that of its last checkpoint.

    ``was_given_up``: the process that serves the call was held for dead, and the call for ended.
    """

    parent_id: bytes | None
    was_given_up: int
    state: str
    seq: int
    started_at_us: int
    content_id: int | None
    stored_bytes: int | None


class Places:
    """Where the calls of a batch are; those that have no row yet are placed one by one."""

    def __init__(self, ledger: Ledger, writes: Sequence[SpanWrite]) -> None:
        """Find the rows of these calls, and the traces that they are in or name."""
        self._ledger = ledger
        self._found: dict[SpanKey, Found] = {}
        went: dict[SpanKey, bytes] = {}
        ids = by_project((write.own[0], write.own[2]) for write in writes)
        for project_id, span_ids in ids.items():
            rows = ledger.tx.look_up(FIND_CALLS, {"project_id": project_id}, span_ids)
            for trace_id, span_id, moved_from, *row in rows:
                self._found[project_id, trace_id, span_id] = Found._make(row)
                if moved_from is not None:
                    went[project_id, moved_from, span_id] = trace_id
        traces: list[TraceKey] = []
        named: list[TraceKey] = []
        for write in writes:
            if write.key not in self._found:
                if write.key in went:
                    _put(write, went[write.key], self._found)
                elif (values := write.end or write.start) is not None:
                    if write.joins is not None:
                        named.append((write.key[0], write.joins))
                    elif isinstance(external := values["external_trace_id"], bytes):
                        traces.append((write.key[0], external))
            traces.append(write.key[:2])
        ledger.look_up_traces([*traces, *named])
        # A client may name the trace that an answer named, which its call has left since.
        unknown = [key for key in named if ledger.traces[key].old is None]
        self._went = moved_to(ledger.tx, unknown)

    def find(self, write: SpanWrite) -> Found | None:
        """Give a call's row; for one that has none, decide which trace it is in."""
        found = self._found.get(write.key)
        if found is None:
            self._place(write)
        return found

    def _place(self, write: SpanWrite) -> None:
        values = write.end or write.start
        if values is None:
            return
        project_id, own_id, span_id = write.own
        external = values["external_trace_id"]
        if write.joins is not None:
            key = (project_id, write.joins)
            trace_id = self._went.get(key, key)[1]
        elif isinstance(external, bytes) and self._is_known((project_id, external)):
            trace_id = external
        else:
            return
        if trace_id == own_id:
            return
        change = self._ledger.trace((project_id, trace_id))
        is_there = (project_id, trace_id, span_id) in self._found
        if not may_join(change, write.session_id, write.session_source) or is_there:
            self._ledger.links[write.own[:2]] = trace_id
            values["parent_id"] = None
            if write.session_id is None and change.session_id is not None:
                write.session_id, write.session_source = change.session_id, change.session_source
            return
        if external == trace_id and values["parent_id"] is None:
            values["parent_id"] = values["external_parent_id"]
        values["moved_from"] = own_id
        if change.old is None and not change.inserted:
            self._ledger.named.append(change.key)
        write.key = (project_id, trace_id, span_id)
        values["trace_id"] = trace_id

    def _is_known(self, key: TraceKey) -> bool:
        change = self._ledger.trace(key)
        return change.old is not None or change.inserted > 0


FIND_MOVED: Final = """
SELECT moved_from, trace_id FROM spans WHERE project_id = :project_id AND moved_from IN (:keys)
"""


def moved_to(tx: Transaction, traces: Iterable[TraceKey]) -> dict[TraceKey, TraceKey]:
    """Give the traces into which the calls went that had these for their own."""
    return {
        (project_id, moved_from): (project_id, trace_id)
        for project_id, trace_ids in by_project(traces).items()
        for moved_from, trace_id in tx.look_up(FIND_MOVED, {"project_id": project_id}, trace_ids)
    }


def may_join(change: TraceChange, session_id: str | None, source: str | None) -> bool:
    """Tell whether a call whose session is known so may become a span of a trace."""
    if source == NAMED and change.session_id not in (None, session_id):
        return False
    return change.span_count < MAX_SPANS


def _put(write: SpanWrite, trace_id: bytes, found: dict[SpanKey, Found]) -> None:
    """Have a call's words go to its row, which is in another trace than its own."""
    project_id, own_id, span_id = write.own
    write.key = (project_id, trace_id, span_id)
    there: dict[str, Value] = {
        "trace_id": trace_id,
        "parent_id": found[write.key].parent_id,
        "moved_from": own_id,
    }
    for values in (write.start, write.end):
        if values is not None:
            values.update(there)
