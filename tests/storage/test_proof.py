"""The proof finds whatever differs between a database and what it was moved into."""

import sqlite3
from pathlib import Path

import pytest

from storage.database import StorageError
from storage.proof import ROWS_AT_ONCE, Line, prove
from storage.transport_source import open_source
from storage.transport_target import Target, open_target
from tests.databases import opened_file as opened
from tests.storage.calls import spoken, start, write
from tests.storage.transporting import (
    differing,
    mixed,
    moved,
    new_target,
    proved,
    run,
    untold,
)
from tests.storage.transporting import (
    ended as ended,
)


@pytest.fixture
async def pair(tmp_path: Path) -> tuple[Path, str]:
    path, url = tmp_path / "traceway.db", await new_target()
    await mixed(path)
    await moved(path, url)
    return path, url


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            "UPDATE spans SET error = 'x' WHERE seq = (SELECT MAX(seq) FROM spans)",
            {"spans: digest of all columns"},
        ),
        (
            "UPDATE sessions SET cost_nusd = cost_nusd + 1 WHERE session_id = 'a'",
            {"sessions: digest of all columns", "sessions: sum of cost_nusd"},
        ),
        (
            "UPDATE contents SET data = data || 'x'::bytea WHERE id = (SELECT MIN(id) FROM contents"
            " WHERE encoding = '')",
            {"contents: digest of all columns", "contents whose bytes have their SHA-256"},
        ),
        (
            "UPDATE nodes SET hash = 'another'::bytea WHERE id = (SELECT MAX(id) FROM nodes)",
            {
                "nodes: digest of all columns",
                "chain hashes",
                "nodes whose hash follows from their parent's",
            },
        ),
        (
            "DELETE FROM provider_keys",
            {"provider_keys: rows", "provider_keys: digest of all columns"},
        ),
        (
            "DELETE FROM unindexed WHERE content_id = (SELECT MIN(content_id) FROM unindexed)",
            {
                "messages in or before the search: rows",
                "messages in or before the search: digest of all columns",
            },
        ),
        ("SELECT setval('seqs', 3)", {"last number of seqs"}),
        (
            "UPDATE counters SET value = value + 1 WHERE name = 'event'",
            {"counters: digest of all columns"},
        ),
    ],
)
async def test_what_was_changed_in_the_target_differs(
    pair: tuple[Path, str], change: str, found: set[str]
) -> None:
    path, url = pair
    assert differing(await proved(path, url)) == []
    await run(url, change)
    assert set(differing(await proved(path, url))) == found


async def test_rows_in_another_order_on_disk_are_the_same(pair: tuple[Path, str]) -> None:
    path, url = pair
    await run(
        url,
        "UPDATE spans SET seq = -seq WHERE seq % 3 = 0",
        "UPDATE spans SET seq = -seq WHERE seq < 0",
    )
    assert differing(await proved(path, url)) == []


async def test_of_more_rows_than_are_in_memory_each_counts(tmp_path: Path) -> None:
    path, url = tmp_path / "traceway.db", await new_target()
    database = opened(path)
    count = ROWS_AT_ONCE + 3
    write(database, [spoken(start(n), [f"u:{n}"], ["a:yes"]) for n in range(1, count + 1)])
    await database.close()
    await moved(path, url)
    lines = {line.what: line for line in await proved(path, url)}
    assert lines["spans: rows"] == Line("spans: rows", count, count, True)
    judged = lines["contents whose bytes have their SHA-256"]
    assert judged.source == judged.target == f"{count + 1:,} of {count + 1:,}"


async def test_what_is_wrong_in_the_source_is_wrong_in_both(tmp_path: Path) -> None:
    path, url = tmp_path / "traceway.db", await new_target()
    await mixed(path)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE contents SET sha256 = x'00' WHERE id = 1")
    connection.close()
    await moved(path, url)
    lines = {line.what: line for line in await proved(path, url)}
    judged = lines["contents whose bytes have their SHA-256"]
    assert judged.is_equal
    right, _, all_of_them = str(judged.source).partition(" of ")
    assert int(right) == int(all_of_them) - 1


async def test_sums_beyond_64_bits_are_compared(pair: tuple[Path, str]) -> None:
    path, url = pair
    most = 9_223_372_036_854_775_807
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE traces SET cost_nusd = ?", (most,))
        ((n,),) = connection.execute("SELECT COUNT(*) FROM traces").fetchall()
    connection.close()
    await run(url, "UPDATE traces SET cost_nusd = 9223372036854775807")
    lines = {line.what: line for line in await proved(path, url)}
    line = lines["traces: sum of cost_nusd"]
    assert line.is_equal
    assert line.source == most * n > 2**64


async def test_what_is_not_moved_whole_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, url = tmp_path / "traceway.db", await new_target()
    await opened(path).close()
    with pytest.raises(StorageError, match="it is empty"):
        await proved(path, url)

    async def dies(_self: Target) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Target, "end", dies)
        with pytest.raises(KeyboardInterrupt):
            await moved(path, url)
    with open_source(path) as source:
        target = await open_target(url)
        try:
            with pytest.raises(StorageError, match="a move into it is not finished"):
                await anext(prove(source, target, untold))
        finally:
            await target.close()
