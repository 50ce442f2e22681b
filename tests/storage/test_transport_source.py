"""A source stands still, is read in pieces in the order of its keys, and stays as it is."""

import os
import sqlite3
from pathlib import Path

import pytest

from storage import transport_source
from storage.database import DatabaseForeign, DatabaseLocked, StorageError
from storage.transport_source import Fit, Table, encode, open_source
from tests.databases import opened_file as opened
from tests.storage.calls import body, end, start, write
from tests.storage.transporting import ended as ended
from tests.storage.transporting import mixed

SPANS = Table("spans", ("seq", "response_id", "error"), ("seq",), "spans")


async def test_a_source_that_a_server_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "traceway.db"
    database = opened(path)
    said = f"the process with pid {os.getpid()} has the database open"
    with pytest.raises(DatabaseLocked, match=said), open_source(path):
        raise AssertionError
    await database.close()
    with open_source(path), pytest.raises(DatabaseLocked):
        opened(path)
    await opened(path).close()


def test_what_is_no_database_of_ours_is_refused_without_a_trace(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no database"), open_source(tmp_path / "no.db"):
        raise AssertionError
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(DatabaseForeign), open_source(foreign):
        raise AssertionError
    assert [file.name for file in tmp_path.iterdir()] == ["foreign.db"]


async def test_each_row_is_in_one_piece_in_the_order_of_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "traceway.db"
    await mixed(path)
    before = path.read_bytes()
    monkeypatch.setattr(transport_source, "PIECE_ROWS", 7)
    with open_source(path) as source:
        for table in source.tables:
            pieces = [*source.pieces(table)]
            rows = [row for piece in pieces for row in piece]
            assert all(len(piece) <= 7 for piece in pieces)
            assert len(rows) == source.count(table)
            keys = [tuple(map(_bytes, table.key_of(row))) for row in rows]
            assert keys == sorted(set(keys))
            behind = [*source.rows(table, table.key_of(rows[4]))] if len(rows) > 5 else []
            assert behind == rows[5:] if behind else True
        names = {table.name for table in source.tables}
    assert {"spans", "unindexed", "erasure_targets", "provider_keys"} < names
    assert not {name for name in names if "fts" in name or name == "migrations"}
    assert path.read_bytes() == before


def _bytes(value: object) -> object:
    return value.encode() if isinstance(value, str) else value


async def test_pieces_of_large_contents_are_bounded_by_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = opened(tmp_path / "traceway.db")
    large = [os.urandom(30_000) for _ in range(9)]
    write(database, [end(start(n), request=body(data)) for n, data in enumerate(large, 1)])
    await database.close()
    monkeypatch.setattr(transport_source, "PIECE_BYTES", 100_000)
    with open_source(tmp_path / "traceway.db") as source:
        (contents,) = [table for table in source.tables if table.name == "contents"]
        assert [len(piece) for piece in source.pieces(contents)] == [4, 4, 1]


async def test_a_database_is_known_wherever_it_lies_and_changes_with_what_is_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "traceway.db"
    await opened(path).close()
    with open_source(path) as source:
        identity, state = source.identity(), source.state()
    path = path.rename(tmp_path / "elsewhere.db")
    database = opened(path)
    write(database, [end(start(1))])
    await database.close()
    with open_source(path) as source:
        assert source.identity() == identity
        assert source.state() != state


def test_texts_in_an_index_are_cut_at_whole_characters_and_counted() -> None:
    fit = Fit(SPANS)
    short = (1, "é" * 512, "x" * 5_000)
    assert fit.cut_row(short) == short
    assert fit.cut == 0
    assert fit.cut_row((2, "x" + "é" * 512, None)) == (2, "x" + "é" * 511, None)
    assert fit.cut_row((3, None, None)) == (3, None, None)
    assert fit.cut == 1


def test_nuls_are_replaced_in_texts_alone_and_counted() -> None:
    fit = Fit(SPANS)
    row = (1, "a\0b\0", b"\0")
    assert fit.without_nuls(row) == (1, "a\ufffdb\ufffd", b"\0")
    assert fit.without_nul == 1
    assert encode(row) != encode(fit.without_nuls(row))
