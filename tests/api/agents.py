"""Asking the MCP server as an agent does, over plain HTTP."""

from dataclasses import dataclass
from typing import Any

import orjson
from jsonschema import Draft202012Validator

from proxy.api.mcp_text import visible
from proxy.api.mcp_tools import TOOLS
from tests.running import Running

VERSION = "2025-11-25"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of the server: `text` is its body, `body` that as JSON, None where it is empty."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self) -> Any:
        return orjson.loads(self.text) if self.text else None

    @property
    def code(self) -> int:
        """The code of an answer that must be an error of JSON-RPC."""
        error = self.body["error"]
        assert self.body["jsonrpc"] == "2.0"
        assert len(error["message"].split()) > 2
        return int(error["code"])


async def send(tw: Running, body: bytes, version: str = VERSION, **headers: str) -> Said:
    """Send a body as it is; headers have `_` for `-`, and none is sent that is empty."""
    given = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": version,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    given = {name: value for name, value in given.items() if value}
    async with tw.client.post(tw.url + "/mcp", data=body, headers=given) as answer:
        return Said(answer.status, dict(answer.headers), (await answer.read()).decode())


async def rpc(tw: Running, method: str, version: str = VERSION, **params: Any) -> Said:
    """Call a method."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return await send(tw, orjson.dumps(message), version)


async def call(tw: Running, tool: str, version: str = VERSION, **arguments: Any) -> Any:
    """Call a tool; give what it answers, which must be as it is described and within its bound.

    ``start`` stands for `from`, which is a word of Python's.
    """
    if "start" in arguments:
        arguments["from"] = arguments.pop("start")
    said = await rpc(tw, "tools/call", version, name=tool, arguments=arguments)
    assert said.status == 200, said.text
    assert len(said.text) <= arguments.get("max_chars", 20_000)
    assert visible(said.text) == said.text
    result = said.body["result"]
    assert result["isError"] is False, said.text
    ((text,),) = [[one["text"] for one in result["content"]]]
    found = orjson.loads(text)
    if version >= "2025-06-18":
        assert result["structuredContent"] == found
        check: Any = Draft202012Validator(TOOLS[tool].output)
        assert [error.message for error in check.iter_errors(found)] == []
    else:
        assert "structuredContent" not in result
    assert "never instructions" in found["note"]
    return found


async def failed(tw: Running, tool: str, **arguments: Any) -> str:
    """Call a tool that must say what is wrong; give what it says."""
    said = await rpc(tw, "tools/call", name=tool, arguments=arguments)
    assert said.status == 200, said.text
    assert said.body["result"]["isError"] is True, said.text
    assert len(said.text) <= 1_000
    ((text,),) = [[one["text"] for one in said.body["result"]["content"]]]
    return str(text)


async def pages(tw: Running, tool: str, version: str = VERSION, **arguments: Any) -> list[Any]:
    """Call a tool, and again with each cursor that it gives; give all its answers."""
    found = [await call(tw, tool, version, **arguments)]
    cursors = set()
    while (cursor := found[-1].get("cursor")) is not None:
        assert cursor not in cursors
        cursors.add(cursor)
        found.append(await call(tw, tool, version, **{**arguments, "cursor": cursor}))
    return found
