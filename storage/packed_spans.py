"""Spans with all that was said of them, still squeezed: as many as one answer holds.

Invariant: attributes and headers, of which a span may have megabytes, are counted before any is
unpacked, first as they are stored and then as they are unpacked; so neither reading nor unpacking
those of an answer takes more than ``ANSWER_BYTES``, or than one span does that is larger by itself.
Which spans are read, and in which order, is listing.py's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from storage.database import Readable, Row
from storage.queries import IDS, SAID, batches, span_of
from storage.records import Span
from storage.squeeze import expanded_size

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

# Texts, attributes and headers of the spans of one answer: as much as one body of the write API may
# bring. A thousand ordinary calls have half of it.
ANSWER_BYTES: Final = 8 * 1024 * 1024
# Bytes of attributes and headers as they are stored, which neither database reads to tell.
SAID_BYTES: Final = " + ".join(f"COALESCE(LENGTH(s.{column}), 0)" for column in SAID)
_NOTHING: Final = (None,) * len(SAID)


@dataclass(frozen=True, slots=True)
class PackedSpan:
    """A span of number ``seq`` as a row of ``queries.SPAN_FIELDS``."""

    seq: int
    row: Row

    def unpacked(self) -> Span:
        """Give the span; of many, work for a thread.

        Raises DatabaseCorrupt where what was said of it does not expand.
        """
        return span_of(self.row)


READ_SAID: Final = f"""
SELECT s.seq, {", ".join(f"s.{column}" for column in SAID)} FROM spans s
WHERE s.project_id + 0 = :project_id AND s.seq IN ({IDS})
"""


async def pack(
    db: Readable, project_id: int, rows: Sequence[Row], most_bytes: int, *, least: int
) -> tuple[list[PackedSpan], int]:
    """Read what was said of the first of these spans: of all with which it is no more than so much.

    Rows are (seq, ``SAID_BYTES``, *``queries.OUTLINE_FIELDS``). ``least`` of them, where there are
    as many, are packed however large they are. Of a span that is deleted meanwhile nothing is said.
    Returns the spans, and the bytes that are left.

    Raises DatabaseCorrupt where something is larger than any that was stored.
    """
    texts = [sum(len(value) for value in row if isinstance(value, str)) for row in rows]
    stored = (text + row[1] for text, row in zip(texts, rows, strict=True))
    taken = rows[: _fitting(stored, most_bytes, least)]
    said: dict[int, Row] = {}
    for some in batches([row[0] for row in taken if row[1]]):
        for seq, *values in await db.read(READ_SAID, {"project_id": project_id, **some}):
            said[seq] = tuple(values)
    found = [said.get(row[0], _NOTHING) for row in taken]
    sizes = [
        text + sum(expanded_size(value) for value in values if value is not None)
        for text, values in zip(texts, found, strict=False)
    ]
    count = _fitting(sizes, most_bytes, least)
    packed = [
        PackedSpan(row[0], (*row[2:], *values))
        for row, values in zip(taken[:count], found, strict=False)
    ]
    return packed, most_bytes - sum(sizes[:count])


def _fitting(sizes: Iterable[int], most_bytes: int, least: int) -> int:
    """Count how many are no more than so many bytes, one after the other; ``least`` always are."""
    count = 0
    for size in sizes:
        most_bytes -= size
        if most_bytes < 0 and count >= least:
            break
        count += 1
    return count
