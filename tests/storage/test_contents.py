"""Bytes: packed where that helps, stored once, kept while anything holds them."""

import hashlib
import os

import pytest

from storage.additions import Additions
from storage.contents import COMPRESS_ABOVE_BYTES, drop_contents, pack, unpack
from storage.database import Database, DatabaseCorrupt
from tests.storage.calls import body, end, rows, spoken, start, write


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


async def test_what_anything_holds_is_not_dropped(db: Database) -> None:
    held = spoken(start(1), ["u:a"], ["a:b"], tools=b'["t"]')
    write(db, [held, end(start(2), request=body(b"q"), response=body(b"a"))])
    ids = [one for (one,) in rows(db, "SELECT id FROM contents")]
    assert len(ids) == 5
    with db.transaction() as tx:
        additions = Additions(tx)
        loose = additions.content(1, hashlib.sha256(b"loose").digest(), b"loose")
        additions.flush()
        assert drop_contents(tx, [*ids, loose]) == (1, 5)
