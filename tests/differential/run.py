"""`make differential`: every case against Traceway and against nginx, in one go.

Both stand before the same scripted upstream and get the same bytes. The table goes into
docs/robustness.md, between its markers; without nginx its column says skipped, and the document
stays as it is. Exit code 1 where Traceway fails a case.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

from proxy import __version__
from tests import balancer
from tests.differential.cases import CASES, GROUPS
from tests.differential.script import Case
from tests.differential.stage import Stage, judge
from tests.served import served
from tests.wire import ScriptedUpstream

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "robustness.md"
MARKS: Final = ("<!-- differential: begin -->\n", "<!-- differential: end -->\n")
# Cases at a time, each with an upstream of its own. Most of a case is waiting for nothing to come.
LANES: Final = 8
# Stands before each target, so that the upstream gets from both proxies what the client sent.
BASE: Final = "/api/proxy/openai"
QUIET_S: Final = 0.15
# What the cases of silence wait for, in both.
LIMIT_S: Final = 2

# A reverse proxy as one would set it up for an API that streams, and as near to ours as it goes:
# the same Hosts, the same places, the same bounds and limits.
NGINX: Final = """
{user} worker_processes 1; daemon off; pid nginx.pid; error_log nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; server_tokens off; client_max_body_size 0; client_header_timeout 10s;
  large_client_header_buffers 4 64k; underscores_in_headers on; merge_slashes off;
  client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u;
  scgi_temp_path s;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
  proxy_request_buffering off; proxy_redirect off; proxy_read_timeout {limit_s}s;
  proxy_connect_timeout {limit_s}s; proxy_buffer_size 64k; proxy_buffers 8 64k;
  proxy_busy_buffers_size 128k; proxy_pass_header Server; proxy_pass_header Date;
  {lanes}
}}
"""
LANE: Final = """
  upstream {name} {{ server 127.0.0.1:{upstream}; keepalive 64; }}
  server {{ listen 127.0.0.1:{port} default_server; return 421; }}
  server {{
    listen 127.0.0.1:{port}; server_name localhost 127.0.0.1;
    location / {{ return 404; }}
    location /api/proxy/ {{ proxy_pass http://{name}; }}
  }}
"""


@dataclass
class Proxy:
    """A proxy under test; `failures` says of each case that it failed what happened."""

    name: str
    version: str
    failures: dict[str, str] = field(default_factory=dict)


async def main() -> int:
    """Run; 1 where Traceway fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential.run", description=__doc__)
    parser.add_argument("--only", metavar="WORDS", help="cases whose name has these words")
    parser.add_argument("--check", action="store_true", help="leave the document as it is")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.only or options.only in case.id]
    began_s = time.monotonic()
    traceway = Proxy("Traceway", f"{__version__} on Python {platform.python_version()}")
    nginx = find_nginx()
    upstreams = [ScriptedUpstream() for _ in range(LANES * 2)]
    for upstream in upstreams:
        await upstream.start()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = await stack.enter_async_context(traceway_before(folder, upstreams[:LANES]))
        runs = [run(traceway, cases, upstreams[:LANES], ports)]
        if nginx is not None:
            ports = await stack.enter_async_context(nginx_before(folder, upstreams[LANES:]))
            runs.append(run(nginx, cases, upstreams[LANES:], ports))
        await asyncio.gather(*runs)
        for upstream in upstreams:
            await upstream.stop()
    report(cases, traceway, nginx)
    # Not in the document, so that it changes with the results alone.
    print(f"{len(cases)} cases took {time.monotonic() - began_s:.0f} s")
    if nginx is not None and not options.only and not options.check:
        write(table(traceway, nginx))
    return 1 if traceway.failures else 0


async def run(
    proxy: Proxy,
    cases: Sequence[Case],
    upstreams: Sequence[ScriptedUpstream],
    ports: Sequence[int],
    quiet_s: float = QUIET_S,
) -> None:
    """Play all cases against a proxy, several at a time."""
    # The long ones first, so that none is alone at the end.
    waiting = sorted(cases, key=lambda case: sum(move.seconds for move in case.script))

    async def lane(number: int) -> None:
        stage = Stage(upstreams[number], ports[number], quiet_s)
        while waiting:
            case = waiting.pop()
            wrong = judge(case, await stage.play(case, lane_name(number)))
            if wrong is not None:
                proxy.failures[case.id] = wrong

    await asyncio.gather(*(lane(number) for number in range(len(upstreams))))


@asynccontextmanager
async def traceway_before(
    folder: Path, upstreams: Sequence[ScriptedUpstream]
) -> AsyncIterator[list[int]]:
    """Serve, as a person does, before these upstreams; give the port of each."""
    config = folder / "traceway.toml"
    # Nobody reads the log of a server that a script starts.
    lines = ["[server]", "log_calls = false"]
    for number, upstream in enumerate(upstreams):
        name = lane_name(number).decode()
        lines += [f"[upstreams.{name}]", f'url = "{upstream.url}{BASE}"']
        lines += [f"headers_timeout_s = {LIMIT_S}", f"idle_timeout_s = {LIMIT_S}"]
    config.write_text("\n".join(lines))
    async with served(folder, "--config", str(config)) as server:
        yield [server.port] * len(upstreams)


def find_nginx() -> Proxy | None:
    """Give nginx with its version, None where it is not installed."""
    if (program := balancer.program()) is None:
        print("skipped: nginx, which is not here (Debian: apt-get install nginx)")
        return None
    said = subprocess.run([program, "-v"], check=True, capture_output=True, text=True).stderr
    return Proxy("nginx", said.strip().rpartition("/")[2])


@asynccontextmanager
async def nginx_before(
    folder: Path, upstreams: Sequence[ScriptedUpstream]
) -> AsyncIterator[list[int]]:
    """Run nginx before these upstreams; give the port of each."""
    program = balancer.program()
    assert program is not None
    ports = [balancer.free_port() for _ in upstreams]
    lanes = "".join(
        LANE.format(name=lane_name(number).decode(), upstream=upstream.port, port=ports[number])
        for number, upstream in enumerate(upstreams)
    )
    # Its worker writes into our folder, which nobody else may read.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(user=user, lanes=lanes, limit_s=LIMIT_S))
    process = await asyncio.create_subprocess_exec(
        *(program, "-p", f"{folder}/", "-c", "nginx.conf"), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while True:
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", ports[-1])
                writer.close()
                break
            if process.returncode is not None:
                raise SystemExit("nginx does not start: its configuration is not for this version")
            await asyncio.sleep(0.05)
        yield ports
    finally:
        process.terminate()
        await process.wait()


def lane_name(number: int) -> bytes:
    """Give a lane's name, up to 16 of them."""
    return b"lane_%x" % number  # as long as "openai", which stands there in the cases


# What is shown.


def report(cases: Sequence[Case], traceway: Proxy, nginx: Proxy | None) -> None:
    """Print a line for each case, and what went wrong where it did."""
    for case in cases:
        beside = "skipped" if nginx is None else _word(nginx, case)
        print(f"{case.id:52} {_word(traceway, case):5} {beside}")
        for proxy in (traceway, nginx):
            if proxy is not None and case.id in proxy.failures:
                print(f"    {proxy.name}: {proxy.failures[case.id]}")
    for proxy in (traceway, nginx):
        if proxy is not None:
            print(f"{proxy.name} {proxy.version}: fails {len(proxy.failures)} of {len(cases)}")


def table(traceway: Proxy, nginx: Proxy) -> str:
    """Give the document's part: a summary, then each group of cases."""
    lines = [
        f"{len(CASES)} cases. Traceway {traceway.version} fails {len(traceway.failures)},"
        f" nginx {nginx.version} fails {len(nginx.failures)}.",
        "",
        "| group | cases | Traceway fails | nginx fails |",
        "| --- | --- | --- | --- |",
    ]
    for title, cases in GROUPS:
        ours, theirs = (sum(c.id in proxy.failures for c in cases) for proxy in (traceway, nginx))
        lines.append(f"| {title} | {len(cases)} | {ours} | {theirs} |")
    for title, cases in GROUPS:
        lines += ["", f"### {title}", "", "| case | Traceway | nginx |", "| --- | --- | --- |"]
        for why, alike in groupby(cases, key=lambda case: case.why):
            lines.append(f"| *{_escaped(why[0].upper() + why[1:])}* | | |")
            for case in alike:
                cells = (_escaped(case.id), _cell(traceway, case), _cell(nginx, case))
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(text: str) -> None:
    """Put the text between the document's markers."""
    before, begin, rest = DOCUMENT.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    assert begin, f"no marker in {DOCUMENT}"
    assert end, f"no marker in {DOCUMENT}"
    DOCUMENT.write_text(before + begin + "\n" + text + "\n" + end + after)


def _word(proxy: Proxy, case: Case) -> str:
    return "FAILS" if case.id in proxy.failures else "pass"


def _cell(proxy: Proxy, case: Case) -> str:
    wrong = proxy.failures.get(case.id)
    return "pass" if wrong is None else f"**fails**: {_escaped(wrong)}"


def _escaped(text: str) -> str:
    return re.sub(r"([|<>*_`\\])", r"\\\1", text)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
