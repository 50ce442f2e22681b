"""Traces and spans over HTTP: order, pages, spans with their bodies, deletion."""

import gzip
import threading
from typing import Any

import orjson
import pytest

from proxy.api import span_views
from storage import packed_spans
from storage.handed import Said
from storage.intake import take
from storage.records import CANCELLED, FAILED
from tests.api.asking import ask, damage, pages, save
from tests.running import Running
from tests.storage.calls import body, end, span_id, start
from tests.storage.handing import NOW_US, Words, begun, done
from tests.wire import ScriptedUpstream


def hex_trace(n: int) -> str:
    return f"{n:032x}"


async def listed(tw: Running, query: str = "") -> list[str]:
    reply = await ask(tw, f"/api/traces{query}")
    assert reply.body["count"] == len(reply.body["traces"])
    return [trace["name"] for trace in reply.body["traces"]]


async def shown(tw: Running, data: bytes, content_type: str | None, **fields: Any) -> Any:
    """Give a span's output, as its text, for a body that was answered."""
    response = body(data, content_type=content_type, **fields)
    await save(tw, end(start(1), response=response))
    return (await ask(tw, f"/api/spans/{1:016x}")).body["output"]


async def test_the_newest_trace_comes_first(tw: Running) -> None:
    await save(tw, start(2), start(3), start(1))
    assert await listed(tw) == ["call 3", "call 2", "call 1"]


