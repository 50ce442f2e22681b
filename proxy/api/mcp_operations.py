"""The MCP server in the description of the API. See operations.py; tools are mcp_tools.py's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from proxy.access import READ
from proxy.api.described import NO_BODY, Answer, Operation, Parameter
from proxy.api.mcp_rpc import (
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSAID,
    VERSIONS,
    Id,
    RpcError,
    failure,
)
from proxy.api.schemas import Maybe


class McpMessage(msgspec.Struct):
    """A message of JSON-RPC 2.0. Without an `id` nobody awaits an answer."""

    jsonrpc: Literal["2.0"]
    method: str
    id: str | int = 1
    params: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class McpReply:
    """An answer of JSON-RPC 2.0: a result or an error."""

    jsonrpc: Literal["2.0"]
    id: object
    result: Maybe[object]
    error: Maybe[object]


def _error(id: Id, code: int, message: str) -> dict[str, object]:
    return failure(RpcError(code, message, id=id))


_REPLIES: Final = McpReply | Sequence[McpReply]

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        method="POST",
        path="/mcp",
        id="mcp",
        tag="MCP",
        summary="A message to the MCP server",
        description="For coding agents: docs/mcp.md. Streamable HTTP without sessions and without"
        " streams, so that GET and DELETE are 405. A body of version 2025-03-26 may be an array"
        " of messages, which is answered with an array. Version 2026-07-28 has `server/discover`"
        " in place of `initialize`, and `Mcp-Method` and `Mcp-Name` beside what the body says.",
        need=READ,
        parameters=(
            Parameter(
                name="MCP-Protocol-Version",
                place="header",
                meaning=f"the version that the message is of; without it {UNSAID}",
                schema={"type": "string", "enum": list(VERSIONS)},
            ),
        ),
        body=McpMessage,
        answers={
            "200": Answer(meaning="The answer.", body=_REPLIES),
            "202": Answer(meaning="Nobody awaits an answer.", media_type=NO_BODY),
            "400": Answer(
                meaning="What came is no such message.",
                body=_REPLIES,
                example=_error(None, PARSE_ERROR, "the body is no JSON"),
            ),
            "404": Answer(
                meaning="Version 2026-07-28: there is no such method.",
                body=McpReply,
                example=_error(1, METHOD_NOT_FOUND, "there is no such method here"),
            ),
        },
        codes=("bad_parameter", "not_json", "not_acceptable"),
    ),
)
