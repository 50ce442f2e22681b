"""How a command reaches a server: over HTTP by its address, or by the operator's socket.

In this order: where `--url` or `--port` says; by the socket beside the configured database, if a
server listens there; at the configured address. What manages never goes by the latter: where no
server runs it has the application start, for as long as it takes, with a socket of its own; so it
always does where the database is PostgreSQL's, which is no server's alone.
Invariant: a key comes out of the environment, and goes only where a key is asked for.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

from proxy import operator_socket
from proxy.cli.client import KEY_VARIABLE, Client, NoAnswer
from proxy.config import Config

# Starts the application for one command, and gives the Unix socket where it listens.
Alone = Callable[[Config], AbstractAsyncContextManager[Path]]

# A server that starts has the database a second or two before it listens; another command, for
# less than one.
WAIT_S: Final = 5.0
_AGAIN_S: Final = 0.05
_HERE: Final = MappingProxyType({"0.0.0.0": "127.0.0.1", "::": "::1"})  # noqa: S104 (no binding)


class Taken(Exception):
    """Another process has the database; the text says which."""


@asynccontextmanager
async def reached(
    config: Config, options: argparse.Namespace, alone: Alone | None = None
) -> AsyncIterator[Client]:
    """Open a connection to the server that a command is for.

    Raises:
        NoAnswer: there is none, and there cannot be.
    """
    key = _key()
    project = getattr(options, "project", None)
    async with AsyncExitStack() as stack:
        if options.url or options.port is not None:
            client = Client(options.url or _configured(config), key=key, project=project)
        elif alone is not None:
            socket = await stack.enter_async_context(_managed(config, alone))
            client = Client(socket=socket, project=project)
        elif key is None and (path := _socket(config)) is not None and _listens(path):
            client = Client(socket=path, project=project)
        else:
            client = Client(_configured(config), key=key, project=project)
        yield await stack.enter_async_context(client)


def _socket(config: Config) -> Path | None:
    """Give where the socket of a server is; there is none beside a database of PostgreSQL."""
    return None if config.database.url else operator_socket.path_of(config.database.path)


def _key() -> str | None:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable()):
        raise NoAnswer(f"what {KEY_VARIABLE} holds is no key: keys begin with tw_sk_")
    return key


def _configured(config: Config) -> str:
    # Who listens everywhere is here too.
    host = _HERE.get(config.server.host, config.server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}"


def _listens(path: Path) -> bool:
    try:
        return operator_socket.is_there(path)
    except PermissionError:  # another user's server: with a key, as from any other machine
        return False


@asynccontextmanager
async def _managed(config: Config, alone: Alone) -> AsyncIterator[Path]:
    """Give the socket of whoever has the database, or of an application that takes it."""
    path = _socket(config)
    if path is None:
        async with alone(config) as own:
            yield own
        return
    until = time.monotonic() + WAIT_S
    async with AsyncExitStack() as stack:
        while True:
            try:
                if operator_socket.is_there(path):
                    break
                path = await stack.enter_async_context(alone(config))
                break
            except PermissionError:
                raise NoAnswer(
                    f"the socket {path} is another user's: run this as they do, or with --url and"
                    f" an admin key in {KEY_VARIABLE}"
                ) from None
            except Taken as taken:
                if time.monotonic() > until:
                    raise NoAnswer(str(taken)) from None
            await asyncio.sleep(_AGAIN_S)
        yield path
