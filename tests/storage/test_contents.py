"""Bytes: packed where that helps, stored once, kept while anything holds them."""

import hashlib
import os

import pytest

from storage.contents import COMPRESS_ABOVE_BYTES, drop_contents, pack, store_content, unpack
from storage.database import DatabaseCorrupt
from storage.records import Content
from storage.sqlite import SqliteDatabase
from tests.storage.calls import body, end, rows, spoken, start, write


def content(data: bytes) -> Content:
    return Content(sha256=hashlib.sha256(data).digest(), data=data)


def test_bytes_are_compressed_only_where_that_helps() -> None:
    small = b"a" * COMPRESS_ABOVE_BYTES
    assert pack(small) == ("", small)
    noise = os.urandom(COMPRESS_ABOVE_BYTES + 1)
    assert pack(noise) == ("", noise)
    encoding, packed = pack(b"a" * 100_000)
    assert encoding == "zstd"
    assert len(packed) < 1000
    assert unpack(encoding, 100_000, packed) == b"a" * 100_000


def test_bytes_that_do_not_unpack_to_their_size_are_damage() -> None:
    _, packed = pack(b"a" * 100_000)
    for size, data in [(10, packed), (100_000, packed[:-1]), (100_000, b"\x00\x11\x22\x33")]:
        with pytest.raises(DatabaseCorrupt):
            unpack("zstd", size, data)


@pytest.mark.parametrize("size", [10, 100_000])
async def test_bytes_are_stored_once_per_project(db: SqliteDatabase, size: int) -> None:
    with db.transaction() as tx:
        first, added = store_content(tx, 1, content(b"a" * size))
        assert added is not None
        assert store_content(tx, 1, content(b"a" * size)) == (first, None)
        assert store_content(tx, 2, content(b"a" * size)) == (first + 1, added)


async def test_what_anything_holds_is_not_dropped(db: SqliteDatabase) -> None:
    held = spoken(start(1), ["u:a"], ["a:b"], tools=b'["t"]')
    write(db, [held, end(start(2), request=body(b"q"), response=body(b"a"))])
    ids = [one for (one,) in rows(db, "SELECT id FROM contents")]
    assert len(ids) == 5
    with db.transaction() as tx:
        loose, _ = store_content(tx, 1, content(b"loose"))
        assert drop_contents(tx, [*ids, loose]) == (1, 5)
