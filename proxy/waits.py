"""How long calls wait for what is recorded of them.

Owns the bounds of these waits. Invariant: with `fast` nobody waits; with `safe` a call waits for
`CALL_WAIT_S` in all, whatever the database does, and not at all while waiting is in vain; `strict`
waits for `STRICT_WAIT_S` each time, and what is not saved then is refused. On the event loop only.
"""

import asyncio
import time
from typing import Final, Literal

from proxy.backlog import Backlog, Ticket
from proxy.losses import Losses

Durability = Literal["safe", "strict", "fast"]

# A call waits so long for the writer: its answer's first byte for the commit of its start, and its
# last byte until the writer has caught up. It is behind where something has waited for the second
# figure; then it takes its time from the calls, and not from what is saved of them.
CALL_WAIT_S: Final = 0.040
BEHIND_S: Final = 0.020
# So many waits in vain in a row, and calls stop waiting until a commit succeeds.
MAX_VAIN_WAITS: Final = 3
STRICT_WAIT_S: Final = 2.0


class Waits:
    """The waits of calls for one recorder, whose queue is `backlog`."""

    def __init__(self, backlog: Backlog, losses: Losses, durability: Durability) -> None:
        self._backlog = backlog
        self._losses = losses
        self._durability = durability
        self._vain = 0
        self._caught_up: asyncio.Future[None] | None = None

    @property
    def are_vain(self) -> bool:
        """Whether commits take longer than calls may wait for them."""
        return self._vain >= MAX_VAIN_WAITS

    async def started(self, ticket: Ticket) -> float:
        """Hold an answer's first byte until its start is saved, a short while at most (`safe`).

        Give what is left of that while for its last byte, in seconds.
        """
        if self._durability == "fast":
            return 0.0
        left_s = CALL_WAIT_S
        if not ticket.done() and not self.are_vain:
            began_s = time.monotonic()
            await asyncio.wait((ticket,), timeout=CALL_WAIT_S)
            left_s = max(0.0, left_s - (time.monotonic() - began_s))
            if not ticket.done():
                self._vain += 1
        if not _is_saved(ticket):
            self._losses.counters.late_starts += 1
        return left_s

    @property
    def is_behind(self) -> bool:
        """Whether the end of a call would be saved late, so that it waits a moment (`safe`)."""
        oldest_at_s = self._backlog.oldest_at_s
        if oldest_at_s is None or self._durability != "safe" or self.are_vain:
            return False
        return time.monotonic() - oldest_at_s > BEHIND_S

    async def caught_up(self, patience_s: float) -> float:
        """Hold an answer's last byte until the writer is no longer behind, but not longer.

        Give what is left of the time, in seconds.
        """
        if not patience_s:
            return 0.0
        if self._caught_up is None:
            self._caught_up = asyncio.get_running_loop().create_future()
        began_s = time.monotonic()
        await asyncio.wait((self._caught_up,), timeout=patience_s)
        return max(0.0, patience_s - (time.monotonic() - began_s))

    async def committed(self, ticket: Ticket) -> bool:
        """Wait until a record is saved (`strict`); False when it is not in time, or never will."""
        if not ticket.done():
            await asyncio.wait((ticket,), timeout=STRICT_WAIT_S)
        return _is_saved(ticket)

    def end(self, *, is_saved: bool) -> None:
        """Note that records are saved, or lost: those that wait for the writer may go on."""
        if is_saved:
            self._vain = 0
        if self._caught_up is not None and not self.is_behind:
            self._caught_up.set_result(None)
            self._caught_up = None


def _is_saved(ticket: Ticket) -> bool:
    return ticket.done() and not ticket.cancelled()
