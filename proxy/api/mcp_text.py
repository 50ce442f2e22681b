"""How recorded text goes to a model: made visible, measured, and cut to the room. Pure.

Invariants: no control character and nothing that is not seen leaves as itself, but for line feed
and tab; what ``Room`` takes is no longer, as it stands in an answer, than was asked for. Text is
cut before it is made visible, so that no escape is cut in two.

Source: Unicode 17.0: categories Cc, Cf, Zl and Zp, default ignorable code points, and blanks.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
# Behind a text that was cut.
CUT: Final = "…"
# Characters of texts and rows of lists that are kept of one that is too large, one after the other.
_CAPS: Final = ((500, 50), (150, 20), (50, 5), (20, 1), (0, 0))

_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SHOWN: Final = re.compile(r"<U\+([0-9A-F]{4,6})>")


def visible(text: str) -> str:
    """Write what is not seen as `<U+202E>`: controls, marks of direction, tags, zero widths."""
    return _HIDDEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", text)


def original(text: str) -> str:
    """Read an id back that was made visible."""

    def character(found: re.Match[str]) -> str:
        code = int(found[1], 16)
        one = chr(code) if code <= 0x10FFFF else ""
        return one if _HIDDEN.fullmatch(one) else found[0]

    return _SHOWN.sub(character, text)


def shown(value: object) -> object:
    """Make all texts of a JSON value visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: shown(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shown(one) for one in value]
    return value


def capped(value: object, chars: int, rows: int) -> object:
    """Cut all texts of a JSON value to so many characters, and its lists to so many rows."""
    if isinstance(value, str):
        return value if len(value) <= chars else value[:chars] + CUT
    if isinstance(value, dict):
        return {key: capped(one, chars, rows) for key, one in value.items()}
    if isinstance(value, list):
        return [capped(one, chars, rows) for one in value[:rows]]
    return value


@dataclass(slots=True)
class Room:
    """The characters that are left of an answer, in which all stands ``twice``, or once as text."""

    left: int
    twice: bool

    def weight(self, value: object) -> int:
        """Measure what a JSON value takes: as JSON, and inside the string that holds it again."""
        text = orjson.dumps(value).decode()
        return _in_string(text) + (len(text) if self.twice else 0)

    def fits(self, value: object) -> bool:
        """Tell whether a value fits, with a comma."""
        return self.weight(value) + 2 <= self.left

    def takes(self, value: object) -> bool:
        """Take a value, with a comma, where it fits."""
        if not self.fits(value):
            return False
        self.left -= self.weight(value) + 2
        return True


def _in_string(text: str) -> int:
    return len(orjson.dumps(text).decode()) - 2


def fitted(row: dict[str, object], fits: Callable[[object], bool]) -> dict[str, object]:
    """Cut a row until it fits: its recorded texts, then fields from its end, then its id.

    What was cut says so. Nothing is left where not even that fits.
    """
    made = whole_row(row)
    if fits(made):
        return made
    figures = {key: value for key, value in row.items() if key != "recorded"}
    for chars, rows in _CAPS[:-1]:
        recorded = capped(row.get("recorded", {}), chars, rows)
        made = whole_row({**figures, "recorded": recorded, "cut": True})
        if fits(made):
            return made
    names = list(figures)
    for length in range(len(names), 0, -1):
        made = whole_row({**{key: figures[key] for key in names[:length]}, "cut": True})
        if fits(made):
            return made
    for chars, _ in _CAPS:
        made = whole_row({names[0]: capped(figures[names[0]], chars, 1), "cut": True})
        if fits(made):
            return made
    return {"cut": True}


def whole_row(row: Mapping[str, object]) -> dict[str, object]:
    """Give a row with nothing cut."""
    return {key: shown(value) for key, value in row.items()}


class Piece(NamedTuple):
    """A recorded text of any length: where it goes, and in which ``field`` beside which others.

    Without a ``field`` it is alone in its place, otherwise one of several there.
    """

    place: str
    text: str
    field: str = ""
    beside: Mapping[str, object] = NOTHING

    def put(self, recorded: dict[str, object], start: int, stop: int) -> dict[str, object]:
        """Give what is recorded with a part of the text added."""
        text = visible(self.text[start:stop])
        if not self.field:
            return {**recorded, self.place: text}
        others = recorded.get(self.place, [])
        one = {**whole_row(self.beside), self.field: text}
        return {**recorded, self.place: [*(others if isinstance(others, list) else []), one]}


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the texts of an item: which of them, and at which character."""

    number: int = 0
    char: int = 0


def laid_out(
    heads: Sequence[dict[str, object]],
    pieces: Sequence[Piece],
    start: Place,
    fits: Callable[[object], bool],
) -> tuple[dict[str, object], Place | None]:
    """Fill an item with texts from a place on, as far as they fit; give the place that is next.

    It has the first of the ``heads`` with which it takes some text, or all there is. Where it
    begins or stops within its texts it says so.
    """
    for head in heads:
        item, place = _filled(head, pieces, start, fits)
        if (place is None and fits(item)) or place not in (None, start):
            return item, place
    if start.number >= len(pieces):
        return fitted(heads[-1], fits), None
    # Not one character has room beside its neighbours: they are left out.
    piece = pieces[start.number]
    alone = [*pieces[: start.number], piece._replace(beside=NOTHING), *pieces[start.number + 1 :]]
    return _filled(heads[-1], alone, start, fits)


def _filled(
    head: dict[str, object],
    pieces: Sequence[Piece],
    start: Place,
    fits: Callable[[object], bool],
) -> tuple[dict[str, object], Place | None]:
    figures = whole_row({key: value for key, value in head.items() if key != "recorded"})
    if start != Place():
        figures["continued"] = True
    known = shown(head.get("recorded", {}))
    recorded: dict[str, object] = known if isinstance(known, dict) else {}

    def item(found: dict[str, object], *, cut: bool) -> dict[str, object]:
        marked = {**figures, "cut": True} if cut else figures
        return {**marked, "recorded": found} if found else marked

    for number in range(start.number, len(pieces)):
        piece = pieces[number]
        begin = start.char if number == start.number else 0
        whole = piece.put(recorded, begin, len(piece.text))
        # Room for the mark is kept while something may come that does not fit.
        if fits(item(whole, cut=number < len(pieces) - 1)):
            recorded = whole
            continue
        least, most = 0, len(piece.text) - begin
        while least < most:
            middle = (least + most + 1) // 2
            if fits(item(piece.put(recorded, begin, begin + middle), cut=True)):
                least = middle
            else:
                most = middle - 1
        if least:
            recorded = piece.put(recorded, begin, begin + least)
        return item(recorded, cut=True), Place(number, begin + least)
    return item(recorded, cut=False), None
