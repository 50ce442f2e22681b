"""What goes for the cap: the oldest of all projects, sessions and lone traces in one order."""

import pytest

from proxy.api.oldest import Oldest
from storage.retention import Old
from tests.api.asking import save
from tests.running import Running
from tests.storage.calls import T0, end, rows, start, trace_id

SECOND_US = 1_000_000
BEFORE_US = T0 + 50 * SECOND_US


async def all_of(tw: Running) -> list[Old]:
    """Give all that is old."""
    oldest = Oldest(tw.database, tw.server.eraser.pace, BEFORE_US)
    found = []
    while (old := await oldest.next()) is not None:
        found.append(old)
    assert await oldest.next() is None
    return found


async def test_the_oldest_goes_first_whatever_project_and_kind_it_is_of(
    tw: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.retention.SESSIONS", 2)
    monkeypatch.setattr("storage.retention.LONE_PAGE", 2)
    rows(tw.database, "INSERT INTO projects (id, name) VALUES (2, 'two')")
    # By turns: a session of the one, a trace of the other, a session of that, a trace of the one.
    expected = []
    for n in range(1, 17):
        project_id = 1 if n % 4 in (0, 1) else 2
        session_id = f"s{n}" if n % 2 else None
        given = {} if session_id is None else {"session_id": session_id}
        await save(tw, end(start(n, project_id=project_id, **given)))
        own = None if session_id else trace_id(n)
        expected.append(Old(T0 + n * SECOND_US, project_id, session_id, own))
    await save(tw, end(start(60, session_id="young")), end(start(61)), start(17), start(18))
    assert await all_of(tw) == expected


async def test_where_nothing_is_old_there_is_nothing(tw: Running) -> None:
    assert await all_of(tw) == []
    await save(tw, end(start(60, session_id="young")), end(start(61)))
    assert await all_of(tw) == []
