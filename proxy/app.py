"""The composition root: the only file that knows every part."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from proxy import estimate, operator_socket
from proxy.access import Access
from proxy.api import otlp
from proxy.api.answers import errors
from proxy.api.bodies import Bodies
from proxy.api.conversation import Conversations
from proxy.api.events import Events
from proxy.api.exporting import Exporter
from proxy.api.granting import Granting
from proxy.api.health import Health
from proxy.api.hubs import Hubs
from proxy.api.ingest import Ingest, end_overdue_forever
from proxy.api.keys import Keys
from proxy.api.mcp import Mcp
from proxy.api.provider_keys import ProviderKeys
from proxy.api.routes import routes
from proxy.api.search import Search
from proxy.api.sessions import Sessions
from proxy.api.traces import Traces
from proxy.budget import Budgets
from proxy.call_log import log_calls
from proxy.capture import Budget
from proxy.config import Config
from proxy.config_values import is_loopback
from proxy.errors import error_response
from proxy.forward import Forwarder
from proxy.guard import Guard, Handler
from proxy.handing import HandedReader
from proxy.keyring import Keyring
from proxy.limits import RateLimits
from proxy.listen import BACKLOG, CannotListen, listen, most_connections
from proxy.pricing import Prices
from proxy.reaper import Clients, Door, Patience
from proxy.recorder import Ended, Recorder
from proxy.routes import add_routes
from proxy.sealing import KeyFileError, key_file_of
from proxy.send import MAX_HELD_BYTES, Sender
from proxy.settle import Settler
from proxy.tasks import spawn
from proxy.ui.frame import Frame, Static
from proxy.ui.lists import Lists
from proxy.ui.pictures import Pictures
from proxy.ui.routes import pages
from proxy.ui.session import SessionPage
from proxy.ui.settings import SettingsPage
from proxy.ui.sign_in import SignInPages
from proxy.ui.trace import TracePage
from proxy.upstream import Upstream
from proxy.vault import Vault
from storage import api_keys, budgets, forget, provider_keys
from storage.database import Database, StorageError
from storage.opening import peer_at

if TYPE_CHECKING:
    from proxy.api.replicas import Replicas

# How long calls that were cut have to leave their record.
CUT_S: Final = 1.0
_NEEDS_KEYS: Final = (
    "cannot listen on {host} without keys, since other machines reach it and whoever does could"
    " spend your provider's money: make a key first (traceway keys create --name NAME --scope"
    ' admin), or set mode = "keys" in [auth]'
)

_log = logging.getLogger("traceway")


class Traceway:
    """A server: open it with `start`, close it with `stop`.

    In between `recorder` saves its calls, and `keyring` knows who may make them. From `stop` on new
    calls are refused, also those that come on connections that are there. `held` bounds what
    requests hold that are whole here.
    """

    recorder: Recorder
    keyring: Keyring

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
        self.held = Budget(MAX_HELD_BYTES)
        path = None if config.database.url else operator_socket.path_of(config.database.path)
        self._operator_path = path

    async def start(
        self, sockets: Sequence[socket.socket] = (), private: socket.socket | None = None
    ) -> int:
        """Begin to serve, and give the port; `sockets` are those of `listen`, by default our own.

        With `private`, a Unix socket, it serves there alone, for a command; the port is then 0.

        Raises:
            BadKey: a provider key of the environment cannot be one.
            CannotListen: the port cannot be had.
            KeyFileError: the stored provider keys cannot be opened.
            StorageError: the calls that a dead process left cannot be ended.
        """
        config = self._config
        key_file = key_file_of(
            config.auth.key_file, None if config.database.url else config.database.path
        )
        vault = Vault(os.environ, config.upstreams, key_file)
        sockets = [private] if private else sockets or listen(config.server)
        budget = Budget(config.recording.memory_bytes)
        prices = Prices(config.prices)
        if private is None:
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
        if not config.database.url:  # nobody else has the database
            interrupted = await recorder.write(lambda tx: forget.interrupt_running(tx, owner))
            if interrupted:
                _log.warning("%d calls of a process that died are marked interrupted", interrupted)
        senders = {
            name: Sender(
                Upstream(name, upstream, config.egress.hop(upstream.url)),
                config.server.max_request_bytes,
                self.held,
            )
            for name, upstream in config.upstreams.items()
        }
        keyring = self.keyring = Keyring(
            config.auth.mode, await recorder.write(api_keys.grants, ())
        )
        if not (private or keyring.keys_are_on or is_loopback(config.server.host)):
            await recorder.close()
            raise CannotListen(_NEEDS_KEYS.format(host=config.server.host))
        granting = Granting(keyring, recorder)
        access = Access(keyring, granting.note_use, lambda *denied: sign_in.refused(*denied))
        try:
            vault.load(await recorder.write(provider_keys.sealed_keys, ()), keyring.number)
        except KeyFileError:
            await recorder.close()
            raise
        limits = RateLimits(config.limits.calls_per_minute)
        spending = Budgets(
            prices,
            config.limits,
            lambda asked: recorder.write(
                lambda tx: budgets.reserve(tx, asked), (asked.project_id,)
            ),
            lambda call: recorder.write(lambda tx: budgets.session_of(tx, call), call[:1]),
            config.server.max_request_bytes,
        )
        forwarder = self._forwarder = Forwarder(
            config, senders, recorder, budget, owner, vault, limits, spending
        )
        hubs = Hubs(self._database, forwarder.in_flight)
        recorder.after_commit = hubs.told
        replicas = None
        if config.database.url and private is None:
            replicas = self._replicas(owner, recorder, keyring, vault, hubs)
            recorder.after_commit = replicas.after_commit
            access.tickets, access.look_again = replicas.tickets, replicas.look_again
            try:
                await replicas.join()
            except StorageError:
                await recorder.close()
                raise

        def leads() -> bool:
            """Tell whether this process does what of those that share the database only one does.

            A command, which has its application for a moment, leads where it has it alone.
            """
            return not config.database.url if replicas is None else replicas.leads()

        async def parts(_: web.Application) -> AsyncIterator[None]:
            background = [
                spawn(forwarder.checkpoint_forever(), "checkpoints"),
                spawn(hubs.prune_forever(recorder, leads), "pruning of events"),
                spawn(
                    end_overdue_forever(recorder, config.ingest.open_timeout_s, leads),
                    "ends of what was left open",
                ),
            ]
            if config.export.otlp_url and private is None:
                exporter = Exporter(
                    config.export,
                    config.egress,
                    self._database,
                    recorder,
                    lambda number: project.name if (project := keyring.project(number)) else "",
                    health.figures.exported,
                    leads,
                )
                background.append(spawn(exporter.run(), "export"))
            if replicas is not None:
                background += replicas.begin()
            yield
            for task in background:
                task.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CUT_S):
                    await forwarder.idle.wait()
            for sender in senders.values():
                sender.upstream.close()
            await recorder.close()
            if replicas is not None:
                await replicas.leave()

        app = web.Application(
            middlewares=[
                otlp.statuses,
                Guard(
                    [*config.server.allowed_hosts, config.server.host],
                    config.server.allowed_origins,
                ).middleware,
                self._refuse_while_stopping,
                access.middleware,
                errors,
            ]
        )

        async def end_events(_: web.Application) -> None:
            hubs.close()

        app.cleanup_ctx.append(parts)
        app.on_shutdown.append(end_events)
        health = Health(
            self._database, recorder, budget, forwarder.in_flight, hubs, limits, config, replicas
        )

        def after_ends(calls: Sequence[Ended]) -> None:
            health.figures.ended(calls)
            if config.server.log_calls:
                log_calls(calls)

        recorder.after_ends = after_ends
        recorder.after_seconds = health.figures.committed
        ingest = Ingest(
            recorder,
            HandedReader(prices),
            config.ingest.max_body_bytes,
            health.figures.ingested,
        )
        sessions = Sessions(self._database, recorder)
        traces = Traces(self._database, recorder)
        conversations = Conversations(self._database)
        static = Static()
        frame = Frame(app, static, health.reasons, keyring)
        keys = Keys(granting)
        providers = ProviderKeys(vault, recorder, config.upstreams)
        if replicas is not None:
            granting.changed = providers.changed = replicas.granted
        sign_in = SignInPages(frame, access, granting)
        needs = add_routes(
            app,
            [
                *routes(
                    forwarder,
                    sessions,
                    traces,
                    Bodies(self._database),
                    conversations,
                    Events(hubs, access),
                    Search(self._database),
                    health,
                    keys,
                    providers,
                    ingest,
                    otlp.Otlp(ingest),
                    Mcp(self._database, sessions, traces, conversations),
                ),
                *pages(
                    frame,
                    static,
                    Lists(frame, sessions, traces, self._database),
                    SessionPage(frame, conversations, self._database),
                    TracePage(frame, self._database),
                    Pictures(conversations),
                    sign_in,
                    SettingsPage(frame, keyring, keys, providers, sign_in),
                ),
            ],
        )
        access.guard(app, needs)
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,  # a client that leaves ends its call upstream
            shutdown_timeout=0.05,  # `stop` has drained before; 0 would be for ever
        )
        await self._runner.setup()
        await self._open(
            sockets if private else [*sockets, *operator_socket.at(self._operator_path)]
        )
        return 0 if private else int(sockets[0].getsockname()[1])

    async def _open(self, sockets: Sequence[socket.socket]) -> None:
        """Take connections; as many as there are files for, but for those of the owner."""
        runner, server = cast(web.AppRunner, self._runner), self._config.server
        handlers = cast(web.Server, runner.server)
        patience = Patience(
            header_s=server.header_timeout_s,
            body_s=server.body_timeout_s,
            write_s=server.write_timeout_s,
        )
        limit = most_connections(server, self._config.upstreams.values())
        public = Clients(handlers, patience, limit)
        owners = Clients(handlers, patience)
        for sock in sockets:
            clients = owners if sock.family == socket.AF_UNIX else public
            await Door(runner, sock, clients, BACKLOG).start()

    def _replicas(
        self, owner: bytes, recorder: Recorder, keyring: Keyring, vault: Vault, hubs: Hubs
    ) -> "Replicas":
        from proxy.api.replicas import Replicas  # with PostgreSQL's client, which few have

        peer = peer_at(self._config.database.url, owner)
        return Replicas(peer, self._database, recorder, keyring, vault, hubs)

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
        operator_socket.remove(self._operator_path)

    @web.middleware
    async def _refuse_while_stopping(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if not self._stopping:
            return await handler(request)
        message = "the server is being stopped; call again when it is back"
        response = error_response(503, "stopping", message, retry_after_s=1)
        response.force_close()
        return response
