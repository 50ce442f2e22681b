"""Our own error answers: OpenAI-shaped JSON that any OpenAI client turns into its usual exception.

Owns the shape. Invariant: what looks like an API key is in no message, whatever that quotes.
``X-Traceway-Error`` marks an answer as ours; an upstream cannot forge it, because every
``X-Traceway-*`` header of an upstream is removed (headers.py).
"""

import orjson
from aiohttp import web

from proxy.headers import redact_any

# Clients retry 408, 409, 429 and 5xx unless this header says no (openai-python, `_should_retry`).
NEVER_RETRY = ("x-should-retry", "false")


def error_body(status: int, code: str, message: str, param: str | None = None) -> bytes:
    """Give the JSON bytes of an error; `type` follows OpenAI's split of caller and server."""
    kind = "invalid_request_error" if status < 500 else "api_error"
    message = redact_any(message.encode("utf-8", "replace")).decode()
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_response(status: int, code: str, message: str, param: str | None = None) -> web.Response:
    """Give an error answer of ours: `code` for programs, `message` one sentence for people.

    `param` is the parameter that is at fault.
    """
    response = web.Response(
        status=status,
        body=error_body(status, code, message, param),
        content_type="application/json",
    )
    response.headers["X-Traceway-Error"] = code
    if status < 500:
        response.headers.add(*NEVER_RETRY)
    return response
