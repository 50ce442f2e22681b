"""A server does not take a database that is not there whole."""

from pathlib import Path

import asyncpg
import pytest

from storage.database import StorageError
from storage.transport_mark import refuse_unfinished
from storage.transport_target import Target
from tests.databases import opened_file as opened
from tests.storage.transporting import ended as ended
from tests.storage.transporting import moved, new_target


async def test_a_database_is_refused_from_the_first_row_to_the_end_of_its_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, url = tmp_path / "traceway.db", await new_target()
    await opened(path).close()

    async def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Target, "put", dies)
        with pytest.raises(KeyboardInterrupt):
            await moved(path, url)
    connection = await asyncpg.connect(url)
    try:
        with pytest.raises(StorageError, match="not finished; run `traceway migrate` again"):
            await refuse_unfinished(connection, "here")
        await moved(path, url)
        await refuse_unfinished(connection, "here")
    finally:
        await connection.close()
