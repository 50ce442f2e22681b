"""As many spans as one answer holds: counted before they are unpacked, and at least one."""

import random
from dataclasses import replace
from typing import Any

import pytest
import zstandard

from storage.database import Database, DatabaseCorrupt, Params, Row
from storage.packed_spans import ANSWER_BYTES, SAID_BYTES, pack
from storage.queries import OUTLINE_FIELDS, get_span
from storage.squeeze import _DICTIONARY, squeeze
from tests.storage.calls import end, rows, span_id, start, write


async def read(db: Database) -> list[Row]:
    """Read all spans as what packs them takes them."""
    sql = f"SELECT s.seq, {SAID_BYTES}, {OUTLINE_FIELDS} FROM spans s ORDER BY s.seq"  # noqa: S608
    return await db.read(sql, {})


def said(db: Database, attributes: bytes) -> None:
    rows(db, "UPDATE spans SET attributes = :said", said=attributes)


def attributes(size: int) -> bytes:
    return b'{"kind":{"k":"%b"}}' % (b"x" * size)


async def test_what_is_packed_is_the_whole_span(db: Database) -> None:
    headers = {"request_headers": '[["a","b"]]', "response_headers": "[]"}
    for change in (end(start(1), **headers), end(start(2)), start(3)):
        write(db, [change])
    rows(
        db,
        "UPDATE spans SET attributes = :said WHERE span_id = :id",
        said=squeeze(attributes(9_000)),
        id=span_id(2),
    )
    packed, left = await pack(db, 1, await read(db), ANSWER_BYTES, least=1)
    spans = [one.unpacked() for one in packed]
    assert spans == [await get_span(db, 1, span_id(n)) for n in (1, 2, 3)]
    assert [one.seq for one in packed] == [span.seq for span in spans]
    assert spans[0].request_headers == headers["request_headers"]
    assert spans[1].attributes == attributes(9_000)
    assert 9_000 < ANSWER_BYTES - left < 10_000


async def test_what_was_squeezed_counts_as_large_as_it_will_be(db: Database) -> None:
    write(db, [end(start(n)) for n in range(5)])
    said(db, squeeze(attributes(500_000)))
    found = await read(db)
    assert sum(row[1] for row in found) < 10_000
    packed, left = await pack(db, 1, found, 1_100_000, least=1)
    assert len(packed) == 2
    assert 90_000 < left < 100_000


async def test_no_more_is_read_than_is_taken(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    write(db, [end(start(n)) for n in range(5)])
    said(db, random.Random(1).randbytes(100_000))  # noqa: S311
    found = await read(db)
    sizes: list[int] = []
    read_rows = db.read

    async def noted(sql: str, params: Params) -> list[Row]:
        got = await read_rows(sql, params)
        sizes.append(sum(len(value) for row in got for value in row if isinstance(value, bytes)))
        return got

    monkeypatch.setattr(db, "read", noted)
    packed, _ = await pack(db, 1, found, 250_000, least=1)
    assert (len(packed), sizes) == (2, [200_000])


@pytest.mark.parametrize(("least", "count"), [(0, 0), (1, 1), (3, 3), (9, 5)])
async def test_at_least_so_many_are_taken_however_large_they_are(
    db: Database, least: int, count: int
) -> None:
    write(db, [end(start(n)) for n in range(5)])
    said(db, squeeze(attributes(100_000)))
    packed, left = await pack(db, 1, await read(db), 10, least=least)
    assert len(packed) == count
    assert left <= 10 - 100_000 * count


async def test_texts_count_as_well(db: Database) -> None:
    write(db, [end(start(n)) for n in range(5)])
    rows(db, "UPDATE spans SET query = :query", query="q" * 10_000)
    packed, _ = await pack(db, 1, await read(db), 35_000, least=1)
    assert len(packed) == 3


async def test_many_spans_are_read_in_batches(db: Database) -> None:
    write(db, [end(start(n), request_headers=f'["{n}"]') for n in range(250)], indexed=False)
    packed, _ = await pack(db, 1, await read(db), ANSWER_BYTES, least=1)
    spans = [one.unpacked() for one in packed]
    assert {span.name: span.request_headers for span in spans} == {
        f"call {n}": f'["{n}"]' for n in range(250)
    }


async def test_of_a_span_that_is_deleted_meanwhile_nothing_was_said(db: Database) -> None:
    write(db, [end(start(1), request_headers="[]")])
    span = await get_span(db, 1, span_id(1))
    assert span is not None
    found = await read(db)
    rows(db, "DELETE FROM spans")
    ((one,), _) = await pack(db, 1, found, ANSWER_BYTES, least=1)
    unknown: dict[str, Any] = {"request_headers": None}
    assert one.unpacked() == replace(span, **unknown)


async def test_nothing_is_read_of_another_project(db: Database) -> None:
    write(db, [end(start(1), request_headers="[]")])
    ((one,), _) = await pack(db, 2, await read(db), ANSWER_BYTES, least=1)
    assert one.unpacked().request_headers is None


async def test_what_claims_to_be_huge_is_refused_before_it_is_unpacked(db: Database) -> None:
    write(db, [end(start(1))])
    said(
        db,
        zstandard.ZstdCompressor(level=1, dict_data=_DICTIONARY).compress(bytes(2 * 1024 * 1024)),
    )
    with pytest.raises(DatabaseCorrupt, match="larger than any"):
        await pack(db, 1, await read(db), ANSWER_BYTES, least=1)
