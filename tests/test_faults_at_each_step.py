"""One streamed call while the writer's n-th database operation fails, for every n.

Each time the client has the right bytes, the record is right or counted as lost, and the calls that
follow are recorded. `safe` never fails a call; `strict` may refuse it, or cut it visibly.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict

import orjson
import pytest

from proxy import commits
from proxy.providers.messages import text_of
from storage import doctor
from storage.database import (
    DatabaseCorrupt,
    DatabaseLocked,
    DatabaseUnwritable,
    StatementRefused,
)
from tests.calling import DONE, USAGE, Gate, delta
from tests.conftest import Serve
from tests.running import CHAT, Running
from tests.wire import Peer, ScriptedUpstream, connect

FAULTS: dict[str, Callable[[], Exception]] = {
    "locked": lambda: DatabaseLocked("traceway.db", None),
    "full": lambda: DatabaseUnwritable("traceway.db", "database or disk is full"),
    "damaged": lambda: DatabaseCorrupt("traceway.db", "database disk image is malformed"),
    "refused": lambda: StatementRefused("traceway.db", "no such column"),
    "a bug": lambda: RuntimeError("a bug of ours"),
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [delta("Hello "), delta("there."), USAGE, DONE]
STREAM = b"".join(EVENTS)
QUESTION = {"model": "gpt-4o-mini", "stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RETRY_S", 0.001)
    monkeypatch.setattr(commits, "RETRY_MAX_S", 0.001)


class Stage:
    """A server, the gate before its database, and an upstream that streams with a checkpoint."""

    def __init__(self, tw: Running, gate: Gate, upstream: ScriptedUpstream) -> None:
        self.tw, self.gate = tw, gate
        upstream.script = self._stream

    async def _stream(self, peer: Peer) -> None:
        while True:
            await peer.request()
            first, *others = (b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS)
            await peer.send(HEAD + first)
            (call,) = self.tw.server._forwarder.in_flight  # type: ignore[union-attr]
            async with asyncio.timeout(10):
                while call.checkpoint is None or not call.checkpoint.done():
                    await asyncio.to_thread(lambda: None)
            await peer.send(b"".join(others) + b"0\r\n\r\n")

    async def call(self, session: str) -> bytes | None:
        """Make the call; give the bytes of the answer, None where it was refused or cut."""
        body = orjson.dumps({**QUESTION, "messages": [{"role": "user", "content": session}]})
        async with connect(self.tw.port) as client:
            await client.send(
                b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"X-Traceway-Session-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (CHAT.encode(), session.encode(), len(body), body)
            )
            try:
                answer = await client.response()
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        return answer.body if answer.status == 200 else None

    def lost(self) -> int:
        counters = self.tw.server.recorder.losses.counters
        return counters.dropped_records + counters.unreadable_records

    async def is_right(self, session: str) -> bool:
        """Tell whether the record of a call is what it should be."""
        await self.tw.saved()
        found = await self.tw.database.read(
            "SELECT s.state, s.input_tokens, s.output_tokens, s.usage_source, s.output_preview"
            " FROM spans s JOIN traces t ON t.trace_id = s.trace_id WHERE t.session_id = :s",
            {"s": session},
        )
        return found == [("completed", 9, 2, "provider", "Hello there.")]


@pytest.fixture
def staged(
    serve: Serve, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Awaitable[Stage]]:
    async def start(durability: str) -> Stage:
        tw = await serve({"recording.durability": durability, "recording.checkpoint_s": "0.1"})
        gate = Gate(tw.database)
        monkeypatch.setattr(tw.database, "transaction", gate.transaction)
        return Stage(tw, gate, upstream)

    return start


# All of it takes a minute; a fault that passes and one that does not are tried in every run.
@pytest.mark.parametrize(
    ("kind", "durability"),
    [
        pytest.param(kind, durability, marks=() if at_once else pytest.mark.torture)
        for kind in FAULTS
        for durability in ("safe", "strict")
        for at_once in [(kind, durability) in (("full", "safe"), ("refused", "strict"))]
    ],
)
async def test_a_call_is_right_whichever_operation_of_the_writer_fails(
    staged: Callable[[str], Awaitable[Stage]], kind: str, durability: str
) -> None:
    stage = await staged(durability)
    gate = stage.gate
    passes = kind in ("locked", "full", "damaged")
    for n in range(1, 1_000):
        lost = stage.lost()
        gate.operations, gate.fails_at, gate.fault = 0, n, FAULTS[kind]()
        answer = await stage.call(f"faulty-{n}")
        # It may be this that fails.
        with contextlib.suppress(DatabaseCorrupt, StatementRefused, RuntimeError):
            await stage.tw.saved()
        reached, gate.fails_at = gate.operations >= n, None
        if passes or durability == "safe":
            assert answer == STREAM, n
        else:
            assert answer in (STREAM, None), n
        is_right = await stage.is_right(f"faulty-{n}")
        assert is_right or (not passes and stage.lost() > lost), n
        # And the next call is as if nothing had been.
        lost = stage.lost()
        assert await stage.call(f"after-{n}") == STREAM
        assert await stage.is_right(f"after-{n}"), n
        assert stage.lost() == lost
        if not reached:
            break
    assert n > 20  # or nothing was tried
    found = await doctor.check(stage.tw.database, text_of)
    assert found == [], [asdict(one) for one in found]
    assert stage.tw.server.recorder.queued_bytes == 0
