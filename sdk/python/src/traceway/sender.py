"""The queue and the thread that sends it: what is put is delivered, or counted as dropped.

Invariants: `put` takes a lock that is never held during I/O, and does no more than to append; the
queue is bounded in entries and in bytes, with what is on its way; past the bound the newest are
dropped. A batch is sent until the server has taken it: ids are the client's, so that to send twice
does no harm. Nothing is logged in the application's thread. A child of a fork begins with an empty
queue and a thread of its own; what was queued is its parent's to send.
"""

import collections
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from traceway.delivery import Answer, Connection, Verdict
from traceway.entries import Entry, Flush

log: Final = logging.getLogger("traceway")

# What one request may hold (POST /api/batch): items, and bytes before compression.
MAX_ITEMS: Final = 1_000
MAX_BYTES: Final = 4 << 20
_FIRST_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 5.0
# An answer that makes no sense may be a fault that passes; a queue must not wait for it for ever.
_MAX_ODD_ANSWERS: Final = 5
_COMPLAINTS_EVERY_S: Final = 60.0
# For the thread to count and report what it drops.
_LAST_WORD_S: Final = 1.0
# About 2 s: a server that restarts is back by then.
_COMPLAIN_AT_ATTEMPT: Final = 5


class Sender:
    """One queue, one thread, one connection.

    `find_more` gives what else to queue at each round; `started` is called once in each process.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        find_more: Callable[[bool], Iterable[Entry]],
        started: Callable[[], None],
        *,
        flush_interval_s: float,
        max_queue_items: int,
        max_queue_bytes: int,
    ) -> None:
        self._connect = connect
        self._find_more = find_more
        self._started = started
        self._interval_s = flush_interval_s
        self._max_items = max_queue_items
        self._max_bytes = max_queue_bytes
        self._dropped = 0
        self._begin()

    def _begin(self) -> None:
        self._queue: collections.deque[Entry] = collections.deque()
        # Taken for a few instructions only. Reentrant, as a signal's handler may put, too.
        self._lock = threading.RLock()
        # Held by nobody: the thread waits for them to be released. An Event would be a lock that a
        # signal's handler can wait for in vain.
        self._wake, self._hurry = threading.Lock(), threading.Lock()
        self._wake.acquire()
        self._hurry.acquire()
        self._thread: threading.Thread | None = None
        self._items = self._bytes = self._full = 0
        self._flushes: collections.deque[Flush] = collections.deque()
        self._closed = self._abandoned = False
        self._connection = self._connect()
        self._complaints: collections.deque[str] = collections.deque(maxlen=16)
        self._complained_at = -_COMPLAINTS_EVERY_S
        self._uncomplained = 0

    @property
    def dropped(self) -> int:
        """How many entries will never arrive."""
        return self._dropped + self._full

    @property
    def pending(self) -> int:
        """How many entries are queued or on their way."""
        return self._items

    @property
    def is_running(self) -> bool:
        """Whether it has a thread, and may have a connection."""
        return self._thread is not None

    def put(self, entry: Entry) -> bool:
        """Queue an entry; False where there is no room for it. Waits for nothing."""
        size_bytes = entry.size_bytes
        with self._lock:
            if (
                self._items >= self._max_items
                or self._bytes + size_bytes > self._max_bytes
                or self._closed
            ):
                self._full += 1
                return False
            self._items += 1
            self._bytes += size_bytes
        self._queue.append(entry)
        if self._thread is None:
            self._start()
        if len(self._queue) == MAX_ITEMS or (size_bytes > 65_536 and self._bytes > MAX_BYTES):
            _release(self._wake)
        return True

    def complain(self, reason: str) -> None:
        """Have a warning logged, from the sender's thread."""
        self._complaints.append(reason)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that is queued now is done with; say whether it was in time."""
        if threading.current_thread() is self._thread:
            return False
        if self._closed:
            return self._items == 0
        flush = Flush()
        self._flushes.append(flush)
        if self._thread is None:
            self._start()
        _release(self._wake)
        _release(self._hurry)
        return flush.done.wait(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Flush, and take nothing more; what the time is too short for is dropped."""
        flushed = self.flush(timeout_s)
        with self._lock:
            self._closed = True
        self._abandoned = not flushed
        _release(self._wake)
        _release(self._hurry)
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(_LAST_WORD_S)
        return flushed

    def after_fork(self) -> None:
        """Begin anew, in the child of a fork."""
        closed, connection = self._closed, self._connection
        self._dropped = 0
        self._begin()
        self._closed = closed
        connection.abandon()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="traceway-sender", daemon=True)
                # First of all: a signal's handler that comes here meanwhile must not start another.
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is going
                    self._thread = None
                    return
                self._started()

    def _run(self) -> None:
        while not (self._closed and not self._queue):
            self._wake.acquire(timeout=self._interval_s)
            # The edge: whatever goes wrong here costs entries, never the application.
            try:
                self._collect()
                while self._queue:
                    self._send_some()
                    self._report()
                    if self._flushes:
                        self._collect()
            except Exception as error:
                log.debug("traceway: a round failed", exc_info=True)
                self.complain(f"{type(error).__name__} while sending: {error}")
            self._report()
        self._connection.close()

    def _collect(self) -> None:
        """Queue what nobody put: news of what is still open, then the flushes that wait for all."""
        flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
        for entry in self._find_more(bool(flushes)):
            with self._lock:
                self._items += 1
                self._bytes += entry.size_bytes
            self._queue.append(entry)
        self._queue.extend(flushes)

    def _send_some(self) -> None:
        batch: list[tuple[Entry, bytes]] = []
        flushes: list[Flush] = []
        size_bytes = 0
        taken: list[Entry] = []
        try:
            while self._queue and len(batch) < MAX_ITEMS and not flushes:
                entry = self._queue.popleft()
                if isinstance(entry, Flush):
                    flushes.append(entry)
                    break
                taken.append(entry)
                written = entry.written()
                if written is None:
                    continue
                if batch and size_bytes + len(written) > MAX_BYTES:
                    taken.pop()
                    self._queue.appendleft(entry)
                    break
                size_bytes += len(written) + 1
                batch.append((entry, written))
            if batch:
                self._deliver(batch)
        finally:
            freed_bytes = sum(entry.size_bytes for entry in taken)
            with self._lock:
                self._items -= len(taken)
                self._bytes -= freed_bytes
            for flush in flushes:
                flush.done.set()

    def _deliver(self, batch: list[tuple[Entry, bytes]]) -> None:
        """Send a batch until the server took or refused it."""
        attempt = odd = 0
        while batch:
            if self._abandoned:
                self._lose([entry for entry, _ in batch], "closed before they could be sent")
                return
            answer = self._connection.post([written for _, written in batch])
            if answer.verdict is Verdict.TAKEN:
                batch = self._sort_out(batch, answer)
                if not batch:
                    return
            elif answer.verdict is Verdict.TOO_LARGE and len(batch) > 1:
                half = len(batch) // 2
                self._deliver(batch[:half])
                batch = batch[half:]
                continue
            elif answer.verdict is Verdict.ODD and (odd := odd + 1) < _MAX_ODD_ANSWERS:
                pass
            elif answer.verdict is not Verdict.LATER:
                self._lose([entry for entry, _ in batch], answer.reason)
                return
            attempt += 1
            if attempt == _COMPLAIN_AT_ATTEMPT:
                self.complain(f"trying again: {answer.reason}")
            self._pause(attempt, answer.retry_after_s)

    def _sort_out(
        self, batch: list[tuple[Entry, bytes]], answer: Answer
    ) -> list[tuple[Entry, bytes]]:
        """Count what was refused; give what is to be sent again."""
        again = []
        for (entry, written), (status, reason) in zip(batch, answer.results, strict=True):
            if status < 400:
                continue
            if status == 429 or status >= 500:
                again.append((entry, written))
            else:
                self._lose([entry], reason)
        return again

    def _pause(self, attempt: int, retry_after_s: float | None) -> None:
        wait_s = min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt - 1, 10))
        wait_s *= 0.5 + random.random() / 2  # noqa: S311 - so that clients do not come at once
        if retry_after_s is not None:
            time.sleep(max(wait_s, retry_after_s))
        else:
            self._hurry.acquire(timeout=wait_s)

    def _lose(self, entries: list[Entry], reason: str) -> None:
        for entry in entries:
            entry.lost()
        self._dropped += len(entries)
        self.complain(reason)

    def _report(self) -> None:
        """Log at most one line a minute about what was dropped, and why."""
        lost = self.dropped - self._uncomplained
        if not lost and not self._complaints:
            return
        now = time.monotonic()
        last_word = self._closed and not self._queue
        if now - self._complained_at < _COMPLAINTS_EVERY_S and not last_word:
            return
        self._complained_at = now
        self._uncomplained += lost
        reasons = list(dict.fromkeys(self._complaints))
        self._complaints.clear()
        if self._full:
            reasons.append(f"{self._full} so far for want of room in the queue")
        dropped = f"{lost} items dropped: " if lost else ""
        log.warning("traceway: %s%s", dropped, "; ".join(reasons))


def _release(lock: threading.Lock) -> None:
    with contextlib.suppress(RuntimeError):  # it was released already
        lock.release()
