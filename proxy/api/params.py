"""What a query string and a path say, read strictly: a mistake is a 400 that names the parameter.

A cursor is the place of the last row of a page, (time, seq), opaque to clients. Pure.
"""

import base64
import binascii
import re
from typing import Final

from aiohttp import web

MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 50
_CURSOR: Final = re.compile(r"(\d{1,19}):(\d{1,19})")
_HEX: Final = re.compile(r"[0-9a-f]*")


class BadParameter(ValueError):
    """A parameter has a value that it cannot have."""


def limit(request: web.Request, default: int = DEFAULT_LIMIT, most: int = MAX_LIMIT) -> int:
    """Read `limit`.

    Raises:
        BadParameter: not an integer from 1 to `most`.
    """
    text = request.query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= most):
        raise BadParameter(f"limit must be an integer from 1 to {most}, not {text[:40]!r}")
    return int(text)


def cursor(request: web.Request) -> tuple[int, int] | None:
    """Read `cursor`; None where the list begins.

    Raises:
        BadParameter: it did not come from an earlier page.
    """
    text = request.query.get("cursor")
    if not text:
        return None
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        found = _CURSOR.fullmatch(data.decode("ascii"))
    except (binascii.Error, ValueError):
        found = None
    if found is None or max(int(found[1]), int(found[2])) >= 2**63:
        raise BadParameter("cursor must be the one that an earlier page gave")
    return int(found[1]), int(found[2])


def encode_cursor(after: tuple[int, int] | None) -> str | None:
    """Write the cursor that continues after a row; None at the end."""
    if after is None:
        return None
    return base64.urlsafe_b64encode(f"{after[0]}:{after[1]}".encode()).decode().rstrip("=")


def hex_id(text: str, digits: int) -> bytes | None:
    """Read an id of so many lower-case hex digits; None for anything else, which names nothing."""
    if len(text) != digits or not _HEX.fullmatch(text):
        return None
    return bytes.fromhex(text)
