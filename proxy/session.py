"""Which session a call belongs to, and how we know. Pure: header bytes in, an id or None out.

Invariant: a session id is free text, stored as sent and never interpreted; it never fails a call,
but for control characters, which no display survives.
"""

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import Final

from proxy import headers

HEADER: Final = b"x-traceway-session-id"
# Exact up to this many bytes. A longer id keeps its beginning and is told apart by a hash of the
# whole, so that an index entry stays far below a database page (4 KiB).
MAX_BYTES: Final = 1024
_KEPT_BYTES: Final = 1007
_HASH_BYTES: Final = 8


class ControlCharacter(ValueError):
    """The session id has a control character; send printable text."""


@dataclass(frozen=True, slots=True)
class SessionRef:
    """A session id and the source that named it."""

    session_id: str
    source: str


def resolve(request_headers: headers.RawHeaders) -> SessionRef | None:
    """Find the session that the call's headers name.

    Raises:
        ControlCharacter: the id holds a character of Unicode category Cc.
    """
    value = headers.first(request_headers, HEADER)
    session_id = session_id_of(value) if value is not None else None
    return SessionRef(session_id, "header") if session_id else None


def session_id_of(value: bytes) -> str | None:
    """Read one header value as a session id: trimmed, UTF-8 or else Latin-1; None where empty.

    Raises:
        ControlCharacter: the id holds a character of Unicode category Cc.
    """
    try:
        text = value.decode("utf-8").strip()
    except UnicodeDecodeError:
        text = value.decode("latin-1").strip()
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ControlCharacter("the session id has a control character; send printable text")
    encoded = text.encode("utf-8")
    if len(encoded) <= MAX_BYTES:
        return text or None
    kept = encoded[:_KEPT_BYTES].decode("utf-8", "ignore")
    return f"{kept}~{hashlib.blake2b(encoded, digest_size=_HASH_BYTES).hexdigest()}"
