"""From the queue to the server: batches, faults, bounds. Nothing is lost in silence."""

import json
import logging
import threading
import time
from collections.abc import Callable

import pytest

from tests.sdk_python.collector import Collector, Received, Reply, collecting, drop, refuse
from traceway import Traceway


def spans_of(tw: Traceway, count: int, size_bytes: int = 0) -> None:
    trace = tw.trace("t")
    for n in range(count):
        trace.span(f"s{n}", input="x" * size_bytes).end()


def names(collector: Collector) -> list[str]:
    return [span["name"] for span in collector.of("span")]


def test_many_go_in_few_requests_in_their_order(tw: Traceway, collector: Collector) -> None:
    spans_of(tw, 2_500)
    assert tw.flush()
    assert names(collector) == [f"s{n}" for n in range(2_500)]
    assert len(collector.requests) <= 4
    assert len(collector.connections) == 1


def test_a_request_holds_at_most_4_mib_and_large_ones_are_compressed(
    tw: Traceway, collector: Collector
) -> None:
    spans_of(tw, 20, 1_000_000)
    assert tw.flush()
    assert len(names(collector)) == 20
    assert len(collector.requests) >= 5
    assert max(request.bytes_sent for request in collector.requests) < 100_000
    tw.trace("small").end()
    tw.flush()
    assert "content-encoding" not in collector.requests[-1].headers


def test_the_key_goes_with_each_request(tw: Traceway, collector: Collector) -> None:
    tw.trace("t").end()
    tw.flush()
    assert collector.requests[0].headers["authorization"] == "Bearer tw_sk_test"


def test_a_batch_goes_by_itself_after_a_while(collector: Collector) -> None:
    with Traceway(collector.url, flush_interval_s=0.01) as tw:
        tw.trace("t").end()
        assert collector.arrived.acquire(timeout=10)


@pytest.mark.parametrize(
    "fault",
    [refuse(429, Retry_After="0.01"), refuse(503), refuse(502), refuse(500), drop],
    ids=["429", "503", "502", "500", "dropped"],
)
def test_a_fault_that_passes_loses_nothing(
    tw: Traceway, collector: Collector, fault: Callable[[Received], Reply]
) -> None:
    collector.script += [fault, fault]
    spans_of(tw, 3)
    assert tw.flush()
    assert names(collector) == ["s0", "s1", "s2"]
    assert [request.items for request in collector.requests] == [collector.requests[0].items] * 3
    assert tw.dropped == 0


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_ids(
    tw: Traceway, collector: Collector
) -> None:
    def take_and_drop(received: Received) -> Reply:
        collector.take(received)
        return None

    def taken_already(received: Received) -> Reply:
        results = [
            {"status": 409, "error": {"code": "already_ended", "message": "It has ended."}}
            for _ in received.items
        ]
        return 200, {}, json.dumps({"results": results}).encode()

    collector.script += [take_and_drop, taken_already]
    spans_of(tw, 3)
    assert tw.flush()
    assert names(collector) == ["s0", "s1", "s2"]
    assert tw.dropped == 0


def test_retry_after_is_waited_for(tw: Traceway, collector: Collector) -> None:
    collector.script.append(refuse(429, Retry_After="1"))
    tw.trace("t").end()
    began = time.monotonic()
    assert tw.flush()
    assert time.monotonic() - began >= 1


def test_a_server_that_comes_later_gets_all() -> None:
    with collecting() as gone:
        port = gone.port
    with Traceway(f"http://127.0.0.1:{port}") as tw:
        spans_of(tw, 1_200)
        assert not tw.flush(0.05)
        with collecting(port=port) as back:
            assert tw.flush()
        assert names(back) == [f"s{n}" for n in range(1_200)]
        assert tw.dropped == 0


def test_a_server_that_restarts_finds_a_connection_that_it_closed(
    tw: Traceway, collector: Collector
) -> None:
    collector.keep_alive = False
    for _ in range(3):
        tw.trace("t").end()
        assert tw.flush()
    assert len(collector.requests) == 3
    assert len(collector.connections) == 3


