"""What goes with a call to another trace; when one goes is test_moving.py's and test_twins.py's."""

from storage.database import Database
from storage.doctor import check
from storage.events import log_changes
from storage.ledger import Ledger
from storage.rollup import roll_up
from storage.transfer import Move, move
from tests.storage.calls import end, rows, span_id, start, text_of, trace_id, write
from tests.storage.seen_twice import links, traces_of_calls


async def moved(db: Database, *moves: tuple[int, int]) -> Ledger:
    with db.transaction() as tx:
        ledger = Ledger(tx)
        ledger.spans.append((1, trace_id(moves[0][0]), span_id(moves[0][0])))
        move(ledger, [Move((1, trace_id(a)), (1, trace_id(b)), span_id(9)) for a, b in moves])
        log_changes(ledger, roll_up(ledger))
    assert await check(db, text_of) == []
    return ledger


async def test_a_call_goes_with_its_sums_and_its_parent(db: Database) -> None:
    write(db, [end(start(1, session_id="s")), end(start(2, session_id="s"), model="other")])
    ledger = await moved(db, (1, 2))
    assert traces_of_calls(db) == {1: (2, 9), 2: (2, None)}
    assert rows(db, "SELECT trace_count, span_count, cost_nusd FROM sessions") == [(1, 2, 200)]
    assert rows(db, "SELECT model, n FROM session_models ORDER BY 1") == [
        ("gpt-5", 1),
        ("other", 1),
    ]
    assert ledger.spans == [(1, trace_id(2), span_id(1))]


async def test_a_call_keeps_the_parent_that_it_has_and_the_first_trace_that_it_left(
    db: Database,
) -> None:
    write(db, [end(start(1, parent_id=span_id(7))), end(start(2)), end(start(3))])
    await moved(db, (1, 4))
    await moved(db, (1, 2))  # nothing is there any more
    assert traces_of_calls(db)[1] == (4, 7)
    await moved(db, (4, 3))
    assert traces_of_calls(db)[1] == (3, 7)
    assert rows(db, "SELECT moved_from FROM spans WHERE trace_id = :id LIMIT 1", id=trace_id(3))
    assert (trace_id(1),) in rows(db, "SELECT moved_from FROM spans")


async def test_two_calls_with_one_id_are_not_put_into_one_trace(db: Database) -> None:
    write(db, [end(start(1)), end(start(1, trace=2))])
    await moved(db, (1, 2))
    assert links(db) == {1: 2}
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(2,)]
