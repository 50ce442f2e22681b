"""Of a call whose content is forgotten nothing is left that anybody said; its metadata stays."""

from pathlib import Path
from typing import Any

from storage.doctor import check
from storage.erase import EVERY_CALL
from storage.events import APPEND, TAKE_NUMBERS
from storage.forgetting import CONTENT_COLUMNS, FORGOTTEN, Forgotten, forget_contents
from storage.queries import get_session
from storage.rebuild import request_body
from storage.sqlite import SqliteDatabase
from tests.databases import holding
from tests.databases import opened as database
from tests.storage.archives import exported, restored
from tests.storage.calls import (
    Noting,
    asked_body,
    body,
    checkpoint,
    end,
    give_back,
    rows,
    span_id,
    spoken,
    start,
    text_of,
    trace_id,
    write,
)
from tests.storage.handing import done as ended
from tests.storage.handing import hand_in, opened

CANARY = "canary5c1f"


def forget(db: SqliteDatabase, *traces: int, most: int = 50, before: int = EVERY_CALL) -> Forgotten:
    """Forget the content of these traces."""
    with db.transaction() as tx:
        keys = [(1, trace_id(n)) for n in traces]
        return forget_contents(tx, keys, text_of, now_us=7, most_spans=most, before_seq=before)


async def test_nothing_that_anybody_said_is_left_and_all_else_is(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    write(
        db,
        [
            spoken(
                start(1, session_id="s", user_id="u", query=f"q={CANARY}"),
                [f"u:{CANARY}"],
                [f"a:{CANARY}"],
                tools=b'["%b"]' % CANARY.encode(),
                state="failed",
                error=CANARY,
                input_preview=CANARY,
                output_preview=CANARY,
                request_headers=CANARY,
                response_headers=CANARY,
            )
        ],
    )
    rows(db, "UPDATE spans SET attributes = :a", a=CANARY.encode())
    done = forget(db, 1)
    assert (done.finished, done.traces, done.spans) == (True, 1, 1)
    assert done.content_bytes > 0
    columns = ", ".join((*CONTENT_COLUMNS, "error", "stored_bytes"))
    (row,) = rows(db, f"SELECT {columns} FROM spans")  # noqa: S608 (constants)
    assert row == (*(None,) * len(CONTENT_COLUMNS), FORGOTTEN, 0)
    session = await get_session(db, 1, "s")
    assert session is not None
    assert (session.cost_nusd, session.user_id, session.stored_bytes) == (100, "u", 0)
    assert session.received_bytes > 0
    assert (session.first_input, session.last_output, session.last_error) == (None, None, FORGOTTEN)
    assert rows(db, "SELECT forgotten_at_us FROM traces") == [(7,)]
    assert rows(db, "SELECT COUNT(*) FROM contents") == [(0,)]
    give_back(db)
    assert holding(tmp_path / "traceway.db", CANARY.encode()) == []
    assert await check(db, text_of) == []


async def test_what_a_younger_call_sent_again_stays_with_that_one(db: SqliteDatabase) -> None:
    write(db, [spoken(start(1, session_id="s"), ["u:one"], ["a:1"])])
    write(db, [spoken(start(2, session_id="s"), ["u:one", "a:1", "u:two"], ["a:2"])])
    forget(db, 1)
    kept = await request_body(db, 1, span_id(2))
    assert kept is not None
    assert kept.data == asked_body(["u:one", "a:1", "u:two"])
    assert rows(db, "SELECT COUNT(*), MIN(span_seq) FROM mentions") == [(4, 2)]
    assert await check(db, text_of) == []


async def test_calls_that_run_and_younger_ones_are_left_and_told(db: SqliteDatabase) -> None:
    begun = start(2, trace=1, session_id="s")
    write(db, [spoken(start(1, session_id="s"), ["u:one"], ["a:1"]), begun])
    write(db, [checkpoint(begun, b"half an answer")])
    assert forget(db, 1, before=0) == Forgotten(True, 0, 0, 0, 0)
    assert forget(db, 1).traces == 1
    # Its end comes with content, and has the trace found again by whoever looks for such.
    write(db, [end(begun, response=body(b"whole"))])
    assert rows(db, "SELECT forgotten_at_us FROM traces") == [(None,)]
    assert forget(db, 1).spans == 1
    assert await check(db, text_of) == []


async def test_a_part_has_as_many_calls_as_it_may(db: SqliteDatabase) -> None:
    write(db, [spoken(start(n, session_id="s"), [f"u:{n}"], ["a:x"]) for n in range(1, 6)])
    assert forget(db, 5, 4, 3, 2, 1, most=2).finished is False
    assert rows(db, "SELECT COUNT(*) FROM spans WHERE request_sha256 IS NULL") == [(2,)]
    assert await check(db, text_of) == []
    assert forget(db, 5, 4, 3, 2, 1).finished is True
    assert forget(db, 9).finished is True  # there is none


async def test_a_long_trace_is_summed_up_without_what_was_forgotten(db: SqliteDatabase) -> None:
    write(
        db,
        [
            end(start(n, trace=1, session_id="s"), input_preview=f"in {n}", output_preview="out")
            for n in range(1, 121)
        ],
    )
    assert forget(db, 1, most=50).finished is False
    assert await check(db, text_of) == []
    assert forget(db, 1, most=100).finished is True
    assert rows(db, "SELECT input_preview, output_preview FROM traces") == [(None, None)]
    assert await check(db, text_of) == []


async def test_an_end_that_waits_for_its_start_goes_also_where_its_span_holds_nothing(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    hand_in(db, [opened(1, session_id="s"), ended(1, trace=1), ended(2, trace=2)])
    assert rows(db, "SELECT COUNT(*) FROM early_ends") == [(2,)]
    assert forget(db, 1).traces == 1
    assert rows(db, "SELECT ended_id FROM early_ends") == [(span_id(2),)]
    assert await check(db, text_of) == []
    data = await exported(db)
    other = database(tmp_path / "other.db")
    assert (await restored(other, data)).conflict is None
    assert await exported(other) == data
    await other.close()


async def test_other_writers_of_events_wait_only_for_the_end_of_it(db: SqliteDatabase) -> None:
    write(db, [spoken(start(n, session_id="s"), [f"u:{n}"], [f"a:{n}"]) for n in (1, 2)])
    keys = [(1, trace_id(n)) for n in (1, 2)]
    with db.transaction() as tx:
        noting: Any = Noting(tx)
        how: Any = {"now_us": 7, "most_spans": 50, "before_seq": EVERY_CALL}
        assert forget_contents(noting, keys, text_of, **how).traces == 2
    assert noting.said[-2:] == [TAKE_NUMBERS, APPEND]