def test_one_refused_item_costs_only_itself_and_is_reported(
    tw: Traceway, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse_second(received: Received) -> Reply:
        collector.take(Received({}, received.items[:1] + received.items[2:], 0))
        results: list[object] = [{"status": 201} for _ in received.items]
        results[1] = {"status": 400, "error": {"code": "bad", "message": "no such kind"}}
        return 200, {}, json.dumps({"results": results}).encode()

    collector.script.append(refuse_second)
    spans_of(tw, 3)
    with caplog.at_level(logging.WARNING, "traceway"):
        assert tw.flush()
        tw.close()
    assert names(collector) == ["s1", "s2"]
    assert tw.dropped == 1
    assert "1 items dropped: 400 no such kind" in caplog.text


def test_an_id_that_is_somebody_elses_is_a_refusal(tw: Traceway, collector: Collector) -> None:
    error = {"code": "conflict", "message": "It is a proxied call's."}
    results = {"results": [{"status": 409, "error": error}] * 2}
    collector.script.append(lambda _: (200, {}, json.dumps(results).encode()))
    tw.trace("t").end()
    tw.flush()
    assert tw.dropped == 2


def test_an_item_that_is_to_be_sent_later_is_sent_again_alone(
    tw: Traceway, collector: Collector
) -> None:
    def later_second(received: Received) -> Reply:
        results: list[object] = [{"status": 201} for _ in received.items]
        results[1] = {"status": 503, "error": {"code": "stopping", "message": "later"}}
        return 200, {}, json.dumps({"results": results}).encode()

    collector.script.append(later_second)
    spans_of(tw, 3)
    assert tw.flush()
    assert names(collector) == ["s0"]
    assert tw.dropped == 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_the_server_refuses_is_dropped_counted_and_said_once(
    tw: Traceway, collector: Collector, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    collector.script += [refuse(status)] * 2
    with caplog.at_level(logging.WARNING, "traceway"):
        for _ in range(2):
            tw.trace("t").end()
            assert tw.flush()
    assert tw.dropped == 4
    assert len(caplog.records) == 1
    assert f"{status} as scripted" in caplog.text
    tw.trace("after").end()
    tw.flush()
    assert len(collector.of("trace")) == 1


def test_a_request_that_is_too_large_goes_in_parts(tw: Traceway, collector: Collector) -> None:
    def too_large(received: Received) -> Reply:
        if len(received.items) > 2:
            collector.script.insert(0, too_large)
            return refuse(413)(received)
        collector.script.insert(0, too_large)
        return collector.take(received)

    collector.script.append(too_large)
    spans_of(tw, 9)
    assert tw.flush()
    assert names(collector) == [f"s{n}" for n in range(9)]
    assert tw.dropped == 0


def test_an_answer_without_sense_is_not_taken_for_a_good_one(
    tw: Traceway, collector: Collector
) -> None:
    collector.script += [lambda _: (200, {}, b"<html>Welcome!</html>")] * 2
    spans_of(tw, 1)
    assert tw.flush()
    assert names(collector) == ["s0"]


def test_a_server_that_never_makes_sense_does_not_hold_up_what_follows(
    tw: Traceway, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traceway.sender._FIRST_PAUSE_S", 0.001)
    collector.script += [refuse(500)] * 5
    spans_of(tw, 1)
    assert tw.flush()
    assert tw.dropped == 2
    spans_of(tw, 1)
    assert tw.flush()
    assert names(collector) == ["s0"]


def test_a_full_queue_drops_the_newest_and_counts_them(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.open.clear()
    with Traceway(collector.url, max_queue_items=1_500) as tw:
        with caplog.at_level(logging.WARNING, "traceway"):
            spans_of(tw, 3_000)
            assert tw.pending == 1_500
            assert tw.dropped == 3_001 - 1_500
            collector.open.set()
            assert tw.flush()
            tw.close()
        assert names(collector) == [f"s{n}" for n in range(1_499)]
        assert "1501 items dropped: 1501 so far for want of room" in caplog.text


def test_a_queue_is_bounded_in_bytes(collector: Collector) -> None:
    collector.open.clear()
    with Traceway(collector.url, max_queue_bytes=1 << 20) as tw:
        spans_of(tw, 50, 100_000)
        assert 5 <= tw.pending <= 11
        assert tw.dropped == 51 - tw.pending
        collector.open.set()
        assert tw.flush()
        assert tw.pending == 0


def test_spans_whose_trace_was_dropped_say_their_session_themselves(collector: Collector) -> None:
    collector.script.append(refuse(400))
    with Traceway(collector.url, flush_interval_s=60) as tw:
        with tw.trace("t", session_id="sess_é", user_id="u"):
            tw.flush()
            tw.span("s").end()
        tw.flush()
    span = collector.spans()["s"]
    assert (span["session_id"], span["user_id"]) == ("sess_é", "u")


def test_a_span_whose_beginning_was_refused_goes_whole(collector: Collector) -> None:
    with Traceway(collector.url, flush_interval_s=60) as tw, tw.trace("t"):
        tw.flush()
        collector.script.append(refuse(400))
        with tw.span("s", input="in"):
            tw.flush()
        tw.flush()
    assert collector.spans()["s"]["status"] == "completed"
    assert collector.spans()["s"]["input"] == "in"


def test_the_application_never_waits_for_the_server(collector: Collector) -> None:
    collector.open.clear()
    with Traceway(collector.url, flush_interval_s=0.001) as tw:
        tw.trace("first").end()
        assert collector.arrived.acquire(timeout=10)
        began = time.thread_time()
        waited = time.monotonic()
        spans_of(tw, 5_000)
        waited = time.monotonic() - waited
        worked = time.thread_time() - began
        collector.open.set()
        assert tw.flush()
    # What is left is other work on the same machine.
    assert waited < worked + 5


def test_a_flush_says_when_it_was_not_in_time(collector: Collector) -> None:
    collector.open.clear()
    with Traceway(collector.url) as tw:
        tw.trace("t").end()
        assert not tw.flush(0.01)
        collector.open.set()
        assert tw.flush()


def test_flush_waits_for_what_came_before_it_alone(tw: Traceway, collector: Collector) -> None:
    stop = threading.Event()

    def write() -> None:
        trace = tw.trace("endless")
        while not stop.wait(0.0001):
            trace.span("s").end()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert tw.flush()
    finally:
        stop.set()
        thread.join()


def test_after_close_all_is_dropped_and_counted(collector: Collector) -> None:
    tw = Traceway(collector.url)
    spans_of(tw, 1)
    assert tw.close()
    assert tw.close()
    spans_of(tw, 1)
    assert tw.dropped == 2
    assert names(collector) == ["s0"]


def test_close_gives_up_on_a_server_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    with collecting() as gone:
        port = gone.port
    tw = Traceway(f"http://127.0.0.1:{port}")
    spans_of(tw, 3)
    with caplog.at_level(logging.WARNING, "traceway"):
        assert not tw.close(0.05)
    assert (tw.dropped, tw.pending) == (4, 0)
    assert "4 items dropped" in caplog.text


def test_many_threads_lose_nothing(tw: Traceway, collector: Collector) -> None:
    threads = [threading.Thread(target=spans_of, args=(tw, 2_000)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tw.flush(30)
    assert len(collector.of("span")) == 16_000
    assert len({span["id"] for span in collector.of("span")}) == 16_000
    assert tw.pending == 0


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://host", "http://[", "http://host:99999"])
def test_a_url_that_is_none_is_said_and_breaks_nothing(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACEWAY_URL", raising=False)
    tw = Traceway(url)
    assert tw.url == "http://127.0.0.1:3000"
    assert (url in caplog.text) or not url


def test_url_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEWAY_URL", "https://traceway.example/base/")
    monkeypatch.setenv("TRACEWAY_API_KEY", "tw_sk_1")
    tw = Traceway()
    assert (tw.url, tw.api_key) == ("https://traceway.example/base", "tw_sk_1")
