"""The beginnings of the last calls of each conversation, so that no message is read twice.

Owns what of a request may be taken over from an earlier one: a cache, bounded in bytes. Invariant:
what is found holds for the new body as it did for the old: the bytes are the same (compared, not
hashed), and the new ones hold no secret. It does not read messages.

It may hold tens of thousands of conversations, through which the garbage collector would walk while
all calls wait: what is held is none of its business (``gc=False``, bytes, strings, tuples of them),
since nothing of it leads back to where it is held.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Collection
from typing import Final

import msgspec

from proxy.headers import redact
from proxy.providers.facts import Operation
from storage.chain import BEGINNING, Point

# Prefixes of 16 coding agents with 2 MiB of context each; half of what recording may hold.
MAX_BYTES: Final = 32 * 1024 * 1024
# Conversations that go on at once without a session id, or the subagents of one session.
MAX_OF_ONE_CALLER: Final = 32
# What an entry takes beside its bytes, and each of its points.
_ENTRY_BYTES: Final = 1024
_POINT_BYTES: Final = 160
_OUR_KEY_BYTES: Final = len(b"tw_sk_")


class Owner(msgspec.Struct, frozen=True, gc=False):
    """Whose calls may go on from each other."""

    project_id: int
    caller: bytes | None
    session_id: str
    operation: Operation


class Head(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a conversation stands after ``count`` messages, of which the last is ``node``.

    ``leading``: all of them instruct. ``points`` are the furthest, as seen from here. ``asked`` is
    the text of the newest message of the user's; while there is none, ``newest`` is that of the
    newest with any.
    """

    node: bytes = BEGINNING
    meaning: bytes = BEGINNING
    prelude: bytes | None = None
    leading: bool = True
    count: int = 0
    points: tuple[Point, ...] = ()
    asked: str | None = None
    newest: str | None = None

    def __repr__(self) -> str:
        """Show no text."""
        return f"Head(count={self.count})"


class Prefix(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """The beginning of a ``body`` up to the ``end`` of its last message, and what is known of it.

    ``opened`` is the offset behind the bracket of the array of messages. ``sha256`` has taken in
    ``data``, which holds none of the secrets in ``clean``, nor a key of ours.
    """

    body: bytes
    end: int
    opened: int
    sha256: "hashlib._Hash"
    clean: tuple[bytes, ...]
    head: Head

    def __repr__(self) -> str:
        """Show no text."""
        return f"Prefix(end={self.end}, head={self.head})"

    @property
    def data(self) -> memoryview:
        """The beginning; a view, as a copy of 2 MiB would take longer than all else."""
        return memoryview(self.body)[: self.end]

    @property
    def weight(self) -> int:
        """Bytes of memory that it takes, about: it holds all of the body."""
        return len(self.body) + _ENTRY_BYTES + _POINT_BYTES * len(self.head.points)


class Prefixes:
    """The cache; the owner that was longest without a call goes first. Not thread-safe."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.held_bytes = 0
        self._max_bytes = max_bytes
        self._of: OrderedDict[Owner, list[Prefix]] = OrderedDict()

    def find(self, owner: Owner, body: bytes, secrets: Collection[bytes]) -> Prefix | None:
        """Give the longest prefix with which the body begins, if what is new has no secret."""
        found = None
        for prefix in self._of.get(owner, ()):
            longer = found is None or prefix.end > found.end
            if longer and body.startswith(prefix.data):
                found = prefix
        return found if found is not None and _is_clean(found, body, secrets) else None

    def put(self, owner: Owner, prefix: Prefix, replaces: Prefix | None = None) -> None:
        """Keep a prefix, in place of the one that it goes on from."""
        kept = self._of.setdefault(owner, [])
        self._of.move_to_end(owner)
        if replaces is not None:
            kept.remove(replaces)
            self.held_bytes -= replaces.weight
        kept.append(prefix)
        self.held_bytes += prefix.weight
        if len(kept) > MAX_OF_ONE_CALLER:
            self.held_bytes -= kept.pop(0).weight
        while self.held_bytes > self._max_bytes:
            oldest, prefixes = next(iter(self._of.items()))
            self.held_bytes -= prefixes.pop(0).weight
            if not prefixes:
                del self._of[oldest]

    def clear(self) -> None:
        """Forget everything."""
        self._of.clear()
        self.held_bytes = 0


def _is_clean(prefix: Prefix, body: bytes, secrets: Collection[bytes]) -> bool:
    # A secret may begin in what is known.
    overlap_bytes = max(map(len, secrets), default=0) + _OUR_KEY_BYTES
    new = body[max(0, prefix.end - overlap_bytes) :]
    if redact(new, secrets) is not new:
        return False
    # An answer may set a cookie, a secret that the last call did not have.
    return not any(body.find(s) >= 0 for s in secrets if s not in prefix.clean)
