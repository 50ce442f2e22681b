"""Who may talk to this server at all: checks that come before every route. Pure but for the answer.

The danger on a developer's machine is a web page: DNS rebinding gives it our address
under its own name, and a simple POST needs no permission. Invariant: a request for another host,
or from another origin, reaches no handler, so that it costs nothing and changes nothing.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import HttpVersion10, HttpVersion11, web

from proxy.errors import error_response
from proxy.reaper import speak_1_1

# Both sides of the relay share this bound; a line or a field has 64 KiB, a head 1,000 fields.
MAX_HEAD_BYTES: Final = 256 * 1024
_VERSIONS: Final = (HttpVersion11, HttpVersion10)
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Fetch Metadata (W3C): what a page of another origin cannot leave out or forge.
_OWN_SITES: Final = frozenset({"same-origin", "none"})

# The one address that pages of other origins may be allowed to read ([server] allowed_origins).
EVENTS: Final = "/api/events"

# No pages either.
_NO_PAGES: Final = frozenset({"/api", "/metrics", "/v1/traces", "/mcp"})

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:]*)(?::[0-9]*)?")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusal(Exception):
    """A request that is turned away: status, code and one sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Guard:
    """Checks target, Host and Origin of a request."""

    def __init__(self, hosts: Iterable[str], origins: Iterable[str] = ()) -> None:
        """Allow the loopback names and `hosts`, names and addresses without ports.

        Pages of `origins` may read the event stream, and nothing else.
        """
        self._hosts = _LOCAL | {_as_in_header(host) for host in hosts}
        self._origins = frozenset(origins)

    def check(self, request: web.Request) -> None:
        """Let a request pass.

        Raises:
            Refusal: not origin-form, a foreign Host (421), a foreign Origin (403), a head too big,
                another protocol (505).
        """
        if request.version not in _VERSIONS:
            raise Refusal(505, "unknown_version", "the version must be HTTP/1.1 or HTTP/1.0")
        target = request.raw_path
        if not target.startswith("/") or "#" in target or "\\" in target.partition("?")[0]:
            raise Refusal(400, "bad_target", "the request target must be a path, as /api/...")
        if sum(len(name) + len(value) for name, value in request.raw_headers) > MAX_HEAD_BYTES:
            raise Refusal(
                431, "head_too_large", f"the headers are larger than {MAX_HEAD_BYTES} bytes in all"
            )
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or host_name(hosts[0]) not in self._hosts:
            shown = ", ".join(hosts)[:100] or "missing"
            raise Refusal(
                421,
                "foreign_host",
                f"this server does not answer for Host {shown!r}: use 127.0.0.1 or localhost, or"
                " add the name to [server] allowed_hosts",
            )
        origins = request.headers.getall("Origin", [])
        if origins and self._may_watch(request, origins):
            return
        for origin in origins:
            if not _is_own(origin, hosts[0]):
                raise Refusal(
                    403, "foreign_origin", f"pages of {origin[:100]!r} may not call this server"
                )
        sites = request.headers.getall("Sec-Fetch-Site", [])
        if not _OWN_SITES.issuperset(sites) and not _follows_a_link(request):
            raise Refusal(403, "cross_site", "pages of other sites may not call this server")

    def _may_watch(self, request: web.Request, origins: Sequence[str]) -> bool:
        """Tell whether a page of another origin is one that may read the event stream."""
        is_known = len(origins) == 1 and origins[0].lower() in self._origins
        return is_known and request.method == "GET" and request.path == EVENTS

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Run the checks before the handler, on every route and on those that do not exist."""
        try:
            self.check(request)
        except Refusal as refusal:
            response = error_response(refusal.status, refusal.code, str(refusal))
            if refusal.status == 505:
                speak_1_1(request)
                response.force_close()
            return response
        return await handler(request)


def shared_with(request: web.Request) -> dict[str, str]:
    """Give the headers that let a page of another origin read what it may ask for, once let in."""
    origin = request.headers.get("Origin")
    if origin is None or _is_own(origin, request.headers["Host"]):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def host_name(authority: str) -> str:
    """Give the name of a Host value in lower case, without port and trailing dot; "" for none."""
    found = _AUTHORITY.fullmatch(authority)
    return found[1].lower().removesuffix(".") if found else ""


def _follows_a_link(request: web.Request) -> bool:
    """Tell whether a browser opens one of our pages in a tab of its own, from wherever.

    Such a GET changes nothing, and the page that holds the link can neither frame nor read ours.
    """
    path = request.path
    return (
        request.method == "GET"
        and request.headers.getall("Sec-Fetch-Mode", []) == ["navigate"]
        and request.headers.getall("Sec-Fetch-Dest", []) == ["document"]
        and not path.startswith("/api/")
        and path not in _NO_PAGES
    )


def _as_in_header(host: str) -> str:
    """Write a configured name or address as browsers do in `Host`, in lower case."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower().rstrip(".")
    return f"[{address}]" if address.version == 6 else str(address)


def _is_own(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
