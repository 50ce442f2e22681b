"""Takes what applications hand in: traces and spans, one transaction for each chunk of items.

Owns what becomes of an item by what is known already: ids make handing in twice the same as once,
an end that comes before its start waits for it, and nothing is ever changed of a call that passed
through us. Invariant: in whatever order the items come, the rows are the same in the end, but for
the numbers of arrival. All is looked up for the chunk at once, and a span that begins and ends in
it is one insert.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from storage.contents import drop_contents
from storage.database import Params, Transaction
from storage.events import log_changes
from storage.forget import DROP_EARLY
from storage.fulltext import await_index
from storage.handed import (
    Item,
    Outcome,
    Reader,
    Result,
    SpanClosed,
    SpanOpened,
    TraceClosed,
    TraceOpened,
)
from storage.handed_bodies import prepare, store
from storage.handed_row import (
    FIND_HANDED,
    HANDED_COLUMNS,
    INSERT_HANDED,
    READ_COLUMNS,
    UPDATE_HANDED,
    HandedSpan,
    blank,
)
from storage.keys import TraceKey
from storage.ledger import Ledger, by_project
from storage.moving import adopt
from storage.parameters import MAX_TIME_US, UNKNOWN_SOURCE, bounded, clean_count, clean_text
from storage.reseat import name_session
from storage.rollup import roll_up
from storage.twins import match

FIND_EARLY: Final = """
SELECT ended_id, told FROM early_ends WHERE project_id = :project_id AND ended_id IN (:keys)
"""
KEEP_EARLY: Final = """
INSERT INTO early_ends (project_id, ended_id, at_us, told)
VALUES (:project_id, :ended_id, :at_us, :told)
"""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(SpanClosed).decode

# A span by its id alone, which its end may be all that names it.
_SpanId = tuple[int, bytes]


def take(tx: Transaction, items: Sequence[Item], now_us: int, reader: Reader) -> list[Outcome]:
    """Take items in their order; return what became of each.

    ``now_us`` is the time of what says none. Raises nothing but what the database does.
    """
    intake = _Intake(tx, now_us)
    intake.look_up(items)
    results = [intake.take(item) for item in items]
    intake.write(reader)
    return [intake.outcome(item, result) for item, result in zip(items, results, strict=True)]


class _Intake:
    """One chunk of items on its way."""

    def __init__(self, tx: Transaction, now_us: int) -> None:
        self.tx = tx
        self.now_us = now_us
        self.ledger = Ledger(tx)
        # Those of one id: one, unless calls or traces of others have it as well.
        self.spans: dict[_SpanId, list[HandedSpan]] = {}
        self.early: dict[_SpanId, SpanClosed] = {}
        self.kept: dict[_SpanId, SpanClosed] = {}
        self.dropped: set[_SpanId] = set()
        self.said: dict[TraceKey, None] = {}

    def look_up(self, items: Iterable[Item]) -> None:
        """Read at once what is there of traces, spans and early ends."""
        traces: list[TraceKey] = []
        spans: list[_SpanId] = []
        for item in items:
            if item.trace_id is not None:
                traces.append((item.project_id, item.trace_id))
            if isinstance(item, SpanOpened | SpanClosed):
                spans.append((item.project_id, item.span_id))
        self.ledger.look_up_traces(traces)
        for project_id, span_ids in by_project(spans).items():
            key: Params = {"project_id": project_id}
            for span_id, told in self.tx.look_up(FIND_EARLY, key, span_ids):
                try:
                    self.early[project_id, span_id] = _decode(told)
                except msgspec.MsgspecError:  # of a version that said it otherwise
                    self.dropped.add((project_id, span_id))
            for row in self.tx.look_up(FIND_HANDED, key, span_ids):
                values = dict(zip((*HANDED_COLUMNS, *READ_COLUMNS), row, strict=True))
                one = (project_id, values["span_id"])
                # Where its end is kept, the row was made of that alone.
                early = self.early.get(one)
                is_made = early is not None and early.trace_id == values["trace_id"]
                span = HandedSpan.of(values, is_opened=not is_made)
                self.spans.setdefault(one, []).append(span)

    def take(self, item: Item) -> Result:
        """Take one item."""
        match item:
            case TraceOpened():
                return self._open_trace(item)
            case TraceClosed():
                return self._close_trace(item)
            case SpanOpened():
                return self._open(item)
            case SpanClosed():
                return self._close(item)

    def _open_trace(self, item: TraceOpened) -> Result:
        key = (item.project_id, item.trace_id)
        change = self.ledger.trace(key)
        is_new = change.old is None and key not in self.said
        self.said[key] = None
        if item.session_id is not None:
            source = item.session_source or UNKNOWN_SOURCE
            name_session(self.ledger, change, clean_text(item.session_id), source)
        was = change.opening
        at_us = was.at_us
        if at_us is None:
            at_us = self.now_us if item.started_at_us is None else item.started_at_us
            at_us = clean_count(at_us, MAX_TIME_US) or 0
        tags = [clean_text(tag) for tag in item.tags]
        user_id = _first(was.user_id, item.user_id)
        change.opening = was._replace(
            at_us=at_us,
            name=_first(was.name, item.name),
            user_id=None if user_id is None else bounded(user_id),
            tags=was.tags if was.tags or not tags else msgspec.json.encode(tags).decode(),
        )
        return "created" if is_new else "known"

    def _close_trace(self, item: TraceClosed) -> Result:
        key = (item.project_id, item.trace_id)
        change = self.ledger.trace(key)
        if change.opening.closed_at_us is not None:
            return "already_ended"
        is_known = change.old is not None or key in self.said
        self.said[key] = None
        at_us = self.now_us if item.ended_at_us is None else item.ended_at_us
        change.opening = change.opening._replace(
            closed_at_us=clean_count(at_us, MAX_TIME_US) or 0, heard_at_us=None
        )
        return "ended" if is_known else "waiting"

    def _open(self, item: SpanOpened) -> Result:
        one = (item.project_id, item.span_id)
        found = self.spans.setdefault(one, [])
        span = next((s for s in found if s.values["trace_id"] == item.trace_id), None)
        if span is None and not found:
            span = HandedSpan(blank())
            found.append(span)
        if span is None or span.is_call:
            return "conflict"
        early = self.early.get(one)
        if early is not None and early.trace_id not in (None, item.trace_id):
            early = None  # of a span of another trace
        is_known = span.is_opened or not span.is_new
        self.said[one[0], item.trace_id] = None
        self._name_session(item)
        if span.is_opened:
            span.begin_again(item, self.now_us)
        else:
            span.begin(item, self.now_us)
        end = early or item.end
        if early is not None:
            self._drop(one)
        if end is not None and not span.has_ended:
            span.end(end, self.now_us)
        return "known" if is_known else "created"

    def _close(self, item: SpanClosed) -> Result:
        one = (item.project_id, item.span_id)
        found = self.spans.setdefault(one, [])
        if item.trace_id is None:
            # Without its trace an id is that of the oldest span that was handed in with it.
            own = [span for span in found if not span.is_call]
            span = min(own, key=lambda s: int(s.values["seq"] or 2**62)) if own else None
        else:
            span = next((s for s in found if s.values["trace_id"] == item.trace_id), None)
        if span is None and found:
            return "conflict"
        if span is None:
            return self._keep(one, item)
        if span.is_call:
            return "conflict"
        if span.has_ended:
            return "already_ended"
        self.said[one[0], span.key[1]] = None
        span.end(item, self.now_us)
        return "ended"

    def _keep(self, one: _SpanId, item: SpanClosed) -> Result:
        """Keep an end until its start comes; where its trace is known the span is there already."""
        early = self.early.get(one)
        if early is not None:
            if item.trace_id is None or early.trace_id is not None:
                return "waiting"
            self._drop(one)
            item = replace(early, trace_id=item.trace_id)  # the first end is the only one
        elif item.ended_at_us is None and item.duration_us is None:
            item = replace(item, ended_at_us=self.now_us)
        self.early[one] = self.kept[one] = item
        if item.trace_id is None:
            return "waiting"
        span = HandedSpan(blank())
        span.end(item, self.now_us)
        self.spans[one].append(span)
        self.said[one[0], item.trace_id] = None
        return "ended"

    def _drop(self, one: _SpanId) -> None:
        del self.early[one]
        if self.kept.pop(one, None) is None:
            self.dropped.add(one)

    def _name_session(self, item: SpanOpened) -> None:
        if item.session_id is not None:
            change = self.ledger.trace((item.project_id, item.trace_id))
            source = item.session_source or UNKNOWN_SOURCE
            name_session(self.ledger, change, clean_text(item.session_id), source)

    def write(self, reader: Reader) -> None:
        """Write what changed, and bring everything that depends on it up to date."""
        tx, ledger = self.tx, self.ledger
        changed = [span for those in self.spans.values() for span in those if span.is_changed]
        # As they began, so that a call finds the one that it goes on from before it.
        changed.sort(key=lambda span: int(span.values["started_at_us"] or 0))
        unnumbered = [key for key in self.said if self._lacks_number(key)]
        ledger.take_seqs(len(unnumbered) + sum(span.is_new for span in changed))
        for key in unnumbered:
            change = ledger.trace(key)
            change.opening = change.opening._replace(seq=ledger.take_seq())
        for span in changed:
            span.price(reader)
        prepare(ledger, changed, reader)
        rows: list[Params] = []
        for span in changed:
            self._write(span, rows)
        tx.insert_rows(INSERT_HANDED, rows)
        ledger.additions.flush()
        self._drop_replaced()
        self._write_early()
        for key in self.said:
            self._hear(key)
        match(ledger, tuple(ledger.spans))
        adopt(ledger, [key for key in self.said if ledger.trace(key).old is None])
        sessions = roll_up(ledger)
        await_index(tx, ledger.unheard)
        log_changes(ledger, sessions)

    def _lacks_number(self, key: TraceKey) -> bool:
        opening = self.ledger.trace(key).opening
        return opening.seq is None and opening.began_at_us is not None

    def _write(self, span: HandedSpan, rows: list[Params]) -> None:
        ledger, key, values = self.ledger, span.key, span.values
        change = ledger.trace(key[:2])
        if span.is_new:
            values["seq"] = ledger.take_seq()
        store(ledger, change, span)
        if not span.is_new:
            self.tx.execute(UPDATE_HANDED, values)
        elif span.is_talk:  # for those that go on from it
            self.tx.execute(INSERT_HANDED, values)
        else:
            rows.append(values)
        facts = change.spans[key[2]] = span.facts()
        if span.before is not None:
            change.before[key[2]] = span.before
        change.inserted += span.is_new
        if span.is_new or span.has_just_ended:
            change.moved[key[2]] = int(span.is_new)
        if span.old_model != facts.model:
            if span.old_model is not None:
                change.models[span.old_model] -= 1
            if facts.model is not None:
                change.models[facts.model] += 1
        ledger.spans.append(key)

    def _drop_replaced(self) -> None:
        for project_id, content_id in self.ledger.replaced:
            _, freed_bytes = drop_contents(self.tx, (content_id,))
            self.ledger.additions.stored_bytes[project_id] -= freed_bytes

    def _write_early(self) -> None:
        for project_id, span_id in self.dropped:
            self.tx.execute(DROP_EARLY, {"project_id": project_id, "ended_id": span_id})
        rows: list[Params] = [
            {"project_id": one[0], "ended_id": one[1], "at_us": self.now_us, "told": _encode(item)}
            for one, item in self.kept.items()
        ]
        self.tx.insert_rows(KEEP_EARLY, rows)

    def _hear(self, key: TraceKey) -> None:
        """Note that there was word of a trace which is open."""
        change = self.ledger.trace(key)
        opening = change.opening
        if opening.at_us is None or opening.closed_at_us is not None:
            return
        if change.touched or not opening.is_open:
            change.opening = opening._replace(heard_at_us=self.now_us)

    def outcome(self, item: Item, result: Result) -> Outcome:
        """Say what became of an item, when all is written."""
        trace_id, span_id, status = item.trace_id, None, None
        if isinstance(item, SpanOpened | SpanClosed):
            span_id = item.span_id
            span = self._found(item) if result not in ("conflict", "waiting") else None
            if span is None:
                return Outcome(result, None, span_id)
            trace_id, status = span.key[1], str(span.values["state"])
        if trace_id is None:
            return Outcome(result, None, span_id)
        change = self.ledger.trace((item.project_id, trace_id))
        if span_id is None:
            facts = change.folded or change.old
            status = None if facts is None else facts.status
        return Outcome(result, trace_id, span_id, status, change.session_id)

    def _found(self, item: SpanOpened | SpanClosed) -> HandedSpan | None:
        for span in self.spans.get((item.project_id, item.span_id), ()):
            if not span.is_call and item.trace_id in (None, span.values["trace_id"]):
                return span
        return None


def _first(known: str | None, said: str | None) -> str | None:
    return known if known is not None or said is None else clean_text(said)
