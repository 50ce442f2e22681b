"""The address of a PostgreSQL database, and how it is said without its password.

Invariant: the password is in ``Address.url`` alone, which prints as nothing; what is shown is
``place``. Opens connections, which never wait for ever: for an address that does not answer, for a
lock, or for a peer that is gone.
"""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from storage.database import StorageError
from storage.postgres_errors import REFUSALS, refusal

SCHEMES: Final = ("postgresql", "postgres")
CONNECT_S: Final = 5.0
# A lock that another server holds so long is its trouble; ours is to try again, and tell.
LOCK_MS: Final = 5_000
# A server of ours that hangs in a transaction lets its locks go after this.
IDLE_MS: Final = 10_000
# A peer that answers nothing for so long is gone.
PEER_S: Final = 15
KEEPALIVE_S: Final = 5

_SETTINGS: Final = {
    "application_name": "traceway",
    # Wide lists would be compiled for longer than they run.
    "jit": "off",
    "lock_timeout": str(LOCK_MS),
    "idle_in_transaction_session_timeout": str(IDLE_MS),
    # The server's side of the same.
    "tcp_keepalives_idle": str(KEEPALIVE_S),
    "tcp_keepalives_interval": str(KEEPALIVE_S),
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": str(PEER_S * 1000),
    "default_transaction_isolation": "read committed",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is; ``place`` has no password and may be shown."""

    url: str = field(repr=False)
    place: str


def is_address(text: str) -> bool:
    """Tell whether a text is meant to be the address of a PostgreSQL database."""
    return text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def address_of(url: str) -> Address:
    """Read ``postgresql://user:password@host:port/name``.

    Raises a StorageError that does not repeat it where it is none.
    """
    try:
        parts = urlsplit(url)
        # An @ behind the first / or ? is of a password that was not encoded: nothing else is sure.
        rest = parts.path + parts.query + parts.fragment
        if parts.scheme not in SCHEMES or parts.fragment or "@" in rest:
            raise ValueError
        where = parts.hostname or ""
        if ":" in where:
            where = f"[{where}]"
        if parts.port is not None:
            where = f"{where}:{parts.port}"
        if parts.username:
            where = f"{parts.username}@{where}"
        kept = [(k, v) for k, v in parse_qsl(parts.query) if k in ("host", "port", "dbname")]
        shown = urlunsplit(("postgresql", where, parts.path, urlencode(kept, safe="/"), ""))
    except ValueError:
        remedy = "write postgresql://user:password@host:port/name, with %40 for an @ in a password"
        raise StorageError("the address of the database", "it is none", remedy) from None
    # urlunsplit leaves out the slashes where nothing stands behind them.
    return Address(url, shown.replace("postgresql:/", "postgresql:///", 1) if not where else shown)


def settings_with(settings: Mapping[str, str]) -> dict[str, str]:
    """Give the settings of a connection: those that all have, and these."""
    return {**_SETTINGS, **settings}


async def connect(address: Address, settings: Mapping[str, str], **how: Any) -> asyncpg.Connection:
    """Open a connection with these settings beside those that all have.

    Raises a StorageError.
    """
    try:
        connection = await asyncpg.connect(
            address.url, timeout=CONNECT_S, server_settings=settings_with(settings), **how
        )
    except (*REFUSALS, ValueError) as error:
        # Of an address that it cannot read it tells a part, which may be the password.
        if isinstance(error, (ValueError, asyncpg.ClientConfigurationError)):
            problem = "its parameters cannot be used"
            raise StorageError(address.place, problem, "correct the address") from None
        raise refusal(address.place, error) from None
    bound_wait(connection)
    return connection


def bound_wait(connection: asyncpg.Connection) -> None:
    """Have the system give up a connection whose peer is gone."""
    transport: asyncio.Transport | None = getattr(connection, "_transport", None)
    peer = None if transport is None else transport.get_extra_info("socket")
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_S),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", PEER_S * 1000),
    ):
        if hasattr(socket, name):  # not every system has each
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
