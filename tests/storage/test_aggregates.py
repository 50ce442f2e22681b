"""After anything, in any order, the sums equal a fold over the spans, written here anew in Python.

The model below knows spans only. It is on purpose slow, plain and of other hands than
storage/aggregates.py.
"""

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.database import Database
from storage.forget import delete_session, delete_trace, interrupt_running
from storage.parameters import Change
from storage.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    FAILED_STATES,
    RUNNING,
    TRUNCATED,
    Settlement,
    SpanCheckpoint,
    SpanEnd,
    SpanStart,
    Tokens,
)
from storage.rollup import recompute_session
from tests.databases import opened
from tests.storage.calls import T0, body, checkpoint, end, rows, start, text_of, trace_id, write

# A span that the database has not numbered yet comes after all that it has.
NO_SEQ = 10**9
BODIES = (b"", b"a", b"b", b"c" * 40_000)


@dataclass
class Delete:
    """A deletion of a trace, or of a session."""

    trace: int | None = None
    session: str | None = None


@dataclass
class Interrupt:
    """A start of the server."""

    keep: bytes | None


numbers = st.one_of(st.none(), st.integers(0, 5))
bodies = st.one_of(st.none(), st.sampled_from(BODIES).map(body))


@st.composite
def starts(draw: st.DrawFn) -> SpanStart:
    n = draw(st.integers(0, 7))
    session = draw(st.sampled_from([None, "s", "s", "t"]))
    return start(
        n,
        trace=n % 4,
        session_id=session,
        # The same span always has the same start; spans of a trace come in another order.
        started_at_us=T0 + (5 * n) % 7,
        owner=[b"a", b"b", b"c"][n % 3],
        user_id=[None, "u", "v"][n % 3],
    )


@st.composite
def ends(draw: st.DrawFn) -> SpanEnd:
    source = draw(st.sampled_from(["provider", "estimated", "missing"]))
    known = source != "missing"
    cost = draw(numbers) if known else None
    return end(
        draw(starts()),
        state=draw(st.sampled_from([COMPLETED, COMPLETED, FAILED, TRUNCATED, CANCELLED])),
        duration_us=draw(st.integers(0, 5)),
        error=draw(st.sampled_from([None, "e", "f"])),
        model=draw(st.sampled_from([None, "m", "n"])),
        model_requested=draw(st.sampled_from([None, "m"])),
        response_id=draw(st.sampled_from([None, "r", "q"])),
        tokens=Tokens(input=draw(numbers), output=draw(numbers)) if known else Tokens(),
        usage_source=source,
        cost_nusd=cost,
        cost_status="unpriced" if cost is None else "priced",
        input_preview=draw(st.sampled_from([None, "i", "j"])),
        output_preview=draw(st.sampled_from([None, "o", "p"])),
        request=draw(bodies),
        response=draw(bodies),
        settles=draw(st.one_of(st.none(), st.none(), settlements())),
    )


@st.composite
def settlements(draw: st.DrawFn) -> Settlement:
    return Settlement(
        response_id=draw(st.sampled_from(["r", "q"])),
        model=draw(st.sampled_from([None, "m", "x"])),
        service_tier=None,
        tokens=Tokens(input=draw(numbers), output=draw(numbers)),
        cost_nusd=draw(numbers),
        cost_status="priced",
        price_version=None,
    )


@st.composite
def checkpoints(draw: st.DrawFn) -> SpanCheckpoint:
    return checkpoint(draw(starts()), draw(st.sampled_from(BODIES)), elapsed_us=draw(numbers))


batches = st.lists(st.one_of(starts(), ends(), ends(), checkpoints()), min_size=1, max_size=5)
deletes = st.one_of(
    st.integers(0, 3).map(lambda n: Delete(trace=n)),
    st.sampled_from(["s", "t"]).map(lambda s: Delete(session=s)),
)
interrupts = st.sampled_from([b"a", None]).map(Interrupt)
histories = st.lists(st.one_of(batches, batches, batches, deletes, interrupts), max_size=12)


