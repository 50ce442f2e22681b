"""Standard output and error that never make anybody wait.

Owns how text leaves the process while it serves: a line that a pipe or a file takes at once is
handed to it, any other waits in a queue for a thread of its own. Invariant: neither the event loop
nor the recorder's thread ever waits for whoever reads the log: a pipe that nobody reads is full
after 64 KiB, and the next line would stop all calls. Past `MAX_BYTES` new lines are dropped,
counted, and, once somebody reads again, spoken of. The queue holds bytes: no line keeps alive what
it was made of.
"""

import contextlib
import io
import logging
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

# Lines that wait: those of some 2,500 calls, seconds of the heaviest load.
MAX_BYTES: Final = 1024 * 1024
# At the end of the process, what waits has so long to leave.
LAST_WRITE_S: Final = 1.0

_log = logging.getLogger("traceway")


class Outlet(io.TextIOBase):
    """A text stream over a file descriptor; `write` may be called from any thread.

    `dropped_lines` were not written: too many waited, or the system took them no more.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, fd: int, limit_bytes: int = MAX_BYTES) -> None:
        super().__init__()
        self.dropped_lines = 0
        self._fd = fd
        self._limit_bytes = limit_bytes
        self._line = ""
        self._queue: deque[bytes] = deque()
        self._bytes = 0  # of the queue, and of what is being written
        self._spoken_of = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ready_fd = _never_blocking(fd)

    def fileno(self) -> int:
        """Give the file descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Say whether a person reads it."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str) -> int:
        """Queue text, once its line is whole; drop the line where too much waits already."""
        with self._changed:
            self._line += text
            if not text.endswith("\n"):
                return len(text)
            line, self._line = self._line.encode(self.encoding, self.errors), ""
            if self._is_taken_at_once(line):
                return len(text)
            if self._bytes + len(line) > self._limit_bytes:
                self.dropped_lines += 1
                return len(text)
            self._bytes += len(line)
            self._queue.append(line)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="outlet", daemon=True)
                self._thread.start()
        return len(text)

    def flush(self) -> None:
        """Do nothing: loggers ask for it after each line, and it must not wait."""

    def drain(self, timeout_s: float) -> None:
        """Wait until all that was queued is written, but not longer."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes, timeout_s)

    def _is_taken_at_once(self, line: bytes) -> bool:
        """Hand a line over where that waits for nobody: to wake the thread costs more."""
        if self._ready_fd is None or self._bytes or self.dropped_lines != self._spoken_of:
            return False
        if len(line) > select.PIPE_BUF:  # of which a pipe may take a part
            return False
        try:
            return os.write(self._ready_fd, line) == len(line)
        except OSError:  # it is full, or nobody is there: the thread knows what to do
            return False

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                lines = tuple(self._queue)
                self._queue.clear()
            data = b"".join(lines)
            lost = 0 if self._hand_over(data) else len(lines)
            with self._changed:
                self.dropped_lines += lost
                self._bytes -= len(data)
                self._changed.notify_all()
            if not lost and (dropped := self.dropped_lines - self._spoken_of):
                _log.warning("%d lines were not written: nobody read them in time", dropped)
                self._spoken_of += dropped

    def _hand_over(self, data: bytes) -> bool:
        # Past Python's own buffer: its lock, held by a thread that waits, fails the interpreter's
        # end.
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # another process has set the terminal, or the pipe, so
                select.select((), (self._fd,), ())
            except OSError:  # nobody is there to read, or the disk is full
                return False
        return True


def _never_blocking(fd: int) -> int | None:
    """Give a descriptor of the same pipe or file that never blocks; None where there is none.

    A pipe is opened anew, since whether it blocks is shared by all who were handed the descriptor.
    It takes up to PIPE_BUF bytes whole or not at all (POSIX, write()). Of a terminal or a socket
    nobody knows how many it takes.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return None


@contextlib.contextmanager
def never_waiting() -> Iterator[None]:
    """Let nobody wait for standard output and error meanwhile, `print` and warnings included."""
    with contextlib.ExitStack() as stack:
        outlets = []
        for stream, redirect in (
            (sys.stdout, contextlib.redirect_stdout),
            (sys.stderr, contextlib.redirect_stderr),
        ):
            if stream is not None:  # else it is closed, and its number may be another file's
                outlets.append(Outlet(stream.fileno()))
                stack.enter_context(redirect(outlets[-1]))
        try:
            yield
        finally:
            until_s = time.monotonic() + LAST_WRITE_S
            for outlet in outlets:
                outlet.drain(max(0.0, until_s - time.monotonic()))


def dropped_lines() -> int:
    """Count the lines of standard output and error that were not written."""
    streams: tuple[object, ...] = (sys.stdout, sys.stderr)
    return sum(stream.dropped_lines for stream in streams if isinstance(stream, Outlet))
