"""`traceway migrate`: moves a SQLite database to PostgreSQL, says how far it is, and proves it.

What is moved and compared is storage's; here are the lines that a person or a script reads. On
stdout stands the result alone; progress is on stderr, as one line that changes in a terminal and as
a line now and then elsewhere. It needs no server, and refuses where one has the source.
"""

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, TextIO

from proxy.config import Config
from proxy.providers.messages import text_of
from storage.database import StorageError
from storage.postgres import open_postgres
from storage.proof import Line, prove
from storage.transport import Moved, index_all, move
from storage.transport_source import open_source
from storage.transport_target import open_target

# How often something is said of how far it is, in seconds: in a terminal, and in a log.
SHOWN_S: Final = 0.2
LOGGED_S: Final = 5.0
# How it goes on after Ctrl-C, by whether this run has moved all rows.
_GOES_ON: Final = {
    False: "the same command goes on",
    True: "all rows are there: --proof-only compares them, and any server goes on with the search",
}


def migrate(config: Config, options: argparse.Namespace) -> int:
    """Move a database, or go on with it, and compare both; 1 where anything differs.

    Raises:
        StorageError: one of both cannot be used, or they do not belong together.
    """
    shown = Progress(sys.stderr)
    try:
        return asyncio.run(_migrate(options, shown))
    except KeyboardInterrupt:
        shown.end()
        print(f"traceway: interrupted: {_GOES_ON[shown.has_moved]}", file=sys.stderr)
        return 130
    finally:
        shown.end()


async def _migrate(options: argparse.Namespace, shown: "Progress") -> int:
    if str(options.source).startswith(("postgres:", "postgresql:")):
        # Not repeated: it may have a password.
        problem, remedy = "it is no file", "name the SQLite file, then the database"
        raise StorageError("the first of the two", problem, remedy)
    target = None
    try:
        with open_source(options.source) as source:
            target = await open_target(options.target)
            moved = None if options.proof_only else await move(source, target, shown.rows)
            shown.has_moved = moved is not None
            lines = []
            async for line in prove(source, target, shown.step):
                lines.append(line)
                if not options.json:
                    shown.end()
                    print(_line(line), flush=True)
        shown.end()
        result = Result(str(source.path), target.place, moved, lines)
        if not options.json:
            print(result.text(), flush=True)
        if moved is not None and result.is_equal:
            try:
                result.waiting = await _index(options.target, shown)
                for table in ("messages_fts", "unindexed"):
                    await target.tidy(table)
            except StorageError as error:  # what was proved stands, and servers do the rest
                shown.end()
                print(f"traceway: {error}", file=sys.stderr)
            shown.end()
            if not options.json:
                print(result.search(), flush=True)
        if options.json:
            print(result.json(), flush=True)
        return 0 if result.is_equal else 1
    finally:
        if target is not None:
            await target.close()


class _Stopped(Exception):
    """Ends what a thread does after Ctrl-C."""


async def _index(url: str, shown: "Progress") -> int:
    """Fill the full text; give how many messages still wait for it."""
    stopped = threading.Event()

    def tell(what: str, done: int, of: int) -> None:
        if stopped.is_set():
            raise _Stopped
        shown.rows(what, done, of)

    def index() -> int:
        database = open_postgres(url, synchronous_commit=False)
        try:
            return index_all(database, text_of, tell)
        finally:
            database.abandon()

    try:
        return await asyncio.to_thread(index)
    finally:
        stopped.set()


