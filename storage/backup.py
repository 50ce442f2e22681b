"""A copy of an SQLite database as it is at one moment, whoever writes to it meanwhile.

Invariants: the copy has its name when it is whole, on disk, and found sound; nothing that is there
is overwritten. The database is only read, in one step: a copy in several would begin anew with each
write of another connection. What is written meanwhile stays in the write-ahead log until it ends.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from storage.database import DatabaseCorrupt, DatabaseUnwritable, StorageError
from storage.new_file import give_name, taken
from storage.readers import uri
from storage.sqlite import version_of
from storage.statements import REFUSALS, refusal

# What is meant of the database alone, once it was read: while it is copied, and the copy looked
# through. All else is of the copy, a full disk say, though one connection raises both.
OF_THE_DATABASE: Final = frozenset(
    (
        *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB),
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
        *(sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ),
    )
)
# A reader waits for others only while one of them recovers a log.
BUSY_TIMEOUT_MS: Final = 5_000
ONE_STEP: Final = -1


def copy(path: Path, target: Path) -> int:
    """Copy a database to a new file that its owner alone can read; return its size in bytes.

    Raises a StorageError where there is no database, or the copy cannot be made.
    """
    version_of(path)  # refuses what is no database of ours; an older one is copied as it is
    if not target.name or target.is_dir():
        raise StorageError(target, "it is a directory", "name a file in it")
    part = target.with_name(f"{target.name}.part")
    if target.exists():
        raise taken(target)
    try:
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        problem = "it is there: another copy writes it, or one was killed"
        raise StorageError(part, problem, "wait for that, or delete it") from None
    except OSError as error:
        raise _unwritable(part, error) from error
    try:
        _copy(path, part)
        give_name(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _unwritable(target, error) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target.stat().st_size


def _copy(path: Path, part: Path) -> None:
    place = path
    try:
        with (
            closing(sqlite3.connect(uri(path, "mode=ro"), uri=True)) as source,
            closing(sqlite3.connect(part, isolation_level=None)) as copied,
        ):
            source.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS:d}")
            source.execute("SELECT COUNT(*) FROM sqlite_schema").fetchall()
            place = part
            source.backup(copied, pages=ONE_STEP)
            # One file, whatever the database was: whoever opens it to write makes a log anew.
            copied.execute("PRAGMA journal_mode = DELETE").fetchall()
            ((found, *_), *_) = copied.execute("PRAGMA quick_check(1)").fetchall()
    except REFUSALS as error:
        code = getattr(error, "sqlite_errorcode", 0)
        is_of_the_database = not OF_THE_DATABASE.isdisjoint((code, code & 0xFF))
        raise refusal(path if is_of_the_database else place, error) from error
    if found != "ok":
        raise DatabaseCorrupt(path, f"the copy is damaged, as the database is: {found}")


def _unwritable(place: Path, error: OSError) -> DatabaseUnwritable:
    return DatabaseUnwritable(place, error.strerror or str(error))
