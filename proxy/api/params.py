"""What a query string and a path say, read strictly: a mistake is a 400 that names the parameter.

What all lists have, `q` among it, is lists.py's. Pure.
"""

import re
from typing import Final

from aiohttp import web

MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 50
# Ids in one `id`: a parameter each in SQL, and 3 KiB of the request's line.
MAX_IDS: Final = 100
# Nine digits.
MAX_PLACE: Final = 999_999_999
_HEX: Final = re.compile(r"[0-9a-f]*")


class BadParameter(ValueError):
    """A parameter has a value that it cannot have; `name` is which."""

    def __init__(self, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


def limit(request: web.Request, default: int = DEFAULT_LIMIT, most: int = MAX_LIMIT) -> int:
    """Read `limit`.

    Raises:
        BadParameter: not an integer from 1 to `most`.
    """
    text = request.query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= most):
        raise BadParameter(f"limit must be an integer from 1 to {most}, not {text[:40]!r}", "limit")
    return int(text)


def place(request: web.Request, name: str) -> int:
    """Read a place in a list, counted from 0, which is where it begins.

    Raises:
        BadParameter: not an integer from 0 on.
    """
    text = request.query.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        expected = f"an integer from 0 to {MAX_PLACE}"
        raise BadParameter(f"{name} must be {expected}, not {text[:40]!r}", name)
    return int(text)


def session_id(request: web.Request) -> str:
    """Read the id of a session out of the path, or `id` where a path cannot carry it.

    Raises:
        BadParameter: it is in neither.
    """
    if "id" in request.match_info:
        return request.match_info["id"]
    try:
        return request.query["id"]
    except KeyError:
        raise BadParameter("id is missing", "id") from None


def ids(request: web.Request, digits: int) -> tuple[bytes, ...] | None:
    """Read `id`, ids of so many hex digits with commas between; None where it is not there.

    Raises:
        BadParameter: one is none, or there are more than ``MAX_IDS``.
    """
    if "id" not in request.query:
        return None
    texts = request.query["id"].split(",")
    found = [one for text in texts if (one := hex_id(text, digits)) is not None]
    if len(found) != len(texts) or len(found) > MAX_IDS:
        expected = f"up to {MAX_IDS} ids of {digits} hex digits, with commas between"
        raise BadParameter(f"id must be {expected}", "id")
    return tuple(found)


def hex_id(text: str, digits: int) -> bytes | None:
    """Read an id of so many lower-case hex digits; None for anything else, which names nothing."""
    if len(text) != digits or not _HEX.fullmatch(text):
        return None
    return bytes.fromhex(text)
