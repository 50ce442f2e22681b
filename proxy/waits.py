"""How long calls wait for what is recorded of them.

Owns the bounds of these waits. Invariant: with `fast` nobody waits; with `safe` an answer's first
byte waits for `START_WAIT_S`, where the recorder is behind its end as well, for `HELD_S` in all,
whatever the database does, and not at all while waiting is in vain;
`strict` waits for `STRICT_WAIT_S` each time, and what is not saved then is refused. On the event
loop only.
"""

import asyncio
import math
import time
from typing import Final

from proxy.backlog import Ticket
from proxy.losses import Losses
from proxy.sections import Durability

# An answer's first byte waits at most this long for the commit of its start.
START_WAIT_S: Final = 0.040
# What a call is held in all: 50 ms may be seen, and a busy event loop is some milliseconds late.
HELD_S: Final = 0.045
# So many waits, one behind the other, during which nothing was saved, and calls stop waiting until
# a commit succeeds. Those at the same time are one: a single commit that is slow.
MAX_VAIN_WAITS: Final = 3
STRICT_WAIT_S: Final = 2.0


class Waits:
    """The waits of calls for one recorder."""

    def __init__(self, losses: Losses, durability: Durability) -> None:
        self._losses = losses
        self._durability = durability
        self._vain = 0
        self._vain_at_s = -math.inf
        self._saves = 0

    @property
    def are_vain(self) -> bool:
        """Whether commits take longer than calls may wait for them."""
        return self._vain >= MAX_VAIN_WAITS

    async def started(self, ticket: Ticket) -> float:
        """Hold an answer's first byte until its start is saved, a short while at most (`safe`).

        Give for how long, in seconds.
        """
        if self._durability == "fast":
            return 0.0
        began_s = time.monotonic()
        if not ticket.done() and not self.are_vain:
            saves = self._saves
            await asyncio.wait((ticket,), timeout=START_WAIT_S)
            # Where others were saved meanwhile, the recorder is behind, and waits let it catch up.
            if not ticket.done() and self._saves == saves and began_s >= self._vain_at_s:
                self._vain += 1
                self._vain_at_s = time.monotonic()
        if not _is_saved(ticket):
            self._losses.counters.late_starts += 1
        return time.monotonic() - began_s

    async def ended(self, ticket: Ticket, held_s: float) -> None:
        """Hold the end of an answer that was held for `held_s` until it is saved (`safe`)."""
        if not ticket.done() and not self.are_vain and held_s < HELD_S:
            await asyncio.wait((ticket,), timeout=HELD_S - held_s)
        if not _is_saved(ticket):
            self._losses.counters.late_ends += 1

    async def committed(self, ticket: Ticket) -> bool:
        """Wait until a record is saved (`strict`); False when it is not in time, or never will."""
        if not ticket.done():
            await asyncio.wait((ticket,), timeout=STRICT_WAIT_S)
        return _is_saved(ticket)

    def saved(self) -> None:
        """Note that a commit succeeded: to wait is worth it again."""
        self._vain = 0
        self._saves += 1


def _is_saved(ticket: Ticket) -> bool:
    return ticket.done() and not ticket.cancelled()
