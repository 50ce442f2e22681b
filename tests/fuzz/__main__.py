"""Ask the API of a real server whatever fits its description, and much that does not.

schemathesis makes the requests out of /api/openapi.json: as an admin, with a read key, with a write
key, with a wrong key and with none. Nothing may be a 5xx, no answer outside what is described, and
no scope may be passed. The database is the demo's, the upstream is here, and all is on loopback.

Usage: `make fuzz`, or with ARGS="--seed N" to see again what failed; --examples for more.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from tests.ui.demo import demo, talks
from tests.ui.rich import rich

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
HOME = ROOT / ".venv" / "fuzz"
READY_S = 60.0
STOP_S = 15.0
# All but: every text in `q` is allowed, and few are queries (positive_data_acceptance); keys are
# what the runs differ in, and a wrong one is answered slowly (ignored_auth).
WITHOUT = "positive_data_acceptance,ignored_auth"
# Who asks, and how many examples of each operation, relative to those of the first. Where nobody is
# let in each answer waits a second, so that many wait at once. What an admin deletes nobody reads,
# so that comes last.
RUNS = {"admin": 1.0, "read": 0.5, "write": 0.25, "none": 0.1, "wrong": 0.1, "deleting": 0.5}
LETS_IN = {"admin": "admin", "deleting": "admin", "read": "read", "write": "write"}
WAITING = 16
WATCHED = 40
# All but TRACE, which through the proxy is a 501.
METHODS = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"]
QUERIES = (
    *("cost:>0.001", "status:failed", "-status:completed model:gpt-4o*", "refund", '"lost in"'),
    *("since:7d", "until:1h", "tokens:10..1M", "duration:>5s errors:1", "starred:true"),
    *("session:*", "input:order -output:refund", "user:nobody", "source:header provider:openai"),
    *('"', "cost:", "model:>5", "tokens:9..1", "since:never", "key:x", "*", "NEAR(", "a" * 1999),
)


def main() -> int:
    """Make all runs; 0 where none of them found anything."""
    parser = argparse.ArgumentParser(description="whatever the API can be asked, asked")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))  # noqa: S311
    parser.add_argument("--examples", type=int, default=30, help="of each operation")
    parser.add_argument("--only", choices=RUNS, help="one run")
    options = parser.parse_args()
    subprocess.run([ROOT / ".ci" / "venv", HOME, HERE / "requirements.lock.txt"], check=True)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        return asyncio.run(fuzz(Path(scratch), options))


async def fuzz(folder: Path, options: argparse.Namespace) -> int:
    """Serve the demo's database and ask it; give how many runs found something."""
    now_us = time.time_ns() // 1000
    async with demo(folder, talks(), now_us) as tw:
        await rich(tw, at_us=now_us - 3600_000_000)
        await tw.saved()
    async with upstream() as upstream_url:
        log = folder / "server.log"
        with serving(folder, upstream_url, log) as url:
            return await asyncio.to_thread(ask_all, folder, url, log, options)


def ask_all(folder: Path, url: str, log: Path, options: argparse.Namespace) -> int:
    """Make keys, then each run with its own."""
    keys = make_keys(url)
    admin = keys["admin"]
    made, failed = 0, []
    settings = f"[phases.coverage]\nunexpected-methods = {json.dumps(METHODS)}\n"
    (folder / "schemathesis.toml").write_text(settings)
    for name, share in RUNS.items():
        if options.only in (None, name):
            made += 1
            started_s = time.monotonic()
            key = keys[LETS_IN.get(name, name)]
            described = folder / f"{name}.json"
            described.write_text(
                json.dumps(sharpened(url, admin, is_admin=LETS_IN.get(name) == "admin"))
            )
            examples = max(1, round(options.examples * share))
            if not ask(described, url, name, key, examples, options.seed):
                failed.append(name)
            if not watch(url, name, key, options.seed):
                failed.append(f"{name}, events")
            if name in LETS_IN and call(url, "/api/self", key)["scope"] != LETS_IN[name]:
                failed.append(f"{name}, whose key is another")
            print(f"== {name} took {time.monotonic() - started_s:.0f} s", flush=True)
    said = log.read_text(errors="replace")
    if "Traceback" in said:
        print(said[-20_000:])
        failed.append("the server's log has a traceback")
    if failed:
        print(f"failed: {'; '.join(failed)} (--seed {options.seed})")
    print(f"{max(0, made - len(failed))} passed, {len(failed)} failed")
    return len(failed)


