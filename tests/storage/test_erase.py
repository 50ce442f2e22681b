"""Sessions of any size go part by part; after each part, and each crash, everything fits."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.doctor import check
from storage.erase import LEAST_OF_LONG, Extent, Part, erase_session, erase_trace
from storage.events import APPEND, TAKE_NUMBERS
from storage.mentions import BROUGHT
from storage.sqlite import SqliteDatabase, open_database
from tests.storage.calls import (
    Noting,
    end,
    rows,
    spoken,
    start,
    state_of,
    text_of,
    trace_id,
    write,
)
from tests.storage.test_any_history import EMPTY, History, kinds, numbers

TALK = ["new", "go on", "go on", "go on", "retry", "edit", "window", "instruct", "previous", "loop"]
# Mentions that do not name the oldest call that brings the content.
_BROUGHT = BROUGHT.format(
    which="s.session_key IS NOT NULL",
    columns="b.content_id, b.seq, (SELECT session_key FROM spans x WHERE x.seq = b.seq) AS own",
)
YOUNGER = f"""
SELECT m.content_id FROM mentions m JOIN (
  SELECT content_id, own, MIN(seq) AS oldest FROM ({_BROUGHT}) AS b GROUP BY 1, 2
) AS f ON f.content_id = m.content_id AND f.own = m.session_key WHERE f.oldest <> m.span_seq
"""  # noqa: S608 (constants)


def part(
    db: SqliteDatabase,
    session: str,
    *,
    extent: Extent = "all",
    spans: int = 2,
    before: int = 2**60,
    crash: bool = False,
) -> Part | None:
    """Erase a part of a session; None where the process dies before the end."""
    try:
        with db.transaction() as tx:
            done = erase_session(
                tx,
                1,
                session,
                text_of,
                extent=extent,
                before_seq=before,
                most_spans=spans,
                now_us=7,
            )
            if crash:
                raise Crash
            return done
    except Crash:
        return None


class Crash(Exception):
    """What a kill is to a transaction."""


async def fits(db: SqliteDatabase) -> bool:
    """Tell whether the doctor finds nothing, and each mention names the oldest call."""
    assert await check(db, text_of) == []
    assert rows(db, YOUNGER) == []
    return True


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(TALK), numbers, numbers, numbers), min_size=3, max_size=16),
    st.lists(
        st.tuples(
            st.sampled_from(["part", "part", "part", "content", "crash", "talk", "other"]),
            numbers,
            kinds,
            numbers,
            numbers,
        ),
        max_size=16,
    ),
)
def test_everything_fits_after_each_part_whatever_was_said_and_is_said_meanwhile(
    history: list[tuple[str, int, int, int]], then: list[tuple[str, int, str, int, int]]
) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            db = open_database(Path(folder) / "a.db")
            told = History(db)
            for step in history:
                told.do(*step)
            before = rows(db, "SELECT value FROM counters WHERE name = 'seq'")[0][0]
            for what, a, kind, b, c in then:
                session = "s" if what != "other" else "t"
                if what == "talk":
                    told.do(kind, a, b, c)
                    continue
                extent: Extent = "content" if what == "content" else "all"
                part(
                    db,
                    session,
                    extent=extent,
                    spans=1 + a % 4,
                    before=before,
                    crash=what == "crash",
                )
                await fits(db)
            while not (part(db, "s", before=before) or Part()).finished:
                pass
            await fits(db)
            left = """
            SELECT 1 FROM spans s JOIN traces t USING (project_id, trace_id)
            WHERE t.session_id = 's' AND s.seq <= :before
            """
            assert rows(db, left, before=before) == []
            told.delete_all()
            gone = {name: rows(db, f"SELECT COUNT(*) FROM {name}") for name in EMPTY}  # noqa: S608
            assert gone == {name: [(0,)] for name in EMPTY}
            await db.close()

    asyncio.run(play())


async def test_a_part_has_as_many_calls_as_it_may_and_the_newest_go_first(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(n, session_id="s")) for n in range(1, 8)])
    first = part(db, "s", spans=3)
    assert first == Part(finished=False, traces=3, spans=3)
    assert [await state_of(db, n) for n in (4, 5)] == ["completed", None]
    assert rows(db, "SELECT trace_count, last_seq FROM sessions") == [(4, 4)]
    part(db, "s", spans=9)
    assert part(db, "s") == Part()
    assert rows(db, "SELECT * FROM sessions") == []


async def test_calls_that_came_later_stay_also_in_a_trace_that_was_there(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(1, session_id="s")), end(start(2, session_id="s"))])
    write(db, [end(start(3, trace=2, session_id="s")), end(start(4, session_id="s"))])
    while not (part(db, "s", before=2) or Part()).finished:
        pass
    assert [await state_of(db, n) for n in (1, 2, 3, 4)] == [None, None, "completed", "completed"]
    assert rows(db, "SELECT trace_count, span_count, seq, first_seq FROM sessions") == [
        (2, 2, 3, 3)
    ]
    await fits(db)


async def test_a_long_trace_goes_by_its_calls(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, [end(start(n, trace=1, session_id="s")) for n in range(1, 151)])
    # A part is not so small that all of the trace is summed up anew for each call.
    done = part(db, "s", spans=1)
    assert done == Part(finished=False, traces=0, spans=LEAST_OF_LONG, begun=trace_id(1))
    await fits(db)
    parts = 0
    while not (part(db, "s", spans=50) or Part()).finished:
        parts += 1
    assert parts == 2  # of at most 100 calls it went whole
    assert rows(db, "SELECT * FROM traces") == []
    await fits(db)


async def test_other_writers_of_events_wait_only_for_the_end_of_a_part_of_a_long_trace(
    db: SqliteDatabase,
) -> None:
    write(db, [end(start(n, trace=1, session_id="s")) for n in range(1, 151)])
    how: Any = {"extent": "all", "before_seq": 2**60, "most_spans": 1, "now_us": 7}
    with db.transaction() as tx:
        noting: Any = Noting(tx)
        assert erase_session(noting, 1, "s", text_of, **how).spans == LEAST_OF_LONG
    assert noting.said[-2:] == [TAKE_NUMBERS, APPEND]


async def test_of_a_conversation_that_goes_on_the_next_call_begins_anew(
    db: SqliteDatabase,
) -> None:
    asked = ["u:one"]
    for n in range(1, 6):
        write(db, [spoken(start(n, session_id="s"), asked, [f"a:{n}"])])
        asked = [*asked, f"a:{n}", f"u:{n}"]
    while not (part(db, "s", before=4, spans=1) or Part()).finished:
        await fits(db)
    assert rows(db, "SELECT seq, base_meaning, fresh_count FROM spans") == [(5, None, 9)]
    assert rows(db, "SELECT DISTINCT span_seq FROM mentions") == [(5,)]


async def test_a_trace_without_a_session_goes_alone(db: SqliteDatabase) -> None:
    write(db, [spoken(start(n), ["u:hello"], [f"a:{n}"]) for n in (1, 2)])
    with db.transaction() as tx:
        for finished in (False, True):
            done = erase_trace(
                tx,
                1,
                trace_id(1),
                text_of,
                extent="all",
                before_seq=9,
                most_spans=5,
                now_us=7,
            )
            assert done.finished is finished
    assert [await state_of(db, n) for n in (1, 2)] == [None, "completed"]
    await fits(db)
