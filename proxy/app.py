"""The composition root: the only file that knows every part, and the list of all routes."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from proxy import estimate
from proxy.api.answers import errors
from proxy.api.bodies import Bodies
from proxy.api.conversation import Conversations
from proxy.api.events import Events
from proxy.api.health import Health
from proxy.api.hub import Hub
from proxy.api.live import LiveTexts
from proxy.api.search import Search
from proxy.api.sessions import Sessions
from proxy.api.traces import Traces
from proxy.capture import Budget
from proxy.config import Config
from proxy.errors import error_response
from proxy.forward import Forwarder
from proxy.guard import Guard, Handler
from proxy.listen import BACKLOG, listen
from proxy.pricing import Prices
from proxy.recorder import Recorder
from proxy.send import Sender
from proxy.settle import Settler
from proxy.tasks import spawn
from proxy.upstream import Upstream
from storage import forget
from storage.database import Database
from storage.records import DEFAULT_PROJECT

# Header limits of both sides of the relay (connection.py has the upstream's).
MAX_LINE_BYTES: Final = 64 * 1024
MAX_FIELDS: Final = 1000
# nginx closes idle client connections after 75 s.
KEEPALIVE_S: Final = 75.0
# How long calls that were cut have to leave their record.
CUT_S: Final = 1.0

_log = logging.getLogger("traceway")
_http_log = logging.getLogger("traceway.http")


class _ClientsFaults(logging.Filter):
    """Keeps malformed requests out of the log: aiohttp quotes them, and with them their keys."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


_http_log.addFilter(_ClientsFaults())


class Traceway:
    """A server: open it with `start`, close it with `stop`; in between `recorder` saves its calls.

    From `stop` on new calls are refused, also those that come on connections that are there.
    """

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
        self._stopping = False

    async def start(self, sockets: Sequence[socket.socket] = ()) -> int:
        """Begin to serve, and give the port; `sockets` are those of `listen`, by default our own.

        Raises:
            CannotListen: the port cannot be had.
            StorageError: the calls that a dead process left cannot be ended.
        """
        config = self._config
        sockets = sockets or listen(config.server)
        budget = Budget(config.recording.memory_bytes)
        prices = Prices(config.prices)
        prices.warm()
        estimate.warm()
        settler = Settler(
            prices,
            infer=config.sessions.infer,
            keep_raw_streams=config.recording.keep_raw_streams,
        )
        recorder = self.recorder = Recorder(
            self._database, settler, budget, config.recording.durability
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
        hub = Hub(self._database, DEFAULT_PROJECT, LiveTexts(forwarder.in_flight))
        recorder.after_commit = hub.told

        async def parts(_: web.Application) -> AsyncIterator[None]:
            background = [
                spawn(forwarder.checkpoint_forever(), "checkpoints"),
                spawn(hub.run(), "events"),
                spawn(hub.prune_forever(recorder), "pruning of events"),
            ]
            yield
            for task in background:
                task.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CUT_S):
                    await forwarder.idle.wait()
            for sender in senders.values():
                sender.upstream.close()
            await recorder.close()

        app = web.Application(
            middlewares=[
                Guard([*config.server.allowed_hosts, config.server.host]).middleware,
                self._refuse_while_stopping,
                errors,
            ]
        )

        async def end_events(_: web.Application) -> None:
            hub.close()

        app.cleanup_ctx.append(parts)
        app.on_shutdown.append(end_events)
        health = Health(self._database, recorder, budget, forwarder.in_flight, hub)
        app.add_routes(
            routes(
                forwarder,
                Sessions(self._database, recorder),
                Traces(self._database, recorder),
                Bodies(self._database),
                Conversations(self._database),
                Events(hub),
                Search(self._database),
                health,
            )
        )
        self._runner = web.AppRunner(
            app,
            logger=_http_log,
            access_log=None,  # costs more than the rest of our own work on a call
            auto_decompress=False,  # bodies pass as they are
            handler_cancellation=True,  # a client that leaves ends its call upstream
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_FIELDS,
            shutdown_timeout=0.05,  # `stop` has drained before; 0 would be for ever
        )
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock, backlog=BACKLOG).start()
        return int(sockets[0].getsockname()[1])

    async def idle(self) -> None:
        """Wait until no call is in flight."""
        if self._forwarder is not None:
            await self._forwarder.idle.wait()

    async def stop(self, drain_s: float, now: asyncio.Event) -> None:
        """Take no new connections, let calls end until then or `now`, cut the rest, save all."""
        if self._runner is None or self._forwarder is None:
            return
        self._stopping = True
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

    @web.middleware
    async def _refuse_while_stopping(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if not self._stopping:
            return await handler(request)
        message = "the server is being stopped; call again when it is back"
        response = error_response(503, "stopping", message)
        response.force_close()
        return response


def routes(
    forwarder: Forwarder,
    sessions: Sessions,
    traces: Traces,
    bodies: Bodies,
    conversations: Conversations,
    events: Events,
    search: Search,
    health: Health,
) -> list[web.RouteDef]:
    """List every route. An id's pattern matches the raw path, so that it may hold `%2F` or `{}`."""
    return [
        web.route("*", "/api/proxy/{target:.+}", forwarder.forward),
        web.get("/api/sessions", sessions.list),
        web.get("/api/sessions/totals", sessions.totals),
        web.get("/api/sessions/by-id", sessions.show),
        web.delete("/api/sessions/by-id", sessions.delete),
        web.get("/api/sessions/by-id/conversation", conversations.show),
        web.get("/api/sessions/{id:[^/]+}", sessions.show),
        web.delete("/api/sessions/{id:[^/]+}", sessions.delete),
        web.get("/api/sessions/{id:[^/]+}/conversation", conversations.show),
        web.get("/api/messages/{id:[^/]+}", conversations.message),
        web.get("/api/traces", traces.list),
        web.get("/api/traces/totals", traces.totals),
        web.get("/api/traces/{id:[^/]+}", traces.show),
        web.delete("/api/traces/{id:[^/]+}", traces.delete),
        web.get("/api/spans", traces.list_spans),
        web.get("/api/spans/{id:[^/]+}", traces.show_span),
        web.get("/api/spans/{id:[^/]+}/request", bodies.request),
        web.get("/api/spans/{id:[^/]+}/response", bodies.response),
        web.get("/api/events", events.stream, allow_head=False),
        web.get("/api/search/suggest", search.suggest),
        web.get("/api/health", health.health),
        web.get("/api/live", health.live),
        web.get("/api/ready", health.ready),
        web.get("/api/stats", health.stats),
    ]
