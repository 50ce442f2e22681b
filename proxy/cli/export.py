"""`traceway export [QUERY]`: sessions as files, all that a query finds or all that there are.

Invariant: a file with the name that was asked for is whole; while it is written it is called
FILE.part, and nothing that is there is overwritten unasked. What is said goes to stderr.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from proxy.api.archive import DEFAULT_FORMAT, FORMATS, MAX_LINE_BYTES, RUNNING_HEADER
from proxy.api.finetune import LINES_HEADER, SKIPPED_HEADER
from proxy.api.params import MAX_LIMIT
from proxy.cli.client import BrokenOff, Client, NoAnswer, Refused
from proxy.cli.command import Add, add_project, note
from proxy.cli.terminal import Screen
from proxy.ui import view

# Formats of which several sessions may stand in one file, one behind the other.
JOINED: Final = frozenset({"jsonl", "json", "finetune"})
# A session that changes while it is read is read again so often.
TRIES: Final = 5
PROGRESS_S: Final = 0.5
_GIVEN_UP: Final = (
    "{} broke off {} times: leave it out of the query; the server's log says why, and"
    " `traceway doctor` looks for damage"
)
_HALF_WRITTEN: Final = (
    "{} broke off, and half of it is written: into a file of its own (-o) it would be read again"
)


@dataclass(frozen=True, slots=True)
class _Row:
    id: str


@dataclass(frozen=True, slots=True)
class _Page:
    sessions: list[_Row]
    truncated: bool = False
    cursor: str | None = None


def add_commands(add: Add) -> None:
    """Add the command, with what it takes."""
    command = add("export", "write sessions to a file, to keep or to import elsewhere", run, check)
    command.add_argument(
        "query", nargs="?", default="", metavar="QUERY", help='as "starred:true since:30d"'
    )
    command.add_argument(
        "--all", action="store_true", help="all sessions, and in an archive all else as well"
    )
    command.add_argument(
        "--format", choices=FORMATS, default=DEFAULT_FORMAT, help=f"({DEFAULT_FORMAT})"
    )
    command.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (stdout)")
    command.add_argument("--force", action="store_true", help="overwrite FILE")
    add_project(command, "the project to export (the first one; with --url, the key's own)")


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be meant, before a server is asked.

    Raises:
        Refused: there is neither a query nor `--all`, or both, or the file is there, or none.
    """
    if bool(options.query.strip()) == options.all:
        raise Refused(400, "say which sessions: a QUERY, or --all")
    path = options.output
    if path is None:
        return
    if not path.name or path.is_dir():
        raise Refused(400, f"{path} is a directory: name a file in it")
    if path.exists() and not options.force:
        raise Refused(400, f"{path} is there already: --force overwrites it")


async def run(client: Client, options: argparse.Namespace, _: Screen) -> None:
    """Export the sessions that a query finds, in the order of their ids."""
    found = await _sessions(client, options.query)
    if options.format not in JOINED and len(found) != 1:
        raise Refused(
            400, f"{len(found):,} sessions fulfil the query, and {options.format} is for one"
        )
    with _target(options.output, force=options.force) as file:
        progress = _Progress(len(found))
        done = _Export(client, options.format, file, progress, is_ours=options.output is not None)
        for session_id in found:
            await done.session(session_id)
        if options.all and options.format == DEFAULT_FORMAT:
            await done.fetch("/api/traces/export", {}, "what has no session")
    where = "" if options.output is None else f" in {options.output}"
    progress.end(f"{done.count:,} sessions, {view.size(progress.bytes)}{where}")
    if options.format == "finetune":
        why = "".join(f", {reason} {count:,}" for reason, count in done.skipped.most_common())
        note(f"{done.lines:,} lines; turns that are in none: {done.skipped.total():,}{why}")
    if done.running:
        note(f"{done.running:,} spans run, and are not in it")
    for what in done.too_long:
        most = f"{MAX_LINE_BYTES:,} bytes"
        note(f"{what} has a line of more than {most}: `traceway import` does not take it")


async def _sessions(client: Client, query: str) -> list[str]:
    """Give the ids of all sessions that a query finds, in their order as UTF-8."""
    found: set[str] = set()
    cursor: str | None = None
    while True:
        page = await client.read(
            _Page,
            "/api/sessions",
            {"q": query, "sort_order": "asc", "limit": MAX_LIMIT, "cursor": cursor},
        )
        found.update(row.id for row in page.sessions)
        if page.truncated:
            raise Refused(
                400, "a word is so common that not all sessions with it are found: add since:"
            )
        if (cursor := page.cursor) is None:
            return sorted(found, key=lambda one: one.encode())


