"""Databases for tests: each its own file, made by one run of the migrations for all of them."""

import asyncio
import tempfile
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

from storage.sqlite import SqliteDatabase, open_database


def opened(path: Path, **how: Any) -> SqliteDatabase:
    """Open a database; where there is none, a new one in a tenth of the time."""
    if not path.exists():
        path.write_bytes(_new())
    return open_database(path, **how)


@cache
def _new() -> bytes:
    """Give the bytes of a database that was just made."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        database = open_database(path)
        # In a thread, since the test that asks first has a loop that runs.
        closing = Thread(target=lambda: asyncio.run(database.close()))
        closing.start()
        closing.join()
        return path.read_bytes()
