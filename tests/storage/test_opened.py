"""What was said of a trace is written beside its sums, and read with them."""

from storage.database import Database
from storage.ledger import Ledger
from storage.opened import NOT_OPENED, Opening, write_openings
from tests.storage.calls import end, start, trace_id, write

SAID = Opening(1, 5, "chat", "u", None, 9, '["a"]')


def test_an_opening_began_when_it_was_opened_or_else_when_it_ended() -> None:
    assert SAID.began_at_us == 5
    assert Opening(closed_at_us=7).began_at_us == 7
    assert NOT_OPENED.began_at_us is None


def test_a_trace_is_open_while_there_is_word_of_it() -> None:
    assert SAID.is_open
    assert not SAID._replace(heard_at_us=None).is_open


async def test_what_was_said_is_read_with_the_row(db: Database) -> None:
    write(db, [end(start(1)), end(start(2))])
    with db.transaction() as tx:
        write_openings(tx, [((1, trace_id(1)), SAID)])
        ledger = Ledger(tx)
        assert ledger.trace((1, trace_id(1))).opening == SAID
        assert ledger.trace((1, trace_id(2))).opening == NOT_OPENED
