"""What the recorder does in one transaction: spans, their bodies, and who settles whose usage.

Invariant: the first end of a span is the only one; a start or a checkpoint after it changes
nothing, so a batch can be written twice. A body is stored only where a span's row names it. An
end finds its row or makes it, so a call that was in flight when its trace was deleted comes back
whole, as a call that ended after the deletion; its checkpoints and its start do not come back.
Sums are rollup.py's, deletion is forget.py's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from storage.aggregates import SPAN_FACTS, SessionKey, SpanFacts, TraceKey
from storage.columns import CHECKPOINT_COLUMNS, END_COLUMNS, START_COLUMNS, TOKEN_COLUMNS
from storage.database import Row, Transaction, Value
from storage.forget import drop_contents
from storage.parameters import Batch, SpanKey, SpanWrite
from storage.records import RUNNING
from storage.rollup import TraceChange, roll_up

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch changed. ``late`` counts the changes that came too late to change anything."""

    spans: tuple[SpanKey, ...]
    traces: tuple[TraceKey, ...]
    sessions: tuple[SessionKey, ...]
    late: int


class _Ledger:
    """What one transaction has changed so far."""

    def __init__(self, late: int, next_seq: int) -> None:
        self.traces: dict[TraceKey, TraceChange] = {}
        self.stored_bytes: dict[int, int] = {}
        self.spans: list[SpanKey] = []
        self.late = late
        self.next_seq = next_seq

    def trace(self, key: TraceKey) -> TraceChange:
        change = self.traces.get(key)
        if change is None:
            change = self.traces[key] = TraceChange()
        return change

    def store(self, project_id: int, added_bytes: int) -> None:
        if added_bytes:
            self.stored_bytes[project_id] = self.stored_bytes.get(project_id, 0) + added_bytes


TAKE_SEQ: Final = """
UPDATE counters SET value = value + :n WHERE name = 'seq' RETURNING value
"""


def apply(tx: Transaction, batch: Batch) -> Written:
    """Write a batch that ``prepare`` made."""
    n = len(batch.spans)
    if not n:
        return Written((), (), (), batch.late)
    # One statement for all; a number that no row takes is a gap, which orders as well.
    ((last_seq,),) = tx.execute(TAKE_SEQ, {"n": n})
    ledger = _Ledger(batch.late, last_seq - n + 1)
    for write in batch.spans:
        _write_span(tx, ledger, write)
    # After all ends, so that a call is settled by another of its batch in whatever order they are.
    written = set(ledger.spans)
    for write in batch.spans:
        if write.settles is not None and write.key in written:
            _settle(tx, ledger, write.key, write.settles)
    sessions = roll_up(tx, ledger.traces, ledger.stored_bytes)
    return Written(tuple(ledger.spans), tuple(ledger.traces), sessions, ledger.late)


def _insert(columns: Iterable[str]) -> str:
    columns = tuple(columns)
    return f"""
INSERT INTO spans ({", ".join(columns)}) VALUES ({", ".join(f":{c}" for c in columns)})
RETURNING {SPAN_FACTS}
"""


ONE_SPAN: Final = "project_id = :project_id AND trace_id = :trace_id AND span_id = :span_id"
FIND_SPAN: Final = f"SELECT state, response_content_id FROM spans WHERE {ONE_SPAN}"
INSERT_START: Final = _insert(START_COLUMNS)
INSERT_END: Final = _insert(dict.fromkeys((*START_COLUMNS, *END_COLUMNS)))
UPDATE_END: Final = f"""
UPDATE spans SET {", ".join(f"{c} = :{c}" for c in END_COLUMNS)}
WHERE {ONE_SPAN} RETURNING {SPAN_FACTS}
"""
UPDATE_CHECKPOINT: Final = f"""
UPDATE spans SET {", ".join(f"{c} = :{c}" for c in CHECKPOINT_COLUMNS)} WHERE {ONE_SPAN}
"""


def _write_span(tx: Transaction, ledger: _Ledger, write: SpanWrite) -> None:
    found = tx.execute(FIND_SPAN, _params(write.key))
    state, old_content_id = found[0] if found else (None, None)
    is_running = state == RUNNING
    if write.start is not None:
        if state is None:
            _insert_span(tx, ledger, write, INSERT_START, write.start)
            is_running = True
        else:
            ledger.late += 1
    if write.checkpoint is not None:
        if is_running:
            values = {**write.checkpoint, **_params(write.key)}
            _store(tx, ledger, write, values)
            tx.execute(UPDATE_CHECKPOINT, values)
            _drop_replaced(tx, ledger, write.key, old_content_id, values)
            # The sums stay, but who watches the call wants to know.
            ledger.spans.append(write.key)
        else:
            ledger.late += 1
    if write.end is not None:
        if state is None:
            _store(tx, ledger, write, write.end)
            _insert_span(tx, ledger, write, INSERT_END, write.end)
        elif is_running:
            _store(tx, ledger, write, write.end)
            (row,) = tx.execute(UPDATE_END, write.end)
            _changed(ledger, write, row, inserted=0)
            _drop_replaced(tx, ledger, write.key, old_content_id, write.end)
        else:
            ledger.late += 1


