"""The vault: with which key a project calls an upstream.

Owns the provider keys in memory, and where each comes from: stored for the project, or in the
environment for the project, or there for all of them; the first that there is, is the one.
Invariants: to look one up does no I/O; a key goes nowhere but into the head of a call to its
upstream; no message, log or repr holds one. Knows no SQL: api/provider_keys.py has them stored.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from proxy.sealing import KeyFile, KeyFileError
from storage.grants import Project, SealedKey

VARIABLE: Final = "TRACEWAY_PROVIDER_KEY_"
# Characters. The shortest keys in use have 20; some tokens that are JWTs have 2,000.
MIN_KEY_CHARS: Final = 8
MAX_KEY_CHARS: Final = 4096
# A key is cut out of answers, so it must not be an ordinary word of them: it has a digit, or this
# many characters.
_CERTAIN_CHARS: Final = 16
# Four characters of a shorter key would be too much of it.
_SHOWN_FROM_CHARS: Final = 16
_PRINTABLE: Final = re.compile(r"[!-~]+")

_log = logging.getLogger("traceway")


class BadKey(ValueError):
    """This cannot be a provider key; the text says what one is, and nothing of what was given."""


def checked(key: str) -> str:
    """Give a key back that can be one.

    Raises:
        BadKey: it cannot.
    """
    if not (MIN_KEY_CHARS <= len(key) <= MAX_KEY_CHARS and _PRINTABLE.fullmatch(key)):
        raise BadKey(
            f"a provider key has {MIN_KEY_CHARS} to {MAX_KEY_CHARS} printable characters of ASCII"
            " and no white space"
        )
    if "tw_sk_" in key:
        raise BadKey("a provider key is one that the provider gave you; tw_sk_ keys are our own")
    if len(key) < _CERTAIN_CHARS and not any(char.isdigit() for char in key):
        raise BadKey(
            f"a provider key has a digit, or {_CERTAIN_CHARS} characters: it is cut out of"
            " everything that is recorded, where this one may be an ordinary word"
        )
    return key


def last_four(key: str) -> str:
    """Give what may be shown of a key; "" where that would be much of it."""
    return key[-4:] if len(key) >= _SHOWN_FROM_CHARS else ""


def variable(upstream: str, project: str | None = None) -> str | None:
    """Name the variable of an upstream, for all projects or for one; None where it has none.

    TRACEWAY_PROVIDER_KEY_OPENAI is for every project, TRACEWAY_PROVIDER_KEY_OPENAI__TEAM_A for one.
    """
    named = upstream.upper().replace("-", "_")
    # Else a name could be read in two ways, and one project be given the key of another.
    if "__" in named + "_":
        return None
    of_project = "" if project is None else "__" + project.upper().replace("-", "_")
    return VARIABLE + named + of_project


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKey:
    """What may be shown of a key; ``created_at_us`` is None for one of the environment."""

    upstream: str
    source: Literal["stored", "environment"]
    last_four: str
    created_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    key: str = field(repr=False)
    shown: ProviderKey


class Vault:
    """All provider keys. Lives on the event loop, but for `seal` and `load`, which read a file."""

    def __init__(
        self, environ: Mapping[str, str], upstreams: Iterable[str], key_file: KeyFile
    ) -> None:
        """Take the keys of the environment.

        Raises:
            BadKey: one cannot be a key; the text names its variable.
        """
        self._upstreams = sorted(upstreams)
        self._key_file = key_file
        self._environment: dict[str, str] = {}
        self._stored: dict[tuple[int, str], _Stored] = {}
        self._stored_count = 0
        self.number = 0
        known = {named for upstream in self._upstreams if (named := variable(upstream))}
        for name, key in environ.items():
            if not name.startswith(VARIABLE) or not key:
                continue
            try:
                self._environment[name] = checked(key)
            except BadKey as error:
                raise BadKey(f"{name} (environment): {error}") from None
            of_upstream = name.removeprefix(VARIABLE).partition("__")[0]
            if VARIABLE + of_upstream not in known:
                names = ", ".join(sorted(known))
                _log.warning("%s is of no upstream that is configured: expected %s", name, names)

    def __repr__(self) -> str:
        return f"<Vault {len(self._stored)} stored, {len(self._environment)} of the environment>"

    def load(self, stored: Iterable[SealedKey], number: int = 0) -> None:
        """Open all keys that are stored, as of change ``number``, and use these and no others.

        Raises:
            KeyFileError: the key file is not there, can be read by others, or does not fit; then
                those are in use that could be opened, as far as they are still stored.
        """
        found: dict[tuple[int, str], _Stored] = {}
        failure: KeyFileError | None = None
        known = [one for one in stored if number >= self.number]
        for sealed in known:
            try:
                key = self._key_file.open(sealed.sealed, _owner(sealed))
            except KeyFileError as error:
                failure = error
            else:
                found[sealed.project_id, sealed.upstream] = _stored(sealed, key)
        if number >= self.number:
            self._stored, self._stored_count, self.number = found, len(known), number
        if failure is not None:
            raise failure

    def key(self, project: Project, upstream: str) -> str | None:
        """Give the key with which a project calls an upstream."""
        if (stored := self._stored.get((project.id, upstream))) is not None:
            return stored.key
        return self._of_environment(project, upstream)

    def shown(self, project: Project) -> list[ProviderKey]:
        """List the keys of a project, by upstream, with what may be shown of them."""
        found = {
            upstream: ProviderKey(upstream=upstream, source="environment", last_four=last_four(key))
            for upstream in self._upstreams
            if (key := self._of_environment(project, upstream)) is not None
        }
        for (project_id, upstream), stored in self._stored.items():
            if project_id == project.id:  # also one whose upstream is no longer configured
                found[upstream] = stored.shown
        return [found[upstream] for upstream in sorted(found)]

    def seal(self, project_id: int, upstream: str, key: str, now_us: int) -> SealedKey:
        """Encrypt a key, to be stored. Reads, and at first makes, the key file: not on the loop.

        Raises:
            KeyFileError: the key file cannot be used.
        """
        unsealed = SealedKey(
            project_id=project_id,
            upstream=upstream,
            sealed=b"",
            last_four=last_four(key),
            created_at_us=now_us,
        )
        # One that is stored and could not be opened here is no reason to make another key file.
        is_first = not self._stored and not self._stored_count
        sealed = self._key_file.seal(key, _owner(unsealed), first=is_first)
        return replace(unsealed, sealed=sealed)

    def keep(self, sealed: SealedKey, key: str, number: int = 0) -> ProviderKey:
        """Use a key from now on, which change ``number`` stored; give what may be shown of it."""
        kept = self._stored[sealed.project_id, sealed.upstream] = _stored(sealed, key)
        self.number = max(self.number, number)
        return kept.shown

    def forget(self, project_id: int, upstream: str, number: int = 0) -> ProviderKey | None:
        """No longer use a key, which is not stored any more; None where there was none."""
        self.number = max(self.number, number)
        gone = self._stored.pop((project_id, upstream), None)
        return None if gone is None else gone.shown

    def _of_environment(self, project: Project, upstream: str) -> str | None:
        for name in (variable(upstream, project.name), variable(upstream)):
            if name is not None and (key := self._environment.get(name)) is not None:
                return key
        return None


def _stored(sealed: SealedKey, key: str) -> _Stored:
    shown = ProviderKey(
        upstream=sealed.upstream,
        source="stored",
        last_four=sealed.last_four,
        created_at_us=sealed.created_at_us,
    )
    return _Stored(key, shown)


def _owner(key: SealedKey) -> str:
    """Name whose a sealed key is; what is sealed for one owner opens for no other."""
    return f"traceway provider key {key.project_id} {key.upstream}"
