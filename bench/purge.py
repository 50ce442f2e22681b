"""`make bench-purge`: what a purge of many traces costs the calls that go on meanwhile.

A database is made with so many traces, each with two messages, their nodes and their words, behind
one that instructs and that all sessions share. A server erases all of them while calls come at a
steady rate; by turns it erases for some seconds and does not, so that both are measured in the same
run. At the end what is freed is given back. The upstream takes 100 ms, as the fastest models do, in
which the start of a call is saved; what a call takes beyond that is what the proxy adds. With
`--think-ms 0` it answers at once, and what a start waits for is added as well. Seconds in which the
host of a virtual machine gave its processors to others are told, and what the calls took without
them is told as well; judged are all calls.
"""

import argparse
import asyncio
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
import uvloop

from bench import large
from bench.host import Host
from proxy import __main__ as command
from proxy.app import Traceway
from storage import fts5_parts
from storage.database import Params
from storage.statements import SqliteTransaction

HERE: Final = Path(__file__).parent
PATH: Final = "/api/proxy/openai/v1/chat/completions"
# Bytes of each message beside its words.
PADDING: Final = 600
# Behind a switch, calls are not counted for so long.
SETTLES_S: Final = 0.5
CONNECTIONS: Final = 32
BOUND_MS: Final = 1.0
# An order in these states can be cancelled.
GOES_ON: Final = ("collecting", "erasing")

# What large.py leaves out: bodies are not read by lists, but are what a purge deletes.
CONTENT: Final = tuple(
    f"""
INSERT INTO contents (id, project_id, sha256, encoding, size, data)
SELECT {number}, 1, CAST(printf('{role:9}%023d', seq) AS BLOB), '', {PADDING},
  CAST('{{"role":"{role}","content":"' || {words} || '","name":"' || printf('%0{PADDING}d', seq)
  || '"}}' AS BLOB)
FROM spans ORDER BY seq
"""  # noqa: S608 (constants)
    for number, role, words in (
        ("2 * seq", "user", "input_preview"),
        ("2 * seq + 1", "assistant", "output_preview"),
    )
)
NODES: Final = tuple(
    f"""
INSERT INTO nodes (id, project_id, parent_id, content_id, depth, hash, lead)
SELECT {number}, 1, {parent}, {number}, {depth}, CAST(printf('node{depth}%027d', seq) AS BLOB), x''
FROM spans ORDER BY seq
"""  # noqa: S608 (constants)
    for number, parent, depth in (("2 * seq", "1", 2), ("2 * seq + 1", "2 * seq", 3))
)
# The message that instructs: the first content, and the first node of all chains.
PROMPT_TEXT: Final = "be brief and answer in plain words"
PROMPT: Final = (
    f"""
INSERT INTO contents (id, project_id, sha256, encoding, size, data)
VALUES (1, 1, zeroblob(32), '', 100, CAST('{{"role":"system","content":"{PROMPT_TEXT}"}}' AS BLOB))
""",  # noqa: S608 (constants)
    "INSERT INTO messages (content_id, role, meaning) VALUES (1, 'system', zeroblob(16))",
    """
INSERT INTO nodes (id, project_id, parent_id, content_id, depth, hash, lead)
VALUES (1, 1, NULL, 1, 1, zeroblob(16), x'')
""",
    """
INSERT INTO mentions (content_id, session_key, span_seq)
SELECT 1, session_key, MIN(seq) FROM spans GROUP BY session_key
""",
)
PLACES: Final = """
UPDATE spans SET prelude_node_id = 1, input_node_id = 2 * seq, output_node_id = 2 * seq + 1,
  fresh_count = 1, input_meaning = CAST(printf('asked%011d', seq) AS BLOB),
  output_meaning = CAST(printf('answered%08d', seq) AS BLOB), stored_bytes = 300, owner = x'00'
"""
TOTALS: Final = """
INSERT INTO project_totals SELECT 1, COUNT(*), SUM(span_count), SUM(input_tokens IS NOT NULL),
  SUM(output_tokens IS NOT NULL), SUM(cost_nusd IS NOT NULL), SUM(COALESCE(input_tokens, 0)),
  SUM(COALESCE(output_tokens, 0)), SUM(COALESCE(cost_nusd, 0)), SUM(unpriced_count),
  SUM(estimated_count), SUM(received_bytes), SUM(stored_bytes) FROM traces
"""
COUNT_ON: Final = (
    "UPDATE counters SET value = (SELECT MAX(seq) FROM spans) WHERE name = 'seq'",
    "UPDATE counters SET value = (SELECT MAX(id) FROM contents) WHERE name = 'id'",
)


