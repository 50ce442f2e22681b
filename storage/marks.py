"""What people say of a session: the name that they gave it, and whether they starred it.

Invariant: nothing else writes either; sums leave them alone, and who folds a session anew keeps
them. What moves whole into another session takes them along: see ``inherit``.
"""

from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from storage.database import Params, Transaction
from storage.events import log_session
from storage.parameters import clean_text

# In one line, and not of blanks alone. In Python `$` matches before a last line break as well.
SessionName = Annotated[
    str, Meta(max_length=200, pattern=r"^(?=.*\S)[^\x00-\x1f\x7f-\x9f\u2028\u2029]+(?!\n)$")
]


class Mark(NamedTuple):
    """What a session is marked with: no name and no star where nobody said anything."""

    name: str | None = None
    is_starred: bool = False


NO_MARK: Final = Mark()
READ_MARK: Final = """
SELECT name, starred FROM sessions WHERE project_id = :project_id AND session_id = :session_id
"""
WRITE_MARK: Final = """
UPDATE sessions SET name = :name, starred = :starred
WHERE project_id = :project_id AND session_id = :session_id
"""


def read_mark(tx: Transaction, project_id: int, session_id: str) -> Mark | None:
    """Read what a session is marked with; None where there is no such session."""
    rows = tx.execute(READ_MARK, {"project_id": project_id, "session_id": clean_text(session_id)})
    return Mark(rows[0][0], bool(rows[0][1])) if rows else None


def write_mark(tx: Transaction, project_id: int, session_id: str, mark: Mark) -> bool:
    """Mark a session, and log that it changed if it did; tell whether there is such a session."""
    session_id = clean_text(session_id)
    mark = mark._replace(name=clean_text(mark.name) if mark.name else None)
    was = read_mark(tx, project_id, session_id)
    if was is not None and was != mark:
        _write(tx, project_id, session_id, mark)
        log_session(tx, project_id, session_id)
    return was is not None


def inherit(tx: Transaction, project_id: int, session_id: str, left: Mark) -> None:
    """Give a session the mark of one that is gone since all of it came here; its own name stays."""
    own = read_mark(tx, project_id, session_id)
    if own is None:
        return
    mark = Mark(own.name or left.name, own.is_starred or left.is_starred)
    if mark != own:
        _write(tx, project_id, session_id, mark)


def _write(tx: Transaction, project_id: int, session_id: str, mark: Mark) -> None:
    key: Params = {"project_id": project_id, "session_id": session_id}
    tx.execute(WRITE_MARK, {**key, "name": mark.name, "starred": int(mark.is_starred)})
