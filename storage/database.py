"""What both databases offer the rest of storage, and the errors that they raise.

Invariant: everything that goes wrong in a database reaches a caller as a ``StorageError`` of one
line that names the place and the remedy. SQL is one text for both databases, with ``:name``
parameters; but for full text, of which each has its own. This module runs nothing; sqlite.py and
postgres.py do.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

Value: TypeAlias = int | str | bytes | None
Params: TypeAlias = Mapping[str, Value]
# STRICT tables vouch for the types of a row's columns; the function that owns the SQL names them.
Row: TypeAlias = tuple[Any, ...]
# What is numbered: spans and opened traces by `seq`, contents and nodes by `id`, orders to forget.
Numbers: TypeAlias = Literal["seq", "id", "erasure"]


@dataclass(frozen=True, slots=True)
class FullText:
    """How a database keeps the words of messages, and how a word is looked up in it.

    ``words`` makes of a project and a text what, with its ``id``, ``add`` brings in; ``remove``
    takes it out by the same, or by its id alone unless ``removes_by_words``; ``empty`` takes all
    out. ``parts`` selects what it consists of, the newest first: the least content id of each and
    its name; None: it is one. ``search`` makes what finds a word or phrase, None: any, in a
    project, None: in all. ``hits`` selects up to ``{most}`` content ids that such a search in the
    parameter ``{term}`` finds in the part ``{part}``, with ``{order}``: ``newest``, or nothing;
    ``held`` tells whether ``:id`` is among those of ``:term``. ``names_project``: to name it costs
    a search little.
    """

    words: Callable[[int, str], "Params"]
    add: Callable[["Transaction", Sequence["Params"]], None]
    remove: Callable[["Transaction", Sequence["Params"]], None]
    empty: Callable[["Transaction"], None]
    parts: str | None
    search: Callable[[int | None, str | None], str]
    hits: str
    newest: str
    held: str
    removes_by_words: bool
    names_project: bool


class Transaction(Protocol):
    """An open write transaction. Only the writer's thread may use it."""

    @property
    def full_text(self) -> FullText:
        """How this database keeps words."""
        ...

    def execute(self, sql: str, params: Params) -> list[Row]:
        """Run one statement and return its rows: of a SELECT, or of RETURNING; else none."""
        ...

    def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        """Run one statement that returns nothing for each of these."""
        ...

    def insert_rows(self, sql: str, rows: Sequence[Params]) -> None:
        """Insert many rows by few statements: the one ``VALUES (...)`` is repeated.

        No parameter stands behind it.
        """
        ...

    def look_up(self, sql: str, params: Params, keys: Sequence[Value]) -> list[Row]:
        """Run a statement for all these keys by few statements.

        ``IN (:keys)`` is in it once, with no parameter behind it.
        """
        ...

    def take_numbers(self, of: Numbers, n: int) -> Sequence[int]:
        """Take so many numbers that nobody has or will have, growing; what is undone leaves a gap.

        Those of one project grow with the order of its transactions, but for ids.
        """
        ...


class Readable(Protocol):
    """A database to read from, on the event loop."""

    @property
    def full_text(self) -> FullText:
        """How this database keeps words."""
        ...

    async def damage(self) -> str | None:
        """Look for damage that rows do not show; None where there is none, or none can be seen."""
        ...

    async def read(self, sql: str, params: Params) -> list[Row]:
        """Run one SELECT on a connection that cannot write.

        Raises QueryTimeout when that takes longer than reads may.
        """
        ...


