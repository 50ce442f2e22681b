"""SQLite: one file, one process, one connection that writes.

Invariant: exactly one connection in one process writes or checkpoints. Versions of SQLite as recent
as the 3.40 that Python 3.11 brings can corrupt a WAL database when two connections do so at once
(the "WAL-reset bug"), so a lock file beside the database refuses a second process, and every other
connection is ``mode=ro`` (readers.py). A file that is refused keeps its bytes. Every exception of
sqlite3 becomes ours here, in readers.py and statements.py, and nowhere else.
"""

import fcntl
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from storage.database import (
    DatabaseForeign,
    DatabaseLocked,
    DatabaseNewer,
    DatabaseUnwritable,
    StorageError,
)
from storage.fts5_cleanup import CleanUp
from storage.migrate import latest, migrate
from storage.readers import BUSY_TIMEOUT_MS, SqliteReaders, uri
from storage.statements import REFUSALS, SqliteTransaction, refusal
from storage.wal import CHECKPOINT_PAGES, JOURNAL_SIZE_LIMIT_BYTES, Wal

# "TWAY": tells `file`, and us, whose database this is (SQLite's PRAGMA application_id).
APPLICATION_ID: Final = 0x54574159
# Tries to empty the WAL that are made at once when space is given back; then those of each second.
WAL_TRIES: Final = 20
# Pages that are given back at a time: some milliseconds.
RECLAIM_PAGES: Final = 100
# Of the writer; each length of a list is a statement of its own.
CACHED_STATEMENTS: Final = 512

Synchronous = Literal["NORMAL", "FULL"]


def open_database(
    path: Path, *, synchronous: Synchronous = "NORMAL", query_timeout_s: float | None = None
) -> "SqliteDatabase":
    """Open the database at ``path``, made and migrated where needed, for this process alone.

    ``query_timeout_s`` is what a read may take; None: no limit. The file and what SQLite puts
    beside it can be read by their owner only.
    Raises a StorageError; the bytes of a file that is refused are unchanged.
    """
    path = path.resolve()
    try:
        # A link to the file leads to the same lock, since the path is resolved.
        held = lock(path)
        try:
            writer = _open_writer(path, synchronous)
            return SqliteDatabase(path, writer, held, query_timeout_s)
        except BaseException:
            os.close(held)
            raise
    except REFUSALS as error:
        raise refusal(path, error) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatabaseUnwritable(path, f"it cannot be opened ({reason})") from error


def open_snapshot(path: Path) -> "SqliteReaders":
    """Open a database to look at it as it is at the first read, whoever writes to it meanwhile.

    Raises a StorageError where there is none, or one that is not of this version.
    """
    path = path.resolve()
    if version_of(path) != latest():
        problem = "it is of an older version of this program"
        remedy = "copy it with traceway backup, then start the server with it once"
        raise StorageError(path, problem, remedy)
    return SqliteReaders(path, readers=1, begin=True)


def version_of(path: Path) -> int:
    """Give the version of a database's schema, which is this program's or an older one's.

    Raises a StorageError where there is none, or one of another or a newer program.
    """
    try:
        version = _look(path) if path.exists() else 0
    except REFUSALS as error:
        raise refusal(path, error) from error
    if not version:
        raise StorageError(path, "there is no database", "start the server with it once")
    return version


