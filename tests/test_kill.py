"""`kill -9` and SIGTERM under load: what a client saw complete is there, and the database is whole.

Each round starts a real server on the database that the round before left, loads it from many
clients with streams, injected streams, bodies of 2 MB and clients that leave, and ends it while
calls are in flight. `make torture` plays 100 rounds of the one and 20 of the other, with
`TORTURE=quick` a fifth of them; a few are played with every run of the tests.

The upstream takes as long to answer as the fastest models do, so that a server has time for what it
is given, or it takes none: then the clients have the processor for themselves as soon as the server
waits, and the writer is behind all the time. How far depends on the machine and on what else runs;
a kill then costs no more than the start of the same server took.
"""

import asyncio
import contextlib
import functools
import os
import random
import signal
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tests.calling import ANSWER, DONE, USAGE, delta
from tests.running import CHAT
from tests.served import Served, served
from tests.wire import Peer, ScriptedUpstream, connect

CLIENTS = 16
# With `safe`, the end of a call is saved this soon after its client saw it (with `strict`, before).
GRACE_S = 0.050
# The time to first token of a fast model.
THINK_S = 0.100
BOOT_S = 2.0
DRAIN_S = 1.0
BIG_BYTES = 2_000_000
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORDS = [delta(f"word {n} ") for n in range(5)]
STREAM = b"".join((*WORDS, DONE))
STREAM_WITH_USAGE = b"".join((*WORDS, USAGE, DONE))
QUICK = os.environ.get("TORTURE") == "quick"
# What calls are made of, by weight.
KINDS = {"plain": 6, "stream": 5, "injected": 5, "left": 3, "big": 1}
Kind = Literal["plain", "stream", "injected", "left", "big"]


@dataclass
class Load:
    """Clients that call for as long as they are answered; `seen` is when each call was complete."""

    durability: str
    number: int
    grace_s: float
    source: random.Random
    seen: dict[str, float] = field(default_factory=dict)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: int = 0

    async def client(self, port: int, name: int) -> None:
        call = 0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:  # a client that left comes back
                async with connect(port) as peer:
                    stays = True
                    while stays:
                        (kind,) = self.source.choices([*KINDS], [*KINDS.values()])
                        call += 1
                        session = f"{self.number}-{name}-{call}-{kind}"
                        stays = await self._call(peer, session, kind)

    async def _call(self, peer: Peer, session: str, kind: str) -> bool:
        """Make a call; False where the server refused it, or the client left."""
        text = session.encode()
        if kind == "big":
            text += b" " + self.source.randbytes(BIG_BYTES // 2).hex().encode()
        how = {
            "stream": b'"stream":true,"stream_options":{"include_usage":true}',
            "injected": b'"stream":true',
            "left": b'"stream":true',
        }.get(kind, b'"stream":false')
        body = b'{"model":"gpt-4o-mini",%b,"messages":[{"role":"user","content":"%b"}]}'
        body %= (how, text)
        await peer.send(
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"X-Traceway-Session-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), session.encode(), len(body), body)
        )
        answer = await peer.head()
        if kind == "left":
            if answer.status == 200:
                await peer.reader.read(1)
            return False
        if answer.status != 200:
            answer.body = await peer.body(answer)
            assert answer.get(b"X-Traceway-Error") == b"stopping", answer
            raise ConnectionError
        wanted = {"stream": STREAM_WITH_USAGE, "injected": STREAM}.get(kind, ANSWER)
        if wanted is ANSWER:
            answer.body = await peer.body(answer)
            self._saw(session)
        else:
            async for piece in peer.chunks():
                answer.body += piece
                if piece.endswith(DONE):  # for which clients take it, whatever follows
                    self._saw(session)
        assert answer.body == wanted, kind
        return True

    def _saw(self, session: str) -> None:
        self.seen[session] = time.monotonic()
        if len(self.seen) >= self.wanted:
            self.enough.set()

    def surely_saved(self, killed_at: float) -> dict[str, float]:
        """Give the calls that must be there, each with how long before the end it was complete."""
        limit = killed_at - (self.grace_s if self.durability == "safe" else 0.0)
        return {session: killed_at - at for session, at in self.seen.items() if at < limit}


async def answer(peer: Peer, think_s: float = 0.0) -> None:
    while True:
        try:
            request = await peer.request()
        except TimeoutError:  # a connection that nobody needs any more
            return
        if think_s:
            await asyncio.sleep(think_s)
        if b'"stream":true' in request.body:
            await peer.send(SSE)
            usage = (USAGE,) if b"include_usage" in request.body else ()
            for event in (*WORDS, *usage, DONE):
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
        "TRACEWAY_SERVER_DRAIN_S": str(DRAIN_S),
    }
    options = ("--upstream", f"openai={upstream.url}")
    # The end of a process whose errors nobody reads is not told before they are read.
    nowhere = asyncio.subprocess.DEVNULL
    async with served(folder, *options, environ=environ, stderr=nowhere) as server:
        yield server


