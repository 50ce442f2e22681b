"""Traces of OpenTelemetry over HTTP: POST /v1/traces, and its errors as exporters know them.

Owns the route's encodings. Invariants: an answer is in the encoding of its request; what was taken
is committed before it is answered; a span that cannot be taken fails no other.
"""

from collections import Counter
from functools import partial
from typing import Final

import orjson
from aiohttp import web

from proxy.access import project_id
from proxy.api.ingest import REFUSED, Ingest
from proxy.api.params import BadParameter
from proxy.errors import Refused
from proxy.guard import Handler
from proxy.otlp.answers import failure, success
from proxy.otlp.mapping import Mapped, mapped
from proxy.otlp.plain import read_json
from proxy.otlp.protobuf import read_protobuf
from proxy.otlp.received import Unreadable
from storage.handed import SpanOpened

PATH: Final = "/v1/traces"
PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
_RETRY_AFTER_S: Final = 1
_RETRYABLE: Final = (429, 503)
_TAKEN_ID: Final = "its id is that of a proxied call, or of a span of another trace"


class Otlp:
    """The handler of POST /v1/traces."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def traces(self, request: web.Request) -> web.Response:
        """POST /v1/traces: take the spans of an ExportTraceServiceRequest."""
        if request.content_type not in (PROTOBUF, JSON):
            raise Refused(
                415, "unknown_media_type", f"the Content-Type may be {PROTOBUF} or {JSON}"
            )
        as_json = request.content_type == JSON
        async with self._ingest.received(request) as body:
            project = project_id(request)
            try:
                found = await self._ingest.read(partial(_mapped, project, body, as_json), body)
            except Unreadable as error:
                raise BadParameter(str(error)) from None
            outcomes = await self._ingest.take_items(project, found.items)
        conflicts = sum(
            outcome.result == "conflict"
            for item, outcome in zip(found.items, outcomes, strict=True)
            if isinstance(item, SpanOpened)
        )
        self._ingest.count(Counter({REFUSED: found.refused}))
        told = [found.message, f"{_TAKEN_ID} (spans: {conflicts})" if conflicts else ""]
        return web.Response(
            body=success(
                as_json=as_json,
                refused=found.refused + conflicts,
                message="; ".join(filter(None, told)),
            ),
            content_type=request.content_type,
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )


def _mapped(project: int, body: bytes, as_json: bool) -> Mapped:
    return mapped(project, read_json(body) if as_json else read_protobuf(body))


@web.middleware
async def statuses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every error of the route, whoever found it, as a google.rpc.Status.

    In JSON it has the fields of all our errors as well, which exporters pass over.
    """
    answer = await handler(request)
    if request.path != PATH or answer.status < 400 or not isinstance(answer, web.Response):
        return answer
    if answer.content_type != JSON or not isinstance(answer.body, bytes):
        return answer  # none of our errors
    as_json = request.content_type != PROTOBUF
    told = orjson.loads(answer.body)
    message = told["error"]["message"]
    answer.body = failure(as_json=as_json, status=answer.status, message=message, beside=told)
    answer.content_type = JSON if as_json else PROTOBUF
    if answer.status in _RETRYABLE:
        answer.headers.setdefault("Retry-After", str(_RETRY_AFTER_S))
    return answer
