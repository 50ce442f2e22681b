"""A Traceway in a process of its own, as a person starts it."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.wire import TIMEOUT_S

ROOT = Path(__file__).parent.parent
# Starting Python and its libraries on a busy machine takes longer than any answer.
START_S = 60.0


@dataclass
class Served:
    """A server that is ready; `lines` is what it printed until then."""

    process: asyncio.subprocess.Process
    lines: list[str]

    @property
    def port(self) -> int:
        found = re.search(r"http://(?:\[.*?\]|[^:/]+):(\d+)/sessions", "\n".join(self.lines))
        assert found is not None, self.lines
        return int(found[1])

    async def line(self) -> str:
        """Read the next line that it prints."""
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def ended(self) -> int:
        """Wait for its end; give the exit code."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self.process.wait()


@asynccontextmanager
async def served(
    folder: Path,
    *options: str,
    environ: Mapping[str, str] | None = None,
    stderr: int = asyncio.subprocess.PIPE,
    files: int | None = None,
    database: str | None = None,
) -> AsyncIterator[Served]:
    """Serve on a free port with a database in the folder, or another, until the block ends.

    `stderr` is a file descriptor of the caller's; `files` the most that the server may open.
    """
    options = ("--port", "0", "--db", database or str(folder / "traceway.db"), *options)
    process = await start(*options, stderr=stderr, environ=environ, files=files)
    server = Served(process, [])
    try:
        while not server.lines or "  data  " not in server.lines[-1]:
            server.lines.append(await server.line())
            assert server.lines[-1], (await process.communicate())[1]
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def start(
    *options: str,
    environ: Mapping[str, str] | None = None,
    stderr: int = asyncio.subprocess.PIPE,
    files: int | None = None,
) -> asyncio.subprocess.Process:
    """Start `python -m proxy serve`."""
    limited = () if files is None else ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TRACEWAY_")}
    return await asyncio.create_subprocess_exec(
        *(*limited, sys.executable, "-m", "proxy", "serve", *options),
        cwd=ROOT,
        env={**inherited, **(environ or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )


async def refused(*options: str, **environ: str) -> tuple[int | None, str]:
    """Start a server that must not come up; give its exit code and what it said."""
    process = await start(*options, environ=environ)
    async with asyncio.timeout(START_S):
        out, err = await process.communicate()
    assert out == b""
    return process.returncode, err.decode()
