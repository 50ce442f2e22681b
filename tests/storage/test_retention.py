"""What is too old is found by two clocks, page by page, and looked at again before it goes."""

import pytest

from storage import retention
from storage.erase import Part
from storage.keys import TraceKey
from storage.retention import BEGINNING, Old, Place
from storage.sqlite import SqliteDatabase
from tests.storage.calls import T0, end, rows, spoken, start, text_of, trace_id, write

SECOND_US = 1_000_000


def keys(*numbers: int) -> list[TraceKey]:
    return [(1, trace_id(n)) for n in numbers]


async def test_content_is_due_by_the_start_of_its_trace_each_sessions_newest_first(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, [end(start(n, session_id="a" if n % 2 else "b")) for n in range(1, 7)])
    write(db, [end(start(7)), start(8), end(start(9, session_id="starred"))])
    rows(db, "UPDATE sessions SET starred = 1 WHERE session_id = 'starred'")
    due = await retention.old_content(db, T0 + 60 * SECOND_US)
    assert due.place is None
    assert list(due.traces) == [keys(7), keys(6, 4, 2), keys(5, 3, 1)]
    before = await retention.old_content(db, T0 + 3 * SECOND_US)
    assert list(before.traces) == [keys(2), keys(1)]
    monkeypatch.setattr(retention, "PAGE", 2)
    pages = []
    for oldest in (False, True):
        place: tuple[int, int] | None = None
        while True:
            due = await retention.old_content(db, T0 + 60 * SECOND_US, place, oldest=oldest)
            pages.append([key for traces in due.traces for key in traces])
            if (place := due.place) is None:
                break
    newest_first = [key for page in pages for key in page]
    assert sorted(newest_first) == sorted(keys(1, 2, 3, 4, 5, 6, 7) * 2)


async def test_a_session_that_got_a_star_meanwhile_keeps_its_content(db: SqliteDatabase) -> None:
    write(db, [spoken(start(n, session_id="s"), [f"u:{n}"], ["a:x"]) for n in (1, 2)])
    rows(db, "UPDATE sessions SET starred = 1")
    with db.transaction() as tx:
        part, taken = retention.forget_old(tx, keys(2, 1), text_of, most_spans=9, now_us=5)
    assert (part.finished, part.traces, taken) == (True, 0, 2)
    rows(db, "UPDATE sessions SET starred = 0")
    with db.transaction() as tx:
        part, taken = retention.forget_old(tx, keys(2, 1), text_of, most_spans=1, now_us=5)
        assert (part.finished, taken) == (False, 1)
        part, taken = retention.forget_old(tx, keys(2, 1), text_of, most_spans=1, now_us=5)
        assert (part.finished, part.traces, taken) == (True, 1, 1)
    assert rows(db, "SELECT seq FROM traces WHERE forgotten_at_us = 5") == [(2,)]


async def test_a_trace_that_goes_on_or_ended_meanwhile_keeps_its_content(
    db: SqliteDatabase,
) -> None:
    write(db, [spoken(start(n, session_id="s"), [f"u:{n}"], ["a:x"]) for n in (1, 2)])
    write(db, [start(3, trace=2)])
    ((ended_at_us,),) = rows(db, "SELECT last_ended_at_us FROM traces WHERE seq = 1")
    with db.transaction() as tx:
        part, taken = retention.forget_old(
            tx, keys(2, 1), text_of, most_spans=9, now_us=5, before_us=ended_at_us
        )
    assert (part.traces, taken) == (0, 2)
    with db.transaction() as tx:
        part, taken = retention.forget_old(
            tx, keys(2, 1), text_of, most_spans=9, now_us=5, before_us=ended_at_us + 1
        )
    assert (part.traces, taken) == (1, 2)
    assert rows(db, "SELECT seq FROM traces WHERE forgotten_at_us = 5") == [(1,)]


async def sessions(db: SqliteDatabase, before_us: int) -> list[str | None]:
    """Give the sessions that are old, page by page."""
    found: list[str | None] = []
    place: Place | None = BEGINNING
    while place is not None:
        some, place = await retention.old(db, "sessions", 1, before_us, place)
        found += [one.session_id for one in some]
    return found


def erase(db: SqliteDatabase, old: Old, before_us: int, spans: int = 9) -> Part:
    """Erase a part of it if it is old."""
    with db.transaction() as tx:
        return retention.erase_old(
            tx, old, text_of, before_us=before_us, most_spans=spans, now_us=5
        )


async def test_sessions_are_due_by_their_last_activity_the_oldest_first(db: SqliteDatabase) -> None:
    write(db, [end(start(n, session_id=f"s{n}")) for n in (3, 1, 2)])
    write(db, [end(start(9, session_id="s1"))])
    before_us = T0 + 5 * SECOND_US
    assert await retention.projects(db) == [1]
    assert await sessions(db, before_us) == ["s2", "s3"]
    rows(db, "UPDATE sessions SET starred = 1 WHERE session_id = 's2'")
    assert await sessions(db, before_us) == ["s3"]
    for session, left in (("s2", 4), ("s1", 4), ("s3", 3)):
        erase(db, Old(0, 1, session, None), before_us)
        assert rows(db, "SELECT COUNT(*) FROM traces") == [(left,)]


async def test_a_session_counts_with_the_part_with_which_it_goes(db: SqliteDatabase) -> None:
    write(db, [end(start(n, session_id="s")) for n in (1, 2, 3)])
    write(db, [end(start(4))])
    before_us = T0 + 60 * SECOND_US
    parts = [erase(db, Old(0, 1, "s", None), before_us, 2) for _ in range(3)]
    assert [(one.sessions, one.traces) for one in parts] == [(0, 2), (1, 1), (0, 0)]
    assert erase(db, Old(0, 1, None, trace_id(4)), before_us).sessions == 0


async def test_what_runs_or_went_on_after_the_moment_is_not_old(db: SqliteDatabase) -> None:
    began = start(2, trace=1, session_id="runs")
    write(db, [end(start(1, session_id="runs")), began, start(3)])
    write(db, [end(start(4, session_id="long")), end(start(5)), end(start(6, session_id="old"))])
    write(db, [end(start(90, trace=4, session_id="long")), end(start(91, trace=5))])
    before_us = T0 + 50 * SECOND_US
    assert await sessions(db, before_us) == ["old"]
    assert await retention.old(db, "lone traces", 1, before_us) == ([], None)
    due = await retention.old_content(db, before_us, oldest=True)
    assert list(due.traces) == [keys(6)]
    for session in ("runs", "long"):
        erase(db, Old(0, 1, session, None), before_us)
    for n in (3, 5):
        erase(db, Old(0, 1, None, trace_id(n)), before_us)
    assert rows(db, "SELECT COUNT(*) FROM spans") == [(8,)]
    write(db, [end(began)])
    assert await sessions(db, before_us) == ["runs", "old"]


async def test_traces_without_a_session_are_due_by_their_start(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LONE_PAGE", 2)
    write(db, [end(start(n, **({"session_id": "s"} if n == 2 else {}))) for n in range(1, 6)])
    before_us = T0 + 5 * SECOND_US
    found: list[Old] = []
    place: Place | None = BEGINNING
    while place is not None:
        some, place = await retention.old(db, "lone traces", 1, before_us, place)
        found += some
    assert found == [Old(T0 + n * SECOND_US, 1, None, trace_id(n)) for n in (1, 3, 4)]
    for n, left in ((2, 5), (1, 4)):
        erase(db, Old(0, 1, None, trace_id(n)), before_us)
        assert rows(db, "SELECT COUNT(*) FROM traces") == [(left,)]
