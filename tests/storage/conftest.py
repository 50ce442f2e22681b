"""A database of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.sqlite import SqliteDatabase
from tests.databases import opened


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = opened(tmp_path / "traceway.db")
    yield database
    await database.close()
