"""JSON and text from strangers, read as far as they can be read.

Owns the one place where a body is parsed and the one where text is made fit to store. Invariant:
nothing here raises, and what is unreadable is None or "".
"""

import json
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
import orjson

T = TypeVar("T")

# Arrays and objects of a body that is parsed. A parser holds the interpreter until it is done, and
# every call with it: so many take 50 ms. Text of 8 MiB that is all code has fewer brackets.
MAX_CONTAINERS: Final = 500_000
# Commas of a body that is parsed, so that values take 80 MB at most: 32 MiB have room for 16
# million. Of ordinary text and JSON a twentieth are commas, of vectors a twelfth.
MAX_COMMAS: Final = 1_000_000
_FEW_BYTES: Final = 2 * MAX_CONTAINERS  # no room for so many

PREVIEW_CHARS: Final = 240  # a line or two of a list; also what a session's row keeps
ERROR_CHARS: Final = 500

# Ids, models and users. OpenAI's longest documented one, a metadata value, has 512 characters.
_NAME_CHARS: Final = 512
# Python refuses to convert longer numbers (sys.set_int_max_str_digits); none of ours comes near.
_INTEGER_DIGITS: Final = 4_300


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T | None:
    """Parse one JSON object into the decoder's struct; None where it is not an object.

    A body that msgspec refuses (NaN, lone surrogates, invalid UTF-8, a byte order mark) is read
    again by the standard library. Deeper nesting than Python's recursion limit is not read, nor is
    what `has_many_values`.
    """
    if has_many_values(body):
        return None
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError):
        pass
    try:
        value = json.loads(body.decode("utf-8-sig", "replace"), parse_int=_integer)
        return msgspec.convert(value, decoder.type) if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return None


def has_many_values(body: bytes) -> bool:
    """Tell whether a body may hold more values than are parsed: time and memory go by them."""
    return len(body) > _FEW_BYTES and (
        body.count(b"[") + body.count(b"{") > MAX_CONTAINERS or body.count(b",") > MAX_COMMAS
    )


def encode(value: object) -> bytes:
    """Write JSON. Halves of a surrogate pair that meet in a string are one character there."""
    try:
        return orjson.dumps(value)
    except TypeError:  # it refuses surrogates
        return json.dumps(value, separators=(",", ":")).encode()


def mapping(value: object) -> Mapping[str, object]:
    """Return the value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """Return the value if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def name(value: object) -> str | None:
    """Return a model, id, tier or user: text of 1 to 512 characters; None for anything else."""
    return clean(value) if isinstance(value, str) and 0 < len(value) <= _NAME_CHARS else None


def key(value: object) -> str:
    """Return an index or an id as text, to tell things apart by; "" for anything else."""
    return str(value) if isinstance(value, int | str) else ""


def clean(text: str) -> str:
    """Make text storable: NUL and lone surrogates become U+FFFD."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "\ufffd")


def preview(text: str, most_chars: int = PREVIEW_CHARS) -> str | None:
    """Fold white space and cut; None where nothing is left."""
    # Of nearly every text a little more than what shows is enough.
    shown = " ".join(text[: most_chars + 100].split())
    if len(shown) < most_chars < len(text):
        # More words than this cannot show: each takes a character and the space after it.
        words = text.split(maxsplit=most_chars // 2)
        shown = " ".join(words[: most_chars // 2 + 1])
    return shown[:most_chars] or None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _INTEGER_DIGITS else float("inf")
