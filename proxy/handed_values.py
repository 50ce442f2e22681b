"""What applications hand in, value by value: ids, times, money, tokens. Pure.

Invariant: what leaves here can be stored as it is, and what cannot be is a ``BadValue`` that says
what was expected and quotes nothing. It knows no protocol: the write API and OpenTelemetry read
their own forms and come here with what they found.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from hashlib import blake2b
from secrets import token_bytes
from typing import Final

import uuid_utils

from proxy import session, usage
from proxy.headers import redact
from proxy.providers.lenient import clean
from storage.records import Tokens

# Characters of a span's or a trace's name, and of what went wrong; more is cut.
NAME_CHARS: Final = 512
ERROR_CHARS: Final = 4_000
# Bytes of a span's attributes and metadata together. A span is handed in by two requests at most,
# and what storage expands has 1 MiB (storage/squeeze.py).
MAX_ATTRIBUTES_BYTES: Final = 256 * 1024
# Levels of them; orjson writes 254.
MAX_ATTRIBUTES_DEPTH: Final = 100
# A year: agents run for days.
MAX_DURATION_MS: Final = 366 * 86_400_000
MAX_COST_USD: Final = 10_000
# Any clock that is set is between these.
_FIRST_US: Final = 0
_LAST_US: Final = 7_258_118_400_000_000  # 2200-01-01
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_NUSD: Final = Decimal(10**9)

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_HEX: Final = re.compile(r"[0-9a-fA-F]+")
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
# Half of a surrogate pair alone, which JSON can spell and UTF-8 cannot; group 1 is such.
_ESCAPE: Final = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.S)
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class BadValue(ValueError):
    """A value cannot be what it should be; the text says what was expected."""


def trace_id_of(text: str) -> bytes:
    """Read a trace's id: 32 hex digits, or a UUID with its dashes.

    Raises:
        BadValue: it is none, or all zeros.
    """
    digits = text.replace("-", "") if _UUID.fullmatch(text) else text
    return _id(digits, 32, "expected 32 hex digits, or a UUID, not all zeros")


def span_id_of(text: str) -> bytes:
    """Read a span's id: 16 hex digits.

    Raises:
        BadValue: it is none, or all zeros.
    """
    return _id(text, 16, "expected 16 hex digits, not all zeros")


def _id(digits: str, count: int, expected: str) -> bytes:
    if (
        len(digits) != count
        or not _HEX.fullmatch(digits)
        or not any(found := bytes.fromhex(digits))
    ):
        raise BadValue(expected)
    return found


def new_trace_id() -> bytes:
    """Make a trace's id; later ones are greater."""
    return uuid_utils.uuid7().bytes


def new_span_id() -> bytes:
    """Make a span's id, at random."""
    return token_bytes(8)


def trace_of_span(project_id: int, span_id: bytes) -> bytes:
    """Give the id of the trace that a span has for itself: the same one each time it is sent."""
    return blake2b(b"%d:%b" % (project_id, span_id), digest_size=16).digest()


def time_us(time: datetime) -> int:
    """Give a time with a zone in microseconds UTC.

    Raises:
        BadValue: no clock shows it.
    """
    found = (time - _EPOCH) // _US
    if not _FIRST_US <= found < _LAST_US:
        raise BadValue("expected a time from 1970 to 2199")
    return found


def duration_us(milliseconds: float) -> int:
    """Give a duration in microseconds.

    Raises:
        BadValue: it is negative, or longer than a year.
    """
    if not 0 <= milliseconds <= MAX_DURATION_MS:
        raise BadValue(f"expected milliseconds from 0 to {MAX_DURATION_MS}")
    return round(milliseconds * 1000)


def nusd_of(usd: float) -> int:
    """Give an amount of USD in nano-USD, exactly as its shortest decimal says; halves to even.

    Raises:
        BadValue: it is negative, or more than MAX_COST_USD.
    """
    if not 0 <= usd <= MAX_COST_USD:
        raise BadValue(f"expected USD from 0 to {MAX_COST_USD}")
    return int((Decimal(repr(usd)) * _NUSD).to_integral_value(ROUND_HALF_EVEN))


def count_of(value: float) -> int:
    """Give a count of tokens.

    Raises:
        BadValue: it is no whole number from 0 to 10^9.
    """
    found = usage.count(value)
    if found is None:
        raise BadValue(f"expected a whole number from 0 to {usage.MAX_COUNT}")
    return found


def fitted(tokens: Tokens) -> Tokens:
    """Leave out each part that is larger than its whole."""
    return usage.fit(tokens, [])


def session_id_of(text: str) -> str | None:
    """Read a session's id as the header's is read; None where it is empty.

    Raises:
        BadValue: it has a control character.
    """
    try:
        return session.session_id_of(without_keys(text.encode("utf-8", "replace")))
    except session.ControlCharacter:
        raise BadValue("expected text without control characters") from None


def text_of(text: str | None, most_chars: int) -> str | None:
    """Give text fit to store, cut and without keys of ours; None where nothing is left."""
    return plain(clean(text[:most_chars])).strip() or None if text else None


def is_deep(value: bytes, most: int = MAX_ATTRIBUTES_DEPTH) -> bool:
    """Tell whether a JSON value has more levels than this."""
    if value.count(b"[") + value.count(b"{") <= most:
        return False
    depth = 0
    for found in _BRACKETS.finditer(value):
        mark = found[0]
        if mark in (b"[", b"{"):
            depth += 1
            if depth > most:
                return True
        elif mark in (b"]", b"}"):
            depth -= 1
    return False


def without_keys(data: bytes) -> bytes:
    """Cut keys of ours out of JSON, as out of the bodies of calls."""
    return redact(data, ())


def plain(text: str) -> str:
    """Cut keys of ours out of text, which JSON may have spelled in another way."""
    return without_keys(text.encode()).decode() if "tw_sk_" in text else text


def repaired(data: bytes) -> bytes:
    """Put U+FFFD where JSON spells half of a surrogate pair: programs cut text within characters.

    Else the whole value could be read by no strict parser.
    """
    if not _HALF.search(data):
        return data
    # Not by `sub`, which would hold every other escape as an object of its own.
    whole, at = bytearray(), 0
    for found in _ESCAPE.finditer(data):
        if found[1]:
            whole += data[at : found.start()]
            whole += rb"\ufffd"
            at = found.end()
    return bytes(whole + data[at:])
