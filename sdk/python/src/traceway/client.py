"""The door: one `Traceway` for each server and key, for the whole life of a program.

Owns the configuration, the list of what is open, and what happens at a fork and at the end of the
program. Invariant: no method but `flush` and `close` waits for anything.
"""

import atexit
import os
import sys
import time
import urllib.parse
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, TypeVar

from traceway import context
from traceway.delivery import Connection
from traceway.entries import Entry, Running
from traceway.handles import Handle, Kind
from traceway.openai_client import wrapped
from traceway.proxied import headers_of, in_ascii
from traceway.sender import Sender, log
from traceway.spans import Span, Trace

C = TypeVar("C")

DEFAULT_URL: Final = "http://127.0.0.1:3000"
# Of what is open at once, more than these are only seen when they end.
_MAX_OPEN: Final = 10_000
_ALL: "Final[weakref.WeakSet[Traceway]]" = weakref.WeakSet()


class Traceway:
    """Hands traces and spans to a Traceway server, in the background.

    `url` and `api_key` come from TRACEWAY_URL and TRACEWAY_API_KEY where they are not given. A span
    that is open for longer than `flush_interval_s` is seen running. `max_queue_items` and
    `max_queue_bytes` bound what waits for the server; past them the newest are dropped and counted.
    `max_value_bytes` is the longest input or output; of a longer one the beginning is sent. With
    `enabled=False` nothing is sent, and wrapped clients stay as they are.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        enabled: bool = True,
        flush_interval_s: float = 0.5,
        max_queue_items: int = 100_000,
        max_queue_bytes: int = 64 << 20,
        max_value_bytes: int = 1 << 20,
        request_timeout_s: float = 30.0,
        exit_timeout_s: float = 5.0,
    ) -> None:
        self.url = _checked(url or os.environ.get("TRACEWAY_URL") or DEFAULT_URL)
        self.api_key = _key(api_key or os.environ.get("TRACEWAY_API_KEY"))
        self.enabled = enabled
        self.max_value_bytes = max_value_bytes
        self.exit_timeout_s = exit_timeout_s
        self._open: dict[int, Handle] = {}
        self._flush_interval_ns = int(flush_interval_s * 1e9)
        self._sender = Sender(
            lambda: Connection(self.url, self.api_key, request_timeout_s),
            self._find_open,
            self._at_process_end,
            flush_interval_s=flush_interval_s,
            max_queue_items=max_queue_items,
            max_queue_bytes=max_queue_bytes,
        )
        _ALL.add(self)

    @property
    def dropped(self) -> int:
        """How many items were dropped: for want of room, refused, or not sent in time."""
        return self._sender.dropped

    @property
    def pending(self) -> int:
        """How many items wait to be sent, with those on their way."""
        return self._sender.pending

    def trace(
        self,
        name: object,
        *,
        session_id: object = None,
        user_id: object = None,
        tags: Iterable[str] | None = None,
    ) -> Trace:
        """Begin a trace: use it in `with`, `async with`, as a decorator, or end it with `end()`."""
        return Trace(self, name, session_id, user_id, tags)

    def span(
        self,
        name: object,
        *,
        kind: Kind = "custom",
        input: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Span:
        """Begin a span where the running code is; outside of any trace it has one of its own."""
        place = context.here()
        alone = place is None or place.client is not self
        trace = Trace(self, name) if alone or place is None else place.trace
        span = self.begin(self, trace, name, kind, input, metadata)
        span.owns_trace = alone
        return span

    def openai_headers(self) -> dict[str, str]:
        """Give the headers that put a call through the proxy into the current trace and session."""
        return in_ascii(self.headers())

    def wrap(self, client: C, *, upstream: str | None = None) -> C:
        """Give a copy of an `OpenAI` or `AsyncOpenAI` client that calls through the proxy.

        Each of its calls names the trace, span and session that it is made in. It keeps its own
        provider key. A client of another provider needs the name of its upstream, as the server's
        configuration has it. What cannot be wrapped is given back as it is, with a warning.
        """
        return wrapped(self, client, upstream) if self.enabled else client

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that was handed in so far is sent; False if that took too long."""
        return self._sender.flush(timeout_s)

    def close(self, timeout_s: float | None = None) -> bool:
        """Flush, and take nothing more. The end of the program does this by itself."""
        timeout_s = self.exit_timeout_s if timeout_s is None else timeout_s
        return self._sender.close(timeout_s)

    def __enter__(self) -> "Traceway":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # What follows is for the other parts of this package.

    def begin(
        self,
        origin: "Traceway | Handle",
        trace: Trace,
        name: object,
        kind: Kind,
        input: Any,
        metadata: Mapping[str, Any] | None,
    ) -> Span:
        """Begin a span of a trace, inside what it is begun from."""
        place = trace if isinstance(origin, Traceway) else origin
        parent_id = place.parent_for_spans()
        return Span(origin, trace, parent_id, name, kind, input, metadata)

    def put(self, entry: Entry) -> bool:
        """Queue an entry."""
        return self._sender.put(entry) if self.enabled else True

    def headers(self) -> dict[str, str]:
        """Give the headers of a call through the proxy; a session id may be of any script."""
        place = context.here()
        return headers_of(self.api_key, place if place and place.client is self else None)

    def complain(self, reason: str) -> None:
        """Have a warning logged."""
        self._sender.complain(reason)

    def remember(self, handle: Handle) -> None:
        """Note that something is open."""
        if len(self._open) < _MAX_OPEN and self.enabled:
            self._open[id(handle)] = handle

    def forget(self, handle: Handle) -> None:
        """Note that it is no more, or that the server knows."""
        self._open.pop(id(handle), None)

    def _find_open(self, everything: bool) -> Iterator[Entry]:
        """Give news of what has been open for a while: to the sender, in its thread."""
        before_ns = time.time_ns() - self._flush_interval_ns
        for handle in list(self._open.values()):
            if handle.started_ns > before_ns and not everything:
                break
            handle.trace.open()
            self.forget(handle)
            if isinstance(handle, Span):
                yield Running(handle)

    def _at_process_end(self) -> None:
        """Have the processes of multiprocessing flush as well: they end without `atexit`."""
        multiprocessing = sys.modules.get("multiprocessing")
        if multiprocessing is not None and multiprocessing.parent_process() is not None:
            from multiprocessing.util import Finalize

            Finalize(None, self.flush, (self.exit_timeout_s,), exitpriority=0)

    def _after_fork(self) -> None:
        self._open.clear()
        self._sender.after_fork()


def openai_headers() -> dict[str, str]:
    """Give the headers that put a call through the proxy into the current trace and session.

    None outside of a trace: `Traceway.openai_headers` then still gives the key.
    """
    place = context.here()
    return place.client.openai_headers() if place is not None else {}


def _checked(url: str) -> str:
    """Give an http or https URL without a slash at its end; the default for what is none."""
    try:
        parts = urllib.parse.urlsplit(url)
        # To read a port is to check it.
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return url.rstrip("/")
    except ValueError:
        log.debug("traceway: not a URL", exc_info=True)
    log.warning("traceway: %r is no http or https URL; using %s", url, DEFAULT_URL)
    return DEFAULT_URL


def _key(api_key: str | None) -> str | None:
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        log.warning("traceway: the API key has characters that no key has; it is not used")
        return None
    return api_key or None


def _at_exit() -> None:
    for client in list(_ALL):
        is_used = client._sender.is_running or client.pending or client._open
        if is_used and not client.close() and client.pending:  # what was dropped has been told of
            log.warning("traceway: %d items were not sent before the end", client.pending)


def _after_fork() -> None:
    for client in list(_ALL):
        client._after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
