"""Three servers on one PostgreSQL behind nginx, under a mixed load: one record of each call.

Clients of all three write to the same sessions. What is compared at the end is what the clients
saw, what the rows say, and what a recompute says (the doctor).
"""

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.balancer import balanced
from tests.calling import ANSWER, DONE, USAGE, delta
from tests.postgres import CAREFUL, Server, execute
from tests.running import CHAT
from tests.served import ROOT, Served, served
from tests.wire import Peer, ScriptedUpstream, connect

CLIENTS = 12
SESSIONS = 20
# The time to first token of a fast model, so that the machine has time for three servers.
THINK_S = 0.1
LOAD_S = 8.0
OUTAGE_S = 20.0
# `safe`: what a client saw complete for so long survives the end of its server.
GRACE_S = 0.050
SEEN_WITHIN_S = 1.0
# A server that was not heard of for 30 s is dead, which another looks after now and then.
JUDGED_WITHIN_S = 90.0
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORDS = [delta(f"word {n} ") for n in range(5)]
STREAM = b"".join((*WORDS, USAGE, DONE))
KINDS = {"plain": 6, "stream": 6, "left": 1, "nameless": 2}

pytestmark = pytest.mark.torture


@dataclass
class Load:
    """Clients that call by way of nginx; `seen` is when each call's answer was complete, by trace.

    `failed` are answers that were not 200, or none at all.
    """

    port: int
    seen: dict[str, float] = field(default_factory=dict)
    left: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    stopping: bool = False

    async def client(self, name: int) -> None:
        source = random.Random(name)  # noqa: S311 (data, not secrets)
        call = 0
        while not self.stopping:
            try:
                async with connect(self.port) as peer:
                    stays = True
                    while stays and not self.stopping:
                        (kind,) = source.choices([*KINDS], [*KINDS.values()])
                        call += 1
                        session = f"shared-{source.randrange(SESSIONS)}"
                        stays = await self._call(peer, session, kind, f"{name}-{call}")
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                self.failed[type(error).__name__] += 1

    async def _call(self, peer: Peer, session: str, kind: str, text: str) -> bool:
        """Make a call; False where the client left."""
        streams = kind in ("stream", "left")
        how = b'"stream":true,"stream_options":{"include_usage":true}' if streams else b'"n":1'
        body = b'{"model":"gpt-4o-mini",%b,"messages":[{"role":"system","content":"Be brief."},'
        body += b'{"role":"user","content":"%b"}]}'
        body %= (how, text.encode())
        named = b"" if kind == "nameless" else b"X-Traceway-Session-Id: %b\r\n" % session.encode()
        await peer.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"%bContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), named, len(body), body)
        )
        if kind == "left":
            head = await peer.head()
            self.left += head.status == 200
            return False
        answer = await peer.response()
        if answer.status != 200:
            self.failed[str(answer.status)] += 1
            return True
        assert answer.body == (STREAM if streams else ANSWER), kind
        self.seen[(answer.get(b"X-Traceway-Trace-Id") or b"").decode()] = time.monotonic()
        return True


async def answer(peer: Peer) -> None:
    while True:
        try:
            request = await peer.request()
        except TimeoutError:  # a connection that nobody needs any more
            return
        await asyncio.sleep(THINK_S)
        if b'"stream":true' in request.body:
            await peer.send(SSE)
            for event in (*WORDS, USAGE, DONE):
                await peer.send(b"%x\r\n%b\r\n" % (len(event), event))
            await peer.send(b"0\r\n\r\n")
        else:
            await peer.respond(ANSWER)


@dataclass
class Watcher:
    """Who watches one server; `told` is when an event of each kind came for each trace or span."""

    told: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def knows(self, what: set[tuple[str, str]]) -> None:
        """Wait until all of these events have come."""
        while not what <= self.told.keys():
            self.news.clear()
            await self.news.wait()

    async def watch(self, port: int) -> None:
        async with (
            aiohttp.ClientSession(read_bufsize=1 << 20) as client,
            client.get(f"http://127.0.0.1:{port}/api/events", timeout=None) as answer,
        ):
            number: int | None = None
            async for line in answer.content:
                if line.startswith(b"id:"):
                    number = int(line[3:])
                elif line.startswith(b"data:"):
                    self._take(orjson.loads(line[5:]), number)
                elif not line.strip():
                    number = None

    def _take(self, event: dict[str, Any], number: int | None) -> None:
        if number is not None:
            self.numbers.append(number)
        kind = event["type"]
        if kind in ("trace_created", "span_completed"):
            trace = event.get("trace_id") or event["trace"]["id"]
            self.told.setdefault((kind, trace), []).append(time.monotonic())
            self.news.set()


