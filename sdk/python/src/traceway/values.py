"""Values of the application as JSON: whatever they are, of bounded size, and without an exception.

Invariant: every function here is total. What JSON cannot hold becomes what says most about it (a
pydantic model its fields, a date its ISO form, bytes their text), what cannot be read a note that
says so. The application's thread runs this, so that what is sent is what the value was then.
"""

import base64
import dataclasses
import datetime
import decimal
import enum
import itertools
import json
import pathlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

# What is sent of a value that is longer than allowed: enough to recognise it.
_KEPT_BYTES: Final = 16 << 10
# The slow way alone counts: a value that JSON's own encoder takes is as deep as that allows.
_MAX_DEPTH: Final = 32
_MAX_PARTS: Final = 10_000
_MAX_REPR: Final = 1_000
# What the server takes: characters of a name, levels of a kind's fields and of metadata.
_MAX_NAME: Final = 512
_MAX_LEVELS: Final = 100
_MAX_TAGS: Final = 64
_AS_TEXT: Final = (uuid.UUID, decimal.Decimal, pathlib.PurePath)
_PLAIN: Final = (str, int, float, bool, type(None))


def encode(value: object, limit_bytes: int) -> bytes:
    """Give a value as UTF-8 JSON of at most about `limit_bytes`; a longer one as its beginning."""
    if isinstance(value, str) and len(value) > limit_bytes:
        return _cut(value, len(value))
    try:
        text = _dumps(value)
    except Exception:  # too deep, circular, odd keys, changed meanwhile, or a class of its own mind
        text = _slowly(value)
    try:
        data = text.encode()
    except UnicodeEncodeError:  # halves of surrogate pairs
        data = text.encode("utf-8", "replace")
    return data if len(data) <= limit_bytes else _cut(text, len(data))


def encode_fields(fields: Mapping[str, Any], limit_bytes: int) -> bytes:
    """Give a mapping as JSON, as `encode` does, with no more levels than the server takes."""
    data = encode(fields, limit_bytes)
    if data.count(b"{") + data.count(b"[") > _MAX_LEVELS:
        data = _slowly(fields).encode("utf-8", "replace")
    return data


def number_of(value: object) -> float | int | None:
    """Give a number from 0 on; None for what is none, so that it costs only itself."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12:
        return value
    return None


def text_of(value: object, limit: int = _MAX_NAME) -> str:
    """Give a name, or anything that stands for one, as text of at most `limit` characters."""
    if isinstance(value, str):
        return value if len(value) <= limit else value[:limit]
    try:
        return str(value)[:limit]
    except Exception:
        return f"<{type(value).__name__}>"


def error_of(error: object, limit: int = 8 << 10) -> str:
    """Give an exception as `ValueError: what it says`, and anything else as text."""
    if not isinstance(error, BaseException):
        return text_of(error, limit) or "failed"
    said = text_of(error, limit)
    name = type(error).__name__
    return f"{name}: {said}" if said else name


def tags_of(tags: object) -> list[str]:
    """Give tags as a list of texts, each of at most 64 characters."""
    if tags is None or isinstance(tags, (str, bytes)):
        return [text_of(tags, 64)] if tags else []
    try:
        return [text_of(tag, 64) for tag, _ in zip(tags, range(_MAX_TAGS))]  # type: ignore[call-overload]  # noqa: B905
    except Exception:
        return []


def fields_of(value: object) -> dict[str, object]:
    """Give a mapping as a dict of its own; anything else as `{"value": it}`."""
    if value is None:
        return {}
    try:
        if isinstance(value, Mapping):
            return {text_of(key): part for key, part in value.items()}
    except Exception:
        return {"value": _unreadable(value)}
    return {"value": value}


def _cut(text: str, size_bytes: int) -> bytes:
    kept = text[:_KEPT_BYTES].encode("utf-8", "replace").decode()
    return json.dumps(
        {"traceway_truncated": {"bytes": size_bytes, "beginning": kept}}, ensure_ascii=False
    ).encode()


def _open(value: object) -> object:
    """Turn one object that JSON does not know into one that it may; its parts stay as they are."""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _bytes(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, BaseException):
        return error_of(value)
    if isinstance(value, type):
        return value.__qualname__
    if dataclasses.is_dataclass(value):
        return {part.name: getattr(value, part.name, None) for part in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        some = itertools.islice(value.items(), _MAX_PARTS)
        return {text_of(key): part for key, part in some}
    for name in ("model_dump", "to_dict", "_asdict"):  # pydantic and the SDKs that use it; others
        dump = getattr(value, name, None)
        if callable(dump):
            found = dump()
            # A mock answers anything with another mock.
            if type(found) in (dict, list):
                return found
    if callable(getattr(value, "tolist", None)) and getattr(value, "size", _MAX_PARTS) < _MAX_PARTS:
        found = value.tolist()  # type: ignore[attr-defined]  # numpy's arrays and numbers
        if type(found) in (list, *_PLAIN):
            return found
    return repr(value)[:_MAX_REPR]


def _bytes(value: Any) -> str:
    data = bytes(value[: 1 << 20])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "data:;base64," + base64.b64encode(data).decode()


def _unreadable(value: object) -> str:
    return f"<{type(value).__name__}: cannot be read>"


def _default(value: object) -> object:
    try:
        return _open(value)
    except Exception:
        return _unreadable(value)


_dumps: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default
).encode


def _slowly(value: object) -> str:
    """Encode part by part, with bounds of depth and number."""
    left = [_MAX_PARTS]
    try:
        return json.dumps(_plain(value, 0, set(), left), ensure_ascii=False, separators=(",", ":"))
    except Exception:
        return json.dumps(_unreadable(value))


def _plain(value: object, depth: int, above: set[int], left: list[int]) -> object:
    left[0] -= 1
    if left[0] < 0:
        return "<more>"
    if isinstance(value, float):
        return value if value - value == 0 else str(float(value))  # NaN and the infinities
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        # Python refuses to print numbers of more than 4,300 digits.
        return int(value) if value.bit_length() < 10_000 else f"<int of {value.bit_length()} bits>"
    if isinstance(value, str):
        return str(value)
    if depth >= _MAX_DEPTH:
        return f"<{type(value).__name__}: too deep>"
    if id(value) in above:
        return f"<{type(value).__name__}: contains itself>"
    above.add(id(value))
    try:
        if isinstance(value, Mapping):
            return {
                text_of(key): _plain(part, depth + 1, above, left)
                for key, part in _some(value.items(), left)
            }
        if isinstance(value, (list, tuple)):
            return [_plain(part, depth + 1, above, left) for part in _some(value, left)]
        return _plain(_open(value), depth + 1, above, left)
    except Exception:
        return _unreadable(value)
    finally:
        above.discard(id(value))


def _some(parts: Iterable[Any], left: list[int]) -> Iterable[Any]:
    for part in parts:
        if left[0] < 0:
            return
        yield part
