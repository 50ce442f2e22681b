"""Who makes a request, and whether they may: the one place where keys and scopes are checked.

Comes after the guard and before every handler. Invariants: each route says what it needs, and one
that says nothing needs a key; every wrong key has the same answer; a handler works in the project
that stands here and in no other. What a key stands for is the keyring's.
"""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from aiohttp import web

from proxy.errors import error_response
from proxy.guard import EVENTS, Handler, shared_with
from proxy.headers import KEY_HEADERS, OUR_COOKIE
from proxy.keyring import KEY_PREFIX, Keyring
from proxy.throttle import Throttle
from proxy.tickets import Office, Tickets
from storage.grants import SCOPES, ApiKey, Project, Scope, SignIn

Way = Literal["open", "key", "cookie", "operator"]
Need = frozenset[Scope] | None
# What a route needs: one of these scopes; nobody's, for what says no more than that we are here.
OPEN: Final[Need] = None
ANY: Final[Need] = frozenset(SCOPES)
READ: Final[Need] = frozenset({"read", "admin"})
WRITE: Final[Need] = frozenset({"write", "admin"})
ADMIN: Final[Need] = frozenset({"admin"})

OUR_KEY_HEADER: Final = "X-Traceway-Api-Key"
PROJECT_HEADER: Final = "X-Traceway-Project"
COOKIE: Final = OUR_COOKIE.decode()
# Which project a browser looks at while keys are off: its id, as text. It opens nothing.
PROJECT_COOKIE: Final = "traceway_project"
_PROXY: Final = "/api/proxy/"
# What is no page: a refusal is JSON there.
_FOR_PROGRAMS: Final = ("/api/", "/metrics", "/v1/", "/mcp")
_KEY_HEADERS: Final = tuple(name.decode() for name in KEY_HEADERS)
_SAFE: Final = frozenset({"GET", "HEAD"})
_ID: Final = re.compile(r"[1-9][0-9]{0,8}")
_LET_IN: Final = {
    "read": "reads what is recorded",
    "write": "makes calls and hands in traces",
    "admin": "does that and manages",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request: what they may do, where, and how we know.

    ``key`` is None where none is needed, and for the operator, who comes by a socket that only the
    owner of the database can open. Who comes with a ticket is whoever had it made.
    """

    project: Project
    scope: Scope
    key: ApiKey | None
    way: Way
    sign_in: SignIn | None = None


_PRINCIPAL: Final = web.RequestKey("principal", Principal)
_BY_TICKET: Final = web.RequestKey("by_ticket", Principal)


def principal_of(request: web.Request) -> Principal:
    """Give who makes a request; every request that a handler sees has one, but on open routes."""
    return request[_PRINCIPAL]


def maybe_principal_of(request: web.Request) -> Principal | None:
    """Give who makes a request, None on an open route where nobody says who they are."""
    return request.get(_PRINCIPAL)


def project_id(request: web.Request) -> int:
    """Give the project that a request is about."""
    return request[_PRINCIPAL].project.id


def check_still(request: web.Request) -> None:
    """See that who makes a request still may, when all of it has come.

    A request that is sent slowly would otherwise keep the door open to whoever lost the key: it is
    let in by its head, and what it asks for is done when its body ends.

    Raises:
        Denied: what let them in was taken away meanwhile.
    """
    if not request.app[_ACCESS].is_still(principal_of(request)):
        raise Denied(401, "unauthorized", _UNKNOWN)


class Denied(Exception):
    """Who makes a request may not: status, code and one sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


# The same for a key that is missing, wrong, revoked or no key at all.
_UNKNOWN: Final = (
    "this needs a key of this server: send it as `Authorization: Bearer tw_sk_...`, or in"
    f" {OUR_KEY_HEADER} beside your provider's key"
)
_FROM_NOWHERE: Final = (
    "a change by a page must say from which page it comes, as browsers do; others use the API with"
    " a key"
)
_NOT_BY_COOKIE: Final = "pages of other origins hand in traces with a key, not by a cookie of ours"
_OTHER_PROJECT: Final = "this key may not work in the project that X-Traceway-Project names"


class Access:
    """Lets requests in.

    ``needs`` says what each handler needs. ``refused`` answers for the pages; ``note_use`` is told
    of a key that was used, once a minute at most.
    """

    def __init__(
        self,
        keyring: Keyring,
        note_use: Callable[[ApiKey, int], None],
        refused: Callable[[web.Request, Denied], web.Response],
    ) -> None:
        self.needs: Mapping[Any, Need] = {}
        self.tickets: Office[Principal] = Tickets()
        # Where others share the database: looks whether they have let somebody in a moment ago.
        self.look_again: Callable[[], Awaitable[None]] | None = None
        self._keyless: dict[tuple[Way, int], Principal] = {}
        self._keyring = keyring
        self._note_use = note_use
        self._refused = refused
        self._throttle = Throttle()

    def guard(self, app: web.Application, needs: Mapping[Any, Need]) -> None:
        """Stand before an application's handlers, of which each needs this."""
        self.needs = needs
        app[_ACCESS] = self

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Find out who makes a request, and hand it on if they may."""
        need = self.needs.get(request.match_info.handler, ANY)
        try:
            if need is None:
                self._note_who(request)
            else:
                await self._let_in(request, need)
            self._check_form(request)
            return await handler(request)
        except Denied as denied:
            return self._answer(request, denied)

    def _note_who(self, request: web.Request) -> None:
        """Note who makes a request that anybody may make."""
        with contextlib.suppress(Denied):
            if (principal := self.identify(request)) is not None:
                request[_PRINCIPAL] = principal

    async def _let_in(self, request: web.Request, need: frozenset[Scope]) -> None:
        await self._take_ticket(request)
        principal = self.identify(request)
        if principal is None and self.look_again is not None and _offers_something(request):
            await self.look_again()
            principal = self.identify(request)
        if principal is None:
            if _offers_something(request):
                await self.slow_down(request)
            raise Denied(401, "unauthorized", _UNKNOWN)
        request[_PRINCIPAL] = principal
        _check(request, principal, need)

    async def _take_ticket(self, request: web.Request) -> None:
        """Take the ticket that a request for the events brings, where nothing else lets it in."""
        if not (_brings_ticket(request) and self._keyring.keys_are_on) or _is_operator(request):
            return
        if offered_key(request) is None:
            owner = await self.tickets.take(request.query["token"], time.monotonic())
            if owner is not None:
                request[_BY_TICKET] = owner

    def _check_form(self, request: web.Request) -> None:
        """Demand of a form, and of a change by cookie, that it says from which page it comes.

        The guard has let through only what comes from our own, where it says so; browsers do. Of
        others' pages it lets traces through, and those need a key: a cookie is for our own.
        """
        if request.method in _SAFE:
            return
        principal = maybe_principal_of(request)
        by_cookie = principal is not None and principal.way == "cookie"
        if _says_where(request):
            if by_cookie and shared_with(request):
                raise Denied(403, "forbidden", _NOT_BY_COOKIE)
            return
        is_page = not _is_api(request) and request.match_info.handler in self.needs
        if is_page or by_cookie:
            raise Denied(403, "forbidden", _FROM_NOWHERE)

    def identify(self, request: web.Request) -> Principal | None:
        """Give who makes a request; None where there is nothing that lets them in.

        Raises:
            Denied: they may not work in the project that they name, or there is none.
        """
        if not self._keyring.keys_are_on:
            found = self._without_key("open", self._looked_at(request))
        elif _is_operator(request):
            found = self._without_key("operator", self._keyring.default_project)
        else:
            known = self._known(request)
            if known is None:
                return None
            found = known
        wanted = request.headers.get(PROJECT_HEADER)
        if wanted is None or wanted == found.project.name:
            return found
        if found.scope != "admin":
            raise Denied(403, "other_project", _OTHER_PROJECT)
        if (project := self._keyring.project_named(wanted)) is None:
            raise Denied(
                404,
                "unknown_project",
                f"there is no project {wanted[:64]!r}; /api/projects has all",
            )
        return Principal(
            project=project, scope="admin", key=found.key, way=found.way, sign_in=found.sign_in
        )

    def is_still(self, principal: Principal) -> bool:
        """Tell whether somebody who was let in still would be: for what goes on for long."""
        if principal.key is None:
            return principal.way == "operator" or not self._keyring.keys_are_on
        if principal.sign_in is not None:
            return self._keyring.is_signed_in(principal.sign_in, time.time_ns() // 1000)
        return self._keyring.is_good(principal.key)

    def of_key(self, key: ApiKey) -> Principal | None:
        """Give who a key is; None where its project is gone."""
        project = self._keyring.project(key.project_id)
        if project is None:
            return None
        return Principal(project=project, scope=key.scope, key=key, way="key")

    def _without_key(self, way: Way, project: Project) -> Principal:
        """Give whoever needs no key: the same one each time, since most calls are theirs."""
        found = self._keyless.get((way, project.id))
        if found is None or found.project is not project:
            found = Principal(project=project, scope="admin", key=None, way=way)
            self._keyless[way, project.id] = found
        return found

    def _known(self, request: web.Request) -> Principal | None:
        now_us = time.time_ns() // 1000
        principal = None
        if (secret := offered_key(request)) is not None:
            key = self._keyring.key(secret)
            principal = self.of_key(key) if key is not None else None
        elif request.path.startswith(_PROXY):
            return None  # a cookie opens no way to money
        elif _brings_ticket(request):
            principal = request.get(_BY_TICKET)
            return principal if principal is not None and self.is_still(principal) else None
        elif cookie := request.cookies.get(COOKIE):
            principal = self._signed_in(cookie, now_us)
        key = principal.key if principal is not None else None
        if key is not None and self._keyring.used(key, now_us):
            self._note_use(key, now_us)
        return principal

    def _signed_in(self, cookie: str, now_us: int) -> Principal | None:
        if (found := self._keyring.sign_in(cookie, now_us)) is None:
            return None
        sign_in, key = found
        project = self._keyring.project(sign_in.project_id)
        if project is None or not (key.scope == "admin" or key.project_id == project.id):
            return None
        return Principal(project=project, scope=key.scope, key=key, way="cookie", sign_in=sign_in)

    def _looked_at(self, request: web.Request) -> Project:
        """Give the project that a browser looks at while keys are off; calls have the default."""
        default = self._keyring.default_project
        if request.path.startswith(_PROXY):
            return default
        chosen = request.cookies.get(PROJECT_COOKIE, "")
        return (self._keyring.project(int(chosen)) if _ID.fullmatch(chosen) else None) or default

    async def slow_down(self, request: web.Request) -> None:
        """Note that a request came with what lets nobody in; wait if there were many of them."""
        pause_s = self._throttle.failed(request.remote or "", time.monotonic())
        if not pause_s:
            return
        self._throttle.waiting += 1
        try:
            await asyncio.sleep(pause_s)
        finally:
            self._throttle.waiting -= 1

    def _answer(self, request: web.Request, denied: Denied) -> web.Response:
        if _is_api(request):
            response = error_response(denied.status, denied.code, str(denied))
        else:
            response = self._refused(request, denied)
        if denied.status == 401:
            # RFC 9110 section 11.6.1: a 401 says how one is let in.
            response.headers["WWW-Authenticate"] = 'Bearer realm="traceway"'
        return response


# Where an application has it.
_ACCESS: Final = web.AppKey("access", Access)


def _check(request: web.Request, principal: Principal, need: frozenset[Scope]) -> None:
    if principal.scope not in need:
        scopes = " or ".join(scope for scope in SCOPES if scope in need)
        raise Denied(
            403,
            "forbidden",
            f"a key of scope {principal.scope} {_LET_IN[principal.scope]}; this needs {scopes}",
        )


def _says_where(request: web.Request) -> bool:
    return "Origin" in request.headers or "Sec-Fetch-Site" in request.headers


def _is_api(request: web.Request) -> bool:
    return request.path.startswith(_FOR_PROGRAMS)


def offered_key(request: web.Request) -> str | None:
    """Give the key of ours that a request offers, in whatever header; None where there is none."""
    own = request.headers.get(OUR_KEY_HEADER)
    if own is not None:
        return own.strip()
    for name in _KEY_HEADERS:
        for value in request.headers.getall(name, ()):
            secret = value.rpartition(" ")[2]
            if secret.startswith(KEY_PREFIX):
                return secret
    return None


def _brings_ticket(request: web.Request) -> bool:
    return request.path == EVENTS and request.method == "GET" and "token" in request.query


def _offers_something(request: web.Request) -> bool:
    """Tell whether a request may be a guess: one that offers nothing needs no pause."""
    headers = request.headers
    return (
        OUR_KEY_HEADER in headers
        or any(name in headers for name in _KEY_HEADERS)
        or COOKIE in request.cookies
        or "token" in request.query
    )


def _is_operator(request: web.Request) -> bool:
    # By the socket's own kind: the peer's address may be unknown where it has just left.
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    return sock is not None and sock.family == socket.AF_UNIX
