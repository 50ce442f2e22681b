"""Of a batch, the calls that ended are told with their rows; others are not."""

import asyncio

from proxy.backlog import Item
from proxy.outcomes import ends
from tests.calling import ended
from tests.storage.calls import end, start


async def test_the_calls_that_ended_are_told_with_their_rows() -> None:
    def item(record: object) -> Item:
        return Item(record, None, asyncio.get_running_loop().create_future(), 0, True)  # type: ignore[arg-type]

    call, row = ended(), end(start(1))
    batch = [item(start(1)), item(call), item(ended())]
    assert ends(batch, [start(1), row, None]) == [(call, row)]