@dataclass
class ModelSpan:
    """All that a span's row should say; ``values`` are the end's, or empty while it runs."""

    start: SpanStart
    seq: int
    state: str = RUNNING
    duration_us: int | None = None
    elapsed_us: int | None = None
    values: SpanEnd | None = None
    checkpointed: Any = None
    settled: Settlement | None = None

    @property
    def order(self) -> tuple[int, int]:
        return self.start.started_at_us, self.seq

    @property
    def ended_at_us(self) -> int | None:
        return None if self.duration_us is None else self.start.started_at_us + self.duration_us

    @property
    def model(self) -> str | None:
        if self.values is None:
            return None
        answered = self.settled.model if self.settled and self.settled.model else self.values.model
        return answered or self.values.model_requested

    @property
    def usage(self) -> tuple[int | None, int | None, int | None]:
        told = self.settled or self.values
        return (
            (None,) * 3 if told is None else (told.tokens.input, told.tokens.output, told.cost_nusd)
        )

    @property
    def is_unpriced(self) -> bool:
        told = self.settled or self.values
        return told is not None and told.cost_status == "unpriced"

    @property
    def is_estimated(self) -> bool:
        return bool(self.values and not self.settled and self.values.usage_source == "estimated")

    @property
    def error(self) -> str | None:
        if self.state == "interrupted":
            return "the recording process ended before the call did"
        return self.values.error if self.values and self.state in FAILED_STATES else None

    @property
    def held(self) -> list[bytes]:
        if self.values is None:
            found = [self.checkpointed]
        else:
            found = [self.values.request, self.values.response]
        return [b.content.data for b in found if b is not None]

    @property
    def received(self) -> int:
        return 0 if self.state == RUNNING else sum(map(len, self.held))


@dataclass
class Model:
    """Spans, and the one fact about a trace that is not theirs: its session, and its source."""

    spans: dict[tuple[bytes, bytes], ModelSpan] = field(default_factory=dict)
    session_of: dict[bytes, str] = field(default_factory=dict)

    def apply(self, batch: list[Change]) -> None:
        # A batch speaks of one span after the other, in the order of its first words of each.
        spoken: dict[bytes, list[Change]] = {}
        for change in batch:
            begun = change.start if isinstance(change, SpanEnd) else change
            spoken.setdefault(begun.span_id, []).append(change)
        new = [end for changes in spoken.values() if (end := self._tell(changes)) is not None]
        for reporter in new:
            if reporter.settles is not None:
                self._settle(reporter, reporter.settles)

    def _tell(self, changes: list[Change]) -> SpanEnd | None:
        """Take what a batch says of one span; return the end if it is the span's first."""
        for i, change in enumerate(changes):
            if isinstance(change, SpanEnd):
                # What follows the end is late; of what comes before it only the start counts.
                begun = next((c for c in changes[:i] if isinstance(c, SpanStart)), change.start)
                return self._end(change, begun)
        for begun in (c for c in changes if isinstance(c, SpanStart)):
            self._begin(begun, begun)
        for part in (c for c in changes if isinstance(c, SpanCheckpoint)):
            span = self.spans.get((part.trace_id, part.span_id))
            if span is not None and span.state == RUNNING:
                span.checkpointed, span.elapsed_us = part.response, part.elapsed_us
        return None

    def _begin(self, begun: SpanStart, named: SpanStart) -> ModelSpan:
        key = (begun.trace_id, begun.span_id)
        if key not in self.spans:
            self.spans[key] = ModelSpan(begun, seq=NO_SEQ)
            self._name(named)
        return self.spans[key]

    def _name(self, begun: SpanStart) -> None:
        if begun.session_id is not None:
            self.session_of.setdefault(begun.trace_id, begun.session_id)

    def _end(self, ended: SpanEnd, begun: SpanStart) -> SpanEnd | None:
        named = begun if begun.session_id is not None else ended.start
        span = self._begin(ended.start, named)
        if span.state != RUNNING:
            return None
        self._name(named)
        span.state, span.duration_us, span.values = ended.state, ended.duration_us, ended
        return ended

    def _settle(self, reporter: SpanEnd, settlement: Settlement) -> None:
        candidates = [
            span
            for span in self.spans.values()
            if span.values is not None
            and span.values.response_id == settlement.response_id
            and span.start.span_id != reporter.start.span_id
        ]
        if candidates:
            maker = min(candidates, key=lambda span: span.order)
            assert maker.values is not None
            if maker.settled is None and maker.values.usage_source != "provider":
                maker.settled = settlement

    def delete(self, which: Delete) -> None:
        gone = {
            trace
            for trace, _ in self.spans
            if (which.trace is not None and trace == trace_id(which.trace))
            or (which.session is not None and self.session_of.get(trace) == which.session)
        }
        self.spans = {key: span for key, span in self.spans.items() if key[0] not in gone}
        for trace in gone:
            self.session_of.pop(trace, None)

    def interrupt(self, keep: bytes | None) -> None:
        for span in self.spans.values():
            owner = span.start.owner
            if span.state == RUNNING and owner is not None and owner != keep:
                span.state, span.duration_us = "interrupted", span.elapsed_us or 0


