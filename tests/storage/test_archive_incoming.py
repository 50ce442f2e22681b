"""Archives in pieces: blocks come out one by one, whatever the pieces; a cut one never does."""

import random

import pytest

from storage.archive_incoming import Incoming
from storage.archive_lines import BadArchive
from storage.sqlite import SqliteDatabase
from tests.storage.archives import exported
from tests.storage.calls import end, start, write


async def archive(db: SqliteDatabase) -> bytes:
    write(db, [end(start(n, session_id=f"s{n}")) for n in range(1, 4)])
    return await exported(db)


def sessions(incoming: Incoming) -> list[str]:
    found = []
    while (block := incoming.next_block()) is not None:
        assert block.session is not None
        found.append(block.session.id)
        block.close()
    return found


async def test_blocks_come_whatever_the_pieces(db: SqliteDatabase) -> None:
    data = await archive(db)
    source = random.Random(3)  # noqa: S311
    incoming, found, at = Incoming(), [], 0
    while at < len(data):
        step = source.choice((1, 7, 300))
        incoming.feed(data[at : at + step])
        found += sessions(incoming)
        at += step
    incoming.end()
    assert found == ["s1", "s2", "s3"]
    assert incoming.lines == data.count(b"\n")


async def test_wherever_an_archive_is_cut_that_is_said(db: SqliteDatabase) -> None:
    data = await archive(db)
    ends = [n for n in range(1, len(data)) if data[:n].endswith(b',"type":"end"}\n')]
    for cut in range(1, len(data), 37):
        incoming = Incoming()
        incoming.feed(data[:cut])
        whole = len(sessions(incoming))
        if cut in ends:
            continue
        with pytest.raises(BadArchive, match="it was cut"):
            incoming.end()
        incoming.close()
        assert whole < 3
    nothing = Incoming()
    nothing.end()


async def test_a_mistake_names_its_line(db: SqliteDatabase) -> None:
    lines = (await archive(db)).splitlines(keepends=True)
    incoming = Incoming()
    incoming.feed(b"".join([*lines[:3], b"nonsense\n", *lines[3:]]))
    with pytest.raises(BadArchive, match=r"^line 4: "):
        incoming.next_block()
    incoming.close()


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("storage.archive_incoming.MAX_LINE_BYTES", 1_000)
    for data in (b"x" * 1_001, b"x" * 2_000 + b"\n"):
        incoming = Incoming()
        incoming.feed(data)
        with pytest.raises(BadArchive, match="more than 1000 bytes"):
            incoming.next_block()
