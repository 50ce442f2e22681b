"""Databases as archives, and archives into databases, for the tests of both."""

from storage.archive import lone_blocks, session_block
from storage.archive_incoming import Incoming
from storage.database import Database
from storage.restore import Written, write
from storage.restore_conflicts import Conflict, find_conflict
from storage.restore_marks import Mark, mark
from tests.storage.calls import rows


async def exported(db: Database, project_id: int = 1) -> bytes:
    """Give the archive of a project: its sessions in the order of their ids, then the rest."""
    told = []
    sql = "SELECT session_id FROM sessions WHERE project_id = :p"
    names = [row[0] for row in await db.read(sql, {"p": project_id})]
    for session_id in sorted(names, key=str.encode):
        told += [lines async for lines in session_block(db, project_id, session_id)]
    told += [lines async for lines in lone_blocks(db, project_id)]
    return b"".join(told)


async def restored(db: Database, archive: bytes, project_id: int = 1) -> Written:
    """Bring an archive into a project as the API does; stop at the first conflict."""
    incoming = Incoming()
    incoming.feed(archive)
    done = Written(at=None)
    while (block := incoming.next_block()) is not None:
        found = await find_conflict(db, project_id, block)
        at: int | None = 0 if found is None else None
        done.conflict = found
        own: list[Mark] = []
        while at is not None:
            with db.transaction() as tx:
                part = write(tx, project_id, block, at)
            at = part.at if part.conflict is None else None
            done.traces += part.traces
            done.spans += part.spans
            done.known_spans += part.known_spans
            done.conflict = part.conflict
            own += part.marks
            done.seen += part.seen
        block.close()
        with db.transaction() as tx:
            done.marks += mark(tx, own)
        if done.conflict is not None:
            break
    else:
        incoming.end()
    with db.transaction() as tx:
        done.marks = mark(tx, done.marks)
        mark(tx, done.seen)
    return done


__all__ = ["Conflict", "exported", "restored", "rows"]
