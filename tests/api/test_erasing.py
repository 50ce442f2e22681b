"""Orders to erase over HTTP: they are carried out, told of, cancelled; nothing is left behind."""

from typing import Any

import orjson
import pytest

from storage import erasures
from storage.erasures import Order
from storage.fulltext import index
from tests.api.asking import ask, save
from tests.databases import holding
from tests.running import Running
from tests.storage.calls import rows, spoken, start, text_of

CANARY = "canary5c1f"


@pytest.fixture(autouse=True)
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have words read as the calls of these tests write them."""
    for module in ("recorder", "api.eraser", "api.retention", "api.sessions", "api.traces"):
        monkeypatch.setattr(f"proxy.{module}.text_of", text_of)


async def order(tw: Running, **asked: Any) -> Any:
    """Give an order, and what is said of it at once."""
    async with tw.client.post(f"{tw.url}/api/erasures", json=asked) as answer:
        body = orjson.loads(await answer.read())
        assert answer.status == 202, body
        return body


async def ended(tw: Running, number: int) -> Any:
    """Wait for the end of an order."""
    while True:
        found = (await ask(tw, f"/api/erasures/{number}")).body
        if found["ended_at"] is not None:
            return found


async def erased(tw: Running, **asked: Any) -> Any:
    """Have something erased, and give the report."""
    return await ended(tw, (await order(tw, **asked))["id"])


async def say(tw: Running, n: int, asked: str, session: str | None = None, **fields: Any) -> None:
    """Save a call that asks this and is answered with as much."""
    given: dict[str, Any] = {} if session is None else {"session_id": session}
    user = fields.pop("user_id", None)
    begun = start(n, user_id=user, **given)
    await save(tw, spoken(begun, [f"u:{asked}"], [f"a:{asked} too"], **fields))


async def names(tw: Running) -> list[str]:
    found = (await ask(tw, "/api/sessions?limit=1000")).body["sessions"]
    return sorted(session["id"] for session in found)


async def test_a_session_is_erased_with_a_star_or_without_and_others_stay(tw: Running) -> None:
    for n in range(1, 4):
        await say(tw, n, f"words {n}", "s")
    await say(tw, 4, "words 4", "t")
    rows(tw.database, "UPDATE sessions SET starred = 1")
    report = await erased(tw, session="s")
    assert await names(tw) == ["t"]
    assert {
        name: report[name]
        for name in ("state", "found", "done", "sessions", "traces", "spans", "kept_starred")
    } == {
        "state": "done",
        "found": 1,
        "done": 1,
        "sessions": 1,
        "traces": 3,
        "spans": 3,
        "kept_starred": 0,
    }
    assert report["given"] is None
    assert report["content_bytes"] > 0
    assert await tw.findings(text_of) == []


async def test_of_a_user_go_whole_sessions_and_of_shared_ones_the_traces(tw: Running) -> None:
    await say(tw, 1, "one", "own", user_id="u")
    await say(tw, 2, "two", "own")
    await say(tw, 3, "three", "shared", user_id="u")
    await say(tw, 4, "four", "shared", user_id="v")
    await say(tw, 5, "five", user_id="u")
    await say(tw, 6, "six", "starred", user_id="u")
    rows(tw.database, "UPDATE sessions SET starred = 1 WHERE session_id = 'starred'")
    report = await erased(tw, user="u")
    assert await names(tw) == ["shared", "starred"]
    assert (report["sessions"], report["traces"], report["kept_starred"]) == (1, 4, 1)
    assert rows(tw.database, "SELECT user_id FROM spans ORDER BY seq") == [("v",), ("u",)]
    again = await erased(tw, user="u", include_starred=True)
    assert (again["sessions"], again["kept_starred"]) == (1, 0)
    assert rows(tw.database, "SELECT user_id FROM spans") == [("v",)]
    assert await tw.findings(text_of) == []


async def test_a_query_erases_what_it_finds_also_without_a_session(tw: Running) -> None:
    await say(tw, 1, f"{CANARY} one", "a")
    await say(tw, 2, "else", "a")
    await say(tw, 3, "else", "b")
    await say(tw, 4, f"{CANARY} two")
    report = await erased(tw, query=CANARY)
    assert await names(tw) == ["b"]
    assert (report["sessions"], report["traces"], report["spans"]) == (1, 3, 3)


@pytest.mark.sqlite_only("looks at the files")
async def test_only_content_is_forgotten_where_that_is_asked_for(tw: Running) -> None:
    await say(tw, 1, CANARY, "s", input_preview=CANARY, cost_nusd=7)
    await say(tw, 2, "kept", "t")
    report = await erased(tw, session="s", extent="content")
    assert (report["sessions"], report["traces"], report["spans"]) == (1, 1, 1)
    session = (await ask(tw, "/api/sessions/s")).body
    assert (session["cost"], session["trace_count"]) == (7e-9, 1)
    assert session["first_input"] is None
    assert holding(tw.config.database.path, CANARY.encode()) == []
    assert await tw.findings(text_of) == []


CONTENT = {
    "input_preview": CANARY,
    "output_preview": f"{CANARY} out",
    "request_headers": f'[["x-{CANARY}","1"]]',
    "response_headers": f'[["y-{CANARY}","1"]]',
    "state": "failed",
    "error": f"{CANARY} failed",
}


@pytest.mark.sqlite_only("looks at the files")
@pytest.mark.parametrize("how", ["session", "user", "query"])
async def test_a_canary_is_in_no_file_after_an_erasure(tw: Running, how: str) -> None:
    session = f"session-{CANARY}"
    user = f"user-{CANARY}"
    for n in range(1, 30):
        await say(tw, 100 + n, f"{'other words ' * 20} {n}", f"t{n % 7}", user_id="v")
    for n in range(1, 10):
        tools = b'["%b"]' % CANARY.encode() if n % 2 else b'["%b"]' % (CANARY.encode() * 2_000)
        begun = start(n, session_id=session, user_id=user, name=CANARY, query=f"q={CANARY}")
        await save(tw, spoken(begun, [f"u:{CANARY} {n}"], [f"a:{CANARY}"], tools=tools, **CONTENT))
    rows(
        tw.database, "UPDATE spans SET attributes = :a WHERE name = :n", a=CANARY.encode(), n=CANARY
    )
    rows(tw.database, "UPDATE sessions SET name = :n WHERE session_id = :s", n=CANARY, s=session)
    await tw.server.recorder.write(lambda tx: index(tx, 1_000, text_of))
    assert holding(tw.config.database.path, CANARY.encode()) != []
    given = {"session": session, "user": user, "query": CANARY}[how]
    report = await erased(tw, **{how: given})
    assert report["spans"] == 9
    assert holding(tw.config.database.path, CANARY.encode()) == []
    assert await tw.findings(text_of) == []


async def test_a_large_session_is_deleted_by_an_order(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.api.sessions.LARGE_TRACES", 2)
    for n in (1, 2, 3):
        await say(tw, n, f"words {n}", "s")
    await say(tw, 4, "words", "small")
    small = await ask(tw, "/api/sessions/small", "DELETE")
    assert (small.status, small.body["traces"]) == (200, 1)
    large = await ask(tw, "/api/sessions/s", "DELETE")
    assert (large.status, large.body["kind"]) == (202, "session")
    assert (await ended(tw, large.body["id"]))["traces"] == 3
    assert await names(tw) == []


async def test_a_large_trace_is_deleted_by_an_order_also_out_of_a_session_with_a_star(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.api.traces.LARGE_SPANS", 2)
    for n in (1, 2, 3):
        begun = start(n, trace=1, session_id="s")
        await save(tw, spoken(begun, [f"u:words {n}"], [f"a:{n}"]))
    await say(tw, 4, "small", "s")
    await say(tw, 5, "stays", "s")
    rows(tw.database, "UPDATE sessions SET starred = 1")
    small = await ask(tw, f"/api/traces/{4:032x}", "DELETE")
    assert (small.status, small.body["spans"]) == (200, 1)
    large = await ask(tw, f"/api/traces/{1:032x}", "DELETE")
    assert (large.status, large.body["kind"], large.body["given"]) == (202, "trace", f"{1:032x}")
    report = await ended(tw, large.body["id"])
    assert (report["state"], report["given"], report["kept_starred"]) == ("done", None, 0)
    assert (report["found"], report["traces"], report["spans"]) == (1, 1, 3)
    assert (await ask(tw, f"/api/traces/{1:032x}")).error == (404, "not_found")
    session = (await ask(tw, "/api/sessions/s")).body
    assert [trace["name"] for trace in session["traces"]] == ["call 5"]
    assert await tw.findings(text_of) == []


@pytest.mark.sqlite_only("PostgreSQL lets a message go without reading it")
@pytest.mark.parametrize("path", ["/api/sessions/s", f"/api/traces/{1:032x}"])
async def test_a_deletion_that_meets_damage_is_refused_at_once_and_says_what_to_do(
    tw: Running, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    await say(tw, 1, "words " * 2_000, "s")
    await tw.server.recorder.write(lambda tx: index(tx, 1_000, text_of))
    rows(tw.database, "UPDATE contents SET data = :d WHERE size > 9000", d=b"damaged")
    reply = await ask(tw, path, "DELETE")
    assert reply.error == (503, "storage_unavailable")
    message = reply.body["error"]["message"]
    assert "a stored body does not unpack" in message
    assert "traceway doctor" in message
    assert "try again" not in message
    assert tw.server.recorder.losses.counters.failed_commits == 1
    assert "recording waits" not in caplog.text
    assert (await ask(tw, "/api/sessions/s")).body["trace_count"] == 1


async def test_an_order_that_is_cancelled_erases_no_more_and_cleans_up(tw: Running) -> None:
    await say(tw, 1, "one", "s")
    asked = await order(tw, session="s")
    cancelled = await ask(tw, f"/api/erasures/{asked['id']}", "DELETE")
    assert cancelled.status == 200
    found = await ended(tw, asked["id"])
    assert found["state"] in ("cancelled", "done")  # it may have been too late
    assert found["given"] is None
    assert rows(tw.database, "SELECT COUNT(*) FROM erasure_targets") == [(0,)]
    assert (await ask(tw, "/api/erasures")).body["count"] == 1
    for method in ("GET", "DELETE"):
        assert (await ask(tw, "/api/erasures/77", method)).error == (404, "not_found")


async def test_a_query_that_excludes_a_word_of_too_many_messages_is_refused(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.fulltext.MAX_HITS", 2)
    for n in range(1, 4):
        await say(tw, n, f"contract {n}", f"s{n}")
    await tw.server.recorder.write(lambda tx: index(tx, 1_000, text_of))
    async with tw.client.post(f"{tw.url}/api/erasures", json={"query": "-contract"}) as answer:
        assert answer.status == 400
        assert "too common" in (await answer.text())
    assert len(await names(tw)) == 3


async def test_an_order_whose_newest_hits_are_all_kept_says_that_it_is_incomplete(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.fulltext.MAX_HITS", 4)
    for n in range(1, 7):
        await say(tw, n, f"alpha {n}", f"s{n}")
    rows(tw.database, "UPDATE sessions SET starred = 1 WHERE session_id IN ('s5', 's6')")
    report = await erased(tw, query="alpha")
    assert (report["state"], report["kept_starred"]) == ("incomplete", 2)
    assert "older ones may be left" in report["reason"]
    assert report["given"] is None
    assert await tw.findings(text_of) == []


async def test_an_order_whose_query_this_version_does_not_understand_fails_and_says_so(
    tw: Running,
) -> None:
    await say(tw, 1, "one", "s")
    asked = await tw.server.recorder.write(
        lambda tx: erasures.ask(tx, 1, Order(kind="query", given="cost:x"), 5), (1,)
    )
    tw.server.eraser.wake()
    report = await ended(tw, asked.id)
    assert (report["state"], report["found"], report["given"]) == ("failed", 0, None)
    assert "does not understand the query" in report["reason"]
    assert await names(tw) == ["s"]


async def test_a_session_that_is_not_there_is_none_and_its_id_is_read_as_calls_say_it(
    tw: Running,
) -> None:
    await say(tw, 1, "one", "s")
    async with tw.client.post(f"{tw.url}/api/erasures", json={"session": "typo"}) as answer:
        assert (answer.status, answer.headers["X-Traceway-Error"]) == (404, "not_found")
    assert (await ask(tw, "/api/erasures")).body["count"] == 0
    assert (await erased(tw, session=" s "))["sessions"] == 1


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"session": "s", "user": "u"},
        {"query": "cost:x"},
        {"query": " "},
        {"session": ""},
        {"session": "s", "extent": "half"},
        {"session": "s", "more": 1},
    ],
)
async def test_what_is_no_order_is_refused(tw: Running, asked: Any) -> None:
    async with tw.client.post(f"{tw.url}/api/erasures", json=asked) as answer:
        assert answer.status == 400
        assert answer.headers["X-Traceway-Error"] == "bad_parameter"
    assert (await ask(tw, "/api/erasures")).body["count"] == 0
