"""Sessions over HTTP: their order, their pages, their ids, their figures, their deletion."""

from typing import Any
from urllib.parse import quote

import orjson
import pytest

from storage.records import CANCELLED, FAILED, TRUNCATED, Page, Session, Tokens
from tests.api.asking import ask, pages, save
from tests.running import Running
from tests.storage.calls import body, end, start, unknown_usage
from tests.wire import ScriptedUpstream

IDS = [
    "user_123:conv_456",
    "with space",
    "a/b",
    "a%2Fb",
    "100%",
    "%41",
    "%",
    "_",
    "{x}",
    "{}",
    "'; DROP TABLE sessions; --",
    '"quoted"',
    "a?b#c&d=e",
    "a\\b",
    "héllo 日本 🚀",
    "a" * 1024,
]


async def listed(tw: Running, query: str = "") -> list[str]:
    reply = await ask(tw, f"/api/sessions{query}")
    assert reply.body["count"] == len(reply.body["sessions"])
    return [session["id"] for session in reply.body["sessions"]]


async def test_the_most_recently_active_session_comes_first(tw: Running) -> None:
    await save(tw, end(start(1, session_id="a")), end(start(2, session_id="b")))
    assert await listed(tw) == ["b", "a"]

    await save(tw, start(3, session_id="a"))

    assert await listed(tw) == ["a", "b"]


