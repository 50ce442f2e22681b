"""The MCP server is as it is described: what it answers, and who may ask it."""

from typing import Any

import orjson
import pytest

from tests.api.described import faults, operation_at
from tests.running import Running


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', {}, 200),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', {}, 200),
        (b'{"jsonrpc":"2.0","id":1,"method":"nothing"}', {}, 200),
        (b"{", {}, 400),
        (b"[5]", {}, 400),
        (b"5", {"MCP-Protocol-Version": "x"}, 400),
        (b"x" * 70_000, {}, 400),
        (b"{}", {"Accept": "text/html"}, 406),
        (b"{}", {"Content-Type": "text/plain"}, 415),
    ],
)
async def test_what_it_answers_is_as_described(
    tw: Running, body: bytes, headers: dict[str, str], status: int
) -> None:
    given = {"Content-Type": "application/json", **headers}
    async with tw.client.post(tw.url + "/mcp", data=body, headers=given) as answer:
        found: Any = orjson.loads(await answer.read())
        assert answer.status == status, found
        assert faults("POST", "/mcp", answer.status, dict(answer.headers), found) == []


def test_it_is_read_with_the_keys_that_read() -> None:
    assert operation_at("POST", "/mcp")["x-traceway-scopes"] == ["admin", "read"]
