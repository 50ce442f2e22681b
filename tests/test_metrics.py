"""What Prometheus reads: counted when it ends, in its own text format, with bounded labels."""

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from proxy.call import CallEnd
from proxy.metrics import Metrics
from proxy.outcomes import Ended
from proxy.pricing import Prices
from proxy.settle import Settler
from tests.calling import ANSWER, a_call, answered

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def of(end: CallEnd) -> Ended:
    return end, Settler(Prices()).end(end)


def read(metrics: Metrics) -> Samples:
    """Read the text as a scraper does."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_calls_are_counted_by_upstream_and_state() -> None:
    metrics = Metrics(["openai"], dict)
    metrics.ended([of(answered(a_call(), ANSWER)), of(answered(a_call(), ANSWER))])
    metrics.ended([of(answered(a_call(), b"{}", status=500))])
    found = read(metrics)
    name = "traceway_calls_total"
    assert found[name, (("state", "completed"), ("upstream", "openai"))] == 2
    assert found[name, (("state", "failed"), ("upstream", "openai"))] == 1


def test_an_upstream_that_a_caller_made_up_is_no_label() -> None:
    metrics = Metrics(["openai"], dict)
    metrics.ended([of(answered(a_call(target=b"/api/proxy/made-up/v1/x"), b"{}"))])
    assert b"made-up" not in metrics.text()
    labels = (("state", "completed"), ("upstream", "unknown"))
    assert read(metrics)["traceway_calls_total", labels] == 1


def test_times_are_seconds_in_histograms() -> None:
    metrics = Metrics(["openai"], dict)
    end, row = of(answered(a_call(), ANSWER))
    metrics.ended([(replace(end, added_us=700), replace(row, first_byte_us=300_000))])
    metrics.ended([(replace(end, added_us=None), replace(row, first_byte_us=None))])
    metrics.committed(0.002)
    found = read(metrics)
    openai = (("upstream", "openai"),)
    assert found["traceway_added_seconds_count", openai] == 1
    assert found["traceway_added_seconds_sum", openai] == 0.0007
    assert found["traceway_added_seconds_bucket", (("le", "0.0005"), *openai)] == 0
    assert found["traceway_added_seconds_bucket", (("le", "0.001"), *openai)] == 1
    assert found["traceway_first_byte_seconds_sum", openai] == 0.3
    assert found["traceway_commit_seconds_sum", ()] == 0.002


def test_states_are_read_when_it_is_asked_and_what_has_none_is_left_out() -> None:
    states: dict[str, float | None] = {"queued_bytes": 5, "wal_bytes": None, "dropped_records": 2}
    metrics = Metrics([], lambda: states)
    found = read(metrics)
    assert found["traceway_queued_bytes", ()] == 5
    assert found["traceway_dropped_records_total", ()] == 2
    assert ("traceway_wal_bytes", ()) not in found
    states["queued_bytes"] = 7
    assert read(metrics)["traceway_queued_bytes", ()] == 7


def test_what_was_handed_in_is_counted_by_what_became_of_it() -> None:
    metrics = Metrics([], dict)
    metrics.ingested({"created": 2, "refused": 1})
    metrics.ingested({"created": 1})
    found = read(metrics)
    assert found["traceway_ingested_spans_total", (("result", "created"),)] == 3
    assert found["traceway_ingested_spans_total", (("result", "refused"),)] == 1
