"""What a list of spans may be filtered by beside `q`: each filter a parameter of its own. Pure.

Invariant: a filter is a condition of the search language, or one that it has no words for, so that
all of them and `q` must be fulfilled, and a cursor belongs to all of them. A mistake is a 400 that
names the parameter and what it takes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from aiohttp import web

from proxy.api import params
from proxy.api.about import Schema
from proxy.api.described import Parameter
from proxy.api.params import BadParameter
from storage.amounts import COUNT, DURATION, USD, Scale
from storage.clauses import STATUSES, Amount, Condition, Holds, Ids, Name, Words
from storage.search import MAX_CHARS, MOMENT, moment


@dataclass(frozen=True, slots=True)
class _Filter:
    """A filter; ``read`` gives None for what it cannot be."""

    read: Callable[[str], Condition | None]
    meaning: str
    expected: str
    example: str
    schema: Schema


_TEXT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": MAX_CHARS}


def _text(text: str) -> str | None:
    return text if text.strip() and len(text) <= MAX_CHARS else None


def _name(key: str, meaning: str, example: str) -> _Filter:
    def read(text: str) -> Condition | None:
        if not _text(text):
            return None
        prefix = text.endswith("*")
        return Name(key, text[:-1] if prefix else text, prefix)

    return _Filter(read, meaning, f"a name, or its beginning and *{_MOST}", example, _TEXT)


def _exactly(key: str, meaning: str, example: str) -> _Filter:
    def read(text: str) -> Condition | None:
        return Name(key, text) if _text(text) else None

    return _Filter(read, meaning, f"an id{_MOST}", example, _TEXT)


def _part(make: Callable[[str], Condition], meaning: str, example: str) -> _Filter:
    def read(text: str) -> Condition | None:
        return make(text) if _text(text) else None

    return _Filter(read, meaning, f"a text{_MOST}", example, _TEXT)


def _amount(
    key: str, operator: Literal[">=", "<="], scale: Scale, meaning: str, expected: str, example: str
) -> _Filter:
    def read(text: str) -> Condition | None:
        value = scale.read(text)
        return None if value is None else Amount(key, operator, value)

    return _Filter(read, meaning, expected, example, {"type": "string"})


def _time(key: Literal["since", "until"], meaning: str, example: str) -> _Filter:
    return _Filter(lambda text: moment(key, text), meaning, MOMENT, example, {"type": "string"})


def _status(text: str) -> Condition | None:
    return Name("status", text) if text in STATUSES["spans"] else None


def _trace(text: str) -> Condition | None:
    trace_id = params.hex_id(text, 32)
    return None if trace_id is None else Ids((trace_id,), "trace")


_MOST: Final = f", of 1 to {MAX_CHARS} characters"
_STATUSES: Final = STATUSES["spans"]
_MS: Final = "milliseconds such as 500 or 1.125, or a number with s, m, h or d"
_TRACE_ID: Final = "019ac8f0a1b27c3d8e4f5a6b7c8d9e0f"

_FILTERS: Final[Mapping[str, _Filter]] = {
    "trace_id": _Filter(
        _trace,
        "only spans of this trace",
        "32 lower-case hex digits",
        _TRACE_ID,
        {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    ),
    "session_id": _exactly("session", "only spans of this session", "user_123:conv_456"),
    "model": _name("model", "only those of this model; `gpt-5*`: of all that begin so", "gpt-5*"),
    "provider": _name("provider", "only those of this provider", "openai"),
    "status": _Filter(
        _status,
        "only those in this state",
        f"one of {', '.join(_STATUSES)}",
        "failed",
        {"type": "string", "enum": list(_STATUSES)},
    ),
    "kind": _name(
        "kind",
        "only those of this type, or of `custom` ones those that their application calls so",
        "tool_call",
    ),
    "since": _time("since", "only those that were active after this time", "24h"),
    "until": _time("until", "only those that began before this time", "2026-11-26T09:00:00Z"),
    "name_contains": _part(
        Holds, "only those whose name has this in it; letters of ASCII in any case", "search"
    ),
    "text_contains": _part(
        Words, "only those that brought a message with these words in this order", "rate limit"
    ),
    "duration_min": _amount(
        "duration", ">=", DURATION, f"only those that took so long: {_MS}", _MS, "500"
    ),
    "duration_max": _amount(
        "duration", "<=", DURATION, f"only those that took no longer: {_MS}", _MS, "30s"
    ),
    "tokens_min": _amount(
        "tokens",
        ">=",
        COUNT,
        "only those of at least so many tokens, input and output",
        "a whole number such as 500, 10k or 2M",
        "10k",
    ),
    "cost_min": _amount(
        "cost", ">=", USD, "only those that cost at least so much, in USD", "USD such as 0.5", "0.5"
    ),
}
PARAMETERS: Final = tuple(
    Parameter(name=name, meaning=one.meaning, schema=one.schema, example=one.example)
    for name, one in _FILTERS.items()
)


def filters(request: web.Request) -> tuple[Condition, ...]:
    """Read the filters that a request has.

    Raises:
        BadParameter: one of them is none.
    """
    return tuple(
        _read(name, one, request.query[name])
        for name, one in _FILTERS.items()
        if name in request.query
    )


def _read(name: str, one: _Filter, text: str) -> Condition:
    condition = one.read(text)
    if condition is None:
        raise BadParameter(f"{name} must be {one.expected}, not {text[:40]!r}", name)
    return condition
