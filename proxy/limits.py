"""How many calls a key may make in a minute: who calls faster waits, and nothing of it goes on.

A smooth limit: as many calls at once as a minute allows, then one whenever its share of the minute
has passed. Pure but for what it remembers; takes no clock. Invariant: a key's calls in any time of
m minutes are at most (m + 1) times what it may make in one; one number is held for each key that
called, of which there are few (storage/api_keys.py bounds them).

Source: the generic cell rate algorithm, ITU-T I.371, in its form of virtual scheduling.
"""

import math
from typing import Final

from proxy.errors import Refused
from storage.grants import ApiKey

MINUTE_S: Final = 60.0
# The type of OpenAI's own such errors, which its clients wait for and try again.
_KIND: Final = "requests"


class RateLimits:
    """The limits of all keys. `refused_calls` counts what was over one; shown by /api/health."""

    def __init__(self, calls_per_minute: int) -> None:
        self.refused_calls = 0
        self._calls_per_minute = calls_per_minute
        # When a key's allowance would be whole again, on the caller's clock.
        self._whole_at_s: dict[int, float] = {}

    def limit(self, calls_per_minute: int | None) -> int:
        """Give the limit of a key, which may have none of its own; 0 is no limit."""
        return self._calls_per_minute if calls_per_minute is None else calls_per_minute

    def take(self, key_id: int, calls_per_minute: int | None, now_s: float) -> int:
        """Take a call from a key's allowance; give 0, or the whole seconds until there is one.

        `now_s` is a monotonic clock's.
        """
        limit = self.limit(calls_per_minute)
        if not limit:
            return 0
        share_s = MINUTE_S / limit
        whole_at_s = max(self._whole_at_s.get(key_id, now_s), now_s)
        # How much more than a minute's allowance would be taken. Less than a billionth of a second
        # for each call is what shares of a minute are off by.
        wait_s = whole_at_s + share_s - now_s - MINUTE_S
        if wait_s > 1e-9 * limit:
            self.refused_calls += 1
            return math.ceil(wait_s)
        self._whole_at_s[key_id] = whole_at_s + share_s
        return 0

    def admit(self, key: ApiKey, now_s: float) -> None:
        """Let a call of a key through.

        Raises:
            Refused: the key has made as many calls as it may.
        """
        if wait_s := self.take(key.id, key.calls_per_minute, now_s):
            message = (
                f"this key may make {self.limit(key.calls_per_minute)} calls a minute: call again"
                f" in {wait_s} s"
            )
            raise Refused(429, "rate_limited", message, kind=_KIND, retry_after_s=wait_s)
