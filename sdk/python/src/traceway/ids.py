"""Ids that the client makes, so that whatever is sent twice is taken once.

A trace id is a UUIDv7 (RFC 9562, section 5.7), a span id 64 random bits; neither is ever zero. The
generator is Python's own, seeded from the system, and anew in the child of a fork: it costs a tenth
of asking the system each time, and ids are no secrets.
"""

import os
import random
import time

_RANDOM = random.Random()  # noqa: S311 - ids are no secrets
_bits = _RANDOM.getrandbits
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_RANDOM.seed)


def new_trace_id() -> int:
    """Give the 128 bits of a UUIDv7 of now."""
    random_bits = _bits(74)
    return (
        (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80
        | 0x7 << 76
        | (random_bits >> 62) << 64
        | 0b10 << 62
        | random_bits & (1 << 62) - 1
    )


def new_span_id() -> int:
    """Give 64 random bits."""
    return _bits(64) or 1
