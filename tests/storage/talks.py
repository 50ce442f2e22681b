"""Calls of one session with conversations, for the tests of what is read of it."""

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from storage.database import Database
from storage.parameters import Change, prepare
from storage.records import Body, Content, Envelope, SpanEnd
from storage.writes import apply
from tests.storage.calls import end, start, talk

CHAT = "chat.completions"


def request_of(**values: object) -> Body:
    """Make a body with an array of messages and these values, each in a hole of its own."""
    pieces, holes = [b'{"model":"m"'], []
    for key, value in values.items():
        data = orjson.dumps(value)
        pieces[-1] += b',"%b":' % key.encode()
        pieces.append(b"")
        holes.append(Content(sha256=hashlib.sha256(data).digest(), data=data))
    pieces[-1] += b',"messages":['
    return Body(size=1, envelope=Envelope((*pieces, b"]}"), (*holes, None)))


def call(n: int, asked: Sequence[str], *answer: str, **fields: Any) -> SpanEnd:
    """Make call ``n`` of session "s"; `instructions` and `tools` are its request's."""
    told = {key: fields.pop(key) for key in ("instructions", "tools") if key in fields}
    started = start(n, session_id="s", operation=fields.pop("operation", CHAT))
    given: dict[str, Any] = {"conversation": talk(asked, answer), "request": request_of(**told)}
    return end(started, **{**given, **fields})


def chat(turns: int) -> list[SpanEnd]:
    """Make a chat of so many turns that sends all of itself with each."""
    said: list[str] = []
    calls = []
    for n in range(1, turns + 1):
        said.append(f"u:{n}")
        calls.append(call(n, said, f"a:{n}"))
        said.append(f"a:{n}")
    return calls


def save(db: Database, *changes: Change) -> None:
    """Save calls, each in a transaction of its own, as they come in a slow conversation."""
    for change in changes:
        with db.transaction() as tx:
            apply(tx, prepare([change]))