@dataclass
class Phase:
    """What calls took, in milliseconds behind the second of their end, while it erased or not."""

    calls: list[tuple[int, float]] = field(default_factory=list)

    def without(self, seconds: Collection[int]) -> "Phase":
        """Give the calls of all other seconds."""
        return Phase([call for call in self.calls if call[0] not in seconds])

    def quantile(self, share: float) -> float:
        """Give a quantile of the times."""
        ordered = sorted(took_ms for _, took_ms in self.calls)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def main() -> int:
    """Purge; 0 where the bound holds, or nobody can tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.purge", description=__doc__)
    parser.add_argument("--traces", type=int, default=20_000, help="to be erased (20,000)")
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second (100)")
    parser.add_argument("--turn", type=float, default=5.0, help="seconds that it erases (5)")
    parser.add_argument("--rest", type=float, default=5.0, help="seconds that it does not (5)")
    parser.add_argument("--think-ms", type=int, default=100, help="of the upstream (100)")
    parser.add_argument("--minutes", type=float, help="after which the order is cancelled (never)")
    parser.add_argument("--folder", type=Path, help="where the database is made (a temporary one)")
    parser.add_argument("--content-only", action="store_true", help="forget content alone")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(*options.serve)
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("skipped: no C compiler for the upstream (Debian: apt-get install gcc libc6-dev)")
        return 0
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = folder / "purge.db"
        began_s = time.monotonic()
        make(path, options.traces)
        print(
            f"made {options.traces:,} traces in {time.monotonic() - began_s:.0f} s:"
            f" {path.stat().st_size / 1e6:,.0f} MB",
            flush=True,
        )
        tool = folder / "upstream"
        subprocess.run([compiler, "-O2", "-o", tool, HERE / "upstream.c"], check=True)
        return uvloop.run(purge(path, tool, options))


def make(path: Path, traces: int) -> None:
    """Make a database that calls with messages would have left."""
    large.make(path, max(traces // 20, 1), traces)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    for statement in (*PROMPT, *CONTENT, *NODES, PLACES, TOTALS, *COUNT_ON):
        connection.execute(statement)
    words: Params = {"id": 1, "scope": "p1", "text": PROMPT_TEXT}
    fts5_parts.add(SqliteTransaction(path, connection), [words])
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    os.sync()  # or the server's first flush would be that of all of it


def serve(path: str, port: str, upstream: str) -> int:
    """Serve as users do, but that it erases by turns: a signal has it erase, another one not."""
    erases = [True]

    class ByTurns(Traceway):
        async def start(
            self, sockets: Sequence[socket.socket] = (), private: socket.socket | None = None
        ) -> int:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, self._erase)
            loop.add_signal_handler(signal.SIGUSR2, lambda: erases.__setitem__(0, False))
            bound = await super().start(sockets, private)
            self.eraser.pace.leads = lambda: erases[0]
            return bound

        def _erase(self) -> None:
            erases[0] = True
            self.eraser.wake()

    command.Traceway = ByTurns  # type: ignore[attr-defined]
    return command.main(["serve", "--db", path, "--port", port, "--upstream", f"openai={upstream}"])


async def purge(path: Path, tool: Path, options: argparse.Namespace) -> int:
    """Measure the calls of a server that erases by turns."""
    upstream_port, before_bytes = _free_port(), _size(path)
    upstream = await asyncio.create_subprocess_exec(tool, str(upstream_port), str(options.think_ms))
    port = _free_port()
    log = (path.parent / "log").open("wb")
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.purge"),
        *("--serve", path, str(port), f"http://127.0.0.1:{upstream_port}"),
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    log.close()
    try:
        await _ready(server, port)
        erasing, giving_back, without = phases = (Phase(), Phase(), Phase())
        server.send_signal(signal.SIGUSR1)
        extent = "content" if options.content_only else "all"
        # Everything that the made calls said; those that come now are younger.
        asked = {"query": "until:2027-01-01", "extent": extent}
        order = await asyncio.to_thread(_ask, port, "POST", "/api/erasures", asked)
        at = f"/api/erasures/{order['id']}"
        calls = Calls(port, options.rate, options.think_ms)
        running, host = asyncio.create_task(calls.run()), Host()
        watching = asyncio.create_task(host.watch())
        erasing_s, began_s = 0.0, time.monotonic()
        while order["ended_at"] is None:
            # What is given back at the end is not interrupted: it would begin anew each time.
            resting, turn = Phase(), Phase()
            if order["state"] in GOES_ON:
                await calls.into(resting, server, signal.SIGUSR2, options.rest)
                await calls.into(turn, server, signal.SIGUSR1, options.turn)
                erasing_s += options.turn + SETTLES_S
                erasing.calls += turn.calls
            else:
                await calls.into(turn, server, signal.SIGUSR1, options.turn)
                giving_back.calls += turn.calls
            without.calls += resting.calls
            spent_s = time.monotonic() - began_s
            late = options.minutes is not None and spent_s > options.minutes * 60
            # What is erased by then is given back all the same.
            method = "DELETE" if late and order["state"] in GOES_ON else "GET"
            order = await asyncio.to_thread(_ask, port, method, at)
            print(
                f"  {spent_s:6.0f} s: {order['state']:10} {order['traces']:,}"
                f" traces erased, {erasing_s:.0f} s of it erasing, {_size(path) / 1e6:,.0f} MB;"
                f" p99 {turn.quantile(0.99):.1f} ms, at rest {resting.quantile(0.99):.1f};"
                f" {len(host.stolen)} s stolen in all",
                flush=True,
            )
        running.cancel()
        watching.cancel()
        health = await asyncio.to_thread(_ask, port, "GET", "/api/health")
    finally:
        server.terminate()
        await server.wait()
        upstream.kill()
        await upstream.wait()
    return _report(path, before_bytes, order, phases, host, health)


def _report(
    path: Path,
    before_bytes: int,
    order: dict[str, object],
    phases: Sequence[Phase],
    host: Host,
    health: dict[str, object],
) -> int:
    print(
        f"\nerased: {order['traces']} traces, {order['sessions']} sessions, {order['spans']} calls"
    )
    print(f"file: {before_bytes / 1e6:,.0f} MB before, {path.stat().st_size / 1e6:,.0f} MB after")
    print(f"recorder: {health['status']}, {health['counters']}")
    if host.stolen:
        seconds = f"but for {len(host.stolen)} s in which the host took the processors away"
        others_ms = _added_ms(seconds, [phase.without(host.stolen) for phase in phases])
        print(f"p99 of these: {others_ms:+.2f} ms")
    added_ms = _added_ms("in all", phases)
    holds = added_ms < BOUND_MS
    print(f"p99: {added_ms:+.2f} ms; bound {BOUND_MS:.0f} ms: {'ok' if holds else 'FAILS'}")
    return 0 if holds else 1


def _added_ms(which: str, phases: Sequence[Phase]) -> float:
    """Print the quantiles of phases; give by how much that of a purge is higher."""
    print(f"calls {which}, ms:")
    print(f"  {'':20}{'p50':>8}{'p90':>8}{'p99':>8}{'p99.9':>8}{'calls':>9}")
    names = ("while it erases", "while it gives back", "while it does not")
    for name, phase in zip(names, phases, strict=True):
        figures = "".join(f"{phase.quantile(q):8.2f}" for q in (0.5, 0.9, 0.99, 0.999))
        print(f"  {name:20}{figures}{len(phase.calls):9,}")
    erasing, giving_back, without = phases
    purging = Phase(erasing.calls + giving_back.calls)
    return purging.quantile(0.99) - without.quantile(0.99)


class Calls:
    """Calls at a steady rate, whatever the earlier ones take. ``phase`` gets their times."""

    def __init__(self, port: int, rate: float, think_ms: int) -> None:
        self.phase: Phase | None = None
        self._think_ms = think_ms
        self._port = port
        self._rate = rate
        # The one that was idle longest goes first, so that none is for longer than a server allows.
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._n = 0
        self._open: set[asyncio.Task[None]] = set()

    async def into(
        self, phase: Phase, server: asyncio.subprocess.Process, mark: int, seconds: float
    ) -> None:
        """Have the server erase, or not, and take the times of some seconds of it for a phase."""
        server.send_signal(mark)
        self.phase = None
        await asyncio.sleep(SETTLES_S)
        self.phase = phase
        await asyncio.sleep(seconds)

    async def run(self) -> None:
        """Call until it is cancelled."""
        due_s = time.monotonic()
        while True:
            due_s += 1 / self._rate
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if len(self._open) < CONNECTIONS:
                task = asyncio.create_task(self._call())
                self._open.add(task)
                task.add_done_callback(self._open.discard)

    async def _call(self) -> None:
        self._n += 1
        body = orjson.dumps(
            {
                "model": "gpt-4o",
                "messages": [{"role": "user", "content": f"call {self._n} {time.time_ns()}"}],
            }
        )
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"X-Traceway-Session-Id: now-{self._n // 10}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if self._idle:
            reader, writer = self._idle.popleft()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        phase, began_s = self.phase, time.perf_counter()
        writer.write(head.encode() + body)
        answer = await _message(reader)
        assert answer.startswith(b"HTTP/1.1 200"), answer  # noqa: S101
        if phase is not None:
            took_ms = (time.perf_counter() - began_s) * 1000 - self._think_ms
            phase.calls.append((int(time.monotonic()), took_ms))
        self._idle.append((reader, writer))


async def _ready(server: asyncio.subprocess.Process, port: int) -> None:
    while server.returncode is None:
        with suppress(OSError):
            await asyncio.to_thread(_ask, port, "GET", "/api/health")
            return
        await asyncio.sleep(0.1)
    raise SystemExit("the server ended before it answered: `log` in --folder says why")


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


def _ask(
    port: int, method: str, path: str, body: dict[str, str] | None = None
) -> dict[str, object]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        method=method,
        data=None if body is None else orjson.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return dict(orjson.loads(answer.read()))


def _size(path: Path) -> int:
    return path.stat().st_size


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