def ask(described: Path, url: str, name: str, key: str | None, examples: int, seed: int) -> bool:
    """Have schemathesis ask; tell whether it found nothing."""
    lets_in = name in LETS_IN
    command: list[str | Path] = [HOME / "bin" / "schemathesis", "run", described, "--url", url]
    command += ["--checks", "all", "--exclude-checks", WITHOUT, "--seed", str(seed)]
    command += ["--max-examples", str(examples), "--exclude-operation-id", "watchEvents"]
    command += ["--phases", "examples,coverage,fuzzing" if lets_in else "fuzzing"]
    command += ["--workers", "1" if lets_in else str(WAITING), "--request-timeout", "20"]
    command += ["--generation-with-security-parameters", "false", "--continue-on-failure"]
    command += ["--generation-database", "none", "--warnings", "off", "--no-color"]
    command += ["--suppress-health-check", "all", "--output-sanitize", "true"]
    if name == "admin":
        command += ["--exclude-method", "DELETE", "--exclude-operation-id", "createErasure"]
    if key is not None:
        command += ["--header", f"Authorization: Bearer {key}"]
    environ = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
        "TRACEWAY_FUZZ_SCOPE": LETS_IN.get(name, "none"),
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
    }
    print(f"== {name}", flush=True)
    done = subprocess.run(command, cwd=described.parent, env=environ, stdin=subprocess.DEVNULL)
    return done.returncode == 0


def watch(url: str, name: str, key: str | None, seed: int) -> bool:
    """Open the event stream in many ways, which has no end that schemathesis could wait for."""
    numbers = random.Random(seed)  # noqa: S311
    odd = ("", "0", "1", "-1", "9" * 18, "9" * 19, "x", "trace_created", "a,b", "\x00", "é", "1.0")
    names = ("since", "session", "kind", "model", "progress", "token", "q")
    good = {"read": {200, 400}, "admin": {200, 400}, "write": {403}}.get(
        LETS_IN.get(name, ""), {401}
    )
    for _ in range(WATCHED if 200 in good else 5):
        query = {one: numbers.choice(odd) for one in names if numbers.random() < 0.3}
        request = urllib.request.Request(f"{url}/api/events?{urlencode(query)}")  # noqa: S310
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        if numbers.random() < 0.3:
            request.add_header("Last-Event-ID", numbers.choice(odd[:7]))
        try:
            with urllib.request.urlopen(request, timeout=READY_S) as answer:  # noqa: S310
                status, kind = answer.status, answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            status, kind = error.code, error.headers["Content-Type"]
        expected = "text/event-stream" if status == 200 else "application/json; charset=utf-8"
        if status not in good or kind.partition(";")[0] != expected.partition(";")[0]:
            print(f"GET /api/events?{urlencode(query)}: {status} {kind}")
            return False
    return True


def make_keys(url: str) -> dict[str, str | None]:
    """Make a key of each scope, the first without one; and keys that may be revoked."""
    found: dict[str, str | None] = {"none": None, "wrong": "tw_sk_" + "x" * 43}
    admin = None
    for scope in ("admin", "read", "write"):
        made = call(url, "/api/keys", admin, {"name": f"fuzz {scope}", "scope": scope})
        found[scope] = made["key"]
        admin = admin or made["key"]
    for name in ("shop", "another"):
        call(url, "/api/projects", admin, {"name": name})
    return found


def sharpened(url: str, admin: str | None, *, is_admin: bool) -> Any:
    """Give the description with closed objects, and with values that name what is there."""
    described = call(url, "/api/openapi.json", admin)
    for name, schema in described["components"]["schemas"].items():
        # What is exported may have fields that we do not know: so OTLP has it.
        if "properties" in schema and name != "ExportTraceServiceRequest":
            schema.setdefault("additionalProperties", False)
    known = there(url, admin)
    revocable = [
        call(url, "/api/keys", admin, {"name": f"to revoke {n}", "scope": "read"})["id"]
        for n in range(5)
    ]
    for path, item in described["paths"].items():
        for operation in item.values():
            parameters = [p for p in operation.get("parameters", []) if "$ref" not in p]
            for one in parameters:
                values = known.get(f"{path} {one['name']}") or known.get(one["name"])
                if path == "/api/keys/{id}":
                    values = revocable
                if values:
                    sharpen(one, values)
            if is_admin and len(operation.get("parameters", [])) > len(parameters):
                projects = {"anyOf": [{"enum": ["default", "shop"]}, {"type": "string"}]}
                parameters.append(
                    {"name": "X-Traceway-Project", "in": "header", "schema": projects}
                )
            operation["parameters"] = parameters
    return described


