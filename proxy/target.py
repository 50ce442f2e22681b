"""Which upstream and which path a request names: raw bytes in, raw bytes out. Pure.

Invariant: nothing in a target can name a host. It gives a configured name and the bytes behind it;
scheme, host and port are the configuration's. Dot segments, plain or encoded, never pass.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

PREFIX: Final = b"/api/proxy/"


class BadTarget(ValueError):
    """The request target cannot be relayed as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a call is addressed to: an upstream's name, and path and query as they were sent.

    `query` is None where there was no question mark at all.
    """

    upstream: str
    path: bytes
    query: bytes | None

    @property
    def raw(self) -> bytes:
        """Path and query as they stood in the request."""
        return self.path if self.query is None else self.path + b"?" + self.query


def proxied(raw_target: bytes) -> Target:
    """Split `/api/proxy/{upstream}/{path}?{query}`.

    Raises:
        BadTarget: the path has a dot segment, a fragment or a backslash.
    """
    path, mark, query = raw_target.removeprefix(PREFIX).partition(b"?")
    name, slash, rest = path.partition(b"/")
    if b"#" in raw_target or b"\\" in rest:
        raise BadTarget("the request target has a fragment or a backslash")
    segments = unquote_to_bytes(rest).replace(b"\\", b"/").split(b"/")
    if b".." in segments or b"." in segments:
        raise BadTarget("the path has a dot segment")
    return Target(
        upstream=name.decode("utf-8", "replace"), path=slash + rest, query=query if mark else None
    )
