"""A server: opened on its sockets, drained and closed; assembly.py puts it together."""

import asyncio
import socket
from collections.abc import Sequence
from typing import cast

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from proxy import operator_socket
from proxy.api.eraser import Eraser
from proxy.assembly import assemble
from proxy.capture import Budget
from proxy.config import Config
from proxy.errors import error_response
from proxy.forward import Forwarder
from proxy.guard import Handler
from proxy.keyring import Keyring
from proxy.listen import BACKLOG, listen, most_connections
from proxy.reaper import Clients, Door, Patience
from proxy.recorder import Recorder
from proxy.send import MAX_HELD_BYTES
from proxy.tasks import spawn
from storage.database import Database


class Traceway:
    """A server: open it with `start`, close it with `stop`.

    In between `recorder` saves its calls, `keyring` knows who may make them, and `eraser` erases.
    From `stop` on new calls are refused, also those that come on connections that are there. `held`
    bounds what requests hold that are whole here.
    """

    recorder: Recorder
    keyring: Keyring
    eraser: Eraser

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
        sockets = [private] if private else sockets or listen(self._config.server)
        parts = await assemble(
            self._config,
            self._database,
            self.held,
            self._refuse_while_stopping,
            private=private is not None,
        )
        self.recorder, self.keyring, self.eraser = parts.recorder, parts.keyring, parts.eraser
        self._forwarder = parts.forwarder
        self._runner = web.AppRunner(
            parts.app,
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
