"""`make bench`: what a call costs here, as a ratio to a plain nginx in the same run.

The proxy and nginx run on one core by turns, the upstream and the load on another. Absolute figures
drift with the machine; ratios of the same run hold. Each figure is the median of its rounds.
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
PATH = "/v1/chat/completions"
START_S = 20.0

TITLES = ("calls/s", "p50 us", "p99 us", "added us", "CPU us", "x nginx")

NGINX = """
worker_processes 1; daemon off; pid nginx.pid; error_log nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 128k;
  client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u;
  scgi_temp_path s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Load:
    """A kind of load: so many connections, each with one call after another."""

    name: str
    kind: str
    connections: int


LOADS = (
    Load("JSON in words of its own, 64 connections", "json", 64),
    Load("JSON in the same words, 64 connections", "same", 64),
    Load("streams of 50 events, 16 connections", "stream", 16),
    Load("JSON in words of its own, 1 connection", "json", 1),
)


@dataclass(frozen=True)
class Run:
    """What one run of the load gave; `cpu_us` is the target's own CPU time per call."""

    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float
    failures: int


@dataclass
class Target:
    """Something that calls go to; `pid` is None where its CPU time does not matter."""

    name: str
    port: int
    path: str
    pid: int | None = None
    runs: dict[Load, list[Run]] = field(default_factory=dict)

    def figure(self, load: Load, name: str) -> float:
        """Give the median of a figure."""
        return median(getattr(run, name) for run in self.runs[load])


def main() -> int:
    """Measure; 0 where every call was answered."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="speed against nginx")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one run (3)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (3)")
    options = parser.parse_args()
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("skipped: no C compiler for the load tools (Debian: apt-get install gcc libc6-dev)")
        return 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for tool in ("upstream", "load"):
            source = HERE / f"{tool}.c"
            subprocess.run([compiler, "-O2", "-o", folder / tool, source], check=True)
        targets = start_all(stack, folder)
        for turn in range(options.rounds):
            for load in LOADS:
                for target in targets:
                    print(f"\rround {turn + 1}: {load.name}, {target.name:40}", end="", flush=True)
                    run = measure(folder / "load", target, load, options.seconds)
                    target.runs.setdefault(load, []).append(run)
        print("\r" + " " * 100 + "\r", end="")
        report(targets)
    failures = sum(r.failures for t in targets for runs in t.runs.values() for r in runs)
    if failures:
        print(f"{failures} calls failed")
    return 1 if failures else 0


def start_all(stack: contextlib.ExitStack, folder: Path) -> list[Target]:
    """Start the upstream, nginx, and ourselves in two ways; the first target is no proxy at all."""
    upstream = free_port()
    stack.enter_context(started(folder / "upstream", str(upstream), cpu=-1))
    await_port(upstream)
    targets = [Target("no proxy", upstream, PATH)]
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None:
        print("skipped: the ratios to nginx, which is not here (Debian: apt-get install nginx)")
    else:
        port = free_port()
        (folder / "nginx.conf").write_text(NGINX.format(port=port, upstream=upstream))
        command = (nginx, "-p", f"{folder}/", "-c", "nginx.conf")
        pid = stack.enter_context(started(*command, cpu=0))
        await_port(port)
        targets.append(Target("nginx", port, PATH, pid))
    for name, capture in (("traceway, all recorded", "full"), ("traceway, no bodies", "off")):
        port = free_port()
        environ = {"TRACEWAY_RECORDING_CAPTURE": capture}
        options = ["--port", str(port), "--db", str(folder / f"{capture}.db")]
        options += ["--upstream", f"openai=http://127.0.0.1:{upstream}"]
        command = (sys.executable, "-m", "proxy", "serve", *options)
        pid = stack.enter_context(started(*command, cpu=0, environ=environ))
        await_port(port)
        targets.append(Target(name, port, f"/api/proxy/openai{PATH}", pid))
    return targets


def measure(tool: Path, target: Target, load: Load, seconds: float) -> Run:
    """Put load on a target."""
    before_s = cpu_s(target.pid)
    command = [tool, str(target.port), target.path, str(load.connections), str(seconds), load.kind]
    with pinned(-1):
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    settle(target)
    rate, p50_us, p99_us, answers, failures = map(float, out.split())
    cpu_us = (cpu_s(target.pid) - before_s) * 1e6 / max(answers, 1)
    return Run(rate, p50_us, p99_us, cpu_us, int(failures))


def settle(target: Target) -> None:
    """Wait until a target's work for the calls of this run is over, recording included."""
    used_s, pause_s = cpu_s(target.pid), 0.1
    while target.pid is not None:
        time.sleep(pause_s)
        now_s = cpu_s(target.pid)
        if now_s - used_s < 0.05 * pause_s:
            break
        used_s = now_s


def report(targets: list[Target]) -> None:
    """Print a table for each load: rates, times, CPU, and the ratio of CPU to nginx's."""
    direct, *proxies = targets
    nginx = next((target for target in proxies if target.name == "nginx"), None)
    for load in LOADS:
        print(f"\n{load.name}")
        titles = "".join(f"{title:>9}" for title in TITLES)
        print(f"  {'':24}{titles}")
        for target in targets:
            p50_us, cpu_us = target.figure(load, "p50_us"), target.figure(load, "cpu_us")
            row = f"  {target.name:24}{target.figure(load, 'rate'):9,.0f}{p50_us:9.0f}"
            row += f"{target.figure(load, 'p99_us'):9.0f}"
            if target is not direct:
                row += f"{p50_us - direct.figure(load, 'p50_us'):9.0f}{cpu_us:9.1f}"
                if nginx is not None:
                    row += f"{cpu_us / nginx.figure(load, 'cpu_us'):9.2f}"
            print(row)
        recorded, bare = (target.figure(load, "rate") for target in proxies[-2:])
        print(f"  rate with all recorded: {recorded / bare:.2f} of that with no bodies")


def cpu_s(pid: int | None) -> float:
    """Give the CPU seconds of a process, its threads and its children."""
    total_ns = 0
    for process in family(pid) if pid is not None else ():
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                total_ns += int((thread / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def family(pid: int) -> list[int]:
    """Give a process and its children."""
    found = [pid]
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += family(int(child))
    return found


@contextlib.contextmanager
def started(*command: str | Path, cpu: int, environ: dict[str, str] | None = None) -> Iterator[int]:
    """Run a server on one of our cores until the block ends; give its pid."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TRACEWAY_")}
    with pinned(cpu):
        process = subprocess.Popen(
            command,
            cwd=HERE.parent,
            env={**inherited, **(environ or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # a line for each call
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Have processes that are started in the block run on the first (0) or last (-1) core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[cpu]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def await_port(port: int) -> None:
    """Wait until somebody listens and answers."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{PATH}", b"{}")
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody answers on port {port}")


def free_port() -> int:
    """Give a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    raise SystemExit(main())
