"""What recording lost or could not do, counted and logged: never silent, and never a flood.

Lives on the event loop. Invariant: a counter only grows; a log line comes at most once a minute.
"""

import logging
import time
from dataclasses import dataclass
from typing import Final

LOG_EVERY_S: Final = 60.0
# So long after a loss, health still says `degraded`; the counters say it for ever.
DEGRADED_S: Final = 300.0

_log = logging.getLogger("traceway")


@dataclass(slots=True)
class Counters:
    """What went wrong since the start of the process; shown by /api/health.

    `late_starts` are answers that went out before the start of their call was saved, `late_ends`
    those that ended before that was, as recording was behind, and
    `unreadable_records` those of which at most the bare fact of the call could be saved.
    """

    dropped_bodies: int = 0
    dropped_records: int = 0
    unreadable_records: int = 0
    late_starts: int = 0
    late_ends: int = 0
    failed_commits: int = 0


class Losses:
    """The counters, and when the last loss and the last log line were."""

    def __init__(self) -> None:
        self.counters = Counters()
        self._last_log_s: float | None = None
        self._last_loss_s: float | None = None

    def add(self, *, bodies: int = 0, records: int = 0, unreadable: int = 0) -> None:
        """Count what was lost."""
        self.counters.dropped_bodies += bodies
        self.counters.dropped_records += records
        self.counters.unreadable_records += unreadable
        self._last_loss_s = time.monotonic()

    def unreadable(self, error: Exception) -> None:
        """Count and log a record that could not be taken as it was."""
        self.add(unreadable=1)
        self.complain("a record could not be read or saved as it was", error)

    def failed(self, error: Exception, is_final: bool) -> None:
        """Count a commit that failed, and log one that is tried again."""
        self.counters.failed_commits += 1
        if not is_final:
            self.complain(f"recording waits for the database: {error}")

    @property
    def are_recent(self) -> bool:
        """Whether anything was lost in the last minutes."""
        return self._last_loss_s is not None and time.monotonic() - self._last_loss_s < DEGRADED_S

    def complain(self, message: str, error: Exception | None = None) -> None:
        """Log what is wrong, and all counters, unless a line came a short while ago."""
        now_s = time.monotonic()
        if self._last_log_s is None or now_s - self._last_log_s >= LOG_EVERY_S:
            self._last_log_s = now_s
            _log.error("%s (%s)", message, self.counters, exc_info=error)
