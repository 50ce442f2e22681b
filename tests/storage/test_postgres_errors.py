"""What PostgreSQL says becomes what a caller can act on: try again, wait, or report a bug."""

import asyncpg
import pytest

from storage.database import (
    DatabaseCorrupt,
    DatabaseLocked,
    DatabaseUnwritable,
    QueryTimeout,
    StatementRefused,
    StorageError,
)
from storage.postgres_errors import refusal

CASES: list[tuple[BaseException, type[StorageError]]] = [
    (asyncpg.LockNotAvailableError("no"), DatabaseLocked),
    (asyncpg.DeadlockDetectedError("no"), DatabaseLocked),
    (asyncpg.SerializationError("no"), DatabaseLocked),
    (asyncpg.QueryCanceledError("no"), DatabaseLocked),
    (asyncpg.InvalidSQLStatementNameError("no"), DatabaseLocked),
    (asyncpg.DiskFullError("no"), DatabaseUnwritable),
    (asyncpg.TooManyConnectionsError("no"), DatabaseUnwritable),
    (asyncpg.ReadOnlySQLTransactionError("no"), DatabaseUnwritable),
    (asyncpg.ConnectionDoesNotExistError("no"), DatabaseUnwritable),
    (asyncpg.CannotConnectNowError("no"), DatabaseUnwritable),
    (asyncpg.AdminShutdownError("no"), DatabaseUnwritable),
    (asyncpg.InvalidPasswordError("no"), DatabaseUnwritable),
    (asyncpg.InvalidCatalogNameError("no"), DatabaseUnwritable),
    (asyncpg.InsufficientPrivilegeError("no"), DatabaseUnwritable),
    (asyncpg.InterfaceError("connection is closed"), DatabaseUnwritable),
    (asyncpg.InternalClientError("cannot switch to state"), DatabaseUnwritable),
    (ConnectionResetError("no"), DatabaseUnwritable),
    (TimeoutError(), DatabaseUnwritable),
    (asyncpg.DataCorruptedError("no"), DatabaseCorrupt),
    (asyncpg.UniqueViolationError("no"), StatementRefused),
    (asyncpg.CharacterNotInRepertoireError("no"), StatementRefused),
    (asyncpg.UndefinedTableError("no"), StatementRefused),
    (asyncpg.ProgramLimitExceededError("no"), StatementRefused),
    (
        asyncpg.ProgramLimitExceededError(
            "database is not accepting commands that assign new XIDs"
            ' to avoid wraparound data loss in database "db"'
        ),
        DatabaseUnwritable,
    ),
    (asyncpg.FeatureNotSupportedError("no"), StatementRefused),
    (asyncpg.DataError("no"), StatementRefused),
    (asyncpg.InterfaceError("the use of it is wrong"), StatementRefused),
    (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), StatementRefused),
    (OverflowError("no"), StatementRefused),
]


@pytest.mark.parametrize(("error", "ours"), CASES, ids=[type(one).__name__ for one, _ in CASES])
def test_each_error_becomes_the_one_that_says_what_to_do(
    error: BaseException, ours: type[StorageError]
) -> None:
    told = refusal("postgresql://h/db", error)
    assert isinstance(told, ours)
    assert str(told).startswith("postgresql://h/db: ")
    assert "\n" not in str(told)


def test_a_read_that_the_server_ended_took_too_long() -> None:
    assert isinstance(refusal("p", asyncpg.QueryCanceledError("no"), 1.5), QueryTimeout)
