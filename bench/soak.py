"""`make soak`: hundreds of streams at once for minutes, with churn, cancels and all faults.

A server runs in a process of its own before an upstream in another (faulty.py), called by the
clients of callers.py. Every second its memory, its file descriptors and its queue are read. At the
end every call must be in the database exactly once, in the state that its kind has; memory must not
have grown, and nothing be left open. Then the same number of streams has bodies of 500 KB.
Exit code 1 where a bound does not hold.
"""

import argparse
import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
import uvloop

from bench.callers import KINDS, Client, Ledger

# Counters of what was only late: nothing was lost.
LATE: Final = ("late_starts", "late_ends")
ROOT: Final = Path(__file__).parent.parent
BODY_BYTES: Final = 500_000
# Bounds. The slope is that of memory behind the first part of the time, in which what is kept of
# conversations (proxy/prefixes.py: 32 MiB, some 20,000 of these) fills up; in a short run it is no
# figure at all.
SLOPE_MB_A_MINUTE: Final = 1.0
WARM_PART: Final = 0.35
SLOPE_FROM_MINUTES: Final = 5.0
LARGE_RSS_MB: Final = 300.0
# Connections to the upstream stay open for a while, and SQLite opens a reader when it is needed.
SPARE_FDS: Final = 4
SETTLES_S: Final = 30.0


@dataclass(frozen=True)
class Sample:
    """What a server holds at one moment; `queued_bytes` is None where it did not say in time."""

    at_s: float
    rss_mb: float
    fds: int
    streams: int
    queued_bytes: int | None


@dataclass
class Server:
    """A server in a process of its own, and what was seen of it."""

    process: asyncio.subprocess.Process
    port: int
    database: Path
    log: Path
    samples: list[Sample] = field(default_factory=list)

    def status(self, name: str) -> float:
        """Read a figure of the process's memory, in MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", text)
        assert found is not None  # noqa: S101
        return int(found[1]) * 1024 / 1e6  # what it calls kB are KiB

    def fds(self) -> int:
        """Count the open file descriptors."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def forget_peak(self) -> None:
        """Let VmHWM begin anew."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    async def asked(self, path: str) -> bytes:
        """Get a page of the server's API."""
        return await asyncio.to_thread(fetched, self.port, path)

    async def sample(self, began_s: float, ledger: Ledger) -> Sample:
        """See what it holds now."""
        queued: int | None = None
        with contextlib.suppress(OSError):
            queued = orjson.loads(await self.asked("/api/health"))["queued_bytes"]
        now = Sample(
            time.monotonic() - began_s, self.status("VmRSS"), self.fds(), ledger.open, queued
        )
        self.samples.append(now)
        return now


class Verdicts:
    """The table of bounds, and whether all of them hold."""

    def __init__(self) -> None:
        self.hold = True

    def say(self, what: str, figure: str, bound: str, holds: bool | None) -> None:
        """Print a line; `holds` is None where it is not judged."""
        self.hold &= holds is not False
        mark = {True: "ok", False: "FAILS", None: "not judged"}[holds]
        print(f"  {what:44}{figure:>26}  {bound:24} {mark}", flush=True)


