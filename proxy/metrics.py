"""What Prometheus can ask: how many calls, how fast, and what could not be kept.

Owns the names and their units. Invariant: nothing here is counted while a call passes; its end is,
in the recorder's thread, once it is saved; all that is a state is read when it is asked for. Labels
are names of the configuration and states, never anything that a caller sent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.outcomes import Ended

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
# Seconds. What we add is a fraction of a millisecond, up to the 40 ms that `safe` may wait.
ADDED_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0)
FIRST_BYTE_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
COMMIT_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

_GAUGES: Final = {
    "calls_in_flight": "Calls that are in flight, open streams among them.",
    "queued_bytes": "Bytes of records that wait to be saved.",
    "held_bytes": "Bytes that recording holds, of calls in flight and in the queue.",
    "limit_bytes": "The bound on both.",
    "event_subscribers": "Subscribers of /api/events.",
    "degraded": "1 while not all is recorded as it should be; /api/health says why.",
    "database_bytes": "Size of the database file, or of PostgreSQL's database a minute ago.",
    "wal_bytes": "Size of its write-ahead log, where the database is a file.",
    "database_away_seconds": "How long the database has taken nothing; 0 while it does.",
    "retention_last_run": "When the retention had last erased all that was due, in Unix seconds.",
}
_COUNTERS: Final = {
    "dropped_bodies": "Bodies that were not recorded, for want of memory.",
    "dropped_records": "Calls that were not recorded, for want of memory or of time at the end.",
    "unreadable_records": "Calls of which at most the bare fact could be saved.",
    "late_starts": "Answers that went out before the start of their call was saved.",
    "late_ends": "Answers that ended before that was saved, since recording was behind.",
    "failed_commits": "Transactions that failed, and were tried again or given up.",
    "dropped_log_lines": "Lines of the log that were not written, since nobody read them in time.",
    "refused_calls": "Calls that were refused since their key had made too many.",
    "retention_forgotten_traces": "Traces that lost their content to the retention.",
    "retention_erased_sessions": "Sessions that the retention erased.",
    "retention_erased_traces": "Traces that the retention erased.",
    "retention_freed_content_bytes": "Bytes of content that the retention erased, as stored.",
}


class Metrics(Collector):
    """Counts what ended, and asks ``states`` for the values of all gauges and other counters.

    A state that has no value now is left out.
    """

    def __init__(
        self, upstreams: Iterable[str], states: Callable[[], Mapping[str, float | None]]
    ) -> None:
        self._upstreams = frozenset(upstreams)
        self._states = states
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "traceway_calls",
            "Calls that ended and are saved, by upstream and final state.",
            ["upstream", "state"],
            registry=self._registry,
        )
        self._ingested = Counter(
            "traceway_ingested_spans",
            "Starts and ends of spans that applications handed in, by what became of them.",
            ["result"],
            registry=self._registry,
        )
        self._exported = Counter(
            "traceway_exported_spans",
            "Calls that were to be sent on to a collector, by what became of them.",
            ["result"],
            registry=self._registry,
        )
        self._added = Histogram(
            "traceway_added_seconds",
            "What Traceway added to a call: before its request left, and between the heads of its"
            " answer.",
            ["upstream"],
            registry=self._registry,
            buckets=ADDED_S,
        )
        self._first_byte = Histogram(
            "traceway_first_byte_seconds",
            "From the beginning of a call to the head of its answer.",
            ["upstream"],
            registry=self._registry,
            buckets=FIRST_BYTE_S,
        )
        self._commit = Histogram(
            "traceway_commit_seconds",
            "How long transactions of the writer took.",
            registry=self._registry,
            buckets=COMMIT_S,
        )
        self._registry.register(self)

    def ended(self, calls: Sequence[Ended]) -> None:
        """Count calls that are saved; in the recorder's thread."""
        for end, row in calls:
            name = end.start.upstream or ""
            upstream = name if name in self._upstreams else "unknown"
            self._calls.labels(upstream, row.state).inc()
            if end.added_us is not None:
                self._added.labels(upstream).observe(end.added_us / 1_000_000)
            if row.first_byte_us is not None:
                self._first_byte.labels(upstream).observe(row.first_byte_us / 1_000_000)

    def ingested(self, results: Mapping[str, int]) -> None:
        """Count what applications handed in of spans, by what became of it."""
        for result, count in results.items():
            self._ingested.labels(result).inc(count)

    def exported(self, results: Mapping[str, int]) -> None:
        """Count calls that were to be sent on to a collector, by what became of them."""
        for result, count in results.items():
            self._exported.labels(result).inc(count)

    def committed(self, seconds: float) -> None:
        """Note how long a transaction took; in the recorder's thread."""
        self._commit.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Read all states: prometheus_client asks for them."""
        version = GaugeMetricFamily("traceway_info", "The version that runs.", labels=["version"])
        version.add_metric([__version__], 1)
        yield version
        states = self._states()
        for family, known in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, what in known.items():
                if (value := states.get(name)) is not None:
                    yield family(f"traceway_{name}", what, value=value)

    def text(self) -> bytes:
        """Give everything in Prometheus' text format."""
        return generate_latest(self._registry)
