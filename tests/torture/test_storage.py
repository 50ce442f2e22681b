"""A disk that is full, and a database that another program locks for 12 s, under calls that go on.

With `safe` no call fails, and none takes more than 50 ms longer than in the same run before; what
the bound of memory allows is there afterwards, and the rest is counted.
"""

import asyncio
import contextlib
import math
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.calling import ANSWER, DONE, USAGE, delta
from tests.running import CHAT
from tests.served import Served, served
from tests.wire import Peer, ScriptedUpstream, connect

CLIENTS = 8
# Between two calls of a client: 40 calls a second in all, which leaves a machine with two cores
# time for other things, or it would be they that are measured.
PAUSE_S = 0.2
CALM_S = 6.0
LOCK_S = 12.0
FULL_S = 8.0
SLOWER_MS = 50.0
TMPFS_BYTES = 48 << 20
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = (delta("Hello "), delta("there."), USAGE, DONE)

pytestmark = pytest.mark.torture


@dataclass
class Calls:
    """Clients that call all the time; `took_ms` has each phase's calls, `done` is their number."""

    port: int
    phase: str = "calm"
    took_ms: dict[str, list[float]] = field(default_factory=dict)
    done: int = 0
    stopping: bool = False

    async def client(self, name: int) -> None:
        filler = os.urandom(4_000).hex().encode()
        async with connect(self.port) as peer:
            while not self.stopping:
                streamed = self.done % 2 == 0
                await self._call(peer, b"%d %b" % (self.done, filler), name, streamed=streamed)
                await asyncio.sleep(PAUSE_S)

    async def _call(self, peer: Peer, text: bytes, name: int, *, streamed: bool) -> None:
        body = b'{"model":"gpt-4o-mini","stream":%b,"stream_options":{"include_usage":true},'
        body += b'"messages":[{"role":"user","content":"%b"}]}'
        body %= (b"true" if streamed else b"false", text)
        phase, began = self.phase, time.monotonic()
        await peer.send(
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"X-Traceway-Session-Id: %d\r\nContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), name, len(body), body)
        )
        answer = await peer.response()
        took_ms = (time.monotonic() - began) * 1000
        assert (answer.status, answer.body) == (200, b"".join(EVENTS) if streamed else ANSWER)
        self.took_ms.setdefault(phase, []).append(took_ms)
        self.done += 1

    def at(self, phase: str, part: float) -> float:
        """Give the time that a part of a phase's calls took at most."""
        ordered = sorted(self.took_ms[phase])
        return ordered[math.ceil(part * len(ordered)) - 1]

    def say(self, title: str) -> None:
        for phase in self.took_ms:
            figures = ", ".join(f"{p:.0%} {self.at(phase, p):.1f}" for p in (0.5, 0.99, 1.0))
            print(f"{title}, {phase}: {len(self.took_ms[phase])} calls; ms: {figures}")


async def answer(peer: Peer) -> None:
    while True:
        try:
            request = await peer.request()
        except TimeoutError:  # a connection that nobody needs any more
            return
        if b'"stream":true' in request.body:
            chunks = (b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS)
            await peer.send(SSE + b"".join(chunks) + b"0\r\n\r\n")
        else:
            await peer.respond(ANSWER)


@asynccontextmanager
async def serving(
    folder: Path, upstream: ScriptedUpstream, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    upstream.script = answer
    options = ("--upstream", f"openai={upstream.url}")
    nowhere = asyncio.subprocess.DEVNULL
    async with served(folder, *options, environ=environ, stderr=nowhere) as server:
        yield server


@asynccontextmanager
async def calling(server: Served) -> AsyncIterator[Calls]:
    calls = Calls(server.port)
    async with asyncio.TaskGroup() as clients:
        for name in range(CLIENTS):
            clients.create_task(calls.client(name))
        await asyncio.sleep(1)  # connections, and what is made on first use
        calls.took_ms.clear()
        await asyncio.sleep(CALM_S)
        try:
            yield calls
        finally:
            calls.stopping = True


async def health(server: Served) -> Any:
    url = f"http://127.0.0.1:{server.port}/api/health"
    async with aiohttp.ClientSession() as client, client.get(url) as got:
        return await got.json()


async def recovered(server: Served) -> Any:
    """Wait until everything that waits is saved or lost; give the counters."""
    async with asyncio.timeout(30):
        while True:
            view = await health(server)
            if view["queued_bytes"] == 0 and not any("commit failed" in r for r in view["reasons"]):
                return view["counters"]
            await asyncio.sleep(0.05)


def rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((count,),) = database.execute("SELECT COUNT(*) FROM spans WHERE state = 'completed'")
    return int(count)


def are_not_slower(calls: Calls, title: str) -> None:
    """Compare with the same run before, leaving out what one call in a hundred has of others."""
    calls.say(title)
    assert calls.at("fault", 0.99) <= calls.at("calm", 0.99) + SLOWER_MS


async def test_a_lock_of_another_program_for_12_s_fails_and_slows_no_call(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with serving(tmp_path, upstream) as server:
        async with calling(server) as calls:
            other = sqlite3.connect(tmp_path / "traceway.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            calls.phase = "fault"
            await asyncio.sleep(LOCK_S)
            assert "locked" in str((await health(server))["reasons"])
            other.execute("ROLLBACK")
            other.close()
            calls.phase, began = "after", time.monotonic()
            await asyncio.sleep(1)
        counters = await recovered(server)
        print(f"rows there {time.monotonic() - began:.1f} s after the lock")
    are_not_slower(calls, "locked for 12 s")
    assert (counters["dropped_records"], counters["dropped_bodies"]) == (0, 0)
    assert rows(tmp_path / "traceway.db") == calls.done


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of its own, with room for a WAL and what it holds."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def is_full(
    folder: Path, upstream: ScriptedUpstream, fill: Callable[[Served], Callable[[], None]]
) -> None:
    """Call while there is no space, and afterwards; what `fill` returns gives it back."""
    environ = {
        "TRACEWAY_RECORDING_MEMORY_BYTES": str(1 << 20),
        "TRACEWAY_RECORDING_BODY_BYTES": str(1 << 20),
    }
    async with serving(folder, upstream, environ) as server:
        async with calling(server) as calls:
            give_back = fill(server)
            calls.phase = "fault"
            await asyncio.sleep(FULL_S)
            view = await health(server)
            assert "commit failed" in str(view["reasons"])
            assert view["queued_bytes"] <= 1 << 20
            give_back()
            calls.phase, began = "after", time.monotonic()
            await asyncio.sleep(1)
        counters = await recovered(server)
        print(f"rows there {time.monotonic() - began:.1f} s after there was space; {counters}")
        are_not_slower(calls, "disk full")
        assert rows(folder / "traceway.db") == calls.done - counters["dropped_records"]
        assert counters["dropped_bodies"] > 0
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0


async def test_a_file_that_may_not_grow_fails_and_slows_no_call(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    def fill(server: Served) -> Callable[[], None]:
        pid = server.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
        return lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard)) and None

    await is_full(tmp_path, upstream, fill)


async def test_a_disk_that_is_full_fails_and_slows_no_call(
    tmpfs: Path, upstream: ScriptedUpstream
) -> None:
    filler = tmpfs / "filler"

    def fill(_: Served) -> Callable[[], None]:
        with contextlib.suppress(OSError), filler.open("wb") as file:
            file.write(b"x" * shutil.disk_usage(tmpfs).free)
            file.flush()
        return filler.unlink

    await is_full(tmpfs, upstream, fill)
