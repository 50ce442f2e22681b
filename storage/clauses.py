"""What a list of sessions, traces or spans may be asked for: conditions, and a query of several.

Invariant: a query prints itself in one form, which search.py reads as the same query; what no query
can say is printed so that two that differ differ. Takes no clock: a time "5m ago" stays that.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal

from storage.amounts import AGO, COUNT, DURATION, USD, Scale

Rows = Literal["sessions", "traces", "spans"]
Operator = Literal["=", ">", "<", ">=", "<=", ".."]
ALL: Final[frozenset[Rows]] = frozenset(("sessions", "traces", "spans"))

STATUSES: Final[dict[Rows, tuple[str, ...]]] = {
    "sessions": ("running", "completed", "failed", "cancelled"),
    "traces": ("running", "completed", "failed", "cancelled"),
    "spans": ("running", "completed", "failed", "truncated", "cancelled", "interrupted"),
}


@dataclass(frozen=True, slots=True)
class Words:
    """Full text: a word or a phrase that stands in some message; of one side with ``key``."""

    text: str
    key: Literal["", "input", "output"] = ""
    negated: bool = False

    def __str__(self) -> str:
        """Print the clause without its sign."""
        if self.key:
            return f"{self.key}:{_quoted(self.text)}"
        return self.text if _PLAIN.fullmatch(self.text) else _in_quotes(self.text)


@dataclass(frozen=True, slots=True)
class Name:
    """A text that is this one, or that begins with it."""

    key: str
    text: str
    prefix: bool = False
    negated: bool = False

    @property
    def is_session(self) -> bool:
        """Whether it names one session."""
        return self.key == "session" and not self.prefix

    def __str__(self) -> str:
        """Print the clause without its sign."""
        return f"{self.key}:{_quoted(self.text)}{'*' if self.prefix else ''}"


@dataclass(frozen=True, slots=True)
class Amount:
    """A number in its key's smallest unit (nano-USD, microseconds); ``most`` ends a range."""

    key: str
    operator: Operator
    value: int
    most: int | None = None
    negated: bool = False

    def __str__(self) -> str:
        """Print the clause without its sign."""
        scale = scale_of(self.key)
        if self.most is not None:
            return f"{self.key}:{scale.write(self.value)}..{scale.write(self.most)}"
        sign = "" if self.operator == "=" else self.operator
        return f"{self.key}:{sign}{scale.write(self.value)}"


@dataclass(frozen=True, slots=True)
class Starred:
    """Whether somebody marked the session."""

    value: bool
    negated: bool = False
    key: Literal["starred"] = "starred"

    def __str__(self) -> str:
        """Print the clause without its sign."""
        return f"starred:{str(self.value).lower()}"


@dataclass(frozen=True, slots=True)
class Time:
    """A moment, in microseconds UTC, or so many microseconds before now."""

    key: Literal["since", "until"]
    value_us: int
    ago: bool = False
    negated: bool = False

    def at_us(self, now_us: int) -> int:
        """Give the moment."""
        return now_us - self.value_us if self.ago else self.value_us

    def __str__(self) -> str:
        """Print the clause without its sign."""
        if self.ago:
            return f"{self.key}:{AGO.write(self.value_us)}"
        moment = (EPOCH + timedelta(microseconds=self.value_us)).isoformat()
        return f"{self.key}:{moment.removesuffix('+00:00')}Z"


@dataclass(frozen=True, slots=True)
class Ids:
    """Traces or spans by their own ids, or spans by their trace's; no clause of the language."""

    ids: tuple[bytes, ...]
    key: Literal["own", "trace"] = "own"
    negated: Literal[False] = False


@dataclass(frozen=True, slots=True)
class Holds:
    """Spans whose name has this text in it, in any case of ASCII; no clause of the language."""

    text: str
    negated: Literal[False] = False


@dataclass(frozen=True, slots=True)
class Alone:
    """Traces of no session; no clause of the language."""

    negated: Literal[False] = False


Condition = Words | Name | Amount | Starred | Time | Ids | Holds | Alone


@dataclass(frozen=True, slots=True)
class Query:
    """What rows of one kind are to fulfil: each of these conditions."""

    rows: Rows
    conditions: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        """Print the query in its one form, which parses to the same."""
        return " ".join(f"{'-' if c.negated else ''}{c}" for c in self.conditions)

    @property
    def words(self) -> tuple[Words, ...]:
        """What it looks up in full text."""
        return tuple(c for c in self.conditions if isinstance(c, Words))

    @property
    def is_narrow(self) -> bool:
        """Whether all its rows are of one session, of some ids, or younger than a moment."""
        return any(
            not c.negated
            and (
                isinstance(c, Ids)
                or (isinstance(c, Time) and c.key == "since")
                or (isinstance(c, Name) and c.is_session)
            )
            for c in self.conditions
        )


# Keys whose numbers are no counts.
_SCALES: Final[Mapping[str, Scale]] = MappingProxyType({"cost": USD, "duration": DURATION})
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BARE: Final = re.compile(r'[^\s"]+')
# A word that needs no quotes.
_PLAIN: Final = re.compile(r'(?!-)(?![A-Za-z_]+:(?!//))[^\s"]+')


def scale_of(key: str) -> Scale:
    """Give the scale of a key's numbers."""
    return _SCALES.get(key, COUNT)


def _quoted(text: str) -> str:
    """Write a value, in quotes where it would be read otherwise without them."""
    return text if BARE.fullmatch(text) and not re.search(r"^//|\*$", text) else _in_quotes(text)


def _in_quotes(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
