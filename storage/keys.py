"""What names a span, a trace and a session in every table.

Invariant: the number of a session, or of a trace that has none, is of no other. Pure.
"""

import hashlib
from functools import lru_cache

# Each begins with the project.
SpanKey = tuple[int, bytes, bytes]
TraceKey = tuple[int, bytes]
SessionKey = tuple[int, str]


@lru_cache(maxsize=1024)
def session_key(project_id: int, session_id: str) -> int:
    """Give the number of a session in mentions and spans: 64 bits of a hash, signed.

    A million sessions have a chance of 10^-8 that any two of them share a number.
    """
    return _number(b"s", project_id, session_id.encode())


def lone_key(project_id: int, trace_id: bytes) -> int:
    """Give the number that stands for a session where a trace has none."""
    return _number(b"t", project_id, trace_id)


def _number(kind: bytes, project_id: int, name: bytes) -> int:
    digest = hashlib.blake2b(b"%b%d:%b" % (kind, project_id, name), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
