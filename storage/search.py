"""The search language: text to conditions, and conditions back to text.

Owns the grammar. Invariants: what a query prints parses to the same query; whatever is wrong is one
``SearchError`` with its place. The conditions themselves are clauses.py's. Knows no SQL;
conditions.py does.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from storage.amounts import AGO
from storage.clauses import (
    ALL,
    BARE,
    EPOCH,
    STATUSES,
    Amount,
    Condition,
    Name,
    Operator,
    Query,
    Rows,
    Starred,
    Time,
    Words,
    scale_of,
)

# Characters; the query is part of a request's line.
MAX_CHARS: Final = 2_000
# Each clause is a condition that every row is tested by.
MAX_CLAUSES: Final = 50
# Words and phrases of one search, each of which is looked up by itself; Google takes 32 words.
MAX_WORDS: Final = 32


class SearchError(ValueError):
    """A query that is none; ``position`` counts characters from 0."""

    def __init__(self, position: int, expected: str, found: str = "") -> None:
        self.position = position
        self.expected = expected
        found = f", not {found[:40]!r}" if found else ""
        super().__init__(f"position {position}: expected {expected}{found}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the language: what it means, what it takes, and which rows have it.

    ``examples`` of values are offered where none can be observed.
    """

    read: Callable[["_Clause"], Condition]
    meaning: str
    expected: str
    rows: frozenset[Rows] = ALL
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Clause:
    """A clause with a key, as it is written; ``star`` stood behind its quotes."""

    rows: Rows
    key: str
    value: str
    at: int
    quoted: bool
    star: bool
    negated: bool

    def wrong(self) -> SearchError:
        return SearchError(self.at, KEYS[self.key].expected, self.value)


def _read_words(clause: _Clause) -> Condition:
    if not clause.value.strip() or clause.star:
        raise clause.wrong()
    return Words(clause.value, "input" if clause.key == "input" else "output", clause.negated)


def _read_name(clause: _Clause) -> Condition:
    text, prefix = clause.value, clause.star
    if not clause.quoted and text.endswith("*"):
        text, prefix = text[:-1], True
    return Name(clause.key, text, prefix, clause.negated)


def _read_status(clause: _Clause) -> Condition:
    choices = STATUSES[clause.rows]
    if clause.value not in choices or clause.star:
        raise SearchError(clause.at, f"one of {', '.join(choices)}", clause.value)
    return Name("status", clause.value, negated=clause.negated)


def _read_starred(clause: _Clause) -> Condition:
    if clause.value not in ("true", "false") or clause.star:
        raise clause.wrong()
    return Starred(clause.value == "true", clause.negated)


def _read_amount(clause: _Clause) -> Condition:
    scale = scale_of(clause.key)
    found = _COMPARED.fullmatch(clause.value)
    if found is None or clause.star:
        raise clause.wrong()
    value = scale.read(found["value"])
    most = None if found["most"] is None else scale.read(found["most"])
    if value is None or (found["most"] is not None and most is None):
        raise clause.wrong()
    if most is not None and (found["operator"] or most < value):
        raise SearchError(clause.at, "a range from a smaller number to a larger", clause.value)
    operator = _OPERATORS[".." if most is not None else found["operator"] or "="]
    return Amount(clause.key, operator, value, most, clause.negated)


def _read_time(clause: _Clause) -> Condition:
    found = (
        None if clause.star else moment("since" if clause.key == "since" else "until", clause.value)
    )
    if found is None:
        raise clause.wrong()
    return replace(found, negated=clause.negated)


