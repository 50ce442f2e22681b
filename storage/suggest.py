"""What may come next in a query that somebody types: keys, then values that were seen.

Invariant: to look costs the same in any database: names of sessions come from their index, other
values from the newest ``SEEN`` spans or traces.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from storage.clauses import STATUSES, Name, Rows
from storage.database import Database, Value
from storage.parameters import clean_text
from storage.search import KEYS

# ruff: noqa: S608 (the SQL below is put together from constants of this file, never from values)

MAX_SUGGESTIONS: Final = 20
# Calls of which the values are offered: 20 ms.
SEEN: Final = 10_000
# Different lists of tags that are read for one suggestion.
MAX_TAGS: Final = 1_000

# A clause, also one that is not complete; at least one character of what is no space.
_CLAUSE: Final = re.compile(
    r'(?P<minus>-?)(?:(?P<key>[A-Za-z_]+):)?(?P<value>"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[^\s"]*)',
    re.DOTALL,
)
_SPACE: Final = re.compile(r"\s*")
_REST: Final = re.compile(r'[^\s"]*')


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A text that may stand there, and what it means where that is not plain."""

    text: str
    meaning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestions:
    """What may stand in place of the characters from ``start`` to ``end``, counted from 0."""

    start: int
    end: int
    suggestions: tuple[Suggestion, ...]


async def suggest(db: Database, project_id: int, query: str, at: int, rows: Rows) -> Suggestions:
    """Complete the clause that ends, or goes on, at this character."""
    start = at
    minus = key = typed = ""
    place = 0
    while (place := _end(_SPACE, query, place)) < at:
        found = _CLAUSE.match(query, place, at)
        assert found is not None  # noqa: S101 (it matches nothing as well)
        if found.end() == at:
            start = place
            minus, key, typed = found["minus"], (found["key"] or "").lower(), found["value"]
        place = found.end()
    offers = await _values(db, project_id, key, typed, rows) if key else _keys(typed, rows)
    return Suggestions(
        start=start,
        end=_end(_REST, query, at),
        suggestions=tuple(
            Suggestion(text=minus + offer.text, meaning=offer.meaning) for offer in offers
        ),
    )


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _keys(typed: str, rows: Rows) -> Iterable[Suggestion]:
    return [
        Suggestion(text=f"{name}:", meaning=key.meaning)
        for name, key in KEYS.items()
        if name.startswith(typed.lower()) and rows in key.rows
    ]


async def _values(
    db: Database, project_id: int, key: str, typed: str, rows: Rows
) -> Iterable[Suggestion]:
    if key not in KEYS or rows not in KEYS[key].rows:
        return ()
    prefix = typed.strip('"')
    if key in _OBSERVED:
        params: dict[str, Value] = {
            "project_id": project_id,
            "prefix": clean_text(prefix),
            "limit": MAX_SUGGESTIONS,
        }
        names = [row[0] for row in await db.read(_OBSERVED[key], params)]
        texts = [str(Name(key, name)) for name in names if name.startswith(prefix)]
    elif key == "tag":
        lists = await db.read(TAGS, {"project_id": project_id, "limit": MAX_TAGS})
        tags = {tag for (text,) in lists for tag in json.loads(text) if tag.startswith(prefix)}
        texts = [str(Name(key, tag)) for tag in sorted(tags)[:MAX_SUGGESTIONS]]
    else:
        known = STATUSES[rows] if key == "status" else KEYS[key].examples
        texts = [f"{key}:{value}" for value in known if value.startswith(prefix)]
    return [Suggestion(text=text) for text in texts]


def _newest(column: str, table: str) -> str:
    # See listing.py: the index in the order of time begins with the project for traces only.
    project = "project_id" if table == "traces" else "project_id + 0"
    return f"""
SELECT DISTINCT value FROM (
  SELECT {column} AS value FROM {table} WHERE {project} = :project_id
  ORDER BY started_at_us DESC, seq DESC LIMIT {SEEN}
) newest WHERE SUBSTR(value, 1, LENGTH(:prefix)) = :prefix ORDER BY value LIMIT :limit
"""


_OBSERVED: Final = {
    # Those that begin otherwise are left out by the caller: at most all of them.
    "session": """
SELECT session_id FROM sessions WHERE project_id = :project_id AND session_id >= :prefix
ORDER BY session_id LIMIT :limit
""",
    "model": _newest("COALESCE(model, model_requested)", "spans"),
    "provider": _newest("provider", "spans"),
    "kind": _newest("COALESCE(label, kind)", "spans"),
    "user": _newest("user_id", "traces"),
    "source": _newest("session_source", "traces"),
}
TAGS: Final = f"""
SELECT DISTINCT tags FROM (
  SELECT tags FROM traces WHERE project_id = :project_id
  ORDER BY started_at_us DESC, seq DESC LIMIT {SEEN}
) newest WHERE tags IS NOT NULL LIMIT :limit
"""
