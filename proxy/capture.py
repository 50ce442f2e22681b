"""Copies of the bodies that pass, within bounds: one per body, and one over all of them.

Owns how much is held in memory. Invariant: the bytes held by all captures and by the recorder's
queue never exceed `Budget.limit_bytes` by more than what one call needs for its preview; a copy
that stops growing says so and still knows the length and the SHA-256 of the whole.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

# The end of a body whose middle is not kept: enough for the usage object that stands there.
TAIL_BYTES: Final = 64 * 1024
# Kept of every body, even when the budget is spent: what a list shows of it.
PREVIEW_BYTES: Final = 2000


class Budget:
    """Bytes that recording may hold, over all calls in flight and the queue."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def take(self, size: int, *, anyway: bool = False) -> bool:
        """Reserve `size` bytes; False, and nothing reserved, where they do not fit."""
        if self.used_bytes + size > self.limit_bytes and not anyway:
            return False
        self.used_bytes += size
        return True

    def give(self, size: int) -> None:
        """Return bytes that were taken."""
        self.used_bytes -= size


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What was held of a body: its first part, its last (empty where the first is the whole)."""

    head: bytes = b""
    tail: bytes = b""
    size: int = 0
    sha256: bytes | None = None

    @property
    def whole(self) -> bool:
        """Whether `head` is all of it."""
        return len(self.head) == self.size

    @property
    def held_bytes(self) -> int:
        """Bytes that this copy took from the budget."""
        return len(self.head)


class Capture:
    """A growing copy of one body. `add` never fails and keeps at most `limit_bytes` and a tail."""

    __slots__ = ("_budget", "_head", "_held_bytes", "_limit_bytes", "_rest", "size")

    def __init__(self, limit_bytes: int, budget: Budget) -> None:
        self.size = 0
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._head: list[bytes] = []
        self._held_bytes = 0
        self._rest: _Rest | None = None

    def add(self, chunk: bytes) -> None:
        """Take note of the next bytes."""
        self.size += len(chunk)
        if self._rest is None:
            if self._keep(chunk):
                return
            self._rest = _Rest(self._head)
            # The first part is closed here, so that it has no gaps.
            room = self._limit_bytes - self._held_bytes
            if not self._keep(chunk[:room]):
                self._keep(chunk[: max(0, PREVIEW_BYTES - self._held_bytes)])
        self._rest.add(chunk)

    def captured(self) -> Captured:
        """Give the copy as it stands."""
        head = b"".join(self._head)
        if self._rest is None:
            return Captured(head=head, size=self.size)
        tail = bytes(self._rest.tail[-TAIL_BYTES:])
        return Captured(head=head, tail=tail, size=self.size, sha256=self._rest.sha256.digest())

    def _keep(self, chunk: bytes) -> bool:
        held_bytes = self._held_bytes + len(chunk)
        if held_bytes > self._limit_bytes:
            return False
        if not self._budget.take(len(chunk), anyway=held_bytes <= PREVIEW_BYTES):
            return False
        self._head.append(chunk)
        self._held_bytes = held_bytes
        return True


class _Rest:
    """What is known of a body beyond its first part: its hash and its end."""

    __slots__ = ("sha256", "tail")

    def __init__(self, head: list[bytes]) -> None:
        self.tail = bytearray()
        # From here on only a hash can tell this body from another. The first part is hashed at
        # once: 8 MiB cost about 6 ms, once for a body that is larger than what is kept.
        self.sha256 = hashlib.sha256()
        for part in head:
            self.sha256.update(part)

    def add(self, chunk: bytes) -> None:
        self.sha256.update(chunk)
        self.tail += chunk
        if len(self.tail) > 2 * TAIL_BYTES:
            del self.tail[:-TAIL_BYTES]
