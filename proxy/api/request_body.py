"""The JSON that a request brings: read strictly into a struct, within a bound.

Invariant: what is wrong with it is said by field and kind, never by value, which may be a key.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from aiohttp import web

from proxy.access import check_still
from proxy.api.params import BadParameter
from proxy.reaper import Client, MalformedBody

T = TypeVar("T", bound=msgspec.Struct)

# A name and some figures: a body of more is none of these.
MAX_BYTES: Final = 64 * 1024
# The name of a field that is not known is shown where it looks like one: it may be a value, too.
_ODD_NAME: Final = re.compile(r"(?<=unknown field) `(?![A-Za-z_]{1,40}`).*`", re.DOTALL)


async def whole(request: web.Request, most_bytes: int = MAX_BYTES) -> bytes:
    """Read a body in full.

    Raises:
        BadParameter: it is larger than ``most_bytes``, or does not come whole, or not in time.
    """
    body = bytearray()
    async for piece in pieces(request):
        body += piece
        if len(body) > most_bytes:
            raise BadParameter(f"the body must have at most {most_bytes} bytes")
    return bytes(body)


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """Give a body as it comes.

    Raises:
        BadParameter: it does not come whole, or not in time.
    """
    try:
        async with asyncio.timeout(cast(Client, request.protocol).patience.body_s):
            async for piece in request.content.iter_any():
                yield piece
    except (web.RequestPayloadError, MalformedBody, TimeoutError):
        raise BadParameter("the body did not come whole") from None


async def read(request: web.Request, kind: type[T]) -> T:
    """Read the body as a struct (`forbid_unknown_fields`: a slip of the pen is a mistake).

    Raises:
        BadParameter: it is no JSON, not what is expected, or larger than ``MAX_BYTES``.
        Denied: whoever sends it may not any more.
    """
    body = await whole(request)
    check_still(request)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        field, what = explained(error, kind)
        place = f"{field}: " if field else ""
        message = f"the body is not what it should be: {place}{what}"
        raise BadParameter(message, field or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadParameter("the body must be JSON, an object") from None


def explained(error: msgspec.ValidationError, kind: type[msgspec.Struct] | None) -> tuple[str, str]:
    """Say what is wrong with JSON: the field, or "", and msgspec's words but for any value."""
    what, at, where = _ODD_NAME.sub("", str(error)).rpartition(" - at ")
    if not at:
        what, where = where, ""
    field = where.strip("`").removeprefix("$").removeprefix(".")
    if what.startswith(("Invalid enum value", "Invalid value")):
        hints = get_type_hints(kind) if kind is not None else {}
        wanted = _choices(hints.get(field.partition(".")[0]))
        what = f"expected one of {', '.join(wanted)}" if wanted else "not a value that there is"
    elif "datetime" in what:
        what = "expected an ISO 8601 time with its zone, such as 2026-11-26T09:00:00Z"
    return field, what.replace("`", "")


def _choices(hint: object) -> list[str]:
    """Give the words of a literal, which may be optional."""
    if get_origin(hint) is Literal:
        return [str(word) for word in get_args(hint)]
    return [word for option in get_args(hint) for word in _choices(option)]
