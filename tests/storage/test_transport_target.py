"""What may be moved into, and what it says."""

from pathlib import Path

import pytest

from storage.database import DatabaseForeign, DatabaseNewer, StorageError
from storage.transport_target import Target, open_target
from tests.databases import opened_file as opened
from tests.storage.calls import end, start, write
from tests.storage.transporting import ended as ended
from tests.storage.transporting import moved, new_target, run


@pytest.fixture
async def source(tmp_path: Path) -> Path:
    database = opened(tmp_path / "traceway.db")
    write(database, [end(start(1, session_id="s"))])
    await database.close()
    return tmp_path / "traceway.db"


async def test_a_database_of_another_program_is_left_alone(source: Path) -> None:
    url = await new_target()
    await run(url, "CREATE TABLE theirs (x INT)")
    with pytest.raises(DatabaseForeign):
        await moved(source, url)
    await run(url, "DROP TABLE theirs")
    await moved(source, url)


async def test_a_database_with_rows_is_left_alone(source: Path) -> None:
    url = await new_target()
    await moved(source, url)
    with pytest.raises(StorageError, match=r"it is not empty \(counters has rows\)"):
        await moved(source, url)


async def test_a_move_that_another_version_began_is_left_alone(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await new_target()

    async def dies(_self: Target) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Target, "end", dies)
        with pytest.raises(KeyboardInterrupt):
            await moved(source, url)
    monkeypatch.setattr("storage.transport_target.latest", lambda: 9999)
    with pytest.raises(StorageError, match="an older version of this program began the move"):
        await moved(source, url)
    monkeypatch.undo()
    await moved(source, url)


async def test_a_newer_database_is_left_alone(source: Path) -> None:
    url = await new_target()
    await moved(source, url)
    await run(url, "INSERT INTO migrations VALUES (9999, '9999_x.sql', 1)")
    with pytest.raises(DatabaseNewer):
        await moved(source, url)


async def test_a_database_that_a_server_has_open_is_left_alone(source: Path) -> None:
    url = await new_target()
    await moved(source, url)
    other = source.with_name("other.db")
    await opened(other).close()
    await run(
        url,
        "TRUNCATE projects, counters, events, spans, traces, sessions",
        "TRUNCATE session_models, project_totals",
        "INSERT INTO projects (id, name) VALUES (1, 'default')",
        "INSERT INTO owners (owner) VALUES ('me')",
    )
    with pytest.raises(StorageError, match="a server has it open; stop it"):
        await moved(other, url)
    await run(url, "UPDATE owners SET heard_at = heard_at - INTERVAL '1 minute'")
    await moved(other, url)


async def test_an_older_schema_of_the_target_is_named(source: Path) -> None:
    url = await new_target()
    other = source.with_name("other.db")
    await opened(other).close()
    await moved(other, url)
    await run(url, "ALTER TABLE spans DROP COLUMN phase", "DELETE FROM projects WHERE id > 1")
    with pytest.raises(StorageError, match="its table spans has no phase; use one version"):
        await moved(source, url)


async def test_a_password_is_in_no_error() -> None:
    with pytest.raises(StorageError) as error:
        await open_target("postgresql://me:s3cret@127.0.0.1:1/tw")
    assert "s3cret" not in str(error.value)
    assert "postgresql://me@127.0.0.1:1/tw" in str(error.value)


async def test_a_database_that_is_named_by_mistake_is_not_locked(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await new_target()
    await moved(source, url)
    monkeypatch.setattr("storage.transport_target.LOCK", "SELECT 1 / 0")
    with pytest.raises(StorageError, match="it is not empty"):
        await moved(source, url)
