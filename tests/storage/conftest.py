"""A database of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.database import Database
from tests.databases import opened


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = opened(tmp_path / "traceway.db")
    yield database
    await database.close()
