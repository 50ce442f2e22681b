"""Pictures out of stored messages, as bytes that a browser may show on our origin.

Invariant: what is served is a raster image by its own first bytes, whatever the message calls it;
never SVG or anything else that could be active, never from another host.
"""

import asyncio
import base64
import binascii
from typing import Final

from aiohttp import web

from proxy.access import project_id
from proxy.api.conversation import Conversations
from proxy.providers.reading import Part, read

_HEADERS: Final = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Pictures:
    """The handler of /pictures."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def show(self, request: web.Request) -> web.Response:
        """GET /pictures/{message}/{number}: an image of a message, counted from 0."""
        data = await self._conversations.content(project_id(request), request.match_info["message"])
        number = int(request.match_info["number"])
        found = None if data is None else await asyncio.to_thread(picture, data, number)
        if found is None:
            raise web.HTTPNotFound
        kind, image = found
        return web.Response(body=image, content_type=kind, headers=_HEADERS)


def picture(message: bytes, number: int) -> tuple[str, bytes] | None:
    """Give the media type and the bytes of a message's image; None where it is none to show."""
    found = pictures(message)
    return found[number] if number < len(found) else None


def pictures(message: bytes) -> list[tuple[str, bytes] | None]:
    """Give the media types and the bytes of all images of a message; None of what is none."""
    return [_picture(part) for part in read(message).parts if part.kind == "image"]


def _picture(part: Part) -> tuple[str, bytes] | None:
    try:
        data = base64.b64decode(part.picture or "")
    except (binascii.Error, ValueError):
        return None
    kind = _kind(data)
    return None if kind is None else (kind, data)


def _kind(data: bytes) -> str | None:
    """Tell the type of a picture by the signature that its format begins with."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
