"""A database of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.sqlite import SqliteDatabase, open_database


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = open_database(tmp_path / "traceway.db")
    yield opened
    await opened.close()