@dataclass
class Result:
    """What came of it.

    ``moved``: None where nothing was to be moved; ``waiting``: how many messages wait for the full
    text, None where none were brought into it.
    """

    source: str
    target: str
    moved: Moved | None
    proof: list[Line]
    waiting: int | None = None

    @property
    def is_equal(self) -> bool:
        """Whether each figure is."""
        return all(line.is_equal for line in self.proof)

    def json(self) -> str:
        """Write all of it as one object."""
        moved = self.moved
        found = {
            "source": self.source,
            "target": self.target,
            "moved": moved
            and {
                "rows_before": moved.before,
                "rows": moved.rows.total(),
                "rows_by_table": dict(moved.rows),
                "texts_cut": dict(moved.cut),
                "texts_without_nul": dict(moved.without_nul),
                "seconds": round(moved.seconds, 3),
            },
            "equal": self.is_equal,
            "waiting_for_search": self.waiting,
            "proof": [asdict(line) for line in self.proof],
        }
        return json.dumps(found)

    def text(self) -> str:
        """Write what was moved and whether it is equal, in a few lines."""
        lines = []
        if (moved := self.moved) is not None:
            before = f", behind {moved.before:,} of before" if moved.before else ""
            lines.append(f"{moved.rows.total():,} rows moved in {moved.seconds:,.1f} s{before}")
            lines += [
                f"{table}: {n:,} texts cut to what an index can hold"
                for table, n in moved.cut.items()
            ]
            lines += [
                f"{table}: {n:,} texts with U+FFFD for NUL"
                for table, n in moved.without_nul.items()
            ]
        differing = sum(not line.is_equal for line in self.proof)
        said = f"{differing:,} DIFFER" if differing else "all equal"
        lines.append(f"{self.source} and {self.target}: {len(self.proof):,} figures, {said}")
        return "\n".join(lines)

    def search(self) -> str:
        """Say whether each word is found."""
        if self.waiting is None:
            return "the search is not complete: any server goes on with it"
        if self.waiting:
            return f"{self.waiting:,} messages are not in the search: their bytes are not there"
        return "the search is complete"


def _line(line: Line) -> str:
    said = "equal" if line.is_equal else "DIFFERS"
    if line.note:
        said = f"{said} ({line.note})"
    return f"{line.what:48} {_figure(line.source):>32} {_figure(line.target):>32} {said}"


def _figure(figure: int | str | None) -> str:
    if figure is None:
        return "none"
    return f"{figure:,}" if isinstance(figure, int) else figure


class Progress:
    """How far something is, on a terminal or in a log. ``clock_s`` is for tests.

    ``has_moved``: all rows have crossed, and the proof or the search is what is left.
    """

    def __init__(self, out: TextIO, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock_s = clock_s
        self.has_moved = False
        self._is_terminal = out.isatty()
        self._said_s: float | None = None
        self._began: tuple[float, int, int] | None = None
        self._width = 0

    def rows(self, what: str, done: int, of: int) -> None:
        """Say how many rows there are of all, how fast they come, and how long it will take."""
        now_s = self._clock_s()
        # Other rows have another pace.
        if self._began is None or of != self._began[2] or done < self._began[1]:
            self._began = now_s, done, of
        since_s, before, _ = self._began
        per_s = (done - before) / (now_s - since_s) if now_s > since_s else 0.0
        left = f"{_duration((of - done) / per_s)} left" if per_s else ""
        percent = 100 * done // of if of else 100
        self._say(
            f"{what:18} {done:>13,} of {of:,}  {percent:3}%  {per_s:,.0f}/s  {left}", done >= of
        )

    def step(self, what: str) -> None:
        """Say what is compared now."""
        self._say(f"comparing {what}", False)

    def end(self) -> None:
        """Take away the line that changes, so that another can be printed."""
        if self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._out.flush()
            self._width = 0

    def _say(self, line: str, is_last: bool) -> None:
        now_s = self._clock_s()
        every_s = SHOWN_S if self._is_terminal else LOGGED_S
        if self._said_s is not None and now_s - self._said_s < every_s and not is_last:
            return
        self._said_s = now_s
        line = line.rstrip()
        if self._is_terminal:
            self._out.write(f"\r{line:{self._width}}")
            self._width = len(line)
        else:
            self._out.write(f"{line}\n")
        self._out.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
