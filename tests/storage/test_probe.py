"""A probe of the database writes to its file, and leaves nothing."""

from pathlib import Path

from storage.database import Database
from storage.probe import probe
from tests.databases import opened_file
from tests.storage.calls import rows

COUNTERS = "SELECT name, value FROM counters ORDER BY name"


def log_bytes(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


async def test_it_leaves_nothing_however_often_it_is_made(db: Database) -> None:
    before = rows(db, COUNTERS)
    for _ in range(2):
        with db.transaction(()) as tx:
            probe(tx)
    assert rows(db, COUNTERS) == before


async def test_it_reaches_the_disk_and_an_empty_transaction_does_not(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    db = opened_file(path)
    sizes = [log_bytes(path)]
    with db.transaction(()):
        pass
    sizes.append(log_bytes(path))
    with db.transaction(()) as tx:
        probe(tx)
    sizes.append(log_bytes(path))
    await db.close()
    assert sizes[0] == sizes[1] < sizes[2]
