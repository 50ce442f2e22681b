"""Our own error answers: OpenAI-shaped JSON that any OpenAI client turns into its usual exception.

Owns the shape. Invariant: what looks like an API key is in no message, whatever that quotes.
``X-Traceway-Error`` marks an answer as ours; an upstream cannot forge it, because every
``X-Traceway-*`` header of an upstream is removed (headers.py).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import orjson
from aiohttp import web

from proxy.headers import redact_any

Figures = Mapping[str, str | float]
NO_FIGURES: Final[Figures] = MappingProxyType({})

# Clients retry 408, 409, 429 and 5xx unless this header says no (openai-python, `_should_retry`).
NEVER_RETRY = ("x-should-retry", "false")


class Refused(Exception):
    """A call that goes nowhere: `status`, `code` and one sentence for the client.

    `kind` and `figures` are the error's type and what it says beside the sentence. `retry_after_s`:
    the same call may be made again then; None where it would fare no better.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: str | None = None,
        figures: Figures = NO_FIGURES,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.kind = kind
        self.figures = figures
        self.retry_after_s = retry_after_s

    def answer(self) -> web.Response:
        """Give the answer to the client."""
        return error_response(
            self.status,
            self.code,
            str(self),
            kind=self.kind,
            figures=self.figures,
            retry_after_s=self.retry_after_s,
        )


def error_body(
    status: int,
    code: str,
    message: str,
    param: str | None = None,
    *,
    kind: str | None = None,
    figures: Figures = NO_FIGURES,
) -> bytes:
    """Give the JSON bytes of an error; `type` follows OpenAI's split of caller and server."""
    kind = kind or ("invalid_request_error" if status < 500 else "api_error")
    message = redact_any(message.encode("utf-8", "replace")).decode()
    error = {"message": message, "type": kind, "param": param, "code": code, **figures}
    return orjson.dumps({"error": error})


def error_response(
    status: int,
    code: str,
    message: str,
    param: str | None = None,
    *,
    kind: str | None = None,
    figures: Figures = NO_FIGURES,
    retry_after_s: int | None = None,
) -> web.Response:
    """Give an error answer of ours: `code` for programs, `message` one sentence for people.

    `param` is the parameter that is at fault; the others are those of `Refused`.
    """
    response = web.Response(
        status=status,
        body=error_body(status, code, message, param, kind=kind, figures=figures),
        content_type="application/json",
    )
    response.headers["X-Traceway-Error"] = code
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    elif status < 500:
        response.headers.add(*NEVER_RETRY)
    return response
