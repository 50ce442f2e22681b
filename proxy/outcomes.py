"""What becomes of records that were to be saved: words and questions of the recorder. Pure."""

from collections.abc import Sequence
from typing import Literal

from proxy.backlog import Item
from proxy.call import CallEnd
from storage.records import SpanEnd

Outcome = Literal["saved", "refused", "given up"]
# A call that ended, and what its row was made of.
Ended = tuple[CallEnd, SpanEnd]


def ends(batch: Sequence[Item], changes: Sequence[object]) -> list[Ended]:
    """Give the calls that ended in a batch, each with its row."""
    return [
        (item.record, change)
        for item, change in zip(batch, changes, strict=True)
        if isinstance(item.record, CallEnd) and isinstance(change, SpanEnd)
    ]
