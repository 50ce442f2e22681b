"""`make bench-move`: how fast a database is moved to PostgreSQL, and whether it is the same then.

`python -m bench.move` makes a database of 200,000 traces with their messages, and moves it twice
with `traceway migrate`, into empty databases of a server of its own (or of `--to`): once in one
go, and once killed with `kill -9` after a third and two thirds of its rows and gone on with. Both
proofs must be equal, or this ends with 1.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import large, postgres

TRACES_A_SESSION: Final = 20
ASK_S: Final = 0.02


@dataclass(frozen=True)
class Run:
    """A run of the command: what it said, and what it took."""

    code: int
    result: dict[str, Any] | None
    seconds: float
    peak_bytes: int


def main() -> int:
    """Make a database, move it, and print what it took."""
    parser = argparse.ArgumentParser(prog="python -m bench.move", description=__doc__)
    parser.add_argument("--traces", type=int, default=200_000, help="(200,000)")
    parser.add_argument("--keep", type=Path, help="the database: made where it is not there")
    parser.add_argument("--to", metavar="URL", help="a server's database; `bench` is made beside")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        postgres.may_be_read(folder)
        source = given.keep or folder / "move.db"
        if not source.exists():
            large.make(source, given.traces // TRACES_A_SESSION, given.traces, messages=True)
        print(f"{given.traces:,} traces: {source.stat().st_size / 1e6:,.0f} MB of SQLite")
        with postgres.database(folder, given.to and postgres.new(given.to, "bench")) as url:
            whole = _run(source, url)
            _report("in one go", whole, given.traces)
            ((size,),) = asyncio.run(
                postgres.run(url, "SELECT pg_database_size(current_database())")
            )
            print(f"{'of PostgreSQL, with all indexes':44}{int(str(size)) / 1e6:>12,.0f} MB")
            broken = _interrupted(source, postgres.new(url, "bench_again"), whole)
            _report("killed twice and gone on with", broken, given.traces)
    return whole.code or broken.code


def _command(source: Path, url: str) -> list[str]:
    return [sys.executable, "-m", "proxy", "migrate", str(source), url, "--json"]


def _run(source: Path, url: str) -> Run:
    """Move it to its end."""
    began = time.monotonic()
    peak_bytes = 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(_command(source, url), stdout=out, stderr=errors, text=True)
        while process.poll() is None:
            peak_bytes = max(peak_bytes, _peak(process.pid))
            time.sleep(ASK_S)
        seconds = time.monotonic() - began
        out.seek(0)
        text = out.read()
        errors.seek(0)
        if process.returncode:
            print("".join(errors.readlines()[-3:]), end="")
    return Run(process.returncode, json.loads(text) if text else None, seconds, peak_bytes)


def _peak(pid: int) -> int:
    """Give the most memory that a process had, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _interrupted(source: Path, url: str, whole: Run) -> Run:
    """Move it, with two kills on the way."""
    rows = (whole.result or {"moved": {"rows": 0}})["moved"]["rows"]
    for part in (1, 2):
        process = subprocess.Popen(
            _command(source, url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        reached = 0
        while process.poll() is None and reached < rows * part // 3:
            time.sleep(ASK_S)
            reached = asyncio.run(_reached(url))
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"killed with {reached:,} of {rows:,} rows there")
    return _run(source, url)


async def _reached(url: str) -> int:
    """Give how many rows have crossed of a move that is under way."""
    ((is_there,),) = await postgres.run(url, "SELECT to_regclass('moves') IS NOT NULL")
    if not is_there:
        return 0
    ((count,),) = await postgres.run(url, "SELECT row_count FROM moves")
    return int(str(count))


def _report(name: str, run: Run, traces: int) -> None:
    print(f"\n{name}: exit code {run.code}")
    if run.result is None:
        return
    moved, proof = run.result["moved"], run.result["proof"]
    equal = sum(line["is_equal"] for line in proof)
    for what, figure in (
        ("rows moved", f"{moved['rows']:,}"),
        ("rows of before", f"{moved['rows_before']:,}"),
        ("seconds for the rows and indexes", f"{moved['seconds']:,.1f}"),
        ("rows a second", f"{moved['rows'] / moved['seconds']:,.0f}"),
        ("seconds for all, with proof and search", f"{run.seconds:,.1f}"),
        ("traces a second, of all", f"{traces / run.seconds:,.0f}"),
        ("most memory of the command, MB", f"{run.peak_bytes / 1e6:,.0f}"),
        ("figures of the proof that are equal", f"{equal:,} of {len(proof):,}"),
        ("messages that no search has", str(run.result["waiting_for_search"])),
    ):
        print(f"{what:44}{figure:>12}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
