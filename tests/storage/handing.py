"""What applications hand in, for the tests of storage, from nothing but a number.

The words of an ``llm_call`` are those of calls.py: ``talk_said(["u:hi"], ["a:hello"])``.
"""

import json
from collections.abc import Sequence
from typing import Any

from storage.chain import BEGINNING, Conversation, node_hash
from storage.database import Database
from storage.fulltext import index
from storage.handed import (
    Cost,
    Item,
    Outcome,
    Said,
    SpanClosed,
    SpanOpened,
    TraceClosed,
    TraceOpened,
)
from storage.intake import take
from storage.records import COMPLETED, DEFAULT_PROJECT
from tests.storage.calls import T0, span_id, talk, trace_id

NOW_US = T0 + 3_600_000_000


def text_of(data: bytes) -> str:
    """Read the words of a message: of calls.py, or a JSON string."""
    value = json.loads(data)
    return str(value["say"][2:].split(";")[0]) if isinstance(value, dict) else str(value)


class Words:
    """Reads what these tests hand in. Fulfils ``Reader``."""

    def cost(self, said: Said, *, started_at_us: int) -> Cost:
        if said.cost_nusd is not None:
            return Cost(said.cost_nusd, "priced", "reported")
        if said.model is None or said.tokens.total is None:
            return Cost(None, "unpriced", None)
        return Cost(said.tokens.total * 10, "priced", "1")

    def conversation(self, said: Said) -> Conversation | None:
        asked = _words(said.input, "messages")
        return None if asked is None else _talk(asked, _words(said.output, "answer") or ())

    def preview(self, value: bytes) -> str | None:
        return self.text(value)[:240] or None

    def text(self, value: bytes) -> str:
        return " ".join(_strings(json.loads(value)))

    def meaning(self, message: bytes) -> bytes:
        return b"meaning of " + message[:5]


def _talk(asked: Sequence[str], answer: Sequence[str]) -> Conversation:
    """Make a conversation whose answer stands in a body of its own: nothing is before it there."""
    found = talk(asked, answer)
    node = found.messages[-1].node if found.messages else BEGINNING
    answers = []
    for message in found.answer:
        lead = message.lead if answers else b""
        node = node_hash(node, lead, message.sha256)
        answers.append(message._replace(lead=lead, node=node))
    return found._replace(answer=tuple(answers))


def _words(value: bytes | None, key: str) -> list[str] | None:
    found = json.loads(value) if value is not None else None
    if not isinstance(found, dict) or key not in found:
        return None
    return [one["say"] for one in found[key]]


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in _strings(one)]


def opened(n: int, **fields: Any) -> TraceOpened:
    """Open trace ``n``, n seconds after T0."""
    given: dict[str, Any] = {
        "project_id": DEFAULT_PROJECT,
        "trace_id": trace_id(n),
        "started_at_us": T0 + n * 1_000_000,
        "session_source": "api" if "session_id" in fields else None,
    }
    return TraceOpened(**{**given, **fields})


def closed(n: int, **fields: Any) -> TraceClosed:
    """End trace ``n``, n + 1 seconds after T0."""
    given: dict[str, Any] = {"project_id": DEFAULT_PROJECT, "ended_at_us": T0 + (n + 1) * 1_000_000}
    return TraceClosed(**{**given, "trace_id": trace_id(n), **fields})


def begun(n: int, *, trace: int | None = None, **fields: Any) -> SpanOpened:
    """Begin span ``n``, n seconds after T0, in trace ``n`` unless ``trace`` says another."""
    given: dict[str, Any] = {
        "project_id": DEFAULT_PROJECT,
        "trace_id": trace_id(n if trace is None else trace),
        "span_id": span_id(n),
        "name": f"span {n}",
        "started_at_us": T0 + n * 1_000_000,
        "session_source": "api" if "session_id" in fields else None,
    }
    return SpanOpened(**{**given, **fields})


def done(n: int, *, trace: int | None = None, **fields: Any) -> SpanClosed:
    """End span ``n`` half a second after it began; its trace is told if ``trace`` is."""
    given: dict[str, Any] = {
        "project_id": DEFAULT_PROJECT,
        "span_id": span_id(n),
        "state": COMPLETED,
        "ended_at_us": T0 + n * 1_000_000 + 500_000,
    }
    if trace is not None:
        given["trace_id"] = trace_id(trace)
    return SpanClosed(**{**given, **fields})


def talk_said(asked: Sequence[str], answer: Sequence[str] = (), **fields: Any) -> Said:
    """Say a call's messages, as an application that hands in an ``llm_call`` does."""
    said = _talk(asked, answer)
    inner = b"".join(message.lead + message.data for message in said.messages)
    replied = b"".join(message.lead + message.data for message in said.answer)
    whole = b'{"messages": [%b], "temperature": 0.5}' % inner
    output = b'{"answer": [%b]}' % replied if answer else None
    return Said(kind="llm_call", input=whole, output=output, **fields)


def hand_in(
    db: Database, items: Sequence[Item], *, now_us: int = NOW_US, indexed: bool = True
) -> list[Outcome]:
    """Hand in items as one chunk, and index their messages at once."""
    with db.transaction() as tx:
        outcomes = take(tx, items, now_us, Words())
    if indexed:
        with db.transaction() as tx:
            index(tx, 1_000_000, text_of)
    return outcomes
