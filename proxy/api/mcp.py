"""The MCP server: POST /mcp, by which an agent reads what was recorded. Streamable HTTP, stateless.

Owns what is HTTP about it. Invariants: it reads and changes nothing; it keeps nothing between two
requests; an answer of a tool is as long as was asked for at most, and JSON whatever it holds.

Source: modelcontextprotocol.io, "Transports", revisions 2025-03-26 to 2026-07-28.
"""

from collections.abc import Callable, Mapping
from typing import Final

import orjson
from aiohttp import web

from proxy import __version__
from proxy.access import check_still
from proxy.api import mcp_rpc as rpc
from proxy.api.answers import json_answer
from proxy.api.conversation import Conversations
from proxy.api.mcp_reads import NotThere, Reads
from proxy.api.mcp_rpc import Call, Id, RpcError
from proxy.api.mcp_text import Room, capped, visible
from proxy.api.mcp_tools import INSTRUCTIONS, TOOLS, is_structured, read
from proxy.api.params import BadParameter
from proxy.api.request_body import whole
from proxy.api.sessions import Sessions
from proxy.api.traces import Traces
from proxy.errors import error_response
from proxy.headers import redact_any
from storage.database import Database

_SERVER: Final = {"name": "traceway", "title": "Traceway", "version": __version__}
_CAPABILITIES: Final[Mapping[str, object]] = {"tools": {}}
# How long a client may keep the list of tools: they change with the server's version alone.
_KEPT: Final = {"ttlMs": 300_000, "cacheScope": "private"}
# Characters of what is wrong with a call.
_ERROR_CHARS: Final = 300
# The first version in which a mistake in an argument is for the model to see (SEP-1303).
_MISTAKES_SEEN: Final = "2025-11-25"


class Mcp:
    """The handler of /mcp."""

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        traces: Traces,
        conversations: Conversations,
    ) -> None:
        self._reads = Reads(database, sessions, traces, conversations)

    async def handle(self, request: web.Request) -> web.Response:
        """POST /mcp: one message of JSON-RPC, or in old versions an array of them."""
        if request.content_type != "application/json":
            return error_response(415, "not_json", "the body must be application/json")
        if not _takes_json(request):
            message = "answers are application/json, which Accept must allow"
            return error_response(406, "not_acceptable", message)
        body = await whole(request)
        check_still(request)
        try:
            value = rpc.parse(body)
            version = rpc.version_of(request.headers.getall("MCP-Protocol-Version", []))
        except RpcError as error:
            return json_answer(rpc.failure(error), 400)
        if isinstance(value, list):
            return await self._batch(request, value, version)
        try:
            call = rpc.message(value)
        except RpcError as error:
            return json_answer(rpc.failure(error), 400)
        if call is None or call.id is None:
            return web.Response(status=202)
        try:
            return json_answer(await self._answer(request, call, version))
        except RpcError as error:
            return json_answer(rpc.failure(error), rpc.status_of(error, version))

    async def _batch(
        self, request: web.Request, values: list[object], version: str
    ) -> web.Response:
        if version not in rpc.BATCHING or not 1 <= len(values) <= rpc.MAX_BATCH:
            most = f"1 to {rpc.MAX_BATCH} messages" if version in rpc.BATCHING else "no array"
            error = RpcError(rpc.INVALID_REQUEST, f"a body of {version} has {most}")
            return json_answer(rpc.failure(error), 400)
        answers: list[Mapping[str, object]] = []
        mistakes = 0
        for value in values:
            try:
                call = rpc.message(value)
            except RpcError as error:
                mistakes += 1
                answers.append(rpc.failure(error))
                continue
            if call is None or call.id is None:
                continue
            try:
                answers.append(await self._answer(request, call, version, alone=False))
            except RpcError as error:
                answers.append(rpc.failure(error))
        if not answers:
            return web.Response(status=202)
        return json_answer(answers, 400 if mistakes == len(values) else 200)

    async def _answer(
        self, request: web.Request, call: Call, version: str, *, alone: bool = True
    ) -> Mapping[str, object]:
        """Do what a call asks for.

        Raises:
            RpcError: it comes to nothing.
        """
        try:
            if version in rpc.STATED:
                names = ("Mcp-Method", "Mcp-Name")
                said = (request.headers.getall(name, []) for name in names)
                rpc.check_stated(call, version, *said)
            if call.method == "tools/call":
                return await self._call(request, call, version)
            method = (_STATED if version in rpc.STATED else _AGREED).get(call.method)
            if method is None or (call.method == "initialize" and not alone):
                raise RpcError(rpc.METHOD_NOT_FOUND, "there is no such method here")
            return rpc.result(call.id, method(call, version), version)
        except RpcError as error:
            error.id = call.id
            raise

    async def _call(self, request: web.Request, call: Call, version: str) -> Mapping[str, object]:
        """Call a tool."""
        given = call.params.get("arguments")
        name = call.params.get("name")
        tool = TOOLS.get(name) if isinstance(name, str) else None
        if tool is None:
            raise RpcError(rpc.INVALID_PARAMS, f"name must be one of {', '.join(TOOLS)}")
        if not isinstance(given, dict | None):
            raise RpcError(rpc.INVALID_PARAMS, "arguments must be an object")
        try:
            asked = read(tool, given or {})
            room = Room(asked.max_chars - _frame(call.id, version), is_structured(version))
            found = await self._reads.answer(request, asked, room)
        except BadParameter as error:
            if version < _MISTAKES_SEEN:
                raise RpcError(rpc.INVALID_PARAMS, _short(str(error))) from None
            return _failed(call.id, str(error), version)
        except NotThere as error:
            return _failed(call.id, str(error), version)
        return _result(call.id, found, version)