def _insert_span(
    tx: Transaction, ledger: _Ledger, write: SpanWrite, sql: str, values: dict[str, Value]
) -> None:
    values["seq"] = ledger.next_seq
    ledger.next_seq += 1
    (row,) = tx.execute(sql, values)
    _changed(ledger, write, row, inserted=1)


def _changed(ledger: _Ledger, write: SpanWrite, row: Row, *, inserted: int) -> None:
    project_id, trace_id, span_id = write.key
    span = SpanFacts.of(row)
    change = ledger.trace((project_id, trace_id))
    change.spans[span_id] = span
    change.inserted += inserted
    if span.model is not None:
        change.models[span.model] += 1
    if change.session_id is None:
        change.session_id, change.session_source = write.session_id, write.session_source
    ledger.spans.append(write.key)


STORE_CONTENT: Final = """
INSERT INTO contents (project_id, sha256, encoding, size, data)
VALUES (:project_id, :sha256, :encoding, :size, :data)
ON CONFLICT (project_id, sha256) DO NOTHING RETURNING id
"""
FIND_CONTENT: Final = """
SELECT id FROM contents WHERE project_id = :project_id AND sha256 = :sha256
"""


def _store(tx: Transaction, ledger: _Ledger, write: SpanWrite, values: dict[str, Value]) -> None:
    """Store the contents that are not there yet, and put the ids of all into ``values``."""
    project_id = write.key[0]
    for column, content in write.contents.items():
        content_values: dict[str, Value] = {
            "project_id": project_id,
            "sha256": content.sha256,
            "encoding": content.encoding,
            "size": content.size,
            "data": content.data,
        }
        stored = tx.execute(STORE_CONTENT, content_values)
        if stored:
            ledger.store(project_id, len(content.data))
        else:
            stored = tx.execute(FIND_CONTENT, content_values)
        ((values[column],),) = stored


def _drop_replaced(
    tx: Transaction,
    ledger: _Ledger,
    key: SpanKey,
    old_content_id: int | None,
    values: dict[str, Value],
) -> None:
    """Forget the body of an earlier checkpoint."""
    if old_content_id is not None and old_content_id != values["response_content_id"]:
        _, freed_bytes = drop_contents(tx, (old_content_id,))
        ledger.store(key[0], -freed_bytes)


# The oldest span that has the response's id is the one that made it; those that only asked for it
# come later. Its own usage, and the first that was reported, stand.
FIND_SETTLED: Final = """
SELECT trace_id, span_id, usage_source, COALESCE(model, model_requested) FROM spans
WHERE project_id = :project_id AND response_id = :response_id
  AND NOT (trace_id = :trace_id AND span_id = :span_id)
ORDER BY started_at_us, seq LIMIT 1
"""
SETTLE: Final = f"""
UPDATE spans SET settled_by = :settled_by, usage_source = 'provider',
model = COALESCE(:model, model), service_tier = COALESCE(:service_tier, service_tier),
{", ".join(f"{c} = :{c}" for c in (*TOKEN_COLUMNS, "cost_nusd", "cost_status", "price_version"))}
WHERE {ONE_SPAN} RETURNING {SPAN_FACTS}
"""
NOT_USAGE: Final = (None, "missing", "estimated")


def _settle(tx: Transaction, ledger: _Ledger, reporter: SpanKey, values: dict[str, Value]) -> None:
    project_id = reporter[0]
    found = tx.execute(FIND_SETTLED, {**values, **_params(reporter)})
    if not found or found[0][2] not in NOT_USAGE:
        return
    trace_id, span_id, _, old_model = found[0]
    key = (project_id, trace_id, span_id)
    (row,) = tx.execute(SETTLE, {**values, **_params(key), "settled_by": reporter[2]})
    span = SpanFacts.of(row)
    change = ledger.trace((project_id, trace_id))
    change.spans[span_id] = span
    if old_model is not None:
        change.models[old_model] -= 1
    if span.model is not None:
        change.models[span.model] += 1
    if key not in ledger.spans:
        ledger.spans.append(key)


def _params(key: SpanKey) -> dict[str, Value]:
    return {"project_id": key[0], "trace_id": key[1], "span_id": key[2]}
