"""New rows: gathered, written together, and none of them twice."""

import hashlib
from collections.abc import Sequence

import pytest

from storage.additions import Additions, Node
from storage.chain import BEGINNING, Message, node_hash
from storage.database import Database, Transaction
from tests.storage.calls import rows


def message(text: bytes, parent: bytes = BEGINNING) -> Message:
    sha256 = hashlib.sha256(text).digest()
    return Message(b"", text, sha256, node_hash(parent, b"", sha256), "user", b"m" * 16)


def add(tx: Transaction, texts: Sequence[bytes], project_id: int = 1) -> Additions:
    """Store a chain of messages."""
    additions = Additions(tx)
    tip: Node | None = None
    parent = BEGINNING
    for text in texts:
        said = message(text, parent)
        parent = said.node
        content_id = additions.message(project_id, said)
        tip = additions.node(project_id, said.node) or additions.add_node(
            project_id, tip, said, content_id
        )
    additions.flush()
    return additions


@pytest.mark.parametrize("size", [10, 100_000])
async def test_bytes_are_stored_once_per_project(db: Database, size: int) -> None:
    for _ in range(2):
        with db.transaction() as tx:
            added = add(tx, [b"a" * size])
            again = add(tx, [b"a" * size])
            other = add(tx, [b"a" * size], project_id=2)
            assert again.fresh == set()
            assert again.stored_bytes == {}
    assert added.fresh == other.fresh == set()
    assert rows(db, "SELECT project_id, size FROM contents ORDER BY 1") == [(1, size), (2, size)]
    assert rows(db, "SELECT COUNT(*) FROM messages") == [(2,)]
    assert rows(db, "SELECT COUNT(*) FROM nodes") == [(2,)]


async def test_each_byte_that_is_stored_is_counted(db: Database) -> None:
    with db.transaction() as tx:
        additions = add(tx, [b"one", b"two", b"one", b"z" * 9000])
    ((stored,),) = rows(db, "SELECT SUM(length(data)) FROM contents")
    assert additions.stored_bytes == {1: stored}
    assert len(additions.fresh) == 3


async def test_a_chain_of_any_length_is_written_in_its_order(db: Database) -> None:
    texts = [b"%d" % n for n in range(150)]
    with db.transaction() as tx:
        add(tx, texts)
    chain = rows(
        db,
        "SELECT n.depth, p.depth, c.data FROM nodes n JOIN contents c ON c.id = n.content_id"
        " LEFT JOIN nodes p ON p.id = n.parent_id ORDER BY n.depth",
    )
    assert chain == [(n + 1, n or None, text) for n, text in enumerate(texts)]


async def test_ids_are_never_given_twice(db: Database) -> None:
    with db.transaction() as tx:
        first = add(tx, [b"a", b"b"])
        second = Additions(tx)
        second.reserve(5)
        second.message(1, message(b"c"))
        second.flush()
        third = add(tx, [b"d"])
    assert first.fresh | second.fresh | third.fresh == {
        one for (one,) in rows(db, "SELECT id FROM contents")
    }
    ids = rows(db, "SELECT id FROM contents UNION ALL SELECT id FROM nodes")
    assert len(set(ids)) == len(ids) == 7


async def test_what_is_looked_up_with_others_is_not_looked_up_again(db: Database) -> None:
    texts = [message(b"%d" % n) for n in range(100)]
    with db.transaction() as tx:
        add(tx, [b"3"])
        additions = Additions(tx)
        additions.look_up_contents(1, [one.sha256 for one in texts])
        additions.look_up_nodes(1, [one.node for one in texts])
        tx.execute("DELETE FROM nodes", {})
        tx.execute("DELETE FROM messages", {})
        tx.execute("DELETE FROM contents", {})
        for one in texts:
            additions.message(1, one)
        assert len(additions.fresh) == 99
        assert [additions.node(1, one.node) is None for one in texts].index(False) == 3


async def test_only_the_first_session_that_brings_a_content_is_news(db: Database) -> None:
    with db.transaction() as tx:
        additions = Additions(tx)
        (content_id,) = [additions.message(1, message(b"a"))]
        for seq, key in enumerate([7, 7, 8]):
            additions.mention(content_id, key, seq)
        additions.flush()
    assert additions.unheard == [content_id]
    found = rows(db, "SELECT session_key, span_seq FROM mentions ORDER BY 1")
    assert found == [(7, 0), (8, 2)]
    with db.transaction() as tx:
        again = Additions(tx)
        again.message(1, message(b"a"))
        again.mention(content_id, 9, 3)
        again.flush()
    assert again.unheard == []
