"""Fields of a JSON object of which only the beginning and the end were kept.

Invariant: a field is returned only where it is proved to be one of the outermost object's. From
the beginning that is a walk with the depth counted; at the end, a key from which ``{`` and the
rest parse as one object to the very last byte: its closing brace is the document's.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from proxy.providers.lenient import decode

# Bytes at the beginning that are walked. Ids and models come first; what follows the long value
# is in the tail.
_HEAD_BYTES: Final = 65_536
# Places where one key is tried in the tail. The right one is the last but for metadata behind it.
_TRIES: Final = 8

# Possessive, so that an unterminated string costs one pass; a string may be cut by the end.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[{}\[\],:]', re.DOTALL)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


def outer_fields(head: bytes, tail: bytes, keys: Sequence[str]) -> dict[str, object]:
    """Return those of the keys that stand in the outermost object, with their values."""
    fields: dict[str, object] = {}
    for pair in _leading_pairs(head[:_HEAD_BYTES]):
        found = decode(_OBJECT, b"{%b}" % pair) or {}
        fields |= {key: value for key, value in found.items() if key in keys}
    for key in keys:
        at = len(tail)
        for _ in range(_TRIES):
            at = tail.rfind(b'"%b"' % key.encode(), 0, at)
            if at < 0:
                break
            rest = decode(_OBJECT, b"{" + tail[at:])
            if rest is not None:
                fields[key] = rest.get(key)
                break
    return fields


def _leading_pairs(head: bytes) -> list[bytes]:
    """Cut the whole ``"key": value`` pairs of depth one out of a beginning."""
    pairs: list[bytes] = []
    if not head.lstrip().startswith(b"{"):
        return pairs
    depth = start = 0
    for match in _TOKEN.finditer(head):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
            if depth == 1:
                start = match.end()
        elif (depth == 1 and token == b",") or token in (b"}", b"]"):
            if depth == 1:
                pairs.append(head[start : match.start()])
                start = match.end()
            depth -= token != b","
            if not depth:
                break
    return pairs
