"""Copies of the bodies that pass, within bounds: one per body, and one over all of them.

Owns how much is held in memory. Invariant: the bytes held by all captures and by the recorder's
queue never exceed `Budget.limit_bytes` by more than what one call needs for its preview; a copy
that stops growing says so and still knows the length and the SHA-256 of the whole.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal, cast

# The end of a body whose middle is not kept: enough for the usage object that stands there.
TAIL_BYTES: Final = 64 * 1024
# Kept of every body, even when the budget is spent: what a list shows of it, and as much of its
# end, where a small answer has its usage.
PREVIEW_BYTES: Final = 2000


_POLICY: Final = re.compile(r"(full|preview|off)|preview\(([0-9]{1,9})\)")

CaptureMode = Literal["full", "preview", "off"]


@dataclass(frozen=True, slots=True)
class CapturePolicy:
    """How much of a call's bodies is kept: all up to the cap, the first bytes, or nothing."""

    mode: CaptureMode = "full"
    preview_bytes: int = PREVIEW_BYTES


FULL: Final = CapturePolicy()


def parse_capture(text: str) -> CapturePolicy | None:
    """Read `full`, `preview`, `preview(N)` (N bytes) or `off`; None for anything else."""
    found = _POLICY.fullmatch(text.strip().lower())
    if found is None:
        return None
    if found[2] is not None:
        return CapturePolicy("preview", int(found[2]))
    return CapturePolicy(cast(CaptureMode, found[1]))


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
    held_bytes: int = 0  # taken from the budget; whoever drops the copy gives them back

    @property
    def whole(self) -> bool:
        """Whether `head` is all of it."""
        return len(self.head) == self.size


class Capture:
    """A growing copy of one body. `add` never fails and keeps at most `limit_bytes` and a tail."""

    __slots__ = (
        "_budget",
        "_closed",
        "_head",
        "_held_bytes",
        "_limit_bytes",
        "_reserved_bytes",
        "_rest",
        "size",
    )

    def __init__(self, limit_bytes: int, budget: Budget) -> None:
        self.size = 0
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._head: list[bytes] = []
        self._held_bytes = 0
        self._reserved_bytes = 0  # taken from the budget for what is yet to come
        self._rest: _Rest | None = None
        self._closed = False

    def reserve(self, size: int) -> bool:
        """Have room for a whole body of `size` bytes before it comes; False where there is none.

        What does not come of it goes back with `captured`. There is none in the second half of the
        budget, which is for what has come: a client may announce much and send nothing.
        """
        if size > self._limit_bytes or self.size:
            return False
        if 2 * (self._budget.used_bytes + size) > self._budget.limit_bytes:
            return False
        self._budget.take(size)
        self._reserved_bytes = size
        return True

    def add(self, chunk: bytes) -> None:
        """Take note of the next bytes; once the copy was given, of their number alone."""
        self.size += len(chunk)
        if self._closed:
            return
        if self._rest is None:
            if self._keep(chunk):
                return
            self._rest = _Rest(self._head, self._tail_bytes())
            # The first part is closed here, so that it has no gaps.
            room = self._limit_bytes - self._held_bytes
            if not self._keep(chunk[:room]):
                self._keep(chunk[: max(0, PREVIEW_BYTES - self._held_bytes)])
        self._rest.add(chunk)

    def share(self, whole: bytes) -> None:
        """Hold the body, now that it is whole, as the one piece that others hold too."""
        if self._rest is None:
            self._head = [whole]

    @property
    def is_whole(self) -> bool:
        """Whether it is all of what came so far."""
        return self._rest is None

    @property
    def head_bytes(self) -> int:
        """Bytes of the first part, the only one that grows in full."""
        return self._held_bytes

    def captured(self) -> Captured:
        """Give the copy as it stands, with what it took from the budget, and close it.

        An upload may go on behind the end of its answer: what that took nobody would give back.
        """
        self._closed = True
        self._budget.give(self._reserved_bytes)
        self._reserved_bytes = 0
        head = b"".join(self._head)
        rest = self._rest
        if rest is None:
            return Captured(head=head, size=self.size, held_bytes=self._held_bytes)
        return Captured(
            head=head,
            tail=bytes(rest.tail),
            size=self.size,
            sha256=rest.sha256.digest(),
            held_bytes=self._held_bytes + rest.tail_bytes,
        )

    def piece(self, number: int) -> bytes | None:
        """Give one of the pieces of the first part, from 0; None where it has not come (yet)."""
        return self._head[number] if number < len(self._head) else None

    def so_far(self) -> Captured | None:
        """Give a second copy of the first part, itself on the budget; None where it has no room."""
        if not self._budget.take(self._held_bytes):
            return None
        return Captured(head=b"".join(self._head), size=self.size, held_bytes=self._held_bytes)

    def _tail_bytes(self) -> int:
        if self._budget.take(TAIL_BYTES):
            return TAIL_BYTES
        self._budget.take(PREVIEW_BYTES, anyway=True)
        return PREVIEW_BYTES

    def _keep(self, chunk: bytes) -> bool:
        held_bytes = self._held_bytes + len(chunk)
        if held_bytes > self._limit_bytes:
            return False
        reserved_bytes = min(len(chunk), self._reserved_bytes)
        wanted_bytes = len(chunk) - reserved_bytes
        is_small = held_bytes <= PREVIEW_BYTES
        if wanted_bytes and not self._budget.take(wanted_bytes, anyway=is_small):
            return False
        self._reserved_bytes -= reserved_bytes
        self._head.append(chunk)
        self._held_bytes = held_bytes
        return True


class _Rest:
    """What is known of a body beyond its first part: its hash and its end."""

    __slots__ = ("sha256", "tail", "tail_bytes")

    def __init__(self, head: list[bytes], tail_bytes: int) -> None:
        self.tail = bytearray()
        self.tail_bytes = tail_bytes
        # From here on only a hash can tell this body from another. The first part is hashed at
        # once: 8 MiB cost about 6 ms, once for a body that is larger than what is kept.
        self.sha256 = hashlib.sha256()
        for part in head:
            self.sha256.update(part)

    def add(self, chunk: bytes) -> None:
        self.sha256.update(chunk)
        self.tail += chunk[-self.tail_bytes :]
        del self.tail[: -self.tail_bytes]