async def loaded(server: Served, load: Load, end: signal.Signals) -> float:
    """Load a server until `wanted` calls are complete and end it; give the moment when."""
    async with asyncio.TaskGroup() as clients:
        for name in range(CLIENTS):
            clients.create_task(load.client(server.port, name))
        async with asyncio.timeout(60):
            await load.enough.wait()
        ended_at = time.monotonic()
        server.process.send_signal(end)
    code = await server.ended()
    assert code == (0 if end is signal.SIGTERM else -signal.SIGKILL)
    return ended_at


def states(folder: Path) -> dict[str, str]:
    """Check the database, and give the state of each session's call."""
    path = folder / "traceway.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        rows = database.execute(
            "SELECT t.session_id, s.state, s.input_tokens, s.usage_source, s.request_size"
            " FROM spans s JOIN traces t ON t.trace_id = s.trace_id"
        ).fetchall()
    for session, state, tokens, source, size in rows:
        if state == "completed":
            kind = session.rpartition("-")[2]
            assert tokens == 9, session
            assert (source == "injected") == (kind in ("injected", "left")), session
            assert (size > BIG_BYTES) == (kind == "big"), session
    found = {row[0]: row[1] for row in rows}
    assert len(found) == len(rows)  # each call has one row
    return found


async def torture(
    folder: Path,
    upstream: ScriptedUpstream,
    durabilities: list[str],
    seed: int,
    grace_s: float | None,
    end: signal.Signals = signal.SIGKILL,
    think_s: float = 0.0,
) -> tuple[list[float], list[float]]:
    """Play a round for each durability, check after each. `grace_s` None: as long as a start takes.

    Give how long each boot took, and for how long before each kill with `safe` calls are lost.
    """
    upstream.script = functools.partial(answer, think_s=think_s)
    source = random.Random(seed)  # noqa: S311 (data, not secrets)
    boots: list[float] = []
    saved: dict[str, float] = {}
    windows: list[float] = []
    load: Load | None = None
    ended_at = 0.0
    for number, durability in enumerate([*durabilities, durabilities[0]]):
        began = time.monotonic()
        async with started(folder, upstream, durability) as server:
            boots.append(time.monotonic() - began)
            found = states(folder)
            missing = [
                f"{session}: {found.get(session)}, seen {age_s * 1000:.0f} ms before the end"
                for session, age_s in saved.items()
                if found.get(session) != "completed"
            ]
            assert missing == [], f"after round {number} of {len(saved)} calls"
            assert "running" not in found.values()
            if load is not None:
                lost = [at for name, at in load.seen.items() if found.get(name) != "completed"]
                if load.durability == "safe":
                    windows.append(ended_at - min(lost, default=ended_at))
            if number == len(durabilities):
                print(f"{end.name}, seed {seed}: {len(found)} calls, {len(saved)} had to be there")
                lost_ms = [round(window * 1000) for window in windows]
                print(f"boots {max(boots):.1f} s at most; lost with `safe`, in ms: {lost_ms}")
                return boots, windows
            load = Load(durability, number, boots[-1] if grace_s is None else grace_s, source)
            load.wanted = source.randrange(20, 400)
            ended_at = await loaded(server, load, end)
        if end is signal.SIGTERM:
            # All that anybody saw is there, and nothing waits for the next start.
            ended_at = time.monotonic()
            load.grace_s = 0.0
            assert "running" not in states(folder).values()
        saved |= load.surely_saved(ended_at)
    raise AssertionError("the last round only checks")


async def test_what_a_client_saw_complete_survives_a_kill(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    await torture(tmp_path, upstream, ["safe", "strict", "safe"], 0, None)


@pytest.mark.kill
@pytest.mark.parametrize("seed", range(2 if QUICK else 10))
async def test_what_a_client_saw_complete_survives_many_kills(
    tmp_path: Path, upstream: ScriptedUpstream, seed: int
) -> None:
    rounds = ["safe", "strict"] * 5
    boots, windows = await torture(tmp_path, upstream, rounds, seed, GRACE_S, think_s=THINK_S)
    assert max(boots) < BOOT_S, boots
    assert max(windows) <= GRACE_S, windows


@pytest.mark.kill
async def test_a_kill_costs_no_more_than_a_start_where_the_writer_is_behind(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    lost: list[float] = []
    for seed in range(2 if QUICK else 10):
        (folder := tmp_path / str(seed)).mkdir()
        boots, windows = await torture(folder, upstream, ["safe", "strict"] * 5, seed, None)
        assert max(boots) < BOOT_S, boots
        lost += windows
    if not QUICK:  # which runs where other programs take the processor
        assert statistics.median(lost) <= GRACE_S, lost


@pytest.mark.kill
@pytest.mark.parametrize("seed", range(1 if QUICK else 4))
async def test_a_server_that_is_told_to_stop_saves_all_that_anybody_saw(
    tmp_path: Path, upstream: ScriptedUpstream, seed: int
) -> None:
    rounds = ["safe", "strict", "safe", "strict", "fast"]
    await torture(tmp_path, upstream, rounds, seed, 0.0, signal.SIGTERM)
