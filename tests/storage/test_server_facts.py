"""What the doctor says of a PostgreSQL server."""

from pathlib import Path

import pytest

from storage.database import StorageError
from storage.opening import open_at
from storage.server_facts import look


async def test_a_server_is_described_and_what_a_crash_would_damage_is_found(url: str) -> None:
    await open_at(Path(), url).close()
    looked = await look(url)
    facts = {fact.what: fact.value for fact in looked.facts}
    assert facts["servers that share it now"] == "0"
    assert facts["fsync"] == "off"
    assert facts["database"] == f"{looked.database_bytes:,} bytes"
    assert looked.database_bytes > 1_000_000
    # The tests' server writes nothing safely.
    assert [finding.what for finding in looked.findings] == [
        "fsync is off",
        "full_page_writes is off",
    ]


async def test_an_empty_database_is_no_recording_and_stays_empty(url: str) -> None:
    with pytest.raises(StorageError, match="it is empty; start the server with it once"):
        await look(url)
