"""A large database, made fast: the rows that calls would have left, by plain inserts.

Sessions are of all lengths (a few very long), models and users of all frequencies, and words as in
English; one call in twenty fails, and of one in ten nothing is known of tokens or cost. Full text
and mentions are there; messages are where they are asked for, since no list reads them.
"""

import asyncio
import hashlib
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from storage import fts5_parts
from storage.chain import BEGINNING, node_hash
from storage.database import Params
from storage.keys import session_key
from storage.sqlite import open_database
from storage.statements import SqliteTransaction

FIRST_US: Final = 1_767_225_600_000_000  # 2026-01-01
DAYS: Final = 30
MODELS: Final = ("gpt-5-mini", "gpt-5", "gpt-4o", "o4-mini", "claude-sonnet-4-5", "llama-4-70b")
SHARES: Final = (50, 25, 15, 6, 3, 1)
STATES: Final = ("completed", "failed", "cancelled")
# Words of which the rare one is in 1 of 10,000 messages, the frequent one in 1 of 100.
RARE, FREQUENT, COMMON = "sapphire", "invoice", "please"
TRACES_A_BATCH: Final = 20_000
# Texts that come into the index of words at a time: more than of calls, which is faster.
TEXTS_AT_ONCE: Final = 1_000

TRACE: Final = (
    *("project_id", "trace_id", "seq", "status", "started_at_us", "last_ended_at_us", "span_count"),
    *("unpriced_count", "estimated_count", "received_bytes", "stored_bytes", "input_tokens"),
    *("output_tokens", "cost_nusd", "session_id", "session_source", "user_id", "name"),
    *("input_preview", "output_preview", "error"),
)
SPAN: Final = (
    *("project_id", "trace_id", "span_id", "seq", "state", "kind", "started_at_us", "duration_us"),
    *("http_status", "input_tokens", "output_tokens", "cost_nusd", "usage_source", "cost_status"),
    *("upstream", "provider", "operation", "model", "name", "user_id", "input_preview"),
    *("output_preview", "error", "method", "path", "session_key", "request_head", "response_head"),
)
SESSION: Final = (
    *("project_id", "session_id", "seq", "session_key", "source", "status", "trace_count"),
    *("span_count", "failed_trace_count", "ended_trace_count", "ended_duration_us"),
    *("unpriced_count", "estimated_count", "input_tokens", "output_tokens", "cost_nusd"),
    *("first_started_at_us", "first_seq", "last_active_at_us", "last_seq", "last_ended_at_us"),
    *("user_id", "first_input", "last_output", "last_error"),
)
MODEL: Final = ("project_id", "session_id", "model", "n")
CONTENT: Final = ("id", "project_id", "sha256", "encoding", "size", "data")
NODE: Final = ("id", "project_id", "parent_id", "content_id", "depth", "hash", "lead")
# Of a span whose messages are there.
SPOKEN: Final = (
    *("input_node_id", "output_node_id", "fresh_count", "input_meaning", "output_meaning"),
)


@dataclass(slots=True)
class Talk:
    """A session while its calls are made."""

    name: str
    user: str | None
    model: str
    traces: int = 0
    failed: int = 0
    ended: int = 0
    duration_us: int = 0
    unpriced: int = 0
    input: int | None = None
    output: int | None = None
    cost: int | None = None
    seq: int = 0
    first_us: int = 0
    last_us: int = 0
    last_seq: int = 0
    last_ended_us: int = 0
    status: str = "completed"
    first_input: str = ""
    last_output: str = ""
    error: str | None = None
    models: Counter[str] = field(default_factory=Counter)


def make(path: Path, sessions: int, traces: int, *, messages: bool = False) -> None:
    """Make a database with so many sessions and traces, which are of one month.

    ``messages``: with the messages of each call as its chain, so that it can be opened.
    """
    asyncio.run(open_database(path).close())  # with its tables, and its lock let go
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -200000")
    source = random.Random(1)  # noqa: S311
    talks = [
        Talk(
            f"user_{int(sessions ** source.random())}:conv_{n:06d}",
            f"user_{int(sessions ** source.random())}" if n % 3 else None,
            source.choices(MODELS, SHARES)[0],
        )
        for n in range(sessions)
    ]
    connection.execute("BEGIN")
    for batch in _batches(_starts(source, sessions, traces)):
        _write_calls(connection, SqliteTransaction(path, connection), source, talks, batch)
        if messages:
            _write_messages(connection, batch)
    _write_sessions(connection, talks)
    for name, last in (("seq", traces), ("id", 2 * traces + 1)):
        connection.execute("UPDATE counters SET value = ? WHERE name = ?", (last, name))
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _starts(source: random.Random, sessions: int, traces: int) -> list[tuple[int, int]]:
    """Give when each call began and the session that it is of, in order of time."""
    span_us = DAYS * 86_400_000_000
    begins = [FIRST_US + source.randrange(span_us) for _ in range(sessions)]
    found = []
    for n in range(traces):
        # Each session once, then by a Pareto law: few have very many.
        talk = n if n < sessions else int(sessions * source.random() ** 2)
        found.append((begins[talk] + int(source.expovariate(1 / 3_600e6)), talk))
    found.sort()
    return found