class Database(Readable, Protocol):
    """One database: a single writer, which is a thread, and readers on the event loop."""

    def transaction(
        self, projects: Collection[int] | None = None
    ) -> AbstractContextManager[Transaction]:
        """Open a write transaction: committed at the end of the block, undone by any exception.

        Nobody else writes to these projects meanwhile; None: to anything. With none named, it does
        what is right whoever writes beside it, but for those who name all.
        """
        ...

    @property
    def has_waited(self) -> bool:
        """Whether the last transaction had to wait for another server's, and not only a moment."""
        ...

    @property
    def has_left(self) -> bool:
        """Whether something that is deleted may be in its files still. For who may ``reclaim``."""
        ...

    def reclaim(self, *, begin: bool = False) -> bool:
        """Give a part of the space of deleted rows back; tell whether there is more to give.

        It comes to an end, however much is deleted meanwhile. With ``begin``, to be said where
        there was no more, words that were deleted before are to leave the full text as well. In the
        writer's thread, outside of a transaction: some milliseconds.
        """
        ...

    async def size_bytes(self) -> int:
        """Give how much the database takes, without what waits to be used again; or an estimate."""
        ...

    def tend(self, *, idle: bool = False) -> bool:
        """Cut back what grew while somebody read; tell whether to try again in a second.

        ``idle``: nothing waits to be saved, so that what has to be done some time is done now. In
        the writer's thread, outside of a transaction, between others: it hardly ever waits.
        """
        ...

    def vacuum(self) -> None:
        """Write the database anew without anything that was deleted, however long it takes.

        In the writer's thread, while nobody else uses the database.
        """
        ...

    async def close(self) -> None:
        """Close every connection, after the writer's thread has ended."""
        ...


class StorageError(Exception):
    """Something is wrong with the database, and its operator can do something about it."""

    def __init__(self, place: object, problem: str, remedy: str) -> None:
        super().__init__(f"{place}: {problem}; {remedy}")


class DatabaseLocked(StorageError):
    """Another process holds the database. ``pid`` is None where it cannot be known."""

    def __init__(self, place: object, pid: int | None) -> None:
        self.pid = pid
        if pid is None:
            problem, remedy = "another program has locked the database", "wait, or end it"
        else:
            problem = f"the process with pid {pid} has the database open"
            remedy = "stop it, or use another database"
        super().__init__(place, problem, remedy)


class TookTooLong(DatabaseLocked):
    """The database ended a transaction that took longer than any may."""

    def __init__(self, place: object, detail: str) -> None:
        self.pid = None
        problem = f"it ended what took too long ({detail})"
        StorageError.__init__(self, place, problem, "wait, or end what slows it down")


class DatabaseNewer(StorageError):
    """A newer version of the program wrote the database."""

    def __init__(self, place: object, found: int, known: int) -> None:
        problem = f"its schema is version {found} and this program knows up to {known}"
        super().__init__(place, problem, "run the newer program, or use another database")


class DatabaseForeign(StorageError):
    """The database belongs to another program."""

    def __init__(self, place: object) -> None:
        super().__init__(place, "it is a database of another program", "name another file")


class DatabaseCorrupt(StorageError):
    """The file is no database, or a damaged one."""

    def __init__(self, place: object, detail: str) -> None:
        remedy = (
            "restore a backup, or save what can be read of a file (traceway doctor --recover-to"
            " FILE), or move it away to start anew"
        )
        super().__init__(place, detail, remedy)


class DatabaseUnwritable(StorageError):
    """The database cannot be written: missing directory, permissions, disk full, file gone."""

    def __init__(self, place: object, detail: str) -> None:
        remedy = "check that its directory exists, can be written and has space"
        super().__init__(place, detail, remedy)


class CommitUnknown(DatabaseUnwritable):
    """The answer to a commit was lost: what was to be committed is there, or is not."""

    def __init__(self, place: object, detail: str) -> None:
        problem = f"it may or may not have committed ({detail})"
        StorageError.__init__(self, place, problem, "check that the server runs")


class QueryTimeout(StorageError):
    """A read took longer than reads may, and was ended."""

    def __init__(self, place: object, limit_s: float) -> None:
        remedy = "ask for fewer rows or a shorter time, or raise query_timeout_s in [database]"
        super().__init__(place, f"the query took longer than {limit_s:g} s", remedy)


class StatementRefused(StorageError):
    """The database refused a statement or its values: a bug of ours, which waiting cannot heal."""

    def __init__(self, place: object, detail: str) -> None:
        super().__init__(place, f"it refused a statement: {detail}", "please report this as a bug")


def is_refusal(error: Exception) -> bool:
    """Tell whether waiting cannot heal it; all else that a database says may pass with time."""
    return isinstance(error, StatementRefused) or not isinstance(error, StorageError)