class SqliteDatabase(SqliteReaders):
    """An open database file. Fulfils ``Database``; ``open_database`` makes it."""

    has_waited = False  # nobody else writes

    def __init__(
        self, path: Path, writer: sqlite3.Connection, lock: int, query_timeout_s: float | None
    ) -> None:
        super().__init__(path, timeout_s=query_timeout_s)
        self._writer = writer
        self._transaction = SqliteTransaction(path, writer)
        self._lock = lock
        self._file = _identity(path)
        self._wal = Wal(path, writer)
        self._words = CleanUp(writer, self.transaction)
        # Of what is given back: the pages that are to go still, None: as many as will be free.
        self._pages: int | None = None
        self._wal_tries = WAL_TRIES

    @contextmanager
    def transaction(
        self,
        projects: Collection[int] | None = None,
    ) -> Iterator["SqliteTransaction"]:
        """Open a write transaction: committed at the end of the block, undone by any exception.

        There is one writer, so whichever projects it is for, nobody writes beside it.
        Raises DatabaseUnwritable when the file was deleted or replaced, since SQLite would go on
        writing to a file that nobody can open any more; DatabaseLocked and DatabaseUnwritable may
        pass with time.
        """
        if _identity(self.path) != self._file:
            raise DatabaseUnwritable(self.path, "the file was deleted or replaced while open")
        self._transaction.execute("BEGIN IMMEDIATE", {})
        try:
            yield self._transaction
            self._transaction.execute("COMMIT", {})
        except BaseException:
            # SQLite has undone it already after some errors, a full disk among them.
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    @property
    def has_left(self) -> bool:
        """Whether deleted words are in the index still, pages are free, or a log was found.

        Whoever was killed may have deleted in that log what is readable in it, and in the file.
        """
        with self._outside():
            return self._wal.is_left or self._free_pages() > 0 or self._words.has_left

    def reclaim(self, *, begin: bool = False) -> bool:
        """Give a part of the space of deleted rows back; tell whether there is more to give.

        With ``begin``, deleted words are to leave the full-text index, too. Words first, then as
        many pages of the file as are free by then, then the WAL; one that a reader still uses is
        emptied by ``tend``. Raises what a damaged part of the index raises, once all else was given
        back.
        """
        if begin:
            self._words.begin()
        with self._outside():
            if self._words.is_due:
                self._words.step()
                return True
            if self._give_pages():
                return True
            self._wal_tries -= 1
            if not self._wal.empty() and self._wal_tries > 0:
                return True
            self._pages, self._wal_tries = None, WAL_TRIES
            self._words.complain()
        return False

    def _give_pages(self) -> bool:
        """Give some free pages back to the file system; tell whether that went."""
        free = self._free_pages()
        if self._pages is None:
            self._pages = free
        if self._pages <= 0:
            return False
        # Gives back one page for each step, and execute() takes only one.
        self._writer.executescript(f"PRAGMA incremental_vacuum({RECLAIM_PAGES:d});")
        given = free - self._free_pages()
        self._pages -= given
        # A file that another program made of ours may have lost the setting for it.
        return given > 0

    def _free_pages(self) -> int:
        ((pages,),) = self._writer.execute("PRAGMA freelist_count").fetchall()
        return int(pages)

    async def size_bytes(self) -> int:
        """Give how much the database takes, without its free pages."""
        ((pages,),) = await self.read("PRAGMA page_count", {})
        ((free,),) = await self.read("PRAGMA freelist_count", {})
        ((page_bytes,),) = await self.read("PRAGMA page_size", {})
        return int((pages - free) * page_bytes)

    def tend(self, *, idle: bool = False) -> bool:
        """Have the WAL copied or emptied, as of `Wal.tend`; tell whether to try again soon."""
        with self._outside():
            return self._wal.tend(idle=idle)

    def vacuum(self) -> None:
        """Write the file anew without anything that was deleted; takes as long as it takes.

        Needs twice as much space again as the database takes, for a copy and for the WAL, and
        nobody else who uses it.
        """
        with self._outside():
            # Deleted words stay in the index until what it was merged from is merged again.
            self._words.begin()
            while self._words.is_due:
                self._words.step()
            with self._temporary_on_disk():
                self._writer.execute("VACUUM")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._words.complain()

    @contextmanager
    def _temporary_on_disk(self) -> Iterator[None]:
        """Have what is temporary in a file beside the database: in memory it may not have room.

        SQLite has one such place for the whole process: the doctor's, which has no other database.
        """
        folder = str(self.path.parent)
        if folder.isprintable():  # a pragma takes no bytes that are no text
            place = folder.replace("'", "''")
            self._writer.execute(f"PRAGMA temp_store_directory = '{place}'")
            # A library may be built without that, and would take a folder of its own.
            if self._writer.execute("PRAGMA temp_store_directory").fetchall() == [(folder,)]:
                self._writer.execute("PRAGMA temp_store = FILE")
        try:
            yield
        finally:
            self._writer.execute("PRAGMA temp_store = MEMORY")
            self._writer.execute("PRAGMA temp_store_directory = ''")

    @contextmanager
    def _outside(self) -> Iterator[None]:
        """Run what is no transaction."""
        try:
            yield
        except sqlite3.Error as error:
            raise refusal(self.path, error) from error

    async def close(self) -> None:
        """Close the readers, then the writer, which empties the WAL, then let the lock go."""
        # Readers first: the last connection to close checkpoints, and only the writer may.
        await super().close()
        self._writer.close()
        # The lock file stays: a process that had opened it meanwhile would lock a deleted file.
        os.close(self._lock)


def lock(path: Path) -> int:
    """Take the lock beside the database and return its descriptor; closing it lets it go.

    Raises DatabaseLocked where another process has it.
    """
    held = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise DatabaseLocked(path, holder(path)) from None
    os.fchmod(held, 0o600)
    os.ftruncate(held, 0)
    os.pwrite(held, b"%d\n" % os.getpid(), 0)
    return held


def holder(path: Path) -> int | None:
    """Give the pid that stands in the lock beside the database, whether it runs or not."""
    try:
        pid = Path(f"{path}.lock").read_text()[:20]
    except (OSError, UnicodeDecodeError):
        return None
    return int(pid) if pid.strip().isdigit() else None


def _open_writer(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    is_new = not (path.exists() and path.stat().st_size) or _look(path) == 0
    # Made by us, for SQLite gives a new file the umask's mode and its companions the file's.
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(file, 0o600)
    os.close(file)
    for companion in (Path(f"{path}-wal"), Path(f"{path}-shm")):
        if companion.exists():
            companion.chmod(0o600)
    # Opened here and used in the writer's thread: never in two at once.
    writer = sqlite3.connect(
        path,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=CACHED_STATEMENTS,
    )
    try:
        if is_new:
            # Both belong to the file's first page: before the WAL, before any table.
            writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
            writer.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS:d}",
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            f"journal_size_limit = {JOURNAL_SIZE_LIMIT_BYTES:d}",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES:d}",
            # What is deleted is overwritten with zeros. Not remembered by the file.
            "secure_delete = ON",
            "foreign_keys = ON",
            # No text in temporary files, which no deletion would reach.
            "temp_store = MEMORY",
        ):
            writer.execute(f"PRAGMA {pragma}").fetchall()
        migrate(writer, path)
    except BaseException:
        writer.close()
        raise
    return writer


def _look(path: Path) -> int:
    """Refuse a file that is damaged, foreign or newer, and return its schema's version.

    The look leaves no trace in the file.
    """
    # A connection that opens a WAL database makes its -wal and -shm. Where there is no -wal,
    # nothing is missed by a look that takes the file for unchangeable.
    quiet = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    look = sqlite3.connect(uri(path, f"mode=ro{quiet}"), uri=True)
    try:
        (tables,) = look.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
        (owner,) = look.execute("PRAGMA application_id").fetchone()
        (version,) = look.execute("PRAGMA user_version").fetchone()
    finally:
        look.close()
    if tables and owner != APPLICATION_ID:
        raise DatabaseForeign(path)
    if version > latest():
        raise DatabaseNewer(path, version, latest())
    return int(version)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
