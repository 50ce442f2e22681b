"""GET /api/events: what changes, as it changes, as server-sent events. docs/events.md has the wire.

Owns the request's meaning and the socket. Invariant: a subscriber costs at most what its socket's
buffer holds; one that takes nothing is told ``resync``, as far as it still listens, and dropped.
"""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from proxy.access import Access, principal_of
from proxy.api.answers import json_answer
from proxy.api.frames import RESYNC, Wants
from proxy.api.hubs import MAX_SUBSCRIBERS, Hubs, TooManySubscribers
from proxy.api.params import BadParameter
from proxy.errors import error_response
from proxy.guard import shared_with
from proxy.tickets import TICKET_S
from storage.events import TYPES

# A subscriber that takes nothing for so long is dropped, and so long it may take to read why.
STALL_S: Final = 10.0
GRACE_S: Final = 10.0
_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events before it sends them on
    "X-Content-Type-Options": "nosniff",
}
# Numbers of events count up from 1: at 10,000 a second, a million years have no more digits.
_DIGITS: Final = 18
MAX_NUMBER: Final = 10**_DIGITS - 1
_NUMBER: Final = re.compile(rf"\d{{1,{_DIGITS}}}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketView:
    """What opens the stream once, as `?token=`, within so many seconds."""

    token: str
    expires_in_s: float


class Events:
    """The handlers of /api/events and /api/events/tickets."""

    def __init__(self, hubs: Hubs, access: Access) -> None:
        self._hubs = hubs
        self._access = access

    async def ticket(self, request: web.Request) -> web.Response:
        """POST /api/events/tickets: let a page open the stream that can send no key."""
        token = await self._access.tickets.issue(principal_of(request), time.monotonic())
        return json_answer(TicketView(token=token, expires_in_s=TICKET_S), status=201)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET /api/events?since=&session=&kind=&model=&progress=1, until the client leaves.

        It also ends when what let the client in no longer does; seen at the next event or comment.
        """
        since, wants = _since(request), _wants(request)
        principal = principal_of(request)
        response = web.StreamResponse(headers={**_HEADERS, **shared_with(request)})
        response.force_close()
        try:
            async with self._hubs.subscribe(principal.project.id, since, wants) as frames:
                await response.prepare(request)
                async for data in frames:
                    if not self._access.is_still(principal):
                        break
                    async with asyncio.timeout(STALL_S):
                        await response.write(data)
        except TooManySubscribers:
            message = (
                f"{MAX_SUBSCRIBERS} subscribers watch already; that is as many as there may be"
            )
            return error_response(503, "too_many_subscribers", message)
        except TimeoutError:
            await _drop(request, response)
        except ConnectionError:
            pass  # it left
        return response


async def _drop(request: web.Request, response: web.StreamResponse) -> None:
    """Tell a subscriber that takes nothing to begin anew, without waiting for it."""
    transport = request.transport
    if transport is None:
        return
    asyncio.get_running_loop().call_later(GRACE_S, transport.abort)
    try:
        async with asyncio.timeout(0):
            await response.write(RESYNC)
    except (TimeoutError, ConnectionError):
        pass  # it is in the buffer, or nobody is there


def _since(request: web.Request) -> int | None:
    """Read after which event to begin: a browser's own word wins, since it is the newer one."""
    for name, text in (
        ("Last-Event-ID", request.headers.get("Last-Event-ID")),
        ("since", request.query.get("since")),
    ):
        if text:
            if not _NUMBER.fullmatch(text):
                raise BadParameter(f"{name} must be the number of an event, not {text[:40]!r}")
            return int(text)
    return None


def _wants(request: web.Request) -> Wants:
    query = request.query
    kinds = frozenset(query["kind"].split(",")) if query.get("kind") else None
    if kinds is not None and (unknown := kinds.difference(TYPES)):
        known = ", ".join(TYPES)
        raise BadParameter(f"kind must be of {known}, not {min(unknown)[:40]!r}")
    progress = query.get("progress", "0")
    if progress not in ("0", "1"):
        raise BadParameter(f"progress must be 0 or 1, not {progress[:40]!r}")
    return Wants(
        session_id=query.get("session"),
        kinds=kinds,
        model=query.get("model"),
        progress=progress == "1",
    )
