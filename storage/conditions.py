"""The search language in SQL: each condition of a query is one fixed text with parameters.

Invariant: a value is never part of a text. A condition on what is unknown is not fulfilled, and its
negation is. Every row of a list is called ``s`` here. Runs nothing; listing.py does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from storage.clauses import (
    Alone,
    Amount,
    Condition,
    Holds,
    Ids,
    Name,
    Query,
    Rows,
    Starred,
    Time,
    Words,
)
from storage.database import Value
from storage.fulltext import Match
from storage.parameters import clean_text

# `since` finds what began up to so long before it, and was active later or still runs.
LOOKS_BACK_US: Final = 3_600 * 1_000_000


@dataclass(slots=True)
class Where:
    """Conditions on rows: SQL of clauses that each begin with AND, and their parameters.

    ``bounds`` are those that an index in the order of time fulfils by itself, ``rest`` all others.
    ``selects``: an index finds the few rows that fulfil one of the rest; ``by_words``: and it is a
    word. ``by_spans``: of each session all spans may be looked at.
    """

    bounds: str = ""
    rest: str = ""
    selects: bool = False
    by_words: bool = False
    by_spans: bool = False
    params: dict[str, Value] = field(default_factory=dict)

    @property
    def sql(self) -> str:
        """All of it."""
        return self.bounds + self.rest

    def name(self, value: Value) -> str:
        """Take a value as a parameter, and give its name."""
        name = f"q{len(self.params)}"
        self.params[name] = clean_text(value) if isinstance(value, str) else value
        return name


_DURATIONS: Final[dict[Rows, str]] = {
    "sessions": "s.last_ended_at_us - s.first_started_at_us",
    "traces": "CASE WHEN s.status <> 'running' THEN s.last_ended_at_us - s.started_at_us END",
    "spans": "s.duration_us",
}
_ERRORS: Final[dict[Rows, str]] = {
    "sessions": "s.failed_trace_count",
    "traces": "CASE WHEN s.status = 'failed' THEN 1 ELSE 0 END",
    "spans": "CASE WHEN s.state IN ('failed', 'truncated', 'interrupted') THEN 1 ELSE 0 END",
}
_IDS: Final[dict[Rows, str]] = {"traces": "s.trace_id", "spans": "s.span_id"}
_AMOUNTS: Final = {
    "cost": "s.cost_nusd",
    "tokens": "COALESCE(s.input_tokens + s.output_tokens, s.input_tokens, s.output_tokens)",
    "input_tokens": "s.input_tokens",
    "output_tokens": "s.output_tokens",
    "traces": "s.trace_count",
    "spans": "s.span_count",
}


def amount(key: str, rows: Rows) -> str:
    """Give the SQL of a number of a row; NULL where it is unknown."""
    if key == "duration":
        return _DURATIONS[rows]
    return _ERRORS[rows] if key == "errors" else _AMOUNTS[key]


_NAMES: Final[dict[tuple[str, Rows], str]] = {
    ("session", "sessions"): "s.session_id",
    ("session", "traces"): "s.session_id",
    ("user", "sessions"): "s.user_id",
    ("user", "traces"): "s.user_id",
    ("user", "spans"): "s.user_id",
    ("status", "sessions"): "s.status",
    ("status", "traces"): "s.status",
    ("status", "spans"): "s.state",
    ("source", "sessions"): "s.source",
    ("source", "traces"): "s.session_source",
    ("model", "spans"): "COALESCE(s.model, s.model_requested)",
    ("provider", "spans"): "s.provider",
    # What an application calls it is a name of its kind as well.
    ("kind", "spans"): "s.kind; s.label",
}
# What a row does not say itself, with the column that does.
_ELSEWHERE: Final[dict[tuple[str, Rows], tuple[str, str]]] = {
    ("model", "sessions"): (
        "m.model",
        "EXISTS (SELECT 1 FROM session_models m"
        " WHERE m.project_id = s.project_id AND m.session_id = s.session_id AND {})",
    ),
    ("provider", "sessions"): (
        "x.provider",
        # Not a join, which would begin with all spans.
        "EXISTS (SELECT 1 FROM traces t"
        " WHERE t.project_id = s.project_id AND t.session_id = s.session_id"
        " AND EXISTS (SELECT 1 FROM spans x"
        " WHERE x.project_id = t.project_id AND x.trace_id = t.trace_id AND {}))",
    ),
    ("model", "traces"): (
        "COALESCE(x.model, x.model_requested)",
        "EXISTS (SELECT 1 FROM spans x"
        " WHERE x.project_id = s.project_id AND x.trace_id = s.trace_id AND {})",
    ),
    ("provider", "traces"): (
        "x.provider",
        "EXISTS (SELECT 1 FROM spans x"
        " WHERE x.project_id = s.project_id AND x.trace_id = s.trace_id AND {})",
    ),
    ("kind", "sessions"): (
        "x.kind; x.label",
        "EXISTS (SELECT 1 FROM traces t"
        " WHERE t.project_id = s.project_id AND t.session_id = s.session_id"
        " AND EXISTS (SELECT 1 FROM spans x"
        " WHERE x.project_id = t.project_id AND x.trace_id = t.trace_id AND {}))",
    ),
    ("kind", "traces"): (
        "x.kind; x.label",
        "EXISTS (SELECT 1 FROM spans x"
        " WHERE x.project_id = s.project_id AND x.trace_id = s.trace_id AND {})",
    ),
    ("session", "spans"): (
        "t.session_id",
        "EXISTS (SELECT 1 FROM traces t"
        " WHERE t.project_id = s.project_id AND t.trace_id = s.trace_id AND {})",
    ),
}
# Those of which one row may mean that all spans of a session, or of a trace, are looked at.
_BY_SPANS: Final = frozenset({("provider", "sessions"), ("kind", "sessions"), ("kind", "traces")})
# A trace's tags are a JSON array, in which a tag stands between commas once its brackets are such.
_TAGGED: Final[dict[Rows, str]] = {
    "sessions": "EXISTS (SELECT 1 FROM traces t"
    " WHERE t.project_id = s.project_id AND t.session_id = s.session_id AND {})",
    "traces": "{}",
    "spans": "EXISTS (SELECT 1 FROM traces t"
    " WHERE t.project_id = s.project_id AND t.trace_id = s.trace_id AND {})",
}
# The same, for the spans of one session.
_OF_SESSION: Final = """s.trace_id IN (
SELECT t.trace_id FROM traces t WHERE t.project_id = :project_id AND t.session_id = :{})"""
_MENTIONED: Final[dict[Rows, str]] = {
    "sessions": "s.session_key IN (SELECT n.session_key FROM {})",
    "traces": "EXISTS (SELECT 1 FROM spans x WHERE x.project_id = s.project_id"
    " AND x.trace_id = s.trace_id AND x.seq IN (SELECT n.span_seq FROM {}))",
    # By no index: the newest rows are tested in order, and not all that are found read and sorted.
    "spans": "s.seq + 0 IN (SELECT n.span_seq FROM {})",
}
# The same, for few of them.
_FEW_MENTIONED: Final[dict[Rows, str]] = {
    **_MENTIONED,
    "traces": """s.trace_id IN (
SELECT x.trace_id FROM spans x WHERE x.project_id + 0 = :project_id
AND x.seq IN (SELECT n.span_seq FROM {}))""",
    "spans": "s.seq IN (SELECT n.span_seq FROM {})",
}
_MENTIONS: Final = "({hits}) h JOIN mentions n ON n.content_id = h.content_id {side}"
_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_OF_SIDE: Final = {
    "": "",
    "input": "JOIN messages g ON g.content_id = n.content_id AND g.role <> 'assistant' ",
    "output": "JOIN messages g ON g.content_id = n.content_id AND g.role = 'assistant' ",
}


def where(query: Query, now_us: int, matches: Mapping[str, Match]) -> Where:
    """Give the SQL of a query.

    ``now_us`` is the moment that ages are counted from, ``matches`` what each of the query's words
    finds.
    """
    found = Where()
    # A word of no letters is in no message; beside others it says nothing.
    searchable = any(_is_word(words) and not words.negated for words in query.words)
    for condition in query.conditions:
        if isinstance(condition, Words) and not _is_word(condition):
            if not condition.negated and not searchable:
                found.rest += " AND 1 = 0"
            continue
        sql = _condition(found, condition, query.rows, now_us, matches)
        if condition.negated:
            # Not true, which is not the same as false where a value is unknown.
            found.rest += f" AND ({sql}) IS NOT TRUE"
        elif _is_bound(condition, query.rows):
            found.bounds += f" AND {sql}"
        else:
            found.rest += f" AND {sql}"
            found.selects |= isinstance(condition, Ids) or (
                isinstance(condition, Name) and condition.is_session
            )
    found.selects |= found.by_words
    return found


def _is_word(words: Words) -> bool:
    return any(map(str.isalnum, words.text))


def _is_bound(condition: Condition, rows: Rows) -> bool:
    if isinstance(condition, Name):
        return condition.is_session and rows != "spans"
    return isinstance(condition, Time) and (condition.key == "since" or rows != "sessions")


def _condition(
    found: Where, condition: Condition, rows: Rows, now_us: int, matches: Mapping[str, Match]
) -> str:
    match condition:
        case Words():
            return _words(found, condition, rows, matches[condition.text])
        case Name():
            return _name(found, condition, rows)
        case Amount():
            return _amount(found, condition, rows)
        case Starred():
            return f"s.starred = {int(condition.value)}"
        case Time():
            return _time(found, condition, rows, now_us)
        case Ids():
            names = ", ".join(f":{found.name(one)}" for one in condition.ids)
            column = "s.trace_id" if condition.key == "trace" else _IDS[rows]
            return f"{column} IN ({names})"
        case Alone():
            return "s.session_id IS NULL"
        case Holds():
            # Not LIKE, of which each database has its own idea of case, and which has wildcards.
            # In ASCII only, as the column's: of a parameter a database may lower more.
            part = f":{found.name(condition.text.translate(_LOWER))}"
            return f"REPLACE(LOWER(s.name), {part}, '') <> LOWER(s.name)"


def _words(found: Where, words: Words, rows: Rows, match: Match) -> str:
    hits = match.select.format(term=found.name(match.search))
    few = match.is_few and not words.negated
    found.by_words |= few
    mentioned = (_FEW_MENTIONED if few else _MENTIONED)[rows]
    return mentioned.format(_MENTIONS.format(hits=hits, side=_OF_SIDE[words.key]))


def _name(found: Where, name: Name, rows: Rows) -> str:
    place = (name.key, rows)
    if name.key == "tag":
        return _tagged(found, name, rows)
    if name.is_session and rows == "spans" and not name.negated:
        return _OF_SESSION.format(found.name(name.text))
    if place in _NAMES:
        return _compared(found, _NAMES[place], name)
    column, sql = _ELSEWHERE[place]
    found.by_spans |= place in _BY_SPANS
    return sql.format(_compared(found, column, name))


def _compared(found: Where, columns: str, name: Name) -> str:
    text = f":{found.name(name.text)}"
    # Not LIKE, of which each database has its own idea of case.
    form = "SUBSTR({0}, 1, LENGTH({1})) = {1}" if name.prefix else "{0} = {1}"
    tests = [form.format(column, text) for column in columns.split("; ")]
    return tests[0] if len(tests) == 1 else f"({' OR '.join(tests)})"


def _tagged(found: Where, name: Name, rows: Rows) -> str:
    """Find a tag, or what a tag begins with, as it stands in JSON without white space."""
    written = msgspec.json.encode(clean_text(name.text)).decode()
    part = f":{found.name(',' + (written[:-1] if name.prefix else written + ','))}"
    column = "s.tags" if rows == "traces" else "t.tags"
    tags = f"',' || SUBSTR({column}, 2, LENGTH({column}) - 2) || ','"
    found.by_spans |= rows == "sessions"
    return _TAGGED[rows].format(f"REPLACE({tags}, {part}, '') <> {tags}")


# PostgreSQL takes what is compared with a small number for a small number.
_BIG: Final = "CAST(:{} AS BIGINT)"


def _amount(found: Where, condition: Amount, rows: Rows) -> str:
    sql = amount(condition.key, rows)
    if condition.most is not None:
        low, high = found.name(condition.value), found.name(condition.most)
        return f"{sql} BETWEEN {_BIG.format(low)} AND {_BIG.format(high)}"
    return f"{sql} {condition.operator} {_BIG.format(found.name(condition.value))}"


def _time(found: Where, time: Time, rows: Rows, now_us: int) -> str:
    """Compare a moment with the interval of a row, from its start to its end."""
    at_us = time.at_us(now_us)
    if time.key == "until":
        start = "s.first_started_at_us" if rows == "sessions" else "s.started_at_us"
        return f"{start} <= :{found.name(at_us)}"
    at, from_ = found.name(at_us), found.name(at_us - LOOKS_BACK_US)
    last = "s.last_active_at_us" if rows == "sessions" else "s.started_at_us"
    end = "s.started_at_us + s.duration_us" if rows == "spans" else "s.last_ended_at_us"
    runs = "s.state = 'running'" if rows == "spans" else "s.status = 'running'"
    return f"{last} >= :{from_} AND ({last} >= :{at} OR {end} >= :{at} OR {runs})"
