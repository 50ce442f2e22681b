"""The description of the API as an OpenAPI 3.1 document, and the handler that gives it.

Owns how the table of operations is written in OpenAPI's words. Invariant: it is made from that
table and from the dataclasses that the API answers with, once, and holds nothing of its own.

Source: OpenAPI Specification 3.1.1 (October 2024).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final

import orjson
from aiohttp import web

from proxy import __version__
from proxy.access import COOKIE, OUR_KEY_HEADER, PROJECT_HEADER
from proxy.api.about import Schema
from proxy.api.answer_shapes import Error
from proxy.api.described import EVENTS, JSON, NO_BODY, TEXT, Answer, Operation, Parameter
from proxy.api.failures import Failure, failures_of
from proxy.api.ingest_bodies import SpanKind
from proxy.api.operations import OPERATIONS, TAGS
from proxy.api.schemas import example_of, named_in, schema_of

# The methods of an operation that takes any. TRACE is refused, CONNECT has no path.
METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
ABOUT: Final = (
    "Traceway relays calls to LLM APIs and records them as sessions, traces and spans."
    " Times are ISO 8601 in UTC, durations milliseconds, money USD; what is unknown is null."
    " GET has HEAD beside it, but for `/api/events`. Every error that the server itself answers"
    " with is an `Error`."
)
_SECURITY: Final[Mapping[str, Schema]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "tw_sk_...",
        "description": "A key of this server. Without keys (a laptop) nobody has to send one.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": OUR_KEY_HEADER,
        "description": "The same, where `Authorization` has the provider's own key.",
    },
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "What a browser has that signed in; not for calls through the proxy.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "A ticket of `POST /api/events/tickets`, for `GET /api/events` alone.",
    },
}

# What errors say in headers beside their code. Not all of a status need have it, so that it says
# so in words: a header that is not required may be absent.
_MORE_HEADERS: Final[Mapping[int, Mapping[str, Schema]]] = {
    401: {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}}},
    429: {
        "Retry-After": {
            "description": "Seconds, for calls per minute; a budget has none.",
            "schema": {"type": "integer", "minimum": 1},
        }
    },
}
_PROJECT: Final = Parameter(
    name=PROJECT_HEADER,
    place="header",
    meaning="the project that it is about, for admins; all others have that of their key",
)


async def show(_: web.Request) -> web.Response:
    """GET /api/openapi.json: this description."""
    return web.Response(
        body=_document_bytes(),
        content_type=JSON,
        headers={"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"},
    )


@cache
def _document_bytes() -> bytes:
    return orjson.dumps(document())


def document() -> Schema:
    """Give the document."""
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        methods = METHODS if operation.method == "*" else (operation.method.lower(),)
        for method in methods:
            name = operation.id if len(methods) == 1 else operation.id + method.title()
            paths.setdefault(operation.path, {})[method] = _operation(operation, name)
    bodies = [answer.body for one in OPERATIONS for answer in one.answers.values()]
    asked = [one.body for one in OPERATIONS if one.body is not None]
    foreign = [one.failure for one in OPERATIONS if one.failure is not None]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Traceway", "version": __version__, "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": named_in([*bodies, *asked, *foreign, Error, SpanKind]),
            "parameters": {_PROJECT.name: _parameter(_PROJECT)},
            "securitySchemes": dict(_SECURITY),
        },
    }


def _operation(operation: Operation, name: str) -> Schema:
    need = operation.need
    written: Schema = {
        "operationId": name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.description:
        written["description"] = operation.description
    if need is None:
        written["security"] = []
    else:
        written["security"] = [{scheme: []} for scheme in operation.security]
        written["x-traceway-scopes"] = sorted(need)
    parameters = [_parameter(one) for one in operation.parameters]
    if need is not None:
        parameters.append({"$ref": f"#/components/parameters/{_PROJECT.name}"})
    if parameters:
        written["parameters"] = parameters
    if operation.body is not None:
        content = {"schema": schema_of(operation.body), "example": example_of(operation.body)}
        others: Schema = {media_type: {} for media_type in operation.also}
        written["requestBody"] = {
            "required": not operation.optional,
            "content": {JSON: content, **others},
        }
    written["responses"] = dict(_responses(operation))
    return written


def _parameter(parameter: Parameter) -> Schema:
    written: Schema = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.meaning,
        "schema": parameter.schema,
    }
    if parameter.required or parameter.place == "path":
        written["required"] = True
    if parameter.schema.get("type") == "array":
        written |= {"style": "form", "explode": not parameter.commas}
    if parameter.example is not None:
        written["example"] = parameter.example
    return written


def _responses(operation: Operation) -> Iterator[tuple[str, Schema]]:
    """Give the answers by status; those that may be an error as well have both schemas."""
    failures: dict[str, list[Failure]] = {}
    for failure in failures_of(operation):
        failures.setdefault(str(failure.status), []).append(failure)
    for status, answer in operation.answers.items():
        if status not in failures:
            yield status, _answer(answer, operation.also)
    for status, found in failures.items():
        if operation.failure is None:
            yield status, _failures(found, operation.answers.get(status))
        else:
            yield status, _foreign(found, operation.failure, operation.also)


def _answer(answer: Answer, also: Sequence[str] = ()) -> Schema:
    written: Schema = {"description": answer.meaning}
    if answer.media_type == JSON:
        content: Schema = {"schema": schema_of(answer.body)}
        if (example := answer.example or example_of(answer.body)) is not None:
            content["example"] = example
    elif answer.media_type in (EVENTS, TEXT):
        content = {"schema": {"type": "string"}, "example": answer.example}
    else:
        content = {}
    if answer.media_type != NO_BODY:
        written["content"] = {answer.media_type: content, **{other: {} for other in also}}
    if answer.headers:
        written["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in answer.headers.items()
        }
    return written


def _foreign(failures: list[Failure], shape: type, also: Sequence[str]) -> Schema:
    """Describe the errors of one status in the shape that the operation's protocol has for them."""
    written = _failures(failures, None)
    written["content"] = {JSON: {"schema": schema_of(shape)}, **{other: {} for other in also}}
    return written


def _failures(failures: list[Failure], answer: Answer | None) -> Schema:
    """Describe the errors of one status, and what else has it."""
    words = "; ".join(f"`{failure.code}`: {failure.meaning}" for failure in failures)
    codes = list(dict.fromkeys(failure.code for failure in failures))
    error: Schema = {
        "allOf": [schema_of(Error)],
        "properties": {"error": {"properties": {"code": {"enum": codes}}}},
    }
    if answer is None:
        header = {"description": "The code.", "schema": {"type": "string", "enum": codes}}
        headers = {"X-Traceway-Error": header, **_MORE_HEADERS.get(failures[0].status, {})}
        return {
            "description": f"{words}.",
            "headers": headers,
            "content": {JSON: {"schema": error}},
        }
    either = {"anyOf": [schema_of(answer.body), error]}
    return {
        "description": f"{answer.meaning} Or {words}.",
        "content": {JSON: {"schema": either}},
    }
