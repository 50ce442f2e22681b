"""Traces of many spans: their sums move by the difference that each span makes.

A trace is folded anew from all its spans (aggregates.py), which for one that grows span by span is
a square of its length. Above ``LONG_TRACE`` spans its row keeps a tally of what a difference needs:
how many spans are in which state, and which span gave each text. Invariant: what a difference gives
is what a fold over all spans gives; where it cannot tell, it says so, and all are read. Pure;
rollup.py reads and writes.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from storage.aggregates import (
    Amounts,
    SpanFacts,
    TraceFacts,
    bounded_amounts,
    later,
    minus,
    plus,
    status_of,
)
from storage.ledger import TraceChange
from storage.records import CANCELLED, FAILED, FAILED_STATES, RUNNING

# Spans that are read whenever one of them changes: half a millisecond.
LONG_TRACE: Final = 100

# The place (start, seq) of a span among those of its trace.
Place = tuple[int, int]


# The texts that the oldest span gives that has such, and those that the newest gives.
FIRST: Final = ("name", "user", "input")
LAST: Final = ("output", "root", "error")


class Tally(NamedTuple):
    """What the row of a long trace does not say of its spans.

    How many run, have failed and were cancelled; and the places of those that give the trace its
    name, its user, its input, its newest output, the newest of a root, and its error: None where no
    span has such.
    """

    states: tuple[int, ...]
    places: tuple[Place | None, ...]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Tally).decode


def packed(tally: Tally) -> bytes:
    """Give a tally as it is kept."""
    return _encode(tally)


def tally_of(spans: Iterable[SpanFacts]) -> Tally:
    """Count the spans of a trace anew."""
    counts = [0, 0, 0]
    places: dict[str, Place] = {}
    for span in spans:
        _count(counts, span.state, 1)
        for which, text in _texts(span).items():
            if text is not None and _is_nearer(which, _place(span), places.get(which)):
                places[which] = _place(span)
    return Tally(tuple(counts), tuple(map(places.get, (*FIRST, *LAST))))


def moved(change: TraceChange) -> tuple[TraceFacts, Tally] | None:
    """Give a long trace's row by what changed of it, and its tally; None where that cannot tell."""
    old, opening = change.old, change.opening
    if old is None or change.tally is None or not change.spans:
        return None
    unknown = sum(span_id not in change.before for span_id in change.spans)
    said = opening._replace(heard_at_us=None) != change.was_opening._replace(heard_at_us=None)
    if unknown != change.inserted or said:
        return None
    if opening.closed_at_us is not None and opening.closed_at_us <= old.started_at_us:
        return None
    try:
        return _Moving(old, _decode(change.tally)).over(change)
    except (_CannotTell, msgspec.MsgspecError):
        return None


# The sums of a trace's row, and what a span adds to each.
_SUMS: Final = {
    "unpriced_count": "unpriced",
    "estimated_count": "estimated",
    "received_bytes": "received_bytes",
    "stored_bytes": "stored_bytes",
}


class _CannotTell(Exception):
    """The difference is not enough."""


class _Moving:
    """A trace's row on its way."""

    def __init__(self, old: TraceFacts, tally: Tally) -> None:
        self.old = old
        self.row = old
        self.counts = [*tally.states]
        self.places = dict(zip((*FIRST, *LAST), tally.places, strict=True))
        # What the row shows beside what was said of the trace itself.
        self.texts: dict[str, str | None] = {}

    def over(self, change: TraceChange) -> tuple[TraceFacts, Tally]:
        for span_id, now in change.spans.items():
            self._replace(change.before.get(span_id), now)
        opening, row, texts = change.opening, self.row, self.texts
        name_at = self.places["name"]
        started_at_us = row.started_at_us if name_at is None else name_at[0]
        if opening.at_us is not None:
            started_at_us = min(started_at_us, opening.at_us)
        name, user_id = opening.name, opening.user_id
        output = texts.get("root") if self.places["root"] else texts.get("output")
        row = row._replace(
            status=status_of(self._states(), is_open=opening.is_open),
            started_at_us=started_at_us,
            session_id=change.session_id,
            session_source=change.session_source,
            name=row.name if name is not None else texts.get("name") or row.name,
            user_id=row.user_id if user_id is not None else texts.get("user", row.user_id),
            input_preview=texts.get("input", row.input_preview),
            output_preview=row.output_preview if output is None else output,
            error=texts.get("error", row.error),
        )
        return row, Tally(tuple(self.counts), tuple(self.places.values()))

    def _replace(self, before: SpanFacts | None, now: SpanFacts) -> None:
        row = self.row
        amounts = plus(row.amounts, now.amounts)
        if before is None:
            ended_at_us = later(row.last_ended_at_us, now.ended_at_us)
        else:
            _count(self.counts, before.state, -1)
            amounts = self._without(amounts, before, now)
            ended_at_us = self._ended(before, now)
        _count(self.counts, now.state, 1)
        sums = {
            total: getattr(row, total)
            + getattr(now, part)
            - (0 if before is None else getattr(before, part))
            for total, part in _SUMS.items()
        }
        self.row = row._replace(
            seq=min(row.seq, now.seq),
            span_count=row.span_count + (before is None),
            last_ended_at_us=ended_at_us,
            amounts=bounded_amounts(amounts),
            **sums,
        )
        self._place(before, now)

    def _without(self, amounts: Amounts, before: SpanFacts, now: SpanFacts) -> Amounts:
        left = tuple(map(minus, amounts, before.amounts))
        for amount, was, said in zip(left, before.amounts, now.amounts, strict=True):
            if was is not None and said is None and amount == 0:
                raise _CannotTell  # it may be that of nothing known
        return left

    def _ended(self, before: SpanFacts, now: SpanFacts) -> int | None:
        last = self.row.last_ended_at_us
        was = before.ended_at_us
        if was is not None and was == last and (now.ended_at_us is None or now.ended_at_us < was):
            raise _CannotTell
        return later(last, now.ended_at_us)

    def _place(self, before: SpanFacts | None, now: SpanFacts) -> None:
        had = {} if before is None else _texts(before)
        for which, text in _texts(now).items():
            at = self.places[which]
            is_holder = before is not None and had[which] is not None and _place(before) == at
            if is_holder and (text is None or _place(now) != at):
                raise _CannotTell
            if text is not None and (is_holder or _is_nearer(which, _place(now), at)):
                self.places[which] = _place(now)
                self.texts[which] = text

    def _states(self) -> set[str]:
        running, failed, cancelled = self.counts
        states = {RUNNING} if running else set()
        return states | ({FAILED} if failed else set()) | ({CANCELLED} if cancelled else set())


def _texts(span: SpanFacts) -> dict[str, str | None]:
    """Give what a span has to give its trace of each text."""
    return {
        "name": span.name,
        "user": span.user_id,
        "input": span.input_preview,
        "output": span.output_preview,
        "root": span.output_preview if span.is_root else None,
        "error": span.error if span.state in FAILED_STATES else None,
    }


def _place(span: SpanFacts) -> Place:
    return span.started_at_us, span.seq


def _is_nearer(which: str, place: Place, held: Place | None) -> bool:
    """Tell whether a place comes before the one that gives a text so far."""
    if held is None:
        return True
    return place < held if which in FIRST else place > held


def _count(counts: list[int], state: str, n: int) -> None:
    if state == RUNNING:
        counts[0] += n
    elif state in FAILED_STATES:
        counts[1] += n
    elif state == CANCELLED:
        counts[2] += n
