"""What is told to be damaged, row by row."""

import hashlib
import os
from dataclasses import replace
from typing import Final

import pytest

from storage import wholeness
from storage.database import Database, Params, Row
from storage.doctor import check
from storage.mend import mend
from storage.sqlite import SqliteDatabase
from storage.wholeness import ROWS, all_bodies, all_contents, broken_contents, broken_nodes, each
from tests.storage.calls import body, end, rows, spoken, start, text_of, write


@pytest.fixture
def filled(db: Database) -> Database:
    write(db, [spoken(start(1), ["s:brief", "u:hi"], ["a:ho"], tools=b'["t"]' * 9_000)])
    write(db, [end(start(2), request=body(b"q" * 50_000), response=body(b"a"))])
    return db


async def test_nothing_is_broken_where_nothing_is(filled: Database) -> None:
    assert [one async for one in broken_contents(filled)] == []
    assert [one async for one in broken_nodes(filled)] == []
    bodies = [one async for one in all_bodies(filled)]
    assert [one[:3] for one in bodies] == [(1, True, True), (2, True, True)]
    assert [len(one.holes) for one in bodies] == [1, 0]


async def test_a_content_of_another_hash_size_or_packing_is_broken(filled: Database) -> None:
    rows(filled, "UPDATE contents SET data = x'00' WHERE size = 50000")
    rows(filled, "UPDATE contents SET sha256 = x'00' WHERE size = 1")
    found = [one async for one in broken_contents(filled)]
    assert found == [
        number
        for (number,) in rows(
            filled, "SELECT id FROM contents WHERE size IN (1, 50000) ORDER BY id"
        )
    ]


async def test_a_node_of_another_lead_is_broken_and_what_rests_on_its_hash_is_not(
    filled: Database,
) -> None:
    rows(filled, "UPDATE nodes SET lead = x'20' WHERE depth = 2")
    ((number,),) = rows(filled, "SELECT id FROM nodes WHERE depth = 2")
    assert [one async for one in broken_nodes(filled)] == [number]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE spans SET request_envelope = x'00' WHERE seq = 1", (1, False, True)),
        ("UPDATE spans SET response_envelope = x'00' WHERE seq = 1", (1, True, False)),
        ("UPDATE spans SET request_sha256 = x'00'", (1, False, True)),
        ("DELETE FROM holes", (1, False, True)),
    ],
)
async def test_each_body_is_looked_at_by_itself(
    filled: Database, damage: str, found: tuple[int, bool, bool]
) -> None:
    rows(filled, damage)
    assert next(iter([one[:3] async for one in all_bodies(filled)])) == found


GZIP: Final = '[["Date","now"],["Content-Encoding","gzip"]]'


@pytest.mark.parametrize(
    ("more", "coding", "headers", "is_whole"),
    [
        (0, None, GZIP, True),
        (0, None, '[["content-encoding"," Identity "]]', False),
        (0, None, '[["date","now"]]', False),
        (0, None, '["content-encoding"]', False),
        (0, None, "[[", False),
        (0, None, None, False),
        (1, None, None, True),
        (0, "gzip", GZIP, False),
        (1, "gzip", GZIP, False),
    ],
)
async def test_an_answer_that_is_kept_without_its_coding_is_whole_whatever_its_size(
    db: Database, more: int, coding: str | None, headers: str | None, is_whole: bool
) -> None:
    plain = body(b"plain")
    packed = {"size": plain.size + more, "sha256": hashlib.sha256(b"zlib?").digest()}
    answer = replace(plain, content_encoding=coding, **packed)
    write(db, [end(start(1), response=answer, response_headers=headers)])
    assert [one[:3] async for one in all_bodies(db)] == [(1, True, is_whole)]
    found = [finding.what for finding in await check(db, text_of)]
    assert found == ([] if is_whole else ["calls whose bodies do not rebuild"])


async def test_headers_that_are_damaged_name_no_coding(db: Database) -> None:
    answer = replace(body(b"plain"), sha256=hashlib.sha256(b"zlib?").digest())
    write(db, [end(start(1), response=answer, response_headers=GZIP)])
    rows(db, "UPDATE spans SET response_head = x'28b52ffd00'")
    assert [one[:3] async for one in all_bodies(db)] == [(1, True, False)]


@pytest.mark.sqlite_only("a damaged PostgreSQL is restored from a backup")
async def test_an_answer_that_is_as_long_as_it_was_packed_stays_in_a_recovery(
    db: SqliteDatabase,
) -> None:
    answer = replace(body(b"plain"), sha256=hashlib.sha256(b"zlib?").digest())
    write(db, [end(start(1), response=answer, response_headers=GZIP)])
    with db.transaction() as tx:
        assert await mend(tx, now_us=7) == {}
    assert rows(db, "SELECT COUNT(response_content_id) FROM spans") == [(1,)]


async def test_all_rows_are_read_piece_by_piece(db: Database) -> None:
    write(db, [start(n) for n in range(1, ROWS + 3)])
    sql = "SELECT seq FROM spans WHERE seq > :after ORDER BY seq"
    assert [seq async for (seq,) in each(db, sql)] == list(range(1, ROWS + 3))


async def test_of_contents_no_more_is_read_at_a_time_than_the_largest_has(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wholeness, "PIECE_BYTES", 50_000)
    sizes = [40_000, 40_000, 40_000, 150_000, 10_000, 90_000, 1_000, 1_000]
    for n, size in enumerate(sizes, 1):
        write(db, [spoken(start(n), [f"u:{os.urandom(size // 2).hex()}"], [])])
    pieces: list[list[int]] = []
    read = db.read

    async def noted(sql: str, params: Params) -> list[Row]:
        found = await read(sql, params)
        if "c.size, c.data FROM contents c\nWHERE" in sql:
            pieces.append([len(row[-1]) for row in found])
        return found

    monkeypatch.setattr(db, "read", noted)
    assert len([one async for one in all_contents(db)]) == sum(map(len, pieces)) >= len(sizes)
    assert await check(db, text_of) == []
    assert len(pieces) < 3 * len(sizes)  # three times all of them: but some are read together
    assert [piece for piece in pieces if len(piece) > 1 and sum(piece) > 50_000] == []
