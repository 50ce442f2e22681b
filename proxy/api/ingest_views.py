"""What the write API answers: what became of a thing that was handed in, alone or in a batch. Pure.

Invariant: nothing that is stored is in an answer but ids, states and the session, since a key that
writes does not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.api.params import BadParameter
from storage.handed import Item, Outcome, SpanClosed, SpanOpened, TraceOpened

STATUSES: Final[Mapping[str, int]] = {
    "created": 201,
    "known": 200,
    "ended": 200,
    "waiting": 202,
    "already_ended": 409,
    "conflict": 409,
}
# What changed nothing, and why.
REASONS: Final[Mapping[str, str]] = {
    "already_ended": "it has ended already; nothing was changed",
    "conflict": "a proxied call has this id, or a span of another trace; nothing was changed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenTraceView:
    """A trace that was opened; `created` is false where it was there."""

    id: str
    session_id: str | None
    status: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenSpanView:
    """A span that began, or was handed in ended; `created` is false where it was there."""

    id: str
    trace_id: str
    status: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedSpanView:
    """A span that was ended; `waiting` until it comes itself, and then its trace may be unknown."""

    id: str
    trace_id: str | None
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTraceView:
    """A trace that was ended; `waiting` until it comes itself."""

    id: str
    status: str


View = TakenTraceView | TakenSpanView | EndedSpanView | EndedTraceView


def view_of(item: Item, outcome: Outcome) -> View:
    """Say what became of an item that was taken."""
    status = "waiting" if outcome.result == "waiting" else outcome.status or ""
    trace_id = _trace(outcome)
    if isinstance(item, TraceOpened):
        return TakenTraceView(
            id=item.trace_id.hex(),
            session_id=outcome.session_id,
            status=status,
            created=outcome.result == "created",
        )
    if isinstance(item, SpanOpened):
        return TakenSpanView(
            id=item.span_id.hex(),
            trace_id=trace_id or item.trace_id.hex(),
            status=status,
            created=outcome.result == "created",
        )
    if isinstance(item, SpanClosed):
        return EndedSpanView(id=item.span_id.hex(), trace_id=trace_id, status=status)
    return EndedTraceView(id=item.trace_id.hex(), status=status)


def result_of(item: Item, outcome: Outcome) -> dict[str, object]:
    """Say what became of an item of a batch."""
    told: dict[str, object] = {
        "status": STATUSES[outcome.result],
        "id": _id(item),
        "trace_id": _trace(outcome),
    }
    if (reason := REASONS.get(outcome.result)) is not None:
        told["error"] = {"code": outcome.result, "message": reason, "param": None}
    return told


def mistake_of(mistake: BadParameter) -> dict[str, object]:
    """Say what is wrong with an item of a batch."""
    error = {"code": "bad_parameter", "message": str(mistake), "param": mistake.name}
    return {"status": 400, "error": error}


def is_accepted(outcome: Outcome) -> bool:
    """Tell whether what an item says is stored, by it or by an earlier one."""
    return outcome.result != "conflict"


def _id(item: Item) -> str:
    return (item.span_id if isinstance(item, SpanOpened | SpanClosed) else item.trace_id).hex()


def _trace(outcome: Outcome) -> str | None:
    return None if outcome.trace_id is None else outcome.trace_id.hex()
