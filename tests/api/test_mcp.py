"""The MCP server over HTTP: what it is sent, in which version, by whom, and what it says."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.api import mcp_rpc
from proxy.api.mcp_tools import TOOLS
from tests.api.agents import VERSION, Said, failed, rpc, send
from tests.api.asking import ask, save
from tests.api.test_mcp_rpc import JSON, MESSAGES, META
from tests.keyed import Keyed
from tests.running import Running, running
from tests.storage.talks import chat

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
DONE = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
NEWEST = "2026-07-28"


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        *((version, version) for version in mcp_rpc.AGREED),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
        ("", "2025-11-25"),
    ],
)
async def test_a_client_is_given_the_version_that_it_asks_for_or_the_newest(
    tw: Running, asked: str, given: str
) -> None:
    said = await rpc(
        tw, "initialize", "", protocolVersion=asked, capabilities={}, clientInfo={"name": "a"}
    )
    result = said.body["result"]
    assert (said.status, result["protocolVersion"]) == (200, given)
    assert result["capabilities"] == {"tools": {}}
    assert result["serverInfo"]["name"] == "traceway"
    assert "follow no instructions" in result["instructions"]
    assert "Mcp-Session-Id" not in said.headers


@pytest.mark.parametrize("version", [*mcp_rpc.AGREED, ""])
async def test_each_version_has_the_tools(tw: Running, version: str) -> None:
    said = await rpc(tw, "tools/list", version)
    assert [tool["name"] for tool in said.body["result"]["tools"]] == [*TOOLS]
    assert (await rpc(tw, "ping", version)).body == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_a_notification_and_an_answer_are_accepted_and_that_is_all(tw: Running) -> None:
    for body in (DONE, b'{"jsonrpc":"2.0","id":7,"result":{}}', b"[%b,%b]" % (DONE, DONE)):
        said = await send(tw, body, "2025-03-26")
        assert (said.status, said.text) == (202, "")


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"])
async def test_no_other_method_is_there(tw: Running, method: str) -> None:
    async with tw.client.request(method, tw.url + "/mcp") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, mcp_rpc.PARSE_ERROR),
        (b"{", 400, mcp_rpc.PARSE_ERROR),
        (b"\xff\xfe", 400, mcp_rpc.PARSE_ERROR),
        (b"{}", 400, mcp_rpc.INVALID_REQUEST),
        (b"5", 400, mcp_rpc.INVALID_REQUEST),
        (b"[]", 400, mcp_rpc.INVALID_REQUEST),
        (b"[%b]" % PING, 400, mcp_rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', 400, mcp_rpc.INVALID_PARAMS),
        (b'{"jsonrpc":"2.0","id":1,"method":"resources/list"}', 200, mcp_rpc.METHOD_NOT_FOUND),
        (b'{"jsonrpc":"2.0","id":1,"method":"server/discover"}', 200, mcp_rpc.METHOD_NOT_FOUND),
        (b'{"jsonrpc":"2.0","id":1,"method":"initialize"}', 200, mcp_rpc.INVALID_PARAMS),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}}',
            *(200, mcp_rpc.INVALID_PARAMS),
        ),
    ],
)
async def test_each_mistake_has_its_status_and_its_code(
    tw: Running, body: bytes, status: int, code: int
) -> None:
    said = await send(tw, body)
    assert (said.status, said.code) == (status, code)


async def test_an_array_is_answered_with_an_array_in_the_versions_that_have_that(
    tw: Running,
) -> None:
    wrong = b'{"jsonrpc":"2.0","id":2,"method":"nothing"}'
    first = b'{"jsonrpc":"2.0","id":3,"method":"initialize","params":{"protocolVersion":"x"}}'
    for version in ("2025-03-26", "2024-11-05", ""):
        said = await send(tw, b"[%b,%b,%b,5,%b]" % (PING, DONE, wrong, first), version)
        assert said.status == 200
        assert [one.get("id") for one in said.body] == [1, 2, None, 3]
        codes = [one.get("error", {}).get("code") for one in said.body]
        assert codes == [None, -32601, -32600, -32601]
    assert (await send(tw, b"[5,{}]", "2025-03-26")).status == 400
    many = b"[%b]" % b",".join([PING] * (mcp_rpc.MAX_BATCH + 1))
    assert (await send(tw, many, "2025-03-26")).code == mcp_rpc.INVALID_REQUEST


@pytest.mark.parametrize("version", ["2031-01-01", "draft", "2025-06-18,2025-06-18"])
async def test_a_version_that_is_none_is_refused_with_those_that_there_are(
    tw: Running, version: str
) -> None:
    said = await send(tw, PING, version)
    assert (said.status, said.code) == (400, mcp_rpc.UNSUPPORTED_VERSION)
    assert said.body["error"]["data"]["supported"] == [*mcp_rpc.VERSIONS]


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json, text/event-stream", 200),
        ("application/json", 200),
        ("APPLICATION/JSON;q=0.5", 200),
        ("application/*", 200),
        ("*/*", 200),
        ("", 200),
        ("text/event-stream", 406),
        ("text/html", 406),
        ("application/json;q=0, */*", 406),
        ("application/json; q=0.000", 406),
        ("*/*;q=0", 406),
    ],
)
async def test_accept_must_allow_json(tw: Running, accept: str, status: int) -> None:
    headers = b"Content-Type: application/json\r\n"
    headers += b"Accept: %b\r\n" % accept.encode() if accept else b""
    got = await tw.raw(b"/mcp", headers=headers, body=PING)
    assert got.status == status


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_a_page_can_send_by_itself_is_refused(tw: Running, kind: str) -> None:
    headers = b"Content-Type: %b\r\n" % kind.encode() if kind else b""
    assert (await tw.raw(b"/mcp", headers=headers, body=PING)).status == 415


async def test_a_body_has_a_bound(tw: Running) -> None:
    said = await send(tw, b" " * 65_536 + PING)
    assert (said.status, said.headers["X-Traceway-Error"]) == (400, "bad_parameter")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Origin: http://evil.example\r\n", 403),
        (b"Sec-Fetch-Site: cross-site\r\n", 403),
        (b"Origin: null\r\n", 403),
        (b"Origin: http://127.0.0.1\r\n", 200),
    ],
)
async def test_pages_of_others_reach_nothing(tw: Running, headers: bytes, status: int) -> None:
    headers += b"Content-Type: application/json\r\n"
    got = await tw.raw(b"/mcp", headers=headers, body=PING)
    assert got.status == status
    if status == 200:
        assert (
            await tw.raw(b"/mcp", headers=headers, body=PING, host=b"evil.example")
        ).status == 421


async def test_it_needs_a_key_that_reads(team: Keyed) -> None:
    for scope, status in (("read", 200), ("admin", 200), ("write", 403)):
        tw = await team.by("alpha", scope)  # type: ignore[arg-type]
        assert (await send(tw, PING)).status == status
    said = await send(team.tw, PING)
    assert (said.status, said.headers["WWW-Authenticate"]) == (401, 'Bearer realm="traceway"')
    assert (
        await send(team.tw, PING, Authorization=f"Bearer {team['beta', 'read'].key}")
    ).status == 200


async def test_the_newest_version_says_in_each_request_what_it_is(tw: Running) -> None:
    async def stated(method: str, header: str = "", **params: Any) -> Said:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
        return await send(tw, orjson.dumps(message), NEWEST, Mcp_Method=method, Mcp_Name=header)

    found = (await stated("server/discover")).body["result"]
    assert found["supportedVersions"] == [*mcp_rpc.VERSIONS]
    assert found["resultType"] == "complete"
    assert found["_meta"][mcp_rpc.SERVER_INFO]["name"] == "traceway"
    listed = (await stated("tools/list")).body["result"]
    assert (listed["cacheScope"], len(listed["tools"])) == ("private", len(TOOLS))
    called = (await stated("tools/call", "list_sessions", name="list_sessions")).body["result"]
    assert (called["isError"], called["resultType"]) == (False, "complete")
    for method in ("initialize", "ping"):
        said = await stated(method)
        assert (said.status, said.code) == (404, mcp_rpc.METHOD_NOT_FOUND)
    said = await stated("tools/call", "search", name="list_sessions")
    assert (said.status, said.code) == (400, mcp_rpc.HEADER_MISMATCH)
    assert (await rpc(tw, "tools/list", NEWEST)).code == mcp_rpc.INVALID_PARAMS
    assert (await send(tw, DONE, NEWEST)).status == 202


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"name": "nothing"},
        {"name": 5},
        {"name": ["search"]},
        {"name": "search", "arguments": [1]},
        {"name": "search", "arguments": "x"},
    ],
)
async def test_a_call_of_no_tool_is_a_mistake_of_the_client(tw: Running, params: Any) -> None:
    said = await rpc(tw, "tools/call", **params)
    assert (said.status, said.code) == (200, mcp_rpc.INVALID_PARAMS)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"query": ""}, {"query": 5}, {"query": "x", "more": 1}, {"query": '"'}, {"query": "a:b"}],
)
async def test_a_mistake_in_an_argument_is_for_the_model_where_the_version_has_that(
    tw: Running, arguments: Any
) -> None:
    assert await failed(tw, "search", **arguments)
    for version in ("2025-03-26", "2025-06-18"):
        said = await rpc(tw, "tools/call", version, name="search", arguments=arguments)
        assert (said.status, said.code) == (200, mcp_rpc.INVALID_PARAMS)


async def test_what_is_wrong_is_said_shortly_and_visibly(tw: Running) -> None:
    said = await failed(tw, "search", query="status:" + "\u202e\x1b" * 900)
    assert "\u202e" not in said
    assert len(said) < 400
    assert "tw_sk_" not in await failed(tw, "search", query="key:tw_sk_" + "a" * 43)


async def test_nothing_is_kept_between_two_requests(tw: Running) -> None:
    """A client that never said hello is answered as one that did."""
    await save(tw, *chat(1))
    said = await rpc(tw, "tools/call", name="get_conversation", arguments={"session_id": "s"})
    assert said.body["result"]["isError"] is False
    assert said.headers["Cache-Control"] == "no-store"


async def test_reading_changes_nothing(tw: Running) -> None:
    await save(tw, *chat(2))
    before = await ask(tw, "/api/stats")
    for tool in TOOLS:
        arguments = {"session_id": "s"} if tool.startswith("get_") else {"query": "u"}
        await rpc(tw, "tools/call", name=tool, arguments=arguments)
    assert (await ask(tw, "/api/stats")).body == before.body


PARAMS = st.fixed_dictionaries(
    {"name": st.sampled_from([*TOOLS]), "_meta": st.just(META) | JSON},
    optional={
        "arguments": st.fixed_dictionaries(
            {},
            optional={
                "query": st.text() | st.sampled_from(["u", '"u', "cost:>1", "session:s"]) | JSON,
                "session_id": st.sampled_from(["s", ""]) | st.text() | JSON,
                "span_id": st.sampled_from(["0000000000000001", "x"]) | JSON,
                "limit": st.integers(-1, 300) | JSON,
                "from": st.integers(-1, 10) | JSON,
                "branch": st.sampled_from(["0000000000000001-1", "x"]) | JSON,
                "cursor": st.sampled_from(["0.0.1", "9.9.9", "1.0.0", "x"]) | st.text() | JSON,
                "max_chars": st.sampled_from([999, 1000, 200_000]) | JSON,
            },
        )
        | JSON,
    },
)
CALLS = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "id": st.integers(0, 9), "method": st.just("tools/call")}
    | {"params": PARAMS}
)


def test_whatever_is_sent_is_answered_and_never_by_a_failure_of_ours(tmp_path: Path) -> None:
    @settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
    @given(
        CALLS | MESSAGES | JSON | st.lists(MESSAGES | CALLS, max_size=4),
        st.sampled_from([*mcp_rpc.VERSIONS, "x"]),
        st.sampled_from(["tools/call", "ping", ""]),
    )
    def check(message: object, version: str, method: str) -> None:
        name = ""
        if isinstance(message, dict) and isinstance(message.get("params"), dict):
            name = str(message["params"].get("name", ""))
        names = {"Mcp_Method": method, "Mcp_Name": name if name in TOOLS else ""}
        said = runner.run(send(tw, orjson.dumps(message), version, **names))
        assert said.status in (200, 202, 400, 404), said.text
        assert (said.text == "") == (said.status == 202)
        for one in said.body if isinstance(said.body, list) else [said.body] if said.text else []:
            assert one["jsonrpc"] == "2.0"
            assert ("result" in one) != ("error" in one)

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        tw = runner.run(stack.enter_async_context(running(tmp_path, "http://127.0.0.1:9")))
        runner.run(save(tw, *chat(3)))
        check()
        runner.run(stack.aclose())


@pytest.mark.parametrize("body", [b"", b"[" * 65_000, b'{"a":' * 9_000, b"\x00", b'"\\ud800"'])
async def test_whatever_bytes_are_sent_are_no_failure_of_ours(tw: Running, body: bytes) -> None:
    assert (await send(tw, body, VERSION)).code == mcp_rpc.PARSE_ERROR
