"""`traceway import FILE...`: archives that `traceway export` wrote, into a project."""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Final

from proxy.api.archive import JSON_LINES, ImportedView
from proxy.cli.client import Client, Refused
from proxy.cli.command import Add, add_project, note
from proxy.cli.terminal import Screen, safe_json
from proxy.ui import view

# Bytes that are read at once.
PIECE_BYTES: Final = 256 * 1024
PROGRESS_S: Final = 0.5
STDIN: Final = "-"


def add_commands(add: Add) -> None:
    """Add the command, with what it takes."""
    command = add("import", "store what archives hold; what is there already stays", run, check)
    command.add_argument("files", nargs="+", metavar="FILE", help="archives; - is stdin")
    add_project(command, "the project to import into (the first one; with --url, the key's own)")


def check(options: argparse.Namespace) -> None:
    """Refuse files that cannot be read, before a server is asked.

    Raises:
        Refused: there is one.
    """
    for name in options.files:
        if name != STDIN:
            try:
                with Path(name).open("rb"):
                    pass
            except OSError as error:
                raise Refused(400, f"{name} cannot be read: {error.strerror or error}") from None


async def run(client: Client, options: argparse.Namespace, _: Screen) -> None:
    """Send files one behind the other, as one archive."""
    answer = await client.upload("/api/import", JSON_LINES, _pieces(options.files))
    if options.json:
        print(safe_json(answer))
        return
    done = client.decode(ImportedView, answer)
    known = f"; {done.known_spans:,} spans were there already" if done.known_spans else ""
    print(f"{done.sessions:,} sessions: {done.traces:,} traces, {done.spans:,} spans{known}")


async def _pieces(names: Sequence[str]) -> AsyncIterator[bytes]:
    """Give the bytes of files, one behind the other, and say on a terminal how far it is."""
    sent_bytes, next_s = 0, 0.0
    for name in names:
        with _opened(name) as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece
                sent_bytes += len(piece)
                now_s = time.monotonic()
                if sys.stderr.isatty() and now_s >= next_s:
                    next_s = now_s + PROGRESS_S
                    print(f"\r{view.size(sent_bytes)}\x1b[K", end="", file=sys.stderr, flush=True)
    if next_s:
        print("\r\x1b[K", end="", file=sys.stderr)
    if not sent_bytes:
        note("there is nothing in it")


def _opened(name: str) -> IO[bytes]:
    return sys.stdin.buffer if name == STDIN else Path(name).open("rb")
