"""How long an answer to a wrong key waits: guessing is made slow, and a right key never waits.

Pure but for what it remembers. Invariant: bounded in memory and in the answers that wait at once,
whoever sends how much.
"""

from collections import OrderedDict
from typing import Final

# Wrong keys of one address that are answered at once, a minute; each further one waits.
FREE_FAILURES: Final = 10
WINDOW_S: Final = 60.0
PAUSE_S: Final = 1.0
# Addresses that are remembered, and answers that wait at once; past it they go out at once.
MAX_PEERS: Final = 10_000
MAX_WAITING: Final = 1_000


class Throttle:
    """Counts wrong keys by the address that they come from. ``waiting`` is how many wait."""

    def __init__(self) -> None:
        self.waiting = 0
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def failed(self, peer: str, now_s: float) -> float:
        """Note a wrong key; give the seconds that its answer waits."""
        began_s, count = self._failures.pop(peer, (now_s, 0))
        if now_s - began_s >= WINDOW_S:
            began_s, count = now_s, 0
        self._failures[peer] = (began_s, count + 1)
        if len(self._failures) > MAX_PEERS:
            self._failures.popitem(last=False)
        if count < FREE_FAILURES or self.waiting >= MAX_WAITING:
            return 0.0
        return PAUSE_S
