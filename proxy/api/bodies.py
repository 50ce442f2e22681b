"""The bodies of a call over HTTP: as the bytes that are stored, and as JSON values.

Invariants: what is called exact was hashed and found equal to what passed; nothing that a stranger
wrote runs in a browser on our origin, whatever type it claims.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import orjson
from aiohttp import web

from proxy.access import project_id
from proxy.api import params
from proxy.api.answers import not_found
from proxy.decode import decode
from storage import rebuild
from storage.database import Database
from storage.rebuild import StoredBody

T = TypeVar("T")

# A decoded body that a span shows; four times what is kept of one by default.
SHOWN_BYTES: Final = 32 * 1024 * 1024
# Hashing or checking this much takes a tenth of a millisecond; more, or decoding, would hold up
# others.
INLINE_BYTES: Final = 64 * 1024
# What a browser may show in place; it saves all else. With the sandbox, even these run nothing.
_SHOWN_TYPES: Final = frozenset({"application/json", "text/plain"})
_HEADERS: Final = (
    ("Content-Security-Policy", "sandbox; default-src 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)


class Bodies:
    """The handlers of /api/spans/{id}/request and /api/spans/{id}/response."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def request(self, request: web.Request) -> web.Response:
        """GET /api/spans/{id}/request: the body of the request, as it is stored."""
        return await self._show(request, "request", rebuild.request_body)

    async def response(self, request: web.Request) -> web.Response:
        """GET /api/spans/{id}/response: the body of the answer, or what a stream added up to."""
        return await self._show(request, "response", rebuild.response_body)

    async def _show(
        self,
        request: web.Request,
        which: str,
        read: Callable[[Database, int, bytes], Awaitable[StoredBody | None]],
    ) -> web.Response:
        span_id = params.hex_id(request.match_info["id"], 16)
        if span_id is None:
            return not_found("span")
        stored = await read(self._database, project_id(request), span_id)
        if stored is None:
            return not_found(f"{which} body")
        answer = web.Response(body=stored.data, headers=_HEADERS)
        answer.headers["X-Traceway-Body"] = await _off_loop_if_large(description, stored)
        answer.headers["Content-Type"] = stored.content_type or "application/octet-stream"
        if stored.content_encoding:
            answer.headers["Content-Encoding"] = stored.content_encoding
        if not _is_shown(stored.content_type or ""):
            name = f"{span_id.hex()}-{which}"
            answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer


async def json_value(stored: StoredBody | None) -> object:
    """Give a stored body as a JSON value: itself where it is JSON, text where it is text.

    None for what is neither, or is compressed and is not unpacked whole within `SHOWN_BYTES`.
    """
    return None if stored is None else await _off_loop_if_large(_json_value, stored)


def description(stored: StoredBody) -> str:
    """Say in words, with commas between, what bytes these are.

    "exact": those that passed. "assembled": put together from the events of a stream. "redacted":
    without a secret. "truncated": only the first of them. "decoded", alone: those that passed,
    without their content coding.
    """
    if stored.sha256 is not None and hashlib.sha256(stored.data).digest() == stored.sha256:
        return "exact"
    known = {
        "assembled": stored.assembled,
        "redacted": stored.redacted,
        "truncated": stored.truncated,
    }
    return ", ".join(word for word, applies in known.items() if applies) or "decoded"


async def _off_loop_if_large(work: Callable[[StoredBody], T], stored: StoredBody) -> T:
    if stored.content_encoding or len(stored.data) > INLINE_BYTES:
        return await asyncio.to_thread(work, stored)
    return work(stored)


def _json_value(stored: StoredBody) -> object:
    data, is_whole = decode(stored.data, stored.content_encoding or "", SHOWN_BYTES)
    if not is_whole:  # its beginning would be taken for all of it
        return None
    if "json" in (stored.content_type or "").lower():
        try:
            orjson.loads(data)
        except ValueError:
            pass  # not what it says, or more than a parser takes: shown as text
        else:
            # As it was written: no number loses digits, and depth is the reader's business.
            return orjson.Fragment(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _is_shown(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in _SHOWN_TYPES or media_type.endswith("+json")