def _initialize(call: Call, version: str) -> dict[str, object]:
    wanted = call.params.get("protocolVersion")
    if not isinstance(wanted, str):
        raise RpcError(rpc.INVALID_PARAMS, "protocolVersion must be a string")
    return {
        "protocolVersion": wanted if wanted in rpc.AGREED else rpc.AGREED[-1],
        "capabilities": _CAPABILITIES,
        "serverInfo": _SERVER,
        "instructions": INSTRUCTIONS,
    }


def _discover(call: Call, version: str) -> dict[str, object]:
    return {
        "supportedVersions": list(rpc.VERSIONS),
        "capabilities": _CAPABILITIES,
        "instructions": INSTRUCTIONS,
        "_meta": {rpc.SERVER_INFO: _SERVER},
        **_KEPT,
    }


def _ping(call: Call, version: str) -> dict[str, object]:
    return {}


def _list_tools(call: Call, version: str) -> dict[str, object]:
    if call.params.get("cursor") is not None:
        raise RpcError(rpc.INVALID_PARAMS, "cursor must be one that tools/list gave: it gives none")
    tools = [tool.described(version) for tool in TOOLS.values()]
    return {"tools": tools, **(_KEPT if version in rpc.STATED else {})}


_Method = Callable[[Call, str], dict[str, object]]
_AGREED: Final[Mapping[str, _Method]] = {
    "initialize": _initialize,
    "ping": _ping,
    "tools/list": _list_tools,
}
_STATED: Final[Mapping[str, _Method]] = {"server/discover": _discover, "tools/list": _list_tools}


def _takes_json(request: web.Request) -> bool:
    """Tell whether `Accept` allows JSON (RFC 9110 section 12.5.1); none allows all."""
    ranges = ",".join(request.headers.getall("Accept", [])).lower().split(",")
    weights = {}
    for one in ranges:
        name, *parameters = (part.strip() for part in one.split(";"))
        refused = any(part.replace(" ", "").rstrip(".0") == "q=" for part in parameters)
        weights[name] = not refused
    for name in ("application/json", "application/*", "*/*"):
        if name in weights:
            return weights[name]
    return list(weights) == [""]


def _result(id: Id, found: object, version: str, *, failed: bool = False) -> dict[str, object]:
    text = found if isinstance(found, str) else orjson.dumps(found).decode()
    value: dict[str, object] = {"content": [{"type": "text", "text": text}]}
    if is_structured(version) and not isinstance(found, str):
        value["structuredContent"] = orjson.Fragment(text)
    return rpc.result(id, {**value, "isError": failed}, version)


def _frame(id: Id, version: str) -> int:
    """Measure what stands around an answer of a tool."""
    return len(orjson.dumps(_result(id, {}, version)).decode())


def _failed(id: Id, message: str, version: str) -> dict[str, object]:
    """Say in a tool's answer what went wrong: for the model, which may do better."""
    return _result(id, _short(message), version, failed=True)


def _short(message: str) -> str:
    text = redact_any(message.encode("utf-8", "replace")).decode()
    return str(capped(visible(text), _ERROR_CHARS, 0))
