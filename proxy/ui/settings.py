"""The settings: projects, keys, and the providers' keys of the project that is looked at.

Invariants: a key stands on one page only, the answer to its making, which nobody keeps; whoever
makes the first one, and so turns keys on, is let in with it. What is written is proxy/api's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from proxy.access import Principal, principal_of
from proxy.api.keys import Keys, NewKey, NewProject, ProjectChange
from proxy.api.params import BadParameter
from proxy.api.provider_keys import ProviderKeys
from proxy.keyring import Keyring
from proxy.sealing import KeyFileError
from proxy.ui import forms
from proxy.ui.frame import Frame, origin
from proxy.ui.sign_in import SignInPages
from proxy.ui.snippets import lines_for
from storage.api_keys import Conflict
from storage.grants import ApiKey, Project

# Revoked keys that the page shows, the newest; the API has all.
MAX_REVOKED: Final = 100
_ID: Final = re.compile(r"[1-9][0-9]{0,8}")
_NAME: Final = (
    "a project's name has 1 to 64 small letters, digits, - and _, and begins with neither"
)
_KEY_FIELDS: Final = {
    "name": "a key needs a name of 1 to 100 characters, which says who holds it",
    "scope": "the scope of a key is read, write or admin",
    "project": "there is no such project",
    "calls_per_minute": "the calls per minute are a whole number from 1 to 1,000,000, or nothing",
}
_PROJECT_FIELDS: Final = {
    "name": _NAME,
    "session_budget_usd": "a budget is an amount in USD up to 1,000,000, or nothing",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a form that was sent, and what it was filled with."""

    form: str
    fields: Mapping[str, str]
    message: str


