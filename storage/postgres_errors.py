"""What goes wrong with PostgreSQL, in our words: one table from its codes to our errors.

Invariant: nothing that asyncpg raises leaves storage but as a ``StorageError`` that names the
database without its password. What may pass with time is ``DatabaseLocked`` or
``DatabaseUnwritable``; a statement that will never work is ``StatementRefused``.
"""

from typing import Final

import asyncpg

from storage.database import (
    DatabaseCorrupt,
    DatabaseLocked,
    DatabaseUnwritable,
    QueryTimeout,
    StatementRefused,
    StorageError,
    TookTooLong,
)

# What asyncpg raises: for what the server says, for the wrong use of it, for a lost connection, and
# for values that it cannot send.
REFUSALS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    OverflowError,
    UnicodeError,
)
# SQLSTATE, whole or its class (postgresql.org/docs/current/errcodes-appendix.html). Those of a
# statement that another connection's work or ours ended, and that may be tried again.
_LOCKED: Final = frozenset({"55P03", "40P01", "40001", "25P02"})
# No connection, or none that may write: down, starting, failed over, full, forbidden.
_AWAY: Final = frozenset({"25006", "42501", "3D000"})
_AWAY_CLASSES: Final = frozenset({"08", "28", "53", "57", "58"})
_DAMAGED: Final = frozenset({"XX001", "XX002"})
# The class of limits of a statement; the whole server has come to one where it says so.
_LIMIT_CLASS: Final = "54"
_OF_THE_SERVER: Final = "not accepting commands"
_CANCELLED: Final = "57014"
# By a limit of time: of a statement, and of the pause between two of a transaction.
_TOO_LONG: Final = frozenset({_CANCELLED, "25P03"})


def refusal(place: str, error: BaseException, limit_s: float | None = None) -> StorageError:
    """Translate what asyncpg raised; ``limit_s`` is what a read may take, None for a write."""
    code = getattr(error, "sqlstate", None) or ""
    detail = line(error)
    if code == _CANCELLED and limit_s is not None:
        return QueryTimeout(place, limit_s)
    if code in _TOO_LONG:
        return TookTooLong(place, detail)
    if code in _DAMAGED:
        return DatabaseCorrupt(place, f"it is damaged ({detail})")
    if code in _LOCKED or is_stale(error):
        return _Busy(place, detail)
    # Transaction ids run out, so that nothing is written until the server was vacuumed.
    is_at_its_end = code[:2] == _LIMIT_CLASS and _OF_THE_SERVER in detail
    if code in _AWAY or code[:2] in _AWAY_CLASSES or is_at_its_end:
        return Unreachable(place, detail)
    if isinstance(error, (UnicodeError, OverflowError, asyncpg.DataError)):
        return StatementRefused(place, detail)
    if isinstance(error, (OSError, TimeoutError)):
        return Unreachable(place, detail)
    # What asyncpg says of a connection that ended while it was not looking.
    is_lost = isinstance(error, asyncpg.InterfaceError) and "clos" in detail
    if is_lost or isinstance(error, asyncpg.InternalClientError):
        return Unreachable(place, detail)
    return StatementRefused(place, detail)


def is_of_a_standby(error: BaseException) -> bool:
    """Tell whether the server does not write: another has taken over, and may be at its address."""
    return isinstance(error, asyncpg.ReadOnlySQLTransactionError)


def is_stale(error: BaseException) -> bool:
    """Tell whether prepared statements are to be prepared anew: their tables were changed."""
    return isinstance(
        error,
        asyncpg.InvalidSQLStatementNameError
        | asyncpg.InvalidCachedStatementError
        | asyncpg.ProtocolError,
    )


class Unreachable(DatabaseUnwritable):
    """The server cannot be reached, or does not take what is written."""

    def __init__(self, place: object, detail: str) -> None:
        remedy = "check that the server runs, takes this user and has space"
        StorageError.__init__(self, place, f"it cannot be used ({detail})", remedy)


class _Busy(DatabaseLocked):
    def __init__(self, place: object, detail: str) -> None:
        self.pid = None
        StorageError.__init__(self, place, f"others use it ({detail})", "wait, or end them")


def line(error: BaseException) -> str:
    """Give an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
