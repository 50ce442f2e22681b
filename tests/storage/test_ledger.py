"""What a transaction remembers of the traces that it changes."""

from storage.database import Database
from storage.ledger import Ledger
from tests.storage.calls import end, start, trace_id, write


async def test_a_trace_is_read_once_and_untouched_until_its_session_changes(
    db: Database,
) -> None:
    write(db, [end(start(1))])
    with db.transaction() as tx:
        ledger = Ledger(tx)
        change = ledger.trace((1, trace_id(1)))
        assert ledger.trace((1, trace_id(1))) is change
        assert change.has_ended_spans
        assert not change.touched
        alone = change.session_key
        change.session_id = "s"
        assert change.touched
        assert change.session_key != alone


async def test_a_trace_that_only_runs_has_said_nothing(db: Database) -> None:
    write(db, [start(1)])
    with db.transaction() as tx:
        assert not Ledger(tx).trace((1, trace_id(1))).has_ended_spans
        assert not Ledger(tx).trace((1, trace_id(2))).touched
