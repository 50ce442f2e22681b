"""The JSON that a request brings: read strictly into a struct, within a bound.

Invariant: what is wrong with it is said by field and kind, never by value, which may be a key.
"""

import asyncio
import re
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
_ODD_NAME: Final = re.compile(r"(?<=unknown field) `(?![a-z_]{1,40}`).*`", re.DOTALL)


async def whole(request: web.Request) -> bytes:
    """Read a body in full.

    Raises:
        BadParameter: it is larger than ``MAX_BYTES``, or does not come whole, or not in time.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(cast(Client, request.protocol).patience.body_s):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > MAX_BYTES:
                    raise BadParameter(f"the body must have at most {MAX_BYTES} bytes")
    except (web.RequestPayloadError, MalformedBody, TimeoutError):
        raise BadParameter("the body did not come whole") from None
    return bytes(body)


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
        raise _mistake(_ODD_NAME.sub("", str(error)), kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadParameter("the body must be JSON, an object") from None


def _mistake(message: str, kind: type[msgspec.Struct]) -> BadParameter:
    """Say what is wrong with a body, in msgspec's words but for the value that it quotes."""
    what, at, where = message.rpartition(" - at ")
    if not at:
        what, where = message, ""
    field = where.strip("`").removeprefix("$.")
    if what.startswith("Invalid enum value"):
        wanted = get_type_hints(kind).get(field.partition(".")[0])
        what = "not a value that there is"
        if get_origin(wanted) is Literal:
            what = f"expected one of {', '.join(map(str, get_args(wanted)))}"
    what = what.replace("`", "")
    place = f"{field}: " if field else ""
    return BadParameter(f"the body is not what it should be: {place}{what}", field or None)