def _batches(found: list[tuple[int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    for at in range(0, len(found), TRACES_A_BATCH):
        part = found[at : at + TRACES_A_BATCH]
        yield [(at + n, start, talk) for n, (start, talk) in enumerate(part, 1)]


def _write_calls(
    connection: sqlite3.Connection,
    tx: SqliteTransaction,
    source: random.Random,
    talks: Sequence[Talk],
    batch: Sequence[tuple[int, int, int]],
) -> None:
    trace_rows, span_rows, texts = [], [], []
    head = b"z" * 120
    for seq, started, number in batch:
        talk = talks[number]
        model = talk.model if source.random() < 0.9 else source.choice(MODELS)
        state = source.choices(STATES, (94, 5, 1))[0]
        known = state == "completed" and source.random() < 0.9
        used = (int(source.expovariate(1 / 2000)), int(source.expovariate(1 / 300)))
        counts = used if known else (None, None)
        cost = used[0] * 250 + used[1] * 2000 if known else None
        duration = int(source.expovariate(1 / 2e6)) + 1
        error = "429: rate limit reached" if state == "failed" else None
        asked, said = _text(source), _text(source)
        trace_id, span_id = seq.to_bytes(16, "big"), seq.to_bytes(8, "big")
        key = session_key(1, talk.name)
        ended = (started, started + duration, 1, int(cost is None), 0, 900, 300)
        called = ("openai", "openai", "chat.completions", model, model, talk.user, asked, said)
        trace_rows.append(
            (
                *(1, trace_id, seq, state, *ended, *counts, cost, talk.name, "header", talk.user),
                *(model, asked, said, error),
            )
        )
        span_rows.append(
            (
                *(1, trace_id, span_id, seq, state, "llm_call", started, duration),
                *(500 if error else 200, *counts, cost, "provider" if known else "missing"),
                *(
                    "priced" if known else "unpriced",
                    *called,
                    error,
                    "POST",
                    "/v1/chat/completions",
                ),
                *(key, head, head),
            )
        )
        texts += [(2 * seq, "user", asked, key, seq), (2 * seq + 1, "assistant", said, key, seq)]
        talk.seq = talk.seq or seq
        talk.first_us = talk.first_us or started
        talk.first_input = talk.first_input or asked
        talk.last_us, talk.last_seq, talk.status, talk.last_output = started, seq, state, said
        talk.last_ended_us = max(talk.last_ended_us, started + duration)
        talk.error = error or talk.error
        talk.traces += 1
        talk.failed += state == "failed"
        talk.duration_us += duration
        talk.unpriced += cost is None
        talk.models[model] += 1
        if cost is not None:
            talk.input = (talk.input or 0) + used[0]
            talk.output = (talk.output or 0) + used[1]
            talk.cost = (talk.cost or 0) + cost
    connection.executemany(_insert("traces", TRACE), trace_rows)
    connection.executemany(_insert("spans", SPAN), span_rows)
    connection.executemany(
        _insert("messages", ("content_id", "role", "meaning")),
        ((content, role, b"m" * 16) for content, role, *_ in texts),
    )
    connection.executemany(
        _insert("mentions", ("content_id", "session_key", "span_seq")),
        ((content, key, seq) for content, _, _, key, seq in texts),
    )
    said: list[Params] = [{"id": one, "scope": "p1", "text": text} for one, _, text, *_ in texts]
    for at in range(0, len(said), TEXTS_AT_ONCE):
        fts5_parts.add(tx, said[at : at + TEXTS_AT_ONCE])


def _write_messages(connection: sqlite3.Connection, batch: Sequence[tuple[int, int, int]]) -> None:
    """Write the bytes of what a batch of calls asked and was answered, each a talk of its own."""
    contents, nodes, spans = [], [], []
    last = batch[-1][0]
    texts = connection.execute(
        "SELECT seq, input_preview, output_preview FROM spans WHERE seq BETWEEN ? AND ?",
        (batch[0][0], last),
    )
    for seq, asked, said in texts.fetchall():
        hashed, parent, meanings = BEGINNING, None, []
        for depth, (role, text) in enumerate((("user", asked), ("assistant", said)), 1):
            # Named, so that no two are alike.
            data = f'{{"role":"{role}","name":"n{seq}","content":"{text}"}}'.encode()
            sha256 = hashlib.sha256(data).digest()
            lead = b", " if parent else b""
            hashed = node_hash(hashed, lead, sha256)
            number = 2 * seq + depth - 1
            contents.append((number, 1, sha256, "", len(data), data))
            nodes.append((number, 1, parent, number, depth, hashed, lead))
            meanings.append(sha256[:16])
            parent = number
        spans.append((2 * seq, 2 * seq + 1, 1, *meanings, seq))
    connection.executemany(_insert("contents", CONTENT), contents)
    connection.executemany(_insert("nodes", NODE), nodes)
    marks = ", ".join(f"{name} = ?" for name in SPOKEN)
    connection.executemany(f"UPDATE spans SET {marks} WHERE seq = ?", spans)  # noqa: S608


def _write_sessions(connection: sqlite3.Connection, talks: Sequence[Talk]) -> None:
    connection.executemany(
        _insert("sessions", SESSION),
        (
            (
                *(1, t.name, t.seq, session_key(1, t.name), "header", t.status, t.traces, t.traces),
                *(t.failed, t.traces, t.duration_us, t.unpriced, 0, t.input, t.output, t.cost),
                *(t.first_us, t.seq, t.last_us, t.last_seq, t.last_ended_us, t.user),
                *(t.first_input, t.last_output, t.error),
            )
            for t in sorted(talks, key=lambda t: t.seq)
        ),
    )
    connection.executemany(
        _insert("session_models", MODEL),
        ((1, t.name, model, n) for t in talks for model, n in t.models.items()),
    )


def _text(source: random.Random) -> str:
    """Give a dozen words, the n-th of 20,000 with a frequency of 1/n."""
    words = [f"w{int(20_000 ** source.random())}" for _ in range(12)]
    chance = source.random()
    if chance < 0.0001:
        words[3] = RARE
    elif chance < 0.01:
        words[3] = FREQUENT
    elif chance < 0.4:
        words[3] = COMMON
    return " ".join(words)


def _insert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
