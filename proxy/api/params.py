"""What a query string and a path say, read strictly: a mistake is a 400 that names the parameter.

A cursor is the place of the last row of a page, (time, seq), opaque to clients. Pure.
"""

import base64
import binascii
import re
from typing import Final

from aiohttp import web

from storage.fulltext import MAX_TERMS

MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 50
_TERM: Final = re.compile(r'"(?P<phrase>[^"]*)(?P<closed>"?)|(?P<word>(?:-?(?P<key>\w+):)?[^\s"]*)')
# The keys of the search language, which is not there yet.
_SEARCH_KEYS: Final = frozenset(
    (
        *("session", "cost", "tokens", "input_tokens", "output_tokens", "duration", "traces"),
        *("spans", "errors", "model", "provider", "status", "user", "source", "starred"),
        *("since", "until", "input", "output"),
    )
)
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


def place(request: web.Request, name: str) -> int:
    """Read a place in a list, counted from 0, which is where it begins.

    Raises:
        BadParameter: not an integer from 0 on.
    """
    text = request.query.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadParameter(f"{name} must be an integer from 0 on, not {text[:40]!r}")
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
        raise BadParameter("id is missing") from None


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


def search(request: web.Request) -> tuple[str, ...]:
    """Read `q`: the words, and the phrases between quotes, that must all occur; () without any.

    Raises:
        BadParameter: it has a key of the search language, an open quote, or too many terms.
    """
    terms: list[str] = []
    for found in _TERM.finditer(request.query.get("q", "")):
        place = f"q, character {found.start() + 1}"
        if (found["key"] or "").lower() in _SEARCH_KEYS:
            raise BadParameter(
                f"{place}: {found['key']}: is not searched by yet; words and"
                ' "quoted phrases" are, and in quotes this is one'
            )
        if found["phrase"] is not None and not found["closed"]:
            raise BadParameter(f"{place}: a quote is opened and not closed")
        if term := (found["phrase"] or found["word"] or "").strip():
            terms.append(term)
    if len(terms) > MAX_TERMS:
        raise BadParameter(f"q has {len(terms)} words and phrases; it may have {MAX_TERMS}")
    return tuple(terms)


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
