"""Numbers of the search language: digits and a suffix, to integers of the smallest unit and back.

Invariant: what is written is read as the same integer. A number that is more exact than its unit,
or does not fit 64 bits, is none. Pure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Final

# In the smallest unit: a billion USD, thirty thousand years. As many digits as a number may have.
MAX_AMOUNT: Final = 10**18 - 1

_NUMBER: Final = re.compile(
    r"(?P<digits>[0-9]{1,18}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})(?P<suffix>[A-Za-z]*)"
)


@dataclass(frozen=True, slots=True)
class Scale:
    """What each suffix multiplies by.

    A number is written with the first of ``whole`` in which it is whole, else with ``plain``.
    """

    units: Mapping[str, int]
    whole: tuple[str, ...] = ()
    plain: str = ""

    def read(self, text: str) -> int | None:
        """Read a number from 0 on; None for anything else."""
        found = _NUMBER.fullmatch(text)
        if found is None or found["suffix"] not in self.units:
            return None
        value = Fraction(found["digits"]) * self.units[found["suffix"]]
        return int(value) if value.denominator == 1 and value <= MAX_AMOUNT else None

    def write(self, value: int) -> str:
        """Write a number that was read."""
        for suffix in self.whole:
            if value and value % self.units[suffix] == 0:
                return f"{value // self.units[suffix]}{suffix}"
        unit = self.units[self.plain]
        whole, part = divmod(value, unit)
        decimals = str(unit + part)[1:].rstrip("0")
        return f"{whole}.{decimals}{self.plain}" if decimals else f"{whole}{self.plain}"


_THOUSANDS: Final = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6}
_TIMES_US: Final = {"d": 86_400 * 10**6, "h": 3_600 * 10**6, "m": 60 * 10**6, "s": 10**6}

COUNT: Final = Scale(MappingProxyType(_THOUSANDS))
# Nano-USD.
USD: Final = Scale(MappingProxyType({s: 10**9 * n for s, n in _THOUSANDS.items()}))
# Microseconds; milliseconds where nothing else is said.
DURATION: Final = Scale(
    MappingProxyType({**_TIMES_US, "ms": 1000, "": 1000}), whole=("d", "h", "m", "s")
)
AGO: Final = Scale(MappingProxyType(_TIMES_US), whole=("d", "h", "m"), plain="s")