def main() -> int:
    """Soak; 0 where every bound holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of calls (10)")
    parser.add_argument("--streams", type=int, default=500, help="at once (500)")
    parser.add_argument("--folder", type=Path, help="where the databases stay (none)")
    options = parser.parse_args()
    if not Path("/proc/self/status").exists():
        print("skipped: memory and file descriptors are read from /proc, which is not here")
        return 0
    verdicts = Verdicts()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        uvloop.run(soak(folder, options.minutes, options.streams, verdicts))
        uvloop.run(large(folder, options.streams, verdicts))
    print("every bound holds" if verdicts.hold else "not every bound holds")
    return 0 if verdicts.hold else 1


async def soak(folder: Path, minutes: float, streams: int, verdicts: Verdicts) -> None:
    """Call for so many minutes, then look at what is left and what is stored."""
    print(f"{streams} clients at once for {minutes:g} minutes, {len(KINDS)} kinds of calls")
    ledger = Ledger()
    async with faulty() as upstream, serving(folder, "soak", upstream) as server:
        await warm(server, ledger)
        fds_before = server.fds()
        stop = asyncio.Event()
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(streams):
                client = Client(server.port, number, ledger, stop)
                group.create_task(client.run())
            while time.monotonic() < began_s + minutes * 60:
                now = await server.sample(began_s, ledger)
                if len(server.samples) % (60 if minutes > 2 else 10) == 1:
                    show(now, ledger)
                await asyncio.sleep(1)
            stop.set()
        took_s = time.monotonic() - began_s
        rss_mb = await settled(server, lambda: server.fds() <= fds_before + SPARE_FDS)
        health = orjson.loads(await server.asked("/api/health"))
        fds_after = server.fds()
        arrived = Counter((await asyncio.to_thread(fetched, upstream, "/seen")).decode().split())
        code = await stopped(server)
    rates = f"{len(ledger.calls):,} ({len(ledger.calls) / took_s:.0f}/s)"
    verdicts.say("calls", rates, "", None)
    open_streams = sorted(s.streams for s in server.samples)[len(server.samples) // 2]
    verdicts.say("in flight (median)", f"{open_streams}", "", None)
    wrong = dict(ledger.wrong)
    verdicts.say("answers that were wrong", str(wrong or 0), "0", not wrong)
    warm_s = minutes * 60 * WARM_PART
    tail = [(s.at_s / 60, s.rss_mb) for s in server.samples if s.at_s >= warm_s]
    memory = f"{tail[0][1]:.0f}, {tail[-1][1]:.0f}, {rss_mb:.0f} MB"
    verdicts.say("memory: warm, at the end, idle", memory, "", None)
    growth = slope(tail)
    judged = growth < SLOPE_MB_A_MINUTE if minutes >= SLOPE_FROM_MINUTES else None
    verdicts.say("memory grows by", f"{growth:+.2f} MB/min", "< 1 MB/min", judged)
    most = max(s.fds for s in server.samples)
    figures = f"{fds_before}, {most}, {fds_after}"
    bound = f"the start, and {SPARE_FDS}"
    verdicts.say(
        "file descriptors: start, most, end", figures, bound, fds_after <= fds_before + SPARE_FDS
    )
    queued = max(s.queued_bytes or 0 for s in server.samples)
    verdicts.say("queue at most", f"{queued / 1e6:.2f} MB", "", None)
    left = {name: health[name] for name in ("calls_in_flight", "queued_bytes", "held_bytes")}
    verdicts.say("left in memory", str(sum(left.values())), "0", not sum(left.values()))
    lost = {k: v for k, v in health["counters"].items() if v and k not in LATE}
    verdicts.say("counted as lost", str(lost or 0), "0", not lost)
    for late in LATE:
        verdicts.say(late.replace("_", " "), str(health["counters"][late]), "", None)
    verdicts.say("exit code after SIGTERM", str(code), "0", code == 0)
    tracebacks = server.log.read_text().count("Traceback")
    verdicts.say("tracebacks in the log", str(tracebacks), "0", not tracebacks)
    judge_rows(server.database, ledger, arrived, verdicts)
    await judge_database(server.database, verdicts)


async def large(folder: Path, streams: int, verdicts: Verdicts) -> None:
    """Open so many streams with large requests, and see the most memory that it takes."""
    print(f"\n{streams} streams at once with bodies of {BODY_BYTES // 1000} KB")
    ledger = Ledger()
    async with faulty() as upstream, serving(folder, "large", upstream) as server:
        await warm(server, ledger)
        before_mb = server.status("VmRSS")
        server.forget_peak()
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(held(server.port, n, ledger)) for n in range(streams)]
            while not all(call.done() for call in calls):
                await server.sample(began_s, ledger)
                await asyncio.sleep(1)
        peak_mb = server.status("VmHWM")
        rss_mb = await settled(server, lambda: True)
        code = await stopped(server)
    full = [s.rss_mb for s in server.samples if s.streams == streams]
    steady = f"{before_mb:.0f}, {full[-1] if full else 0:.0f}, {rss_mb:.0f} MB"
    verdicts.say("memory: before, all open, after", steady, "", None)
    verdicts.say("memory at most", f"{peak_mb:.0f} MB", "< 300 MB", peak_mb < LARGE_RSS_MB)
    wrong = dict(ledger.wrong)
    verdicts.say("answers that were wrong", str(wrong or 0), "0", not wrong)
    verdicts.say("exit code after SIGTERM", str(code), "0", code == 0)
    with contextlib.closing(opened(server.database)) as database:
        rows = database.execute("SELECT COUNT(*) FROM spans WHERE query LIKE 'soak=held%'")
        count = rows.fetchone()[0]
    verdicts.say("calls recorded", f"{count}", f"{streams}", count == streams)
    await judge_database(server.database, verdicts)


async def held(port: int, number: int, ledger: Ledger) -> None:
    """Make one call with a large body of its own words."""
    words = f"{number} says what nobody else does, and more. "
    client = Client(port, number, ledger, asyncio.Event())
    await client.call("held", (words * (BODY_BYTES // len(words) + 1))[:BODY_BYTES])


async def warm(server: Server, ledger: Ledger) -> None:
    """Make every part of the server do its work once."""
    clients = [Client(server.port, -n, ledger, asyncio.Event()) for n in range(1, 9)]
    await asyncio.gather(*(client.call("whole", "hello") for client in clients))
    for path in ("/api/sessions", "/api/traces?q=hello", "/sessions", "/metrics", "/api/health"):
        await server.asked(path)
    for client in clients:
        client._leave()
    await settled(server, lambda: True)
    await asyncio.sleep(6)  # until connections to the upstream are too old to be kept


async def settled(server: Server, done: Callable[[], bool]) -> float:
    """Wait until nothing is in flight and nothing waits; give the memory then, in MB."""
    until_s = time.monotonic() + SETTLES_S
    while time.monotonic() < until_s:
        health = orjson.loads(await server.asked("/api/health"))
        if not health["calls_in_flight"] and not health["queued_bytes"] and done():
            break
        await asyncio.sleep(0.2)
    return server.status("VmRSS")


def judge_rows(path: Path, ledger: Ledger, arrived: Counter[str], verdicts: Verdicts) -> None:
    """Compare what the clients did with what is stored."""
    with contextlib.closing(opened(path)) as database:
        rows = database.execute(
            "SELECT SUBSTR(query, 6), state FROM spans WHERE query LIKE 'soak=%'"
        ).fetchall()
    times = Counter(name for name, _ in rows)
    states = dict(rows)
    unknown = [
        name
        for name in ledger.calls
        if name not in states
        and not (KINDS[name.partition("-")[0]].may_be_unknown and name not in arrived)
    ]
    verdicts.say("calls that are not recorded", f"{len(unknown)} {unknown[:3]}", "0", not unknown)
    early = len(ledger.calls) - len(states) - len(unknown)
    verdicts.say("left before there was a request", str(early), "", None)
    twice = [name for name, count in times.items() if count > 1]
    verdicts.say("calls that are recorded twice", str(len(twice)), "0", not twice)
    strange = set(states) - set(ledger.calls)
    verdicts.say("rows that nobody called", str(len(strange)), "0", not strange)
    again = [name for name, count in arrived.items() if count > 1]
    verdicts.say("calls that went out twice", str(len(again)), "0", not again)
    wrong = Counter(
        f"{kind} is {state}"
        for name, state in states.items()
        if state != KINDS[kind := name.partition("-")[0]].state
    )
    verdicts.say("states that are wrong", str(dict(wrong) or 0), "0", not wrong)


async def judge_database(path: Path, verdicts: Verdicts) -> None:
    """Ask SQLite and the doctor."""
    with contextlib.closing(opened(path)) as database:
        found = database.execute("PRAGMA integrity_check").fetchall()
    verdicts.say("integrity_check", str(found[0][0])[:24], "ok", found == [("ok",)])
    command = (sys.executable, "-m", "proxy", "doctor", "--db", str(path))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=-1, stderr=-2)
    said = (await process.communicate())[0].decode().strip()
    if process.returncode:
        print(said)
    figure = said.splitlines()[-1].rpartition(": ")[2] if said else ""
    verdicts.say("doctor", figure, "no findings", process.returncode == 0)


def slope(points: list[tuple[float, float]]) -> float:
    """Fit a line by least squares; give its slope."""
    n = len(points)
    x = sum(p[0] for p in points) / n
    y = sum(p[1] for p in points) / n
    over = sum((p[0] - x) ** 2 for p in points)
    return sum((p[0] - x) * (p[1] - y) for p in points) / over if over else 0.0


def show(now: Sample, ledger: Ledger) -> None:
    """Print where it stands."""
    queued = "?" if now.queued_bytes is None else f"{now.queued_bytes / 1e6:.2f}"
    print(
        f"  {now.at_s:5.0f} s  {now.rss_mb:6.1f} MB  {now.fds:5} fds  {now.streams:4} in flight"
        f"  queue {queued} MB  {len(ledger.calls):,} calls",
        flush=True,
    )


def opened(path: Path) -> sqlite3.Connection:
    """Open a database to read."""
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def fetched(port: int, path: str) -> bytes:
    """Get a page of a server on this machine."""
    url = f"http://127.0.0.1:{port}{path}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        data: bytes = answer.read()
    return data


@asynccontextmanager
async def faulty() -> AsyncIterator[int]:
    """Run the upstream; give its port."""
    command = (sys.executable, "-m", "bench.faulty")
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=-1)
    assert process.stdout is not None  # noqa: S101
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def serving(folder: Path, name: str, upstream: int) -> AsyncIterator[Server]:
    """Run a server with a new database."""
    database, log = folder / f"{name}.db", folder / f"{name}.log"
    options = ["--port", "0", "--db", str(database)]
    options += ["--upstream", f"openai=http://127.0.0.1:{upstream}"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("TRACEWAY_")}
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", *options),
            cwd=ROOT,
            env=environ,
            stdout=-1,
            stderr=errors,
        )
    assert process.stdout is not None  # noqa: S101
    said = b""
    try:
        while (found := re.search(rb":(\d+)/sessions", said)) is None or b"  data  " not in said:
            line = await process.stdout.readline()
            assert line, log.read_text()  # noqa: S101
            said += line
        yield Server(process, int(found[1]), database, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def stopped(server: Server) -> int:
    """End a server as systemd would; give its exit code."""
    server.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        return await server.process.wait()


if __name__ == "__main__":
    sys.exit(main())
