"""Which node of a block follows which, however many there are."""

import time
from pathlib import Path

from storage.archive_nodes import Nodes, Stored
from storage.chain import MAX_MESSAGES
from storage.sqlite import SqliteDatabase
from tests.databases import opened
from tests.storage.archives import exported, restored
from tests.storage.calls import spoken, start, write


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
            assert nodes.leads_to(names[above], name) == (above <= own)
        assert nodes.follows(None, name)
        assert nodes.follows(name, b"side") == (own <= 49)
        assert not nodes.follows(b"side", name)
        assert not nodes.leads_to(b"side", name)
        assert nodes.leads_to(name, b"side") == (own <= 49)
        assert nodes.said_bytes(name) == 10 * (own + 1)
    assert nodes.leads_to(None, names[0])
    assert not nodes.leads_to(names[0], None)
    assert nodes.below(names[197], names[199]) == names[198:]
    assert nodes.below(None, names[1]) == names[:2]


def test_an_answer_of_more_messages_than_there_are_is_refused() -> None:
    nodes, names = chain(MAX_MESSAGES + 2)
    assert nodes.follows(names[0], names[MAX_MESSAGES])
    assert not nodes.follows(names[0], names[MAX_MESSAGES + 1])


def test_spans_with_far_answers_are_read_in_linear_time() -> None:
    nodes, names = chain(MAX_MESSAGES)
    began_s = time.process_time()
    for _ in range(10_000):
        assert nodes.follows(None, names[-1])
    assert time.process_time() - began_s < 2


async def test_an_answer_of_as_many_messages_as_are_recorded_comes_in(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    answer = [f"a:{n}" for n in range(MAX_MESSAGES)]
    write(db, [spoken(start(1, session_id="s"), ["u:1"], answer)], indexed=False)
    data = await exported(db)
    other = opened(tmp_path / "other.db")
    assert (await restored(other, data)).spans == 1
    assert await exported(other) == data
    await other.close()