class _Export:
    """An export on its way into a file."""

    def __init__(
        self,
        client: Client,
        format: str,
        file: IO[bytes],
        progress: "_Progress",
        *,
        is_ours: bool,
    ) -> None:
        self.count = 0
        self.running = 0
        self.lines = 0
        self.skipped: Counter[str] = Counter()
        # What has a line that no import takes.
        self.too_long: list[str] = []
        self._client = client
        self._format = format
        self._file = file
        # Where stdout goes, other things may stand before ours.
        self._is_ours = is_ours
        self._progress = progress
        self._passing = _Lines(MAX_LINE_BYTES)

    async def session(self, session_id: str) -> None:
        """Fetch a session, unless it was deleted meanwhile."""
        params: dict[str, str | int | None] = {"id": session_id, "format": self._format}
        what = f"the session {session_id!r}"
        try:
            await self.fetch("/api/sessions/by-id/export", params, what)
        except Refused as refusal:
            if refusal.status != 404:
                raise
        else:
            self.count += 1
            self._progress.next()

    async def fetch(self, path: str, params: dict[str, str | int | None], what: str) -> None:
        """Fetch a file to the end of ours; where it breaks off, again from its beginning.

        Raises:
            BrokenOff: it did so each time, or stands half where nothing is taken back; it says
                ``what`` it was.
            NoAnswer, Refused: there is none.
        """
        for tries_left in reversed(range(TRIES)):
            start = self._progress.bytes
            self._passing = _Lines(MAX_LINE_BYTES)
            try:
                headers = await self._client.download(path, params, self._take)
            except BrokenOff:
                is_begun = self._progress.bytes > start
                if is_begun and not self._is_ours:
                    raise BrokenOff(_HALF_WRITTEN.format(what)) from None
                if not tries_left:
                    raise BrokenOff(_GIVEN_UP.format(what, TRIES)) from None
                if is_begun:
                    self._file.seek(start)
                    self._file.truncate()
                    self._progress.bytes = start
            except Refused as refusal:
                if refusal.status != 409:
                    raise
                if not tries_left:
                    raise BrokenOff(_GIVEN_UP.format(what, TRIES)) from None
            else:
                self.running += int(headers.get(RUNNING_HEADER, "0"))
                self.lines += int(headers.get(LINES_HEADER, "0"))
                if self._passing.are_too_long and self._format == DEFAULT_FORMAT:
                    self.too_long.append(what)
                for told in filter(None, headers.get(SKIPPED_HEADER, "").split(", ")):
                    reason, _, count = told.partition("=")
                    self.skipped[reason] += int(count)
                return

    def _take(self, piece: bytes) -> None:
        self._file.write(piece)
        self._passing.add(piece)
        self._progress.add(len(piece))


class _Lines:
    """Tells whether one of the lines that pass has more bytes than it may, its end among them."""

    def __init__(self, most_bytes: int) -> None:
        self.are_too_long = False
        self._most_bytes = most_bytes
        self._bytes = 0

    def add(self, piece: bytes) -> None:
        """Look at the next bytes."""
        begin = 0
        while end := piece.find(b"\n", begin) + 1:
            self._pass(end - begin)
            self._bytes, begin = 0, end
        self._pass(len(piece) - begin)

    def _pass(self, count: int) -> None:
        self._bytes += count
        self.are_too_long |= self._bytes > self._most_bytes


class _Progress:
    """Says on a terminal how far it is."""

    def __init__(self, total: int) -> None:
        self.bytes = 0
        self._total = total
        self._count = 0
        self._is_shown = sys.stderr.isatty()
        self._next_s = 0.0

    def add(self, count: int) -> None:
        """Count bytes."""
        self.bytes += count
        self._show()

    def next(self) -> None:
        """Count a session."""
        self._count += 1
        self._show()

    def _show(self) -> None:
        now_s = time.monotonic()
        if self._is_shown and now_s >= self._next_s:
            self._next_s = now_s + PROGRESS_S
            text = f"{self._count:,} of {self._total:,} sessions, {view.size(self.bytes)}"
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self, text: str) -> None:
        """Say what was done."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr)
        note(text)


class _Appeared(Exception):
    """A file has the name that was to be given, and did not have it before."""


def _name(part: Path, path: Path, *, force: bool) -> None:
    """Give a file its name; without ``force``, never one that another has."""
    if force:
        part.rename(path)
        return
    try:
        os.link(part, path)  # a rename would overwrite
    except FileExistsError:
        raise _Appeared from None
    except OSError:  # a file system without links
        if path.exists():
            raise _Appeared from None
        part.rename(path)
    else:
        part.unlink()


@contextmanager
def _target(path: Path | None, *, force: bool) -> Iterator[IO[bytes]]:
    """Open what is written to; a file has its name when it is whole.

    Raises:
        NoAnswer: it cannot be written; of stdout command.py says so.
    """
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f"{path.name}.part")
    try:
        if force:
            part.unlink(missing_ok=True)
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _name(part, path, force=force)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    except _Appeared:
        raise NoAnswer(f"{path} appeared meanwhile: --force overwrites it") from None
    except FileExistsError:
        raise NoAnswer(
            f"{part} is there: another export writes it, or one was killed; --force begins anew"
        ) from None
    except OSError as error:
        raise NoAnswer(f"{path} cannot be written: {error.strerror or error}") from None
