"""What is small in an archive and would be large when it is read: refused, or taken in its time."""

import time

import pytest

from storage import archive_block, rebuild
from storage.archive_lines import BadArchive
from storage.archive_nodes import Nodes, Stored
from storage.database import Database, DatabaseCorrupt
from storage.rebuild import request_body, response_body
from storage.sqlite import SqliteDatabase
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


def chain(length: int) -> tuple[Nodes, list[bytes]]:
    nodes, names = Nodes(), [n.to_bytes(16) for n in range(length)]
    for n, name in enumerate(names):
        parent = names[n - 1] if n else None
        nodes.add(name, Stored(parent, b",", b"", "user", b""), 9)
    return nodes, names


def test_which_node_follows_which_is_told_without_a_walk() -> None:
    nodes, names = chain(200)
    nodes.add(b"side", Stored(names[49], b",", b"", "user", b""), 9)
    for own, name in enumerate(names):
        for above in range(200):
            assert nodes.follows(names[above], name) == (above < own)
        assert nodes.follows(None, name)
        assert nodes.follows(name, b"side") == (own <= 49)
        assert not nodes.follows(b"side", name)
        assert nodes.said_bytes(name) == 10 * (own + 1)
    assert nodes.below(names[197], names[199]) == names[198:]
    assert nodes.below(None, names[1]) == names[:2]


def test_an_answer_of_more_messages_than_there_are_is_refused() -> None:
    nodes, names = chain(5_000)
    assert nodes.follows(names[0], names[4_096])
    assert not nodes.follows(names[0], names[4_097])


def test_spans_with_far_answers_are_read_in_linear_time() -> None:
    nodes, names = chain(4_096)
    began_s = time.process_time()
    for _ in range(10_000):
        assert nodes.follows(None, names[-1])
    assert time.process_time() - began_s < 2


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
