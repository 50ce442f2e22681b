"""Look-ups of names: one at a time for each upstream, shared by all who wait for it.

Owns the threads in which they run, so that a look-up that hangs delays no other upstream.
Invariants: an answer is never older than the wait for it (nothing is cached: resolvers do that);
for one name at most `MAX_THREADS` look-ups hang. Opens no connection.
"""

import asyncio
import contextlib
import socket
import threading
from typing import Final

from aiohappyeyeballs import AddrInfoType

# A look-up that runs for so long has hung, and the next caller begins another. glibc gives up after
# 5 s, twice, for each of at most three servers (resolv.conf's defaults).
HUNG_S: Final = 30.0
MAX_THREADS: Final = 4

Addresses = list[AddrInfoType]


class Lookup:
    """The addresses of a host."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._running: asyncio.Future[Addresses] | None = None
        self._began_at = 0.0
        self._threads = 0

    async def addresses(self) -> Addresses:
        """Give the addresses, at least one.

        Raises:
            OSError: the host has none, or its name servers cannot be asked.
        """
        with contextlib.suppress(socket.gaierror):  # of an address there is nothing to ask
            return _look_up(self._host, self._port, socket.AI_NUMERICHOST)
        loop = asyncio.get_running_loop()
        running = self._running
        hung = running is not None and loop.time() - self._began_at > HUNG_S
        if running is None or (hung and self._threads < MAX_THREADS):
            running = self._begin(loop)
        return await asyncio.shield(running)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Addresses]:
        running: asyncio.Future[Addresses] = loop.create_future()
        self._running = running
        self._began_at = loop.time()
        self._threads += 1

        def ended(found: Addresses | Exception) -> None:
            self._threads -= 1
            if self._running is running:
                self._running = None
            if running.cancelled():
                return
            if isinstance(found, Exception):
                running.set_exception(found)
                running.exception()  # all who waited may have left
            else:
                running.set_result(found)

        def look_up() -> None:
            found: Addresses | Exception
            try:
                found = _look_up(self._host, self._port)
            except (OSError, UnicodeError) as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(ended, found)

        # Not of a pool: a pool's few threads may all hang, and its end would wait for them.
        threading.Thread(target=look_up, name=f"look-up of {self._host}", daemon=True).start()
        return running


def _look_up(host: str, port: int, flags: int = 0) -> Addresses:
    return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)]
