"""Running the commands: in this process, or as one of their own, as a person does."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from proxy.__main__ import main
from tests.served import ROOT, START_S


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


async def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> Said:
    """Run a command to its end."""
    capsys.readouterr()
    code = await asyncio.to_thread(main, arguments)
    return Said(code, *capsys.readouterr())


@dataclass
class Started:
    """A command that runs in a process of its own."""

    process: asyncio.subprocess.Process

    async def line(self) -> str:
        """Read the next line of its output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            line = (await self.process.stdout.readline()).decode()
        assert line.endswith("\n"), (line, await self.note())
        return line[:-1]

    async def note(self) -> str:
        """Read the next line that it says beside its output."""
        assert self.process.stderr is not None
        async with asyncio.timeout(START_S):
            return (await self.process.stderr.readline()).decode().rstrip("\n")

    async def ended(self) -> Said:
        """Wait for its end; give the rest of what it said."""
        async with asyncio.timeout(START_S):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return Said(self.process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def started(
    *arguments: str,
    keyboard: int = asyncio.subprocess.DEVNULL,
    terminal: int = asyncio.subprocess.PIPE,
    **environ: str,
) -> AsyncIterator[Started]:
    """Start a command, with a clock that shows UTC.

    ``keyboard`` is what it reads from, ``terminal`` what it writes to.
    """
    # Whoever runs the tests may have set either.
    shape = ("NO_COLOR", "COLUMNS")
    inherited = {name: value for name, value in os.environ.items() if name not in shape}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *arguments),
        cwd=ROOT,
        env={**inherited, "TZ": "UTC", **environ},
        stdin=keyboard,
        stdout=terminal,
        stderr=asyncio.subprocess.PIPE,
        # Away from the terminal of whoever runs the tests, where it would ask for secrets.
        start_new_session=keyboard != asyncio.subprocess.DEVNULL,
        # As from a terminal: what a shell starts in the background is deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield Started(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
