"""How text and tables are written in a terminal. Pure, but for `screen`, which looks at stdout.

Invariants: of text that others wrote, no character reaches the terminal that moves, colours or
turns round anything; what is cut to a width is at most as wide, wide characters counted as two
columns; a colour says nothing that a word does not say too. Figures are view.py's business.
"""

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from proxy.ui import view

# Controls, what turns the direction of text or is not seen, halves of pairs, ends of lines; but
# the joiners are part of words in some scripts, and of emoji.
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"
_ZERO_WIDTH: Final = frozenset({"Mn", "Me", "Cf"})
_EMOJI_STYLE: Final = "\ufe0f"  # makes the character before it wide in some terminals
_GAP: Final = "  "
# ECMA-48, 8.3.117: what a state is drawn in.
_COLOURS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("failed", "truncated", "interrupted"), "31"),
    **dict.fromkeys(("completed",), "32"),
    **dict.fromkeys(("running", "cancelled"), "33"),
    "strong": "1",
    "faint": "2",
}


@dataclass(frozen=True, slots=True)
class Screen:
    """What stdout is: columns, None where nothing bounds them, and whether it takes colours."""

    width: int | None = None
    colours: bool = False

    def paint(self, text: str, style: str) -> str:
        """Draw text as a state, or "strong" or "faint"; plain in any other style."""
        code = _COLOURS.get(style) if self.colours else None
        return f"\x1b[{code}m{text}\x1b[0m" if code and text else text


def screen() -> Screen:
    """Look at stdout: a terminal has a width, and colours unless NO_COLOR or TERM says otherwise.

    COLUMNS gives a width to what is none.
    """
    is_terminal = sys.stdout.isatty()
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    bounded = is_terminal or os.environ.get("COLUMNS")
    width = shutil.get_terminal_size().columns if bounded else None
    return Screen(width, is_terminal and not plain)


def safe(text: str) -> str:
    """Show what a terminal would obey: each such character as one that does nothing."""
    if text.isprintable():
        return text
    return "".join(_shown(c) if _is_unsafe(c) else c for c in text)


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _JOINERS


def _shown(character: str) -> str:
    picture = view.visible(character)  # those of ASCII have one
    return "\ufffd" if picture == character else picture


def safe_json(data: bytes) -> str:
    """Give the same JSON with such characters escaped, which all stand inside strings of it."""
    text = data.decode()
    if text.isprintable():
        return text
    return "".join(_escaped(c) if _is_unsafe(c) else c for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def columns(text: str) -> int:
    """Count the columns that safe text takes at most."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if character == _EMOJI_STYLE:
        return 1
    if unicodedata.category(character) in _ZERO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _prefix(text: str, width: int) -> int:
    """Count the characters that fit; at least one, so that whoever goes on behind it ends."""
    taken = 0
    for at, character in enumerate(text):
        taken += _columns(character)
        if taken > width:
            return max(at, 1)
    return len(text)


def clip(text: str, width: int | None) -> str:
    """Cut safe text to a width of at least 1, with `…` where something is missing."""
    if width is None or columns(text) <= width:
        return text
    return (text[: _prefix(text, width - 1)] if width > 2 else "") + "…"


def wrap(text: str, width: int | None, indent: str = "") -> Iterator[str]:
    """Break text of others into safe lines, at spaces where there are some."""
    for line in text.expandtabs(4).splitlines():
        rest = safe(line).rstrip()
        room = None if width is None else max(width - columns(indent), 10)
        while room is not None and (fits := _prefix(rest, room)) < len(rest):
            space = rest.rfind(" ", 1, fits + 1)
            # Indentation is no place to break at.
            at = space if rest[:space].strip() and space > 0 else fits
            yield f"{indent}{rest[:at].rstrip()}"
            rest = rest[at:].lstrip()
        yield f"{indent}{rest}" if rest else ""


def clock(iso: str, *, with_date: bool = False) -> str:
    """Write a time of the API as the clock on the wall shows it."""
    there = datetime.fromisoformat(iso).astimezone()
    return f"{there:%Y-%m-%d %H:%M:%S}" if with_date else f"{there:%H:%M:%S}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, of safe text.

    `least`: it may be cut down to so many columns. `worth`: what is worth less goes first where
    not all find room. A column with `states` is coloured by them.
    """

    title: str
    cells: Sequence[str]
    worth: int
    right: bool = False
    least: int | None = None
    states: bool = False


def table(given: Sequence[Column], screen: Screen) -> Iterator[str]:
    """Write a table line by line, its titles first."""
    fitted = _fit(given, screen.width)
    yield screen.paint(_row([(c, c.title, size) for c, size in fitted], Screen()), "strong")
    for n in range(len(given[0].cells)):
        yield _row([(c, c.cells[n], size) for c, size in fitted], screen)


def _fit(given: Sequence[Column], width: int | None) -> list[tuple[Column, int]]:
    """Give each column that finds room its width: the last are cut first, then the least go."""
    sizes = [max(map(columns, (c.title, *c.cells))) for c in given]
    over = 0 if width is None else sum(sizes) + len(_GAP) * (len(given) - 1) - width
    for n in range(len(given) - 1, -1, -1):
        if over > 0 and (least := given[n].least) is not None:
            cut = min(over, max(sizes[n] - least, 0))
            sizes[n] -= cut
            over -= cut
    if over > 0 and len(given) > 1:
        least_worth = min(given, key=lambda c: c.worth)
        return _fit([c for c in given if c is not least_worth], width)
    sizes[0] -= max(over, 0)
    return list(zip(given, sizes, strict=True))


def _row(cells: Sequence[tuple[Column, str, int]], screen: Screen) -> str:
    written = []
    for column, text, size in cells:
        text = clip(text, size)
        space = " " * (size - columns(text))
        drawn = screen.paint(text, text if column.states else "")
        written.append(space + drawn if column.right else drawn + space)
    return _GAP.join(written).rstrip()
