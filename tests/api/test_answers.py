"""How the API answers: JSON in every case, errors in one shape, and never a 5xx for a question."""

import itertools

import orjson
import pytest

from proxy.api.answers import json_answer, made_answer
from storage.database import DatabaseCorrupt, Params, Row
from tests.api.asking import ask, save
from tests.conftest import Serve
from tests.running import Running
from tests.storage.calls import body, end, start
from tests.wire import Peer, connect

ODD_TEXTS = (
    *("", "%", "%00", "%FF", "%F0%9F%9A%80", "%ED%A0%80", "%2F", "%2e%2e", "..;", "'", '"', "a+b"),
    *("-1", "1e9", "9" * 40, "null", "{}", "[]", "%27%20OR%201=1--", "x" * 5000, "%0d%0aX:%20y"),
)
ODD_QUERIES = (
    *("", "?", "?&&&", "?=", "?limit", "?limit=1&limit=x", "?limit=1;cursor=2", "?%FF=%FF", "??"),
    *(
        f"?{name}={text}"
        for name in ("limit", "cursor", "session_id", "id", "q", "sort_by", "sort_order", "at")
        for text in ODD_TEXTS
    ),
)
PATHS = (
    *("/api/sessions", "/api/traces", "/api/spans", "/api/search/suggest", "/api/sessions/totals"),
    *("/api/traces/totals", "/api/sessions/by-id", "/api/stats", "/api/health"),
    *("/api/live", "/api/ready", "/api", "/nothing", "/api/sessions/", "//api"),
    *("/api/traces/" + "0" * 32, "/api/spans/" + "0" * 16, "/api/proxy", "/api/proxy/"),
    *(f"/api/{rows}/{text}" for rows in ("sessions", "traces", "spans") for text in ODD_TEXTS),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE")


async def asked(peer: Peer, method: str, target: str) -> int:
    """Ask on a connection that stays; give the status of an answer that is as documented."""
    await peer.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = await peer.response(head_only=method == "HEAD")
    assert answer.get(b"Content-Type") == b"application/json"
    assert answer.get(b"Access-Control-Allow-Origin") is None
    if answer.status >= 400:
        assert answer.get(b"X-Traceway-Error"), (method, target)
        if method != "HEAD":
            assert set(orjson.loads(answer.body)["error"]) == {"message", "type", "param", "code"}
    return answer.status


async def test_no_method_path_or_parameter_makes_an_error_of_ours(tw: Running) -> None:
    await save(tw, end(start(1, session_id="s"), request=body(b"q")))
    ways = [
        *itertools.product(METHODS, PATHS, ("", "?limit=x", "?cursor=%FF")),
        *itertools.product(("GET", "DELETE"), PATHS[:7], ODD_QUERIES),
    ]
    seen = set()
    async with connect(tw.port) as peer:
        for method, path, query in ways:
            status = await asked(peer, method, path + query)
            assert status < 500, (method, path, query)
            seen.add(status)
    assert seen == {200, 400, 404, 405}
    assert (await ask(tw, "/api/health")).body["status"] == "ok"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/api/sessions", "GET, HEAD"),
        ("OPTIONS", "/api/sessions/x", "DELETE, GET, HEAD, PATCH"),
        ("PUT", "/api/traces/x", "DELETE, GET, HEAD"),
        ("DELETE", "/api/stats", "GET, HEAD"),
        ("OPTIONS", "/api/health", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_possible_is_answered_with_those_that_are(
    tw: Running, method: str, path: str, allowed: str
) -> None:
    reply = await ask(tw, path, method)
    assert reply.error == (405, "method_not_allowed")
    assert reply.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/api", "/api/nothing", "/api/sessions/a/b"])
async def test_a_path_that_is_not_there_is_404(tw: Running, path: str) -> None:
    assert (await ask(tw, path)).error == (404, "not_found")


async def test_a_head_request_gets_the_head_of_the_answer(tw: Running) -> None:
    whole, head = await ask(tw, "/api/sessions"), await ask(tw, "/api/sessions", "HEAD")
    assert (head.status, head.body) == (200, None)
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]


async def test_an_answer_is_kept_by_no_cache_and_guessed_at_by_no_browser(tw: Running) -> None:
    headers = (await ask(tw, "/api/sessions")).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/sessions?limit=0", "bad_parameter"),
        ("/api/sessions/s?limit=x", "bad_parameter"),
        ("/api/traces?cursor=x", "bad_parameter"),
    ],
)
async def test_a_mistake_in_a_parameter_is_400_and_never_worth_a_retry(
    tw: Running, path: str, code: str
) -> None:
    await save(tw, start(1, session_id="s"))
    reply = await ask(tw, path)
    assert reply.error == (400, code)
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", ["/api/sessions", "/api/sessions/s", "/api/traces", "/api/stats"])
async def test_a_database_that_cannot_be_read_is_503_with_its_remedy(
    tw: Running, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    async def corrupt(*_: object) -> None:
        raise DatabaseCorrupt("traceway.db", "it is damaged")

    monkeypatch.setattr(tw.database, "read", corrupt)
    reply = await ask(tw, path)

    assert reply.error == (503, "storage_unavailable")
    assert "restore a backup" in reply.body["error"]["message"]


@pytest.mark.parametrize("path", ["/api/sessions", "/api/stats", "/sessions", "/traces"])
async def test_a_query_that_takes_too_long_is_ended_and_is_503_with_what_to_do(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    tw = await serve({"database.query_timeout_s": "0.1"})
    endless = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    )
    read = tw.database.read

    async def slow(sql: str, params: Params) -> list[Row]:
        return await read(endless, params)

    with monkeypatch.context() as patch:
        patch.setattr(tw.database, "read", slow)
        async with tw.client.get(tw.url + path) as answer:
            assert answer.status == 503
            text = await answer.text()
        if path.startswith("/api"):
            assert answer.headers["X-Traceway-Error"] == "query_timeout"
        assert "raise query_timeout_s in [database]" in text
    async with tw.client.get(tw.url + path) as answer:
        assert answer.status == 200


async def test_an_answer_that_is_made_is_the_same_as_one_that_is_given() -> None:
    value = {"a": [1, None], "b": "\u00e9"}
    made, given = await made_answer(lambda: value), json_answer(value)
    assert (made.status, made.body) == (given.status, given.body)
    assert made.headers == given.headers
