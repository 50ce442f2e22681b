"""Keeps a provider's key out of an answer whose caller must not know it.

An upstream may give back what it was sent: in the text of an error, in a header, in a page for
debugging. Owns how a key may be spelled there, and what stands in its place: as many `*`, so that
lengths and framing stay true. Invariant: however an answer is cut into pieces, it comes out as if
it had been replaced as a whole, and no more of it is held back than what may be the beginning of a
key. What was encrypted, compressed or encoded as base64 does not show the key and is not changed.
Pure.
"""

from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote_from_bytes

from proxy.headers import RawHeaders

# An answer may end within a key. So much of one, or half of it, is more than the prefix that a
# provider gives to all of its keys ("sk-ant-api03-").
PART_BYTES: Final = 16
_STAR: Final = b"*"

# How characters are written: by JSON, where only these two must be escaped; by PHP, which escapes
# the slash too; by Go and by .NET, which escape in JSON what means something in HTML; in HTML; in
# a URL.
_JSON: Final = {ord('"'): b'\\"', ord("\\"): b"\\\\"}
_PHP: Final = {**_JSON, ord("/"): b"\\/"}
_GO: Final = {**_JSON, **{ord(char): b"\\u%04x" % ord(char) for char in "<>&"}}
_NET: Final = {**_JSON, **{ord(char): b"\\u%04X" % ord(char) for char in "\"&'+<>`"}}
_HTML: Final = {
    **{ord("&"): b"&amp;", ord("<"): b"&lt;", ord(">"): b"&gt;"},
    **{ord('"'): b"&quot;", ord("'"): b"&#x27;"},
}
_HTML_GO: Final = {**_HTML, ord('"'): b"&#34;", ord("'"): b"&#39;"}
_HTML_TEXT: Final = {ord("&"): b"&amp;", ord("<"): b"&lt;", ord(">"): b"&gt;"}
_HTML_PHP: Final = {**_HTML, ord("'"): b"&#039;"}
_TABLES: Final = (_JSON, _PHP, _GO, _NET, _HTML, _HTML_GO, _HTML_TEXT, _HTML_PHP)


def spellings(key: bytes) -> tuple[bytes, ...]:
    """List how a key is written by what may quote it, the longest first; most have one spelling."""
    found = {key}
    if not key.replace(b"-", b"a").replace(b"_", b"a").isalnum():  # which nothing escapes
        for table in _TABLES:
            found.add(b"".join([table.get(byte, b"%c" % byte) for byte in key]))
        for safe in ("", "/"):
            quoted = quote_from_bytes(key, safe).encode()
            found |= {quoted, _lower_hex(quoted)}
    return tuple(sorted(found, key=len, reverse=True))


def _lower_hex(quoted: bytes) -> bytes:
    first, *parts = quoted.split(b"%")
    return b"%".join([first, *(part[:2].lower() + part[2:] for part in parts)])


class Mask:
    """Hides one key, in all of its spellings, in one answer."""

    def __init__(self, spelled: Sequence[bytes]) -> None:
        self._spelled = spelled
        self._held = b""

    def __repr__(self) -> str:
        return "<Mask>"

    def feed(self, piece: bytes) -> bytes:
        """Give what the client receives of the next bytes."""
        data = self._held + piece if self._held else piece
        shown, self._held = self._split(data)
        return shown

    def finish(self) -> bytes:
        """Give what was held back until the end was known."""
        rest = self.hidden(self._held)
        part, self._held = self._held, b""
        telling = min(PART_BYTES, len(self._spelled[-1]) // 2)
        return _STAR * len(part) if rest is part and len(part) >= telling else rest

    def hidden(self, data: bytes) -> bytes:
        """Give a whole text without the key; the same object where it is not in it."""
        place = 0
        shown: list[bytes] = []
        for at, size in self._places(data):
            shown += (data[place:at], _STAR * size)
            place = at + size
        return b"".join([*shown, data[place:]]) if shown else data

    def headers(self, headers: RawHeaders) -> RawHeaders:
        """Give the headers of an answer without the key."""
        return [(self.hidden(name), self.hidden(value)) for name, value in headers]

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """Give what may be shown of the data, and the end of it that may go on as a key."""
        place = 0
        shown: list[bytes] = []
        end = self._open_end(data, place)
        for at, size in self._places(data):
            if at >= end:  # it may turn out to be a part of a longer one
                break
            shown += (data[place:at], _STAR * size)
            place = at + size
            if place > end:
                end = self._open_end(data, place)
        if not shown and end == len(data):
            return data, b""
        return b"".join([*shown, data[place:end]]), data[end:]

    def _places(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Give where each spelling stands and its length, from left to right, none in another.

        Of those that begin at one place it is the longest. Each is searched from where it was found
        last: from the place reached, a data full of one would be read to its end for every other.
        """
        ahead = [(spelling, data.find(spelling)) for spelling in self._spelled]
        place = 0
        while True:
            ahead = [
                (spelling, at if at >= place else data.find(spelling, place))
                for spelling, at in ahead
                if at >= 0
            ]
            found = [(at, -len(spelling)) for spelling, at in ahead if at >= 0]
            if not found:
                return
            at, less = min(found)
            yield at, -less
            place = at - less

    def _open_end(self, data: bytes, place: int) -> int:
        """Find where the longest end of the data begins that a spelling begins with."""
        end = len(data)
        if data[-1:] <= b" ":  # an event, or a line: no key has white space
            return end
        for spelling in self._spelled:
            at = data.find(spelling[:1], max(place, len(data) - len(spelling) + 1), end)
            while at >= 0 and not spelling.startswith(data[at:]):
                at = data.find(spelling[:1], at + 1, end)
            if at >= 0:
                end = at
        return end
