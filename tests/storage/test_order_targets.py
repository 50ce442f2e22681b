"""What an order has found is there once, and goes in the order in which it was found."""

from storage import order_targets
from storage.database import Database, Params
from tests.storage.calls import end, rows, start, trace_id, write

KEY: Params = {"project_id": 1, "id": 1}


def left(db: Database) -> list[tuple[object, ...]]:
    return rows(db, "SELECT n, session_id, trace_id FROM erasure_targets ORDER BY erasure_id, n")


async def test_each_is_there_once_whatever_is_found_again(db: Database) -> None:
    with db.transaction() as tx:
        found = [("a", None), (None, b"t"), ("a", None), ("b", None), (None, b"t")]
        assert order_targets.add(tx, KEY, found, behind=0) == 3
        assert order_targets.keep(tx, KEY, ["x", "b", "x"], behind=0) == 2
        assert order_targets.keep(tx, KEY, ["b", "y"], behind=2) == 1
        # What is kept and has no star any more is to go all the same; a trace is no session.
        again = [("a", None), ("x", None), ("t", None), (None, b"a")]
        assert order_targets.add(tx, KEY, again, behind=3) == 3
        assert order_targets.add(tx, {**KEY, "id": 2}, [("a", None)], behind=0) == 1
    assert left(db) == [
        *((-3, "y", None), (-2, "b", None), (-1, "x", None)),
        *((1, "a", None), (2, "b", None), (3, None, b"t")),
        *((4, "x", None), (5, "t", None), (6, None, b"a")),
        (1, "a", None),
    ]


async def test_what_is_kept_never_goes_and_what_is_done_with_is_dropped(db: Database) -> None:
    write(db, [end(start(n, session_id="s")) for n in (1, 2)])
    targets = [("a", None), (None, trace_id(1)), ("s", None), (None, trace_id(2)), ("z", None)]
    with db.transaction() as tx:
        order_targets.add(tx, KEY, targets, behind=0)
        order_targets.keep(tx, KEY, ["k"], behind=0)
        first = order_targets.first(tx, KEY)
        assert first is not None
        order_targets.drop(tx, KEY, first[0])
        assert order_targets.drop_of_session(tx, KEY, "s") == 3
        assert order_targets.first(tx, KEY) == (3, "z", None)
        order_targets.drop(tx, KEY, 3)
        assert order_targets.first(tx, KEY) is None
        assert order_targets.drop_some(tx, KEY)
        assert not order_targets.drop_some(tx, KEY)
    assert left(db) == []
