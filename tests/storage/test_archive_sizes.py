"""What is small in an archive and would be large when it is read: refused, or taken in its time."""

import pytest

from storage import archive_block, rebuild
from storage.archive_lines import BadArchive
from storage.database import Database, DatabaseCorrupt
from storage.queries import get_span
from storage.rebuild import request_body, response_body
from storage.sqlite import SqliteDatabase
from storage.squeeze import MAX_BYTES
from tests.storage.archives import restored
from tests.storage.calls import span_id, spoken, start, write
from tests.storage.lines import archive, block_of, content, node, sha256_of, span

MB = "x" * 1_000_000


def with_holes(count: int) -> list[bytes]:
    envelope = {"pieces": ["p"] * (count + 1), "holes": [sha256_of(MB)] * count}
    return archive(content(MB), span(request={"size": 5, "redacted": True, "envelope": envelope}))


def test_holes_that_hold_one_content_many_times_are_refused() -> None:
    with pytest.raises(BadArchive, match="a request have more than 67,108,864 bytes"):
        block_of(with_holes(68))
    block_of(with_holes(67)).close()


@pytest.mark.parametrize("which", ["request", "response"])
def test_messages_that_are_one_content_many_times_are_refused(which: str) -> None:
    nodes = [node(MB)]
    for _ in range(67):
        nodes.append(node(MB, nodes[-1]["hash"]))
    body = {"size": 5, "redacted": True, "envelope": {"pieces": ["", ""], "holes": [None]}}
    side = "input" if which == "request" else "output"
    for far, is_too_long in ((67, True), (66, False)):
        call = span(chain={side: nodes[far]["hash"]}, **{which: body})
        lines = archive(content(MB), *nodes, call)
        if is_too_long:
            with pytest.raises(BadArchive, match=f"a {which} have more than 67,108,864 bytes"):
                block_of(lines)
        else:
            block_of(lines).close()


async def test_a_body_whose_parts_are_too_many_is_not_put_together(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, [spoken(start(1), ["u:1", "u:2"], ["a:1"], tools=b"t" * 500)])
    assert await request_body(db, 1, span_id(1)) is not None
    monkeypatch.setattr(rebuild, "MAX_ENVELOPED_BYTES", 100)
    with pytest.raises(DatabaseCorrupt, match="the parts of a body have more than 100 bytes"):
        await request_body(db, 1, span_id(1))
    assert await response_body(db, 1, span_id(1)) is not None


async def test_messages_that_are_too_many_do_not_come_out_of_the_database(db: Database) -> None:
    write(db, [spoken(start(1), ["u:1", "u:2"], ["a:1"])])
    seq = (await db.read("SELECT seq FROM spans", {}))[0][0]
    sql = rebuild.MESSAGES_OF.format(last="input_node_id", above="0", most=5)
    rows = await db.read(sql, {"seq": seq})
    assert [row[3] for row in rows] == [None, None]
    assert all(row[2] > 0 for row in rows)


def test_what_stands_before_a_message_is_bounded() -> None:
    long = node("x", lead=" " * (archive_block.MAX_LEAD_BYTES + 1))
    with pytest.raises(BadArchive, match="stands behind more than 1024 bytes"):
        block_of(archive(content("x"), long))


async def test_what_is_just_not_too_large_comes_in(db: SqliteDatabase) -> None:
    done = await restored(db, b"".join(with_holes(67)))
    assert done.spans == 1
    body = await request_body(db, 1, span_id(1))
    assert body is not None
    assert len(body.data) == 67_000_068


HEADS = ("request_headers", "response_headers", "attributes")


def as_long_as(size: int, name: str) -> str:
    """Give JSON of so many bytes, as headers or attributes have it, that takes little room."""
    before, behind = ('{"a":"', '"}') if name == "attributes" else ('[["a","', '"]]')
    return before + "x" * (size - len(before) - len(behind)) + behind


@pytest.mark.parametrize("name", HEADS)
def test_headers_and_attributes_that_nobody_could_read_again_are_refused(name: str) -> None:
    with pytest.raises(BadArchive, match=f"the {name} of the span have more than 1,048,576 bytes"):
        block_of(archive(span(**{name: as_long_as(MAX_BYTES + 1, name)})))


async def test_headers_and_attributes_that_are_just_not_too_long_can_be_read(
    db: SqliteDatabase,
) -> None:
    long = {name: as_long_as(MAX_BYTES, name) for name in HEADS}
    assert (await restored(db, b"".join(archive(span(**long))))).spans == 1
    found = await get_span(db, 1, span_id(1))
    assert found is not None
    assert (found.request_headers, found.response_headers) == (long[HEADS[0]], long[HEADS[1]])
    assert found.attributes == long["attributes"].encode()


def with_pieces(pieces: list[str]) -> list[bytes]:
    envelope = {"pieces": pieces, "holes": [sha256_of("x")] * (len(pieces) - 1)}
    return archive(content("x"), span(response={"size": 5, "redacted": True, "envelope": envelope}))


@pytest.mark.parametrize("pieces", [["x" * MAX_BYTES], [""] * 70_000])
def test_what_stands_round_parts_and_nobody_could_read_again_is_refused(pieces: list[str]) -> None:
    with pytest.raises(BadArchive, match="round the parts of a response are more than 1,048,576"):
        block_of(with_pieces(pieces))


@pytest.mark.parametrize("pieces", [["x" * (MAX_BYTES - 16)], ["x" * 112] * 8_192])
async def test_what_stands_round_parts_and_is_just_not_too_long_can_be_read(
    db: SqliteDatabase, pieces: list[str]
) -> None:
    assert (await restored(db, b"".join(with_pieces(pieces)))).spans == 1
    body = await response_body(db, 1, span_id(1))
    assert body is not None
    assert body.data == "x".join(pieces).encode()
