"""docs/mcp.md: its examples work as they stand, and its figures are the server's."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.api.mcp_rpc import MAX_BATCH, MAX_ID, VERSIONS
from proxy.api.mcp_text import visible
from proxy.api.mcp_tools import DEFAULT_CHARS, LEAST_CHARS, MOST_CHARS, TOOLS, input_schema
from proxy.api.request_body import MAX_BYTES
from tests.api.agents import send
from tests.keyed import Keyed

PAGE = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()


def configured() -> Any:
    """Give the server as the example of a configuration names it."""
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    return orjson.loads(block)["mcpServers"]["traceway"]


async def test_the_configuration_and_the_call_of_the_page_work(team: Keyed) -> None:
    server = configured()
    assert server["url"].endswith(":3000/mcp")
    assert server["type"] == "http"
    key = server["headers"]["Authorization"].replace("tw_sk_...", team["alpha", "read"].key)
    (body,) = re.findall(r"-d '(.*)'", PAGE)
    said = await send(team.tw, body.encode(), "", Authorization=key)
    assert said.status == 200
    assert said.body["result"]["isError"] is False
    assert (await send(team.tw, body.encode(), "")).status == 401


@pytest.mark.parametrize("name", TOOLS)
def test_each_tool_is_there_with_its_arguments_and_their_bounds(name: str) -> None:
    (found,) = re.findall(rf"^\| `{name}` \| (.*?) \|", PAGE, re.MULTILINE)
    properties: Any = input_schema(TOOLS[name].arguments)["properties"]
    assert re.findall(r"`(\w+)`", found) == [*properties]
    if "limit" in properties:
        bounds = properties["limit"]
        assert f"`limit` ({bounds['default']}, up to {bounds['maximum']})" in found


def test_its_figures_are_those_of_the_server() -> None:
    words = " ".join(PAGE.split())
    assert f"versions {', '.join(VERSIONS[:-1])} and {VERSIONS[-1]}" in words
    assert f"{DEFAULT_CHARS:,} characters, and {LEAST_CHARS:,} to {MOST_CHARS:,}" in words
    assert f"has {MAX_BYTES:,} bytes at most" in words
    assert f"arrays of up to {MAX_BATCH} messages" in words
    assert f"at most {MAX_ID} characters as JSON" in words
    assert visible("\u202e") in words
