"""Keys and projects over HTTP: for admins, but for what a key says of itself.

Invariant: a key is in one answer only, the one to its making; all others show its last four
characters.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from proxy.access import principal_of
from proxy.api import request_body
from proxy.api.answers import json_answer, not_found
from proxy.api.granting import Granting
from proxy.api.units import iso, iso_or_none, usd
from proxy.errors import error_response
from proxy.keyring import KEY_PREFIX, hashed, new_secret
from storage import api_keys
from storage.api_keys import Conflict
from storage.database import Transaction
from storage.grants import ApiKey, Project, Scope

# A project's name stands in headers, on command lines and in names of environment variables. In
# Python `$` matches before a last line break as well; these are patterns of JSON Schema, too.
ProjectName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}(?!\n)$")]
KeyName = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]+(?!\n)$")
]
Usd = Annotated[float, Meta(ge=0, le=1_000_000)]
CallsPerMinute = Annotated[int, Meta(ge=1, le=1_000_000)]
_NUSD: Final = 1_000_000_000


class NewProject(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of POST /api/projects."""

    name: ProjectName
    session_budget_usd: Usd | None = None


class ProjectChange(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of PATCH /api/projects/{name}; what it leaves out stays, null takes a limit away."""

    name: ProjectName | UnsetType = UNSET
    session_budget_usd: Usd | UnsetType | None = UNSET


class NewKey(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of POST /api/keys; without `project` it is the project of the request."""

    name: KeyName
    scope: Scope
    project: ProjectName | None = None
    calls_per_minute: CallsPerMinute | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectView:
    """A project; `session_budget_usd` is null where a session may cost what it likes."""

    name: str
    created_at: str
    session_budget_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """A key as it may be shown. `last_used_at` is right to the minute."""

    id: int
    name: str
    project: str
    scope: Scope
    last_four: str
    created_at: str
    last_used_at: str | None
    revoked_at: str | None
    calls_per_minute: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeKeyView:
    """A key that was just made, and the only time that `key` is shown."""

    key: str
    id: int
    name: str
    project: str
    scope: Scope
    last_four: str
    created_at: str
    calls_per_minute: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfView:
    """What the caller may do, and where; `key` is null where none is needed."""

    project: str
    scope: Scope
    keys_are_on: bool
    key: KeyView | None


class Keys:
    """The handlers of /api/keys, /api/projects and /api/self."""

    def __init__(self, granting: Granting) -> None:
        self._granting = granting
        self._keyring = granting.keyring

    async def list(self, _: web.Request) -> web.Response:
        """GET /api/keys: those of all projects, newest first, the revoked ones among them."""
        found = self.views()
        return json_answer({"keys": found, "count": len(found)})

    def views(self) -> Sequence[KeyView]:
        """Give all keys, newest first."""
        return [self._key_view(key) for key in reversed(self._keyring.keys)]

    async def create(self, request: web.Request) -> web.Response:
        """POST /api/keys: make a key; the answer is the only place where it stands."""
        asked = await request_body.read(request, NewKey)
        project = principal_of(request).project
        if asked.project is not None and asked.project != project.name:
            named = self._keyring.project_named(asked.project)
            if named is None:
                return not_found("project")
            project = named
        made = await self.make(project, asked)
        if isinstance(made, Conflict):
            return _conflict(made)
        return json_answer(made, status=201)

    async def make(self, project: Project, asked: NewKey) -> MadeKeyView | Conflict:
        """Make a key in a project."""
        secret = new_secret(KEY_PREFIX)

        def work(tx: Transaction, now_us: int) -> int | Conflict:
            return api_keys.create_key(
                tx,
                project_id=project.id,
                name=asked.name,
                scope=asked.scope,
                sha256=hashed(secret),
                last_four=secret[-4:],
                now_us=now_us,
                calls_per_minute=asked.calls_per_minute,
            )

        made = await self._granting.change(work)
        if isinstance(made, Conflict):
            return made
        key = self._keyring.key(secret)
        assert key is not None  # noqa: S101 (it was written a moment ago)
        return MadeKeyView(
            key=secret,
            id=key.id,
            name=key.name,
            project=project.name,
            scope=key.scope,
            last_four=key.last_four,
            created_at=iso(key.created_at_us),
            calls_per_minute=key.calls_per_minute,
        )

    async def revoke(self, request: web.Request) -> web.Response:
        """DELETE /api/keys/{id}: nobody comes in with it any more, from the next request on."""
        text = request.match_info["id"]
        key_id = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        found = await self.end(key_id)
        return not_found("key") if found is None else json_answer(found)

    async def end(self, key_id: int) -> KeyView | None:
        """Revoke a key; None where there is no such key."""
        if self._keyring.key_by_id(key_id) is None:
            return None
        await self._granting.change(functools.partial(_revoke, key_id=key_id))
        key = self._keyring.key_by_id(key_id)
        return None if key is None else self._key_view(key)

    async def list_projects(self, _: web.Request) -> web.Response:
        """GET /api/projects: all of them, oldest first."""
        found = self.project_views()
        return json_answer({"projects": found, "count": len(found)})

    def project_views(self) -> Sequence[ProjectView]:
        """Give all projects, oldest first."""
        return [_project_view(project) for project in self._keyring.projects]

    async def create_project(self, request: web.Request) -> web.Response:
        """POST /api/projects: make a room of its own for sessions."""
        made = await self.make_project(await request_body.read(request, NewProject))
        return _conflict(made) if isinstance(made, Conflict) else json_answer(made, status=201)

    async def make_project(self, asked: NewProject) -> ProjectView | Conflict:
        """Make a project."""
        tries: list[int] = []

        def work(tx: Transaction, now_us: int) -> int | Conflict:
            made = api_keys.create_project(tx, asked.name, now_us, tries)
            if isinstance(made, int) and asked.session_budget_usd is not None:
                api_keys.set_session_budget(tx, made, _nusd(asked.session_budget_usd))
            return made

        made = await self._granting.change(work)
        if isinstance(made, Conflict):
            return made
        return _project_view(self._keyring.project(made) or self._keyring.default_project)

    async def change_project(self, request: web.Request) -> web.Response:
        """PATCH /api/projects/{name}: another name, or another budget for its sessions."""
        asked = await request_body.read(request, ProjectChange)
        project = self._keyring.project_named(request.match_info["name"])
        if project is None:
            return not_found("project")
        changed = await self.change(project, asked)
        return _conflict(changed) if isinstance(changed, Conflict) else json_answer(changed)

    async def change(self, project: Project, asked: ProjectChange) -> ProjectView | Conflict:
        """Change a project."""

        def work(tx: Transaction, _: int) -> Conflict | None:
            if asked.name is not UNSET:
                conflict = api_keys.rename_project(tx, project.id, asked.name)
                if conflict is not None:
                    return conflict
            if asked.session_budget_usd is not UNSET:
                budget = asked.session_budget_usd
                api_keys.set_session_budget(
                    tx, project.id, None if budget is None else _nusd(budget)
                )
            return None

        conflict = await self._granting.change(work)
        return conflict or _project_view(self._keyring.project(project.id) or project)

    async def whoami(self, request: web.Request) -> web.Response:
        """GET /api/self: who the caller is."""
        principal = principal_of(request)
        key = None if principal.key is None else self._keyring.key_by_id(principal.key.id)
        return json_answer(
            SelfView(
                project=principal.project.name,
                scope=principal.scope,
                keys_are_on=self._keyring.keys_are_on,
                key=None if key is None else self._key_view(key),
            )
        )

    def _key_view(self, key: ApiKey) -> KeyView:
        project = self._keyring.project(key.project_id)
        return KeyView(
            id=key.id,
            name=key.name,
            project=project.name if project is not None else "",
            scope=key.scope,
            last_four=key.last_four,
            created_at=iso(key.created_at_us),
            last_used_at=iso_or_none(key.last_used_at_us),
            revoked_at=iso_or_none(key.revoked_at_us),
            calls_per_minute=key.calls_per_minute,
        )


def _revoke(tx: Transaction, now_us: int, *, key_id: int) -> None:
    api_keys.revoke_key(tx, key_id, now_us)


def _project_view(project: Project) -> ProjectView:
    return ProjectView(
        name=project.name,
        created_at=iso(project.created_at_us),
        session_budget_usd=usd(project.session_budget_nusd),
    )


def _nusd(amount_usd: float) -> int:
    return round(amount_usd * _NUSD)


def _conflict(conflict: Conflict) -> web.Response:
    return error_response(409, "conflict", conflict.reason)
