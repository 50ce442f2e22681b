"""The composition root: the only file that knows every part, and the list of all routes."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from proxy.api.answers import errors
from proxy.api.health import Health
from proxy.api.sessions import Sessions
from proxy.api.traces import Traces
from proxy.capture import Budget
from proxy.config import Config
from proxy.forward import Forwarder
from proxy.guard import Guard
from proxy.pricing import Prices
from proxy.recorder import Recorder
from proxy.send import Sender
from proxy.settle import Settler
from proxy.tasks import spawn
from proxy.upstream import Upstream
from storage import forget
from storage.database import Database

# Header limits of both sides of the relay (connection.py has the upstream's).
MAX_LINE_BYTES: Final = 64 * 1024
MAX_FIELDS: Final = 1000
# nginx closes idle client connections after 75 s.
KEEPALIVE_S: Final = 75.0

_log = logging.getLogger("traceway")


class Traceway:
    """A server: open it with `start`, close it with `stop`; in between `recorder` saves its calls."""

    recorder: Recorder

    def __init__(self, config: Config, database: Database) -> None:
        if HttpRequestParser is HttpRequestParserPy:
            raise RuntimeError(
                "aiohttp lacks its C parser, and the other one lets malformed requests pass:"
                " reinstall aiohttp from a wheel"
            )
        self._config = config
        self._database = database
        self._runner: web.AppRunner | None = None
        self._forwarder: Forwarder | None = None

    async def start(self) -> int:
        """Begin to serve, and give the port.

        Raises:
            OSError: the port is taken, or the host is not an address of this machine.
        """
        config = self._config
        budget = Budget(config.recording.memory_bytes)
        prices = Prices(config.prices)
        prices.warm()
        recorder = self.recorder = Recorder(
            self._database, Settler(prices), budget, config.recording.durability
        )
        owner = os.urandom(8)
        interrupted = await recorder.write(lambda tx: forget.interrupt_running(tx, owner))
        if interrupted:
            _log.warning("%d calls of a process that died are marked interrupted", interrupted)
        senders = {
            name: Sender(Upstream(name, upstream), config.server.max_request_bytes)
            for name, upstream in config.upstreams.items()
        }
        forwarder = self._forwarder = Forwarder(config, senders, recorder, budget, owner)

        async def parts(_: web.Application) -> AsyncIterator[None]:
            checkpoints = spawn(forwarder.checkpoint_forever(), "checkpoints")
            yield
            checkpoints.cancel()
            for sender in senders.values():
                sender.upstream.close()
            await recorder.close()

        app = web.Application(
            middlewares=[
                Guard([*config.server.allowed_hosts, config.server.host]).middleware,
                errors,
            ]
        )
        app.cleanup_ctx.append(parts)
        health = Health(self._database, recorder, budget, forwarder.in_flight)
        app.add_routes(
            routes(
                forwarder,
                Sessions(self._database, recorder),
                Traces(self._database, recorder),
                health,
            )
        )
        self._runner = web.AppRunner(
            app,
            access_log=None,  # costs more than the rest of our own work on a call
            auto_decompress=False,  # bodies pass as they are
            handler_cancellation=True,  # a client that leaves ends its call upstream
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_FIELDS,
            shutdown_timeout=0.5,  # `stop` has drained before
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, config.server.host, config.server.port, backlog=1024)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        return int(self._runner.addresses[0][1])

    async def idle(self) -> None:
        """Wait until no call is in flight."""
        if self._forwarder is not None:
            await self._forwarder.idle.wait()

    async def stop(self, drain_s: float, now: asyncio.Event) -> None:
        """Take no new connections, let calls end until then or `now`, cut the rest, save all."""
        if self._runner is None or self._forwarder is None:
            return
        for site in list(self._runner.sites):
            await site.stop()
        waits = [
            spawn(self.idle(), "drain"),
            spawn(now.wait(), "second signal"),
        ]
        await asyncio.wait(waits, timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._forwarder.stopping = True
        await self._runner.cleanup()


def routes(
    forwarder: Forwarder, sessions: Sessions, traces: Traces, health: Health
) -> list[web.RouteDef]:
    """List every route. An id's pattern matches the raw path, so that it may hold `%2F` or `{}`."""
    return [
        web.route("*", "/api/proxy/{target:.+}", forwarder.forward),
        web.get("/api/sessions", sessions.list),
        web.get("/api/sessions/by-id", sessions.show),
        web.delete("/api/sessions/by-id", sessions.delete),
        web.get("/api/sessions/{id:[^/]+}", sessions.show),
        web.delete("/api/sessions/{id:[^/]+}", sessions.delete),
        web.get("/api/traces", traces.list),
        web.get("/api/traces/{id:[^/]+}", traces.show),
        web.delete("/api/traces/{id:[^/]+}", traces.delete),
        web.get("/api/spans/{id:[^/]+}", traces.show_span),
        web.get("/api/health", health.health),
        web.get("/api/live", health.live),
        web.get("/api/ready", health.ready),
        web.get("/api/stats", health.stats),
    ]
