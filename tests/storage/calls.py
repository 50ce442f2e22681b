"""Calls for the tests of storage, from nothing but a number, and the database that holds them."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from storage.database import Database
from storage.parameters import Change, prepare
from storage.queries import get_span
from storage.records import (
    COMPLETED,
    DEFAULT_PROJECT,
    Body,
    Content,
    Settlement,
    SpanCheckpoint,
    SpanEnd,
    SpanStart,
    Tokens,
)
from storage.writes import Written, apply

T0 = 1_700_000_000_000_000
OWNER = b"our boot"


def trace_id(n: int) -> bytes:
    return n.to_bytes(16, "big")


def span_id(n: int) -> bytes:
    return n.to_bytes(8, "big")


def body(data: bytes, **fields: Any) -> Body:
    sha256 = hashlib.sha256(data).digest()
    content = Content(sha256=sha256, data=data)
    return Body(size=len(data), sha256=sha256, content=content, **fields)


def start(n: int, *, trace: int | None = None, **fields: Any) -> SpanStart:
    """Begin call ``n``, n seconds after T0, in a trace of its own unless ``trace`` says another."""
    given: dict[str, Any] = {
        "project_id": DEFAULT_PROJECT,
        "trace_id": trace_id(n if trace is None else trace),
        "span_id": span_id(n),
        "started_at_us": T0 + n * 1_000_000,
        "name": f"call {n}",
        "owner": OWNER,
        "session_source": "header" if "session_id" in fields else None,
    }
    return SpanStart(**{**given, **fields})


def end(started: SpanStart, **fields: Any) -> SpanEnd:
    """End a call after half a second, completed, with usage of 10 and 5 tokens, for 100 nUSD."""
    given: dict[str, Any] = {
        "start": started,
        "state": COMPLETED,
        "duration_us": 500_000,
        "model": "gpt-5",
        "tokens": Tokens(input=10, output=5),
        "usage_source": "provider",
        "cost_nusd": 100,
        "cost_status": "priced",
    }
    return SpanEnd(**{**given, **fields})


def unknown_usage(ended: SpanEnd) -> SpanEnd:
    return replace(
        ended, tokens=Tokens(), usage_source="missing", cost_nusd=None, cost_status="unpriced"
    )


def checkpoint(started: SpanStart, data: bytes, **fields: Any) -> SpanCheckpoint:
    return SpanCheckpoint(
        project_id=started.project_id,
        trace_id=started.trace_id,
        span_id=started.span_id,
        response=body(data),
        **fields,
    )


def write(db: Database, changes: Sequence[Change]) -> Written:
    batch = prepare(changes)
    with db.transaction() as tx:
        return apply(tx, batch)


def rows(db: Database, sql: str, **params: Any) -> list[Any]:
    """Read in the writer's connection, which sees what it wrote."""
    with db.transaction() as tx:
        return tx.execute(sql, params)


def settlement(response_id: str, **given: Any) -> Settlement:
    """Report usage of 70 and 7 tokens, for 900 nUSD."""
    values: dict[str, Any] = {
        "response_id": response_id,
        "model": "gpt-5-2026",
        "service_tier": None,
        "tokens": Tokens(input=70, output=7),
        "cost_nusd": 900,
        "cost_status": "priced",
        "price_version": "1",
    }
    return Settlement(**{**values, **given})


async def state_of(db: Database, n: int) -> str | None:
    span = await get_span(db, 1, span_id(n))
    return None if span is None else span.state


def stored(db: Database) -> int:
    return int(rows(db, "SELECT COUNT(*) FROM contents")[0][0])
