"""A collector, and a client of it."""

from collections.abc import Iterator

import pytest

from tests.sdk_python.collector import Collector, collecting
from traceway import Traceway


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A server that takes everything."""
    with collecting() as served:
        yield served


@pytest.fixture
def tw(collector: Collector) -> Iterator[Traceway]:
    """A client that sends when it is asked to: `tw.flush()`."""
    with Traceway(collector.url, "tw_sk_test", flush_interval_s=60) as client:
        yield client
