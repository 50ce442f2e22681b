"""`kill -9` under load: what a client saw complete is there, and the database is whole.

Each round starts a real server on the database that the round before left, loads it from many
clients and kills it while calls are in flight. `make torture` plays many rounds; a few are played
with every run of the tests.
"""

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.calling import ANSWER, DONE, delta
from tests.running import CHAT
from tests.served import Served, served
from tests.wire import Peer, ScriptedUpstream, connect

CLIENTS = 16
# With `safe`, the end of a call is saved this soon after its client saw it (with `strict`, before);
# in the ordinary run, where other programs may take the processor for a while, within this.
GRACE_S = 0.050
RELAXED_S = 0.250
BOOT_S = 2.0
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORDS = [delta(f"word {n} ") for n in range(5)]
STREAM = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in (*WORDS, DONE))


@dataclass
class Load:
    """Clients that call for as long as they are answered; `seen` is when each call was complete."""

    durability: str
    number: int
    grace_s: float
    seen: dict[str, float] = field(default_factory=dict)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: int = 0

    async def client(self, port: int, name: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            async with connect(port) as peer:
                for call in range(1_000_000):
                    await self._call(peer, f"{self.number}-{name}-{call}", streamed=call % 2 == 1)

    async def _call(self, peer: Peer, session: str, *, streamed: bool) -> None:
        body = b'{"model":"gpt-4o-mini","stream":%b,"messages":[{"role":"user","content":"%b"}]}'
        body %= (b"true" if streamed else b"false", session.encode())
        await peer.send(
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"X-Traceway-Session-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), session.encode(), len(body), body)
        )
        assert (await peer.response()).status == 200
        self.seen[session] = time.monotonic()
        if len(self.seen) >= self.wanted:
            self.enough.set()

    def surely_saved(self, killed_at: float) -> set[str]:
        limit = killed_at - (self.grace_s if self.durability == "safe" else 0.0)
        return {session for session, at in self.seen.items() if at < limit}


async def answer(peer: Peer) -> None:
    while True:
        request = await peer.request()
        if b'"stream":true' in request.body:
            await peer.send(SSE)
            for event in (*WORDS, DONE):
                await peer.send(b"%x\r\n%b\r\n" % (len(event), event))
            await peer.send(b"0\r\n\r\n")
        else:
            await peer.respond(ANSWER)


@asynccontextmanager
async def started(
    folder: Path, upstream: ScriptedUpstream, durability: str
) -> AsyncIterator[Served]:
    environ = {
        "TRACEWAY_RECORDING_DURABILITY": durability,
        "TRACEWAY_UPSTREAMS_OPENAI_INJECT_USAGE": "never",
    }
    async with served(folder, "--upstream", f"openai={upstream.url}", environ=environ) as server:
        yield server


async def loaded(server: Served, load: Load) -> float:
    """Load a server until `wanted` calls are complete and kill it; give the moment of its death."""
    async with asyncio.TaskGroup() as clients:
        for name in range(CLIENTS):
            clients.create_task(load.client(server.port, name))
        async with asyncio.timeout(30):
            await load.enough.wait()
        killed_at = time.monotonic()
        server.process.kill()
    await server.ended()
    return killed_at


def states(folder: Path) -> dict[str, str]:
    """Check the database, and give the state of each session's call."""
    path = folder / "traceway.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        rows = database.execute(
            "SELECT t.session_id, s.state FROM spans s JOIN traces t ON t.trace_id = s.trace_id"
        ).fetchall()
    found = dict(rows)
    assert len(found) == len(rows)  # each call has one row
    return found


async def torture(
    folder: Path, upstream: ScriptedUpstream, durabilities: list[str], seed: int, grace_s: float
) -> list[float]:
    """Play a round for each durability, check after each, and give how long each boot took."""
    upstream.script = answer
    source = random.Random(seed)  # noqa: S311 (data, not secrets)
    boots: list[float] = []
    saved: set[str] = set()
    for number, durability in enumerate([*durabilities, durabilities[0]]):
        began = time.monotonic()
        async with started(folder, upstream, durability) as server:
            boots.append(time.monotonic() - began)
            found = states(folder)
            missing = {session for session in saved if found.get(session) != "completed"}
            assert missing == set(), f"after round {number} of {len(saved)} calls"
            assert "running" not in found.values()
            if number == len(durabilities):
                return boots
            load = Load(durability, number, grace_s, wanted=source.randrange(20, 400))
            killed_at = await loaded(server, load)
            saved |= load.surely_saved(killed_at)
    raise AssertionError("the last round only checks")


async def test_what_a_client_saw_complete_survives_a_kill(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    await torture(tmp_path, upstream, ["safe", "strict", "safe"], 0, RELAXED_S)


@pytest.mark.kill
@pytest.mark.parametrize("seed", range(3))
async def test_what_a_client_saw_complete_survives_many_kills(
    tmp_path: Path, upstream: ScriptedUpstream, seed: int
) -> None:
    boots = await torture(tmp_path, upstream, ["safe", "strict"] * 5, seed, GRACE_S)
    assert max(boots) < BOOT_S, boots
