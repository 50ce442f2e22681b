"""A session stays where it has all that it had; what comes to it does not matter."""

from typing import Any

import pytest

from proxy.api.staying import check_stays
from proxy.providers.messages import text_of
from storage.archive import ArchiveChanged
from storage.forget import delete_session, delete_trace
from storage.queries import get_session
from storage.records import Session
from tests.api.asking import save
from tests.running import Running
from tests.storage.calls import end, start, trace_id


async def two_traces(tw: Running) -> Session:
    await save(tw, *(end(start(n, session_id="s")) for n in (1, 2)))
    session = await get_session(tw.database, 1, "s")
    assert session is not None
    return session


async def test_a_session_that_is_as_it_was_or_has_more_stays(tw: Running) -> None:
    before = await two_traces(tw)
    await check_stays(tw.database, before)
    await save(tw, end(start(3, session_id="s")), start(4, trace=1, session_id="s"))
    await check_stays(tw.database, before)


DELETED: dict[str, Any] = {
    "all": lambda tx: delete_session(tx, 1, "s", text_of),
    "a part": lambda tx: delete_trace(tx, 1, trace_id(1), text_of),
}


@pytest.mark.parametrize("what", DELETED)
async def test_a_session_that_is_gone_or_has_less_does_not(tw: Running, what: str) -> None:
    before = await two_traces(tw)
    await tw.server.recorder.write(DELETED[what])
    with pytest.raises(ArchiveChanged, match="the session was changed, or is not there"):
        await check_stays(tw.database, before)