def known_sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def first(values: list[str | None]) -> str | None:
    return next((value for value in values if value is not None), None)


def expected_trace(model: Model, trace: bytes) -> dict[str, Any]:
    spans = sorted((s for k, s in model.spans.items() if k[0] == trace), key=lambda s: s.order)
    states = {span.state for span in spans}
    if RUNNING in states:
        status = RUNNING
    elif states & FAILED_STATES:
        status = FAILED
    elif CANCELLED in states:
        status = CANCELLED
    else:
        status = COMPLETED
    return {
        "trace_id": trace,
        "seq": min(span.seq for span in spans),
        "status": status,
        "started_at_us": spans[0].start.started_at_us,
        "last_ended_at_us": max(
            (s.ended_at_us for s in spans if s.ended_at_us is not None), default=None
        ),
        "span_count": len(spans),
        "unpriced_count": sum(span.is_unpriced for span in spans),
        "estimated_count": sum(span.is_estimated for span in spans),
        "received_bytes": sum(span.received for span in spans),
        "input_tokens": known_sum([span.usage[0] for span in spans]),
        "output_tokens": known_sum([span.usage[1] for span in spans]),
        "cost_nusd": known_sum([span.usage[2] for span in spans]),
        "session_id": model.session_of.get(trace),
        "user_id": first([span.start.user_id for span in spans]),
        "name": spans[0].start.name,
        "input_preview": first([s.values.input_preview for s in spans if s.values]),
        "output_preview": first([s.values.output_preview for s in reversed(spans) if s.values]),
        "error": first([span.error for span in reversed(spans)]),
    }


def expected_session(model: Model, session: str, traces: list[dict[str, Any]]) -> dict[str, Any]:
    traces = sorted(
        (t for t in traces if t["session_id"] == session),
        key=lambda t: (t["started_at_us"], t["seq"]),
    )
    ended = [t for t in traces if t["status"] != RUNNING]
    return {
        "session_id": session,
        "seq": min(t["seq"] for t in traces),
        "source": "header",
        "status": traces[-1]["status"],
        "trace_count": len(traces),
        "span_count": sum(t["span_count"] for t in traces),
        "failed_trace_count": sum(t["status"] == FAILED for t in traces),
        "ended_trace_count": len(ended),
        "ended_duration_us": sum(t["last_ended_at_us"] - t["started_at_us"] for t in ended),
        "unpriced_count": sum(t["unpriced_count"] for t in traces),
        "estimated_count": sum(t["estimated_count"] for t in traces),
        "input_tokens": known_sum([t["input_tokens"] for t in traces]),
        "output_tokens": known_sum([t["output_tokens"] for t in traces]),
        "cost_nusd": known_sum([t["cost_nusd"] for t in traces]),
        "first_started_at_us": traces[0]["started_at_us"],
        "last_active_at_us": traces[-1]["started_at_us"],
        "last_ended_at_us": max(
            (t["last_ended_at_us"] for t in traces if t["last_ended_at_us"] is not None),
            default=None,
        ),
        "user_id": first([t["user_id"] for t in traces]),
        "first_input": traces[0]["input_preview"],
        "last_output": first([t["output_preview"] for t in reversed(traces)]),
        "last_error": first([t["error"] for t in reversed(traces)]),
        "models": Counter(
            span.model
            for key, span in model.spans.items()
            if model.session_of.get(key[0]) == session and span.model is not None
        ),
    }