def sharpen(parameter: Any, values: Sequence[object]) -> None:
    """Have about every other value of a parameter be one of these."""
    schema = parameter["schema"]
    if schema.get("type") == "array":
        schema["items"] = {"anyOf": [{"enum": values}, schema["items"]]}
        parameter.pop("example", None)
        return
    parameter["schema"] = {"anyOf": [{"enum": values}, schema]}
    parameter["example"] = values[0]


def there(url: str, admin: str | None) -> dict[str, list[Any]]:
    """Give what names something in the database, by the parameter, with its path where needed."""
    sessions = call(url, "/api/sessions?limit=20", admin)["sessions"]
    traces = [one["id"] for one in call(url, "/api/traces?limit=20", admin)["traces"]]
    spans = [one["id"] for one in call(url, "/api/spans?limit=20", admin)["spans"]]
    names = [one["id"] for one in sessions]
    messages: list[str] = []
    for name in names[:5]:
        path = f"/api/sessions/{quote(name, safe='')}/conversation"
        messages += [one["id"] for one in call(url, path, admin)["messages"] if "-" in one["id"]]
    found: dict[str, list[Any]] = {
        "q": list(QUERIES),
        "session_id": names,
        "branch": messages,
        "upstream": ["openai"],
        "path": ["v1/models", "v1/chat/completions"],
        "/api/messages/{id} id": messages,
        "/api/projects/{name} name": ["shop"],
    }
    for below in ("", "/conversation"):
        found[f"/api/sessions/{{id}}{below} id"] = names
        found[f"/api/sessions/by-id{below} id"] = names
    for path in ("/api/traces", "/api/traces/{id}"):
        found[f"{path} id"] = traces
    for path in ("/api/spans", "/api/spans/{id}", "/api/spans/{id}/request"):
        found[f"{path} id"] = spans
    found["/api/spans/{id}/response id"] = spans
    for path in ("/api/sessions", "/api/traces", "/api/spans"):
        page = call(url, f"{path}?limit=1", admin)
        found[f"{path} cursor"] = [page["cursor"]] if "cursor" in page else []
    return found


def call(url: str, path: str, key: str | None, body: object = None) -> Any:
    """GET, or POST where there is a body, as JSON; it must succeed."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data)  # noqa: S310
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=READY_S) as answer:  # noqa: S310
        return json.loads(answer.read())


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    """Serve an upstream that takes whatever comes; give its URL."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"id": "x", "object": "list", "data": []})

    app = web.Application()
    app.router.add_route("*", r"/{path:[\s\S]*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def serving(folder: Path, upstream_url: str, log: Path) -> Iterator[str]:
    """Serve the database of a folder; give the URL, and expect the server to end well."""
    port_file = log.with_suffix(".out")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("TRACEWAY_")}
    environ["TRACEWAY_PROVIDER_KEY_OPENAI"] = "sk-fuzz-0123456789"
    options = ["--port", "0", "--db", str(folder / "traceway.db")]
    options += ["--upstream", f"openai={upstream_url}"]
    with port_file.open("wb") as out, log.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "serve", *options],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    try:
        yield address(process, port_file, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise SystemExit(f"the server ended with {process.returncode}:\n{log.read_text()}")


def address(process: subprocess.Popen[bytes], printed: Path, log: Path) -> str:
    """Wait for a server to say where it is."""
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and process.poll() is None:
        lines = printed.read_text().splitlines()
        if lines and "  data  " in lines[-1]:
            (found,) = [word for line in lines for word in line.split() if "/sessions" in word]
            return found.removesuffix("/sessions")
        time.sleep(0.05)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


if __name__ == "__main__":
    raise SystemExit(main())
