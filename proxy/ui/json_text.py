"""JSON as a person reads it: indented, with every value as it was written. Pure.

Invariant: only white space between values changes, so that no number loses digits and no key its
place; what is not JSON stays as it is. Linear in the text's length.
"""

import re
from typing import Final

import orjson

# Deeper levels stay on one line: indenting them takes the square of their depth.
MAX_INDENT: Final = 20
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{},:]|[^\s\[\]{},:"]++')
_OPEN: Final = frozenset("[{")
_CLOSE: Final = frozenset("]}")


def indented(text: str) -> str:
    """Indent JSON by two spaces for each level."""
    try:
        orjson.loads(text)
    except ValueError:
        return text
    pieces: list[str] = []
    depth, before = 0, ""
    for mark in _TOKEN.findall(text):
        depth -= mark in _CLOSE
        # After a comma, after an opening and before a closing, but not where these two meet.
        if before == "," or (before in _OPEN) != (mark in _CLOSE):
            pieces.append("\n" + "  " * depth if depth <= MAX_INDENT else " ")
        pieces.append(": " if mark == ":" else mark)
        depth += mark in _OPEN
        before = mark
    return "".join(pieces)