class SettingsPage:
    """The handlers of /settings, all of them for admins."""

    def __init__(
        self,
        frame: Frame,
        keyring: Keyring,
        keys: Keys,
        providers: ProviderKeys,
        sign_in: SignInPages,
    ) -> None:
        self._frame = frame
        self._keyring = keyring
        self._keys = keys
        self._providers = providers
        self._sign_in = sign_in

    async def show(self, request: web.Request) -> web.Response:
        """GET /settings: all of it."""
        return self._page(request)

    def _page(self, request: web.Request, problem: Problem | None = None) -> web.Response:
        here = principal_of(request)
        views = self._keys.views()
        revoked = [key for key in views if key.revoked_at is not None]
        provider_keys = {key.upstream: key for key in self._providers.views(here.project)}
        return self._frame.render(
            request,
            "settings.html",
            status=200 if problem is None else 400,
            here=here,
            keys=[key for key in views if key.revoked_at is None],
            revoked=revoked[:MAX_REVOKED],
            revoked_count=len(revoked),
            projects=self._keys.project_views(),
            upstreams=self._providers.upstreams,
            provider_keys=provider_keys,
            keys_are_on=self._keyring.keys_are_on,
            mode=self._keyring.mode,
            # A new server has neither; who could manage it is then asked for first.
            scope="write" if self._admin_keys() else "admin",
            problem=problem,
        )

    async def create_key(self, request: web.Request) -> web.Response:
        """POST /settings/keys: make a key, and show it this once."""
        fields = await forms.read(request)
        try:
            project, asked = self._new_key(request, fields)
        except BadParameter as error:
            return self._page(request, Problem("key", fields, str(error)))
        were_on = self._keyring.keys_are_on
        made = await self._keys.make(project, asked)
        if isinstance(made, Conflict):
            return self._page(request, Problem("key", fields, made.reason))
        turned_on = not were_on and self._keyring.keys_are_on
        key = self._keyring.key(made.key)
        lets_in = turned_on and key is not None and key.scope != "write"
        response = self._frame.render(
            request,
            "settings_key.html",
            principal=_signed_in(project, key) if lets_in and key is not None else None,
            made=made,
            lines=lines_for(origin(request), made.key, made.scope),
            turned_on=turned_on,
            lets_in=lets_in,
            has_admin=bool(self._admin_keys()),
        )
        if lets_in and key is not None:
            await self._sign_in.let_in(request, response, key)
        return response

    def _new_key(self, request: web.Request, fields: Mapping[str, str]) -> tuple[Project, NewKey]:
        given = {name: fields[name].strip() for name in _KEY_FIELDS if fields.get(name)}
        asked = forms.fill(NewKey, given, _KEY_FIELDS)
        if asked.project is None:
            return principal_of(request).project, asked
        if (project := self._keyring.project_named(asked.project)) is None:
            raise BadParameter(_KEY_FIELDS["project"], "project")
        return project, asked

    async def ask_to_revoke(self, request: web.Request) -> web.Response:
        """GET /settings/keys/{id}/revoke: what revoking the key means."""
        key = self._key(request)
        admins = self._admin_keys()
        mine = principal_of(request).key
        return self._frame.render(
            request,
            "settings_revoke.html",
            key=key,
            project=self._project_name(key),
            is_mine=mine is not None and mine.id == key.id,
            is_last_admin=[one.id for one in admins] == [key.id],
        )

    async def revoke(self, request: web.Request) -> web.Response:
        """POST /settings/keys/{id}/revoke: revoke it."""
        await self._keys.end(self._key(request).id)
        return forms.go("/settings")

    async def create_project(self, request: web.Request) -> web.Response:
        """POST /settings/projects: make a project."""
        fields = await forms.read(request)
        try:
            asked = forms.fill(NewProject, _project(fields), _PROJECT_FIELDS)
        except BadParameter as error:
            return self._page(request, Problem("project", fields, str(error)))
        made = await self._keys.make_project(asked)
        if isinstance(made, Conflict):
            return self._page(request, Problem("project", fields, made.reason))
        return forms.go("/settings")

    async def change_project(self, request: web.Request) -> web.Response:
        """POST /settings/projects/{name}: give it another name, or its sessions a budget."""
        name = request.match_info["name"]
        project = self._keyring.project_named(name)
        if project is None:
            raise web.HTTPNotFound
        fields = await forms.read(request)
        try:
            asked = forms.fill(ProjectChange, _project(fields), _PROJECT_FIELDS)
        except BadParameter as error:
            return self._page(request, Problem(f"project {name}", fields, str(error)))
        changed = await self._keys.change(project, asked)
        if isinstance(changed, Conflict):
            return self._page(request, Problem(f"project {name}", fields, changed.reason))
        return forms.go("/settings")

    async def keep_provider_key(self, request: web.Request) -> web.Response:
        """POST /settings/provider-keys/{upstream}: store a key that is shown to nobody again."""
        upstream = self._upstream(request)
        fields = await forms.read(request)
        try:
            key = fields.get("key", "").strip()
            await self._providers.keep(principal_of(request).project, upstream, key)
        except (BadParameter, KeyFileError) as error:
            # Not what it was filled with.
            return self._page(request, Problem(f"provider {upstream}", {}, str(error)))
        return forms.go("/settings")

    async def forget_provider_key(self, request: web.Request) -> web.Response:
        """POST /settings/provider-keys/{upstream}/delete: forget the key that is stored."""
        upstream = request.match_info["upstream"]
        if await self._providers.forget(principal_of(request).project, upstream) is None:
            raise web.HTTPNotFound
        return forms.go("/settings")

    def _upstream(self, request: web.Request) -> str:
        upstream = request.match_info["upstream"]
        if upstream not in self._providers.upstreams:
            raise web.HTTPNotFound
        return upstream

    def _admin_keys(self) -> list[ApiKey]:
        return [
            key for key in self._keyring.keys if key.scope == "admin" and key.revoked_at_us is None
        ]

    def _key(self, request: web.Request) -> ApiKey:
        text = request.match_info["id"]
        key = self._keyring.key_by_id(int(text)) if _ID.fullmatch(text) else None
        if key is None or key.revoked_at_us is not None:
            raise web.HTTPNotFound
        return key

    def _project_name(self, key: ApiKey) -> str:
        project = self._keyring.project(key.project_id)
        return "" if project is None else project.name


def _project(fields: Mapping[str, str]) -> dict[str, object]:
    budget = fields.get("session_budget_usd", "").strip()
    return {"name": fields.get("name", "").strip(), "session_budget_usd": budget or None}


def _signed_in(project: Project, key: ApiKey) -> Principal:
    return Principal(project=project, scope=key.scope, key=key, way="cookie")
