"""Which keys, projects and sign-ins there are: all of them in memory, asked on every request.

Invariants: whoever changes them puts here what was written before it says so, so a key that was
revoked is refused from the next request on; where other servers share the database, api/replicas.py
puts here what they wrote, and an older state never replaces a newer. Keys are known by the SHA-256
of all of their 256 random bits: no slow hash is needed, and to look one up tells nothing about
another, because a guess has no part in common with a hash. Writing is proxy/api's; reads no clock.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

from storage.grants import ApiKey, Grants, Project, SignIn
from storage.records import DEFAULT_PROJECT

AuthMode = Literal["auto", "keys", "off"]

KEY_PREFIX: Final = "tw_sk_"
SIGN_IN_PREFIX: Final = "tw_si_"
_SECRET_BYTES: Final = 32
# Uses of a key within this time are noted once.
_USE_US: Final = 60 * 1_000_000


def new_secret(prefix: str) -> str:
    """Make a secret of 256 random bits."""
    return prefix + secrets.token_urlsafe(_SECRET_BYTES)


def hashed(secret: str) -> bytes:
    """Give what a secret is known by."""
    # Of any text, also of half a character: it is no secret of ours, and no fault.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class Keyring:
    """All that a server knows of who may come in."""

    def __init__(self, mode: AuthMode, grants: Grants) -> None:
        self.number = 0
        self._mode = mode
        self._keys: dict[int, ApiKey] = {}
        self.hold(grants)

    def hold(self, grants: Grants) -> None:
        """Know these from now on, and nothing else, unless what is known is newer."""
        if grants.number < self.number:
            return
        self.number = grants.number
        self._projects = {project.id: project for project in grants.projects}
        self._named = {project.name: project for project in grants.projects}
        self._keys = {key.id: self._as_used(key) for key in grants.keys}
        self._good = {key.sha256: key.id for key in grants.keys if key.revoked_at_us is None}
        self._sign_ins = {one.sha256: one for one in grants.sign_ins}
        self.keys_are_on = self._mode == "keys" or (self._mode == "auto" and bool(self._keys))

    @property
    def mode(self) -> AuthMode:
        """What the configuration says of keys."""
        return self._mode

    @property
    def keys(self) -> Sequence[ApiKey]:
        """All keys, also the revoked ones, oldest first."""
        return tuple(self._keys.values())

    @property
    def projects(self) -> Sequence[Project]:
        """All projects, oldest first."""
        return tuple(self._projects.values())

    @property
    def default_project(self) -> Project:
        """The project of whoever needs no key."""
        return self._projects[DEFAULT_PROJECT]

    def project(self, project_id: int) -> Project | None:
        """Give a project by its id."""
        return self._projects.get(project_id)

    def project_named(self, name: str) -> Project | None:
        """Give a project by its name."""
        return self._named.get(name)

    def key_by_id(self, key_id: int) -> ApiKey | None:
        """Give a key, also a revoked one."""
        return self._keys.get(key_id)

    def key(self, secret: str) -> ApiKey | None:
        """Give the key that a secret is, unless it was revoked."""
        key_id = self._good.get(hashed(secret))
        return None if key_id is None else self._keys[key_id]

    def is_good(self, key: ApiKey) -> bool:
        """Tell whether a key that was let in still would be."""
        return key.sha256 in self._good

    def sign_in(self, secret: str, now_us: int) -> tuple[SignIn, ApiKey] | None:
        """Give the browser that a cookie's secret is, and its key."""
        found = self._sign_ins.get(hashed(secret))
        if found is None or not self.is_signed_in(found, now_us):
            return None
        return found, self._keys[found.key_id]

    def sign_in_of(self, sha256: bytes) -> SignIn | None:
        """Give a browser by what its cookie's secret is known by."""
        return self._sign_ins.get(sha256)

    def is_signed_in(self, sign_in: SignIn, now_us: int) -> bool:
        """Tell whether a browser still is, and still looks at the same project."""
        if self._sign_ins.get(sign_in.sha256) != sign_in or sign_in.expires_at_us <= now_us:
            return False
        key = self._keys.get(sign_in.key_id)
        return key is not None and self.is_good(key)

    def used(self, key: ApiKey, now_us: int) -> bool:
        """Note that a key was used; tell whether that is to be written down."""
        known = self._keys[key.id]
        if known.last_used_at_us is not None and now_us - known.last_used_at_us < _USE_US:
            return False
        self._keys[key.id] = replace(known, last_used_at_us=now_us)
        return True

    def _as_used(self, key: ApiKey) -> ApiKey:
        """Give a key as it was read with its last use, which may be about to be written only."""
        known = self._keys.get(key.id)
        used_at_us = known.last_used_at_us if known is not None else None
        if used_at_us is None or used_at_us <= (key.last_used_at_us or 0):
            return key
        return replace(key, last_used_at_us=used_at_us)
