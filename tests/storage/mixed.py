"""Calls of every kind, and in plain Python, without SQL, which of their rows fulfil a query."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

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
from storage.conditions import LOOKS_BACK_US
from storage.database import Database, Transaction
from storage.listing import list_outlines, list_sessions, list_traces
from storage.parameters import Change
from storage.records import FAILED_STATES, RUNNING, Page, Session, Span, Tokens, Trace
from tests.storage.calls import T0, spoken, start, unknown_usage, write

MINUTE_US = 60_000_000
CALLS = 70
NOW_US = T0 + CALLS * 10 * MINUTE_US
SESSIONS = (None, "a", "b", "a%b", "A", "c_1", "héllo", "\U0010ffffx")
MODELS = ("gpt-5", "gpt-5-mini", "GPT-5", "o4", None)
KINDS = ("llm_call", "llm_call", "custom", "retrieval", "tool_call")
LABELS = (None, "reranker", "Rerank", "retrieval")
TAGS = ("a", "A", ",", '"', "a b", "é", "\\", "ab", '","', "\x01\n\x7f\u2028")
WORDS = ("alpha", "beta", "gamma", "delta")
STATES = ("completed", "completed", "failed", "cancelled", "truncated", "interrupted")

LISTS: dict[Rows, Callable[..., Any]] = {
    "sessions": list_sessions,
    "traces": list_traces,
    "spans": list_outlines,
}


def mixed(seed: int) -> list[Change]:
    """Make calls with sessions and without, some in one trace, with and without known figures."""
    source = random.Random(seed)  # noqa: S311
    changes: list[Change] = []
    joined: list[tuple[int, str | None]] = []
    for n in range(1, CALLS + 1):
        session = source.choice(SESSIONS)
        trace = n
        if joined and source.random() < 0.2:
            trace, session = source.choice(joined)
        joined.append((trace, session))
        fields: dict[str, Any] = {} if session is None else {"session_id": session}
        begun = start(
            n,
            trace=trace,
            # Some in the same microsecond.
            started_at_us=T0 + (n - n % 3) * 10 * MINUTE_US,
            user_id=source.choice((None, "u1", "u2", "U1")),
            provider=source.choice(("openai", "other", None)),
            **fields,
        )
        if source.random() < 0.1:
            changes.append(begun)
            continue
        asked = f"{' '.join(source.choices(WORDS, k=3))} n{n}"
        answer = f"{' '.join(source.choices(WORDS, k=2))} m{n}"
        state = source.choice(STATES)
        ended = spoken(
            begun,
            [f"u:{asked}"],
            [f"a:{answer}"],
            input_preview=asked,
            output_preview=answer,
            state=state,
            error="no" if state == "failed" else None,
            duration_us=source.choice((0, 1, 500_000, 90 * MINUTE_US)),
            model=source.choice(MODELS),
            tokens=Tokens(
                input=source.choice((None, 0, 10, 2_000)), output=source.choice((None, 0, 5, 300))
            ),
            cost_nusd=source.choice((0, 100, 500_000_000, 2_000_000_000)),
        )
        changes.append(unknown_usage(ended) if source.random() < 0.2 else ended)
    return changes


@dataclass
class World:
    """All rows of a database, as records, with what was said in each call."""

    rows: dict[Rows, list[Any]]
    told: dict[int, dict[str, str]]
    users: dict[int, str | None]

    def found(self, query: Query) -> list[Any]:
        """Give the rows that fulfil a query, in any order."""
        return [row for row in self.rows[query.rows] if self.fulfils(row, query)]

    def fulfils(self, row: Any, query: Query) -> bool:
        return all(
            self._holds(row, condition, query) is not condition.negated
            for condition in query.conditions
        )

    def _holds(self, row: Any, condition: Condition, query: Query) -> bool:
        match condition:
            case Words():
                return any(
                    _says(text, condition.text)
                    for span in self._spans(row)
                    for side, text in self.told.get(span.seq, {}).items()
                    if condition.key in ("", side)
                )
            case Name():
                return any(
                    name == condition.text or (condition.prefix and name.startswith(condition.text))
                    for name in self._names(row, condition.key)
                    if name is not None
                )
            case Amount():
                return _compare(_figure(row, condition.key), condition)
            case Starred():
                return row.starred is condition.value
            case Time():
                return _overlaps(row, condition)
            case Ids():
                return (row.trace_id if condition.key == "trace" else row.span_id) in condition.ids
            case Alone():
                return row.session_id is None
            case Holds():
                return _lower(condition.text) in _lower(row.name)

    def _spans(self, row: Any) -> list[Span]:
        if isinstance(row, Span):
            return [row]
        traces = {row.trace_id} if isinstance(row, Trace) else self._traces(row)
        return [span for span in self.rows["spans"] if span.trace_id in traces]

    def _traces(self, session: Session) -> set[bytes]:
        traces = self.rows["traces"]
        return {trace.trace_id for trace in traces if trace.session_id == session.session_id}

    def _names(self, row: Any, key: str) -> list[str | None]:
        spans = self._spans(row)
        match key:
            case "session" if isinstance(row, Span):
                traces = self.rows["traces"]
                return [t.session_id for t in traces if t.trace_id == row.trace_id]
            case "session":
                return [row.session_id]
            case "kind":
                return [name for span in spans for name in (span.kind, span.label)]
            case "tag":
                own = {span.trace_id for span in spans}
                return [t for one in self.rows["traces"] if one.trace_id in own for t in one.tags]
            case "model":
                return [span.model or span.model_requested for span in spans]
            case "provider":
                return [span.provider for span in spans]
            case "status":
                return [row.state if isinstance(row, Span) else row.status]
            case "source":
                return [row.source if isinstance(row, Session) else row.session_source]
            case "user" if isinstance(row, Span):
                return [self.users[row.seq]]
        return [row.user_id]


async def world(db: Database, seed: int) -> World:
    """Fill a database, and read all of it."""
    changes = mixed(seed)
    write(db, changes)
    with db.transaction() as tx:
        tx.execute("UPDATE sessions SET starred = 1 WHERE session_id IN ('a', 'c_1')", {})
        _hand_in(tx, random.Random(seed))  # noqa: S311
    rows: dict[Rows, list[Any]] = {}
    for kind, read in LISTS.items():
        page: Page[Any] = await read(db, 1, 1000)
        rows[kind] = list(page.rows)
    told = {
        span.seq: {"input": span.input_preview, "output": span.output_preview}
        for span in rows["spans"]
        if span.state != RUNNING
    }
    users = dict(await db.read("SELECT seq, user_id FROM spans", {}))
    return World(rows, told, users)


def _hand_in(tx: Transaction, source: random.Random) -> None:
    """Make some spans such as applications tell of, and give some traces tags."""
    for (seq,) in tx.execute("SELECT seq FROM spans ORDER BY seq", {}):
        kind = source.choice(KINDS)
        label = source.choice(LABELS) if kind == "custom" else None
        sql = "UPDATE spans SET kind = :kind, label = :label WHERE seq = :seq"
        tx.execute(sql, {"kind": kind, "label": label, "seq": seq})
    for (trace_id,) in tx.execute("SELECT trace_id FROM traces ORDER BY seq", {}):
        if source.random() < 0.6:
            tags = msgspec.json.encode(source.sample(TAGS, k=source.randint(1, 3))).decode()
            sql = "UPDATE traces SET tags = :tags WHERE trace_id = :trace_id"
            tx.execute(sql, {"tags": tags, "trace_id": trace_id})


def _lower(text: str) -> str:
    return text.translate({code: code + 32 for code in range(65, 91)})


def figure(row: Any, by: str) -> int:
    """Give the number by which a row is sorted; -1 where it is unknown."""
    match by:
        case "last_active":
            return int(row.last_active_at_us)
        case "started" if isinstance(row, Session):
            return row.first_started_at_us
        case "started":
            return int(row.started_at_us)
        case "latency":
            ended = row.ended_trace_count
            return row.ended_duration_us // ended if ended else -1
    value = _figure(row, by)
    return -1 if value is None else value


def _figure(row: Any, key: str) -> int | None:
    found: dict[str, Callable[[], int | None]] = {
        "cost": lambda: row.cost_nusd,
        "tokens": lambda: row.tokens.total,
        "input_tokens": lambda: row.tokens.input,
        "output_tokens": lambda: row.tokens.output,
        "traces": lambda: row.trace_count,
        "spans": lambda: row.span_count,
        "duration": lambda: _duration(row),
        "errors": lambda: _errors(row),
    }
    return found[key]()


def _duration(row: Any) -> int | None:
    if isinstance(row, Session):
        ended = row.last_ended_at_us
        return None if ended is None else ended - row.first_started_at_us
    return None if row.duration_us is None else int(row.duration_us)


def _errors(row: Any) -> int:
    if isinstance(row, Session):
        return row.failed_trace_count
    return int(row.state in FAILED_STATES if isinstance(row, Span) else row.status == "failed")


def _compare(figure: int | None, amount: Amount) -> bool:
    if figure is None:
        return False
    value = amount.value
    match amount.operator:
        case "=":
            return figure == value
        case ">":
            return figure > value
        case "<":
            return figure < value
        case ">=":
            return figure >= value
        case "<=":
            return figure <= value
    assert amount.most is not None
    return value <= figure <= amount.most


def _overlaps(row: Any, time: Time) -> bool:
    at_us = time.at_us(NOW_US)
    if isinstance(row, Session):
        begin, last, end = row.first_started_at_us, row.last_active_at_us, row.last_ended_at_us
    else:
        begin, last, end = row.started_at_us, row.started_at_us, row.ended_at_us
    if time.key == "until":
        return bool(begin <= at_us)
    runs = (row.state if isinstance(row, Span) else row.status) == RUNNING
    was_active = last >= at_us or (end is not None and end >= at_us) or runs
    return bool(was_active and last >= at_us - LOOKS_BACK_US)


def _says(text: str, phrase: str) -> bool:
    words, wanted = text.casefold().split(), phrase.casefold().split()
    return any(words[n : n + len(wanted)] == wanted for n in range(len(words)))


def in_order(rows: list[Any], by: str, *, descending: bool) -> list[int]:
    """Give the numbers of rows in their order, ties by arrival."""
    ordered = sorted(rows, key=lambda row: (figure(row, by), row.seq), reverse=descending)
    assert all(a.seq != b.seq for a, b in pairwise(ordered))
    return [row.seq for row in ordered]
