"""Whether a session stayed while it was exported: looked at before the end of what was read of it.

Invariant: an export that was written without an error has all that the session had when it began.
Of archives storage/archive.py sees to that, line by line.
"""

from storage import queries
from storage.archive import ArchiveChanged
from storage.database import Database
from storage.records import Session


async def check_stays(db: Database, before: Session) -> None:
    """See that a session is there, with no fewer traces than before.

    Raises:
        ArchiveChanged: it was deleted, or some of it was, or is in another session now.
    """
    now = await queries.get_session(db, before.project_id, before.session_id)
    if now is None or now.trace_count < before.trace_count:
        raise ArchiveChanged("the session")
