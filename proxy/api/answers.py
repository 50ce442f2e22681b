"""How the API answers: JSON, and errors in the shape that the proxy has too."""

import asyncio
from collections.abc import Callable

import orjson
from aiohttp import web

from proxy.api.params import BadParameter
from proxy.errors import Refused, error_response
from proxy.guard import Handler
from storage.database import QueryTimeout, StorageError


def json_answer(value: object, status: int = 200) -> web.Response:
    """Answer with a dataclass or a mapping of them as JSON."""
    return _answer(orjson.dumps(value), status)


async def made_answer(make: Callable[[], object]) -> web.Response:
    """Answer with what is made, as JSON: both beside the event loop, since it may be large."""
    return _answer(await asyncio.to_thread(lambda: orjson.dumps(make())), 200)


def _answer(body: bytes, status: int) -> web.Response:
    return web.Response(
        body=body,
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


def not_found(what: str) -> web.Response:
    """Answer that nothing has this id here."""
    return error_response(404, "not_found", f"there is no such {what}")


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn mistakes, refusals, a database that fails, and aiohttp's own words into our errors."""
    try:
        return await handler(request)
    except BadParameter as error:
        return error_response(400, "bad_parameter", str(error), error.name)
    except Refused as refused:
        return refused.answer()
    except QueryTimeout as error:
        return error_response(503, "query_timeout", str(error))
    except StorageError as error:
        return error_response(503, "storage_unavailable", str(error))
    except web.HTTPNotFound:
        return error_response(404, "not_found", f"there is nothing at {request.path[:200]!r}")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = error_response(
            405, "method_not_allowed", f"{request.method} is not possible here; {allowed} is"
        )
        response.headers["Allow"] = allowed
        return response
