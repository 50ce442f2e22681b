"""What the SDK costs an application, and what it loses while the server restarts.

Run from the repository: `make bench-sdk ARGS="--spans 1000000"`. Spans are handed in at a steady
pace (`--rate`), ten to a trace, while a real server on SQLite is stopped and, `--down` seconds
later, started again, as often as `--restarts` says. Every span is timed by the CPU time of the
thread that makes it. At the end the spans in the database are counted: exit code 1 where one is
missing.
"""

import argparse
import contextlib
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "src"))

from traceway import Trace, Traceway  # noqa: E402 - the path comes first

MESSAGES = [{"role": "user", "content": "Where is my order? " * 100}] * 2
SPANS_OF_A_TRACE = 10


class Server:
    """A server in a process of its own, on one port and one database for all its lives."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "traceway.db"
        self.cpu_s = 0.0
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = (folder / "server.log").open("wb")

    def start(self) -> None:
        options = ("--port", str(self.port), "--db", str(self.database))
        self.process = subprocess.Popen(  # noqa: S603 - our own server
            (sys.executable, "-m", "proxy", "serve", *options),
            cwd=HERE.parents[1],
            stdout=self.log,
            stderr=self.log,
        )

    def wait(self) -> None:
        for _ in range(600):
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.url}/api/ready", timeout=1),  # noqa: S310
            ):
                return
            time.sleep(0.1)
        raise SystemExit("the server does not start")

    def stop(self) -> None:
        stat = Path(f"/proc/{self.process.pid}/stat")
        if stat.exists():
            ticks = sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))
            self.cpu_s += ticks / os.sysconf("SC_CLK_TCK")
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def count(self) -> int:
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            return int(
                db.execute("SELECT count(*) FROM spans WHERE state = 'completed'").fetchone()[0]
            )


def small(trace: Trace) -> None:
    with trace.span("retrieve", kind="retrieval", input={"query": "q", "limit": 3}) as span:
        span.set_output({"documents": ["a", "b", "c"]})


def large(trace: Trace) -> None:
    with trace.llm_call("answer", model="gpt-4o", provider="openai", input=MESSAGES) as span:
        span.set_output({"role": "assistant", "content": "It is on its way. " * 100})
        span.set_usage(input_tokens=612, output_tokens=52)


def overhead(url: str, make: Callable[[Trace], None], count: int) -> str:
    """Give the CPU time of the application's thread for one span, at the median and at p99."""
    with Traceway(url, max_queue_items=count + 10) as tw:
        trace = tw.trace("overhead")
        times_ns = []
        for _ in range(count):
            began = time.thread_time_ns()
            make(trace)
            times_ns.append(time.thread_time_ns() - began)
            if len(tw._sender._queue) > 5_000:
                tw.flush(120)
        trace.end()
        tw.flush(120)
    times_ns.sort()
    return f"{statistics.median(times_ns) / 1e3:.1f} us, p99 {share(times_ns, 0.99):.1f} us"


def share(times_ns: list[int], part: float) -> float:
    """Give the time in microseconds that this part of all, in their order, do not exceed."""
    return times_ns[int(len(times_ns) * part)] / 1e3


def rss_mib() -> float:
    """Give the memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def restarting(server: Server, after_s: list[float], down_s: float) -> Iterator[list[float]]:
    """Stop and start the server at given times; gives the seconds for which nobody answered."""
    gone_s: list[float] = []
    done = threading.Event()

    def work() -> None:
        began = time.monotonic()
        for at_s in after_s:
            if done.wait(max(0, began + at_s - time.monotonic())):
                return
            server.stop()
            stopped = time.monotonic()
            time.sleep(down_s)
            server.start()
            server.wait()
            gone_s.append(time.monotonic() - stopped)

    thread = threading.Thread(target=work)
    thread.start()
    yield gone_s
    thread.join()
    done.set()


def paced(server: Server, spans: int, rate: int, restarts: int, down_s: float) -> bool:
    """Hand in spans at a steady rate while the server restarts; say whether all are there."""
    stops = [spans / rate * (n + 1) / (restarts + 1) for n in range(restarts)]
    times_ns: list[int] = []
    most_pending, rss_before_mib = 0, rss_mib()
    most_mib = rss_before_mib
    cpu_before_s = time.process_time()
    tw = Traceway(server.url)
    began = time.perf_counter()
    with restarting(server, stops, down_s) as gone_s:
        trace = tw.trace("turn", session_id="bench-0")
        for n in range(spans):
            wait_s = began + n / rate - time.perf_counter()
            if wait_s > 0.001:
                time.sleep(wait_s)
            if n % SPANS_OF_A_TRACE == SPANS_OF_A_TRACE - 1:
                trace.end()
                trace = tw.trace("turn", session_id=f"bench-{n // 1_000}")
            if n % 1_000 == 0:
                most_mib = max(most_mib, rss_mib())
            before_ns = time.thread_time_ns()
            small(trace)
            times_ns.append(time.thread_time_ns() - before_ns)
            most_pending = max(most_pending, tw.pending)
        trace.end()
        took_s = time.perf_counter() - began
    flushed = tw.flush(600)
    all_s = time.perf_counter() - began
    cpu_us = (time.process_time() - cpu_before_s) * 1e6
    tw.close()
    stored = server.count()
    median_us = statistics.median(times_ns) / 1e3
    times_ns.sort()
    print(f"handed in      {spans:,} spans in {took_s:.1f} s, {spans / took_s:,.0f} a second")
    print(f"server gone    {', '.join(f'{one:.1f} s' for one in gone_s) or 'never'}")
    print(f"stored         {stored:,}; dropped {tw.dropped:,}; all sent: {flushed}, {all_s:.1f} s")
    print(f"a span         {median_us:.1f} us of the application's thread at the median")
    print(
        f"               p99 {share(times_ns, 0.99):.1f} us, p99.9 {share(times_ns, 0.999):.1f} us"
    )
    print(f"whole process  {cpu_us / spans:.1f} us a span, with the sender and the pacing")
    # The times themselves are kept for this report: 40 bytes a span.
    grown_mib = most_mib - rss_before_mib
    print(f"most waiting   {most_pending:,} items; memory grew by up to {grown_mib:.0f} MiB")
    return stored == spans and tw.dropped == 0


def main() -> int:
    """Measure, print, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--spans", type=int, default=50_000)
    parser.add_argument("--rate", type=int, default=5_000, help="spans a second")
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--down", type=float, default=1.0, help="seconds from stop to start")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        server.start()
        try:
            server.wait()
            whole = paced(server, asked.spans, asked.rate, asked.restarts, asked.down)
            print(f"small span     {overhead(server.url, small, 20_000)}")
            print(f"6 KiB of chat  {overhead(server.url, large, 5_000)}")
        finally:
            server.stop()
        print(f"server         {server.cpu_s:.1f} s of CPU")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