def table(db: Database, name: str, columns: list[str], key: str) -> dict[Any, dict[str, Any]]:
    found = rows(db, f"SELECT {', '.join(columns)} FROM {name}")  # noqa: S608 (names of this file)
    named = [dict(zip(columns, row, strict=True)) for row in found]
    return {row[key]: row for row in named}


def check(db: Database, model: Model) -> None:
    # Which number a span got is storage's choice; that it has one of its own, and keeps it, is not.
    seqs = {
        (trace, span): seq
        for trace, span, seq in rows(db, "SELECT trace_id, span_id, seq FROM spans")
    }
    assert seqs.keys() == model.spans.keys()
    assert len(set(seqs.values())) == len(seqs)
    for key, span in model.spans.items():
        assert span.seq in (NO_SEQ, seqs[key])
        span.seq = seqs[key]

    traces = {trace: expected_trace(model, trace) for trace, _ in model.spans}
    if traces:
        columns = list(next(iter(traces.values())))
        assert table(db, "traces", columns, "trace_id") == traces
    else:
        assert rows(db, "SELECT * FROM traces") == []

    sessions = {
        s: expected_session(model, s, list(traces.values())) for s in model.session_of.values()
    }
    stored_models: dict[str, Counter[str]] = {s: Counter() for s in sessions}
    for session, name, n in rows(db, "SELECT session_id, model, n FROM session_models"):
        stored_models[session][name] = n
    assert stored_models == {s: row.pop("models") for s, row in sessions.items()}
    if sessions:
        columns = list(next(iter(sessions.values())))
        assert table(db, "sessions", columns, "session_id") == sessions
    else:
        assert rows(db, "SELECT * FROM sessions") == []

    held = {data for span in model.spans.values() for data in span.held}
    sizes = rows(db, "SELECT size FROM contents ORDER BY size")
    assert [size for (size,) in sizes] == sorted(len(data) for data in held)

    totals = rows(
        db,
        "SELECT trace_count, span_count, unpriced_count, estimated_count, received_bytes, "
        "stored_bytes, counted_input_traces, input_tokens, priced_traces, cost_nusd "
        "FROM project_totals",
    )
    ((stored_bytes,),) = rows(db, "SELECT COALESCE(SUM(length(data)), 0) FROM contents")

    def total(column: str) -> int:
        return sum(trace[column] or 0 for trace in traces.values())

    expected = (
        len(traces),
        total("span_count"),
        total("unpriced_count"),
        total("estimated_count"),
        total("received_bytes"),
        stored_bytes,
        sum(trace["input_tokens"] is not None for trace in traces.values()),
        total("input_tokens"),
        sum(trace["cost_nusd"] is not None for trace in traces.values()),
        total("cost_nusd"),
    )
    assert totals == [expected] or (totals == [] and not traces)


def run(db: Database, model: Model, step: list[Change] | Delete | Interrupt) -> None:
    if isinstance(step, list):
        write(db, step)
        model.apply(step)
        return
    with db.transaction() as tx:
        if isinstance(step, Interrupt):
            interrupt_running(tx, step.keep)
            model.interrupt(step.keep)
            return
        if step.trace is not None:
            delete_trace(tx, 1, trace_id(step.trace), text_of)
        if step.session is not None:
            delete_session(tx, 1, step.session, text_of)
        model.delete(step)


@settings(deadline=None, max_examples=100)
@given(histories)
def test_sums_equal_a_fold_over_the_spans_after_any_history(
    history: list[list[Change] | Delete | Interrupt],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        db = opened(Path(directory) / "a.db")
        model = Model()
        for step in history:
            run(db, model, step)
            check(db, model)
        before = rows(db, "SELECT * FROM sessions ORDER BY session_id")
        with db.transaction() as tx:
            for session in sorted(set(model.session_of.values())):
                recompute_session(tx, 1, session)
        assert rows(db, "SELECT * FROM sessions ORDER BY session_id") == before
        asyncio.run(db.close())
