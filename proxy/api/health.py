"""Whether the server works, and what was lost if it did not; totals of the project."""

import time
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aiohttp import web

from proxy.access import project_id
from proxy.api.answers import json_answer
from proxy.api.hubs import Hubs
from proxy.api.retention import Retention
from proxy.api.units import iso_or_none
from proxy.api.views import stats_view
from proxy.capture import Budget
from proxy.config import Config
from proxy.limits import RateLimits
from proxy.losses import Counters
from proxy.metrics import CONTENT_TYPE, Metrics
from proxy.outlet import dropped_lines
from proxy.recorder import Recorder
from storage import queries
from storage.database import Database, StorageError

if TYPE_CHECKING:
    from proxy.api.replicas import Replicas


@dataclass(slots=True)
class AllCounters(Counters):
    """What went wrong since the start of the process; and the lines of the log that nobody took."""

    dropped_log_lines: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionView:
    """What the retention did since the start of the process.

    `size_bytes` is how much the database took when it was last looked at, null before.
    """

    last_ran_at: str | None
    is_running: bool
    forgotten_traces: int
    erased_sessions: int
    erased_traces: int
    erased_spans: int
    freed_content_bytes: int
    size_bytes: int | None
    is_above_cap: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthView:
    """`degraded` means: calls are forwarded, and not all of them are recorded as they should be, or
    not all is erased that is to be.

    `retention` is null where all is kept for ever.
    `refused_calls` were over their key's calls per minute: they went nowhere and are not recorded.
    `database_away_since` is null while the database takes what is written.
    """

    status: Literal["ok", "degraded"]
    reasons: list[str]
    database_away_since: str | None
    durability: str
    calls_in_flight: int
    queued_bytes: int
    held_bytes: int
    limit_bytes: int
    event_subscribers: int
    refused_calls: int
    retention: RetentionView | None
    counters: AllCounters


class Health:
    """The handlers of /api/health, /api/live, /api/ready, /api/stats and /metrics.

    `figures` are what /metrics shows.
    """

    def __init__(
        self,
        database: Database,
        recorder: Recorder,
        budget: Budget,
        in_flight: Set[object],
        hubs: Hubs,
        limits: RateLimits,
        config: Config,
        retention: Retention,
        replicas: "Replicas | None" = None,
        erasing: Callable[[], list[str]] = list,
    ) -> None:
        self._database = database
        self._recorder = recorder
        self._budget = budget
        self._in_flight = in_flight
        self._hubs = hubs
        self._limits = limits
        self._database_path = None if config.database.url else config.database.path
        self._replicas = replicas
        self._retention = retention
        self._erasing = erasing
        self.figures = Metrics(config.upstreams, self._states)

    async def health(self, _: web.Request) -> web.Response:
        """GET /api/health: always 200, so that it can be read; `status` says how it is."""
        return json_answer(self.view())

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics: what Prometheus asks for, in its text format."""
        return web.Response(body=self.figures.text(), headers={"Content-Type": CONTENT_TYPE})

    def _states(self) -> dict[str, float | None]:
        """Give the states that metrics have by their names."""
        view = self.view()
        path, since_us = self._database_path, self._away_since_us()
        replicas = self._replicas
        return {
            "calls_in_flight": view.calls_in_flight,
            "queued_bytes": view.queued_bytes,
            "held_bytes": view.held_bytes,
            "limit_bytes": view.limit_bytes,
            "event_subscribers": view.event_subscribers,
            "degraded": view.status == "degraded",
            "database_bytes": (replicas and replicas.database_bytes)
            if path is None
            else _size(path),
            "wal_bytes": None if path is None else _size(Path(f"{path}-wal")),
            "database_away_seconds": 0 if since_us is None else time.time() - since_us / 1_000_000,
            "refused_calls": view.refused_calls,
            **self._retained(),
            **asdict(view.counters),
        }

    def _retained(self) -> dict[str, float | None]:
        """Give what the retention has done, by the names of metrics."""
        done = self._retention.done
        if not self._retention.is_on:
            return {}
        ran_at_us = done.last_ran_at_us
        return {
            "retention_last_run": None if ran_at_us is None else ran_at_us / 1_000_000,
            "retention_forgotten_traces": done.forgotten_traces,
            "retention_erased_sessions": done.erased_sessions,
            "retention_erased_traces": done.erased_traces,
            "retention_freed_content_bytes": done.freed_content_bytes,
        }

    def _retention_view(self) -> RetentionView | None:
        if not self._retention.is_on:
            return None
        found = asdict(self._retention.done)
        return RetentionView(last_ran_at=iso_or_none(found.pop("last_ran_at_us")), **found)

    async def live(self, _: web.Request) -> web.Response:
        """GET /api/live: the process answers."""
        return json_answer({"status": "ok"})

    async def ready(self, _: web.Request) -> web.Response:
        """GET /api/ready: calls are taken and can be read, else 503."""
        # Only `strict` refuses calls that it cannot record.
        reasons = self._recorder.reasons() if self._recorder.durability == "strict" else []
        try:
            await self._database.read("SELECT 1", {})
        except StorageError as error:
            reasons.append(str(error))
        if reasons:
            return json_answer({"status": "unavailable", "reasons": reasons}, status=503)
        return json_answer({"status": "ok"})

    async def stats(self, request: web.Request) -> web.Response:
        """GET /api/stats: the project's totals."""
        return json_answer(stats_view(await queries.stats(self._database, project_id(request))))

    def reasons(self) -> list[str]:
        """Say in sentences what is not as it should be; empty when all is."""
        replicas = self._replicas
        own = replicas.reasons() if replicas else ()
        return [*self._recorder.reasons(), *own, *self._erasing()]

    def _away_since_us(self) -> int | None:
        replicas = self._replicas
        since = (self._recorder.commits.away_since_us, replicas.away_since_us if replicas else None)
        return min((one for one in since if one is not None), default=None)

    def view(self) -> HealthView:
        """Say how it is now."""
        recorder = self._recorder
        reasons = self.reasons()
        return HealthView(
            status="degraded" if reasons else "ok",
            reasons=reasons,
            database_away_since=iso_or_none(self._away_since_us()),
            durability=recorder.durability,
            calls_in_flight=len(self._in_flight),
            queued_bytes=recorder.queued_bytes,
            held_bytes=self._budget.used_bytes,
            limit_bytes=self._budget.limit_bytes,
            event_subscribers=self._hubs.subscribers,
            refused_calls=self._limits.refused_calls,
            retention=self._retention_view(),
            counters=AllCounters(
                **asdict(recorder.losses.counters), dropped_log_lines=dropped_lines()
            ),
        )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
