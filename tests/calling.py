"""Calls for the tests of recording, without a server, and a database that can be held or fail."""

import asyncio
import threading
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from proxy.call import COMPLETE, Call, CallEnd, Ending
from proxy.capture import Budget, CapturePolicy, parse_capture
from proxy.headers import index
from proxy.joining import NOWHERE, Joining
from proxy.session import SessionRef
from proxy.target import proxied
from storage.database import Database, Transaction
from storage.records import DEFAULT_PROJECT

CHAT = b"/api/proxy/openai/v1/chat/completions"
QUESTION = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"How are you today?"}]}'
ANSWER = (
    b'{"id":"chatcmpl-1","model":"gpt-4o-mini-2024-07-18",'
    b'"choices":[{"message":{"role":"assistant","content":"Fine."}}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}'
)
JSON = ((b"Content-Type", b"application/json"),)
EVENTS = ((b"Content-Type", b"text/event-stream"),)
LEFT = Ending(ended_by="client", phase="body", code="client_left", error="the client left")
CUT = Ending(ended_by="upstream", phase="body", code="upstream_closed", error="it closed")
STOPPED = Ending(ended_by="proxy", phase="body", code="server_stopped", error="stopped")


def delta(text: str) -> bytes:
    """Give one event of a chat stream."""
    return b"data: %b\n\n" % orjson.dumps(
        {"model": "gpt-4o-mini", "choices": [{"delta": {"content": text}}]}
    )


DONE = b"data: [DONE]\n\n"
USAGE = (
    b'data: {"model":"gpt-4o-mini","choices":[],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}\n\n'
)


def a_call(
    budget: Budget | None = None,
    *,
    project_id: int = DEFAULT_PROJECT,
    target: bytes = CHAT,
    method: str = "POST",
    request: bytes = QUESTION,
    headers: tuple[tuple[bytes, bytes], ...] = JSON,
    capture: str = "full",
    body_bytes: int = 8 << 20,
    session: str | None = None,
    source: str = "header",
    joining: Joining = NOWHERE,
    provider_key: bytes | None = None,
) -> Call:
    """Begin a call and send its request."""
    call = Call(
        project_id=project_id,
        owner=b"our boot",
        method=method,
        target=proxied(target),
        provider="openai",
        request_headers=headers,
        request_index=index(headers),
        session_ref=SessionRef(session, source) if session else None,
        capture=parse_capture(capture) or CapturePolicy(),
        body_bytes=body_bytes,
        budget=budget or Budget(64 << 20),
        joining=joining,
        provider_key=provider_key,
    )
    if request:
        call.request.add(request)
    return call


def answered(
    call: Call,
    *pieces: bytes,
    status: int = 200,
    headers: tuple[tuple[bytes, bytes], ...] = JSON,
    ending: Ending = COMPLETE,
) -> CallEnd:
    """Answer a call with these pieces, and end it."""
    call.answered(status, headers, edited=False)
    for piece in pieces:
        call.relayed(piece, piece)
    return call.finish(ending)


def ended(budget: Budget | None = None, answer: bytes = ANSWER, **how: Any) -> CallEnd:
    """Give the record of a chat call that went well."""
    return answered(a_call(budget, **how), answer)


class Gate:
    """Stands before a database: shut, its transactions wait; `failures` are raised first.

    `refuses` says of which row, by its session id, no statement is taken. The writer's operations
    (BEGIN, each statement, COMMIT) are counted: the one of the number `fails_at` raises `fault`.
    """

    def __init__(self, database: Database) -> None:
        self.waiting = asyncio.Event()  # a transaction stands before the gate
        self.failed = asyncio.Event()  # a failure was raised
        self.failures: deque[Exception] = deque()
        self.fails_forever: Exception | None = None
        self.commits = 0
        self.refuses: str | None = None
        self.refusal: Exception = RuntimeError("poison")
        self.operations = 0
        self.fails_at: int | None = None
        self.fault: Exception = RuntimeError("fault")
        self._transaction = database.transaction
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()
        self._open.set()

    def shut(self) -> None:
        self.waiting.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    @contextmanager
    def transaction(self, projects: Collection[int] | None = None) -> Iterator[Transaction]:
        if not self._open.is_set():
            self._loop.call_soon_threadsafe(self.waiting.set)
            self._open.wait()
        failure = self.failures.popleft() if self.failures else self.fails_forever
        if failure is not None:
            self._loop.call_soon_threadsafe(self.failed.set)
            raise failure
        self.step()
        with self._transaction(projects) as transaction:
            yield _Watched(transaction, self)
            self.step()  # in place of COMMIT: what raises here is undone
        self.commits += 1

    def step(self) -> None:
        """Count an operation, and fail where it is the one that is to fail."""
        self.operations += 1
        if self.operations == self.fails_at:
            raise self.fault


class _Watched:
    def __init__(self, transaction: Transaction, gate: Gate) -> None:
        self._transaction = transaction
        self._gate = gate
        self.full_text = transaction.full_text

    def execute(self, sql: str, params: Any) -> Any:
        if self._gate.refuses is not None and params.get("session_id") == self._gate.refuses:
            raise self._gate.refusal
        self._gate.step()
        return self._transaction.execute(sql, params)

    def execute_many(self, sql: str, rows: Any) -> Any:
        self._gate.step()
        return self._transaction.execute_many(sql, rows)

    def insert_rows(self, sql: str, rows: Any) -> Any:
        refuses = self._gate.refuses
        if refuses is not None and any(row.get("session_id") == refuses for row in rows):
            raise self._gate.refusal
        self._gate.step()
        return self._transaction.insert_rows(sql, rows)

    def look_up(self, sql: str, params: Any, keys: Any) -> Any:
        self._gate.step()
        return self._transaction.look_up(sql, params, keys)

    def take_numbers(self, of: Any, n: int) -> Any:
        self._gate.step()
        return self._transaction.take_numbers(of, n)