@dataclass
class Replicas:
    """Servers on one database, and nginx before them."""

    database: Server
    servers: list[Served]
    port: int

    async def rows(self, sql: str) -> list[Any]:
        return await execute(self.database.url(), sql)

    async def states(self) -> dict[str, str]:
        rows = await self.rows("SELECT encode(trace_id, 'hex'), state FROM spans")
        found = dict(rows)
        assert len(found) == len(rows), "a call was recorded twice"
        return found

    async def settled(self, within_s: float) -> dict[str, str]:
        """Wait until no call runs; give the state of each."""
        end_s = time.monotonic() + within_s
        while "running" in (found := await self.states()).values():
            assert time.monotonic() < end_s, Counter(found.values())
            await asyncio.sleep(0.2)
        return found

    async def counters(self) -> Counter[str]:
        """Add up what all servers that live counted as lost."""
        total: Counter[str] = Counter()
        async with aiohttp.ClientSession() as client:
            for server in self.servers:
                if server.process.returncode is None:
                    url = f"http://127.0.0.1:{server.port}/api/health"
                    async with client.get(url) as answer:
                        total.update((await answer.json())["counters"])
        return total

    async def examine(self) -> None:
        """Have the doctor compare every sum with a recompute."""
        process = await asyncio.create_subprocess_exec(
            *(ROOT / ".venv/bin/python", "-m", "proxy", "doctor", "--db", self.database.url()),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert b"no findings" in said, said.decode()


@asynccontextmanager
async def replicas(
    folder: Path, upstream: ScriptedUpstream, count: int = 3
) -> AsyncIterator[Replicas]:
    upstream.script = answer
    async with AsyncExitStack() as stack:
        database = Server(CAREFUL)
        stack.callback(database.end)
        options = ("--db", database.url(), "--upstream", f"openai={upstream.url}")
        nowhere = asyncio.subprocess.DEVNULL
        servers = [
            await stack.enter_async_context(served(folder, *options, stderr=nowhere))
            for _ in range(count)
        ]
        ports = [server.port for server in servers]
        port = await stack.enter_async_context(balanced(folder, ports))
        yield Replicas(database, servers, port)


@asynccontextmanager
async def calling(load: Load) -> AsyncIterator[Load]:
    """Have all clients call until the block ends."""
    async with asyncio.TaskGroup() as clients:
        for name in range(CLIENTS):
            clients.create_task(load.client(name))
        try:
            yield load
        finally:
            load.stopping = True


async def test_calls_of_three_replicas_are_one_record_and_one_log(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    watcher = Watcher()
    async with replicas(tmp_path, upstream) as tw:
        watching = asyncio.ensure_future(watcher.watch(tw.servers[0].port))
        async with calling(Load(tw.port)) as load:
            await asyncio.sleep(LOAD_S)
        states = await tw.settled(10)
        assert load.failed == {}
        # Who left before there was an answer may have been there, or not.
        assert len(load.seen) <= len(states) <= len(load.seen) + load.left + CLIENTS
        assert {states.get(trace) for trace in load.seen} == {"completed"}
        owners = await tw.rows("SELECT owner, COUNT(*) FROM spans GROUP BY owner")
        assert len(owners) == 3
        await tw.examine()
        async with asyncio.timeout(5):
            await watcher.knows({("span_completed", trace) for trace in load.seen})
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        # Each event once, in the order of the log.
        assert watcher.numbers == sorted(set(watcher.numbers))
        assert {len(times) for times in watcher.told.values()} == {1}
        late_s = [watcher.told["span_completed", trace][0] - at for trace, at in load.seen.items()]
        print(
            f"{len(states)} calls of {len(owners)} replicas, told after"
            f" {sorted(late_s)[len(late_s) // 2] * 1000:.0f} ms, {max(late_s) * 1000:.0f} at most"
        )
        assert max(late_s) < SEEN_WITHIN_S


async def test_the_end_of_a_replica_costs_what_its_durability_says(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with replicas(tmp_path, upstream) as tw:
        async with calling(Load(tw.port)) as load:
            await asyncio.sleep(LOAD_S / 2)
            killed_at = time.monotonic()
            tw.servers[2].process.send_signal(signal.SIGKILL)
            await asyncio.sleep(LOAD_S / 2)
        states = await tw.settled(JUDGED_WITHIN_S)
        missing = {
            trace: f"{states.get(trace)}, {(killed_at - at) * 1000:.0f} ms before the end"
            for trace, at in load.seen.items()
            if states.get(trace) != "completed"
        }
        too_many = {
            trace: what
            for trace, what in missing.items()
            if not 0 <= killed_at - load.seen[trace] < GRACE_S
        }
        print(f"{len(states)} calls, {dict(load.failed)} failed, {len(missing)} lost: {missing}")
        assert too_many == {}
        assert "interrupted" in states.values()
        await tw.examine()


async def test_calls_go_on_while_postgresql_is_away_and_nothing_that_fits_is_lost(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with replicas(tmp_path, upstream) as tw:
        async with calling(Load(tw.port)) as load:
            await asyncio.sleep(LOAD_S / 2)
            before = len(load.seen)
            await asyncio.to_thread(tw.database.stop)
            await asyncio.sleep(OUTAGE_S)
            during = len(load.seen) - before
            await asyncio.to_thread(tw.database.start)
            await asyncio.sleep(LOAD_S)
        states = await tw.settled(30)
        counters = await tw.counters()
        missing = [trace for trace in load.seen if states.get(trace) != "completed"]
        print(f"{before} calls before, {during} while it was away, {len(missing)} lost, {counters}")
        assert load.failed == {}
        assert during > OUTAGE_S
        assert len(missing) <= counters["dropped_records"]
        assert counters["dropped_records"] == 0
        await tw.examine()
