"""Where the words of a search stand in a body: the words around each of them. Pure.

Owns no search: the index found the call, and this shows why. Invariant: nothing here raises, and
what it gives is short, however long the texts are.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import orjson

from storage.clauses import Words

# Characters on each side of what was found, and snippets of one call.
AROUND: Final = 120
MOST: Final = 4
_TOKEN: Final = re.compile(r"\w+")


def snippets(sides: dict[str, object], words: Sequence[Words]) -> list[dict[str, object]]:
    """Give the words around what was looked for, by side (`input`, `output`), the newest first.

    The values of ``sides`` are JSON values or fragments.
    """
    patterns = [(word.key, found) for word in words if not word.negated and (found := _found(word))]
    given: list[dict[str, object]] = []
    for side, value in sides.items():
        texts = list(_texts(value))
        for key, pattern in patterns:
            if key in ("", side) and len(given) < MOST:
                text = _around(reversed(texts), pattern)
                if text is not None and all(one["text"] != text for one in given):
                    given.append({"in": side, "text": text})
    return given


def _found(word: Words) -> re.Pattern[str] | None:
    tokens = _TOKEN.findall(word.text)
    if not tokens:
        return None
    phrase = r"\W+".join(map(re.escape, tokens))
    return re.compile(rf"(?<!\w){phrase}(?!\w)", re.IGNORECASE)


def _around(texts: Iterator[str], pattern: re.Pattern[str]) -> str | None:
    for text in texts:
        if (found := pattern.search(text)) is not None:
            start, stop = max(0, found.start() - AROUND), min(len(text), found.end() + AROUND)
            before, behind = "…" if start else "", "…" if stop < len(text) else ""
            return f"{before}{text[start : min(stop, start + 4 * AROUND)]}{behind}"
    return None


def _texts(value: object) -> Iterator[str]:
    """Give all texts of a JSON value in their order."""
    if isinstance(value, orjson.Fragment):
        try:
            value = orjson.loads(orjson.dumps(value))
        except ValueError:
            return
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += reversed(one.values())
        elif isinstance(one, list):
            waiting += reversed(one)
