"""Signing in to the pages, out of them, and from one project to another.

A key is exchanged for a cookie, once, so that no page and no script holds it. Invariants: the
cookie is a secret of its own, stored by its hash; every wrong key has the same answer, slowed as
access.py slows them all; what was typed is never shown again. Who is let in where is access.py's.
"""

import functools
from typing import Final

from aiohttp import web

from proxy.access import (
    COOKIE,
    PROJECT_COOKIE,
    Access,
    Denied,
    principal_of,
)
from proxy.api.granting import Granting
from proxy.api.params import BadParameter
from proxy.keyring import SIGN_IN_PREFIX, hashed, new_secret
from proxy.ui import forms
from proxy.ui.frame import Frame, came_by_https
from storage import api_keys
from storage.database import Transaction
from storage.grants import ApiKey, SignIn

# How long a browser stays signed in.
SIGN_IN_S: Final = 30 * 86_400
# The same for a key that is none, was revoked, or never was.
_WRONG: Final = "That is no key of this server, or it was revoked."
_WRITES: Final = (
    "A key of scope write makes calls and may read nothing. These pages need one of scope read or"
    " admin."
)


class SignInPages:
    """The handlers of /sign-in, /sign-out and /project, and what is shown to who may not come."""

    def __init__(self, frame: Frame, access: Access, granting: Granting) -> None:
        self._frame = frame
        self._access = access
        self._granting = granting
        self._keyring = granting.keyring

    def refused(self, request: web.Request, denied: Denied) -> web.Response:
        """Answer for a page that whoever asks may not see: with the way in, where it stands."""
        back = forms.page_of_ours(request.raw_path) if request.method == "GET" else forms.HOME
        if denied.status == 401:
            response = self._form(request, back, status=401)
        else:
            response = self._frame.render(
                request,
                "problem.html",
                status=denied.status,
                title="Not with this key" if denied.status == 403 else "Not here",
                message=f"{str(denied)[:1].upper()}{str(denied)[1:]}.",
                sign_in_at=back if self._keyring.keys_are_on else None,
            )
        # For the scripts of an open page, which show none of this.
        response.headers["X-Traceway-Error"] = denied.code
        return response

    async def form(self, request: web.Request) -> web.Response:
        """GET /sign-in?back=: the form, also for who is signed in with another key."""
        if not self._keyring.keys_are_on:
            return forms.go(forms.HOME)
        return self._form(request, forms.page_of_ours(request.query.get("back", "")))

    async def sign_in(self, request: web.Request) -> web.Response:
        """POST /sign-in: let the browser in, and on to where it wanted to go."""
        fields = await forms.read(request, of_anybody=True)
        back = forms.page_of_ours(fields.get("back", ""))
        if not self._keyring.keys_are_on:
            return forms.go(back)
        key = self._keyring.key(fields.get("key", "").strip())
        if key is None:
            await self._access.slow_down(request)
            return self._form(request, back, status=401, problem=_WRONG)
        if key.scope == "write":
            return self._form(request, back, status=403, problem=_WRITES)
        response = forms.go(back)
        await self.let_in(request, response, key)
        return response

    async def let_in(self, request: web.Request, response: web.Response, key: ApiKey) -> None:
        """Sign a browser in with a key, in this answer; whatever it was signed in with, it leaves.

        Raises:
            StorageError: the database does not take it.
        """
        secret = new_secret(SIGN_IN_PREFIX)
        before = request.cookies.get(COOKIE)

        def work(tx: Transaction, now_us: int) -> None:
            if before is not None:
                api_keys.sign_out(tx, hashed(before))
            one = SignIn(
                sha256=hashed(secret),
                key_id=key.id,
                project_id=key.project_id,
                expires_at_us=now_us + SIGN_IN_S * 1_000_000,
            )
            api_keys.sign_in(tx, one, now_us)

        await self._granting.change(work)
        response.set_cookie(
            COOKIE,
            secret,
            max_age=SIGN_IN_S,
            path="/",
            secure=came_by_https(request),
            httponly=True,
            samesite="Strict",
        )

    async def sign_out(self, request: web.Request) -> web.Response:
        """POST /sign-out: forget the browser, here and there."""
        if (sign_in := principal_of(request).sign_in) is not None:
            await self._granting.change(functools.partial(_sign_out, sha256=sign_in.sha256))
        response = forms.go("/sessions")
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        # What a browser holds to go back to. Not "cookies": those of other ports would go as well.
        response.headers["Clear-Site-Data"] = '"cache"'
        return response

    async def switch(self, request: web.Request) -> web.Response:
        """POST /project: have this browser look at another project."""
        fields = await forms.read(request)
        project = self._keyring.project_named(fields.get("project", ""))
        if project is None:
            raise BadParameter("there is no project of this name any more")
        principal = principal_of(request)
        response = forms.go(fields.get("back", ""))
        if principal.sign_in is not None:
            work = functools.partial(
                _switch, sha256=principal.sign_in.sha256, project_id=project.id
            )
            await self._granting.change(work)
        elif principal.way == "open":
            response.set_cookie(
                PROJECT_COOKIE,
                str(project.id),
                path="/",
                secure=came_by_https(request),
                httponly=True,
                samesite="Strict",
            )
        else:
            raise BadParameter("a key names the project of each request in X-Traceway-Project")
        return response

    def _form(
        self, request: web.Request, back: str, *, status: int = 200, problem: str | None = None
    ) -> web.Response:
        return self._frame.render(
            request, "sign_in.html", status=status, back=back, problem=problem
        )


def _sign_out(tx: Transaction, _: int, *, sha256: bytes) -> None:
    api_keys.sign_out(tx, sha256)


def _switch(tx: Transaction, _: int, *, sha256: bytes, project_id: int) -> None:
    api_keys.switch_project(tx, sha256, project_id)
