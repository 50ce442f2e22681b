"""Token counts as providers report them: which numbers are usable and how two reports add up.

Invariant: a count is a whole number from 0 to 10^9 or None, never a guess; a part never exceeds
its whole; whatever is dropped leaves a note. Where a count stands in an answer is the business of
``proxy.providers``, and money that of ``proxy.pricing``.
"""

import dataclasses
from collections.abc import Mapping
from typing import Final

from storage.records import TOKEN_BUCKETS, Tokens, add

# Tokens in one call. Context windows reach 10^6 and batches 10^8; a number above this is an error
# of the sender, and sums of such numbers stay far below the 2^63 of both databases.
MAX_COUNT: Final = 10**9

_WHOLE_OF: Final = {
    "cached_input": "input",
    "cache_write": "input",
    "audio_input": "input",
    "image_input": "input",
    "reasoning": "output",
    "audio_output": "output",
    "image_output": "output",
}


def count(value: object) -> int | None:
    """Return a reported count as an int from 0 to 10^9; None for anything else."""
    if type(value) is not int:  # a bool is none
        if not isinstance(value, float) or not value.is_integer():  # also NaN and infinity
            return None
        value = int(value)
    return value if 0 <= value <= MAX_COUNT else None


def take(source: Mapping[str, object], key: str, notes: list[str]) -> int | None:
    """Read one count; an unusable one leaves a note, an absent or null one does not."""
    value = source.get(key)
    if value is None:
        return None
    number = count(value)
    if number is None:
        notes.append(f"{key} out of range")
    return number


def fit(tokens: Tokens, notes: list[str]) -> Tokens:
    """Drop each part that is larger than its whole, with a note; wholes stay as they are."""
    wrong: dict[str, int | None] = {}
    for part, whole in _WHOLE_OF.items():
        part_count, whole_count = getattr(tokens, part), getattr(tokens, whole)
        if part_count is not None and whole_count is not None and part_count > whole_count:
            wrong[part] = None
            notes.append(f"{part} above {whole}")
    return dataclasses.replace(tokens, **wrong) if wrong else tokens


def merge(a: Tokens, b: Tokens) -> Tokens:
    """Add two usages of one call that are billed apart, bucket by bucket; unknown adds nothing."""
    return Tokens(**{name: add(getattr(a, name), getattr(b, name)) for name in TOKEN_BUCKETS})
