"""JSON-RPC as MCP has it: messages, ids, versions, and what each mistake is."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import mcp_rpc as rpc
from proxy.api.mcp_rpc import Call, RpcError

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "id": JSON,
        "method": st.sampled_from(["ping", "tools/call", "initialize"]) | JSON,
        "params": JSON,
        "result": JSON,
    },
)


@pytest.mark.parametrize("id", ["a", "", 0, -1, 2**63, "x" * 62])
def test_a_call_is_read_with_its_id_and_params(id: Any) -> None:
    call = rpc.message({**PING, "id": id, "params": {"a": 1}})
    assert call == Call(id=id, method="ping", params={"a": 1})


def test_a_call_without_an_id_is_one_that_nobody_awaits() -> None:
    call = rpc.message({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert call is not None
    assert (call.id, call.params) == (None, {})


@pytest.mark.parametrize("key", ["result", "error"])
def test_an_answer_is_not_for_us(key: str) -> None:
    assert rpc.message({"jsonrpc": "2.0", "id": 1, key: {}}) is None


@pytest.mark.parametrize(
    ("value", "code", "id"),
    [
        (None, rpc.INVALID_REQUEST, None),
        ([], rpc.INVALID_REQUEST, None),
        ({}, rpc.INVALID_REQUEST, None),
        ({**PING, "jsonrpc": "1.0"}, rpc.INVALID_REQUEST, 1),
        ({**PING, "method": 5}, rpc.INVALID_REQUEST, 1),
        ({"jsonrpc": "2.0", "id": 1}, rpc.INVALID_REQUEST, 1),
        ({**PING, "params": [1]}, rpc.INVALID_PARAMS, 1),
        ({**PING, "params": None}, rpc.INVALID_PARAMS, 1),
        ({**PING, "id": None}, rpc.INVALID_REQUEST, None),
        ({**PING, "id": True}, rpc.INVALID_REQUEST, None),
        ({**PING, "id": 1.5}, rpc.INVALID_REQUEST, None),
        ({**PING, "id": {}}, rpc.INVALID_REQUEST, None),
        ({**PING, "id": "x" * 63}, rpc.INVALID_REQUEST, None),
        ({**PING, "id": "\x00" * 20}, rpc.INVALID_REQUEST, None),
    ],
)
def test_each_mistake_has_its_code(value: object, code: int, id: object) -> None:
    with pytest.raises(RpcError) as found:
        rpc.message(value)
    assert (found.value.code, found.value.id) == (code, id)


@given(JSON | MESSAGES)
def test_whatever_json_comes_it_is_a_call_or_nothing_or_a_mistake(value: object) -> None:
    try:
        call = rpc.message(value)
    except RpcError as error:
        answer = rpc.failure(error)
        assert orjson.loads(orjson.dumps(answer)) == answer
        assert len(orjson.dumps(answer)) < 300
    else:
        assert call is None or isinstance(call.params, dict)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'"\\ud800"', b"[" * 100_000, b"NaN"])
def test_what_is_no_json_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(RpcError) as found:
        rpc.parse(body)
    assert found.value.code == rpc.PARSE_ERROR


def test_a_version_is_one_of_ours_once_or_the_one_of_who_says_nothing() -> None:
    assert [rpc.version_of([version]) for version in rpc.VERSIONS] == [*rpc.VERSIONS]
    assert rpc.version_of([]) == "2025-03-26"
    for headers, code in [
        (["1999-01-01"], rpc.UNSUPPORTED_VERSION),
        ([""], rpc.UNSUPPORTED_VERSION),
        (["2025-06-18", "2025-06-18"], rpc.HEADER_MISMATCH),
    ]:
        with pytest.raises(RpcError) as found:
            rpc.version_of(headers)
        assert found.value.code == code


def test_an_unknown_version_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(RpcError) as found:
        rpc.version_of(["2031-01-01" * 100])
    assert found.value.data == {"supported": [*rpc.VERSIONS], "requested": ("2031-01-01" * 4)}


def stated(method: str = "tools/list", **params: object) -> Call:
    return Call(id=1, method=method, params={"_meta": META, **params})


def test_a_request_that_says_in_itself_what_its_headers_say_is_taken() -> None:
    rpc.check_stated(stated(), "2026-07-28", ["tools/list"], [])
    rpc.check_stated(stated("tools/call", name="search"), "2026-07-28", ["tools/call"], ["search"])


@pytest.mark.parametrize(
    ("call", "method", "name", "code"),
    [
        (Call(id=1, method="tools/list", params={}), ["tools/list"], [], rpc.INVALID_PARAMS),
        (stated(_meta=5), ["tools/list"], [], rpc.INVALID_PARAMS),
        (stated(_meta={**META, next(iter(META)): "x"}), ["tools/list"], [], rpc.HEADER_MISMATCH),
        (stated(), [], [], rpc.HEADER_MISMATCH),
        (stated(), ["tools/list", "tools/list"], [], rpc.HEADER_MISMATCH),
        (stated("tools/call", name="a"), ["tools/call"], ["b"], rpc.HEADER_MISMATCH),
        (stated("tools/call", name="a"), ["tools/call"], [], rpc.HEADER_MISMATCH),
    ],
)
def test_a_request_that_contradicts_its_headers_is_refused(
    call: Call, method: list[str], name: list[str], code: int
) -> None:
    with pytest.raises(RpcError) as found:
        rpc.check_stated(call, "2026-07-28", method, name)
    assert found.value.code == code


def test_answers_say_that_they_are_complete_only_where_the_version_has_that() -> None:
    assert rpc.result(1, {"a": 2}, "2025-11-25")["result"] == {"a": 2}
    assert rpc.result(1, {"a": 2}, "2026-07-28")["result"] == {"a": 2, "resultType": "complete"}


def test_each_error_has_the_status_of_its_version() -> None:
    codes = (rpc.METHOD_NOT_FOUND, rpc.INVALID_PARAMS, rpc.INVALID_REQUEST, rpc.HEADER_MISMATCH)
    for version, expected in (
        ("2025-06-18", [200, 200, 400, 400]),
        ("2026-07-28", [404, 400, 400, 400]),
    ):
        assert [rpc.status_of(RpcError(code, "x"), version) for code in codes] == expected
