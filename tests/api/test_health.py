"""Health, liveness, readiness and totals over HTTP."""

import pytest

from storage.database import DatabaseLocked
from tests.api.asking import ask, save
from tests.calling import ANSWER
from tests.conftest import Serve
from tests.running import Running
from tests.storage.calls import body, end, start, unknown_usage
from tests.wire import Peer, ScriptedUpstream


async def test_a_server_that_records_all_is_healthy(tw: Running) -> None:
    health = (await ask(tw, "/api/health")).body
    assert (health["status"], health["reasons"], health["durability"]) == ("ok", [], "safe")
    assert (health["calls_in_flight"], health["queued_bytes"], health["held_bytes"]) == (0, 0, 0)
    assert health["limit_bytes"] == 64 * 1024 * 1024
    assert set(health["counters"].values()) == {0}


@pytest.mark.sqlite_only("looks at the file")
async def test_health_is_degraded_while_the_database_is_gone_and_calls_go_on(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(b"{}")
    path = tw.config.database.path
    away = path.rename(f"{path}.away")

    assert (await tw.raw(body=b"{}")).status == 200

    health = (await ask(tw, "/api/health")).body
    assert health["status"] == "degraded"
    assert "was deleted or replaced" in health["reasons"][0]
    assert health["counters"]["failed_commits"] > 0

    away.rename(path)
    await tw.saved()

    assert (await ask(tw, "/api/health")).body["status"] == "ok"
    assert (await tw.span())["status"] == "completed"


async def test_health_counts_the_calls_in_flight(tw: Running, upstream: ScriptedUpstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        seen.append((await ask(tw, "/api/health")).body["calls_in_flight"])
        await peer.respond(b"{}")

    seen: list[int] = []
    upstream.script = script
    await tw.raw(body=b"{}")
    assert seen == [1]


async def test_a_live_server_says_so(tw: Running) -> None:
    assert (await ask(tw, "/api/live")).body == {"status": "ok"}


async def test_a_server_is_ready_while_its_database_can_be_read(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await ask(tw, "/api/ready")).body == {"status": "ok"}

    async def locked(*_: object) -> None:
        raise DatabaseLocked("traceway.db", None)

    monkeypatch.setattr(tw.database, "read", locked)
    unready = await ask(tw, "/api/ready")

    assert (unready.status, unready.body["status"]) == (503, "unavailable")
    assert "another program has locked the database" in unready.body["reasons"][0]


@pytest.mark.sqlite_only("looks at the file")
async def test_a_strict_server_is_not_ready_while_it_cannot_record(
    serve: Serve, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.waits.STRICT_WAIT_S", 0.05)
    tw = await serve({"recording.durability": "strict"})
    path = tw.config.database.path
    away = path.rename(f"{path}.away")

    assert (await tw.raw(body=b"{}")).status == 503

    unready = await ask(tw, "/api/ready")
    assert (unready.status, upstream.connections) == (503, 0)
    assert "was deleted or replaced" in unready.body["reasons"][0]

    away.rename(path)
    await tw.saved()
    assert (await ask(tw, "/api/ready")).status == 200


async def test_totals_are_the_sums_over_all_calls(tw: Running) -> None:
    shared = body(b"x" * 100)
    await save(
        tw,
        end(start(1, session_id="s"), request=shared, response=body(b"y" * 10)),
        unknown_usage(end(start(2), request=shared)),
        end(start(3), usage_source="estimated"),
        start(4),
    )
    assert (await ask(tw, "/api/stats")).body == {
        "session_count": 1,
        "trace_count": 4,
        "span_count": 4,
        "running_span_count": 1,
        "input_tokens": 20,
        "output_tokens": 10,
        "total_tokens": 30,
        "cost": 2e-7,
        "unpriced_count": 1,
        "estimated_count": 1,
        "sent_bytes": 210,
        "stored_bytes": 110,
    }


async def test_totals_of_nothing_know_no_tokens_and_no_cost(tw: Running) -> None:
    stats = (await ask(tw, "/api/stats")).body
    assert (stats["span_count"], stats["running_span_count"]) == (0, 0)
    assert (stats["input_tokens"], stats["total_tokens"], stats["cost"]) == (None, None, None)


@pytest.mark.sqlite_only("looks at the file")
async def test_prometheus_reads_what_health_says_and_how_calls_ended(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    upstream.answers(ANSWER)
    await tw.raw(body=b'{"model":"gpt-4o-mini","messages":[]}')
    await tw.ended()
    async with tw.client.get(tw.url + "/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await answer.text()
    assert 'traceway_calls_total{state="completed",upstream="openai"} 1.0' in text
    assert 'traceway_added_seconds_count{upstream="openai"} 1.0' in text
    assert "traceway_dropped_records_total 0.0" in text
    assert "traceway_wal_bytes " in text
