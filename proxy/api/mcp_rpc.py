"""JSON-RPC as MCP speaks it: what a message is, which versions there are, how answers look. Pure.

Invariants: whatever JSON comes, it is a call, a notification, an answer that nobody awaits, or an
``RpcError``; an id that is given back is short. Knows no method but by which version has it.

Source: modelcontextprotocol.io, revisions 2024-11-05 to 2026-07-28; JSON-RPC 2.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

import orjson

# Versions that a client agrees on with `initialize`, the oldest first.
AGREED: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
# Versions in which each request says its own.
STATED: Final = ("2026-07-28",)
VERSIONS: Final = (*AGREED, *STATED)
# What a request without the header speaks (transports, "Protocol Version Header").
UNSAID: Final = "2025-03-26"
# Only these have arrays of messages; none other may.
BATCHING: Final = frozenset({"2024-11-05", "2025-03-26"})
# Messages of one array.
MAX_BATCH: Final = 20
# Characters of an id as JSON, which stands in an answer that is bounded itself.
MAX_ID: Final = 64

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

_META: Final = "io.modelcontextprotocol/"
SERVER_INFO: Final = f"{_META}serverInfo"
# Where a request's headers repeat what it says.
_NAMED: Final = frozenset({"tools/call", "prompts/get"})

Id = str | int | None


class RpcError(Exception):
    """A message, or a call, that comes to nothing: code and one sentence."""

    def __init__(self, code: int, message: str, data: object = None, id: Id = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.id = id


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A method that is called; ``id`` is None where nobody waits for an answer."""

    id: Id
    method: str
    params: Mapping[str, object]


def parse(body: bytes) -> object:
    """Read a body.

    Raises:
        RpcError: it is no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RpcError(PARSE_ERROR, "the body is no JSON") from None


def message(value: object) -> Call | None:
    """Read a message; None for an answer, of which we await none.

    Raises:
        RpcError: it is none.
    """
    if not isinstance(value, dict):
        raise RpcError(INVALID_REQUEST, "a message is an object")
    id = _id(value)
    if value.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'jsonrpc must be "2.0"', id=id)
    if "method" not in value and ("result" in value or "error" in value):
        return None
    method, params = value.get("method"), value.get("params", {})
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "method must be a string", id=id)
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "params must be an object", id=id)
    return Call(id=id, method=method, params=params)


def _id(value: Mapping[str, object]) -> Id:
    id = value.get("id")
    if "id" in value and (isinstance(id, bool) or not isinstance(id, str | int)):
        raise RpcError(INVALID_REQUEST, "id must be a string or a whole number")
    if len(orjson.dumps(id).decode()) > MAX_ID:
        raise RpcError(INVALID_REQUEST, f"id may have {MAX_ID} characters")
    return cast(Id, id)


def version_of(headers: list[str]) -> str:
    """Read the values of `MCP-Protocol-Version`.

    Raises:
        RpcError: it is said twice, or none of ours.
    """
    if len(headers) > 1:
        raise RpcError(HEADER_MISMATCH, "MCP-Protocol-Version must be there once")
    version = headers[0] if headers else UNSAID
    if version not in VERSIONS:
        raise RpcError(
            UNSUPPORTED_VERSION,
            f"MCP-Protocol-Version must be one of {', '.join(VERSIONS)}",
            {"supported": list(VERSIONS), "requested": version[:40]},
        )
    return version


def check_stated(call: Call, version: str, method: list[str], name: list[str]) -> None:
    """See that a request says in itself what its headers say, in the versions that have that.

    ``method`` and ``name`` are the values of `Mcp-Method` and `Mcp-Name`.

    Raises:
        RpcError: it does not.
    """
    meta = call.params.get("_meta")
    said = meta if isinstance(meta, dict) else {}
    for key in ("protocolVersion", "clientCapabilities"):
        if _META + key not in said:
            raise RpcError(INVALID_PARAMS, f"params._meta lacks {_META}{key}")
    if said[f"{_META}protocolVersion"] != version:
        message = "MCP-Protocol-Version is not what params._meta says"
        raise RpcError(HEADER_MISMATCH, message)
    if method != [call.method]:
        raise RpcError(HEADER_MISMATCH, "Mcp-Method is not what method says")
    wanted = call.params.get("name")
    if call.method in _NAMED and wanted is not None and name != [wanted]:
        raise RpcError(HEADER_MISMATCH, "Mcp-Name is not what params.name says")


def result(id: Id, value: Mapping[str, object], version: str) -> dict[str, object]:
    """Answer a call."""
    stated = {"resultType": "complete"} if version in STATED else {}
    return {"jsonrpc": "2.0", "id": id, "result": {**value, **stated}}


def failure(error: RpcError) -> dict[str, object]:
    """Say that a message came to nothing."""
    said: dict[str, object] = {"code": error.code, "message": str(error)}
    if error.data is not None:
        said["data"] = error.data
    return {"jsonrpc": "2.0", "id": error.id, "error": said}


def status_of(error: RpcError, version: str) -> int:
    """Give the HTTP status of an answer that is an error."""
    if error.code == METHOD_NOT_FOUND:
        return 404 if version in STATED else 200
    return 200 if error.code == INVALID_PARAMS and version not in STATED else 400