@pytest.mark.parametrize("limit", [1, 4, 9, 1000])
async def test_pages_hold_each_trace_once_in_their_order(tw: Running, limit: int) -> None:
    await save(tw, *(start(n, started_at_us=n // 5) for n in range(1, 10)))

    found = [page async for page in pages(tw, f"/api/traces?limit={limit}", "traces")]

    assert all(len(page) == limit for page in found[:-1])
    names = [trace["name"] for page in found for trace in page]
    assert names == [f"call {n}" for n in range(9, 0, -1)]


async def test_a_reader_of_pages_meets_each_trace_once_while_others_arrive(tw: Running) -> None:
    await save(tw, *(start(n) for n in range(1, 8)))
    met = []
    async for page in pages(tw, "/api/traces?limit=2", "traces"):
        met += [trace["name"] for trace in page]
        await save(tw, start(100 + len(met)))
    assert met == [f"call {n}" for n in range(7, 0, -1)]


async def test_traces_of_one_session_are_listed_by_its_id(tw: Running) -> None:
    await save(tw, start(1, session_id="a/b"), start(2, session_id="a"), start(3))
    assert await listed(tw, "?session_id=a%2Fb") == ["call 1"]
    assert await listed(tw, "?session_id=none") == []


async def test_traces_and_spans_are_found_by_the_same_language(tw: Running) -> None:
    await save(
        tw,
        end(start(1, session_id="s"), model="gpt-5", cost_nusd=5),
        end(start(2, session_id="s"), model="o4", state=FAILED),
        end(start(3), model="gpt-5"),
    )
    for q, names in (
        ("model:gpt-5", ["call 3", "call 1"]),
        ("session:s%20-status:failed", ["call 1"]),
        ("-session:*", ["call 3"]),
        ("errors:1", ["call 2"]),
    ):
        assert await listed(tw, f"?q={q}") == names
        spans = (await ask(tw, f"/api/spans?q={q}")).body
        assert [span["name"] for span in spans["spans"]] == names
        assert spans["count"] == len(names)
    both = await listed(tw, "?session_id=s&q=model:o4")
    assert both == ["call 2"]


async def test_those_of_some_ids_are_listed_that_fulfil_the_query(tw: Running) -> None:
    await save(tw, *(end(start(n), cost_nusd=n) for n in range(1, 5)), start(5), start(6))
    for rows, digits in (("traces", 32), ("spans", 16)):
        ids = ",".join(f"{n:0{digits}x}" for n in (5, 3, 2, 77))
        for q, names in (
            ("", ["call 5", "call 3", "call 2"]),
            ("cost:>0.000000002", ["call 3"]),
            ("status:running", ["call 5"]),
            ("cost:4", []),
        ):
            found = (await ask(tw, f"/api/{rows}?q={q}&id={ids}")).body[rows]
            assert [row["name"] for row in found] == names, (rows, q)
        refused = await ask(tw, f"/api/{rows}?id=x")
        assert refused.error == (400, "bad_parameter")


async def test_the_spans_of_a_list_are_those_of_their_traces_page_by_page(tw: Running) -> None:
    await save(tw, *(end(start(n, trace=n % 3), input_preview="hi") for n in range(1, 8)))
    found = [s async for page in pages(tw, "/api/spans?limit=3", "spans") for s in page]
    assert [span["name"] for span in found] == [f"call {n}" for n in range(7, 0, -1)]
    trace = (await ask(tw, f"/api/traces/{hex_trace(1)}")).body
    assert trace["spans"] == [span for span in reversed(found) if span["trace_id"] == trace["id"]]


@pytest.mark.parametrize(
    "path", [f"/api/traces/{hex_trace(1)}?", f"/api/spans?trace_id={hex_trace(1)}&sort_order=asc"]
)
async def test_spans_that_no_one_answer_holds_come_page_by_page(
    tw: Running, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_spans, "ANSWER_BYTES", 4_000)
    text = f'"{"x" * 1_500}"'
    await save(tw, *(end(start(n, trace=1), request_headers=f"[{text}]") for n in range(1, 6)))
    found = [page async for page in pages(tw, path, "spans")]
    assert [[span["name"] for span in page] for page in found] == [
        ["call 1", "call 2"],
        ["call 3", "call 4"],
        ["call 5"],
    ]
    headers = {len(s["metadata"]["request_headers"][0]) for page in found for s in page}
    assert headers == {1_500}


async def test_a_trace_is_read_on_behind_the_spans_that_are_asked_for(tw: Running) -> None:
    await save(tw, *(end(start(n, trace=1)) for n in range(1, 6)), end(start(9)))
    path = f"/api/traces/{hex_trace(1)}"
    found = [page async for page in pages(tw, f"{path}?limit=2", "spans")]
    assert [len(page) for page in found] == [2, 2, 1]
    whole = (await ask(tw, path)).body
    assert [span for page in found for span in page] == whole["spans"]
    assert "cursor" not in whole
    first = (await ask(tw, f"{path}?limit=2")).body
    assert {**first, "spans": whole["spans"]} == {**whole, "cursor": first["cursor"]}
    for query in ("limit=0", "limit=10001", "cursor=x"):
        refused = await ask(tw, f"{path}?{query}")
        assert refused.error == (400, "bad_parameter")
        assert refused.body["error"]["param"] == query.partition("=")[0]
    of_another = await ask(tw, f"/api/traces/{hex_trace(9)}?cursor={first['cursor']}")
    assert of_another.error == (400, "bad_parameter")


@pytest.mark.parametrize(
    "path", ["/api/spans", f"/api/traces/{hex_trace(1)}", f"/api/spans/{span_id(1).hex()}"]
)
async def test_spans_are_made_into_an_answer_beside_the_event_loop(
    tw: Running, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(tw, end(start(1), request_headers="[]"))
    threads: list[threading.Thread] = []

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return of_view(*given)

    of_view = span_views._attributes  # which each view of a span has read
    monkeypatch.setattr(span_views, "_attributes", noted)
    assert (await ask(tw, path)).status == 200
    assert len(threads) == 1
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("path", ["/api/spans", f"/api/traces/{hex_trace(1)}"])
async def test_what_is_damaged_of_a_span_is_an_error_of_the_database(
    tw: Running, path: str
) -> None:
    await save(tw, end(start(1)))
    await damage(tw, span_id(1))
    assert (await ask(tw, path)).error == (503, "storage_unavailable")


@pytest.mark.parametrize("path", ["/api/spans?limit=1000", f"/api/traces/{hex_trace(1)}?"])
async def test_megabytes_of_attributes_make_no_answer_of_more_than_a_few(
    tw: Running, path: str
) -> None:
    said = Said(attributes=b'{"kind":{"prompt":"%b"}}' % (b"x" * 500_000))
    items = [begun(n, trace=1, said=said, end=done(n)) for n in range(1, 21)]
    await tw.server.recorder.write(lambda tx: take(tx, items, NOW_US, Words()))
    async with tw.client.get(f"{tw.url}{path}") as answer:
        data = await answer.read()
    assert len(data) < 9_000_000
    assert "cursor" in orjson.loads(data)
    found = [span async for page in pages(tw, path, "spans") for span in page]
    assert sorted(span["name"] for span in found) == sorted(f"span {n}" for n in range(1, 21))
    assert {len(span["kind"]["attributes"]["prompt"]) for span in found} == {500_000}


@pytest.mark.parametrize("rows", ["traces", "spans"])
async def test_calls_are_sorted_by_cost_within_a_session_or_since_a_time(
    tw: Running, rows: str
) -> None:
    await save(tw, *(end(start(n, session_id="s"), cost_nusd=9 * n % 7) for n in range(1, 6)))
    for q in ("session:s", "since:2020-01-01"):
        found = (await ask(tw, f"/api/{rows}?sort_by=cost&q={q}")).body[rows]
        assert [row["name"] for row in found] == [f"call {n}" for n in (3, 2, 5, 1, 4)]
    reply = await ask(tw, f"/api/{rows}?sort_by=cost")
    assert reply.error == (400, "bad_parameter")
    assert reply.body["error"]["param"] == "sort_by"
    assert "session:ID" in reply.body["error"]["message"]


async def test_a_trace_shows_its_spans_oldest_first_and_their_sums(tw: Running) -> None:
    await save(
        tw,
        end(start(5, trace=1, session_id="s")),
        end(start(2, trace=1, session_id="s"), input_preview="hi", output_preview="hello"),
    )
    trace = (await ask(tw, f"/api/traces/{hex_trace(1)}")).body

    assert [span["name"] for span in trace["spans"]] == ["call 2", "call 5"]
    assert (trace["spans"][0]["input"], trace["spans"][0]["output"]) == ("hi", "hello")
    assert (trace["id"], trace["session_id"], trace["span_count"]) == (hex_trace(1), "s", 2)
    assert (trace["input_tokens"], trace["output_tokens"], trace["total_tokens"]) == (20, 10, 30)
    assert trace["cost"] == pytest.approx(200e-9, abs=1e-15)
    # From the first start, 2 s after the first moment, to the last end, half a second after 5 s.
    assert trace["started_at"] == "2023-11-14T22:13:22.000000Z"
    assert trace["ended_at"] == "2023-11-14T22:13:25.500000Z"
    assert trace["duration_ms"] == 3500.0


async def test_a_span_that_did_not_complete_says_how_it_ended(tw: Running) -> None:
    await save(
        tw,
        end(start(1), state=FAILED, error="it broke", ended_by="upstream", phase="headers"),
        end(start(2), state=CANCELLED, error="it left", ended_by="client", phase="body"),
        end(start(3)),
        start(4),
    )
    found = [(await ask(tw, f"/api/spans/{n:016x}")).body["status"] for n in range(1, 5)]
    assert found == [
        {"failed": {"error": "it broke", "ended_by": "upstream", "phase": "headers"}},
        {"cancelled": {"error": "it left", "ended_by": "client", "phase": "body"}},
        "completed",
        "running",
    ]


async def test_a_span_shows_the_request_and_the_answer_of_its_call(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    answer = b'{"model": "gpt-4o-mini", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
    upstream.answers(answer, headers=b"X-Request-Id: req_1\r\n")
    await tw.raw(
        headers=b"Content-Type: application/json\r\nAuthorization: Bearer sk-canary-1234567890\r\n",
        body=b'{"model": "gpt-4o-mini", "messages": []}',
    )
    span = await tw.span()

    assert span["input"] == {"model": "gpt-4o-mini", "messages": []}
    assert span["output"] == orjson.loads(answer)
    assert (span["kind"]["type"], span["kind"]["model"]) == ("llm_call", "gpt-4o-mini")
    assert (span["kind"]["input_tokens"], span["kind"]["usage_source"]) == (3, "provider")
    metadata = span["metadata"]
    assert (metadata["method"], metadata["path"]) == ("POST", "/v1/chat/completions")
    assert (metadata["http_status"], metadata["total_tokens"]) == (200, 5)
    assert 0 < metadata["first_byte_ms"] <= metadata["duration_ms"]
    assert metadata["response"]["size"] == len(answer)
    assert ["Authorization", "[redacted]"] in metadata["request_headers"]
    assert ["X-Request-Id", "req_1"] in metadata["response_headers"]


async def test_a_shown_body_keeps_every_digit_as_it_was_sent(tw: Running) -> None:
    data = b'{"big": 18446744073709551617, "exact": 0.10000000000000000555, "twice": 1, "twice": 2}'
    await save(tw, end(start(1), response=body(data, content_type="application/json")))
    async with tw.client.get(f"{tw.url}/api/spans/{1:016x}") as answer:
        assert data in await answer.read()


async def test_a_body_that_is_nested_deeper_than_a_writer_takes_is_shown(tw: Running) -> None:
    data = b"[" * 1000 + b"]" * 1000
    await save(tw, end(start(1), request=body(data, content_type="application/json")))
    async with tw.client.get(f"{tw.url}/api/spans/{1:016x}") as answer:
        assert answer.status == 200
        assert b'"input":' + data in await answer.read()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[" * 5000, b'"\\ud800"', b"NaN", b"\xef\xbb\xbf{}", b'{"a": 1} {}']
)
async def test_a_body_that_is_no_json_though_it_says_so_is_shown_as_text(
    tw: Running, data: bytes
) -> None:
    assert await shown(tw, data, "application/json") == data.decode()


async def test_a_body_that_is_no_text_is_not_shown(tw: Running) -> None:
    assert await shown(tw, b"\xff\xfe\x00", "audio/mpeg") is None


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_compressed_body_is_shown_decoded(tw: Running, size: int) -> None:
    data = orjson.dumps(["x" * size])
    encoded = gzip.compress(data)
    found = await shown(tw, encoded, "application/json", content_encoding="gzip")
    assert found == ["x" * size]


async def test_a_body_that_was_not_kept_is_null_but_its_size_is_known(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b'{"a": 1}')
    await tw.raw(headers=b"X-Traceway-Capture: off\r\n", body=b'{"b": 22}')
    span = await tw.span()
    assert (span["input"], span["output"]) == (None, None)
    assert (span["metadata"]["request"]["size"], span["metadata"]["response"]["size"]) == (9, 8)
    assert span["metadata"]["request"]["stored"] is False


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "trace_id",
    [hex_trace(2), "1", "x" * 32, "A" * 32, hex_trace(1)[:-1], hex_trace(1) + "0", "%D9%A1" * 32],
)
async def test_what_is_not_the_id_of_a_trace_is_404(
    tw: Running, method: str, trace_id: str
) -> None:
    await save(tw, start(1), start(0xAA))
    assert (await ask(tw, f"/api/traces/{trace_id}", method)).error == (404, "not_found")
    assert (await ask(tw, "/api/stats")).body["trace_count"] == 2


@pytest.mark.parametrize("id_text", ["1", "z" * 16, "F" * 16, f"{1:017x}", span_id(9).hex()])
async def test_what_is_not_the_id_of_a_span_is_404(tw: Running, id_text: str) -> None:
    await save(tw, start(1))
    assert (await ask(tw, f"/api/spans/{id_text}")).error == (404, "not_found")


async def test_a_deleted_trace_is_gone_and_out_of_every_sum(tw: Running) -> None:
    await save(
        tw,
        end(start(1, session_id="s"), request=body(b"first")),
        end(start(2, session_id="s"), request=body(b"second")),
        end(start(3, session_id="alone")),
    )
    deleted = await ask(tw, f"/api/traces/{hex_trace(1)}", "DELETE")
    await ask(tw, f"/api/traces/{hex_trace(3)}", "DELETE")

    assert deleted.body == {"traces": 1, "spans": 1, "contents": 1, "content_bytes": 5}
    for method in ("GET", "DELETE"):
        gone = await ask(tw, f"/api/traces/{hex_trace(1)}", method)
        assert gone.error == (404, "not_found")
    session = (await ask(tw, "/api/sessions/s")).body
    assert (session["trace_count"], session["input_tokens"], session["cost"]) == (1, 10, 1e-7)
    assert (await ask(tw, "/api/sessions/alone")).error == (404, "not_found")
    stats = (await ask(tw, "/api/stats")).body
    assert (stats["span_count"], stats["input_tokens"], stats["stored_bytes"]) == (1, 10, 6)
