"""Where the lines of a block stand, and which of its spans is one that is elsewhere as well.

Invariant: a call is in a block once. It is known by its id and by the trace that it is of by
itself, which stays with it when it moves into another (transfer.py): so it is the same call
wherever an archive, or a database, has it. Pure.
"""

from typing import NamedTuple

# A trace, and a span in it.
Key = tuple[bytes, bytes]


class Place(NamedTuple):
    """Where a line stands in its block; of a content, also how many bytes it has."""

    at: int
    length: int
    size: int = 0


class Spans(dict[Key, Place]):
    """The spans of a block by their traces and ids.

    A call that comes again in another trace is left out: older versions stored one anew that had
    moved since it was exported, and so there are archives that have both.
    """

    def __init__(self) -> None:
        super().__init__()
        # Where the block has calls that moved, by the trace that they are of by themselves; and by
        # the one that it has them in, to which they are foreign.
        self._moved: dict[Key, Key] = {}
        self._foreign: set[Key] = set()

    def add(self, key: Key, moved_from: bytes | None, place: Place) -> None:
        """Add a span, unless it is a call that is in the block already."""
        if self.find(key, moved_from) is None:
            self[key] = place
            if moved_from is not None:
                self._moved[moved_from, key[1]] = key
                self._foreign.add(key)

    def find(self, key: Key, moved_from: bytes | None) -> Key | None:
        """Give where the block has the span that stands elsewhere under this key; None: nowhere."""
        if key in self:
            return key
        own = key if moved_from is None else (moved_from, key[1])
        if own in self and own not in self._foreign:
            return own
        return self._moved.get(own)