@pytest.mark.parametrize("limit", [1, 3, 7, 20, 1000])
async def test_pages_of_any_size_hold_each_session_once_in_their_order(
    tw: Running, limit: int
) -> None:
    # Ten of them began in the same microsecond: the order of arrival decides.
    starts = [start(n, session_id=f"s{n}", started_at_us=n // 10) for n in range(20)]
    await save(tw, *starts)

    found = [page async for page in pages(tw, f"/api/sessions?limit={limit}", "sessions")]

    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert [s["id"] for page in found for s in page] == [f"s{n}" for n in reversed(range(20))]


async def test_a_reader_of_pages_meets_each_session_once_while_others_arrive(tw: Running) -> None:
    await save(tw, *(start(n, session_id=f"s{n}") for n in range(9)))
    met = []
    arrived = 100
    async for page in pages(tw, "/api/sessions?limit=2", "sessions"):
        met += [session["id"] for session in page]
        arrived += 1
        await save(tw, start(arrived, session_id=f"new {arrived}"))
        await save(tw, start(arrived + 1000, session_id=met[0]))  # one that was met moves ahead
    assert met == [f"s{n}" for n in reversed(range(9))]


async def test_a_list_without_a_limit_has_fifty(tw: Running) -> None:
    await save(tw, *(start(n, session_id=f"s{n}") for n in range(51)))
    assert len(await listed(tw)) == 50


async def test_no_sessions_are_an_empty_page(tw: Running) -> None:
    assert (await ask(tw, "/api/sessions")).body == {"sessions": [], "count": 0}


@pytest.mark.parametrize("session_id", IDS)
async def test_a_session_is_found_by_the_id_that_the_client_sent(
    tw: Running, upstream: ScriptedUpstream, session_id: str
) -> None:
    upstream.answers(b"{}")
    await save(tw, end(start(1, session_id="another")))

    await tw.raw(headers=b"X-Traceway-Session-Id: " + session_id.encode() + b"\r\n", body=b"{}")
    await tw.saved()

    assert session_id in await listed(tw)
    encoded = quote(session_id, safe="")
    for path in (f"/api/sessions/{encoded}", f"/api/sessions/by-id?id={encoded}"):
        found = (await ask(tw, path)).body
        assert (found["id"], found["trace_count"]) == (session_id, 1)
        assert [trace["session_id"] for trace in found["traces"]] == [session_id]


@pytest.mark.parametrize("session_id", [".", "..", "by-id"])
async def test_an_id_that_no_path_can_carry_is_found_by_the_query(
    tw: Running, session_id: str
) -> None:
    await save(tw, end(start(1, session_id=session_id)))
    assert (await ask(tw, f"/api/sessions/by-id?id={session_id}")).body["id"] == session_id


@pytest.mark.parametrize("path", ["/api/sessions/no", "/api/sessions/by-id?id=no"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_session_that_is_not_there_is_404(tw: Running, path: str, method: str) -> None:
    await save(tw, end(start(1, session_id="nobody"), request=body(b"q")))
    assert (await ask(tw, path, method)).error == (404, "not_found")
    assert (await ask(tw, "/api/stats")).body["span_count"] == 1


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_asking_by_id_without_an_id_is_a_mistake(tw: Running, method: str) -> None:
    assert (await ask(tw, "/api/sessions/by-id", method)).error == (400, "bad_parameter")


async def test_a_session_holds_its_traces_oldest_first_and_goes_on_behind_a_cursor(
    tw: Running,
) -> None:
    calls = [end(start(n, session_id="s", started_at_us=n // 3)) for n in range(1, 11)]
    await save(tw, *calls, end(start(50, session_id="t")))

    whole = (await ask(tw, "/api/sessions/s")).body
    paged = [page async for page in pages(tw, "/api/sessions/s?limit=4", "traces")]

    assert "cursor" not in whole
    assert [trace["name"] for trace in whole["traces"]] == [f"call {n}" for n in range(1, 11)]
    assert [len(page) for page in paged] == [4, 4, 2]
    assert [trace for page in paged for trace in page] == whole["traces"]


async def test_every_figure_of_a_session_is_that_of_its_spans(tw: Running) -> None:
    failed = end(start(3, session_id="s"), state=FAILED, error="no", http_status=500)
    await save(
        tw,
        end(start(1, session_id="s"), tokens=Tokens(input=100, output=7, cached_input=64)),
        unknown_usage(end(start(2, session_id="s"), model="mystery")),
        unknown_usage(failed),
        end(start(4, session_id="s"), state=CANCELLED, usage_source="estimated"),
        end(start(5, session_id="s"), state=TRUNCATED, tokens=Tokens(input=1, reasoning=3)),
        end(start(60, session_id="s", trace=5)),
        start(7, session_id="s"),
        end(start(8, session_id="other")),
    )

    session = (await ask(tw, "/api/sessions/s")).body
    traces = session.pop("traces")
    spans = [
        span for t in traces for span in (await ask(tw, f"/api/traces/{t['id']}")).body["spans"]
    ]

    assert {name: session[name] for name in recomputed(traces, spans)} == recomputed(traces, spans)
    assert session["status"] == "running"
    assert [trace["status"] for trace in traces] == [
        *("completed", "completed", "failed", "cancelled", "failed", "running"),
    ]


def recomputed(traces: list[Any], spans: list[Any]) -> dict[str, object]:
    def total(bucket: str) -> Any:
        known = [n for span in spans if (n := span["kind"][bucket]) is not None]
        return sum(known) if known else None

    def count(key: str, value: str) -> int:
        return sum(span["kind"][key] == value for span in spans)

    durations = [t["duration_ms"] for t in traces if t["duration_ms"] is not None]
    failures = sum(trace["status"] == "failed" for trace in traces)
    return {
        "trace_count": len(traces),
        "span_count": len(spans),
        "input_tokens": total("input_tokens"),
        "output_tokens": total("output_tokens"),
        "total_tokens": total("input_tokens") + total("output_tokens"),
        "cached_input_tokens": total("cached_input_tokens"),
        "reasoning_tokens": total("reasoning_tokens"),
        "cost": pytest.approx(total("cost"), abs=1e-12),
        "unpriced_count": count("cost_status", "unpriced"),
        "estimated_count": count("usage_source", "estimated"),
        "failed_trace_count": failures,
        "error_rate": failures / len(traces),
        "started_at": min(span["started_at"] for span in spans),
        "ended_at": max(span["ended_at"] for span in spans if span["ended_at"]),
        "last_active_at": max(trace["started_at"] for trace in traces),
        "avg_latency_ms": sum(durations) / len(durations),
        "models": sorted({m for span in spans if (m := span["kind"]["model"]) is not None}),
    }


async def test_what_no_call_reported_is_null_and_not_zero(tw: Running) -> None:
    await save(tw, unknown_usage(end(start(1, session_id="s"))), start(2, session_id="r"))

    ended = (await ask(tw, "/api/sessions/s")).body
    running = (await ask(tw, "/api/sessions/r")).body
    for session in (ended, running):
        for name in ("input_tokens", "output_tokens", "total_tokens", "cost"):
            assert session[name] is None
    assert (ended["unpriced_count"], running["unpriced_count"]) == (1, 0)
    assert [running[name] for name in ("ended_at", "duration_ms", "avg_latency_ms")] == [None] * 3


async def chat(tw: Running, session_id: str, *said: str) -> None:
    messages = [{"role": "user", "content": text} for text in said]
    headers = b"Content-Type: application/json\r\nX-Traceway-Session-Id: %b\r\n"
    body = orjson.dumps({"model": "gpt-5", "messages": messages})
    await tw.raw(headers=headers % session_id.encode(), body=body)
    await tw.saved()


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("weather", ["b", "a"]),
        ("WEATHER zürich", ["a"]),
        ('"weather in"', ["a"]),
        ('"in weather"', []),
        ("zurich tomorrow", ["a"]),  # of two messages; an accent does not count
        ('"zürich tomorrow"', []),
        ("fine", ["b", "a"]),  # in the answers
        ('"; DROP TABLE" OR * NEAR( ^', []),
        ("nowhere", []),
        ("", ["b", "a"]),
    ],
)
async def test_sessions_are_found_by_the_words_of_their_messages(
    tw: Running, upstream: ScriptedUpstream, q: str, found: list[str]
) -> None:
    message = {"role": "assistant", "content": "It is fine."}
    upstream.answers(orjson.dumps({"choices": [{"index": 0, "message": message}]}))
    await chat(tw, "a", "What is the weather in Zürich?")
    await chat(tw, "a", "What is the weather in Zürich?", "And tomorrow?")
    await chat(tw, "b", "Good weather?")
    assert await listed(tw, f"?q={quote(q)}") == found


async def test_a_search_goes_on_behind_its_cursor(tw: Running, upstream: ScriptedUpstream) -> None:
    upstream.answers(b"{}")
    for n in range(5):
        await chat(tw, f"s{n}", "the same words")
        await chat(tw, f"t{n}", "others")
    found = [page async for page in pages(tw, "/api/sessions?q=words&limit=2", "sessions")]
    assert [[s["id"] for s in page] for page in found] == [["s4", "s3"], ["s2", "s1"], ["s0"]]


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("session:sess_abc123", ["sess_abc123"]),
        ("session:sess*", ["sess_def", "sess_abc123"]),
        ("cost:>0.50", ["sess_abc123"]),
        ("-cost:>0.50", ["other", "sess_def"]),
        ("tokens:>10000", ["sess_def"]),
        ("tokens:>10k status:completed", ["sess_def"]),
        ("status:failed", ["other"]),
        ("since:5m", []),
    ],
)
async def test_sessions_are_found_by_what_they_are(tw: Running, q: str, found: list[str]) -> None:
    await save(
        tw,
        end(start(1, session_id="sess_abc123"), cost_nusd=500_000_001),
        end(start(2, session_id="sess_def"), tokens=Tokens(input=10_000, output=1)),
        end(start(3, session_id="other"), state=FAILED),
    )
    assert await listed(tw, f"?q={quote(q)}") == found


async def test_a_query_that_is_none_says_where_and_what_was_expected(tw: Running) -> None:
    for path in ("/api/sessions", "/api/traces", "/api/spans", "/api/sessions/totals"):
        reply = await ask(tw, f"{path}?q=weather%20modell:gpt-5")
        assert reply.error == (400, "bad_parameter")
        error = reply.body["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", "q")
        assert error["message"].startswith("q, position 8: expected one of the keys session, ")


async def test_sessions_are_sorted_by_any_of_their_figures_page_by_page(tw: Running) -> None:
    costs = [5, 3, 9, 3, 7]
    calls = [end(start(n, session_id=f"s{n}"), cost_nusd=c) for n, c in enumerate(costs)]
    await save(tw, *calls, unknown_usage(end(start(9, session_id="unknown"))))
    path = "/api/sessions?sort_by=cost&limit=2"
    down = [s["id"] async for page in pages(tw, path, "sessions") for s in page]
    assert down == ["s2", "s4", "s0", "s3", "s1", "unknown"]
    up = [s["id"] async for page in pages(tw, f"{path}&sort_order=asc", "sessions") for s in page]
    assert up == down[::-1]


async def test_a_cursor_goes_on_with_its_own_list_only(tw: Running) -> None:
    await save(tw, *(start(n, session_id=f"s{n}") for n in range(3)))
    cursor = (await ask(tw, "/api/sessions?limit=1")).body["cursor"]
    for path in (
        *("/api/sessions?sort_by=cost", "/api/sessions?sort_order=asc", "/api/sessions?q=a"),
        *("/api/traces?", "/api/spans?", "/api/sessions/s1?"),
    ):
        reply = await ask(tw, f"{path}&limit=1&cursor={cursor}")
        assert reply.error == (400, "bad_parameter"), path
        assert reply.body["error"]["param"] == "cursor"


async def test_a_search_that_did_not_look_at_everything_says_so(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def list_sessions(*_: object, **__: object) -> Page[Session]:
        return Page((), None, truncated=True)

    assert "truncated" not in (await ask(tw, "/api/sessions")).body
    monkeypatch.setattr("storage.listing.list_sessions", list_sessions)
    assert (await ask(tw, "/api/sessions?q=the")).body == {
        "sessions": [],
        "count": 0,
        "truncated": True,
    }


async def test_the_totals_of_a_filter_are_the_sums_of_its_pages(tw: Running) -> None:
    await save(
        tw,
        end(start(1, session_id="a"), tokens=Tokens(input=100, output=7)),
        unknown_usage(end(start(2, session_id="a"), state=FAILED)),
        end(start(3, session_id="b"), usage_source="estimated", cost_nusd=2_000_000_000),
        end(start(4)),
    )
    for q in ("", "cost:>1", "session:a", "session:nobody"):
        found = (await ask(tw, f"/api/sessions?q={q}")).body["sessions"]
        sums = (await ask(tw, f"/api/sessions/totals?q={q}")).body
        assert sums["session_count"] == len(found)
        for name in ("trace_count", "span_count", "failed_trace_count", "unpriced_count"):
            assert sums[name] == sum(session[name] for session in found)
        for name in ("input_tokens", "output_tokens", "total_tokens", "cost"):
            known = [session[name] for session in found if session[name] is not None]
            assert sums[name] == (pytest.approx(sum(known)) if known else None)
        assert sums["truncated"] is False
    assert sums["error_rate"] is None
    assert (await ask(tw, "/api/traces/totals")).body["trace_count"] == 4
    assert (await ask(tw, "/api/sessions/totals")).body["error_rate"] == pytest.approx(1 / 3)


async def test_a_session_shows_what_was_sent_and_what_of_it_is_stored(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    said = [f"{n}: {'word ' * 200}" for n in range(20)]
    for n in range(20):
        await chat(tw, "s", *said[: n + 1])
    session = (await ask(tw, "/api/sessions/s")).body
    spans = [
        body
        for span in await tw.spans()
        for body in (span["metadata"]["request"], span["metadata"]["response"])
    ]
    assert session["sent_bytes"] == sum(body["size"] for body in spans)
    unique = sum(map(len, said))
    assert unique / 20 < session["stored_bytes"] < 1.5 * unique < session["sent_bytes"] / 5
    for name in ("sent_bytes", "stored_bytes"):
        assert session[name] == sum(trace[name] for trace in session["traces"])
    stats = (await ask(tw, "/api/stats")).body
    assert stats["sent_bytes"] == session["sent_bytes"]
    assert 0 < stats["stored_bytes"] <= session["stored_bytes"]


async def test_a_deleted_session_is_gone_with_all_that_only_it_held(tw: Running) -> None:
    shared = body(b"shared")
    await save(
        tw,
        end(start(1, session_id="a/b"), request=shared, response=body(b"its own")),
        end(start(2, session_id="a/b")),
        end(start(3, session_id="other"), request=shared),
        start(4),
    )

    deleted = await ask(tw, "/api/sessions/a%2Fb", "DELETE")

    assert deleted.body == {"traces": 2, "spans": 2, "contents": 1, "content_bytes": 7}
    for method in ("GET", "DELETE"):
        assert (await ask(tw, "/api/sessions/a%2Fb", method)).error == (404, "not_found")
    for gone in (f"/api/traces/{1:032x}", f"/api/traces/{2:032x}", f"/api/spans/{1:016x}"):
        assert (await ask(tw, gone)).error == (404, "not_found")
    assert await listed(tw) == ["other"]
    stats = (await ask(tw, "/api/stats")).body
    assert (stats["session_count"], stats["trace_count"], stats["span_count"]) == (1, 2, 2)
    assert (stats["input_tokens"], stats["output_tokens"], stats["stored_bytes"]) == (10, 5, 6)


async def test_a_session_is_deleted_by_its_id_in_the_query_too(tw: Running) -> None:
    await save(tw, end(start(1, session_id="..")))
    assert (await ask(tw, "/api/sessions/by-id?id=..", "DELETE")).body["traces"] == 1
    assert await listed(tw) == []


async def test_what_is_called_as_the_totals_are_is_deleted_by_its_own_address_only(
    tw: Running,
) -> None:
    await save(tw, end(start(1, session_id="totals")), end(start(2, session_id="s")))

    for path in ("/api/sessions/totals", "/api/traces/totals"):
        reply = await ask(tw, path, "DELETE")
        assert reply.error == (405, "method_not_allowed")
        assert reply.headers["Allow"] == "GET, HEAD"
    assert (await ask(tw, "/api/sessions/by-id?id=totals", "DELETE")).status == 200
    assert (await ask(tw, "/api/sessions")).body["count"] == 1
