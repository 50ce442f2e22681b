"""Sums end before they do not fit: whatever anybody says of a call, the next is recorded."""

import pytest

from storage import parameters
from storage.aggregates import MAX_SUM
from storage.archive_lines import BadArchive
from storage.database import Database
from storage.doctor import check
from storage.forget import delete_trace
from storage.queries import get_session, get_trace
from tests.storage.calls import end, start, text_of, trace_id, write
from tests.storage.lines import archive, block_of, span

TOTAL = "SELECT cost_nusd FROM project_totals"


async def test_a_call_is_recorded_where_sums_are_as_large_as_they_get(db: Database) -> None:
    write(db, [end(start(1, session_id="s"))])
    for table in ("project_totals", "sessions"):
        with db.transaction() as tx:
            tx.execute(f"UPDATE {table} SET cost_nusd = {2**63 - 1}", {})  # noqa: S608 (constants)
    write(db, [end(start(2, session_id="s")), end(start(3, trace=1))])
    assert await db.read(TOTAL, {}) == [(MAX_SUM,)]
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.cost_nusd, session.span_count) == (MAX_SUM, 3)


async def test_rows_and_their_doctor_agree_on_where_sums_end(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = 3 * 10**18
    monkeypatch.setattr(parameters, "MAX_COST_NUSD", huge)
    for n, trace in ((1, 1), (2, 1), (3, 3), (4, 4)):
        write(db, [end(start(n, trace=trace, session_id="s"), cost_nusd=huge)])
    trace = await get_trace(db, 1, trace_id(1))
    session = await get_session(db, 1, "s")
    assert trace is not None
    assert session is not None
    assert (trace.cost_nusd, session.cost_nusd) == (MAX_SUM, MAX_SUM)
    assert await db.read(TOTAL, {}) == [(MAX_SUM,)]
    assert await check(db, text_of) == []
    for gone in (1, 3):
        with db.transaction() as tx:
            delete_trace(tx, 1, trace_id(gone), text_of)
    write(db, [end(start(5, session_id="s"))])
    session = await get_session(db, 1, "s")
    assert session is not None
    assert session.cost_nusd == huge + 100


def test_a_span_of_an_archive_costs_no_more_than_a_call_may() -> None:
    block_of(archive(span(cost_nusd=10**13))).close()
    with pytest.raises(BadArchive, match="<= 10000000000000"):
        block_of(archive(span(cost_nusd=10**13 + 1)))
