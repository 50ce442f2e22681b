"""What a session may cost, has cost and may still cost: frozen values.

Invariant: money is integer nano-USD (``_nusd``). Nothing here does I/O.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A call that wants to be made: what it may cost at most, and what its session may.

    ``trace_id`` is 16 bytes, ``span_id`` 8. ``joins``: the call may be in another trace than its
    own by now, and so in another session.
    """

    project_id: int
    trace_id: bytes
    span_id: bytes
    session_id: str
    limit_nusd: int
    amount_nusd: int
    joins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionBudget:
    """Where a session stands: ``spent`` is what its ended calls cost as far as that is known.

    ``reserved`` is what calls may cost at most that are in flight, or whose cost is not known.
    """

    limit_nusd: int
    spent_nusd: int
    reserved_nusd: int

    def fits(self, amount_nusd: int) -> bool:
        """Tell whether a call that may cost so much can be made."""
        return self.spent_nusd + self.reserved_nusd + amount_nusd <= self.limit_nusd
