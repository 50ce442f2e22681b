"""The keys with which a project calls upstreams, over HTTP: for admins, and to be written only.

Invariants: no answer holds a key, nor does the database, but sealed; a key that an answer says is
stored is the one of the next call.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec
from aiohttp import web

from proxy.access import principal_of
from proxy.api import request_body
from proxy.api.answers import json_answer, not_found
from proxy.api.params import BadParameter
from proxy.api.units import iso_or_none
from proxy.errors import error_response
from proxy.recorder import Recorder
from proxy.sealing import KeyFileError
from proxy.vault import BadKey, ProviderKey, Vault, checked
from storage import provider_keys
from storage.api_keys import begin_change
from storage.database import Transaction
from storage.grants import Project

T = TypeVar("T")


class NewProviderKey(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of PUT /api/provider-keys/{upstream}."""

    key: str

    def __repr__(self) -> str:
        return "NewProviderKey()"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKeyView:
    """A provider key as it may be shown.

    `last_four` is null for a short key, `created_at` for one of the environment.
    """

    upstream: str
    source: Literal["stored", "environment"]
    last_four: str | None
    created_at: str | None


class ProviderKeys:
    """The handlers of /api/provider-keys; ``changed`` is as that of ``Granting``."""

    def __init__(self, vault: Vault, recorder: Recorder, upstreams: Collection[str]) -> None:
        self._vault = vault
        self._recorder = recorder
        self._upstreams = frozenset(upstreams)
        self.changed: Callable[[], None] = lambda: None
        self._one = asyncio.Lock()

    @property
    def upstreams(self) -> Sequence[str]:
        """Name the upstreams that a key can be stored for."""
        return sorted(self._upstreams)

    async def list(self, request: web.Request) -> web.Response:
        """GET /api/provider-keys: those of the request's project, by upstream."""
        found = self.views(principal_of(request).project)
        return json_answer({"provider_keys": found, "count": len(found)})

    def views(self, project: Project) -> Sequence[ProviderKeyView]:
        """Give the keys of a project, by upstream."""
        return [_view(key) for key in self._vault.shown(project)]

    async def put(self, request: web.Request) -> web.Response:
        """PUT /api/provider-keys/{upstream}: the project's calls go there with it from now on."""
        upstream = request.match_info["upstream"]
        asked = await request_body.read(request, NewProviderKey)
        if upstream not in self._upstreams:
            known = ", ".join(sorted(self._upstreams))
            message = f"there is no upstream {upstream[:64]!r}; the configuration has {known}"
            return error_response(404, "unknown_upstream", message)
        try:
            stored = await self.keep(principal_of(request).project, upstream, asked.key)
        except KeyFileError as error:
            return error_response(503, "key_file_unusable", str(error))
        return json_answer(stored)

    async def keep(self, project: Project, upstream: str, key: str) -> ProviderKeyView:
        """Store a key for an upstream that there is.

        Raises:
            BadParameter: it cannot be a key.
            KeyFileError: the key file cannot be used.
        """
        try:
            checked(key)
        except BadKey as error:
            raise BadParameter(str(error), "key") from None
        now_us = time.time_ns() // 1000
        async with self._one:
            sealed = await asyncio.to_thread(self._vault.seal, project.id, upstream, key, now_us)
            stored = await self._write(
                functools.partial(provider_keys.put, key=sealed),
                lambda number: self._vault.keep(sealed, key, number),
            )
        return _view(stored)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /api/provider-keys/{upstream}: the stored one; what the environment has, stays."""
        gone = await self.forget(principal_of(request).project, request.match_info["upstream"])
        return not_found("stored provider key") if gone is None else json_answer(gone)

    async def forget(self, project: Project, upstream: str) -> ProviderKeyView | None:
        """Delete a stored key, and give what could be shown of it; None where there is none."""
        async with self._one:
            deleted = await self._write(
                functools.partial(provider_keys.delete, project_id=project.id, upstream=upstream),
                lambda number: self._vault.forget(project.id, upstream, number),
            )
        return None if deleted is None else _view(deleted)

    async def _write(self, work: Callable[[Transaction], object], then: Callable[[int], T]) -> T:
        def numbered(tx: Transaction) -> int:
            number = begin_change(tx)
            work(tx)
            return number

        async def both() -> T:
            result = then(await self._recorder.change(numbered, ()))
            self.changed()
            return result

        # To its end, also when who asked for it leaves: what is written must be known here.
        return await asyncio.shield(both())


def _view(key: ProviderKey) -> ProviderKeyView:
    return ProviderKeyView(
        upstream=key.upstream,
        source=key.source,
        last_four=key.last_four or None,
        created_at=iso_or_none(key.created_at_us),
    )
