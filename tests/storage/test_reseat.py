"""A session that was found gives way to one that is named, with all that the calls brought."""

from storage.database import Database
from storage.doctor import check
from storage.ledger import Ledger
from storage.reseat import name_session
from storage.rollup import roll_up
from tests.storage.calls import rows, spoken, start, text_of, trace_id, write

AUTO = f"auto_{trace_id(1).hex()}"
SESSIONS = "SELECT session_id, trace_count FROM sessions ORDER BY session_id"


def talk_of_three(db: Database) -> None:
    said = ["u:1"]
    for n in (1, 2, 3):
        write(db, [spoken(start(n), said, [f"a:{n}"])])
        said += [f"a:{n}", f"u:{n + 1}"]
    assert rows(db, SESSIONS) == [(AUTO, 3)]


def name(db: Database, trace: int, session_id: str) -> None:
    with db.transaction() as tx:
        ledger = Ledger(tx)
        name_session(ledger, ledger.trace((1, trace_id(trace))), session_id, "api")
        roll_up(ledger)


async def test_a_trace_in_the_middle_leaves_a_session_that_was_found(db: Database) -> None:
    talk_of_three(db)
    name(db, 2, "s")
    assert rows(db, SESSIONS) == [(AUTO, 2), ("s", 1)]
    assert await check(db, text_of) == []


async def test_the_last_trace_that_leaves_takes_the_session_with_it(db: Database) -> None:
    talk_of_three(db)
    for n in (1, 2, 3):
        name(db, n, "s")
        assert await check(db, text_of) == []
    assert rows(db, SESSIONS) == [("s", 3)]


async def test_a_session_that_was_named_first_stays(db: Database) -> None:
    talk_of_three(db)
    name(db, 1, "s")
    name(db, 1, "t")
    assert rows(db, SESSIONS) == [(AUTO, 2), ("s", 1)]