def moment(key: Literal["since", "until"], text: str) -> Time | None:
    """Read a time, or how long ago it was; None for what is neither."""
    ago = AGO.read(text)
    if ago is not None:
        return Time(key, ago, ago=True)
    try:
        at = datetime.fromisoformat(text)
        # Without an offset it is UTC. The year may be one that no offset allows.
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return Time(key, (at - EPOCH) // timedelta(microseconds=1))


def _name(meaning: str, *rows: Rows) -> Key:
    expected = "a name, or its beginning and *"
    return Key(_read_name, meaning, expected, rows=frozenset(rows) or ALL)


def _count(meaning: str, *rows: Rows) -> Key:
    expected = "a whole number such as 500, 10k or 2M, >10k, or 1k..10k"
    return Key(_read_amount, meaning, expected, frozenset(rows) or ALL, (">0", ">10k"))


_TEXT: Final = "a word, or a phrase in quotes"
MOMENT: Final = "a time such as 5m, 1h, 24h or 7d ago, or 2026-01-31T12:00:00Z"
_AGES: Final = ("5m", "1h", "24h", "7d")

KEYS: Final[dict[str, Key]] = {
    "session": _name("id of the session"),
    "model": _name("a model that answered"),
    "kind": _name("kind of a span, or what its application calls it"),
    "tag": _name("a tag of a trace"),
    "status": Key(_read_status, "how it ended, or running", "a status"),
    "cost": Key(
        _read_amount,
        "cost in USD",
        "USD such as 0.50, >0.5, or 0.1..2",
        examples=(">0", ">0.50"),
    ),
    "tokens": _count("input and output tokens"),
    "input_tokens": _count("tokens sent"),
    "output_tokens": _count("tokens answered"),
    "duration": Key(
        _read_amount,
        "from the first start to the last end",
        "milliseconds, or a number with s, m or h, such as >30s or 1m..5m",
        examples=(">10s", ">1m"),
    ),
    "traces": _count("number of traces", "sessions"),
    "spans": _count("number of spans", "sessions", "traces"),
    "errors": _count("number of failed traces; of one row, 1 if it failed"),
    "since": Key(_read_time, "active after", MOMENT, examples=_AGES),
    "until": Key(_read_time, "begun before", MOMENT, examples=_AGES),
    "user": _name("id of the user"),
    "provider": _name("the provider's dialect"),
    "source": _name("how its session is known", "sessions", "traces"),
    "starred": Key(
        _read_starred,
        "marked with a star",
        "true or false",
        rows=frozenset(("sessions",)),
        examples=("true", "false"),
    ),
    "input": Key(_read_words, "words of what was sent", _TEXT),
    "output": Key(_read_words, "words of the answers", _TEXT),
}

_OPERATORS: Final[dict[str, Operator]] = {
    **{"=": "=", ">": ">", "<": "<"},
    **{">=": ">=", "<=": "<=", "..": ".."},
}
_SPACE: Final = re.compile(r"\s*")
# A minus before anything but space; a key, unless it is the scheme of an address.
_HEAD: Final = re.compile(r"(?P<minus>-(?=\S))?(?:(?P<key>[A-Za-z_]+):(?!//))?")
_QUOTED: Final = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"(?P<star>\*?)', re.DOTALL)
_ESCAPED: Final = re.compile(r'\\(["\\])')
_COMPARED: Final = re.compile(
    r"(?P<operator>>=|<=|>|<)?(?P<value>[0-9A-Za-z]*(?:\.?[0-9A-Za-z]+)?)(?:\.\.(?P<most>.+))?"
)


def parse(text: str, rows: Rows = "sessions") -> Query:
    """Read a query for rows of one kind.

    Raises:
        SearchError: it is none.
    """
    if len(text) > MAX_CHARS:
        raise SearchError(MAX_CHARS, f"at most {MAX_CHARS} characters")
    conditions: list[Condition] = []
    at = _space(text, 0)
    while at < len(text):
        begin = at
        condition, at = _clause(text, at, rows)
        if condition is not None:
            conditions.append(condition)
        if len(conditions) > MAX_CLAUSES:
            raise SearchError(begin, f"at most {MAX_CLAUSES} clauses")
        if sum(isinstance(c, Words) for c in conditions) > MAX_WORDS:
            raise SearchError(begin, f"at most {MAX_WORDS} words and phrases")
        at = _space(text, at)
    return Query(rows, tuple(conditions))


def _clause(text: str, at: int, rows: Rows) -> tuple[Condition | None, int]:
    """Read the clause that begins here; None for an empty phrase. Return where it ends, too."""
    head = _HEAD.match(text, at)
    assert head is not None  # noqa: S101 (it matches nothing as well)
    key = (head["key"] or "").lower()
    value_at = head.end()
    if key:
        _check_key(key, rows, head.start("key"))
    quoted = _QUOTED.match(text, value_at)
    bare = BARE.match(text, value_at)
    if quoted is None and text.startswith('"', value_at):
        raise SearchError(value_at, "a closing quote")
    negated = head["minus"] is not None
    value = _ESCAPED.sub(r"\1", quoted["text"]) if quoted else bare[0] if bare else ""
    found = quoted or bare
    end = value_at if found is None else found.end()
    star = bool(quoted and quoted["star"])
    if not key:
        # A star behind a phrase is a word of its own, of no letters.
        return (Words(value, "", negated) if value.strip() else None), end
    if found is None:
        raise SearchError(value_at, KEYS[key].expected)
    clause = _Clause(rows, key, value, value_at, quoted is not None, star, negated)
    return KEYS[key].read(clause), end


def _check_key(key: str, rows: Rows, at: int) -> None:
    if key not in KEYS:
        raise SearchError(at, f"one of the keys {', '.join(KEYS)}, or quotes round a text", key)
    if rows not in KEYS[key].rows:
        having = " and ".join(kind for kind in STATUSES if kind in KEYS[key].rows)
        raise SearchError(at, f"a key that {rows} have; {key}: is one of {having}")


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
