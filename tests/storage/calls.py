"""Calls for the tests of storage, from nothing but a number, and the database that holds them.

A conversation is told in words: a message is "u:hi" of the user, "a:hello" of the assistant, "s:be
brief" for what instructs the model (before all others), "r:hm" for reasoning, which counts for
nothing. "a:hello;1" says the same as "a:hello" in other bytes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from proxy.providers.messages import read_message
from storage.chain import BEGINNING, MAX_POINTS, Conversation, Message, Point, extend, node_hash
from storage.chain import meanings as meaning_after
from storage.database import Database, Transaction
from storage.fulltext import index
from storage.parameters import Change, prepare
from storage.queries import get_span
from storage.records import (
    COMPLETED,
    DEFAULT_PROJECT,
    Body,
    Content,
    Envelope,
    Settlement,
    SpanCheckpoint,
    SpanEnd,
    SpanStart,
    Tokens,
)
from storage.writes import Written, apply
from tests.databases import written

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


ROLES = {"u": "user", "a": "assistant", "s": "system", "r": "assistant"}


def text_of(data: bytes) -> str:
    """Read the words of a message as `said` makes it."""
    return data.decode().split('"')[3][2:].split(";")[0]


def said(words: str, parent: bytes, *, first: bool = True) -> Message:
    """Make a message that follows a node; ``first``: none but instructing ones are before it.

    One that begins with a capital letter is as a provider's client sends it.
    """
    data = b'{"say": "%b"}' % words.encode()
    kind, meaning = words[0].lower(), None
    if words[0].isupper():
        data = b'{"role":"%b","content":"%b"}' % (ROLES[kind].encode(), words[2:].encode())
        meaning = read_message(data).meaning
    sha256 = hashlib.sha256(data).digest()
    lead = b"" if parent == BEGINNING else b", "
    own = words.split(";")[0].encode()
    return Message(
        lead=lead,
        data=data,
        sha256=sha256,
        node=node_hash(parent, lead, sha256),
        role=ROLES[kind],
        meaning=meaning if meaning is not None else _meaning_of(kind, own),
        instructs=kind == "s" and first,
    )


def _meaning_of(kind: str, own: bytes) -> bytes:
    return b"" if kind == "r" else hashlib.blake2b(own, digest_size=16).digest()


def talk(asked: Sequence[str], answer: Sequence[str] = (), *, known: int = 0) -> Conversation:
    """Make the conversation of a call; the first ``known`` messages it knows to be stored."""
    messages: list[Message] = []
    for words in asked:
        parent = messages[-1].node if messages else BEGINNING
        messages.append(said(words, parent, first=all(m.instructs for m in messages)))
    answers: list[Message] = []
    for words in answer:
        last = answers or messages
        answers.append(said(words, last[-1].node if last else BEGINNING, first=False))
    points = []
    place = BEGINNING
    for n, message in enumerate(messages, 1):
        if message.meaning and not message.instructs:
            place = extend(place, message.meaning)
            points.append(Point(place, len(messages) - n, message.role == "assistant"))
    prelude = [message.node for message in messages if message.instructs]
    return Conversation(
        known=messages[known - 1].node if known else None,
        messages=tuple(messages[known:]),
        answer=tuple(answers),
        points=tuple(points[: -MAX_POINTS - 1 : -1]),
        prelude=prelude[-1] if prelude else None,
        input_meaning=place,
        output_meaning=meaning_after(place, answers) if answers else None,
    )


def asked_body(asked: Sequence[str], before: bytes = b"", tools: bytes = b"") -> bytes:
    """Give the request's bytes of a conversation; ``before`` stands before it."""
    messages = b", ".join(said(words, b"").data for words in asked)
    return b'{%b"messages": [%b], "tools": %b}' % (before, messages, tools or b"[]")


def spoken(
    started: SpanStart,
    asked: Sequence[str],
    answer: Sequence[str] = (),
    *,
    known: int = 0,
    before: bytes = b"",
    tools: bytes = b"",
    **fields: Any,
) -> SpanEnd:
    """End a call that sent these messages and was answered with those, round ``tools``."""
    whole = asked_body(asked, before, tools)
    hole = Content(sha256=hashlib.sha256(tools).digest(), data=tools) if tools else None
    first = b'{%b"messages": [' % before
    if hole is None:
        asked_round = Envelope((first, b'], "tools": []}'), (None,))
    else:
        asked_round = Envelope((first, b'], "tools": ', b"}"), (None, hole))
    answers = b"".join(m.lead + m.data for m in talk(asked, answer).answer)
    answered = b"{" + answers + b"}"
    return end(
        started,
        request=Body(size=len(whole), sha256=hashlib.sha256(whole).digest(), envelope=asked_round),
        response=Body(
            size=len(answered),
            sha256=hashlib.sha256(answered).digest(),
            envelope=Envelope((b"{", b"}"), (None,)),
        ),
        conversation=talk(asked, answer, known=known),
        **fields,
    )


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


def write(db: Database, changes: Sequence[Change], *, indexed: bool = True) -> Written:
    """Write changes as the recorder does, and index their messages at once."""
    batch = prepare(changes)
    with db.transaction() as tx:
        written = apply(tx, batch)
    if indexed:
        with db.transaction() as tx:
            index(tx, 1_000_000, text_of)
    return written


def rows(db: Database, sql: str, **params: Any) -> list[Any]:
    """Read in the writer's connection, which sees what it wrote; `x'00'` is a blob in each kind."""
    with db.transaction() as tx:
        return tx.execute(written(sql), params)


class Noting:
    """A transaction that notes the statements, and what else is asked of it first."""

    def __init__(self, tx: Transaction) -> None:
        self.said: list[str] = []
        self.full_text = tx.full_text
        self._tx = tx

    def __getattr__(self, name: str) -> Any:
        does = getattr(self._tx, name)

        def noted(first: str, *given: Any) -> Any:
            self.said.append(first)
            return does(first, *given)

        return noted


def found(db: Database, word: str | None = None) -> int:
    """Count the messages of project 1 that full text has, or those of them with a word."""
    with db.transaction() as tx:
        full_text = tx.full_text
        parts = tx.execute(full_text.parts, {}) if full_text.parts else [(0, "")]
        search = {"term": full_text.search(1, word)}
        how = {"term": "term", "most": 1_000_000, "order": ""}
        hits = (full_text.hits.format(part=name, **how) for _, name in parts)
        return sum(len(tx.execute(one, search)) for one in hits)


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


def give_back(db: Database) -> None:
    """Give back all space of deleted rows, as a recorder does when it has time."""
    more = db.reclaim(begin=True)
    while more:
        more = db.reclaim()


def stored(db: Database) -> int:
    return int(rows(db, "SELECT COUNT(*) FROM contents")[0][0])
