"""What a form brings: its fields, and the page to go on to.

Invariants: a form is read within a bound; whatever an address says, a browser is sent on to a page
of ours and to nothing else. Where a form comes from is access.py's to check.
"""

import re
from collections.abc import Mapping
from typing import Final, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import web

from proxy.access import check_still
from proxy.api import request_body
from proxy.api.params import BadParameter

T = TypeVar("T", bound=msgspec.Struct)

HOME: Final = "/sessions"
_KIND: Final = "application/x-www-form-urlencoded"
# Fields of one form; ours have six.
_MAX_FIELDS: Final = 20
# Characters of an address to go back to. A search has 2,000, each of which may take nine.
_MAX_BACK: Final = 20_000
# Our pages alone, in the characters of RFC 3986: neither `\`, which browsers read as `/`, nor the
# control characters that they leave out.
_OURS: Final = re.compile(
    r"/(?:(?:sessions|traces|settings)(?:/[\w.~!$&'()*+,;=:@%-]*)*)?(?:\?[\w.~!$&'()*+,;=:@%/?-]*)?",
    re.ASCII,
)


async def read(request: web.Request, *, of_anybody: bool = False) -> dict[str, str]:
    """Read the fields of a form; of one that is there twice, the last.

    Raises:
        BadParameter: it is no form, or too large.
        Denied: whoever sends it may not any more, unless it is `of_anybody`.
    """
    if request.content_type != _KIND:
        raise BadParameter(f"a form must be sent as {_KIND}")
    body = await request_body.whole(request)
    if not of_anybody:
        check_still(request)
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        raise BadParameter("the form cannot be read") from None
    return dict(pairs)


def fill(kind: type[T], fields: Mapping[str, object], expected: Mapping[str, str]) -> T:
    """Make a struct of a form's fields; `expected` says of each what it should be.

    Raises:
        BadParameter: one is not; never with what it is.
    """
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        for name, text in expected.items():
            if f"$.{name}" in str(error) or f"`{name}`" in str(error):
                raise BadParameter(text, name) from None
        raise BadParameter("the form is not what it should be") from None


def page_of_ours(address: str) -> str:
    """Give an address back if it is that of a page of ours, and else that of the first one."""
    if len(address) > _MAX_BACK or not _OURS.fullmatch(address):
        return HOME
    # Segments that a browser resolves away, and so leaves the page that stands before them.
    path = address.partition("?")[0]
    if any(unquote(segment) in (".", "..") for segment in path.split("/")):
        return HOME
    return address


def go(address: str) -> web.Response:
    """Send a browser on to a page after what it did, so that it does not do it again."""
    return web.Response(
        status=303, headers={"Location": page_of_ours(address), "Cache-Control": "no-store"}
    )
