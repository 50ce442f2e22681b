"""What an operator reads when the database cannot be used."""

import pytest

from storage.database import (
    DatabaseCorrupt,
    DatabaseForeign,
    DatabaseLocked,
    DatabaseNewer,
    DatabaseUnwritable,
    StatementRefused,
    StorageError,
)

PLACE = "/data/a.db"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            DatabaseLocked(PLACE, 42),
            "the process with pid 42 has the database open; stop it, or use another database",
        ),
        (
            DatabaseLocked(PLACE, None),
            "another program has locked the database; wait, or end it",
        ),
        (
            DatabaseNewer(PLACE, 9, 1),
            "its schema is version 9 and this program knows up to 1; "
            "run the newer program, or use another database",
        ),
        (DatabaseForeign(PLACE), "it is a database of another program; name another file"),
        (
            DatabaseCorrupt(PLACE, "it is damaged"),
            "it is damaged; restore a backup, or save what can be read of a file "
            "(traceway doctor --recover-to FILE), or move it away to start anew",
        ),
        (
            DatabaseUnwritable(PLACE, "it is full"),
            "it is full; check that its directory exists, can be written and has space",
        ),
        (
            StatementRefused(PLACE, "no such table"),
            "it refused a statement: no such table; please report this as a bug",
        ),
    ],
)
def test_an_error_is_one_line_with_the_place_the_problem_and_the_remedy(
    error: StorageError, message: str
) -> None:
    assert str(error) == f"{PLACE}: {message}"
