"""Who may come in, and where: projects, keys and sign-ins as frozen values.

Invariant: no secret is here, only hashes of them, and encrypted those that are needed again. Times
are integer microseconds UTC (``_us``), money is integer nano-USD (``_nusd``). Nothing here does
I/O.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

# What a key lets its holder do: read what is recorded; make calls and hand in traces; or both, and
# manage projects and keys, in every project.
Scope = Literal["read", "write", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("read", "write", "admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A room of its own for sessions. ``session_budget_nusd`` is None where there is no limit."""

    id: int
    name: str
    created_at_us: int
    session_budget_nusd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key of ours, as it may be shown; ``sha256`` (32 bytes) is what it is known by.

    ``last_used_at_us`` is right to the minute. ``calls_per_minute`` is None where the configuration
    says how many.
    """

    id: int
    project_id: int
    name: str
    scope: Scope
    sha256: bytes = field(repr=False)
    last_four: str
    created_at_us: int
    last_used_at_us: int | None = None
    revoked_at_us: int | None = None
    calls_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A browser that a key let in; it looks at ``project_id``."""

    sha256: bytes = field(repr=False)
    key_id: int
    project_id: int
    expires_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """A project's key for an upstream, encrypted; ``last_four`` is "" where it would tell much."""

    project_id: int
    upstream: str
    sealed: bytes = field(repr=False)
    last_four: str
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """All that there is, at one moment.

    ``number`` grows with each change: of two, the one with the higher is the newer.
    """

    number: int = 0
    projects: tuple[Project, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    sign_ins: tuple[SignIn, ...] = ()
