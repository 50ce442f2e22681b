"""The JSON that a request brings: read strictly into a struct, within a bound.

Invariant: what is wrong with it is said by field and kind, never by value, which may be a key.
"""

import re
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from proxy.api.params import BadParameter

T = TypeVar("T", bound=msgspec.Struct)

# A name and some figures: a body of more is none of these.
MAX_BYTES: Final = 64 * 1024
_VALUE: Final = re.compile(r" '.*'", re.DOTALL)
# The name of a field that is not known is shown where it looks like one: it may be a value, too.
_ODD_NAME: Final = re.compile(r"(?<=unknown field) `(?![a-z_]{1,40}`).*`", re.DOTALL)


async def read(request: web.Request, kind: type[T]) -> T:
    """Read the body as a struct (`forbid_unknown_fields`: a slip of the pen is a mistake).

    Raises:
        BadParameter: it is no JSON, not what is expected, or larger than ``MAX_BYTES``.
    """
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MAX_BYTES:
            raise BadParameter(f"the body must have at most {MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except msgspec.ValidationError as error:
        what = _ODD_NAME.sub("", _VALUE.sub("", str(error)))
        what = what.replace("`", "").replace(" - at $.", " for ")
        raise BadParameter(f"the body is not what it should be: {what}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadParameter("the body must be JSON, an object") from None
